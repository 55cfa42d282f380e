//! A guest that tries what Envoy's filters say to each other, and what they cannot be asked about.

use outgate_conformance::{
    DnsAnswer, K1, K2, Outcome, Req, TlsOptions, Way, World, destination, frames, raw, record,
    within,
};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

use crate::{TRAP, passed};

outgate_conformance::scenarios! {
    a_denied_address_among_allowed_ones_is_never_dialled: [P4], Native: Elsewhere(TRAP);
    a_request_that_a_condition_cannot_be_asked_about_goes_nowhere: [S3 P5], Native: Elsewhere(TRAP);
    no_request_escapes_its_count: [S3 S6], Native: Elsewhere(TRAP);
    fields_of_our_own_that_a_guest_sends_change_nothing: [S3 I3], Native: Elsewhere(TRAP);
    an_unlisted_server_name_gets_no_leaf_no_question_and_no_dial: [P3 E2], Native: Elsewhere(TRAP);
    three_names_on_one_connection_are_never_two_verdicts: [P5 I3], Native: Elsewhere(TRAP);
    each_tunnel_of_a_session_is_judged_as_itself: [P5 I3 A1], Native: Elsewhere(TRAP);
}

/// Envoy's own DNS modes check the first address and dial the others, too.
///
/// MUTATION: let Envoy's clusters resolve the host (a dynamic forward proxy with a shared DNS cache), or let the vetted
/// address be the first of the answer instead of the first that is allowed.
async fn a_denied_address_among_allowed_ones_is_never_dialled() {
    let world = World::configured(|config, _| {
        config["resolver"]["allow"] = json!(["127.0.0.1/32", "127.0.0.3/32"]);
    })
    .await;
    let caught = trap([world.tls.port(), world.plain.port()]).await;
    // Nobody listens on 127.0.0.3: whoever tries the next address of the answer comes to 127.0.0.2.
    for (answer, served) in [
        (["127.0.0.1", "127.0.0.2"], true),
        (["127.0.0.2", "127.0.0.1"], true),
        (["127.0.0.3", "127.0.0.2"], false),
        (["127.0.0.2", "127.0.0.3"], false),
    ] {
        let addresses = answer.map(|one| one.parse().unwrap()).to_vec();
        let mut tries = vec![(Way::TunnelH1, "pass.test")];
        tries.extend(Way::ALL.map(|way| (way, "a.test")));
        for (way, host) in tries {
            world
                .dns
                .set(host, DnsAnswer::Addresses(addresses.clone(), 0));
            // A session of its own has no upstream connection that is open already.
            let (_, token) = world.session();
            let guest = world.guest().with_proxy_token(&token);
            let req = world.get(way, host, "/").bearer(&token);
            let outcome = within(10, "an outcome", guest.send(way, &req)).await;
            let context = format!("{way:?} {host} {answer:?}");
            assert_eq!(passed(&outcome), served, "{context}: {outcome:?}");
            assert_eq!(caught.load(Ordering::SeqCst), 0, "{context}: dialled");
        }
    }
}

/// A condition that cannot be evaluated does not match: a DENY rule would fail open.
///
/// Several layers refuse each of these: with ext_authz allowing what it cannot read, the RBAC filters and the refusal without
/// the limiter's answer taken out at once, it still went nowhere, as ext_authz tells the address to dial as well.
///
/// MUTATION: give one of the heads its tunnel's host.
async fn a_request_that_a_condition_cannot_be_asked_about_goes_nowhere() {
    let world = World::new().await;
    let (_, token) = world.session();
    let auth = format!("authorization: Bearer {token}\r\n");
    let port = world.tls.port();
    let heads: [(&str, Vec<u8>); 6] = [
        ("no Host", format!("GET /odd HTTP/1.1\r\n{auth}\r\n").into()),
        (
            "an empty Host",
            format!("GET /odd HTTP/1.1\r\nhost:\r\n{auth}\r\n").into(),
        ),
        (
            "HTTP/1.0, no Host",
            format!("GET /odd HTTP/1.0\r\n{auth}\r\n").into(),
        ),
        (
            "a Host that is no text",
            [
                b"GET /odd HTTP/1.1\r\nhost: \xff\xfe\r\n",
                auth.as_bytes(),
                b"\r\n",
            ]
            .concat(),
        ),
        (
            "a path that is no text",
            [
                b"GET /odd\xff HTTP/1.1\r\nhost: a.test:".as_slice(),
                port.to_string().as_bytes(),
                b"\r\n",
                auth.as_bytes(),
                b"\r\n",
            ]
            .concat(),
        ),
        (
            "two Hosts",
            format!("GET /odd HTTP/1.1\r\nhost: a.test:{port}\r\nhost: x.test\r\n{auth}\r\n")
                .into(),
        ),
    ];
    for (what, head) in heads {
        let before = world.seen();
        let req = world.get(Way::TunnelH1, "a.test", "/");
        let mut tls = world
            .guest()
            .tunnel(Way::TunnelH1, &req)
            .await
            .expect("a tunnel");
        let (answer, _) = raw::send_and_drain(&mut tls.io, &head, Duration::from_secs(2)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.starts_with("HTTP/1.1 2"), "{what}: {answer}");
        assert_eq!(world.seen(), before, "{what}: it was sent: {answer}");
    }
    // On HTTP/2: no authority at all, and one that is no text.
    let before = world.seen();
    for fields in [
        vec![(":method", "GET"), (":scheme", "https"), (":path", "/odd")],
        vec![
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/odd"),
            (":authority", ""),
        ],
        vec![
            (":method", "GET"),
            (":path", "/odd"),
            (":authority", "a.test"),
        ],
    ] {
        let req = world.get(Way::TunnelH2, "a.test", "/");
        let mut tls = world
            .guest()
            .tunnel(Way::TunnelH2, &req)
            .await
            .expect("a tunnel");
        let value = format!("Bearer {token}");
        let mut fields = fields;
        fields.push(("authorization", &value));
        let mut bytes = frames::preface();
        bytes.extend(frames::settings(&[]));
        bytes.extend(frames::request(1, &fields));
        let _ = raw::send_and_drain(&mut tls.io, &bytes, Duration::from_millis(500)).await;
        assert_eq!(world.seen(), before, "{fields:?}: it was sent");
    }
}

