//! The CA: what it is, that it is made once, and what is refused in its place.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc, thread};

use outgate_journey::session::UnixSeconds;
use outgate_pki::{CertificateAuthority, Minter, PkiError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);
const TEN_YEARS: u64 = 3650 * 86_400;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("ca")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    fn open(&self) -> Result<CertificateAuthority, PkiError> {
        CertificateAuthority::open_or_create(&self.dir(), NOW)
    }

    /// Puts a pair in place of ours.
    fn place(&self, certificate: &str, key: &str) {
        outgate_state::create_private_dir(&self.dir()).unwrap();
        outgate_state::write_public_atomic(&self.file("ca.crt"), certificate.as_bytes()).unwrap();
        outgate_state::write_private_atomic(&self.file("ca.key"), key.as_bytes()).unwrap();
    }
}

fn foreign_ca(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_fresh_ca_can_sign_leaves_and_nothing_below() {
    let folder = Folder::new();
    let ca = folder.open().unwrap();
    let der = CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).unwrap();
    let (rest, parsed) = X509Certificate::from_der(&der).unwrap();
    assert!(rest.is_empty());
    let constraints = parsed.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = parsed.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert_eq!(usage.value.flags.count_ones(), 2);
    assert_eq!(
        parsed.validity().not_before.timestamp(),
        1_790_000_000 - 3600
    );
    assert_eq!(ca.not_after(), UnixSeconds(NOW.0 + TEN_YEARS));
    assert_eq!(parsed.subject(), parsed.issuer());
    assert_eq!(ca.subject(), parsed.subject().to_string());
    let name = ca.subject().strip_prefix("CN=Outgate CA ").unwrap();
    assert!(
        name.len() == 8 && name.bytes().all(|b| b.is_ascii_hexdigit()),
        "{name}"
    );
    assert!(
        parsed.raw_serial().len() >= 12,
        "random, so hardly ever short"
    );
    parsed.verify_signature(None).unwrap();
}

#[test]
fn the_fingerprint_is_that_of_the_certificate() {
    let ca = Folder::new().open().unwrap();
    let der = CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    let expected: Vec<String> = hash
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    assert_eq!(ca.fingerprint_sha256(), expected.join(":"));
}

#[test]
fn a_second_start_loads_what_the_first_made() {
    let folder = Folder::new();
    let first = folder.open().unwrap();
    let key = fs::read(folder.file("ca.key")).unwrap();
    let second = folder.open().unwrap();
    assert_eq!(first.certificate_pem(), second.certificate_pem());
    assert_eq!(fs::read(folder.file("ca.key")).unwrap(), key);
    assert_eq!(
        fs::read_dir(folder.dir()).unwrap().count(),
        2,
        "no temporary file stays"
    );
}

#[test]
fn two_folders_have_two_cas() {
    let (one, two) = (Folder::new().open().unwrap(), Folder::new().open().unwrap());
    assert_ne!(one.subject(), two.subject());
    assert_ne!(one.fingerprint_sha256(), two.fingerprint_sha256());
}

#[test]
fn starts_that_race_end_with_the_same_ca() {
    let folder = Folder::new();
    let prints: Vec<String> = thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| folder.open().unwrap().fingerprint_sha256()))
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap())
            .collect()
    });
    assert!(prints.iter().all(|print| *print == prints[0]), "{prints:?}");
    assert_eq!(folder.open().unwrap().fingerprint_sha256(), prints[0]);
}

#[test]
fn half_a_pair_is_refused_and_the_missing_file_named() {
    for (gone, stays) in [("ca.key", "ca.crt"), ("ca.crt", "ca.key")] {
        let folder = Folder::new();
        folder.open().unwrap();
        let before = fs::read(folder.file(stays)).unwrap();
        fs::remove_file(folder.file(gone)).unwrap();
        let error = folder.open().unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("{} is missing", folder.file(gone).display())),
            "{error}"
        );
        assert!(!folder.file(gone).exists());
        assert_eq!(fs::read(folder.file(stays)).unwrap(), before);
    }
}

#[test]
fn a_dangling_link_is_not_written_through() {
    let folder = Folder::new();
    outgate_state::create_private_dir(&folder.dir()).unwrap();
    let elsewhere = folder.0.path().join("elsewhere");
    for name in ["ca.crt", "ca.key"] {
        std::os::unix::fs::symlink(&elsewhere, folder.file(name)).unwrap();
    }
    assert!(folder.open().is_err());
    assert!(!elsewhere.exists());
}

