//! Slow, huge and senseless input costs the sender more than the gateway.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use outgate_conformance::{
    Alpn, Setup, TlsOptions, Way, World, eventually, frames, hurry, raw, within,
};
use outgate_testkit::io::BoxIo;
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

outgate_conformance::scenarios! {
    a_head_that_is_too_large_is_refused_and_not_stored: [P8 D1];
    a_head_at_a_byte_a_second_is_given_up_in_time: [D1];
    two_thousand_half_open_connections_cost_little_and_end: [D1];
    connections_over_the_gateways_limit_are_refused_or_wait_but_do_not_stay: [D1];
    connections_over_the_gateways_limit_are_on_record: [D1 A1], Envoy: Differs(
        "Envoy closes connections over its limit without telling anybody, but in its own counters",
        "no audit record of too_many_connections"
    );
    http2_floods_end_the_connection_in_bounded_memory: [D1];
    senseless_bytes_never_take_the_gateway_down: [D1];
    more_http2_control_frames_than_any_use_needs_end_the_connection: [D1], Envoy: Differs(
        "Envoy has limits of its own for control frames; its memory is bounded all the same",
        "1500 "
    );
    interim_answers_that_nobody_reads_are_not_stored: [D1 P11];
    a_guest_that_takes_nothing_is_let_go: [D1];
    a_guest_that_takes_nothing_is_cut_with_its_session: [C3];
}

async fn assert_serves(world: &World, token: &str, context: &str) {
    for way in Way::ALL {
        let req = world.get(way, "a.test", "/").bearer(token);
        let outcome = within(5, context, world.guest().send(way, &req)).await;
        assert_eq!(outcome.answered().status, 200, "{context}: {way:?}");
    }
}

async fn a_head_that_is_too_large_is_refused_and_not_stored() {
    let world = World::with(Setup {
        log: "info",
        ..Setup::default()
    })
    .await;
    let (_, token) = world.session();
    let before = world.plane().resident_kib();
    let port = world.plain.port();
    let line = format!("GET http://a.test:{port}/ HTTP/1.1\r\nhost: a.test:{port}\r\n");
    let mega = "m".repeat(1_000_000);
    let many: String = (0..20_000)
        .map(|index| format!("x-{index}: y\r\n"))
        .collect();
    for (what, head) in [
        ("one field of 1 MB", format!("{line}x: {mega}\r\n\r\n")),
        ("20,000 fields", format!("{line}{many}\r\n")),
        (
            "a line of 1 MB",
            format!("GET http://a.test:{port}/{mega} HTTP/1.1\r\n\r\n"),
        ),
        (
            "a CONNECT of 1 MB",
            format!("CONNECT {mega}:443 HTTP/1.1\r\n\r\n"),
        ),
    ] {
        let mark = world.mark();
        let begin = Instant::now();
        let proxy = world.plane().proxy();
        let answer = raw::exchange(proxy, head.as_bytes(), Duration::from_secs(5)).await;
        let answer = answer.unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(
            answer.reason(),
            Some("header_too_large"),
            "{what}: {answer:?}"
        );
        assert_eq!(answer.status, 431, "{what}");
        assert!(
            begin.elapsed() < Duration::from_secs(3),
            "{what}: {:?}",
            begin.elapsed()
        );
        world.assert_audited(mark, "header_too_large", what);
        world.assert_nothing_sent(mark, what);
    }
    // The same inside tunnels.
    let req = world
        .get(Way::TunnelH1, "a.test", "/")
        .header("x", &mega)
        .bearer(&token);
    let mark = world.mark();
    let mut h1 = world
        .guest()
        .open(Way::TunnelH1, &req)
        .await
        .expect("a tunnel")
        .into_h1();
    let head = format!(
        "GET / HTTP/1.1\r\nhost: a.test:{}\r\nx: {mega}\r\n\r\n",
        req.port
    );
    let _ = h1.write(head.as_bytes()).await;
    if let Ok(answer) = within(5, "an answer", h1.read_response("GET")).await {
        assert_eq!(answer.reason(), Some("header_too_large"), "{answer:?}");
    }
    world.assert_audited(mark, "header_too_large", "in a tunnel");
    let mut channel = world
        .guest()
        .open(Way::TunnelH2, &req)
        .await
        .expect("a tunnel");
    let outcome = within(5, "a verdict", channel.send(&req)).await;
    assert!(
        outcome.response().is_none_or(|answer| answer.status == 431),
        "{outcome:?}"
    );
    world.assert_nothing_sent(mark, "HTTP/2");
    let after = world.plane().resident_kib();
    assert!(
        after.saturating_sub(before) < 32 << 10,
        "memory grew from {before} to {after} KiB"
    );
    assert_serves(&world, &token, "afterwards").await;
}

