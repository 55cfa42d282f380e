//! Which upstream credential a rule attaches, and how, and where it comes from. Names, places and forms; never the
//! secret.

use std::{fmt, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use http::HeaderName;

/// The name of an upstream credential in the configuration; never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialName(Arc<str>);

impl CredentialName {
    /// A credential's name.
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an upstream credential comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// An environment variable of the gateway, read once at start.
    Env(String),
    /// A file, watched. One trailing line break is not part of the value.
    File(PathBuf),
    /// A server that speaks Envoy's Secret Discovery Service.
    Sds(SdsSource),
}

/// A generic secret on a server that speaks the Secret Discovery Service (SDS, `envoy.service.secret.v3`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SdsSource {
    /// The server.
    pub address: PlaneAddress,
    /// The secret's name there.
    pub name: String,
    /// How long a value is good for after it last came from there, not zero; `None`: until the server takes it back.
    pub max_age: Option<Duration>,
}

/// Where this gateway connects as a client of another process that holds secrets: a minter, a store of credentials.
/// Over a network both sides prove who they are (mutual TLS); on a Unix socket its folder and mode decide.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PlaneAddress {
    /// A Unix socket, at most 107 bytes.
    Socket(PathBuf),
    /// TCP with mutual TLS.
    Tcp {
        /// A name in its canonical spelling, or an IP address without brackets.
        host: String,
        /// The port, not 0.
        port: u16,
        /// A PEM file with the roots of the server's certificate.
        ca: PathBuf,
        /// What this gateway identifies itself with.
        identity: TlsFiles,
        /// The name or IP address in the server's certificate; `None`: `host`.
        server_name: Option<String>,
    },
}

/// `unix:/run/vault/sds.sock`, `vault.example.org:8443`, `[::1]:8443`.
impl fmt::Display for PlaneAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port, .. } => match host.parse::<IpAddr>() {
                Ok(IpAddr::V6(address)) => write!(f, "[{address}]:{port}"),
                _ => write!(f, "{host}:{port}"),
            },
        }
    }
}

/// A certificate with its chain and its private key, both PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsFiles {
    /// The certificate and its chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// How an upstream credential is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// Which credential.
    pub credential: CredentialName,
    /// Where it goes.
    pub form: InjectionForm,
    /// Whether the rule lets the credential leave without TLS.
    pub over_plaintext: bool,
}

/// Where a credential goes in the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InjectionForm {
    /// A header field whose value is `prefix`, the credential, `suffix`.
    Header {
        /// The field.
        name: HeaderName,
        /// Text before the credential.
        prefix: String,
        /// Text after it.
        suffix: String,
    },
    /// `Authorization: Basic` (RFC 7617) with this user name and the credential as the password.
    Basic {
        /// The user name; no colon.
        username: String,
    },
    /// A query parameter.
    Query {
        /// The parameter's name, as it stands in the URL.
        parameter: String,
    },
}
