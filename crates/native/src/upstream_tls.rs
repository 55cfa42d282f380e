//! TLS towards upstreams: strict verification against the configured roots (P9). A failure closes the connection
//! before a byte of a request is written.

use std::{path::PathBuf, sync::Arc};

use outgate_clock::CertificateTime;
use outgate_config::{Roots, TlsFloor, Upstream};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// Why the upstream roots cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// A file of `upstream.extra_roots`.
    #[error("upstream.extra_roots: {path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// `upstream.roots: system` on a machine without any.
    #[error(
        "upstream.roots: the system has no root certificates ({0}); install ca-certificates or use `bundled`"
    )]
    NoSystemRoots(String),
    /// The TLS library refused the settings.
    #[error("TLS towards upstreams cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Client configurations that share roots, versions and session storage.
#[derive(Clone)]
pub(crate) struct UpstreamTls {
    /// Offers `http/1.1` alone.
    pub(crate) http1: Arc<ClientConfig>,
    /// Offers `h2` and `http/1.1`.
    pub(crate) http2: Arc<ClientConfig>,
}

impl UpstreamTls {
    /// Reads the roots. Blocks on files.
    pub(crate) fn new(settings: &Upstream) -> Result<Self, RootsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions: &[&SupportedProtocolVersion] = match settings.min_tls {
            TlsFloor::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsFloor::Tls13 => &[&rustls::version::TLS13],
        };
        let mut http1 = ClientConfig::builder_with_details(provider, Arc::new(CertificateTime))
            .with_protocol_versions(versions)?
            .with_root_certificates(read_roots(settings)?)
            .with_no_client_auth();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut http2 = http1.clone();
        http2.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            http1: Arc::new(http1),
            http2: Arc::new(http2),
        })
    }
}

fn read_roots(settings: &Upstream) -> Result<RootCertStore, RootsError> {
    let mut store = RootCertStore::empty();
    match settings.roots {
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = store.add_parsable_certificates(found.certs);
            if added == 0 && settings.extra_roots.is_empty() {
                let why = found
                    .errors
                    .first()
                    .map_or_else(|| "none found".to_owned(), ToString::to_string);
                return Err(RootsError::NoSystemRoots(why));
            }
        }
        Roots::Bundled => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Roots::None => {}
    }
    for path in &settings.extra_roots {
        let failed = |why: String| RootsError::File {
            path: path.clone(),
            why,
        };
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| failed(error.to_string()))?;
        if certificates.is_empty() {
            return Err(failed("no certificate in the file".to_owned()));
        }
        for certificate in certificates {
            store
                .add(certificate)
                .map_err(|error| failed(error.to_string()))?;
        }
    }
    Ok(store)
}
