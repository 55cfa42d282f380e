//! Two processes that fail apart, and what is open when one of them does.

use outgate_conformance::{
    Guest, H1, TestCa, Way, World, eventually, raw, record, websocket, within,
};
use outgate_testkit::free_port;
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

use crate::{TRAP, edge, open_stream, passed, until_served};

outgate_conformance::scenarios! {
    a_silent_control_plane_lets_nothing_through: [E5 C7], Native: Elsewhere(TRAP);
    a_dead_control_plane_lets_nothing_through_and_cuts_what_is_open: [E5 C7 C3], Native: Elsewhere(TRAP);
    one_entry_of_the_denylist_cuts_every_kind_of_stream_within_a_second: [C3], Native: Elsewhere(TRAP);
    a_killed_envoy_is_started_again_and_serves: [E5], Native: Elsewhere(TRAP);
    envoy_comes_in_by_mutual_tls_and_is_cut_when_it_is_struck_from_the_list: [E5 E3], Native: Elsewhere(TRAP);
    each_request_has_one_record_also_when_envoy_is_killed_in_the_middle: [A1], Native: Elsewhere(TRAP);
}

const CUT: Duration = Duration::from_millis(1000);

/// A filter whose server does not answer may let a request through.
///
/// Each filter that fails open is stopped by the next one, and all of them together by the address to dial, which comes
/// from ext_authz alone: the golden listeners hold each filter to its mode.
///
/// MUTATION: do not pause the control plane.
async fn a_silent_control_plane_lets_nothing_through() {
    let mut world = World::hurried().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let mut kept = Vec::new();
    for way in Way::ALL {
        for host in ["a.test", "n.test", "optional.test"] {
            let req = world.get(way, host, "/").bearer(&token);
            let mut channel = guest.open(way, &req).await.expect("a connection");
            let outcome = channel.send(&req).await;
            assert!(passed(&outcome), "{way:?} {host}: {outcome:?}");
            kept.push((way, host, req, channel));
        }
    }
    edge(&mut world).control().pause();
    let before = world.seen();
    for (way, host, req, channel) in &mut kept {
        let context = format!("{way:?} {host}");
        let open = within(15, &context, channel.send(req)).await;
        assert!(!passed(&open), "{context}, open: {open:?}");
        let fresh = within(15, &context, guest.send(*way, req)).await;
        assert!(!passed(&fresh), "{context}, fresh: {fresh:?}");
    }
    assert_eq!(world.seen(), before, "something was sent");
    edge(&mut world).control().go_on();
    until_served(&world, &token, Duration::from_secs(15), "it answers again").await;
}

/// What is open and can no longer be revoked is not carried on.
///
/// MUTATION: `failure_mode_allow: true` at the ext_proc that holds a connection; then the streams go on.
async fn a_dead_control_plane_lets_nothing_through_and_cuts_what_is_open() {
    let mut world = World::new().await;
    let (_, token) = world.session();
    let streams = Streams::open(&world, &token).await;
    edge(&mut world).control_mut().kill();
    let killed = Instant::now();
    let before = world.seen();
    streams.cut_by(killed + Duration::from_secs(5)).await;
    let guest = world.guest().with_proxy_token(&token);
    for way in Way::ALL {
        for host in ["a.test", "n.test", "optional.test"] {
            let req = world.get(way, host, "/").bearer(&token);
            let outcome = within(15, "a refusal", guest.send(way, &req)).await;
            assert!(!passed(&outcome), "{way:?} {host}: {outcome:?}");
        }
    }
    let pass = world.get(Way::TunnelH1, "pass.test", "/");
    let outcome = within(15, "a refusal", guest.send(Way::TunnelH1, &pass)).await;
    assert!(!passed(&outcome), "pass-through: {outcome:?}");
    assert_eq!(world.seen(), before, "something was sent");
    edge(&mut world).control_mut().revive();
    until_served(&world, &token, Duration::from_secs(20), "it is back").await;
    assert!(passed(&guest.send(Way::TunnelH1, &pass).await));
}

/// An Envoy filter judges once; what it let through goes on for as long as it likes.
///
/// MUTATION: take the ext_proc stream that holds a connection out of the chain of a leg, or do not end it at a change of
/// the denylist.
async fn one_entry_of_the_denylist_cuts_every_kind_of_stream_within_a_second() {
    let world = World::new().await;
    let ((id, token), (_, other)) = (world.session(), world.session());
    let cut = Streams::open(&world, &token).await;
    let stay = Streams::open(&world, &other).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    cut.all_are_open();
    let mark = world.mark();
    world.operate(&["deny", "add", &id, "--reason", "a test"]);
    cut.cut_by(Instant::now() + CUT).await;
    stay.all_are_open();
    let records = world.assert_audited(mark, "session_revoked", "the streams");
    assert!(
        records.iter().any(|one| record::names(one, &id)),
        "{records:#?}"
    );
}

