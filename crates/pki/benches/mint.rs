//! What a leaf costs: minted, and remembered. The goal is 150 µs for the first, signature included.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark that cannot start should stop"
)]

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use outgate_journey::{name::HostName, session::UnixSeconds};
use outgate_pki::{CertificateAuthority, Minter};

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);

fn mint(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let ca = Arc::new(CertificateAuthority::open_or_create(&dir.path().join("ca"), NOW).unwrap());
    let minter = Minter::new(ca, 1024);
    let host = HostName::parse("api.example.com").unwrap();

    c.bench_function("leaf/cold", |b| {
        b.iter(|| {
            minter.evict_all();
            minter.leaf(black_box(&host), NOW).unwrap()
        });
    });
    c.bench_function("leaf/portable", |b| {
        b.iter(|| minter.portable(black_box(&host), NOW).unwrap())
    });
    c.bench_function("leaf/cached", |b| {
        b.iter(|| minter.leaf(black_box(&host), NOW).unwrap())
    });
}

criterion_group!(benches, mint);
criterion_main!(benches);
