//! TLS for all parts of the kit: aws-lc, and the same key exchange whatever the peer prefers.
//!
//! Gateways differ in whether they prefer a post-quantum key exchange. To compare their work rather than their taste,
//! both ends offer X25519 alone, unless a run asks for the other.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{Ticketer, default_provider, kx_group},
    },
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// The protocols that an end offers, best first.
pub(crate) const HTTP1: &[&[u8]] = &[b"http/1.1"];
/// HTTP/2 alone.
pub(crate) const HTTP2: &[&[u8]] = &[b"h2"];
/// HTTP/2, or HTTP/1.1 for a client that has no more.
pub(crate) const EITHER: &[&[u8]] = &[b"h2", b"http/1.1"];

/// How keys are agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyExchange {
    /// X25519 alone.
    Classic,
    /// X25519MLKEM768, or X25519 where a peer does not know it.
    PostQuantum,
}

impl KeyExchange {
    /// What the flag `--post-quantum` means.
    pub(crate) const fn from_flag(post_quantum: bool) -> Self {
        if post_quantum {
            Self::PostQuantum
        } else {
            Self::Classic
        }
    }

    fn provider(self) -> Arc<CryptoProvider> {
        let kx_groups = match self {
            Self::Classic => vec![kx_group::X25519],
            Self::PostQuantum => vec![kx_group::X25519MLKEM768, kx_group::X25519],
        };
        Arc::new(CryptoProvider {
            kx_groups,
            ..default_provider()
        })
    }
}

/// A client that trusts the CAs of the file `ca` (PEM) and no other, and offers to resume sessions or never does.
pub(crate) fn client(
    ca: &Path,
    protocols: &[&[u8]],
    resume: bool,
    exchange: KeyExchange,
) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate)?;
    }
    let mut config = ClientConfig::builder_with_provider(exchange.provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    if !resume {
        config.resumption = Resumption::disabled();
    }
    Ok(config)
}

/// A server with one chain and key (PEM files), which gives out stateless tickets, as large origins do.
pub(crate) fn server(
    chain: &Path,
    key: &Path,
    protocols: &[&[u8]],
    exchange: KeyExchange,
) -> anyhow::Result<ServerConfig> {
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
    let mut config = ServerConfig::builder_with_provider(exchange.provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates(chain)?, private)?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| path.display().to_string())
}