/// On a socket Envoy has no name; over TCP its certificate says who it is, which credentials it may have, and whether it
/// may come in at all.
///
/// MUTATION: let the door take every client of its CA, or `Entitled::may_have` everybody.
async fn envoy_comes_in_by_mutual_tls_and_is_cut_when_it_is_struck_from_the_list() {
    let ca = TestCa::new("the data planes' CA");
    let (ca_pem, server) = (ca.pem().to_owned(), ca.issue_pem(&["control.test"]));
    let client = ca.issue_pem(&["envoy-1"]);
    let mut world = World::configured(move |config, places| {
        let at = |name: &str| places.folder.join(name);
        fs::write(at("planes-ca.pem"), ca_pem).unwrap();
        write_pair(&places.folder, "xds", &server);
        write_pair(&places.folder, "envoy", &client);
        let address = format!("127.0.0.1:{}", free_port());
        config["listen"]["xds"] = json!({
            "address": address, "certificate": at("xds.pem"), "key": at("xds.key"),
            "client_ca": at("planes-ca.pem"), "clients": ["envoy-1"],
        });
        config["envoy"]["control"] = json!({
            "address": address, "server_name": "control.test", "ca": at("planes-ca.pem"),
            "certificate": at("envoy.pem"), "key": at("envoy.key"),
        });
        for credential in config["credentials"].as_object_mut().unwrap().values_mut() {
            credential["planes"] = json!(["Envoy-1"]);
        }
        config["credentials"]["k2"]["planes"] = json!(["envoy-2"]);
    })
    .await;
    let (_, token) = world.session();
    until_served(&world, &token, Duration::from_secs(10), "over TCP").await;
    assert!(
        world
            .origin(Way::TunnelH1)
            .last()
            .mentions(outgate_conformance::K1)
    );
    for way in Way::ALL {
        let req = world.get(way, "b.test", "/").bearer(&token);
        let outcome = within(15, "a refusal", world.guest().send(way, &req)).await;
        assert!(!passed(&outcome), "{way:?}: {outcome:?}");
    }

    // Both sides' certificates change, and everything connects anew.
    write_pair(world.folder.path(), "xds", &ca.issue_pem(&["control.test"]));
    write_pair(world.folder.path(), "envoy", &ca.issue_pem(&["envoy-1"]));
    edge(&mut world).control_mut().kill();
    edge(&mut world).control_mut().revive();
    until_served(&world, &token, Duration::from_secs(20), "renewed").await;
    edge(&mut world).envoy().kill_envoy();
    until_served(&world, &token, Duration::from_secs(20), "started again").await;

    let streams = Streams::open(&world, &token).await;
    let mut config = world.config.clone();
    config["listen"]["xds"]["clients"] = json!(["envoy-2"]);
    world.plane_mut().write_config(&config);
    streams
        .cut_by(Instant::now() + Duration::from_secs(5))
        .await;
    let before = world.seen();
    for way in Way::ALL {
        let req = world.get(way, "a.test", "/").bearer(&token);
        let outcome = within(15, "a refusal", world.guest().send(way, &req)).await;
        assert!(!passed(&outcome), "{way:?}: {outcome:?}");
    }
    assert_eq!(world.seen(), before, "something was sent");
    let config = world.config.clone();
    world.plane_mut().write_config(&config);
    until_served(&world, &token, Duration::from_secs(20), "listed again").await;
}

fn write_pair(folder: &Path, name: &str, (certificate, key): &(String, String)) {
    fs::write(folder.join(format!("{name}.pem")), certificate).unwrap();
    fs::write(folder.join(format!("{name}.key")), key).unwrap();
}

/// MUTATION: let the supervisor end with its Envoy.
async fn a_killed_envoy_is_started_again_and_serves() {
    let mut world = World::new().await;
    let (_, token) = world.session();
    until_served(&world, &token, Duration::from_secs(5), "at first").await;
    for round in 0..2 {
        let killed = edge(&mut world).envoy().kill_envoy();
        assert_eq!(killed.len(), 1, "round {round}: {killed:?}");
        let again = eventually(Duration::from_secs(10), || {
            let ids = edge(&mut world).envoy().ids();
            (!ids.is_empty() && ids != killed).then_some(())
        });
        assert!(
            again.await.is_some(),
            "round {round}: it was not started again"
        );
        until_served(&world, &token, Duration::from_secs(10), "started again").await;
    }
    assert!(world.plane_mut().is_running());
}

