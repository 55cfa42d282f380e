//! An ended session is cut off within a second, wherever its bytes are, and stays cut off.

use std::time::{Duration, Instant};

use outgate_conformance::{Channel, TlsOptions, Way, World, eventually, record, websocket, within};

outgate_conformance::scenarios! {
    an_ended_session_is_refused_on_every_way_in_and_another_is_not: [I7 C3];
    an_event_stream_is_cut_within_a_second: [C3];
    a_websocket_is_cut_within_a_second: [C3];
    a_pass_through_tunnel_is_cut_within_a_second_busy_or_idle: [C3];
    a_tunnel_in_which_nothing_was_said_yet_is_cut_within_a_second: [C3];
    an_idle_connection_of_an_ended_session_carries_nothing_more: [C3];
    an_upload_in_progress_is_cut_within_a_second: [C3];
    a_request_that_waits_for_its_answer_is_cut_within_a_second: [C3];
    an_ended_session_stays_ended_over_a_restart_and_a_live_one_lives: [I7 C2];
    sessions_can_be_listed_and_an_unknown_one_cannot_be_ended: [C2];
    a_tunnel_that_only_its_requests_attribute_ends_with_their_session: [C3];
    a_forward_connection_that_only_its_requests_attribute_ends_with_their_session: [C3], Envoy: Differs(
        "Envoy has no call that closes an idle connection of the forward leg: no stream of the session is left on it, \
         and its next request is refused (an_idle_connection_of_an_ended_session…)",
        "the close"
    );
}

const CUT: Duration = Duration::from_millis(1000);

async fn an_ended_session_is_refused_on_every_way_in_and_another_is_not() {
    let world = World::new().await;
    let (id, token) = world.session();
    let (_, other) = world.session();
    world.plane().session_end(&id);
    for way in Way::ALL {
        for host in ["a.test", "n.test"] {
            let mark = world.mark();
            let outcome = world
                .guest()
                .send(way, &world.get(way, host, "/").bearer(&token))
                .await;
            world.assert_denied(
                mark,
                &outcome,
                "session_revoked",
                &format!("{way:?} {host}"),
            );
            let fine = world
                .guest()
                .send(way, &world.get(way, host, "/").bearer(&other))
                .await;
            assert_eq!(fine.answered().status, 200, "{way:?} {host}");
        }
    }
    let mark = world.mark();
    let refused = world
        .guest()
        .with_proxy_token(&token)
        .connect(&format!("pass.test:{}", world.tls.port()))
        .await;
    world.assert_denied(
        mark,
        &refused.expect_err("ended"),
        "session_revoked",
        "pass-through",
    );
}

async fn an_event_stream_is_cut_within_a_second() {
    let world = World::new().await;
    for way in Way::ALL {
        for by_connection in [false, true] {
            let (id, token) = world.session();
            let mut guest = world.guest();
            // The token of the request, or that of the connection alone, is what attributes the stream.
            let (host, req) = if by_connection {
                guest = guest.with_proxy_token(&token);
                ("n.test", world.get(way, "n.test", "/sse?n=500&every_ms=20"))
            } else {
                (
                    "a.test",
                    world
                        .get(way, "a.test", "/sse?n=500&every_ms=20")
                        .bearer(&token),
                )
            };
            let context = format!("{way:?} {host}");
            let mut channel = guest.open(way, &req).await.expect("a connection");
            let mut stream = channel.start(&req).await.expect("a head");
            assert_eq!(stream.response.status, 200, "{context}");
            stream.next().await.expect("an event");
            let mark = world.mark();
            world.plane().session_end(&id);
            let begin = Instant::now();
            let end = within(5, &context, async {
                loop {
                    match stream.next().await {
                        Ok(Some(_)) => {}
                        other => break other,
                    }
                }
            })
            .await;
            assert!(
                begin.elapsed() < CUT,
                "{context}: cut after {:?}",
                begin.elapsed()
            );
            assert!(
                end.is_err(),
                "{context}: a cut does not look like a proper end"
            );
            // Those of the stream before this one may come late.
            world.until_recorded(mark, &context, |one| {
                record::names(one, "session_revoked") && record::names(one, &id)
            });
        }
    }
}

