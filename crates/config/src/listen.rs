//! Where others connect to this gateway, and the control plane that it follows.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::WebUrl;

/// Where others connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Sockets of the explicit proxy; none if the file does not say, which is enough for `outgate run`. Port 0 lets the
    /// kernel choose.
    pub proxy: Vec<SocketAddr>,
    /// Connections of guests open at once, over all listeners; at least 1.
    pub max_connections: usize,
    /// Where operators connect, besides the socket in the state directory.
    pub operator: Option<OperatorListen>,
    /// Where gateways connect that follow this one.
    pub control: Option<ControlListen>,
}

impl Listen {
    /// Connections open at once, where nothing is said.
    pub(crate) const MAX_CONNECTIONS: usize = 10_000;

    pub(crate) const fn nowhere() -> Self {
        Self {
            proxy: Vec::new(),
            max_connections: Self::MAX_CONNECTIONS,
            operator: None,
            control: None,
        }
    }
}

/// A certificate with its chain and its private key, both PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Where operators connect, over HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorListen {
    /// The socket; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// What the listener identifies itself with.
    pub tls: TlsFiles,
}

/// Where gateways connect that follow this one, over mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlListen {
    /// The socket; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// What the listener identifies itself with.
    pub tls: TlsFiles,
    /// A PEM file with the roots of the gateways' certificates.
    pub client_ca: PathBuf,
    /// The gateways that may follow, by a name in their certificates; empty: all that `client_ca` vouches for.
    pub gateways: Vec<String>,
}

/// The control plane that this gateway follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// Where it listens; `https`, without a path.
    pub url: WebUrl,
    /// A PEM file with the roots of its certificate.
    pub ca: PathBuf,
    /// What this gateway identifies itself with.
    pub tls: TlsFiles,
    /// The age of the denylist, 1 second to 10 minutes, from which on no credential is attached.
    pub max_staleness: Duration,
}
