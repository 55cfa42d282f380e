//! Nothing is buffered that does not have to be, and nothing is lost on the way.

use std::time::{Duration, Instant};

use outgate_conformance::{
    Alpn, Channel, Guest, H1, Req, ReqBody, Setup, TlsOptions, Way, World, eventually, websocket,
    within,
};

outgate_conformance::scenarios! {
    the_first_event_arrives_before_the_second_is_sent: [P11];
    the_first_bytes_of_an_upload_arrive_before_the_last_are_sent: [P11];
    an_upload_that_makes_progress_is_not_timed_out: [P11];
    a_websocket_carries_frames_both_ways: [P11];
    the_last_frame_of_an_upstream_that_closes_arrives: [P11], Envoy: Differs(
        "where answers are scrubbed, Envoy ends an upgraded stream with its upstream, and what is still with the \
         scrubber is lost: the guest sees the end without the closing frame",
        "no closing frame"
    );
    grpc_calls_keep_their_trailers: [P11];
    early_hints_are_passed_on: [P11], Envoy: Differs(
        "of interim answers Envoy passes on only 100",
        "right: [103]"
    );
    an_answer_behind_early_hints_arrives: [P11];
    a_client_that_waits_for_100_is_told_to_go_on: [P11];
    alt_svc_is_removed_and_other_fields_stay: [P11];
    the_protocol_of_the_upstream_is_mirrored_to_the_client: [P11], Envoy: Differs(
        "Envoy chooses the protocol of the guest's leg before it knows the upstream's, and translates",
        "attributed: true, round 0"
    );
    whatever_the_upstream_speaks_every_client_is_served: [P11];
    many_streams_share_one_connection_and_one_slow_stream_stops_none: [P11];
    answers_without_a_body_end_at_their_head: [P11];
    upstream_connections_are_reused: [P11];
}

/// Every way to a request, pass-through included: way, host.
const ROUTES: [(Way, &str); 5] = [
    (Way::AbsoluteForm, "a.test"),
    (Way::TunnelH1, "a.test"),
    (Way::TunnelH2, "a.test"),
    (Way::TunnelH1, "pass.test"),
    (Way::TunnelH2, "pass.test"),
];

async fn the_first_event_arrives_before_the_second_is_sent() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let mut streams = Vec::new();
    for (way, host) in ROUTES {
        let req = world.get(way, host, "/sse?n=2&every_ms=900").bearer(&token);
        let guest = guest.clone();
        streams.push(tokio::spawn(async move {
            let mut channel = guest.open(way, &req).await.expect("a connection");
            let mut stream = channel.start(&req).await.expect("a head");
            let begin = Instant::now();
            let mut first = Vec::new();
            while !first.ends_with(b"\n\n") {
                let piece = stream.next().await.expect("an event");
                first.extend_from_slice(&piece.expect("an event"));
            }
            let waited = begin.elapsed();
            assert!(
                waited < Duration::from_millis(700),
                "{way:?} {host}: buffered"
            );
            assert_eq!(first, b"data: 0\n\n");
            let rest = stream.finish().await;
            assert!(
                rest.complete && rest.body == b"data: 1\n\n",
                "{way:?} {host}: {rest:?}"
            );
        }));
    }
    for stream in streams {
        within(10, "both events", stream)
            .await
            .expect("its assertions hold");
    }
}

async fn the_first_bytes_of_an_upload_arrive_before_the_last_are_sent() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in [Way::AbsoluteForm, Way::TunnelH1] {
        let req = world.get(way, "a.test", "/upload");
        let mut h1 = world
            .guest()
            .open(way, &req)
            .await
            .expect("a connection")
            .into_h1();
        let target = if way == Way::AbsoluteForm {
            format!("http://a.test:{}/upload", world.port(way))
        } else {
            "/upload".into()
        };
        let head = format!(
            "POST {target} HTTP/1.1\r\nhost: a.test:{}\r\nx-api-key: {token}\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n",
            world.port(way)
        );
        h1.write(head.as_bytes()).await.unwrap();
        let arrived = eventually(Duration::from_secs(3), || {
            world
                .origin(way)
                .seen()
                .last()
                .filter(|seen| seen.body == b"first")
                .map(|_| ())
        });
        assert!(arrived.await.is_some(), "{way:?}: the upload was held back");
        h1.write(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
        let answer = within(5, "an answer", h1.read_response("POST"))
            .await
            .unwrap();
        assert_eq!(answer.text(), "9", "{way:?}");
    }
}

