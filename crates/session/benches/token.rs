//! What a token costs: minted, verified for the first time, and verified again.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark that cannot start should stop"
)]

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use outgate_journey::session::{Terms, TokenVerifier, UnixSeconds};
use outgate_session::{KeyRing, new_session_id};

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);

fn token(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let ring = KeyRing::open(&dir.path().join("keys"), "outgate", "outgate", NOW).unwrap();
    let session = new_session_id();
    let mint = || {
        ring.mint(&session, &Terms::default(), Duration::from_secs(1800), NOW)
            .unwrap()
    };
    let verifier = ring.verifier();
    let known = mint();

    c.bench_function("token/mint", |b| b.iter(mint));
    c.bench_function("token/verify cold", |b| {
        b.iter_batched(
            mint,
            |minted| verifier.verify(minted.token.expose(), NOW).unwrap(),
            BatchSize::SmallInput,
        );
    });
    c.bench_function("token/verify cached", |b| {
        b.iter(|| {
            verifier
                .verify(black_box(known.token.expose()), NOW)
                .unwrap()
        });
    });
}

criterion_group!(benches, token);
criterion_main!(benches);