async fn a_head_at_a_byte_a_second_is_given_up_in_time() {
    let world = World::hurried().await;
    let (_, token) = world.session();
    let mark = world.mark();
    let begin = Instant::now();
    // At the proxy's door, in a tunnel before the hello, after the handshake.
    let mut door = world.guest().dial().await.unwrap();
    let mut hello = world
        .guest()
        .connect(&format!("a.test:{}", world.tls.port()))
        .await
        .expect("a tunnel");
    let inside = world.get(Way::TunnelH1, "a.test", "/");
    let mut inside = world
        .guest()
        .tunnel(Way::TunnelH1, &inside)
        .await
        .expect("a tunnel")
        .io;
    let slowly = async |bytes: &[u8], stream: &mut dyn outgate_testkit::io::Io| {
        for byte in bytes {
            if stream.write_all(std::slice::from_ref(byte)).await.is_err() {
                return;
            }
            let _ = stream.flush().await;
            let (_, closed) = raw::drain(stream, Duration::from_millis(250)).await;
            if closed {
                return;
            }
        }
    };
    within(15, "all three given up", async {
        tokio::join!(
            slowly(
                b"GET http://a.test/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                &mut door
            ),
            slowly(
                &[
                    22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                    0, 0, 0
                ],
                &mut hello
            ),
            slowly(
                b"GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                &mut *inside
            ),
        );
    })
    .await;
    assert!(
        begin.elapsed() < Duration::from_secs(6),
        "after {:?}",
        begin.elapsed()
    );
    world.assert_audited(mark, "request_timeout", "a slow head");
    world.assert_nothing_sent(mark, "a slow head");
    assert_serves(&world, &token, "afterwards").await;
}

async fn two_thousand_half_open_connections_cost_little_and_end() {
    let world = World::with(Setup {
        log: "warn",
        config: Box::new(|config, _| hurry(config)),
        ..Setup::default()
    })
    .await;
    let (_, token) = world.session();
    let before = world.plane().resident_kib();
    let mut held = Vec::new();
    for index in 0..2000 {
        let Ok(mut stream) = TcpStream::connect(world.plane().proxy()).await else {
            // The test's own file limit; what is open is enough.
            break;
        };
        let bytes: &[u8] = match index % 3 {
            0 => b"",
            1 => b"GET http://a.test/ HT",
            _ => b"CONNECT a.test:443 HTTP/1.1\r\nhost: a",
        };
        let _ = stream.write_all(bytes).await;
        held.push(stream);
    }
    assert!(held.len() > 400, "only {} connections", held.len());
    assert_serves(&world, &token, "with half-open connections").await;
    let grown = world.plane().resident_kib().saturating_sub(before);
    let per_connection = grown / held.len() as u64;
    assert!(
        per_connection < 24,
        "{per_connection} KiB for each of {} connections",
        held.len()
    );
    // They are given up after the head's time, which is two seconds here.
    let mut last = held.pop().expect("one");
    let (_, closed) = raw::drain(&mut last, Duration::from_secs(6)).await;
    assert!(closed, "a half-open connection stays for ever");
}

async fn connections_over_the_gateways_limit_are_refused_or_wait_but_do_not_stay() {
    let world = World::configured(|config, _| {
        config["listen"]["max_connections"] = json!(20);
    })
    .await;
    let (_, token) = world.session();
    let held = forty(&world).await;
    let before = world.seen();
    let port = world.plain.port();
    let head = format!(
        "GET http://a.test:{port}/ HTTP/1.1\r\nhost: a.test:{port}\r\nx-api-key: {token}\r\n\r\n"
    );
    let answer = raw::exchange(
        world.plane().proxy(),
        head.as_bytes(),
        Duration::from_secs(1),
    )
    .await;
    let refused = answer.is_none_or(|answer| answer.reason() == Some("too_many_connections"));
    assert!(refused, "the 41st connection was served");
    assert_eq!(world.seen(), before, "an upstream saw a request");
    drop(held);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_serves(&world, &token, "afterwards").await;
}