async fn an_upload_that_makes_progress_is_not_timed_out() {
    let world = World::configured(|config, _| {
        config["timeouts"]["response"] = serde_json::json!("1s");
    })
    .await;
    let (_, token) = world.session();
    let mut uploads = Vec::new();
    for way in [Way::AbsoluteForm, Way::TunnelH1] {
        let (guest, token, port) = (world.guest(), token.clone(), world.port(way));
        let req = world.get(way, "a.test", "/upload");
        uploads.push(tokio::spawn(async move {
            let mut h1 = guest.open(way, &req).await.expect("a connection").into_h1();
            let target = if way == Way::AbsoluteForm {
                format!("http://a.test:{port}/upload")
            } else {
                "/upload".into()
            };
            let head = format!(
                "POST {target} HTTP/1.1\r\nhost: a.test:{port}\r\nx-api-key: {token}\r\ncontent-length: 8\r\n\r\n"
            );
            h1.write(head.as_bytes()).await.unwrap();
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(250)).await;
                // A gateway that gave up has closed; its answer says why.
                if h1.write(b"x").await.is_err() {
                    break;
                }
            }
            (way, within(5, "an answer", h1.read_response("POST")).await.unwrap())
        }));
    }
    for upload in uploads {
        let (way, answer) = upload.await.unwrap();
        assert_eq!(answer.text(), "8", "{way:?}: {answer:?}");
    }
}

async fn a_websocket_carries_frames_both_ways() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for (way, host) in ROUTES.into_iter().filter(|(way, _)| *way != Way::TunnelH2) {
        let req = handshake(&world, way, host, &token);
        let context = format!("{way:?} {host}");
        let mut ws = web_socket(&guest, way, &req, &context).await;
        for size in [1, 200, 60_000] {
            let payload = vec![b'w'; size];
            ws.write(&websocket::frame(2, &payload, true))
                .await
                .unwrap();
            let (opcode, echoed) = within(5, &context, websocket::read_frame(&mut ws))
                .await
                .unwrap();
            assert_eq!((opcode, echoed.len()), (2, size), "{context}");
        }
        ws.write(&websocket::frame(8, b"", true)).await.unwrap();
        // The closing frame or the end of the connection, and nothing else.
        let last = within(5, &context, websocket::read_frame(&mut ws)).await;
        assert!(last.is_err() || last.is_ok_and(|(opcode, _)| opcode == 8));
        let more = within(5, &context, ws.read_any()).await;
        assert!(!matches!(more, Ok(Some(_))), "{context}: {more:?}");
    }
}

fn handshake(world: &World, way: Way, host: &str, token: &str) -> Req {
    world
        .get(way, host, "/ws")
        .bearer(token)
        .header("upgrade", "websocket")
        .header("connection", "keep-alive, Upgrade")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", websocket::KEY)
}

async fn web_socket(guest: &Guest, way: Way, req: &Req, context: &str) -> H1 {
    let mut channel = guest.open(way, req).await.expect("a connection");
    let head = channel.start(req).await.expect("a head").response;
    assert_eq!(head.status, 101, "{context}");
    assert_eq!(
        head.headers.get("sec-websocket-accept"),
        Some(websocket::accept_for(websocket::KEY).as_str()),
        "{context}"
    );
    channel.into_h1()
}

async fn the_last_frame_of_an_upstream_that_closes_arrives() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for round in 0..5 {
        for (way, host) in ROUTES.into_iter().filter(|(way, _)| *way != Way::TunnelH2) {
            let context = format!("{way:?} {host}, round {round}");
            let req = handshake(&world, way, host, &token);
            let mut ws = web_socket(&guest, way, &req, &context).await;
            ws.write(&websocket::frame(8, b"", true)).await.unwrap();
            let last = within(5, &context, websocket::read_frame(&mut ws)).await;
            let last = last.map(|(opcode, _)| opcode).ok();
            assert_eq!(last, Some(8), "{context}: no closing frame");
        }
    }
}

