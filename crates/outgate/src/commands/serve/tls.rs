//! Certificates and keys of the doors that are not the guests'.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use outgate_config::TlsFiles;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::commands::files::read;

/// TLS for a door at which nobody needs a certificate.
pub(super) fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>> {
    let certificate = read(&files.certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate).collect();
    let chain = chain.with_context(|| not_pem(&files.certificate, "certificate"))?;
    let key = read(&files.key)?;
    let key =
        PrivateKeyDer::from_pem_slice(&key).with_context(|| not_pem(&files.key, "private key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .with_context(|| {
            format!(
                "{} and {}",
                files.certificate.display(),
                files.key.display()
            )
        })?;
    Ok(Arc::new(config))
}

fn not_pem(path: &Path, what: &str) -> String {
    format!("{} holds no {what} in PEM form", path.display())
}
