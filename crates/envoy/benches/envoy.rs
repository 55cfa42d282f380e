//! What Outgate costs a real Envoy: its control plane's processor time per request, beside services that decide nothing
//! behind the same rendered configuration, and the memory of a policy of many hosts.
//!
//! `OUTGATE_ENVOY` names the Envoy, `OUTGATE_BIN` the gateway (else the one of the same profile).
//! `cargo bench -p outgate-envoy --bench envoy -- [share|memory] [HOSTS]`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot go on should stop"
)]

mod support;

use std::time::{Duration, Instant};

use outgate_testkit::{
    Channel, Gateway, Guest, TestCa, certs::roots_from_pem, process::status_field,
};

use support::{
    edge::{Places, envoy, other},
    load,
    machine::{cores, median, pin, time_of},
    messages::HOST,
    nothing,
};

const RATE: u32 = 1000;
const CONNECTIONS: usize = 16;
const WARM: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(8);
const ROUNDS: usize = 3;
/// Of the policy whose share is measured.
const HOSTS: usize = 100;
/// Of the policy whose memory is measured, unless told.
const MANY: usize = 10_000;
/// So many of them are connected to.
const LEAVES: usize = 1000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if nothing::is_asked_for() {
        return nothing::decide();
    }
    let mut words = arguments.iter().filter(|it| !it.starts_with("--"));
    let wanted = words.next();
    let hosts = words.next().map_or(MANY, |it| it.parse().unwrap());
    let is_wanted = |name: &str| wanted.is_none_or(|it| name.contains(it.as_str()));
    let cores = cores();
    let (Some(&here), Some(&of_envoy)) = (cores.first(), cores.last()) else {
        return;
    };
    // The gateway, too, is started from here and stays here.
    pin(here);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    println!("Envoy on processor {of_envoy}; control plane, clients and upstream on {here}");
    if is_wanted("share") {
        for scrub in [false, true] {
            runtime.block_on(share(scrub, of_envoy));
        }
    }
    if is_wanted("memory") {
        runtime.block_on(memory(hosts, of_envoy));
    }
}

/// Microseconds of processor per request, and the latency.
struct Cost {
    envoy: f64,
    server: f64,
    p50: f64,
    p99: f64,
}

async fn share(scrub: bool, core: usize) {
    let ca = TestCa::new("the upstreams' CA");
    let port = load::upstream(&ca).await;
    let places = Places::new(port, &ca);
    let mut gateway = places.gateway(HOSTS, scrub);
    let (_, token) = gateway.session_create();
    let folder = places.folder.path();
    nothing::record(&gateway.folder().join("xds.sock"), &token, port, folder).await;
    let nothing = (!scrub).then(|| nothing::start(folder, cores()[0]));
    let roots = roots_from_pem(gateway.ca_pem().as_deref());
    let guest = Guest::new(places.proxy, roots).with_proxy_token(&token);
    println!(
        "\n{RATE} requests/s over {CONNECTIONS} bumped tunnels, {HOSTS} hosts, scrub: {scrub}; µs of processor per request\n\
         {:<10} {:>8} {:>8} {:>8} {:>9} {:>9}",
        "server", "Envoy", "server", "sum", "p50 µs", "p99 µs"
    );
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (which, name) in ["nothing", "ours"].into_iter().enumerate() {
            let (server, asks) = match (name, &nothing) {
                ("nothing", None) => continue,
                ("nothing", Some((running, socket))) => (running.id(), Some(socket.as_path())),
                _ => (gateway.pid(), None),
            };
            let edge = envoy(&gateway, &places, asks, core);
            let cost = cost(&guest, port, &token, edge.id(), server).await;
            println!(
                "{name:<10} {:>8.1} {:>8.1} {:>8.1} {:>9.0} {:>9.0}",
                cost.envoy,
                cost.server,
                cost.envoy + cost.server,
                cost.p50,
                cost.p99
            );
            costs[which].push(cost);
        }
    }
    let middle = |which: usize, of: fn(&Cost) -> f64| {
        median(&costs[which].iter().map(of).collect::<Vec<_>>())
    };
    let (server, envoy) = (middle(1, |it| it.server), middle(1, |it| it.envoy));
    println!(
        "medians: of all, our server has {:.1} %",
        100.0 * server / (server + envoy)
    );
    if nothing.is_some() {
        let idle = middle(0, |it| it.server);
        println!(
            "         deciding (ours without what nothing costs) has {:.1} %; our server to nothing: {:.2}; Envoy's own: {:.2}",
            100.0 * (server - idle) / (server + envoy),
            server / idle,
            envoy / middle(0, |it| it.envoy),
        );
    }
    // One that is built to count what it runs writes that down at its end, and not when it is killed.
    gateway.terminate(Duration::from_secs(30));
}

