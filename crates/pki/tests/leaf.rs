//! Leaves, as a client sees them: verified by rustls against the CA, and looked at field by field.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{sync::Arc, time::Duration};

use outgate_journey::{name::HostName, session::UnixSeconds};
use outgate_pki::{CertificateAuthority, Minter, PkiError};
use rustls::{
    CertificateError, Error, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs::default_provider,
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn ca_at(now: UnixSeconds) -> Arc<CertificateAuthority> {
    let root = tempfile::tempdir().unwrap();
    Arc::new(CertificateAuthority::open_or_create(&root.path().join("ca"), now).unwrap())
}

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn verify(
    ca: &CertificateAuthority,
    leaf: &CertifiedKey,
    name: &str,
    now: UnixSeconds,
) -> Result<(), Error> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).unwrap())
        .unwrap();
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
            .build()
            .unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.0));
    verifier
        .verify_server_cert(&leaf.cert[0], &leaf.cert[1..], &name, &[], now)
        .map(|_| ())
}

fn later(seconds: u64) -> UnixSeconds {
    UnixSeconds(NOW.0 + seconds)
}

#[test]
fn a_leaf_is_good_for_its_name_and_its_day_only() {
    let ca = ca_at(NOW);
    let leaf = Minter::new(Arc::clone(&ca), 8)
        .leaf(&host("api.example.com"), NOW)
        .unwrap();
    for now in [UnixSeconds(NOW.0 - HOUR), NOW, later(DAY)] {
        verify(&ca, &leaf, "api.example.com", now).unwrap();
    }
    for name in [
        "example.com",
        "x.api.example.com",
        "api.example.org",
        "apiXexample.com",
        "127.0.0.1",
    ] {
        let refused = verify(&ca, &leaf, name, NOW);
        let wrong_name = matches!(
            refused,
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            ))
        );
        assert!(wrong_name, "{name}: {refused:?}");
    }
    let expired = verify(&ca, &leaf, "api.example.com", later(DAY + 1));
    assert!(
        matches!(
            expired,
            Err(Error::InvalidCertificate(
                CertificateError::ExpiredContext { .. }
            ))
        ),
        "{expired:?}"
    );
    let early = verify(&ca, &leaf, "api.example.com", UnixSeconds(NOW.0 - HOUR - 1));
    assert!(
        matches!(
            early,
            Err(Error::InvalidCertificate(
                CertificateError::NotValidYetContext { .. }
            ))
        ),
        "{early:?}"
    );
    let stranger = verify(&ca_at(NOW), &leaf, "api.example.com", NOW);
    assert!(
        matches!(
            stranger,
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
        ),
        "{stranger:?}"
    );
}

#[test]
fn a_leaf_says_nothing_but_its_name() {
    let ca = ca_at(NOW);
    let leaf = Minter::new(Arc::clone(&ca), 8)
        .leaf(&host("api.example.com"), NOW)
        .unwrap();
    assert_eq!(leaf.cert.len(), 1);
    let (_, parsed) = X509Certificate::from_der(&leaf.cert[0]).unwrap();
    assert_eq!(parsed.subject().iter().count(), 0);
    assert_eq!(parsed.issuer().to_string(), ca.subject());
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical);
    assert_eq!(
        names.value.general_names,
        [GeneralName::DNSName("api.example.com")]
    );
    let usage = parsed.key_usage().unwrap().unwrap();
    assert!(usage.value.digital_signature() && usage.value.flags.count_ones() == 1);
    let extended = parsed.extended_key_usage().unwrap().unwrap();
    assert!(extended.value.server_auth && !extended.value.any && !extended.value.client_auth);
    assert!(
        parsed
            .basic_constraints()
            .unwrap()
            .is_none_or(|constraints| !constraints.value.ca)
    );
    assert_eq!(
        parsed.validity().not_before.timestamp(),
        i64::try_from(NOW.0 - HOUR).unwrap()
    );
    assert_eq!(
        parsed.validity().not_after.timestamp(),
        i64::try_from(NOW.0 + DAY).unwrap()
    );

    let ca_der = CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).unwrap();
    let (_, ca_parsed) = X509Certificate::from_der(&ca_der).unwrap();
    let find = |certificate: &X509Certificate<'_>| {
        certificate
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    id.key_identifier.as_ref().map(|id| id.0.to_vec())
                }
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
    };
    assert!(find(&ca_parsed).is_some());
    assert_eq!(
        find(&parsed),
        find(&ca_parsed),
        "the authority key id is the CA's key id"
    );
}

