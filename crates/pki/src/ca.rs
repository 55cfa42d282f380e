//! Makes the CA once, and afterwards only ever loads it. A pair that is incomplete, does not match, is no CA, is
//! expired or is readable by others is refused by name: a silent replacement would cut off every client that trusts
//! the old one, and a leaked key must be noticed.

use std::{
    fmt::{self, Write},
    fs,
    path::Path,
};

use aws_lc_rs::digest;
use outgate_journey::session::UnixSeconds;
use outgate_state as state;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose,
    PublicKeyData, SerialNumber,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    bundle::{Bundle, publish},
    error::PkiError,
    key::P256Key,
};

/// Clients' clocks may be behind ours by this much.
pub(crate) const BACKDATE: u64 = 60 * 60;
const LIFE: u64 = 3650 * 24 * 60 * 60;

/// The deployment's CA: an ECDSA P-256 key and its certificate, self-signed where it is made here.
pub struct CertificateAuthority {
    issuer: Issuer<'static, P256Key>,
    certificate: CertificateDer<'static>,
    /// What is sent behind a leaf: nothing, where clients trust the certificate itself.
    chain: Vec<CertificateDer<'static>>,
    trusted: String,
    fingerprint: String,
    subject: String,
    not_before: UnixSeconds,
    not_after: UnixSeconds,
}

impl CertificateAuthority {
    /// Loads `ca.crt` and `ca.key` from a folder, or creates both where neither is there: P-256, ten years, a random
    /// serial number and a name of its own. Of several processes that start at once, one creates and all load the same.
    ///
    /// # Errors
    /// [`PkiError`]; nothing that was present is ever changed.
    pub fn open_or_create(dir: &Path, now: UnixSeconds) -> Result<Self, PkiError> {
        state::create_private_dir(dir)?;
        let _lock = state::lock_dir(dir)?;
        let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        // Of the name, not of what a link leads to: a dangling link is something present.
        let present = |path: &Path| fs::symlink_metadata(path).is_ok();
        match (present(&certificate), present(&key)) {
            (true, true) => {}
            (false, false) => create(&certificate, &key, now)?,
            (true, false) => {
                return Err(PkiError::HalfPair {
                    present: certificate,
                    missing: key,
                });
            }
            (false, true) => {
                return Err(PkiError::HalfPair {
                    present: key,
                    missing: certificate,
                });
            }
        }
        load(&certificate, &key, now)
    }

    /// A CA whose key no file ever holds, for what ends with this process.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn in_memory(now: UnixSeconds) -> Result<Self, PkiError> {
        let key = P256Key::generate().ok_or(PkiError::Crypto)?;
        let certificate = parameters(now)?
            .self_signed(&key)
            .map_err(|_| PkiError::Encoding)?;
        let damaged = |_| PkiError::Encoding;
        assemble(certificate.der(), key, now).map_err(damaged)
    }

    /// What a sandbox has to trust, in PEM: the certificate, or, where the deployment supplies it with roots, those.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.trusted
    }

    /// Writes `ca.crt` and `bundle.pem` into a folder, for a CA whose key is not there; see [`crate::write_bundle`].
    ///
    /// # Errors
    /// [`PkiError::MadeHere`] where the folder holds a CA's key; [`PkiError::Roots`], [`PkiError::State`].
    pub fn publish(&self, dir: &Path, ssl_cert_file: Option<&Path>) -> Result<Bundle, PkiError> {
        publish(dir, &self.trusted, ssl_cert_file, |key| {
            PkiError::MadeHere { key }
        })
    }

    /// SHA-256 of the certificate's DER as `AA:BB:…`, as browsers and `openssl x509 -fingerprint -sha256` show it.
    #[must_use]
    pub fn fingerprint_sha256(&self) -> String {
        self.fingerprint.clone()
    }

    /// The last second of its life.
    #[must_use]
    pub const fn not_after(&self) -> UnixSeconds {
        self.not_after
    }

    /// Its name, as `CN=Outgate CA 1a2b3c4d`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    pub(crate) const fn not_before(&self) -> UnixSeconds {
        self.not_before
    }

    pub(crate) const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Whether it is the same certificate with the same chain and the same roots.
    pub(crate) fn is_the_same(&self, other: &Self) -> bool {
        (&self.certificate, &self.chain, &self.trusted)
            == (&other.certificate, &other.chain, &other.trusted)
    }

    /// Whether what it signs names its subject as the issuer, byte for byte: the library that signs writes names anew, and
    /// a client would find no path through another spelling.
    pub(crate) fn names_itself_as_issuer(&self, now: UnixSeconds) -> bool {
        let signed = || {
            let mut params = CertificateParams::default();
            (params.not_before, params.not_after) = (date(now).ok()?, date(now).ok()?);
            params.signed_by(&P256Key::generate()?, &self.issuer).ok()
        };
        let names = |signed: rcgen::Certificate| {
            let (_, leaf) = X509Certificate::from_der(signed.der()).ok()?;
            let (_, own) = X509Certificate::from_der(&self.certificate).ok()?;
            Some(leaf.issuer().as_raw() == own.subject().as_raw())
        };
        signed().and_then(names).unwrap_or(false)
    }

    /// With what is sent behind a leaf, what is handed out to be trusted, and the end of the whole chain.
    pub(crate) fn with_chain(self, chain: Chain) -> Self {
        Self {
            chain: chain.sent,
            trusted: chain.trusted,
            not_after: self.not_after.min(chain.not_after),
            ..self
        }
    }

    pub(crate) const fn issuer(&self) -> &Issuer<'static, P256Key> {
        &self.issuer
    }
}

