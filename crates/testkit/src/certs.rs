//! A certificate authority that lives for one test, and the certificates that an upstream should not present.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

/// What an origin presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateKind {
    /// For its names, by the test's CA.
    Good,
    /// For its names, by itself.
    SelfSigned,
    /// For another name, by the test's CA.
    WrongName,
    /// For its names, by the test's CA, ended in 2020.
    Expired,
    /// For its names, by the test's CA, begins in 4000.
    NotYetValid,
    /// For its names, by a CA that nobody trusts.
    UnknownCa,
}

/// A CA made at run time.
pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

impl TestCa {
    /// A fresh CA with this common name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = params.self_signed(&key).expect("a CA certificate");
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// The certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificate.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// A certificate for `names`, good at either end of a connection, and its key, in PEM.
    #[must_use]
    pub fn issue_pem(&self, names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("host names");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// A key and a certificate of this kind for `names`.
    #[must_use]
    pub fn issue(&self, kind: CertificateKind, names: &[String]) -> CertifiedKey {
        let wrong = ["wrong-name.test".to_owned()];
        let names = if kind == CertificateKind::WrongName {
            &wrong[..]
        } else {
            names
        };
        let mut params = CertificateParams::new(names).expect("host names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        match kind {
            CertificateKind::Expired => {
                params.not_before = date_time_ymd(2019, 1, 1);
                params.not_after = date_time_ymd(2020, 1, 1);
            }
            CertificateKind::NotYetValid => params.not_before = date_time_ymd(4000, 1, 1),
            _ => {}
        }
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = match kind {
            CertificateKind::SelfSigned => params.self_signed(&key),
            CertificateKind::UnknownCa => {
                params.signed_by(&key, &Self::new("a stranger's CA").issuer)
            }
            _ => params.signed_by(&key, &self.issuer),
        }
        .expect("a certificate");
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer =
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&private).expect("a usable key");
        CertifiedKey::new(vec![certificate.der().clone()], signer)
    }
}

/// A store that trusts these PEM bundles.
#[must_use]
pub fn roots_from_pem<'a>(bundles: impl IntoIterator<Item = &'a str>) -> RootCertStore {
    use rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    for bundle in bundles {
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots
                .add(certificate.expect("PEM"))
                .expect("a root certificate");
        }
    }
    roots
}
