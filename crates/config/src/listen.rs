//! Where others connect to this gateway, and the control plane that it follows.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use outgate_journey::policy::TlsFiles;

use crate::{PlaneDoor, WebUrl};

/// Where others connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Sockets of the explicit proxy; none if the file does not say, which is enough for `outgate run` and where only
    /// data planes, other gateways or a minter's clients are served. Port 0 lets the kernel choose.
    pub proxy: Vec<SocketAddr>,
    /// Sockets for captured connections, which the kernel knows the original destination of. Port 0 lets the kernel choose.
    pub transparent: Vec<SocketAddr>,
    /// Where counts can be read, in clear and by whoever can connect; none if the file does not say. Port 0 lets the kernel
    /// choose.
    pub metrics: Vec<SocketAddr>,
    /// Connections of guests open at once, over all listeners; at least 1.
    pub max_connections: usize,
    /// Where operators connect, besides the socket in the state directory.
    pub operator: Option<OperatorListen>,
    /// Where gateways connect that follow this one.
    pub control: Option<ControlListen>,
    /// Where data planes connect: Envoys, and other clients of the Secret Discovery Service.
    pub xds: Option<PlaneDoor>,
    /// Where those connect that want leaves; opened by `outgate minter` alone.
    pub minter: Option<PlaneDoor>,
}

impl Listen {
    /// Connections open at once, where nothing is said.
    pub(crate) const MAX_CONNECTIONS: usize = 10_000;

    pub(crate) const fn nowhere() -> Self {
        Self {
            proxy: Vec::new(),
            transparent: Vec::new(),
            metrics: Vec::new(),
            max_connections: Self::MAX_CONNECTIONS,
            operator: None,
            control: None,
            xds: None,
            minter: None,
        }
    }

    /// Whether guests are served by what listens here: to the proxy, captured, or through data planes.
    #[must_use]
    pub fn serves_guests(&self) -> bool {
        !self.proxy.is_empty() || !self.transparent.is_empty() || self.xds.is_some()
    }
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