async fn a_websocket_is_cut_within_a_second() {
    let world = World::new().await;
    for way in [Way::AbsoluteForm, Way::TunnelH1] {
        let (id, token) = world.session();
        let req = world
            .get(way, "a.test", "/ws")
            .bearer(&token)
            .header("upgrade", "websocket")
            .header("connection", "Upgrade")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", websocket::KEY);
        let mut channel = world.guest().open(way, &req).await.expect("a connection");
        let answer = channel.start(&req).await.expect("a head");
        assert_eq!(answer.response.status, 101, "{way:?}");
        let mut ws = channel.into_h1();
        ws.write(&websocket::frame(1, b"x", true)).await.unwrap();
        websocket::read_frame(&mut ws).await.expect("an echo");
        let mark = world.mark();
        world.plane().session_end(&id);
        let begin = Instant::now();
        within(5, "the cut", async {
            while let Ok(Some(_)) = ws.read_any().await {}
        })
        .await;
        assert!(
            begin.elapsed() < CUT,
            "{way:?}: cut after {:?}",
            begin.elapsed()
        );
        world.assert_audited(mark, "session_revoked", &format!("{way:?}"));
    }
}

async fn a_pass_through_tunnel_is_cut_within_a_second_busy_or_idle() {
    let world = World::new().await;
    for busy in [true, false] {
        let (id, token) = world.session();
        let guest = world.guest().with_proxy_token(&token);
        let req = world.get(
            Way::TunnelH1,
            "pass.test",
            if busy {
                "/sse?n=500&every_ms=20"
            } else {
                "/echo"
            },
        );
        let mut channel = guest.open(Way::TunnelH1, &req).await.expect("a tunnel");
        let mark = world.mark();
        if busy {
            let mut stream = channel.start(&req).await.expect("a head");
            stream.next().await.expect("an event");
            world.plane().session_end(&id);
            let begin = Instant::now();
            within(5, "the cut", async {
                while let Ok(Some(_)) = stream.next().await {}
            })
            .await;
            assert!(begin.elapsed() < CUT, "cut after {:?}", begin.elapsed());
        } else {
            assert_eq!(channel.send(&req).await.answered().status, 200);
            let mut idle = channel.into_h1();
            world.plane().session_end(&id);
            let begin = Instant::now();
            within(5, "the cut", async {
                while let Ok(Some(_)) = idle.read_any().await {}
            })
            .await;
            assert!(begin.elapsed() < CUT, "cut after {:?}", begin.elapsed());
        }
        world.until_recorded(mark, "the cut", |one| {
            record::names(one, "session_revoked") && record::names(one, &id)
        });
    }
    let closed = eventually(CUT, || (world.tls.open_connections() == 0).then_some(())).await;
    assert!(closed.is_some(), "the upstream's side is closed, too");
}

async fn a_tunnel_in_which_nothing_was_said_yet_is_cut_within_a_second() {
    let world = World::new().await;
    for host in ["a.test", "pass.test"] {
        let (id, token) = world.session();
        let guest = world.guest().with_proxy_token(&token);
        let authority = format!("{host}:{}", world.tls.port());
        let mut tunnel = guest.connect(&authority).await.expect("a tunnel");
        let mark = world.mark();
        world.plane().session_end(&id);
        let begin = Instant::now();
        let (_, closed) = outgate_conformance::raw::drain(&mut tunnel, CUT).await;
        assert!(
            closed && begin.elapsed() < CUT,
            "{host}: {:?}",
            begin.elapsed()
        );
        world.assert_audited(mark, "session_revoked", host);
    }
}

async fn an_idle_connection_of_an_ended_session_carries_nothing_more() {
    let world = World::new().await;
    for way in Way::ALL {
        let (id, token) = world.session();
        let guest = world.guest().with_proxy_token(&token);
        let req = world.get(way, "a.test", "/").bearer(&token);
        let mut channel = guest.open(way, &req).await.expect("a connection");
        assert_eq!(channel.send(&req).await.answered().status, 200, "{way:?}");
        let before = world.seen();
        world.plane().session_end(&id);
        let outcome = within(5, "a verdict", channel.send(&req)).await;
        if let Some(reason) = outcome.reason() {
            assert_eq!(reason, "session_revoked", "{way:?}");
        }
        assert!(
            !matches!(&outcome, outgate_conformance::Outcome::Answered(answer) if answer.status == 200),
            "{way:?}: {outcome:?}"
        );
        assert_eq!(world.seen(), before, "{way:?}");
    }
    // A tunnel that is idle is closed, not kept for its next request.
    let (id, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let stream = guest
        .connect(&format!("a.test:{}", world.tls.port()))
        .await
        .expect("a tunnel");
    let tls = guest
        .handshake(stream, &TlsOptions::new("a.test", "http/1.1"))
        .await
        .expect("TLS");
    let mut idle = Channel::h1_in_tunnel(tls.io).into_h1();
    world.plane().session_end(&id);
    let begin = Instant::now();
    within(5, "the close", async {
        while let Ok(Some(_)) = idle.read_any().await {}
    })
    .await;
    assert!(begin.elapsed() < CUT, "closed after {:?}", begin.elapsed());
}

async fn an_upload_in_progress_is_cut_within_a_second() {
    let world = World::new().await;
    for way in [Way::AbsoluteForm, Way::TunnelH1] {
        let (id, token) = world.session();
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
            "POST {target} HTTP/1.1\r\nhost: a.test:{}\r\nx-api-key: {token}\r\ncontent-length: 100000000\r\n\r\n",
            world.port(way)
        );
        h1.write(head.as_bytes()).await.unwrap();
        h1.write(&[0; 10_000]).await.unwrap();
        let arrived = eventually(Duration::from_secs(3), || {
            (world
                .origin(way)
                .seen()
                .last()
                .is_some_and(|seen| seen.body_length > 0))
            .then_some(())
        });
        assert!(arrived.await.is_some(), "{way:?}: uploads stream");
        world.plane().session_end(&id);
        let begin = Instant::now();
        while h1.write(&[0; 1000]).await.is_ok() && begin.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(
            begin.elapsed() < CUT,
            "{way:?}: cut after {:?}",
            begin.elapsed()
        );
        assert!(!world.origin(way).last().body_complete);
    }
}