/// Connections that say nothing.
async fn forty(world: &World) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(world.guest().dial().await.unwrap());
    }
    held
}

async fn connections_over_the_gateways_limit_are_on_record() {
    let world = World::configured(|config, _| {
        config["listen"]["max_connections"] = json!(20);
    })
    .await;
    let mark = world.mark();
    let _held = forty(&world).await;
    world.assert_audited(mark, "too_many_connections", "over the limit");
}

async fn http2_floods_end_the_connection_in_bounded_memory() {
    let world = World::with(Setup {
        log: "warn",
        ..Setup::default()
    })
    .await;
    let (_, token) = world.session();
    let port = world.tls.port();
    let authority = format!("a.test:{port}");
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", authority.as_str()),
        (":path", "/hang"),
        ("x-api-key", token.as_str()),
    ];
    let rapid_reset: Vec<u8> = (0..20_000)
        .flat_map(|index| {
            let stream = index * 2 + 1;
            let mut both = frames::request(stream, &fields);
            both.extend(frames::reset(stream));
            both
        })
        .collect();
    let mut continuation = frames::frame(1, 0x1, 1, &frames::header_block(&fields));
    for index in 0..4000 {
        let name = format!("x-{index}");
        let value = "v".repeat(100);
        let block = frames::header_block(&[(&name, value.as_str())]).repeat(20);
        continuation.extend(frames::frame(9, 0, 1, &block));
    }
    let empty_continuation: Vec<u8> = frames::frame(1, 0x1, 1, &frames::header_block(&fields))
        .into_iter()
        .chain((0..300_000).flat_map(|_| frames::frame(9, 0, 1, b"")))
        .collect();
    let settings: Vec<u8> = (0..300_000)
        .flat_map(|_| frames::settings(&[(3, 100)]))
        .collect();
    let pings: Vec<u8> = (0..300_000).flat_map(|_| frames::ping()).collect();
    let before = world.plane().resident_kib();
    for (what, flood, must_close) in [
        ("rapid reset", rapid_reset, true),
        ("CONTINUATION", continuation, true),
        ("empty CONTINUATION", empty_continuation, true),
        ("SETTINGS", settings, true),
        ("PING", pings, true),
    ] {
        let req = world.get(Way::TunnelH2, "a.test", "/");
        let mut tls = world
            .guest()
            .tunnel(Way::TunnelH2, &req)
            .await
            .expect("a tunnel");
        let mut bytes = frames::preface();
        bytes.extend(flood);
        // Nothing is read while it is sent: answers pile up at the gateway, if it lets them.
        let sent = tokio::time::timeout(Duration::from_secs(3), async {
            for piece in bytes.chunks(65_536) {
                if tls.io.write_all(piece).await.is_err() || tls.io.flush().await.is_err() {
                    return true;
                }
            }
            false
        })
        .await;
        let grown = world.plane().resident_kib().saturating_sub(before);
        assert!(grown < 64 << 10, "{what}: memory grew by {grown} KiB");
        assert_serves(&world, &token, what).await;
        if must_close && sent != Ok(true) {
            let (_, closed) = raw::drain(&mut *tls.io, Duration::from_secs(3)).await;
            assert!(closed, "{what}: the connection goes on");
        }
    }
    assert!(
        world.tls.count() < 1000,
        "{} requests reached the upstream",
        world.tls.count()
    );
}