/// Envoy tells of a request when it is over; an Envoy that is killed tells nothing.
///
/// MUTATION: forget what ext_authz allowed when Envoy's streams end without an access log entry; or write a record both
/// at the verdict and at the entry.
async fn each_request_has_one_record_also_when_envoy_is_killed_in_the_middle() {
    let mut world = World::new().await;
    let (id, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let of = |world: &World, path: &str| -> Vec<Value> {
        let mut records = world.plane().audit_records();
        records.retain(|one| record::names(one, path) && record::names(one, &id));
        records
    };
    for way in Way::ALL {
        for index in 0..5 {
            let path = format!("/{way:?}/{index}");
            let req = world.get(way, "a.test", &path).bearer(&token);
            assert!(passed(&guest.send(way, &req).await), "{path}");
        }
    }
    let events = world
        .get(Way::TunnelH2, "a.test", "/sse?n=2000&every_ms=20")
        .bearer(&token);
    let stream = open_stream(&guest, Way::TunnelH2, events).await;
    let silent = guest
        .connect(&format!("pass.test:{}", world.tls.port()))
        .await
        .expect("a tunnel");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for way in Way::ALL {
        for index in 0..5 {
            let found = of(&world, &format!("/{way:?}/{index}"));
            assert_eq!(found.len(), 1, "{way:?} {index}: {found:#?}");
        }
    }
    assert_eq!(edge(&mut world).envoy().kill_envoy().len(), 1);
    within(10, "the end of the stream", stream)
        .await
        .expect("it reads");
    drop(silent);
    let found = eventually(Duration::from_secs(10), || {
        let found = of(&world, "/sse");
        (!found.is_empty()).then_some(found)
    });
    let found = found.await.expect("a record of the stream");
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(
        record::ending(&found[0]),
        Some("aborted"),
        "it says how it ended: {found:#?}"
    );
    let tunnels = eventually(Duration::from_secs(10), || {
        let found = of(&world, "pass.test");
        (!found.is_empty()).then_some(found)
    });
    let tunnels = tunnels.await.expect("a record of the tunnel");
    assert_eq!(tunnels.len(), 1, "{tunnels:#?}");
    until_served(&world, &token, Duration::from_secs(10), "started again").await;
    // Nothing is told twice by the Envoy that came after.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(of(&world, "/sse").len(), 1);
}

/// One of each kind of what is open for long, each read until it ends.
struct Streams(Vec<(String, JoinHandle<Instant>)>);

impl Streams {
    /// Event streams on every way in, WebSockets, a pass-through tunnel with and without bytes, and a CONNECT in which
    /// nothing was said.
    async fn open(world: &World, token: &str) -> Self {
        let guest = world.guest().with_proxy_token(token);
        let mut open = Vec::new();
        for (way, host) in [
            (Way::AbsoluteForm, "a.test"),
            (Way::TunnelH1, "a.test"),
            (Way::TunnelH2, "a.test"),
            (Way::TunnelH1, "pass.test"),
        ] {
            let req = world
                .get(way, host, "/sse?n=2000&every_ms=20")
                .bearer(token);
            let task = open_stream(&guest, way, req).await;
            open.push((format!("events, {way:?} {host}"), task));
        }
        for way in [Way::AbsoluteForm, Way::TunnelH1] {
            let mut ws = web_socket(world, &guest, way, token).await;
            let task = tokio::spawn(async move {
                while let Ok(Some(_)) = ws.read_any().await {}
                Instant::now()
            });
            open.push((format!("WebSocket, {way:?}"), task));
        }
        for host in ["pass.test", "a.test"] {
            let authority = format!("{host}:{}", world.tls.port());
            let mut tunnel = guest.connect(&authority).await.expect("a tunnel");
            let task = tokio::spawn(async move {
                let _ = raw::drain(&mut tunnel, Duration::from_secs(30)).await;
                Instant::now()
            });
            open.push((format!("a silent CONNECT to {host}"), task));
        }
        Self(open)
    }

    fn all_are_open(&self) {
        for (what, task) in &self.0 {
            assert!(!task.is_finished(), "{what}: ended by itself");
        }
    }

    async fn cut_by(self, deadline: Instant) {
        for (what, task) in self.0 {
            let ended = within(20, &what, task).await.expect("it reads");
            let late = ended.saturating_duration_since(deadline);
            assert!(late.is_zero(), "{what}: cut {late:?} too late");
        }
    }
}

async fn web_socket(world: &World, guest: &Guest, way: Way, token: &str) -> H1 {
    let req = world
        .get(way, "a.test", "/ws")
        .bearer(token)
        .header("upgrade", "websocket")
        .header("connection", "Upgrade")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", websocket::KEY);
    let mut channel = guest.open(way, &req).await.expect("a connection");
    let answer = channel.start(&req).await.expect("a head");
    assert_eq!(answer.response.status, 101, "{way:?}");
    let mut ws = channel.into_h1();
    ws.write(&websocket::frame(1, b"x", true)).await.unwrap();
    websocket::read_frame(&mut ws).await.expect("an echo");
    ws
}