#[test]
fn a_key_that_others_can_read_is_refused_by_name() {
    let folder = Folder::new();
    folder.open().unwrap();
    let key = folder.file("ca.key");
    let mode = |name: &str| {
        fs::metadata(folder.file(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(
        (mode("."), mode("ca.key"), mode("ca.crt")),
        (0o700, 0o600, 0o644)
    );
    for exposed in [0o644, 0o640, 0o660, 0o602] {
        fs::set_permissions(&key, fs::Permissions::from_mode(exposed)).unwrap();
        let error = folder.open().unwrap_err().to_string();
        assert!(
            error.contains(&format!("chmod 600 {}", key.display())),
            "{error}"
        );
    }
}

#[test]
fn a_foreign_ca_is_used_as_it_is() {
    let (certificate, key) = foreign_ca(|_| {});
    let folder = Folder::new();
    folder.place(&format!("a comment\n{certificate}\n{key}"), &key);
    let ca = folder.open().unwrap();
    assert_eq!(ca.certificate_pem().trim(), certificate.trim());
    assert!(
        !ca.certificate_pem().contains("PRIVATE KEY"),
        "what else is in the file is not handed out"
    );
}

#[test]
fn what_is_no_usable_ca_is_refused() {
    let (certificate, key) = foreign_ca(|_| {});
    let (_, other_key) = foreign_ca(|_| {});
    let no_ca = foreign_ca(|params| params.is_ca = IsCa::NoCa);
    let explicit = foreign_ca(|params| params.is_ca = IsCa::ExplicitNoCa);
    let no_signing = foreign_ca(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let expired = foreign_ca(|params| params.not_after = rcgen::date_time_ymd(2026, 1, 1));
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let table: Vec<(&str, &str, &str, &str)> = vec![
        (
            "another key",
            &certificate,
            &other_key,
            "is not the private key of",
        ),
        ("no CA", &no_ca.0, &no_ca.1, "do not say CA"),
        (
            "explicitly no CA",
            &explicit.0,
            &explicit.1,
            "do not say CA",
        ),
        (
            "no right to sign",
            &no_signing.0,
            &no_signing.1,
            "does not allow it to sign",
        ),
        ("expired", &expired.0, &expired.1, "expired"),
        ("no certificate", "", &key, "holds no PEM certificate"),
        (
            "a key for a certificate",
            &key,
            &key,
            "holds no PEM certificate",
        ),
        (
            "a damaged certificate",
            "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n",
            &key,
            "does not parse",
        ),
        ("no key", &certificate, "", "not a P-256 private key"),
        (
            "a certificate for a key",
            &certificate,
            &certificate,
            "not a P-256 private key",
        ),
    ];
    for (name, certificate, key, expected) in table {
        let folder = Folder::new();
        folder.place(certificate, key);
        let error = folder.open().unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert_eq!(
            fs::read_to_string(folder.file("ca.crt")).unwrap(),
            certificate,
            "{name}: left alone"
        );
        assert_eq!(
            fs::read_to_string(folder.file("ca.key")).unwrap(),
            key,
            "{name}: left alone"
        );
    }
    for other in [p384, ed25519] {
        let folder = Folder::new();
        folder.place(&certificate, &other.serialize_pem());
        assert!(matches!(folder.open(), Err(PkiError::Key { .. })));
    }
}

#[test]
fn an_expired_ca_is_refused_from_its_last_second() {
    let folder = Folder::new();
    let end = folder.open().unwrap().not_after();
    assert!(CertificateAuthority::open_or_create(&folder.dir(), UnixSeconds(end.0 - 1)).is_ok());
    let at_end = CertificateAuthority::open_or_create(&folder.dir(), end);
    assert!(matches!(at_end, Err(PkiError::Expired { not_after }) if not_after == end));
}

#[test]
fn a_clock_that_no_certificate_can_express_is_an_error_and_leaves_nothing() {
    for now in [u64::MAX, u64::MAX / 2, 1 << 50] {
        let folder = Folder::new();
        assert!(CertificateAuthority::open_or_create(&folder.dir(), UnixSeconds(now)).is_err());
        assert_eq!(fs::read_dir(folder.dir()).unwrap().count(), 0);
    }
    assert!(CertificateAuthority::open_or_create(&Folder::new().dir(), UnixSeconds(0)).is_ok());
}

#[test]
fn nothing_shows_a_private_key() {
    let folder = Folder::new();
    let ca = Arc::new(folder.open().unwrap());
    let key = fs::read_to_string(folder.file("ca.key")).unwrap();
    let minter = Minter::new(Arc::clone(&ca), 8);
    fs::write(folder.file("ca.crt"), "").unwrap();
    let error = folder.open().unwrap_err();
    let shown = format!(
        "{ca:?} {ca:#?} {minter:?} {error:?} {error} {}",
        ca.certificate_pem()
    );
    for line in key.lines().filter(|line| !line.starts_with('-')) {
        assert!(!shown.contains(line), "{shown}");
    }
    assert!(shown.contains("redacted"));
}
