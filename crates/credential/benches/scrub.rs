//! How fast a body without the credential passes: the cost that every credentialed answer pays.

#![allow(missing_docs, reason = "the macros make public items")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on fails"
)]

use std::{collections::BTreeMap, fs, hint::black_box, sync::Arc};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::header::AUTHORIZATION;
use outgate_credential::{CredentialStore, CredentialVersion};
use outgate_journey::{
    inject::Credentials,
    policy::{CredentialName, CredentialSource, InjectionForm},
};

const CHUNK: usize = 16 * 1024;

fn credential(secret: &str) -> Arc<CredentialVersion> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    fs::write(&path, secret).expect("a file");
    let name = CredentialName::new("api");
    let form = InjectionForm::Header {
        name: AUTHORIZATION,
        prefix: "Bearer ".into(),
        suffix: String::new(),
    };
    let wanted = BTreeMap::from([(name.clone(), CredentialSource::File(path))]);
    let (store, _) = CredentialStore::open(&wanted, &[(name.clone(), form)]);
    store.lease(&name).expect("a lease")
}

/// Bytes that no compiler and no branch predictor can foresee.
fn noise(length: usize, alphabet: &[u8]) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % 1_000_003).unwrap_or(0)
    };
    (0..length)
        .map(|_| alphabet[next() % alphabet.len()])
        .collect()
}

fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let base64: Vec<u8> = (b'a'..=b'z')
        .chain(b'A'..=b'Z')
        .chain(b'0'..=b'9')
        .chain(*b"+/")
        .collect();
    let event = br#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello, there"}}
"#;
    vec![
        (
            "json events",
            event.iter().copied().cycle().take(1 << 20).collect(),
        ),
        ("binary", noise(1 << 20, &all)),
        ("base64", noise(1 << 20, &base64)),
        ("hex", noise(1 << 20, b"0123456789abcdef")),
    ]
}

fn scrubbing(criterion: &mut Criterion) {
    let secrets = [
        ("api key", "sk-ant-api03-aZ9b_xQ7wE5rTnB4vC8mK2jH6gF1dS0pL3"),
        ("password", "p@ss/w\"0rd<&>+x=é y"),
    ];
    for (kind, secret) in secrets {
        let credential = credential(secret);
        let mut group = criterion.benchmark_group(format!("scrub/{kind}"));
        for (what, body) in bodies() {
            let body = Bytes::from(body);
            group.throughput(Throughput::Bytes(u64::try_from(body.len()).unwrap_or(0)));
            group.bench_function(what, |bencher| {
                bencher.iter(|| {
                    let mut stream = credential.scrubber().stream();
                    for start in (0..body.len()).step_by(CHUNK) {
                        let chunk = body.slice(start..body.len().min(start + CHUNK));
                        stream.push(chunk).for_each(|piece| drop(black_box(piece)));
                    }
                    black_box(stream.finish());
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = scrubbing
}
criterion_main!(benches);
