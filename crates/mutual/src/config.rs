//! What a side presents, and whom it takes for the other: PEM files, read into what rustls works by.

use std::sync::Arc;

use outgate_clock::CertificateTime;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, crypto::CryptoProvider,
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// HTTP/2 is all that is spoken.
pub const ALPN: &[u8] = b"h2";

/// One side's files, as read; all PEM.
#[derive(Clone, Copy)]
pub struct Pem<'a> {
    /// The certificate chain that it presents.
    pub certificate: &'a [u8],
    /// The key of that.
    pub key: &'a [u8],
    /// The CA that the other side's certificate has to be of.
    pub ca: &'a [u8],
    /// What that is called where it cannot be read.
    pub ca_is: &'static str,
}

/// Why files cannot be used. Whoever read them has the words for it; no secret is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsFault {
    /// This file has no certificate.
    NoCertificate(&'static str),
    /// The key file has no private key.
    NoKey,
    /// The TLS library refuses the certificate, the key or the CA: what it says.
    Unusable(String),
}

/// For the side that listens: lets in whoever has a certificate of the CA, and nobody without one.
///
/// # Errors
/// [`TlsFault`].
pub fn server_config(
    pem: Pem<'_>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Arc<ServerConfig>, TlsFault> {
    let provider = provider();
    let roots = Arc::new(roots(pem.ca, pem.ca_is)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(unusable)?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(CertificateTime))
        .with_protocol_versions(versions)
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(pem.certificate)?, private_key(pem.key)?)
        .map_err(unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// For the side that connects: takes for the server whoever has a certificate of the CA and the name that is asked for.
///
/// # Errors
/// [`TlsFault`].
pub fn client_config(
    pem: Pem<'_>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Arc<ClientConfig>, TlsFault> {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(CertificateTime))
        .with_protocol_versions(versions)
        .map_err(unusable)?
        .with_root_certificates(roots(pem.ca, pem.ca_is)?)
        .with_client_auth_cert(chain(pem.certificate)?, private_key(pem.key)?)
        .map_err(unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(pem: &[u8], of: &'static str) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| TlsFault::NoCertificate(of))?;
        roots.add(certificate).map_err(unusable)?;
    }
    if roots.is_empty() {
        return Err(TlsFault::NoCertificate(of));
    }
    Ok(roots)
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    const OF: &str = "certificate file";
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsFault::NoCertificate(OF))?;
    if chain.is_empty() {
        return Err(TlsFault::NoCertificate(OF));
    }
    Ok(chain)
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsFault> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsFault::NoKey)
}

fn unusable(error: impl std::fmt::Display) -> TlsFault {
    TlsFault::Unusable(error.to_string())
}

