//! Mutual TLS: version 1.3, a pinned CA on each side, and what the peer is called. The web's roots have no part in it.

use std::sync::Arc;

use outgate_clock::CertificateTime;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, crypto::CryptoProvider,
    server::WebPkiClientVerifier, version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use crate::error::FleetError;

const ALPN: &[u8] = b"h2";
/// The longest name that a gateway may have; longer than DNS allows, and enough for a SPIFFE id.
const NAME_BYTES: usize = 512;

/// What the control plane presents, and whom it lets in.
#[derive(Clone)]
pub struct ServerTls(pub(crate) Arc<ServerConfig>);

impl ServerTls {
    /// Reads its certificate chain and key, and the CA that every gateway's certificate has to be of. All PEM.
    ///
    /// # Errors
    /// [`FleetError`].
    pub fn from_pem(certificate: &[u8], key: &[u8], client_ca: &[u8]) -> Result<Self, FleetError> {
        let provider = provider();
        let roots = Arc::new(roots(client_ca, "gateways' CA")?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(unusable)?;
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(CertificateTime))
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain(certificate)?, private_key(key)?)
            .map_err(unusable)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed connection would be let in by what its certificate was worth earlier.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Self(Arc::new(config)))
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
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(CertificateTime))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_root_certificates(roots(ca, "control plane's CA")?)
        .with_client_auth_cert(chain(certificate)?, private_key(key)?)
        .map_err(unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// What a verified certificate calls its holder: its DNS names, then its URIs. A wildcard is nobody's name.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Vec<Arc<str>> {
    let Ok((_, parsed)) = x509_parser::certificate::X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some(extension)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    let all = &extension.value.general_names;
    let dns = all.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let uris = all.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    dns.chain(uris)
        .filter(|name| is_plain(name))
        .map(Arc::from)
        .collect()
}

/// Fit to be compared, and to be written into a record.
fn is_plain(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'*')
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(pem: &[u8], of: &'static str) -> Result<RootCertStore, FleetError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| FleetError::NoCertificate(of))?;
        roots.add(certificate).map_err(unusable)?;
    }
    if roots.is_empty() {
        return Err(FleetError::NoCertificate(of));
    }
    Ok(roots)
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FleetError> {
    const OF: &str = "certificate file";
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| FleetError::NoCertificate(OF))?;
    if chain.is_empty() {
        return Err(FleetError::NoCertificate(OF));
    }
    Ok(chain)
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, FleetError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| FleetError::NoKey)
}

fn unusable(error: impl std::fmt::Display) -> FleetError {
    FleetError::Unusable(error.to_string())
}
