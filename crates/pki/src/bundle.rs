//! The bundle that a sandbox trusts: the system's roots *and* the CA. Programs replace their whole root store by the
//! file they are given, and pass-through destinations present public chains, so the CA alone would break those.

use std::{
    collections::HashSet,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use outgate_state::{self as state, StateError};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::{error::PkiError, java::java_truststore};

/// Where distributions keep their roots: Debian and Alpine, Fedora and RHEL (and what that is made from), SUSE, BSD and
/// macOS.
pub const SYSTEM_FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

const CA_FILE: &str = "ca.crt";
/// The name of the bundle that [`write_trust`] writes.
pub const BUNDLE_FILE: &str = "bundle.pem";
/// The name of the truststore that [`write_trust`] writes.
pub const TRUSTSTORE_FILE: &str = "truststore.jks";

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
    to_pem(&combined(system_roots_pem, ca_pem))
}

/// The same as DER.
fn combined(system_roots_pem: &str, ca_pem: &str) -> Vec<CertificateDer<'static>> {
    let mut seen = HashSet::new();
    certificates(system_roots_pem.as_bytes())
        .chain(certificates(ca_pem.as_bytes()))
        .filter(|der| seen.insert(der.clone()))
        .collect()
}

fn to_pem(roots: &[CertificateDer<'_>]) -> String {
    roots
        .iter()
        .map(|der| state::certificate_to_pem(der))
        .collect()
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
    let path = dir.join(BUNDLE_FILE);
    // A gateway that is started inside a sandbox's environment is pointed at the bundle that it is about to write.
    let named = ssl_cert_file.filter(|file| !same_file(file, &path));
    let (system, roots) = chosen_roots(named)?;
    state::write_public_atomic(&path, combined_bundle(&system, ca_pem).as_bytes())?;
    Ok(Bundle { path, roots })
}

/// Writes what is trusted into a folder that must not hold a CA's key: it would be another CA's.
pub(crate) fn publish(
    dir: &Path,
    ca_pem: &str,
    ssl_cert_file: Option<&Path>,
    refused: impl FnOnce(PathBuf) -> PkiError,
) -> Result<Bundle, PkiError> {
    state::create_private_dir(dir)?;
    let key = dir.join("ca.key");
    if fs::symlink_metadata(&key).is_ok() {
        return Err(refused(key));
    }
    state::write_public_atomic(&dir.join(CA_FILE), ca_pem.as_bytes())?;
    write_bundle(dir, ca_pem, ssl_cert_file)
}

/// The files by which a command comes to trust the CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustFiles {
    /// The CA, and what the caller adds to the system's roots: `ca.crt`.
    pub ca: PathBuf,
    /// The system's roots and the CA, `bundle.pem`.
    pub bundle: Bundle,
    /// The same for Java, `truststore.jks`; see [`java_truststore`].
    pub truststore: PathBuf,
}

/// What a command's caller trusts already: the values of these variables, where they are set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallersRoots {
    /// `SSL_CERT_FILE`, which is in the place of the system's roots.
    pub ssl_cert_file: Option<PathBuf>,
    /// `NODE_EXTRA_CA_CERTS`, which is added to them. One that is no use is left out, as Node does.
    pub node_extra_ca_certs: Option<PathBuf>,
}

/// Writes `ca.crt`, `bundle.pem` and `truststore.jks` into a private folder that does not outlive the process. Files
/// that are there are filled, not replaced: something may be bound to them. Nothing is flushed to disk: whoever could
/// find half a file after a crash finds no process either that would trust it.
///
/// # Errors
/// As [`write_bundle`].
pub fn write_trust(
    dir: &Path,
    ca_pem: &str,
    callers: &CallersRoots,
) -> Result<TrustFiles, PkiError> {
    let (system, source) = chosen_roots(callers.ssl_cert_file.as_deref())?;
    let extra = callers.node_extra_ca_certs.as_deref().and_then(usable);
    let added = extra.unwrap_or_default() + ca_pem;
    let roots = combined(&system, &added);
    let files = TrustFiles {
        ca: dir.join(CA_FILE),
        bundle: Bundle {
            path: dir.join(BUNDLE_FILE),
            roots: source,
        },
        truststore: dir.join(TRUSTSTORE_FILE),
    };
    fill(&files.ca, to_pem(&combined("", &added)).as_bytes())?;
    fill(&files.bundle.path, to_pem(&roots).as_bytes())?;
    fill(&files.truststore, &java_truststore(&roots)?)?;
    Ok(files)
}

/// A file with nothing secret in it.
fn fill(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    let failed = |source| {
        PkiError::State(StateError::Io {
            doing: "write",
            path: path.to_owned(),
            source,
        })
    };
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(bytes).map_err(failed)
}

fn chosen_roots(named: Option<&Path>) -> Result<(String, RootSource), PkiError> {
    let Some(file) = named else {
        return Ok(system_roots());
    };
    match usable(file) {
        Some(text) => Ok((text, RootSource::File(file.to_owned()))),
        None => Err(PkiError::Roots {
            path: file.to_owned(),
        }),
    }
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