async fn senseless_bytes_never_take_the_gateway_down() {
    let mut world = World::with(Setup {
        log: "info",
        ..Setup::default()
    })
    .await;
    let (_, token) = world.session();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let seeds: [&[u8]; 5] = [
        b"GET http://a.test/ HTTP/1.1\r\nhost: a.test\r\n\r\n",
        b"CONNECT a.test:443 HTTP/1.1\r\nhost: a.test:443\r\n\r\n",
        b"POST http://a.test/ HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    for round in 0..150 {
        let mut bytes = seeds[round % seeds.len()].to_vec();
        for _ in 0..=(random() % 6) {
            let at = (random() as usize) % bytes.len();
            match random() % 3 {
                0 => bytes[at] = random() as u8,
                1 => bytes.insert(at, random() as u8),
                _ => {
                    bytes.remove(at);
                }
            }
        }
        let mut stream = world.guest().dial().await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let _ = raw::drain(&mut stream, Duration::from_millis(30)).await;
        let port = world.tls.port();
        if round % 5 == 0
            && let Ok(mut tunnel) = world.guest().connect(&format!("a.test:{port}")).await
        {
            let _ = raw::send_and_drain(&mut tunnel, &bytes, Duration::from_millis(20)).await;
        }
    }
    assert!(world.plane_mut().is_running());
    assert_serves(&world, &token, "afterwards").await;
}

async fn more_http2_control_frames_than_any_use_needs_end_the_connection() {
    let world = World::with(Setup {
        log: "warn",
        ..Setup::default()
    })
    .await;
    let req = world.get(Way::TunnelH2, "a.test", "/");
    for (what, frame) in [
        ("PING", frames::ping()),
        ("SETTINGS", frames::settings(&[(3, 100)])),
        ("PRIORITY", frames::frame(2, 0, 1, &[0, 0, 0, 0, 1])),
    ] {
        for (count, closes) in [(1500, false), (2500, true)] {
            let tunnel = world.guest().tunnel(Way::TunnelH2, &req).await;
            let mut tls = tunnel.expect("a tunnel");
            let mut bytes = frames::preface();
            bytes.extend(frame.repeat(count));
            // Answers are taken, so that nothing but the number is odd.
            let (_, closed) =
                raw::send_and_drain(&mut *tls.io, &bytes, Duration::from_secs(1)).await;
            assert_eq!(closed, closes, "{count} {what}");
        }
    }
}

async fn interim_answers_that_nobody_reads_are_not_stored() {
    let world = World::with(Setup {
        alpn: Alpn::H1,
        log: "warn",
        ..Setup::default()
    })
    .await;
    let (_, token) = world.session();
    assert_serves_h1(&world, &token).await;
    let before = world.plane().resident_kib();
    let mut held = Vec::new();
    for way in [Way::AbsoluteForm, Way::TunnelH1] {
        let seen = world.origin(way).count();
        let (stream, _) = send_unread(&world, way, "optional.test", "/flood103", "").await;
        held.push(stream);
        let came = eventually(Duration::from_secs(2), || {
            (world.origin(way).count() > seen).then_some(())
        });
        assert!(came.await.is_some(), "{way:?}: no flood");
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let grown = world.plane().resident_kib().saturating_sub(before);
    assert!(grown < 60 << 10, "memory grew by {grown} KiB");
    assert_serves_h1(&world, &token).await;
}

async fn assert_serves_h1(world: &World, token: &str) {
    for way in [Way::AbsoluteForm, Way::TunnelH1] {
        let req = world.get(way, "a.test", "/").bearer(token);
        let outcome = within(5, "an answer", world.guest().send(way, &req)).await;
        assert_eq!(outcome.answered().status, 200, "{way:?}");
    }
}

const ENDLESS: &str = "/bytes?n=1099511627776";

/// Sends one request, and gives the connection, of which nothing more is read, and the guest's port. On HTTP/2 the
/// stream gets no window.
async fn send_unread(world: &World, way: Way, host: &str, path: &str, token: &str) -> (BoxIo, u16) {
    let (guest, port) = (world.guest(), world.port(way));
    let stream = guest.dial().await.unwrap();
    let own = stream.local_addr().unwrap().port();
    let authority = format!("{host}:{port}");
    let field = if token.is_empty() {
        String::new()
    } else {
        format!("x-api-key: {token}\r\n")
    };
    let head =
        |target: String| format!("GET {target} HTTP/1.1\r\nhost: {authority}\r\n{field}\r\n");
    if way == Way::AbsoluteForm {
        let mut io: BoxIo = Box::new(stream);
        io.write_all(head(format!("http://{authority}{path}")).as_bytes())
            .await
            .unwrap();
        return (io, own);
    }
    let is_h2 = way == Way::TunnelH2;
    let options = TlsOptions::new(host, if is_h2 { "h2" } else { "http/1.1" });
    let tunnel = guest
        .connect_on(stream, &authority)
        .await
        .expect("a tunnel");
    let mut io = guest.handshake(tunnel, &options).await.expect("TLS").io;
    let mut fields = vec![
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", authority.as_str()),
        (":path", path),
    ];
    if !token.is_empty() {
        fields.push(("x-api-key", token));
    }
    let bytes = if is_h2 {
        let mut bytes = frames::preface();
        bytes.extend(frames::settings(&[(4, 0)]));
        bytes.extend(frames::request(1, &fields));
        bytes
    } else {
        head(path.to_owned()).into_bytes()
    };
    io.write_all(&bytes).await.unwrap();
    io.flush().await.unwrap();
    (io, own)
}

/// Whether the proxy still holds its end of the connection from this port. A guest that does not read cannot tell:
/// the FIN waits behind what it did not take.
fn is_held(proxy: u16, guest: u16) -> bool {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let (ours, theirs) = (format!(":{proxy:04X}"), format!(":{guest:04X}"));
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let ends = [words.next(), words.next(), words.next()].map(Option::unwrap_or_default);
        ends[0].ends_with(&ours) && ends[1].ends_with(&theirs) && ends[2] == ESTABLISHED
    })
}

