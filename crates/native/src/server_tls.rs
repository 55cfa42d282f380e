//! TLS towards guests: a leaf for the one name that the policy allowed, and the protocols that the upstream speaks.

use std::sync::Arc;

use outgate_journey::{name::HostName, session::UnixSeconds};
use outgate_pki::{Minter, PkiError};
use rustls::{ServerConfig, sign::SingleCertAndKey};

/// Which protocols a handshake offers (ALPN, RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// `http/1.1`.
    Http1,
    /// `h2` and `http/1.1`.
    Http2,
}

/// Makes server configurations. There is one only where some destination is bumped.
pub(crate) struct ServerTls {
    minter: Minter,
    template: ServerConfig,
}

impl ServerTls {
    pub(crate) fn new(minter: Minter) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut template = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(NoCertificate));
        // Tickets are bound to the server name by the TLS library, and every request is authenticated whatever
        // handshake it came by. No early data: a replayed request would be injected twice.
        template.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        template.max_early_data_size = 0;
        Ok(Self { minter, template })
    }

    /// A configuration for one handshake. About a microsecond when the leaf is cached.
    pub(crate) fn config(
        &self,
        host: &HostName,
        offer: Offer,
        now: UnixSeconds,
    ) -> Result<Arc<ServerConfig>, PkiError> {
        let leaf = self.minter.leaf(host, now)?;
        let mut config = self.template.clone();
        config.cert_resolver = Arc::new(SingleCertAndKey::from(leaf));
        config.alpn_protocols = match offer {
            Offer::Http1 => vec![b"http/1.1".to_vec()],
            Offer::Http2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        Ok(Arc::new(config))
    }
}

/// The template's resolver: a configuration without a leaf answers no handshake.
#[derive(Debug)]
struct NoCertificate;

impl rustls::server::ResolvesServerCert for NoCertificate {
    fn resolve(
        &self,
        _: rustls::server::ClientHello<'_>,
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
}