#[test]
fn serial_numbers_are_random_and_the_key_is_shared() {
    let minter = Minter::new(ca_at(NOW), 1024);
    let leaves: Vec<_> = (0..100)
        .map(|i| minter.leaf(&host(&format!("h{i}.example")), NOW).unwrap())
        .collect();
    let mut serials: Vec<_> = leaves
        .iter()
        .map(|leaf| {
            let (_, parsed) = X509Certificate::from_der(&leaf.cert[0]).unwrap();
            assert!(
                parsed.raw_serial().len() <= 17 && parsed.raw_serial()[0] < 0x80,
                "positive, 128 bits"
            );
            parsed.raw_serial().to_vec()
        })
        .collect();
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 100);
    assert!(
        leaves
            .iter()
            .all(|leaf| leaf.keys_match().is_ok() && Arc::ptr_eq(&leaf.key, &leaves[0].key))
    );
}

#[test]
fn the_key_differs_from_process_to_process() {
    let ca = ca_at(NOW);
    let key = |minter: &Minter| {
        minter
            .leaf(&host("a.example"), NOW)
            .unwrap()
            .key
            .public_key()
            .unwrap()
            .to_vec()
    };
    assert_ne!(
        key(&Minter::new(Arc::clone(&ca), 8)),
        key(&Minter::new(ca, 8))
    );
}

#[test]
fn names_of_every_length_and_alphabet_are_served() {
    let ca = ca_at(NOW);
    let minter = Minter::new(Arc::clone(&ca), 8);
    let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
    for name in [
        "a",
        &"x".repeat(63),
        &format!("{}.example.com", "y".repeat(60)),
        &long,
        "xn--bcher-kva.example",
        "a_b.example",
    ] {
        let leaf = minter.leaf(&host(name), NOW).unwrap();
        verify(&ca, &leaf, name, NOW).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_leaf_is_remembered_until_an_hour_before_its_end() {
    let minter = Minter::new(ca_at(NOW), 8);
    let name = host("api.example.com");
    let first = minter.leaf(&name, NOW).unwrap();
    let same = |now| Arc::ptr_eq(&first, &minter.leaf(&name, now).unwrap());
    assert!(same(NOW));
    assert!(same(later(23 * HOUR - 1)));
    assert!(!same(later(23 * HOUR)));
    // A clock that went back further than a leaf is backdated gets one that is good at its own time.
    let minter = Minter::new(ca_at(UnixSeconds(NOW.0 - 10 * DAY)), 8);
    let first = minter.leaf(&name, NOW).unwrap();
    assert!(Arc::ptr_eq(
        &first,
        &minter.leaf(&name, UnixSeconds(NOW.0 - HOUR)).unwrap()
    ));
    assert!(!Arc::ptr_eq(
        &first,
        &minter.leaf(&name, UnixSeconds(NOW.0 - HOUR - 1)).unwrap()
    ));
}

#[test]
fn evicting_forgets_and_capacity_bounds() {
    let minter = Minter::new(ca_at(NOW), 16);
    let name = host("api.example.com");
    let first = minter.leaf(&name, NOW).unwrap();
    minter.evict_all();
    assert!(!Arc::ptr_eq(&first, &minter.leaf(&name, NOW).unwrap()));
    let kept: Vec<_> = (0..200)
        .map(|i| minter.leaf(&host(&format!("h{i}.example")), NOW).unwrap())
        .collect();
    // Whoever is not held by the minter any more is held only here.
    let remembered = kept
        .iter()
        .filter(|leaf| Arc::strong_count(leaf) > 1)
        .count();
    assert!(remembered <= 16, "{remembered}");
}

#[test]
fn no_leaf_outlives_the_ca() {
    let ca = ca_at(NOW);
    let minter = Minter::new(Arc::clone(&ca), 8);
    let name = host("api.example.com");
    let near = UnixSeconds(ca.not_after().0 - 2 * HOUR);
    let leaf = minter.leaf(&name, near).unwrap();
    let (_, parsed) = X509Certificate::from_der(&leaf.cert[0]).unwrap();
    assert_eq!(
        parsed.validity().not_after.timestamp(),
        i64::try_from(ca.not_after().0).unwrap()
    );
    verify(&ca, &leaf, "api.example.com", near).unwrap();
    assert!(
        minter
            .leaf(&name, UnixSeconds(ca.not_after().0 - 1))
            .is_ok()
    );
    for now in [ca.not_after(), UnixSeconds(u64::MAX)] {
        assert!(matches!(
            minter.leaf(&name, now),
            Err(PkiError::Expired { .. })
        ));
    }
}

#[test]
fn many_threads_get_good_leaves() {
    let ca = ca_at(NOW);
    let minter = Minter::new(Arc::clone(&ca), 8);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..40 {
                    let name = format!("h{}.example", i % 10);
                    let leaf = minter.leaf(&host(&name), NOW).unwrap();
                    verify(&ca, &leaf, &name, NOW).unwrap();
                }
            });
        }
    });
}