async fn a_request_that_waits_for_its_answer_is_cut_within_a_second() {
    let world = World::new().await;
    for way in Way::ALL {
        let (id, token) = world.session();
        let req = world.get(way, "a.test", "/hang").bearer(&token);
        let guest = world.guest();
        let before = world.seen();
        let waiting = tokio::spawn(async move { guest.send(way, &req).await });
        let arrived = eventually(Duration::from_secs(3), || {
            (world.seen() > before).then_some(())
        });
        assert!(arrived.await.is_some(), "{way:?}");
        let mark = world.mark();
        world.plane().session_end(&id);
        let begin = Instant::now();
        let outcome = within(6, "the cut", waiting).await.unwrap();
        assert!(
            begin.elapsed() < CUT,
            "{way:?}: cut after {:?}: {outcome:?}",
            begin.elapsed()
        );
        world.assert_audited(mark, "session_revoked", &format!("{way:?}"));
    }
}

async fn an_ended_session_stays_ended_over_a_restart_and_a_live_one_lives() {
    let mut world = World::new().await;
    let (id, token) = world.session();
    let (_, other) = world.session();
    world.plane().session_end(&id);
    world.restart();
    for way in Way::ALL {
        let mark = world.mark();
        let outcome = world
            .guest()
            .send(way, &world.get(way, "a.test", "/").bearer(&token))
            .await;
        world.assert_denied(mark, &outcome, "session_revoked", &format!("{way:?}"));
        let fine = world
            .guest()
            .send(way, &world.get(way, "a.test", "/").bearer(&other))
            .await;
        assert_eq!(fine.answered().status, 200, "{way:?}");
    }
}

async fn sessions_can_be_listed_and_an_unknown_one_cannot_be_ended() {
    let world = World::new().await;
    let gateway = world.plane().gateway();
    let (id, token) = world.session_with(&["--label", "agent=test"]);
    let listed = gateway.command(&["session", "list", "--json"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(
        listed.stdout.contains(&id) && !listed.stdout.contains(&token),
        "{listed:?}"
    );
    let unknown = gateway.command(&["session", "end", "no-such-session"]);
    assert_ne!(unknown.code, Some(0), "{unknown:?}");
}

async fn a_tunnel_that_only_its_requests_attribute_ends_with_their_session() {
    assert_ends_with_its_session(Way::TunnelH1).await;
}

async fn a_forward_connection_that_only_its_requests_attribute_ends_with_their_session() {
    assert_ends_with_its_session(Way::AbsoluteForm).await;
}

async fn assert_ends_with_its_session(way: Way) {
    let world = World::new().await;
    let (id, token) = world.session();
    let (_, other) = world.session();
    let mut open = Vec::new();
    for token in [&token, &other] {
        let req = world.get(way, "a.test", "/").bearer(token);
        let mut channel = world.guest().open(way, &req).await.expect("a connection");
        assert_eq!(channel.send(&req).await.answered().status, 200, "{way:?}");
        open.push((req, channel));
    }
    let (req, mut of_other) = open.pop().expect("two");
    let (_, ended) = open.pop().expect("two");
    world.plane().session_end(&id);
    let begin = Instant::now();
    let mut idle = ended.into_h1();
    within(5, "the close", async {
        while let Ok(Some(_)) = idle.read_any().await {}
    })
    .await;
    assert!(begin.elapsed() < CUT, "{way:?}: {:?}", begin.elapsed());
    let outcome = of_other.send(&req).await;
    assert_eq!(
        outcome.answered().status,
        200,
        "{way:?}: the other session's"
    );
}
