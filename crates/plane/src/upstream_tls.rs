//! TLS towards upstreams: strict verification against the configured roots (P9). A failure closes the connection
//! before a byte of a request is written.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use outgate_clock::CertificateTime;
use outgate_config::{Roots, TlsFloor, Upstream};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_native_certs::CertificateResult;
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::tls_provider;

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
    /// `upstream.roots: none` and nothing beside it.
    #[error(
        "upstream.roots: without root certificates no upstream can be verified; name some in upstream.extra_roots, or use `system`"
    )]
    NoRoots,
    /// The TLS library refused the settings.
    #[error("TLS towards upstreams cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl RootsError {
    /// A stable word for it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "roots_unreadable",
            Self::NoSystemRoots(_) | Self::NoRoots => "no_roots",
            Self::Tls(_) => "upstream_tls_unusable",
        }
    }
}

/// Client configurations that share roots, versions and session storage.
#[derive(Clone)]
pub struct UpstreamTls {
    /// Offers `http/1.1` alone.
    pub http1: Arc<ClientConfig>,
    /// Offers `h2` and `http/1.1`.
    pub http2: Arc<ClientConfig>,
}

impl UpstreamTls {
    /// Reads the roots. Blocks on files.
    pub fn new(settings: &Upstream) -> Result<Self, RootsError> {
        let provider = Arc::new(tls_provider::provider());
        let versions: &[&SupportedProtocolVersion] = match settings.min_tls {
            TlsFloor::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsFloor::Tls13 => &[&rustls::version::TLS13],
        };
        let mut http1 = ClientConfig::builder_with_details(provider, Arc::new(CertificateTime))
            .with_protocol_versions(versions)?
            .with_root_certificates(UpstreamRoots::read(settings)?.store)
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

/// What upstreams are verified with, read once and whichever TLS library verifies.
pub struct UpstreamRoots {
    /// As rustls wants it.
    pub store: RootCertStore,
    /// The same as certificates. A root that Mozilla trusts for some names alone is not among them: a certificate cannot
    /// say so.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl UpstreamRoots {
    /// Reads what the file names; there is at least one. Blocks on files.
    ///
    /// # Errors
    /// [`RootsError`].
    pub fn read(settings: &Upstream) -> Result<Self, RootsError> {
        Self::read_with(settings, rustls_native_certs::load_native_certs)
    }

    fn read_with(
        settings: &Upstream,
        system: impl FnOnce() -> CertificateResult,
    ) -> Result<Self, RootsError> {
        let mut roots = Self {
            store: RootCertStore::empty(),
            certificates: Vec::new(),
        };
        match settings.roots {
            Roots::System => {
                let why = roots.add_system(system());
                if roots.store.is_empty() && settings.extra_roots.is_empty() {
                    return Err(RootsError::NoSystemRoots(why));
                }
            }
            Roots::Bundled => roots.add_bundled(),
            Roots::None => {}
        }
        for path in &settings.extra_roots {
            roots.add_file(path).map_err(|why| RootsError::File {
                path: path.clone(),
                why,
            })?;
        }
        if roots.store.is_empty() {
            return Err(RootsError::NoRoots);
        }
        Ok(roots)
    }

    /// Adds what can be used of it; why there may be none.
    fn add_system(&mut self, found: CertificateResult) -> String {
        for certificate in found.certs {
            // A system's store may hold what nobody can parse; it is passed over.
            let _ = self.add(certificate);
        }
        let why = found.errors.first();
        why.map_or_else(|| "none found".to_owned(), ToString::to_string)
    }

    fn add_bundled(&mut self) {
        let mut plain = RootCertStore::empty();
        for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
            let is_added = plain.add(certificate.clone()).is_ok();
            // Equal in its limits, too: of a constrained one the certificate would say more than is trusted.
            let is_same = |root| webpki_roots::TLS_SERVER_ROOTS.contains(root);
            if is_added && plain.roots.last().is_some_and(is_same) {
                self.certificates.push(certificate.clone());
            }
        }
        self.store
            .extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }

    fn add_file(&mut self, path: &Path) -> Result<(), String> {
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| error.to_string())?;
        if certificates.is_empty() {
            return Err("no certificate in the file".to_owned());
        }
        for certificate in certificates {
            self.add(certificate).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), rustls::Error> {
        self.store.add(certificate.clone())?;
        self.certificates.push(certificate);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::write;

    use super::*;

    fn settings(roots: Roots, extra: &[&Path]) -> Upstream {
        Upstream {
            roots,
            extra_roots: extra.iter().map(|it| it.to_path_buf()).collect(),
            min_tls: TlsFloor::Tls12,
        }
    }

    /// A machine with these roots.
    fn system(certs: Vec<CertificateDer<'static>>) -> impl FnOnce() -> CertificateResult {
        || {
            let mut found = CertificateResult::default();
            found.certs = certs;
            found
        }
    }

    fn a_root() -> CertificateDer<'static> {
        webpki_root_certs::TLS_SERVER_ROOT_CERTS[0].clone()
    }

    fn refusal(settings: &Upstream) -> RootsError {
        UpstreamRoots::read_with(settings, system(vec![]))
            .err()
            .unwrap()
    }

    #[test]
    fn without_a_root_nothing_is_set_up_and_the_refusal_says_what_to_do() {
        for (roots, remedy) in [
            (Roots::System, "install ca-certificates"),
            (Roots::None, "upstream.extra_roots"),
        ] {
            let refused = refusal(&settings(roots, &[]));
            assert_eq!(refused.code(), "no_roots");
            assert!(refused.to_string().contains(remedy), "{refused}");
        }
        let broken = CertificateDer::from(b"no certificate".to_vec());
        let only_broken =
            UpstreamRoots::read_with(&settings(Roots::System, &[]), system(vec![broken]));
        assert_eq!(only_broken.err().unwrap().code(), "no_roots");
    }

    #[test]
    fn a_file_without_a_root_is_refused_beside_others() {
        let folder = tempfile::tempdir().unwrap();
        let (empty, broken) = (folder.path().join("empty"), folder.path().join("broken"));
        write(&empty, "").unwrap();
        write(
            &broken,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        for path in [&empty, &broken, &folder.path().join("missing")] {
            let refused = refusal(&settings(Roots::Bundled, &[path]));
            assert_eq!(refused.code(), "roots_unreadable");
            assert!(refused.to_string().contains(&*path.to_string_lossy()));
        }
    }

    #[test]
    fn both_forms_hold_the_same_roots() {
        let folder = tempfile::tempdir().unwrap();
        let extra = folder.path().join("extra.pem");
        let own = rcgen::generate_simple_self_signed(vec!["ca.test".to_owned()]).unwrap();
        write(&extra, own.cert.pem()).unwrap();
        let broken = CertificateDer::from(b"no certificate".to_vec());
        let settings = settings(Roots::System, &[&extra]);
        let found = system(vec![a_root(), broken]);
        let roots = UpstreamRoots::read_with(&settings, found).unwrap();
        assert_eq!(roots.certificates, [a_root(), own.cert.der().clone()]);
        let mut again = RootCertStore::empty();
        assert_eq!(again.add_parsable_certificates(roots.certificates).0, 2);
        assert_eq!(again.roots, roots.store.roots);
    }

    #[test]
    fn of_the_bundled_roots_those_with_limits_are_not_given_on_without_them() {
        let roots =
            UpstreamRoots::read_with(&settings(Roots::Bundled, &[]), system(vec![])).unwrap();
        let known = &roots.store.roots;
        assert!(known.iter().any(|root| root.name_constraints.is_some()));
        // Two lists of two packages: either may have a root that the other has not yet.
        assert!(roots.certificates.len() > 100);
        let mut given_on = RootCertStore::empty();
        let (added, broken) = given_on.add_parsable_certificates(roots.certificates);
        assert_eq!((added, broken), (given_on.len(), 0));
        assert!(given_on.roots.iter().all(|root| known.contains(root)));
    }
}