async fn cost(guest: &Guest, port: u16, token: &str, envoy: u32, server: u32) -> Cost {
    let mut channels = Vec::new();
    while channels.len() < CONNECTIONS {
        channels.push(opened(guest, port).await);
    }
    let request = load::request(port, token);
    load::run(&mut channels, &request, RATE, WARM).await;
    let before = [time_of(envoy), time_of(server)];
    let mut latencies = load::run(&mut channels, &request, RATE, MEASURED).await;
    // What the access log leaves to do belongs to the requests.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let each = |now: Duration, before: Duration| {
        (now - before).as_secs_f64() * 1e6 / latencies.len() as f64
    };
    let [envoy, server] = [
        each(time_of(envoy), before[0]),
        each(time_of(server), before[1]),
    ];
    let [p50, p99, ..] = latencies.summary();
    Cost {
        envoy,
        server,
        p50,
        p99,
    }
}

/// A tunnel, as soon as Envoy knows the way.
async fn opened(guest: &Guest, port: u16) -> Channel {
    let begun = Instant::now();
    loop {
        match load::open(guest, HOST, port).await {
            Ok(channel) => return channel,
            Err(outcome) => assert!(begun.elapsed() < Duration::from_secs(10), "{outcome:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn memory(many: usize, core: usize) {
    let leaves = LEAVES.min(many - 1);
    let ca = TestCa::new("the upstreams' CA");
    let port = load::upstream(&ca).await;
    let places = Places::new(port, &ca);
    let mut gateway = places.gateway(1, false);
    let (_, token) = gateway.session_create();
    let edge = envoy(&gateway, &places, None, core);
    let roots = roots_from_pem(gateway.ca_pem().as_deref());
    let guest = Guest::new(places.proxy, roots).with_proxy_token(&token);
    drop(opened(&guest, port).await);
    let resident = || [gateway_kib(&gateway), status_field(edge.id(), "VmRSS:")];
    let taken = || places.count("http.", "update_success");
    let received = || places.count("cluster.outgate_xds.upstream_cx_rx_bytes", "total");

    println!(
        "\n{many} bumped hosts; resident memory in KiB\n{:<28} {:>10} {:>10}",
        "", "gateway", "Envoy"
    );
    let row =
        |what: &str, [gateway, envoy]: [u64; 2]| println!("{what:<28} {gateway:>10} {envoy:>10}");
    let small = resident();
    row("1 host", small);
    let (bytes, tables) = (received(), taken());
    let config = places.config(many, false);
    let begun = Instant::now();
    gateway.write_config(&config);
    gateway.hang_up();
    while taken() == tables {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "the new routes were not taken"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let resident = || [gateway_kib(&gateway), status_field(edge.id(), "VmRSS:")];
    let large = resident();
    row(&format!("{many} hosts"), large);
    println!(
        "the push: {} bytes; from the file's change until Envoy had taken it: {:.2} s",
        received() - bytes,
        took.as_secs_f64()
    );

    let begun = Instant::now();
    for at in 1..=leaves {
        let opened = load::open(&guest, &other(at), port).await;
        assert!(opened.is_ok(), "{:?}", opened.err());
    }
    let took = begun.elapsed();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let leaved = resident();
    row(&format!("{leaves} leaves"), leaved);
    println!(
        "{leaves} first handshakes, one after the other: {:.2} ms each",
        took.as_secs_f64() * 1e3 / leaves as f64
    );
    let per = |after: u64, before: u64, count: usize| {
        (after.saturating_sub(before)) as f64 / count as f64
    };
    for (at, name) in ["gateway", "Envoy"].into_iter().enumerate() {
        let (host, leaf) = (
            per(large[at], small[at], many - 1),
            per(leaved[at], large[at], leaves),
        );
        println!(
            "{name}: {host:.2} KiB a host, {leaf:.2} KiB a leaf; {many} hosts with their leaves (the leaves extrapolated): {:.0} MiB",
            (host + leaf) * many as f64 / 1024.0
        );
    }

    drop(edge);
    let begun = Instant::now();
    let edge = envoy(&gateway, &places, None, core);
    drop(opened(&guest, port).await);
    println!(
        "a fresh Envoy serves after {:.2} s, with {} KiB",
        begun.elapsed().as_secs_f64(),
        status_field(edge.id(), "VmRSS:")
    );
}

fn gateway_kib(gateway: &Gateway) -> u64 {
    gateway.resident_kib()
}