/// What is around the certificate that signs.
pub(crate) struct Chain {
    pub(crate) sent: Vec<CertificateDer<'static>>,
    /// In PEM.
    pub(crate) trusted: String,
    pub(crate) not_after: UnixSeconds,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CertificateAuthority({}, {}, [key redacted])",
            self.subject, self.fingerprint
        )
    }
}

fn create(certificate_path: &Path, key_path: &Path, now: UnixSeconds) -> Result<(), PkiError> {
    let key = P256Key::generate().ok_or(PkiError::Crypto)?;
    let pkcs8 = key.to_pkcs8().ok_or(PkiError::Crypto)?;
    let certificate = parameters(now)?
        .self_signed(&key)
        .map_err(|_| PkiError::Encoding)?;
    // The key first: whoever sees a certificate may count on there being a key.
    let pem = state::private_key_to_pem(pkcs8.as_ref());
    if state::create_private_exclusive(key_path, pem.as_bytes())? == state::Created::Existed {
        return Ok(());
    }
    let pem = state::certificate_to_pem(certificate.der());
    state::create_public_exclusive(certificate_path, pem.as_bytes()).inspect_err(|_| {
        // Alone it would be refused at every later start. It is ours, and nothing was signed with it.
        let _ = fs::remove_file(key_path);
    })?;
    Ok(())
}

fn parameters(now: UnixSeconds) -> Result<CertificateParams, PkiError> {
    let serial: [u8; 16] = random()?;
    let mut name = String::from("Outgate CA ");
    for byte in serial.iter().take(4) {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date(UnixSeconds(now.0.saturating_sub(BACKDATE)))?;
    params.not_after = date(UnixSeconds(now.0.saturating_add(LIFE)))?;
    Ok(params)
}

fn load(
    certificate_path: &Path,
    key_path: &Path,
    now: UnixSeconds,
) -> Result<CertificateAuthority, PkiError> {
    let unusable = |why| PkiError::Certificate {
        path: certificate_path.to_owned(),
        why,
    };
    let key_text = state::read_private(key_path)?;
    let key = state::private_key_from_pem(&key_text)
        .and_then(|der| P256Key::from_der(&der))
        .ok_or_else(|| PkiError::Key {
            path: key_path.to_owned(),
        })?;
    let text = fs::read(certificate_path).map_err(|source| state::StateError::Io {
        doing: "read",
        path: certificate_path.to_owned(),
        source,
    })?;
    let der = CertificateDer::from_pem_slice(&text)
        .map_err(|_| unusable("it holds no PEM certificate"))?;
    assemble(&der, key, now).map_err(|flaw| match flaw {
        Flaw::Unusable(why) => unusable(why),
        Flaw::OtherKey => PkiError::Mismatch {
            certificate: certificate_path.to_owned(),
            key: key_path.to_owned(),
        },
        Flaw::Expired(not_after) => PkiError::Expired { not_after },
    })
}

/// Why a certificate and a key are no CA.
pub(crate) enum Flaw {
    Unusable(&'static str),
    OtherKey,
    Expired(UnixSeconds),
}

pub(crate) fn assemble(
    der: &CertificateDer<'_>,
    key: P256Key,
    now: UnixSeconds,
) -> Result<CertificateAuthority, Flaw> {
    let unusable = Flaw::Unusable;
    let (rest, parsed) =
        X509Certificate::from_der(der).map_err(|_| unusable("it does not parse"))?;
    if !rest.is_empty() {
        return Err(unusable("bytes follow the certificate"));
    }
    if !parsed.is_ca() {
        return Err(unusable("its basic constraints do not say CA"));
    }
    if let Ok(Some(usage)) = parsed.key_usage()
        && !usage.value.key_cert_sign()
    {
        return Err(unusable(
            "its key usage does not allow it to sign certificates",
        ));
    }
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(Flaw::OtherKey);
    }
    let not_before = seconds(parsed.validity().not_before.timestamp());
    let not_after = seconds(parsed.validity().not_after.timestamp());
    if not_after <= now {
        return Err(Flaw::Expired(not_after));
    }
    let subject = parsed.subject().to_string();
    let issuer =
        Issuer::from_ca_cert_der(der, key).map_err(|_| unusable("its name does not parse"))?;
    Ok(CertificateAuthority {
        issuer,
        certificate: der.clone().into_owned(),
        chain: Vec::new(),
        // Encoded again, so that nothing else which stands in the file is handed out with it.
        trusted: state::certificate_to_pem(der),
        fingerprint: fingerprint(der),
        subject,
        not_before,
        not_after,
    })
}

pub(crate) fn seconds(timestamp: i64) -> UnixSeconds {
    UnixSeconds(u64::try_from(timestamp).unwrap_or(0))
}

pub(crate) fn fingerprint(der: &[u8]) -> String {
    let mut text = String::with_capacity(95);
    for byte in digest::digest(&digest::SHA256, der).as_ref() {
        if !text.is_empty() {
            text.push(':');
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02X}");
    }
    text
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| PkiError::Crypto)?;
    Ok(bytes)
}

pub(crate) fn date(at: UnixSeconds) -> Result<OffsetDateTime, PkiError> {
    let seconds = i64::try_from(at.0).map_err(|_| PkiError::Encoding)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| PkiError::Encoding)
}
