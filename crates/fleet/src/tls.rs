//! Mutual TLS as it is spoken here: version 1.3, and what is wrong with its files in this crate's words.

use std::sync::Arc;

use outgate_mutual::{Pem, TlsFault};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion, version::TLS13};

use crate::error::FleetError;

/// Both sides are of our making.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13];

/// What the control plane presents, and whom it lets in.
#[derive(Clone)]
pub struct ServerTls(pub(crate) Arc<ServerConfig>);

impl ServerTls {
    /// Reads its certificate chain and key, and the CA that every gateway's certificate has to be of. All PEM.
    ///
    /// # Errors
    /// [`FleetError`].
    pub fn from_pem(certificate: &[u8], key: &[u8], client_ca: &[u8]) -> Result<Self, FleetError> {
        let pem = Pem {
            certificate,
            key,
            ca: client_ca,
            ca_is: "gateways' CA",
        };
        Ok(Self(outgate_mutual::server_config(pem, VERSIONS)?))
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerTls(..)")
    }
}

/// What a gateway presents, and whom it takes for the control plane.
pub(crate) fn client_config(
    ca: &[u8],
    certificate: &[u8],
    key: &[u8],
) -> Result<Arc<ClientConfig>, FleetError> {
    let pem = Pem {
        certificate,
        key,
        ca,
        ca_is: "control plane's CA",
    };
    Ok(outgate_mutual::client_config(pem, VERSIONS)?)
}

impl From<TlsFault> for FleetError {
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
        let server = ServerTls::from_pem(b"", b"", b"").unwrap_err();
        let client = client_config(b"", b"", b"").unwrap_err();
        for (fault, text) in [
            (server, "the gateways' CA has no certificate in PEM form"),
            (
                client,
                "the control plane's CA has no certificate in PEM form",
            ),
            (
                TlsFault::NoCertificate("certificate file").into(),
                "the certificate file has no certificate in PEM form",
            ),
            (
                TlsFault::NoKey.into(),
                "the key file has no private key in PEM form",
            ),
            (
                TlsFault::Unusable("why".to_owned()).into(),
                "the certificate or the key cannot be used: why",
            ),
        ] {
            assert_eq!(fault.to_string(), text);
        }
    }
}