async fn grpc_calls_keep_their_trailers() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for host in ["a.test", "pass.test"] {
        let message = b"\0\0\0\0\x05hello".to_vec();
        let req = world
            .get(Way::TunnelH2, host, "/echo.Echo/Unary")
            .method("POST")
            .bearer(&token)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(ReqBody::Chunked(vec![message.clone()]));
        let answer = guest.send(Way::TunnelH2, &req).await.answered();
        assert_eq!((answer.status, &answer.body), (200, &message), "{host}");
        assert_eq!(answer.trailers.get("grpc-status"), Some("0"), "{host}");
        let seen = world.tls.last();
        assert_eq!(seen.version, "HTTP/2", "{host}");
        assert_eq!(
            seen.headers.get("te"),
            Some("trailers"),
            "{host}: gRPC servers ask for it"
        );
    }
    // On HTTP/1.1 a trailer section is carried, too.
    for (way, host) in ROUTES {
        let req = world
            .get(way, host, "/trailers")
            .bearer(&token)
            .header("te", "trailers");
        let answer = guest.send(way, &req).await.answered();
        assert_eq!(
            answer.trailers.get("grpc-status"),
            Some("0"),
            "{way:?} {host}"
        );
        assert_eq!(
            answer.trailers.get("grpc-message"),
            Some("fine"),
            "{way:?} {host}"
        );
    }
}

async fn early_hints_are_passed_on() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    // The suite's HTTP/2 client does not look at interim answers; pass-through shows them anyway.
    for (way, host) in [(Way::AbsoluteForm, "a.test"), (Way::TunnelH1, "a.test")] {
        let req = world.get(way, host, "/early-hints").bearer(&token);
        let answer = guest.send(way, &req).await.answered();
        let hints = answer.informational.iter().map(|(status, _)| *status);
        assert_eq!(hints.collect::<Vec<u16>>(), [103], "{way:?} {host}");
    }
}

async fn an_answer_behind_early_hints_arrives() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for (way, host) in ROUTES {
        let req = world.get(way, host, "/early-hints").bearer(&token);
        let answer = guest.send(way, &req).await.answered();
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "after the hints"),
            "{way:?} {host}"
        );
    }
}

async fn a_client_that_waits_for_100_is_told_to_go_on() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for way in [Way::AbsoluteForm, Way::TunnelH1] {
        let req = world.get(way, "a.test", "/upload");
        let mut h1 = guest.open(way, &req).await.expect("a connection").into_h1();
        let target = if way == Way::AbsoluteForm {
            format!("http://a.test:{}/upload", world.port(way))
        } else {
            "/upload".into()
        };
        let head = format!(
            "POST {target} HTTP/1.1\r\nhost: a.test:{}\r\nx-api-key: {token}\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n",
            world.port(way)
        );
        h1.write(head.as_bytes()).await.unwrap();
        let interim = within(3, "a 100", h1.read_head())
            .await
            .unwrap()
            .expect("a head");
        assert!(interim.starts_with(b"HTTP/1.1 100"), "{way:?}: {interim:?}");
        h1.write(b"body").await.unwrap();
        let answer = within(3, "an answer", h1.read_response("POST"))
            .await
            .unwrap();
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "4"),
            "{way:?}"
        );
    }
}

async fn alt_svc_is_removed_and_other_fields_stay() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        for host in ["a.test", "n.test"] {
            let req = world.get(way, host, "/alt-svc").bearer(&token);
            let answer = world.guest().send(way, &req).await.answered();
            assert_eq!(answer.headers.get("alt-svc"), None, "{way:?} {host}");
            assert_eq!(answer.headers.get("x-kept"), Some("yes"), "{way:?} {host}");
        }
    }
}

/// Nothing is dialled for a connection that has not shown a token, so its first handshake cannot know the upstream.
async fn the_protocol_of_the_upstream_is_mirrored_to_the_client() {
    for (alpn, expected) in [
        (Alpn::Both, "h2"),
        (Alpn::H1, "http/1.1"),
        (Alpn::None, "http/1.1"),
        (Alpn::H2, "h2"),
    ] {
        for attributed in [true, false] {
            let world = World::with(Setup {
                alpn,
                ..Setup::default()
            })
            .await;
            let (_, token) = world.session();
            let guest = if attributed {
                world.guest().with_proxy_token(&token)
            } else {
                world.guest()
            };
            for round in 0..3 {
                let context = format!("{alpn:?}, attributed: {attributed}, round {round}");
                let (chosen, mut channel) = negotiate(&world, &guest, &["h2", "http/1.1"]).await;
                if attributed || round > 0 {
                    assert_eq!(chosen, expected, "{context}");
                }
                let req = world.get(Way::TunnelH1, "a.test", "/").bearer(&token);
                let answer = channel.send(&req).await.answered();
                assert_eq!(answer.status, 200, "{context}: {}", answer.text());
            }
            // A client that offers nothing, as many do, gets HTTP/1.1 wherever the upstream speaks it.
            if alpn != Alpn::H2 {
                let (_, mut channel) = negotiate(&world, &guest, &[]).await;
                let req = world.get(Way::TunnelH1, "a.test", "/").bearer(&token);
                assert_eq!(channel.send(&req).await.answered().status, 200, "{alpn:?}");
            }
        }
    }
}

