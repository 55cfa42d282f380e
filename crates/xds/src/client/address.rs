//! Where the server is, and how we show who we are.

use std::{path::PathBuf, sync::Arc};

use http::Uri;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use zeroize::Zeroizing;

use super::SecretFault;
use crate::tls::client_config;

/// A server of secrets.
pub enum Target {
    /// On this machine.
    Unix(PathBuf),
    /// Anywhere, over mutual TLS.
    Tcp {
        /// A name or an address.
        host: String,
        /// Its port.
        port: u16,
        /// What its certificate has to say, where that is not the host.
        server_name: Option<String>,
        /// The CA that its certificate has to be of.
        ca_pem: Vec<u8>,
        /// Our certificate chain.
        certificate_pem: Vec<u8>,
        /// Our key.
        key_pem: Zeroizing<Vec<u8>>,
    },
}

/// A target that has been looked at.
pub(super) struct Address {
    pub(super) place: Place,
    pub(super) origin: Uri,
}

pub(super) enum Place {
    Unix(PathBuf),
    Tcp {
        host: String,
        port: u16,
        name: ServerName<'static>,
        tls: Arc<ClientConfig>,
    },
}

impl Address {
    pub(super) fn of(target: Target) -> Result<Self, SecretFault> {
        match target {
            Target::Unix(path) => Ok(Self {
                place: Place::Unix(path),
                origin: Uri::from_static("http://localhost"),
            }),
            Target::Tcp {
                host,
                port,
                server_name,
                ca_pem,
                certificate_pem,
                key_pem,
            } => {
                let fault = |text: &str| SecretFault::Target(text.to_owned());
                let tls = client_config(&ca_pem, &certificate_pem, &key_pem)
                    .map_err(|fault| SecretFault::Target(fault.to_string()))?;
                let called = server_name.as_ref().unwrap_or(&host);
                let called = called.trim_start_matches('[').trim_end_matches(']');
                let name = ServerName::try_from(called.to_owned())
                    .map_err(|_| fault("the server's name is none"))?;
                let authority = match called.contains(':') {
                    true => format!("https://[{called}]:{port}"),
                    false => format!("https://{called}:{port}"),
                };
                let origin = authority
                    .parse()
                    .map_err(|_| fault("the server's name is none"))?;
                let host = host
                    .trim_start_matches('[')
                    .trim_end_matches(']')
                    .to_owned();
                Ok(Self {
                    place: Place::Tcp {
                        host,
                        port,
                        name,
                        tls,
                    },
                    origin,
                })
            }
        }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "Unix({})", path.display()),
            Self::Tcp { host, port, .. } => write!(f, "Tcp({host}:{port})"),
        }
    }
}
