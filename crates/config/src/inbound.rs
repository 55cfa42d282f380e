//! What this gateway lets in: listeners in front of a service, for callers whose tokens verify.

use std::{fmt, net::SocketAddr, path::PathBuf};

use http::Method;
use outgate_journey::{name::HostName, path::PathPattern, policy::TlsFiles};

use crate::{Algorithm, IssuerKeys};

/// A listener in front of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// The socket; port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// What the listener identifies itself with; `None`: callers speak plain HTTP.
    pub tls: Option<TlsFiles>,
    /// The service.
    pub to: InboundTarget,
    /// The hosts that a request may name; empty: any.
    pub hosts: Vec<HostName>,
    /// Whose tokens are taken; at least one, and no issuer occurs twice.
    pub issuers: Vec<CallerIssuer>,
    /// What needs no token.
    pub exempt: Vec<Exemption>,
    /// Whether the service gets the token that verified.
    pub forward_token: bool,
    /// Connections open at once; at least 1.
    pub max_connections: usize,
}

impl Inbound {
    /// Connections open at once, where nothing is said.
    pub(crate) const MAX_CONNECTIONS: usize = 1_000;

    /// What of it is opened once.
    pub(crate) const fn place(&self) -> (SocketAddr, bool, usize) {
        (self.listen, self.tls.is_some(), self.max_connections)
    }
}

/// The service behind a listener: the one place that its requests go to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InboundTarget {
    /// Whether TLS is spoken to it.
    pub is_tls: bool,
    /// Whether HTTP/2 is spoken to it: by ALPN within TLS, with prior knowledge in clear.
    pub is_http2: bool,
    /// Its name or address, an IPv6 address in brackets, and its port.
    pub authority: String,
}

/// As a URL.
impl fmt::Display for InboundTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

/// One issuer whose tokens are taken for callers'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerIssuer {
    /// The `iss` of its tokens, exactly.
    pub issuer: String,
    /// One of these must be among the `aud` of a token; at least one.
    pub audiences: Vec<String>,
    /// Where its keys are.
    pub keys: IssuerKeys,
    /// The signature algorithms that are taken; at least one.
    pub algorithms: Vec<Algorithm>,
    /// The way to the claim with the caller's name: `sub`.
    pub subject_claim: String,
    /// A PEM file with the roots of its servers; `None`: the system's.
    pub ca: Option<PathBuf>,
}

/// Requests that need no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemption {
    /// With one of these methods; at least one.
    pub methods: Vec<Method>,
    /// To one of these paths; at least one.
    pub paths: Vec<PathPattern>,
}
