//! Leaves for another process, as that process sees them: text, verified by rustls against the CA.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{collections::HashSet, sync::Arc};

use outgate_journey::{name::HostName, session::UnixSeconds};
use outgate_pki::{CertificateAuthority, Minter, PkiError, PortableLeaf};
use rustls::{crypto::aws_lc_rs::sign::any_ecdsa_type, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn minter() -> Minter {
    Minter::new(Arc::new(CertificateAuthority::in_memory(NOW).unwrap()), 0)
}

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn later(seconds: u64) -> UnixSeconds {
    UnixSeconds(NOW.0 + seconds)
}

fn vouched(by: &Minter, leaf: &PortableLeaf, name: &str, now: UnixSeconds) -> Option<UnixSeconds> {
    by.authority()
        .vouches_for(leaf.chain_pem(), leaf.key_pem(), &host(name), now)
}

#[test]
fn a_leaf_for_another_process_is_text_that_a_server_can_load() {
    let minter = minter();
    let leaf = minter.portable(&host("api.example.org"), NOW).unwrap();
    let chain: Vec<_> = CertificateDer::pem_slice_iter(leaf.chain_pem().as_bytes())
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(chain.len(), 1);
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem().as_bytes()).unwrap();
    let certified = CertifiedKey::new(chain, any_ecdsa_type(&key).unwrap());
    certified.keys_match().unwrap();
    assert_eq!(
        (leaf.not_before(), leaf.not_after()),
        (UnixSeconds(NOW.0 - HOUR), later(DAY))
    );
}

#[test]
fn each_leaf_for_another_process_has_a_key_and_a_serial_number_of_its_own() {
    let minter = minter();
    let leaves: Vec<_> = (0..50)
        .map(|_| minter.portable(&host("api.example.org"), NOW).unwrap())
        .collect();
    let keys: HashSet<_> = leaves.iter().map(PortableLeaf::key_pem).collect();
    let serials: HashSet<_> = leaves.iter().map(PortableLeaf::serial).collect();
    assert_eq!((keys.len(), serials.len()), (50, 50));
    assert!(serials.iter().all(|serial| serial.len() == 32));
}

#[test]
fn a_ca_vouches_for_its_own_leaves_only() {
    let (minter, stranger) = (minter(), minter());
    let leaf = minter.portable(&host("api.example.org"), NOW).unwrap();
    let other = minter.portable(&host("api.example.org"), NOW).unwrap();
    assert_eq!(
        vouched(&minter, &leaf, "api.example.org", NOW),
        Some(later(DAY))
    );
    assert!(vouched(&minter, &leaf, "api.example.org", later(DAY)).is_some());
    for (what, found) in [
        ("another name", vouched(&minter, &leaf, "example.org", NOW)),
        (
            "too late",
            vouched(&minter, &leaf, "api.example.org", later(DAY + 1)),
        ),
        (
            "another CA",
            vouched(&stranger, &leaf, "api.example.org", NOW),
        ),
        (
            "another leaf's key",
            minter.authority().vouches_for(
                leaf.chain_pem(),
                other.key_pem(),
                &host("api.example.org"),
                NOW,
            ),
        ),
        (
            "no certificate",
            minter
                .authority()
                .vouches_for("", leaf.key_pem(), &host("api.example.org"), NOW),
        ),
        (
            "no key",
            minter
                .authority()
                .vouches_for(leaf.chain_pem(), "", &host("api.example.org"), NOW),
        ),
    ] {
        assert_eq!(found, None, "{what}");
    }
}

#[test]
fn a_key_that_leaves_is_not_shown_by_debug() {
    let leaf = minter().portable(&host("api.example.org"), NOW).unwrap();
    let shown = format!("{leaf:?}");
    assert!(shown.contains(leaf.serial()) && shown.contains("redacted"));
    assert!(!shown.contains("PRIVATE") && !shown.contains("BEGIN"));
}

#[test]
fn an_expired_ca_mints_nothing_for_others_either() {
    let minter = minter();
    let end = minter.authority().not_after();
    let near = UnixSeconds(end.0 - HOUR);
    assert_eq!(
        minter.portable(&host("a.test"), near).unwrap().not_after(),
        end
    );
    assert!(matches!(
        minter.portable(&host("a.test"), end),
        Err(PkiError::Expired { .. })
    ));
}