/// A descriptor of which one entry is missing is left out in silence, and what has none is not counted.
///
/// MUTATION: leave `request` out of what ext_authz tells: every request must then be refused; or give it another key in the
/// descriptor, and take the refusal of requests without the limiter's answer out.
async fn no_request_escapes_its_count() {
    let world = World::configured(|config, _| {
        for host in ["optional.test", "a.test", "n.test"] {
            destination(config, host)["limits"] = json!({ "requests": "4/min" });
        }
    })
    .await;
    for way in Way::ALL {
        for host in ["a.test", "n.test", "optional.test"] {
            let (_, token) = world.session();
            let req = world.get(way, host, "/").bearer(&token);
            let mut channel = world.guest().open(way, &req).await.expect("a connection");
            let mut refused = 0;
            for _ in 0..14 {
                let outcome = channel.send(&req).await;
                refused += usize::from(outcome.reason() == Some("rate_limited"));
                if matches!(outcome, Outcome::Closed(_)) {
                    channel = world.guest().open(way, &req).await.expect("a connection");
                }
            }
            assert!(refused >= 2, "{way:?} {host}: {refused} of 14 were refused");
        }
    }
}

/// What the filters tell each other in fields must not come from outside.
///
/// MUTATION: take the removal of `x-outgate-*` out of the first filter of a leg.
async fn fields_of_our_own_that_a_guest_sends_change_nothing() {
    let world = World::new().await;
    let (_, token) = world.session();
    let (other, _) = world.session();
    // So that Envoy has both credentials, and the log says how they are called.
    for host in ["a.test", "b.test"] {
        let req = world.get(Way::TunnelH1, host, "/").bearer(&token);
        assert!(passed(&world.guest().send(Way::TunnelH1, &req).await));
    }
    let logs = world.plane().logs();
    let mut names: Vec<&str> = logs
        .match_indices("injections/")
        .map(|(at, _)| {
            let rest = &logs[at..];
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-_/".contains(c)));
            &rest[..end.unwrap_or(rest.len())]
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names.extend([
        "credentials/k1",
        "credentials/k2",
        "injections/k1-00000000",
        "none",
    ]);
    for way in Way::ALL {
        for name in &names {
            for host in ["n.test", "b.test"] {
                let mut req = world.get(way, host, "/echo");
                for (field, value) in [
                    ("x-outgate-inject", *name),
                    ("X-Outgate-Inject", "none"),
                    ("x-outgate-session", &other),
                    ("x-outgate-connection", "c_1"),
                    ("x-outgate-request", "r_1"),
                    ("x-outgate-treatment", "pass"),
                    ("x-outgate-anything", "marker"),
                ] {
                    // HTTP/2 has lower-case names only.
                    if way != Way::TunnelH2 || field.bytes().all(|byte| !byte.is_ascii_uppercase())
                    {
                        req = req.header(field, value);
                    }
                }
                let context = format!("{way:?} {host} {name}");
                let mark = world.mark();
                let bare = world.guest().send(way, &req).await;
                assert_eq!(bare.reason(), Some("token_missing"), "{context}: {bare:?}");
                let with_token = world.guest().send(way, &req.clone().bearer(&token)).await;
                if way == Way::AbsoluteForm && host == "b.test" {
                    // Its credential may not go out in clear, whatever the fields say.
                    assert!(!passed(&with_token), "{context}: {with_token:?}");
                    continue;
                }
                assert!(passed(&with_token), "{context}: {with_token:?}");
                let seen = world.origin(way).last();
                assert!(!seen.headers.mention("x-outgate"), "{context}: {seen:?}");
                assert_eq!(seen.mentions(K2), host == "b.test", "{context}: {seen:?}");
                assert!(!seen.mentions(K1), "{context}: {seen:?}");
                let records = world.records_since(mark);
                assert!(
                    !records.iter().any(|one| record::names(one, &other)),
                    "{context}: {records:#?}"
                );
            }
        }
    }
}

/// Envoy asks for a leaf by whatever name the guest says.
///
/// MUTATION: let the door answer every name with a leaf, listed or not; or look the server name up before it is compared
/// with the tunnel's host.
async fn an_unlisted_server_name_gets_no_leaf_no_question_and_no_dial() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let dialled = world.tls.connections();
    for name in [
        "x.test",
        "sub.a.test",
        "secret-payload.a.test",
        "b.test.x.test",
    ] {
        for host in ["a.test", "n.test", "pass.test"] {
            let context = format!("CONNECT {host}, server name {name}");
            let stream = guest.connect(&format!("{host}:{}", world.tls.port())).await;
            let stream = stream.unwrap_or_else(|refused| panic!("{context}: {refused:?}"));
            let begin = Instant::now();
            let options = TlsOptions::new(name, "h2");
            let outcome = within(10, &context, guest.handshake(stream, &options)).await;
            assert!(outcome.is_err(), "{context}: there was a leaf");
            assert!(
                begin.elapsed() < Duration::from_secs(3),
                "{context}: {:?}",
                begin.elapsed()
            );
        }
        assert!(!world.dns.was_asked_for(name), "{name} was asked for");
    }
    assert_eq!(world.tls.connections(), dialled, "an upstream was dialled");
    let minted = |name: &str| {
        let records = world.plane().audit_records();
        records
            .iter()
            .filter(|one| record::names(one, "leaf.mint") && record::names(one, name))
            .filter(|one| record::find(one, "status") == Some(&json!("Success")))
            .count()
    };
    for name in [
        "x.test",
        "sub.a.test",
        "secret-payload.a.test",
        "b.test.x.test",
    ] {
        assert_eq!(minted(name), 0, "a leaf for {name}");
    }
}

/// CONNECT, server name and `Host` reach different filters, and each might be judged alone.
///
/// MUTATION: do not compare `Host` with the tunnel's host, or the server name with it.
async fn three_names_on_one_connection_are_never_two_verdicts() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let port = world.tls.port();
    let names = ["a.test", "b.test", "n.test", "x.test", "optional.test"];
    for connect in names {
        for sni in names {
            for host in names {
                if connect == sni && sni == host {
                    continue;
                }
                let context = format!("CONNECT {connect}, server name {sni}, Host {host}");
                let before = world.seen();
                let req = Req::get(connect, port, "/")
                    .sni(sni)
                    .authority(&format!("{host}:{port}"))
                    .bearer(&token);
                let outcome = within(10, &context, guest.send(Way::TunnelH1, &req)).await;
                assert!(!passed(&outcome), "{context}: {outcome:?}");
                // Either the handshake fails, or the request is told of the name that is not the tunnel's.
                if let Outcome::Answered(answer) = &outcome {
                    let wanted = if connect == sni {
                        "authority_mismatch"
                    } else {
                        "server_name_mismatch"
                    };
                    assert_eq!(answer.reason(), Some(wanted), "{context}");
                    assert_eq!(answer.status, 421, "{context}");
                }
                assert_eq!(world.seen(), before, "{context}: it was sent");
            }
        }
    }
}

