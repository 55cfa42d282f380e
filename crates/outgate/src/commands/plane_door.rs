//! A door for other processes, as the configuration file has it: `listen.xds`, `listen.minter`.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use outgate_config::{DoorPlace, PlaneDoor, TlsFiles};
use outgate_xds::{Door, TlsDoor, TlsParts};
use zeroize::Zeroizing;

use super::files::read;

/// A door before it is opened. On TCP its socket is bound, so that it is known before anything is let out.
pub(super) enum Bound {
    Socket(PathBuf),
    Tcp(TcpListener, TlsDoor),
}

/// Binds a door; `key` is its place in the file.
///
/// # Errors
/// What stands in the way.
pub(super) fn bind(door: &PlaneDoor, key: &'static str) -> Result<Bound> {
    let (address, tls, client_ca) = match &door.place {
        DoorPlace::Socket(path) => return Ok(Bound::Socket(path.clone())),
        DoorPlace::Tcp {
            address,
            tls,
            client_ca,
        } => (address, tls, client_ca),
    };
    let listener =
        TcpListener::bind(address).with_context(|| format!("{key}: cannot listen on {address}"))?;
    let [chain, key_pem, ca] = read_all(tls, client_ca)?;
    let tls = TlsDoor::new(&chain, &key_pem, &ca, &door.clients).context(key)?;
    Ok(Bound::Tcp(listener, tls))
}

impl Bound {
    /// Its socket, where it is on TCP.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(_) => None,
            Self::Tcp(listener, _) => listener.local_addr().ok(),
        }
    }

    /// The door, what it presents where it is on TCP, and its place in words. To be called within a runtime.
    ///
    /// # Errors
    /// What stands in the way.
    pub(super) fn open(self, key: &'static str) -> Result<(Door, Option<TlsDoor>, String)> {
        match self {
            Self::Socket(path) => {
                let door = Door::unix(&path).context(key)?;
                Ok((door, None, path.display().to_string()))
            }
            Self::Tcp(listener, tls) => {
                let place = listener.local_addr()?.to_string();
                let door = Door::tcp(listener, tls.clone()).context(key)?;
                Ok((door, Some(tls), place))
            }
        }
    }
}

/// What a door presents and whom it lets in, by another configuration: read and good.
pub(super) struct Renewed {
    parts: Option<TlsParts>,
    clients: Vec<String>,
}

/// Reads it again. Nothing changes by it.
///
/// # Errors
/// What cannot be read or used.
pub(super) fn renew(door: &PlaneDoor, key: &'static str) -> Result<Renewed> {
    let parts = match &door.place {
        DoorPlace::Tcp { tls, client_ca, .. } => {
            let [chain, key_pem, ca] = read_all(tls, client_ca)?;
            Some(TlsParts::read(&chain, &key_pem, &ca).context(key)?)
        }
        DoorPlace::Socket(_) => None,
    };
    Ok(Renewed {
        parts,
        clients: door.clients.clone(),
    })
}

impl Renewed {
    /// Puts it in force. Who is connected and is not let in any more is cut at once.
    pub(super) fn put_in_force(self, tls: &TlsDoor) {
        if let Some(parts) = self.parts {
            tls.present(parts);
        }
        tls.set_names(&self.clients);
    }
}

fn read_all(tls: &TlsFiles, client_ca: &Path) -> Result<[Zeroizing<Vec<u8>>; 3]> {
    Ok([read(&tls.certificate)?, read(&tls.key)?, read(client_ca)?])
}

/// Whether two doors are in one place: what they present and whom they let in may differ.
pub(super) fn is_one_place(one: &PlaneDoor, other: &PlaneDoor) -> bool {
    match (&one.place, &other.place) {
        (DoorPlace::Socket(one), DoorPlace::Socket(other)) => one == other,
        (DoorPlace::Tcp { address: one, .. }, DoorPlace::Tcp { address: other, .. }) => {
            one == other
        }
        _ => false,
    }
}

/// The files that are read with a door's configuration.
pub(super) fn files(door: &PlaneDoor) -> Vec<PathBuf> {
    match &door.place {
        DoorPlace::Tcp { tls, client_ca, .. } => {
            vec![tls.certificate.clone(), tls.key.clone(), client_ca.clone()]
        }
        DoorPlace::Socket(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_tcp(folder: &Path) -> PlaneDoor {
        let signed = rcgen::generate_simple_self_signed(vec!["door.test".to_owned()]).unwrap();
        std::fs::write(folder.join("crt"), signed.cert.pem()).unwrap();
        std::fs::write(folder.join("key"), signed.signing_key.serialize_pem()).unwrap();
        let tls = TlsFiles {
            certificate: folder.join("crt"),
            key: folder.join("key"),
        };
        PlaneDoor {
            place: DoorPlace::Tcp {
                address: "127.0.0.1:0".parse().unwrap(),
                tls,
                client_ca: folder.join("crt"),
            },
            clients: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_door_says_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let bound = bind(&on_tcp(folder.path()), "listen.test").unwrap();
        let address = bound.address().unwrap();
        let (door, tls, place) = bound.open("listen.test").unwrap();
        assert_ne!(address.port(), 0);
        assert_eq!(
            (door.address(), place),
            (Some(address), address.to_string())
        );
        assert!(tls.is_some());

        let path = folder.path().join("door.sock");
        let door = PlaneDoor {
            place: DoorPlace::Socket(path.clone()),
            clients: Vec::new(),
        };
        assert!(files(&door).is_empty());
        let bound = bind(&door, "listen.test").unwrap();
        assert_eq!(bound.address(), None);
        let (door, tls, place) = bound.open("listen.test").unwrap();
        assert_eq!((door.address(), place), (None, path.display().to_string()));
        assert!(tls.is_none());
    }

    #[test]
    fn a_door_that_cannot_be_bound_or_renewed_says_which_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let door = on_tcp(folder.path());
        assert_eq!(files(&door).len(), 3);
        std::fs::write(folder.path().join("key"), "no key").unwrap();
        for error in [
            bind(&door, "listen.test").err(),
            renew(&door, "listen.test").err(),
        ] {
            let told = format!("{:#}", error.unwrap());
            assert!(told.starts_with("listen.test: "), "{told}");
            assert!(!told.contains("no key"), "{told}");
        }
    }
}
