//! The end of a session: within a second nothing of it is open, and nothing new opens.

use std::time::Instant;

use outgate_journey::{denial::DenyCode, record::Entry};
use outgate_native::gateway::Attribution;
use outgate_testkit::{Channel, DnsAnswer, Way as Proxied, eventually, raw};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::{
    dns_wire::{A, NO_ERROR, REFUSED, question, question_with_edns, read},
    world::{ANYWHERE, SECOND, Setup, Way, World, captured_port, framed, read_framed, was_cut},
};

/// Waits until the peer of an idle HTTP/1 connection is gone.
async fn gone(channel: Channel) {
    let mut h1 = channel.into_h1();
    let read = tokio::time::timeout(SECOND, h1.read_any())
        .await
        .expect("cut within a second");
    assert!(
        matches!(read, Ok(None) | Err(_)),
        "bytes after the end: {read:?}"
    );
}

#[tokio::test]
async fn what_a_session_has_open_is_cut_within_a_second_of_its_end() {
    let (upstream, capturing) = captured_port().await;
    let opaque = upstream.local_addr().unwrap().port();
    let mut setup = Setup::new(Attribution::BySocket).config(move |config, _| {
        let rule =
            serde_json::json!({ "host": "opaque.test", "ports": [opaque], "protocol": "opaque" });
        config["destinations"].as_array_mut().unwrap().push(rule);
        config["resolver"]["hosts"] =
            serde_json::json!({ "opaque.test": ["127.0.0.1", "127.0.0.2"] });
        config["resolver"]["allow"] = serde_json::json!(["127.0.0.0/8"]);
    });
    setup.capturing = capturing;
    let world = World::with(setup).await;
    let token = world.token();

    let mut idle = Vec::new();
    for way in [Way::Clear, Way::TlsH1] {
        let req = world.get(way, "n.test", "/");
        let mut channel = world.open(way, &req).await.unwrap();
        assert_eq!(channel.send(&req).await.answered().status, 200);
        idle.push(channel);
    }
    let req = world.get(Way::TlsH1, "pass.test", "/");
    let mut passed = world.open(Way::TlsH1, &req).await.unwrap();
    assert_eq!(passed.send(&req).await.answered().status, 200);
    idle.push(passed);
    let req = outgate_testkit::Req::get("pass.test", world.tls.port(), "/");
    let mut proxied = world.proxy.open(Proxied::TunnelH1, &req).await.unwrap();
    assert_eq!(proxied.send(&req).await.answered().status, 200);
    idle.push(proxied);

    // Until they are at rest.
    tokio::time::sleep(SECOND * 3 / 2).await;

    let mark = world.mark();
    let mut raw_opaque = world.dial(ANYWHERE, opaque).await;
    let (mut peer, _) = upstream.accept().await.unwrap();
    peer.write_all(b"220 ready").await.unwrap();
    let mut greeting = [0; 9];
    raw_opaque.read_exact(&mut greeting).await.unwrap();
    let mut names = TcpStream::connect(world.names_tcp).await.unwrap();
    names
        .write_all(&framed(&question(1, "a.test", A)))
        .await
        .unwrap();
    assert_eq!(read(&read_framed(&mut names).await.unwrap()).code, NO_ERROR);

    let (flows, mut flowing) = tokio::sync::mpsc::unbounded_channel();
    let (mut streams, mut waiting) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
    for way in Way::ALL {
        let req = world.get(way, "a.test", "/sse?n=1000000").bearer(&token);
        let mut channel = world.open(way, &req).await.unwrap();
        let flows = flows.clone();
        streams.spawn(async move {
            let mut stream = channel.start(&req).await.unwrap();
            stream.next().await.unwrap().expect("an event");
            flows.send(()).unwrap();
            while let Ok(Some(_)) = stream.next().await {}
        });
        let req = world.get(way, "a.test", "/hang").bearer(&token);
        let mut channel = world.open(way, &req).await.unwrap();
        waiting.spawn(async move { (way, channel.send(&req).await) });
    }
    for _ in Way::ALL {
        let flow = tokio::time::timeout(5 * SECOND, flowing.recv()).await;
        flow.expect("the streams flow");
    }
    let hanging = || {
        let seen = [world.tls.seen(), world.clear.seen()].concat();
        seen.iter().filter(|seen| seen.target == "/hang").count()
    };
    let reached = eventually(5 * SECOND, || (hanging() == 3).then_some(())).await;
    assert!(
        reached.is_some(),
        "the requests did not reach the upstreams"
    );

    let begin = Instant::now();
    world.end_session().await;
    for channel in idle {
        gone(channel).await;
    }
    let (_, closed) = raw::drain(&mut raw_opaque, SECOND).await;
    assert!(closed, "the opaque relay goes on");
    assert!(
        raw::drain(&mut peer, SECOND).await.1,
        "towards the upstream, too"
    );
    let ended = tokio::time::timeout(SECOND, async {
        while streams.join_next().await.is_some() {}
    });
    assert!(ended.await.is_ok(), "a stream goes on");
    while let Some(ended) = waiting.join_next().await {
        // Where nothing was answered yet there is still room for the reason.
        let (way, outcome) = ended.unwrap();
        let said = outcome.response().map(|response| response.reason());
        assert!(
            matches!(said, None | Some(Some("session_revoked"))),
            "{way:?}: {outcome:?}"
        );
    }
    assert!(begin.elapsed() < SECOND, "cut after {:?}", begin.elapsed());
    for entry in [Entry::TransparentPlain, Entry::Bumped] {
        let cut = eventually(SECOND, || {
            world
                .records_since(mark)
                .iter()
                .any(|it| it.entry == entry && was_cut(it))
                .then_some(())
        });
        assert!(
            cut.await.is_some(),
            "{entry:?}: {:#?}",
            world.records_since(mark)
        );
    }
    let record = world
        .record(mark, "opaque", |it| {
            it.host.as_deref() == Some("opaque.test")
        })
        .await;
    assert!(was_cut(&record), "{record:?}");

    // The name server's connection says so in words.
    names
        .write_all(&framed(&question(2, "a.test", A)))
        .await
        .unwrap();
    assert_eq!(read(&read_framed(&mut names).await.unwrap()).code, REFUSED);
    drop(names);
    world.finish().await;
}