async fn whatever_the_upstream_speaks_every_client_is_served() {
    for alpn in [Alpn::Both, Alpn::H1, Alpn::None, Alpn::H2] {
        let world = World::with(Setup {
            alpn,
            ..Setup::default()
        })
        .await;
        let (_, token) = world.session();
        let guest = world.guest().with_proxy_token(&token);
        for offered in [&["h2", "http/1.1"][..], &["http/1.1"], &[]] {
            // A client of HTTP/1.1 alone has no way to an upstream of HTTP/2 alone that mirrors.
            if alpn == Alpn::H2 && offered.first() != Some(&"h2") {
                continue;
            }
            let (_, mut channel) = negotiate(&world, &guest, offered).await;
            let req = world.get(Way::TunnelH1, "a.test", "/").bearer(&token);
            let answer = channel.send(&req).await.answered();
            assert_eq!(
                answer.status,
                200,
                "{alpn:?} {offered:?}: {}",
                answer.text()
            );
        }
    }
}

/// A handshake that offers these protocols: what was chosen, and a channel that speaks it.
async fn negotiate(world: &World, guest: &Guest, offer: &[&str]) -> (String, Channel) {
    let authority = format!("a.test:{}", world.tls.port());
    let stream = guest.connect(&authority).await.expect("a tunnel");
    let options = TlsOptions {
        alpn: offer.iter().map(|name| name.as_bytes().to_vec()).collect(),
        ..TlsOptions::new("a.test", "")
    };
    let tls = guest.handshake(stream, &options).await.expect("TLS");
    match tls.alpn.as_deref() {
        Some(b"h2") => ("h2".into(), Channel::h2(tls.io).await.expect("HTTP/2")),
        _ => ("http/1.1".into(), Channel::h1_in_tunnel(tls.io)),
    }
}

async fn many_streams_share_one_connection_and_one_slow_stream_stops_none() {
    let world = World::new().await;
    let (_, token) = world.session();
    let req = world.get(Way::TunnelH2, "a.test", "/hang").bearer(&token);
    let tls = world
        .guest()
        .tunnel(Way::TunnelH2, &req)
        .await
        .expect("a tunnel");
    let mut hanging = Channel::h2(tls.io).await.unwrap();
    let Channel::H2(send) = &hanging else {
        panic!("h2")
    };
    let mut other = Channel::H2(send.clone());
    let stuck = tokio::spawn(async move { drop(hanging.start(&req).await) });
    for index in 0..50 {
        let req = world
            .get(Way::TunnelH2, "a.test", &format!("/echo?{index}"))
            .bearer(&token);
        let answer = within(5, "a stream", other.send(&req)).await.answered();
        assert_eq!(answer.status, 200, "stream {index}");
    }
    stuck.abort();
}

async fn answers_without_a_body_end_at_their_head() {
    let world = World::new().await;
    let (_, token) = world.session();
    for (way, host) in ROUTES.into_iter().take(3) {
        let req = world.get(way, host, "/").bearer(&token);
        let mut channel = world.guest().open(way, &req).await.expect("a connection");
        for (method, path, status) in [
            ("HEAD", "/echo", 200),
            ("GET", "/status/204", 204),
            ("GET", "/status/304", 304),
            ("OPTIONS", "/echo", 200),
            ("DELETE", "/echo", 200),
            ("GET", "/status/500", 500),
            ("GET", "/echo", 200),
        ] {
            let req = world.get(way, host, path).method(method).bearer(&token);
            let answer = within(5, path, channel.send(&req)).await.answered();
            assert_eq!(answer.status, status, "{way:?} {method} {path}");
            if method == "HEAD" || matches!(status, 204 | 304) {
                assert!(answer.body.is_empty(), "{way:?} {method} {path}");
            }
        }
    }
}

async fn upstream_connections_are_reused() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let req = world.get(way, "a.test", "/").bearer(&token);
        let mut channel = world.guest().open(way, &req).await.expect("a connection");
        let before = world.origin(way).connections();
        for _ in 0..20 {
            assert_eq!(channel.send(&req).await.answered().status, 200, "{way:?}");
        }
        let opened = world.origin(way).connections() - before;
        assert!(
            opened <= 2,
            "{way:?}: {opened} upstream connections for 20 requests"
        );
    }
}