/// Connections to `127.0.0.2` on these ports.
async fn trap(ports: [u16; 2]) -> Arc<AtomicUsize> {
    let caught = Arc::new(AtomicUsize::new(0));
    for port in ports {
        let listener = TcpListener::bind(("127.0.0.2", port))
            .await
            .expect("loopback has 127.0.0.2");
        let caught = Arc::clone(&caught);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                caught.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    caught
}

/// Envoy's pool makes every connection with the filter state of the request that the pool was made for.
///
/// MUTATION: let the connection's id be no part of the pool's key (`envoy.string` in place of `envoy.hashable_string`
/// where a CONNECT's state is set).
async fn each_tunnel_of_a_session_is_judged_as_itself() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let mut open = Vec::new();
    for round in 0..3 {
        for host in ["a.test", "b.test", "n.test", "pass.test", "optional.test"] {
            for way in Way::TUNNELS {
                let context = format!("{way:?} {host}, round {round}");
                let mark = world.mark();
                let path = format!("/{way:?}/{host}/{round}");
                let req = world.get(way, host, &path).bearer(&token);
                let mut channel = guest.open(way, &req).await.expect("a connection");
                let outcome = channel.send(&req).await;
                assert!(passed(&outcome), "{context}: {outcome:?}");
                let seen = world.tls.last();
                assert_eq!(seen.sni.as_deref(), Some(host), "{context}: {seen:?}");
                assert_eq!(seen.target, path, "{context}");
                if host != "pass.test" {
                    world.until_recorded(mark, &context, |one| {
                        record::names(one, &path) && record::names(one, host)
                    });
                }
                open.push(channel);
            }
        }
    }
}