#[tokio::test]
async fn nothing_new_opens_for_a_session_that_ended() {
    let world = World::new(Attribution::BySocket).await;
    let token = world.token();
    world.end_session().await;
    for name in ["n.test", "pass.test", "optional.test"] {
        let mark = world.mark();
        assert!(world.handshake(Way::TlsH1, name).await.is_err(), "{name}");
        let record = world
            .refusal(mark, Entry::Transparent, DenyCode::SessionRevoked, name)
            .await;
        assert_eq!(record.session.as_ref(), Some(world.session.id()), "{name}");
        world.assert_nothing_dialled(mark, name);
        world.assert_nothing_looked_up(mark, name);
    }
    for host in ["n.test", "optional.test", "a.test"] {
        let mark = world.mark();
        let outcome = world
            .send(Way::Clear, &world.get(Way::Clear, host, "/").bearer(&token))
            .await;
        world
            .assert_denied(
                mark,
                &outcome,
                Entry::TransparentPlain,
                DenyCode::SessionRevoked,
                host,
            )
            .await;
    }
    let req = outgate_testkit::Req::get("n.test", world.tls.port(), "/");
    let mark = world.mark();
    let outcome = world.proxy.send(Proxied::TunnelH1, &req).await;
    world
        .assert_denied(
            mark,
            &outcome,
            Entry::Connect,
            DenyCode::SessionRevoked,
            "CONNECT",
        )
        .await;

    let mark = world.mark();
    let packet = question_with_edns(7, "a.test", A);
    for answer in [world.ask(&packet).await, world.ask_over_tcp(&packet).await] {
        let answer = read(&answer.unwrap());
        assert_eq!((answer.code, answer.records), (REFUSED, 0));
        assert_eq!(answer.reason, Some((15, "session_revoked".to_owned())));
    }
    let records = world.records_since(mark);
    assert_eq!(records.len(), 2, "{records:#?}");
    world.assert_nothing_looked_up(mark, "a.test");
    world.finish().await;
}

