//! Large bodies pass without being stored. A file of its own, first in the alphabet: it is the longest of the suite.

use std::time::Duration;

use outgate_conformance::{Guest, Req, ReqBody, Setup, Way, World, within};

outgate_conformance::scenarios! {
    a_large_download_passes_in_bounded_memory: [P11];
    a_large_upload_passes_in_bounded_memory: [P11];
    a_reader_that_stops_does_not_make_the_gateway_store_the_body: [P11];
}

const SIZE: u64 = 64 << 20;
/// How much the process may grow, in KiB: less than one body. What a plane buffers of four at once is some tens of MiB.
const GROWTH: u64 = 60 << 10;

/// Way and host, pass-through included.
const ROUTES: [(Way, &str); 4] = [
    (Way::AbsoluteForm, "a.test"),
    (Way::TunnelH1, "a.test"),
    (Way::TunnelH2, "a.test"),
    (Way::TunnelH1, "pass.test"),
];

async fn warm_world() -> (World, Guest, String) {
    let world = World::with(Setup {
        log: "warn",
        config: Box::new(|config, _| config["timeouts"]["response"] = serde_json::json!("60s")),
        ..Setup::default()
    })
    .await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    // What a plane keeps for its next streams is there once; what it stored of a body would be four times as much.
    for (way, host) in ROUTES {
        let path = format!("/bytes?n={}", SIZE / 4);
        let req = world.get(way, host, &path).bearer(&token);
        let mut channel = guest.open(way, &req).await.expect("a connection");
        let stream = channel.start(&req).await.expect("a head");
        assert_eq!(stream.count().await.expect("a whole body"), SIZE / 4);
    }
    (world, guest, token)
}

async fn a_large_download_passes_in_bounded_memory() {
    let (world, guest, token) = warm_world().await;
    let before = world.plane().resident_kib();
    for (way, host) in ROUTES {
        let req = world
            .get(way, host, &format!("/bytes?n={SIZE}"))
            .bearer(&token);
        let mut channel = guest.open(way, &req).await.expect("a connection");
        let stream = channel.start(&req).await.expect("a head");
        let count = within(60, "a download", stream.count())
            .await
            .expect("a whole body");
        assert_eq!(count, SIZE, "{way:?} {host}");
        let grown = world.plane().resident_kib().saturating_sub(before);
        assert!(grown < GROWTH, "{way:?} {host}: memory grew by {grown} KiB");
    }
}

async fn a_large_upload_passes_in_bounded_memory() {
    let (world, guest, token) = warm_world().await;
    let before = world.plane().resident_kib();
    for (way, host) in ROUTES {
        let req = Req {
            body: ReqBody::Zeros(SIZE),
            ..world
                .get(way, host, "/upload")
                .method("POST")
                .bearer(&token)
        };
        let answer = within(60, "an upload", guest.send(way, &req))
            .await
            .answered();
        assert_eq!(answer.text(), SIZE.to_string(), "{way:?} {host}");
        let grown = world.plane().resident_kib().saturating_sub(before);
        assert!(grown < GROWTH, "{way:?} {host}: memory grew by {grown} KiB");
    }
}

async fn a_reader_that_stops_does_not_make_the_gateway_store_the_body() {
    let (world, guest, token) = warm_world().await;
    let before = world.plane().resident_kib();
    let mut held = Vec::new();
    for (way, host) in ROUTES {
        let req = world.get(way, host, "/bytes?n=268435456").bearer(&token);
        let mut channel = guest.open(way, &req).await.expect("a connection");
        drop(channel.start(&req).await.expect("a head"));
        held.push(channel);
    }
    tokio::time::sleep(Duration::from_millis(800)).await;
    let grown = world.plane().resident_kib().saturating_sub(before);
    assert!(grown < GROWTH, "memory grew by {grown} KiB");
}