/// Three guests that take nothing of an endless answer: way, connection, port and session.
async fn unread(world: &World) -> Vec<(Way, BoxIo, u16, String)> {
    let mut held = Vec::new();
    for way in Way::ALL {
        let (id, token) = world.session();
        let seen = world.origin(way).count();
        let (io, port) = send_unread(world, way, "a.test", ENDLESS, &token).await;
        let came = eventually(Duration::from_secs(3), || {
            (world.origin(way).count() > seen).then_some(())
        });
        assert!(came.await.is_some(), "{way:?}: the request did not arrive");
        assert!(
            is_held(world.plane().proxy().port(), port),
            "{way:?}: closed at once"
        );
        held.push((way, io, port, id));
    }
    held
}

async fn assert_let_go(world: &World, port: u16, limit: Duration, context: &str) {
    let proxy = world.plane().proxy().port();
    let gone = eventually(limit, || (!is_held(proxy, port)).then_some(())).await;
    assert!(
        gone.is_some(),
        "{context}: the connection is held after {limit:?}"
    );
}

async fn a_guest_that_takes_nothing_is_let_go() {
    let world = World::with(Setup {
        log: "warn",
        config: Box::new(|config, _| {
            config["timeouts"]["idle"] = json!("1s");
            config["timeouts"]["response"] = json!("1s");
        }),
        ..Setup::default()
    })
    .await;
    let held = unread(&world).await;
    let limit = Instant::now() + Duration::from_secs(6);
    for (way, _io, port, _) in &held {
        let left = limit.saturating_duration_since(Instant::now());
        assert_let_go(&world, *port, left, &format!("{way:?}")).await;
    }
    let closed = eventually(Duration::from_secs(1), || {
        // An HTTP/2 connection outlives its stream.
        let seen = world.tls.seen();
        let shared = seen.iter().filter(|one| one.version == "HTTP/2");
        let shared: BTreeSet<_> = shared.map(|one| one.connection).collect();
        let (plain, tls) = (&world.plain, &world.tls);
        (plain.open_connections() == 0 && tls.open_connections() <= shared.len()).then_some(())
    });
    assert!(closed.await.is_some(), "the upstream's side stays open");
}

async fn a_guest_that_takes_nothing_is_cut_with_its_session() {
    let world = World::with(Setup {
        log: "warn",
        ..Setup::default()
    })
    .await;
    let held = unread(&world).await;
    for (way, _io, port, id) in &held {
        let context = format!("{way:?}");
        let mark = world.mark();
        world.plane().session_end(id);
        assert_let_go(&world, *port, Duration::from_secs(1), &context).await;
        world.assert_audited(mark, "session_revoked", &context);
    }
}
