//! The bundle that a sandbox trusts: the system's roots *and* the CA. Programs replace their whole root store by the
//! file they are given, and pass-through destinations present public chains, so the CA alone would break those.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use outgate_state as state;
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::error::PkiError;

/// Where distributions keep their roots: Debian and Alpine, Fedora and RHEL, SUSE, BSD and macOS.
const SYSTEM_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A bundle that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Its file.
    pub path: PathBuf,
    /// Where the roots in it come from.
    pub roots: RootSource,
}

/// Where the system's roots were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootSource {
    /// One PEM file.
    File(PathBuf),
    /// The platform's certificate store.
    Store,
    /// Nowhere: the bundle holds the CA alone, and pass-through destinations will not verify with it.
    Nowhere,
}

/// The certificates of the system's bundle, then the CA: each once, and nothing but certificates.
#[must_use]
pub fn combined_bundle(system_roots_pem: &str, ca_pem: &str) -> String {
    let mut seen = HashSet::new();
    let mut bundle = String::with_capacity(system_roots_pem.len() + ca_pem.len() + 1);
    for der in certificates(system_roots_pem.as_bytes()).chain(certificates(ca_pem.as_bytes())) {
        let pem = state::certificate_to_pem(&der);
        if seen.insert(der) {
            bundle.push_str(&pem);
        }
    }
    bundle
}

/// Writes `bundle.pem` into a folder. `ssl_cert_file` is the value of `SSL_CERT_FILE`, where it is set; then come the
/// usual places, then the platform's store.
///
/// # Errors
/// [`PkiError::Roots`] where `ssl_cert_file` is given and no use; [`PkiError::State`].
pub fn write_bundle(
    dir: &Path,
    ca_pem: &str,
    ssl_cert_file: Option<&Path>,
) -> Result<Bundle, PkiError> {
    let path = dir.join("bundle.pem");
    // A gateway that is started inside a sandbox's environment is pointed at the bundle that it is about to write.
    let named = ssl_cert_file.filter(|file| !same_file(file, &path));
    let (system, roots) = match named {
        Some(file) => match usable(file) {
            Some(text) => (text, RootSource::File(file.to_owned())),
            None => {
                return Err(PkiError::Roots {
                    path: file.to_owned(),
                });
            }
        },
        None => system_roots(),
    };
    state::write_public_atomic(&path, combined_bundle(&system, ca_pem).as_bytes())?;
    Ok(Bundle { path, roots })
}

fn system_roots() -> (String, RootSource) {
    for file in SYSTEM_FILES.map(Path::new) {
        if let Some(text) = usable(file) {
            return (text, RootSource::File(file.to_owned()));
        }
    }
    let store = rustls_native_certs::load_native_certs().certs;
    let source = if store.is_empty() {
        RootSource::Nowhere
    } else {
        RootSource::Store
    };
    (
        store
            .iter()
            .map(|der| state::certificate_to_pem(der))
            .collect(),
        source,
    )
}

/// The file's text, if there is a certificate in it.
fn usable(file: &Path) -> Option<String> {
    let bytes = fs::read(file).ok()?;
    certificates(&bytes).next()?;
    // Comments between the blocks name the roots in any encoding; the blocks are ASCII.
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The certificates of a PEM text. A damaged block is left out, as it would be by whoever reads the bundle.
fn certificates(pem: &[u8]) -> impl Iterator<Item = CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok)
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
