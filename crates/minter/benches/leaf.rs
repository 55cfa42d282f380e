//! What a leaf for a data plane costs: minted by a service with everything that belongs to it, and held. The goal is
//! 5,000 mints a second on one core. At the end, what a leaf that is held takes of memory.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot start should stop"
)]

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use outgate_audit::{AuditKey, AuditLog, AuditOptions, Rotation};
use outgate_clock::FakeClock;
use outgate_journey::{
    address::DenySet,
    name::HostPattern,
    policy::{
        DestinationLimits, Policy, Port, Posture, RequestRules, Rule, RuleId, SessionLimits,
        TokenDemand, TunnelProtocol,
    },
    session::UnixSeconds,
};
use outgate_minter::{Asker, LeafParts, LeafService, portable_minter};
use outgate_pki::CertificateAuthority;
use tokio::sync::broadcast;

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);
/// Handshakes for so many names at once, which share a write to the trail's disk.
const AT_ONCE: u64 = 256;

fn rule() -> Rule {
    Rule {
        id: RuleId::new("destinations[0] *.example.org"),
        host: HostPattern::parse("*.example.org").unwrap(),
        ports: vec![Port::HTTPS],
        posture: Posture::Bump,
        protocol: TunnelProtocol::Tls,
        plaintext: false,
        encrypted_client_hello: false,
        token: TokenDemand::Required,
        requests: RequestRules::default(),
        injection: None,
        limits: DestinationLimits::default(),
        addresses: Default::default(),
    }
}

fn service(folder: &std::path::Path, capacity: usize) -> Arc<LeafService> {
    let clock = Arc::new(FakeClock::at(NOW));
    let options = AuditOptions {
        clock: clock.clone(),
        key: AuditKey::in_memory().unwrap(),
        rotation: Rotation::NEVER,
    };
    let policy = Policy::new(
        vec![rule()],
        DenySet::default(),
        SessionLimits::default(),
        vec![],
    );
    LeafService::new(LeafParts {
        minter: portable_minter(Arc::new(CertificateAuthority::in_memory(NOW).unwrap())),
        policy: Arc::new(policy),
        clock,
        trail: Arc::new(AuditLog::open(folder, options).unwrap()),
        changes: broadcast::Sender::new(1024),
        capacity,
    })
}

async fn mint(service: &Arc<LeafService>, next: &mut u64) {
    let asker = Asker::local();
    let names = (0..AT_ONCE).map(|i| format!("host-{}.example.org", *next + i));
    let names: Vec<_> = names.collect();
    *next += AT_ONCE;
    let minted = names.iter().map(|name| service.leaf(&asker, name));
    for leaf in join_all(minted).await {
        black_box(leaf.unwrap());
    }
}

fn leaves(c: &mut Criterion) {
    // What is measured is the time of the processor, the trail's writer included: a second is a second of one core.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut next = 0;
    let mut group = c.benchmark_group("leaf");

    let held = service(&folder.path().join("held"), 10_000);
    group.throughput(Throughput::Elements(AT_ONCE));
    group.bench_function("minted, recorded, held", |b| {
        b.iter_custom(|rounds| {
            let began = cpu();
            for _ in 0..rounds {
                runtime.block_on(mint(&held, &mut next));
            }
            cpu().saturating_sub(began)
        });
    });

    let asker = Asker::local();
    let name = format!("host-{}.example.org", next - 1);
    group.throughput(Throughput::Elements(1));
    group.bench_function("held", |b| {
        b.iter(|| {
            runtime
                .block_on(held.leaf(&asker, black_box(&name)))
                .unwrap()
        });
    });
    group.finish();

    let many = service(&folder.path().join("many"), 50_000);
    runtime.block_on(mint(&many, &mut next));
    let before = resident();
    for _ in 0..100 {
        runtime.block_on(mint(&many, &mut next));
    }
    let each = resident().saturating_sub(before) / (100 * AT_ONCE);
    println!("memory of a leaf that is held: {each} bytes");
}

/// What all threads of the process have used of processors.
fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(now).unwrap()
}

/// What the process has in memory, in bytes (proc_pid_status(5)).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes.and_then(|it| it.parse::<u64>().ok()).unwrap_or(0) * 1024
}

criterion_group!(benches, leaves);
criterion_main!(benches);
