//! Whom the far side's certificate must come from. Files that are named replace the system's roots: a private
//! provider's CA should not share its place with every public one.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::error::SetupError;

/// The roots that a call trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Roots {
    /// Those of the system.
    #[default]
    System,
    /// The certificates of these PEM files, and no others.
    Pem(Vec<PathBuf>),
}

impl Roots {
    /// Blocks on files.
    pub(crate) fn read(&self) -> Result<RootCertStore, SetupError> {
        let mut store = RootCertStore::empty();
        match self {
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                let (added, _) = store.add_parsable_certificates(found.certs);
                if added == 0 {
                    return Err(SetupError::NoSystemRoots);
                }
            }
            Self::Pem(paths) if paths.is_empty() => return Err(SetupError::NoRoots),
            Self::Pem(paths) => {
                for path in paths {
                    add_file(&mut store, path)?;
                }
            }
        }
        Ok(store)
    }
}

fn add_file(store: &mut RootCertStore, path: &Path) -> Result<(), SetupError> {
    let failed = |why: String| SetupError::RootFile {
        path: path.to_owned(),
        why,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|fault| failed(fault.to_string()))?;
    if certificates.is_empty() {
        return Err(failed("no certificate in the file".to_owned()));
    }
    for certificate in certificates {
        store
            .add(certificate)
            .map_err(|fault| failed(fault.to_string()))?;
    }
    Ok(())
}
