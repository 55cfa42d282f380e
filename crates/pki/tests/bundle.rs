//! The bundle: the system's roots and the CA, nothing else, nothing twice.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use outgate_journey::session::UnixSeconds;
use outgate_pki::{CertificateAuthority, PkiError, RootSource, combined_bundle, write_bundle};
use rcgen::KeyPair;

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);

fn ca(dir: &Path) -> String {
    CertificateAuthority::open_or_create(&dir.join("ca"), NOW)
        .unwrap()
        .certificate_pem()
        .to_owned()
}

fn blocks(pem: &str) -> Vec<&str> {
    pem.split_inclusive("-----END CERTIFICATE-----\n").collect()
}

#[test]
fn certificates_are_kept_in_order_and_the_rest_is_left_out() {
    let root = tempfile::tempdir().unwrap();
    let (one, two, ours) = (
        ca(&root.path().join("1")),
        ca(&root.path().join("2")),
        ca(&root.path().join("3")),
    );
    let key = KeyPair::generate().unwrap().serialize_pem();
    let damaged = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
    let system = format!(
        "# One\r\n{}{key}{damaged}# Zwei\n{two}{one}{ours}",
        one.replace('\n', "\r\n")
    );
    assert_eq!(
        blocks(&combined_bundle(&system, &ours)),
        [&one, &two, &ours]
    );
    assert_eq!(combined_bundle("", &ours), ours);
    // A bundle without a line feed at its end does not swallow the CA.
    assert_eq!(
        blocks(&combined_bundle(one.trim_end(), &ours)),
        [&one, &ours]
    );
}

#[test]
fn a_named_file_is_used_or_refused() {
    let root = tempfile::tempdir().unwrap();
    let (system, ours) = (ca(&root.path().join("1")), ca(&root.path().join("2")));
    let file = root.path().join("roots.pem");
    fs::write(&file, [b"# \xfc\n", system.as_bytes()].concat()).unwrap();
    let bundle = write_bundle(root.path(), &ours, Some(&file)).unwrap();
    assert_eq!(bundle.roots, RootSource::File(file.clone()));
    assert_eq!(
        blocks(&fs::read_to_string(&bundle.path).unwrap()),
        [&system, &ours]
    );
    assert_eq!(
        fs::metadata(&bundle.path).unwrap().permissions().mode() & 0o7777,
        0o644
    );

    fs::write(&file, "no certificate").unwrap();
    for useless in [&file, &root.path().join("absent.pem")] {
        let refused = write_bundle(root.path(), &ours, Some(useless));
        assert!(matches!(refused, Err(PkiError::Roots { path }) if path == *useless));
    }
    assert_eq!(
        blocks(&fs::read_to_string(&bundle.path).unwrap()).len(),
        2,
        "the old one stays"
    );
}

#[test]
fn the_bundle_is_not_built_from_itself() {
    let root = tempfile::tempdir().unwrap();
    let (stale, ours) = (ca(&root.path().join("1")), ca(&root.path().join("2")));
    let own = root.path().join("bundle.pem");
    fs::write(&own, &stale).unwrap();
    let bundle = write_bundle(root.path(), &ours, Some(&own)).unwrap();
    assert_ne!(bundle.roots, RootSource::File(own.clone()));
    let text = fs::read_to_string(&own).unwrap();
    assert!(!text.contains(&stale) && text.ends_with(&ours));
}

#[test]
fn without_a_named_file_the_systems_roots_are_found() {
    let root = tempfile::tempdir().unwrap();
    let ours = ca(root.path());
    let bundle = write_bundle(root.path(), &ours, None).unwrap();
    let text = fs::read_to_string(&bundle.path).unwrap();
    assert!(text.ends_with(&ours));
    let roots = blocks(&text).len() - 1;
    assert_eq!(
        roots == 0,
        bundle.roots == RootSource::Nowhere,
        "{:?}: {roots}",
        bundle.roots
    );
}
