//! The files of a run: the CA, the bundle and Java's truststore, which all hold the same roots.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use outgate_journey::session::UnixSeconds;
use outgate_pki::{
    CallersRoots, CertificateAuthority, PkiError, RootSource, combined_bundle, java_truststore,
    write_trust,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);

fn ca() -> String {
    CertificateAuthority::in_memory(NOW)
        .unwrap()
        .certificate_pem()
        .to_owned()
}

/// Reads a truststore as Java does, field by field.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn number(&mut self) -> usize {
        let bytes: [u8; 4] = self.take(4).try_into().unwrap();
        u32::from_be_bytes(bytes) as usize
    }

    fn text(&mut self) -> String {
        let bytes: [u8; 2] = self.take(2).try_into().unwrap();
        let text = self.take(u16::from_be_bytes(bytes).into());
        String::from_utf8(text.to_vec()).unwrap()
    }
}

/// Aliases and certificates.
fn read(store: &[u8]) -> Vec<(String, Vec<u8>)> {
    let (body, checksum) = store.split_at(store.len() - 20);
    let password: Vec<u8> = "changeit".bytes().flat_map(|b| [0, b]).collect();
    let expected = digest(
        &SHA1_FOR_LEGACY_USE_ONLY,
        &[&password[..], b"Mighty Aphrodite", body].concat(),
    );
    assert_eq!(checksum, expected.as_ref());
    let mut reader = Reader(body);
    assert_eq!(reader.take(8), [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2]);
    let entries = (0..reader.number()).map(|_| {
        assert_eq!(reader.number(), 2, "a trusted certificate");
        let alias = reader.text();
        reader.take(8);
        assert_eq!(reader.text(), "X.509");
        let length = reader.number();
        (alias, reader.take(length).to_vec())
    });
    let entries = entries.collect();
    assert!(reader.0.is_empty());
    entries
}

#[test]
fn a_truststore_holds_each_root_under_a_name_of_its_own() {
    let roots: Vec<CertificateDer<'_>> = (0..3)
        .map(|_| CertificateDer::from_pem_slice(ca().as_bytes()).unwrap())
        .collect();
    let store = java_truststore(&roots).unwrap();
    let entries = read(&store);
    let found: Vec<&[u8]> = entries.iter().map(|(_, der)| der.as_slice()).collect();
    let expected: Vec<&[u8]> = roots.iter().map(AsRef::as_ref).collect();
    assert_eq!(found, expected);
    let mut aliases: Vec<_> = entries
        .iter()
        .map(|(alias, _)| alias.to_lowercase())
        .collect();
    aliases.dedup();
    assert_eq!(aliases.len(), 3);
    assert_eq!(java_truststore(&roots).unwrap(), store);
    assert_eq!(read(&java_truststore(&[]).unwrap()), []);
}

fn written(dir: &Path, roots: &str) -> (String, outgate_pki::TrustFiles) {
    let (ours, file) = (ca(), dir.join("roots.pem"));
    fs::write(&file, roots).unwrap();
    let files = write_trust(dir, &ours, &named(&file)).unwrap();
    assert_eq!(files.bundle.roots, RootSource::File(file));
    (ours, files)
}

#[test]
fn the_three_files_of_a_run_hold_the_same_roots() {
    let dir = tempfile::tempdir().unwrap();
    let system = format!("{}# again\n{}", ca(), ca());
    let (ours, files) = written(dir.path(), &system);
    assert_eq!(fs::read_to_string(&files.ca).unwrap(), ours);
    let bundle = fs::read_to_string(&files.bundle.path).unwrap();
    assert_eq!(bundle, combined_bundle(&system, &ours));
    let in_bundle: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(bundle.as_bytes())
        .map(|der| der.unwrap().to_vec())
        .collect();
    let in_store: Vec<Vec<u8>> = read(&fs::read(&files.truststore).unwrap())
        .into_iter()
        .map(|(_, der)| der)
        .collect();
    assert_eq!((in_bundle.len(), in_bundle), (3, in_store));
}

#[test]
fn what_the_caller_adds_for_node_is_in_every_file_and_files_keep_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let (roots, extra) = (dir.path().join("roots.pem"), dir.path().join("extra.pem"));
    let (root, company, ours) = (ca(), ca(), ca());
    fs::write(&roots, &root).unwrap();
    fs::write(&extra, &company).unwrap();
    let bundle = dir.path().join("bundle.pem");
    fs::write(&bundle, "x".repeat(100_000)).unwrap();
    let before = fs::metadata(&bundle).unwrap().ino();
    let callers = CallersRoots {
        node_extra_ca_certs: Some(extra),
        ..named(&roots)
    };
    let files = write_trust(dir.path(), &ours, &callers).unwrap();
    assert_eq!(fs::metadata(&bundle).unwrap().ino(), before);
    assert_eq!(
        fs::read_to_string(&files.ca).unwrap(),
        company.clone() + &ours
    );
    assert_eq!(fs::read_to_string(bundle).unwrap(), root + &company + &ours);
    let missing = CallersRoots {
        node_extra_ca_certs: Some(dir.path().join("missing.pem")),
        ..named(&roots)
    };
    let files = write_trust(dir.path(), &ours, &missing).unwrap();
    assert_eq!(fs::read_to_string(&files.ca).unwrap(), ours);
}

fn named(file: &Path) -> CallersRoots {
    CallersRoots {
        ssl_cert_file: Some(file.to_owned()),
        node_extra_ca_certs: None,
    }
}

#[test]
fn roots_that_are_named_and_no_use_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.pem");
    let refused = write_trust(dir.path(), &ca(), &named(&missing));
    assert!(matches!(refused, Err(PkiError::Roots { path }) if path == missing));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