#[cfg(test)]
mod tests {
    use rustls::{
        HandshakeKind,
        client::Resumption,
        version::{TLS12, TLS13},
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::testing::{Ca, Identity};

    /// Both sides' word on one connection over which a byte went either way: the first failure, or the server's view
    /// of the handshake.
    async fn meet(
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
    ) -> std::io::Result<Option<HandshakeKind>> {
        let (near, far) = duplex(64 * 1024);
        let serve = async {
            let mut stream = TlsAcceptor::from(Arc::clone(server)).accept(near).await?;
            let kind = stream.get_ref().1.handshake_kind();
            stream.write_u8(1).await?;
            stream.flush().await?;
            stream.read_u8().await?;
            Ok(kind)
        };
        let ask = async {
            let name = "server.test".try_into().unwrap();
            let mut stream = TlsConnector::from(Arc::clone(client))
                .connect(name, far)
                .await?;
            stream.read_u8().await?;
            stream.write_u8(1).await?;
            stream.flush().await
        };
        let (served, asked) = tokio::join!(serve, ask);
        asked.and(served)
    }

    fn pem<'a>(identity: &'a Identity, ca: &'a str) -> Pem<'a> {
        Pem {
            certificate: identity.certificate.as_bytes(),
            key: identity.key.as_bytes(),
            ca: ca.as_bytes(),
            ca_is: "clients' CA",
        }
    }

    #[tokio::test]
    async fn only_the_versions_that_were_named_are_spoken() {
        let ca = Ca::new();
        let (server, client) = (ca.server(), ca.client(&["a.test"]));
        let (newer, both) = (&[&TLS13][..], &[&TLS13, &TLS12][..]);
        for (listens, asks, meet_each_other) in [
            (newer, newer, true),
            (newer, &[&TLS12][..], false),
            (both, &[&TLS12][..], true),
            (&[&TLS12][..], newer, false),
            (&[&TLS12][..], both, true),
        ] {
            let server = server_config(pem(&server, &ca.pem), listens).unwrap();
            let client = client_config(pem(&client, &ca.pem), asks).unwrap();
            let met = meet(&server, &client).await;
            assert_eq!(met.is_ok(), meet_each_other, "{listens:?} {asks:?}");
        }
    }

    #[tokio::test]
    async fn each_side_wants_a_certificate_of_its_ca() {
        let (ca, other) = (Ca::new(), Ca::new());
        let (server, client) = (ca.server(), ca.client(&["a.test"]));
        let theirs = other.client(&["a.test"]);
        for (listens, asks, meet_each_other) in [
            (pem(&server, &ca.pem), pem(&client, &ca.pem), true),
            (pem(&server, &ca.pem), pem(&theirs, &ca.pem), false),
            (pem(&server, &other.pem), pem(&theirs, &ca.pem), true),
            (pem(&server, &ca.pem), pem(&client, &other.pem), false),
            // A server's certificate is no client's, and the other way round.
            (pem(&server, &ca.pem), pem(&server, &ca.pem), false),
            (pem(&client, &ca.pem), pem(&client, &ca.pem), false),
        ] {
            let server = server_config(listens, &[&TLS13]).unwrap();
            let client = client_config(asks, &[&TLS13]).unwrap();
            assert_eq!(meet(&server, &client).await.is_ok(), meet_each_other);
        }
        let server = server_config(pem(&server, &ca.pem), &[&TLS13]).unwrap();
        let nobody = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots(ca.pem.as_bytes(), "").unwrap())
            .with_no_client_auth();
        assert!(meet(&server, &Arc::new(nobody)).await.is_err());
    }

    #[tokio::test]
    async fn no_connection_is_resumed() {
        let ca = Ca::new();
        let (server, client) = (ca.server(), ca.client(&["a.test"]));
        for version in [&TLS12, &TLS13] {
            let ours = server_config(pem(&server, &ca.pem), &[version]).unwrap();
            let asking = client_config(pem(&client, &ca.pem), &[version]).unwrap();
            let mut keen = (*asking).clone();
            keen.resumption = Resumption::default();
            let keen = Arc::new(keen);
            let mut keeps = (*ours).clone();
            keeps.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
            keeps.send_tls13_tickets = 2;
            let keeps = Arc::new(keeps);
            for (server, client, resumed) in [
                (&ours, &keen, false),
                (&keeps, &asking, false),
                // Both must be willing: so the two above could have failed.
                (&keeps, &keen, true),
            ] {
                meet(server, client).await.unwrap();
                let again = meet(server, client).await.unwrap();
                assert_eq!(again == Some(HandshakeKind::Resumed), resumed);
            }
        }
    }

    #[test]
    fn a_file_that_is_missing_or_not_what_it_should_be_is_named() {
        let ca = Ca::new();
        let (server, other) = (ca.server(), ca.server());
        let good = pem(&server, &ca.pem);
        let broken = b"-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n";
        let no_ca = TlsFault::NoCertificate("clients' CA");
        let no_chain = TlsFault::NoCertificate("certificate file");
        for (pem, fault) in [
            (Pem { ca: b"", ..good }, Some(&no_ca)),
            (Pem { ca: broken, ..good }, Some(&no_ca)),
            (
                Pem {
                    ca: good.key,
                    ..good
                },
                Some(&no_ca),
            ),
            (
                Pem {
                    certificate: b"",
                    ..good
                },
                Some(&no_chain),
            ),
            (
                Pem {
                    certificate: broken,
                    ..good
                },
                Some(&no_chain),
            ),
            (Pem { key: b"", ..good }, Some(&TlsFault::NoKey)),
            (
                Pem {
                    key: good.certificate,
                    ..good
                },
                Some(&TlsFault::NoKey),
            ),
            // Of another certificate: the library's own words.
            (
                Pem {
                    key: other.key.as_bytes(),
                    ..good
                },
                None,
            ),
        ] {
            let of_server = server_config(pem, &[&TLS13]).unwrap_err();
            assert_eq!(client_config(pem, &[&TLS13]).unwrap_err(), of_server);
            match fault {
                Some(fault) => assert_eq!(&of_server, fault),
                None => assert!(matches!(of_server, TlsFault::Unusable(_)), "{of_server:?}"),
            }
        }
    }
}
