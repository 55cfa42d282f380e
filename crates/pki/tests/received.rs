//! Leaves that come from another process: served where guests would take them, refused with a reason elsewhere.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::{fs, sync::Arc};

use outgate_journey::{name::HostName, session::UnixSeconds};
use outgate_pki::{CaCertificate, CertificateAuthority, Minter, PkiError, PortableLeaf};
use tempfile::TempDir;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const DAY: u64 = 24 * 60 * 60;

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

/// A minter, and the certificate of its CA as a gateway knows it.
fn minter() -> (Minter, CaCertificate, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::open_or_create(folder.path(), NOW).unwrap();
    let known = CaCertificate::load(&folder.path().join("ca.crt"), NOW).unwrap();
    assert_eq!(known.certificate_pem(), authority.certificate_pem());
    assert_eq!(known.fingerprint_sha256(), authority.fingerprint_sha256());
    assert_eq!(known.subject(), authority.subject());
    assert_eq!(known.not_after(), authority.not_after());
    (Minter::new(Arc::new(authority), 0), known, folder)
}

fn leaf(minter: &Minter) -> PortableLeaf {
    minter.portable(&host("api.example.org"), NOW).unwrap()
}

#[test]
fn a_leaf_of_the_known_ca_is_served_for_as_long_as_it_is_good() {
    let (minter, known, _folder) = minter();
    let leaf = leaf(&minter);
    let received = known
        .receive(
            leaf.chain_pem(),
            leaf.key_pem(),
            &host("api.example.org"),
            NOW,
        )
        .unwrap();
    assert_eq!(received.good, leaf.not_before()..leaf.not_after());
    assert_eq!(received.certified.cert.len(), 1);
}

#[test]
fn a_leaf_that_guests_would_refuse_or_that_has_anothers_key_is_refused() {
    let (minter, known, _folder) = self::minter();
    let (foreign, _, _other_folder) = self::minter();
    let (good, other, foreign) = (leaf(&minter), leaf(&minter), leaf(&foreign));
    let name = "api.example.org";
    let table = [
        (
            "another CA",
            foreign.chain_pem(),
            foreign.key_pem(),
            name,
            NOW,
        ),
        (
            "another name",
            good.chain_pem(),
            good.key_pem(),
            "www.example.org",
            NOW,
        ),
        ("another key", good.chain_pem(), other.key_pem(), name, NOW),
        (
            "past its end",
            good.chain_pem(),
            good.key_pem(),
            name,
            UnixSeconds(NOW.0 + 2 * DAY),
        ),
        (
            "before its time",
            good.chain_pem(),
            good.key_pem(),
            name,
            UnixSeconds(NOW.0 - DAY),
        ),
        ("no key", good.chain_pem(), good.chain_pem(), name, NOW),
        ("no certificate", good.key_pem(), good.key_pem(), name, NOW),
        ("nothing", "", "", name, NOW),
    ];
    for (what, chain, key, name, now) in table {
        let refused = known.receive(chain, key, &host(name), now).unwrap_err();
        assert!(matches!(refused, PkiError::Leaf(_)), "{what}: {refused}");
        assert!(!refused.to_string().contains("PRIVATE"), "{what}");
    }
}

#[test]
fn what_is_no_certificate_of_a_ca_is_not_taken_for_one() {
    let (minter, _, folder) = minter();
    let at = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let leaf = leaf(&minter);
    for (path, now) in [
        (folder.path().join("absent.pem"), NOW),
        (folder.path().join("ca.key"), NOW),
        (at("empty.pem", ""), NOW),
        (at("leaf.pem", leaf.chain_pem()), NOW),
        (
            folder.path().join("ca.crt"),
            UnixSeconds(NOW.0 + 4000 * DAY),
        ),
    ] {
        assert!(
            CaCertificate::load(&path, now).is_err(),
            "{}",
            path.display()
        );
    }
}

#[test]
fn the_certificate_is_published_where_a_ca_would_be_but_never_beside_a_key() {
    let (_minter, known, own) = minter();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("ca");
    let bundle = known.publish(&place, None).unwrap();
    assert_eq!(
        fs::read_to_string(place.join("ca.crt")).unwrap(),
        known.certificate_pem()
    );
    let roots = fs::read_to_string(bundle.path).unwrap();
    assert!(roots.contains(known.certificate_pem()));
    assert!(!place.join("ca.key").exists());

    let refused = known.publish(own.path(), None).unwrap_err();
    assert!(matches!(refused, PkiError::OwnKey { .. }), "{refused}");
    assert!(!own.path().join("bundle.pem").exists());
}
