//! A rotation does not reach everybody at one moment: a version's scrubber knows the two values before it as well.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::{fs, path::PathBuf, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use outgate_credential::{CredentialStore, CredentialVersion};
use outgate_journey::{
    inject::Credentials,
    policy::{CredentialSource, InjectionForm},
};
use support::{basic, bearer, holds, name, scrub, spelled, wanted};

const A: &[u8] = b"sk-live-0123456789abcdef";
const B: &[u8] = b"sk-live-fedcba/9876\"543210+longer";
const C: &[u8] = b"other<kind>&of=key";
const D: &[u8] = b"the-fourth-value";

struct World {
    _folder: tempfile::TempDir,
    path: PathBuf,
    store: CredentialStore,
}

impl World {
    fn new(form: InjectionForm) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, A).unwrap();
        let (store, _) = CredentialStore::open(&wanted(&path), &[(name(), form)]);
        Self {
            _folder: folder,
            path,
            store,
        }
    }

    fn rotate(&self, value: &[u8]) -> Arc<CredentialVersion> {
        fs::write(&self.path, value).unwrap();
        assert_eq!(self.store.refresh().len(), 1);
        self.lease()
    }

    fn lose(&self) {
        fs::remove_file(&self.path).unwrap();
        assert_eq!(self.store.refresh().len(), 1);
        assert!(self.store.lease(&name()).is_err());
    }

    fn lease(&self) -> Arc<CredentialVersion> {
        self.store.lease(&name()).unwrap()
    }
}

/// Which of the four values a version masks.
fn known(version: &CredentialVersion) -> [bool; 4] {
    [A, B, C, D].map(|value| version.scrubber().contains(value))
}

#[test]
fn the_two_values_before_are_masked_in_every_spelling_and_the_third_is_forgotten() {
    let world = World::new(bearer());
    let first = world.lease();
    let second = world.rotate(B);
    let third = world.rotate(C);
    assert_eq!(known(&first), [true, false, false, false]);
    assert_eq!(known(&second), [true, true, false, false]);
    for secret in [A, B, C] {
        for (what, spelling) in spelled(secret) {
            let text = [b"before\0", &spelling[..], b"\0after"].concat();
            for sizes in [&[1][..], &[5, 2], &[1000]] {
                let mut stream = third.scrubber().stream();
                let out = scrub(&mut stream, &text, sizes);
                assert_eq!(out.len(), text.len(), "{what}");
                assert!(!holds(&out, &spelling), "{what} came out");
                assert!(out.starts_with(b"before\0") && out.ends_with(b"\0after"));
                assert!(stream.hits() > 0, "{what}");
            }
            let Ok(value) = HeaderValue::from_bytes(&spelling) else {
                continue;
            };
            let masked = third.scrubber().header_value(&value).expect(what);
            assert_eq!(masked.len(), value.len(), "{what}");
            assert!(!holds(masked.as_bytes(), &spelling), "{what}");
        }
    }
    let fourth = world.rotate(D);
    assert_eq!(known(&fourth), [false, true, true, true]);
    assert!(third.covers(&first) && fourth.covers(&second));
    assert!(!fourth.covers(&first) && !first.covers(&second));
}

#[test]
fn two_values_side_by_side_are_masked_both() {
    let world = World::new(bearer());
    let second = world.rotate(B);
    let text = [A, B, A].concat();
    for sizes in [&[1][..], &[3, 20], &[1000]] {
        let out = scrub(&mut second.scrubber().stream(), &text, sizes);
        assert_eq!(out.len(), text.len());
        // Of a stream's first value, three bytes may leave.
        assert!(
            !holds(&out, &A[3..7]) && !holds(&out, &B[8..12]),
            "{sizes:?}"
        );
    }
}

#[test]
fn a_loss_does_not_forget_what_was_there_before() {
    let world = World::new(bearer());
    world.rotate(B);
    world.lose();
    assert_eq!(world.store.refresh(), []);
    assert_eq!(known(&world.rotate(B)), [true, true, false, false]);
    world.lose();
    assert_eq!(known(&world.rotate(C)), [true, true, true, false]);
}

#[test]
fn a_value_that_returns_takes_no_other_ones_place() {
    let world = World::new(bearer());
    for value in [B, A, B, A] {
        world.rotate(value);
    }
    assert_eq!(known(&world.lease()), [true, true, false, false]);
    assert_eq!(known(&world.rotate(C)), [true, true, true, false]);
}

#[test]
fn a_reload_keeps_the_values_before_and_spells_them_in_other_forms() {
    let world = World::new(bearer());
    world.rotate(B);
    let pair = STANDARD.encode([b"user:", A].concat());
    assert!(
        !world
            .lease()
            .scrubber()
            .header_value(&HeaderValue::from_str(&pair).unwrap())
            .unwrap()
            .as_bytes()
            .starts_with(b"[scrubbed]")
    );
    world
        .store
        .reconfigure(&wanted(&world.path), &[(name(), basic())]);
    let value = HeaderValue::from_str(&pair).unwrap();
    let masked = world.lease().scrubber().header_value(&value).unwrap();
    assert!(masked.as_bytes().starts_with(b"[scrubbed]"));

    // Another source for the same credential.
    let source = CredentialSource::Env("CARGO_PKG_NAME".into());
    let wanted = [(name(), source)].into();
    world.store.reconfigure(&wanted, &[(name(), basic())]);
    assert_eq!(known(&world.lease()), [true, true, false, false]);
    assert!(world.lease().scrubber().contains(b"outgate-credential"));

    // A credential that is not wanted any more is forgotten.
    world.store.reconfigure(&[].into(), &[]);
    world.store.reconfigure(&wanted, &[(name(), basic())]);
    assert_eq!(known(&world.lease()), [false; 4]);
}