#[tokio::test]
async fn connections_that_a_presented_token_attributed_are_cut_too() {
    let world = World::new(Attribution::ByToken).await;
    let token = world.token();
    let mut idle = Vec::new();
    for way in [Way::Clear, Way::TlsH1] {
        let req = world.get(way, "a.test", "/").bearer(&token);
        let mut channel = world.open(way, &req).await.unwrap();
        assert_eq!(channel.send(&req).await.answered().status, 200);
        idle.push(channel);
    }
    let begin = Instant::now();
    world.end_session().await;
    for channel in idle {
        gone(channel).await;
    }
    assert!(begin.elapsed() < SECOND);
    for way in Way::ALL {
        let mark = world.mark();
        let outcome = world
            .send(way, &world.get(way, "a.test", "/").bearer(&token))
            .await;
        world
            .assert_denied(
                mark,
                &outcome,
                way.entry(),
                DenyCode::SessionRevoked,
                &format!("{way:?}"),
            )
            .await;
    }
    world.finish().await;
}

#[tokio::test]
async fn another_sessions_end_changes_nothing() {
    let world = World::new(Attribution::BySocket).await;
    let req = world.get(Way::TlsH1, "n.test", "/");
    let mut channel = world.open(Way::TlsH1, &req).await.unwrap();
    assert_eq!(channel.send(&req).await.answered().status, 200);
    let other = world
        .gateway
        .begin_session(std::collections::BTreeMap::new())
        .await
        .unwrap();
    world.gateway.end_session(&other).await.unwrap();
    assert_eq!(channel.send(&req).await.answered().status, 200);
    drop(channel);
    world.finish().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_guest_or_a_resolver_that_says_nothing() {
    let world = World::new(Attribution::BySocket).await;
    world.dns.set("n.test", DnsAnswer::Silent);
    let silent = world.dial(ANYWHERE, world.tls.port()).await;
    let mut names = TcpStream::connect(world.names_tcp).await.unwrap();
    names
        .write_all(&framed(&question(1, "n.test", A)))
        .await
        .unwrap();
    let asking = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let packet = question(1, "n.test", A);
    asking
        .send_to(&packet, (ANYWHERE, world.names))
        .await
        .unwrap();
    let looked_up = eventually(3 * SECOND, || {
        world.dns.was_asked_for("n.test").then_some(())
    });
    assert!(looked_up.await.is_some(), "nothing hangs");
    let begin = Instant::now();
    world.gateway.stop().await.unwrap();
    assert!(
        begin.elapsed() < SECOND,
        "stopped after {:?}",
        begin.elapsed()
    );
    drop(silent);
    world.finish().await;
}

/// A guest that makes records without end fills somebody's disk.
#[tokio::test]
async fn after_the_last_record_that_may_be_written_there_is_no_way_out() {
    let mut setup = Setup::new(Attribution::BySocket);
    setup.most_records = 5;
    let world = World::with(setup).await;
    let req = world.get(Way::Clear, "n.test", "/");
    let mut open = world.open(Way::Clear, &req).await.unwrap();
    assert_eq!(open.send(&req).await.answered().status, 200);
    for _ in 0..4 {
        assert!(world.ask(&question(1, "unlisted.test", A)).await.is_some());
    }
    gone(open).await;
    let late = TcpStream::connect((ANYWHERE, world.clear.port())).await;
    assert!(late.is_err(), "somebody listens");
    world.finish().await;
}
