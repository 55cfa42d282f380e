//! Data planes in other processes: where they connect, what Envoy's configuration says, where leaves come from.

use std::{net::SocketAddr, path::PathBuf};

use outgate_journey::policy::{PlaneAddress, TlsFiles};

/// Where data planes connect, or those that want leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaneDoor {
    /// Its place.
    pub place: DoorPlace,
    /// Who may connect, by a name in their certificates; empty: all that the door's CA vouches for. A Unix socket shows
    /// no certificates, so none is named there.
    pub clients: Vec<String>,
}

/// The place of a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DoorPlace {
    /// A Unix socket, at most 107 bytes, for this gateway's own user.
    Socket(PathBuf),
    /// TCP with mutual TLS.
    Tcp {
        /// The socket; port 0 lets the kernel choose.
        address: SocketAddr,
        /// What the door identifies itself with.
        tls: TlsFiles,
        /// A PEM file with the roots of the clients' certificates.
        client_ca: PathBuf,
    },
}

/// Another process that stamps the leaves and alone holds the CA's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinterSource {
    /// Where it is.
    pub address: PlaneAddress,
    /// A PEM file with the certificate of the CA that signs the leaves: what guests trust.
    pub leaf_ca: PathBuf,
}

/// What the rendered configuration of Envoy says. Paths are those of the machine that Envoy runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvoyConfig {
    /// Sockets of its explicit proxy; this or `transparent` has at least one. Port 0 lets the kernel choose.
    pub proxy: Vec<SocketAddr>,
    /// Sockets for captured connections, whose destination is the original one.
    pub transparent: Vec<SocketAddr>,
    /// Its administration interface.
    pub admin: Option<EnvoyAdmin>,
    /// How it reaches `listen.xds`; `None`: by the socket that `listen.xds` names. There if that is no socket.
    pub control: Option<PlaneAddress>,
    /// Whether answers of destinations that inject go through this gateway, to lose the credential.
    pub scrub: bool,
}

impl EnvoyConfig {
    /// The sockets on which it listens, as far as the file says which: no guest is let through to them.
    #[must_use]
    pub fn sockets(&self) -> Vec<SocketAddr> {
        let admin = match &self.admin {
            Some(EnvoyAdmin::Tcp(address)) => Some(*address),
            _ => None,
        };
        [&self.proxy, &self.transparent]
            .into_iter()
            .flatten()
            .copied()
            .chain(admin)
            .filter(|address| address.port() != 0)
            .collect()
    }
}

/// Where Envoy's administration interface listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvoyAdmin {
    /// TCP, in clear and without any identity; never port 0.
    Tcp(SocketAddr),
    /// A Unix socket, at most 107 bytes.
    Socket(PathBuf),
}
