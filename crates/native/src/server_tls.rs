//! TLS towards guests: a leaf for the one name that the policy allowed, and the protocols that the upstream speaks. The
//! leaf is minted here, or by the process that holds the CA's key, of which this one then knows the certificate alone.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use outgate_journey::{name::HostName, session::UnixSeconds};
use outgate_pki::{CaCertificate, Minter, PkiError, ReceivedLeaf};
use outgate_plane::tls_provider;
use outgate_xds::client::{Secret, SecretClient, SecretFault, SecretValue};
use quick_cache::sync::Cache;
use rustls::{
    ServerConfig,
    sign::{CertifiedKey, SingleCertAndKey},
};

/// Leaves that are kept.
pub(crate) const LEAF_CACHE: usize = 10_000;

/// Which protocols a handshake offers (ALPN, RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// `http/1.1`.
    Http1,
    /// `h2` and `http/1.1`.
    Http2,
}

/// Why there is no leaf for a name. For the record, not for the guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeafFault {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("the minter: {0}")]
    Minter(#[from] SecretFault),
    #[error("the minter sent something else than a certificate")]
    NotACertificate,
}

/// Makes server configurations. There is one only where some destination is bumped.
pub(crate) struct ServerTls {
    leaves: Leaves,
    template: ServerConfig,
}

enum Leaves {
    Minted(ArcSwap<Minter>),
    Received(Received),
}

impl ServerTls {
    /// Mints its leaves itself.
    pub(crate) fn minting(minter: Minter) -> Result<Self, rustls::Error> {
        Self::new(Leaves::Minted(ArcSwap::from_pointee(minter)))
    }

    /// Asks the minter for them, whose CA has this certificate.
    pub(crate) fn receiving(
        client: SecretClient,
        authority: CaCertificate,
    ) -> Result<Self, rustls::Error> {
        Self::new(Leaves::Received(Received {
            client,
            authority: ArcSwap::from_pointee(authority),
            held: Cache::new(LEAF_CACHE),
        }))
    }

    fn new(leaves: Leaves) -> Result<Self, rustls::Error> {
        let provider = Arc::new(tls_provider::provider());
        let mut template = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(NoCertificate));
        // Tickets are bound to the server name by the TLS library, and every request is authenticated whatever
        // handshake it came by. No early data: a replayed request would be injected twice.
        template.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        template.max_early_data_size = 0;
        // What this processor does best, where it is known; else what the guest's does.
        template.ignore_client_order = tls_provider::hashes_in_hardware();
        Ok(Self { leaves, template })
    }

    /// A configuration for one handshake. About a microsecond when the leaf is held; a minter elsewhere is waited for
    /// no longer than `wait`.
    pub(crate) async fn config(
        &self,
        host: &HostName,
        offer: Offer,
        now: UnixSeconds,
        wait: Duration,
    ) -> Result<Arc<ServerConfig>, LeafFault> {
        let leaf = match &self.leaves {
            Leaves::Minted(minter) => minter.load().leaf(host, now)?,
            Leaves::Received(received) => received.leaf(host, now, wait).await?,
        };
        let mut config = self.template.clone();
        config.cert_resolver = Arc::new(SingleCertAndKey::from(leaf));
        config.alpn_protocols = match offer {
            Offer::Http1 => vec![b"http/1.1".to_vec()],
            Offer::Http2 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        Ok(Arc::new(config))
    }

    /// Another CA signs from here on. The leaves of the one before go with it; whoever was served one goes on.
    pub(crate) fn sign_by(&self, minter: Minter) {
        if let Leaves::Minted(signing) = &self.leaves {
            signing.store(Arc::new(minter));
        }
    }

    /// The last second in which the CA of the leaves is good.
    pub(crate) fn not_after(&self) -> UnixSeconds {
        match &self.leaves {
            Leaves::Minted(minter) => minter.load().authority().not_after(),
            Leaves::Received(received) => received.authority.load().not_after(),
        }
    }

    /// The minter's CA has another certificate from here on.
    pub(crate) fn trust(&self, authority: CaCertificate) {
        if let Leaves::Received(received) = &self.leaves
            && received.authority.load().certificate_pem() != authority.certificate_pem()
        {
            received.authority.store(Arc::new(authority));
            received.held.clear();
        }
    }
}

/// Leaves that another process mints. It renews what was asked for; what it sent last is served while it is away, for as
/// long as the leaf itself is good.
struct Received {
    client: SecretClient,
    authority: ArcSwap<CaCertificate>,
    /// What was looked at already.
    held: Cache<HostName, Held>,
}

#[derive(Clone)]
struct Held {
    secret: Arc<Secret>,
    leaf: ReceivedLeaf,
}

impl Received {
    async fn leaf(
        &self,
        host: &HostName,
        now: UnixSeconds,
        wait: Duration,
    ) -> Result<Arc<CertifiedKey>, LeafFault> {
        let secret = self
            .client
            .get(host.as_str(), wait)
            .await
            .inspect_err(|_| {
                self.held.remove(host);
            })?;
        if let Some(held) = self.held.get(host)
            && Arc::ptr_eq(&held.secret, &secret)
            && held.leaf.good.contains(&now)
        {
            return Ok(held.leaf.certified);
        }
        let SecretValue::Certificate { chain_pem, key_pem } = &secret.value else {
            return Err(LeafFault::NotACertificate);
        };
        let authority = self.authority.load();
        let leaf = authority.receive(chain_pem, key_pem, host, now)?;
        let certified = Arc::clone(&leaf.certified);
        self.held.insert(host.clone(), Held { secret, leaf });
        Ok(certified)
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
