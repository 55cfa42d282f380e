//! Mutual TLS as it is spoken here: what a door presents and whom it lets in, both changed while it is open; and what is
//! wrong with its files in this crate's words.

use std::sync::Arc;

use arc_swap::ArcSwap;
use outgate_mutual::{Allowed, Pem, TlsFault};
use rustls::{
    ClientConfig, ServerConfig, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use tokio::sync::watch;

use crate::fault::DoorFault;

/// Both that are safe: a data plane is not always of our making.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// What a door on TCP presents, and whom it lets in. All who hold a clone see what is changed through one.
#[derive(Clone)]
pub struct TlsDoor(Arc<Inner>);

/// A door's certificate, its key and the CA of its clients, read and good.
pub struct TlsParts(Arc<ServerConfig>);

impl TlsParts {
    /// Reads them; all PEM.
    ///
    /// # Errors
    /// [`DoorFault`].
    pub fn read(
        certificate_pem: &[u8],
        key_pem: &[u8],
        client_ca_pem: &[u8],
    ) -> Result<Self, DoorFault> {
        server_config(certificate_pem, key_pem, client_ca_pem).map(Self)
    }
}

impl std::fmt::Debug for TlsParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsParts(..)")
    }
}

struct Inner {
    config: ArcSwap<ServerConfig>,
    names: watch::Sender<Arc<Allowed>>,
}

impl TlsDoor {
    /// Reads its certificate chain and key, and the CA that every client's certificate has to be of; all PEM. Where
    /// names are given, one of them has to be among the certificate's (DNS names and URIs).
    ///
    /// # Errors
    /// [`DoorFault`].
    pub fn new(
        certificate_pem: &[u8],
        key_pem: &[u8],
        client_ca_pem: &[u8],
        names: &[String],
    ) -> Result<Self, DoorFault> {
        let config = server_config(certificate_pem, key_pem, client_ca_pem)?;
        Ok(Self(Arc::new(Inner {
            config: ArcSwap::from(config),
            names: watch::Sender::new(allowed(names)),
        })))
    }

    /// Uses another certificate or CA for connections from here on; older ones end within an hour.
    ///
    /// # Errors
    /// [`DoorFault`]; the one before is used on then.
    pub fn replace(
        &self,
        certificate_pem: &[u8],
        key_pem: &[u8],
        client_ca_pem: &[u8],
    ) -> Result<(), DoorFault> {
        self.present(TlsParts::read(certificate_pem, key_pem, client_ca_pem)?);
        Ok(())
    }

    /// As [`Self::replace`], with what was read before.
    pub fn present(&self, parts: TlsParts) {
        self.0.config.store(parts.0);
    }

    /// Lets in these alone; none: everybody whom the CA gave a certificate. Who is connected and not on the list is cut
    /// at once.
    pub fn set_names(&self, names: &[String]) {
        let names = allowed(names);
        self.0.names.send_if_modified(|old| {
            let changed = *old != names;
            *old = names;
            changed
        });
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.0.config.load_full()
    }

    /// Tells when the list has changed.
    pub(crate) fn list(&self) -> watch::Receiver<Arc<Allowed>> {
        self.0.names.subscribe()
    }

    /// By which of a certificate's names its holder is known here, if it is let in at all.
    pub(crate) fn admit(&self, names: &[Arc<str>]) -> Option<Arc<str>> {
        self.0.names.borrow().admit(names)
    }
}

impl std::fmt::Debug for TlsDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsDoor(..)")
    }
}

fn allowed(names: &[String]) -> Arc<Allowed> {
    Arc::new(match names {
        [] => Allowed::everybody(),
        names => Allowed::only(names.iter().cloned()),
    })
}

fn server_config(
    certificate: &[u8],
    key: &[u8],
    client_ca: &[u8],
) -> Result<Arc<ServerConfig>, DoorFault> {
    let pem = Pem {
        certificate,
        key,
        ca: client_ca,
        ca_is: "clients' CA",
    };
    Ok(outgate_mutual::server_config(pem, VERSIONS)?)
}

/// What we present as a client, and whom we take for the server.
pub(crate) fn client_config(
    ca: &[u8],
    certificate: &[u8],
    key: &[u8],
) -> Result<Arc<ClientConfig>, DoorFault> {
    let pem = Pem {
        certificate,
        key,
        ca,
        ca_is: "server's CA",
    };
    Ok(outgate_mutual::client_config(pem, VERSIONS)?)
}

impl From<TlsFault> for DoorFault {
    fn from(fault: TlsFault) -> Self {
        match fault {
            TlsFault::NoCertificate(of) => Self::NoCertificate(of),
            TlsFault::NoKey => Self::NoKey,
            TlsFault::Unusable(why) => Self::Unusable(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_said_in_these_words() {
        let server = TlsParts::read(b"", b"", b"").unwrap_err();
        let client = client_config(b"", b"", b"").unwrap_err();
        for (fault, text) in [
            (server, "there is no certificate in the clients' CA"),
            (client, "there is no certificate in the server's CA"),
            (
                TlsFault::NoCertificate("certificate file").into(),
                "there is no certificate in the certificate file",
            ),
            (
                TlsFault::NoKey.into(),
                "there is no private key in the key file",
            ),
            (TlsFault::Unusable("why".to_owned()).into(), "why"),
        ] {
            assert_eq!(fault.to_string(), text);
        }
    }
}
