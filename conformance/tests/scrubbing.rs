//! The credential does not come back, however the upstream spells it.

use std::time::{Duration, Instant};

use outgate_conformance::{Alpn, K1, K2, Response, Setup, Way, World, codec};

outgate_conformance::scenarios! {
    an_echo_in_any_spelling_and_any_chunking_is_scrubbed: [I6];
    an_echo_in_fields_and_trailers_is_scrubbed: [I6];
    json_echoes_of_whole_requests_hold_no_credential: [I6];
    a_body_that_cannot_be_read_is_not_let_through: [I6];
    a_broken_compressed_body_does_not_pass_as_a_whole_one: [I6];
    scrubbing_changes_nothing_else_and_holds_nothing_back: [I6 P11];
    a_compression_bomb_is_not_unpacked_into_memory: [I6 D1];
    a_coding_that_is_declared_in_an_odd_place_hides_nothing: [I6];
    a_credential_that_an_upstream_kept_does_not_come_back_without_a_token: [I6];
}

async fn plain_body(answer: &Response) -> Vec<u8> {
    codec::decode(answer.headers.get("content-encoding"), &answer.body).await
}

async fn an_echo_in_any_spelling_and_any_chunking_is_scrubbed() {
    let world = World::with(Setup {
        log: "info",
        ..Setup::default()
    })
    .await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let req = world.get(way, "a.test", "/").bearer(&token);
        let mut channel = world.guest().open(way, &req).await.expect("a connection");
        for encoding in codec::ENCODINGS {
            for (chunk, shift) in [
                (1, 0),
                (1, 1),
                (1, 2),
                (7, 0),
                (100_000, 0),
                (100_000, 1),
                (100_000, 2),
            ] {
                for sized in ["", "&sized=1"] {
                    let path =
                        format!("/echo-as?enc={encoding}&chunk={chunk}&shift={shift}{sized}");
                    let req = world.get(way, "a.test", &path).bearer(&token);
                    let answer = channel.send(&req).await.answered();
                    let context = format!("{way:?} {path}");
                    assert_eq!(answer.status, 200, "{context}: {}", answer.text());
                    assert!(answer.complete, "{context}: cut");
                    assert!(
                        world.origin(way).last().mentions(K1),
                        "{context}: it was injected"
                    );
                    let body = plain_body(&answer).await;
                    assert!(
                        !codec::holds_secret(&body, K1),
                        "{context}: {}",
                        String::from_utf8_lossy(&body)
                    );
                    if matches!(encoding, "plain" | "gzip" | "br" | "zstd") {
                        assert!(
                            body.ends_with(b" end"),
                            "{context}: what is around it stays"
                        );
                    }
                }
            }
        }
    }
}

async fn an_echo_in_fields_and_trailers_is_scrubbed() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let hosts: &[_] = if way == Way::AbsoluteForm {
            &[("a.test", K1)]
        } else {
            &[("a.test", K1), ("b.test", K2), ("basic.test", K1)]
        };
        for (host, key) in hosts {
            let req = world.get(way, host, "/echo-header").bearer(&token);
            let answer = world.guest().send(way, &req).await.answered();
            let context = format!("{way:?} {host}");
            assert_eq!(answer.status, 200, "{context}");
            for fields in [&answer.headers, &answer.trailers] {
                for (name, value) in &fields.0 {
                    assert!(
                        !codec::holds_secret(value.as_bytes(), key),
                        "{context}: {name}: {value}"
                    );
                }
            }
            assert!(
                !answer.headers.mention("azEtbGl2ZS"),
                "{context}: base64 of user and key"
            );
        }
    }
}

async fn json_echoes_of_whole_requests_hold_no_credential() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let answer = world
            .guest()
            .send(way, &world.get(way, "a.test", "/echo").bearer(&token))
            .await
            .answered();
        assert!(
            answer.json()["headers"].is_array(),
            "{way:?}: still JSON: {}",
            answer.text()
        );
        assert!(!codec::holds_secret(&answer.body, K1), "{way:?}");
    }
    for way in Way::TUNNELS {
        let req = world.get(way, "query.test", "/echo?z=1").bearer(&token);
        let answer = world.guest().send(way, &req).await.answered();
        assert!(
            !codec::holds_secret(&answer.body, K1),
            "{way:?}: {}",
            answer.text()
        );
        // The error page of an upstream, and a Location, echo the URL.
        let req = world
            .get(way, "query.test", "/redirect?to=/next")
            .bearer(&token);
        let answer = world.guest().send(way, &req).await.answered();
        assert_eq!(answer.status, 302);
        assert!(!answer.headers.mention(K1), "{way:?}");
    }
}

async fn a_body_that_cannot_be_read_is_not_let_through() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        for coding in ["compress", "dcb", "x-unknown", "gzip, x-unknown"] {
            let mark = world.mark();
            let path = format!("/coding?name={}", coding.replace(' ', ""));
            let req = world.get(way, "a.test", &path).bearer(&token);
            let outcome = world.guest().send(way, &req).await;
            let context = format!("{way:?} {coding}");
            assert_eq!(
                outcome.reason(),
                Some("response_unscrubbable"),
                "{context}: {outcome:?}"
            );
            world.assert_audited(mark, "response_unscrubbable", &context);
        }
        // Where nothing was injected there is nothing to look for.
        let req = world
            .get(way, "n.test", "/coding?name=x-unknown")
            .bearer(&token);
        let answer = world.guest().send(way, &req).await.answered();
        assert_eq!(
            (answer.status, answer.body),
            (200, vec![1, 2, 3]),
            "{way:?}"
        );
    }
}

async fn a_broken_compressed_body_does_not_pass_as_a_whole_one() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        for coding in ["gzip", "br", "zstd"] {
            let req = world
                .get(way, "a.test", &format!("/coding?name={coding}"))
                .bearer(&token);
            if let outgate_conformance::Outcome::Answered(answer) =
                world.guest().send(way, &req).await
            {
                let raw = answer.complete && answer.status == 200 && answer.body == [1, 2, 3];
                assert!(!raw, "{way:?} {coding}: undecodable bytes came through");
            }
        }
    }
}

async fn scrubbing_changes_nothing_else_and_holds_nothing_back() {
    let world = World::with(Setup {
        log: "info",
        alpn: Alpn::Both,
        ..Setup::default()
    })
    .await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let req = world.get(way, "a.test", "/bytes?n=1000000").bearer(&token);
        let answer = world.guest().send(way, &req).await.answered();
        assert!(
            answer.complete && answer.body == vec![b'z'; 1_000_000],
            "{way:?}"
        );
        let req = world
            .get(way, "a.test", "/sse?n=3&every_ms=500")
            .bearer(&token);
        let mut channel = world.guest().open(way, &req).await.expect("a connection");
        let mut stream = channel.start(&req).await.expect("a head");
        let begin = Instant::now();
        // In pieces as they come.
        let mut first = Vec::new();
        while first.len() < 9 {
            let piece = stream.next().await.expect("an event").expect("an event");
            first.extend_from_slice(&piece);
        }
        assert_eq!(first, b"data: 0\n\n", "{way:?}");
        assert!(
            begin.elapsed() < Duration::from_millis(400),
            "{way:?}: held back"
        );
    }
}

async fn a_compression_bomb_is_not_unpacked_into_memory() {
    let world = World::with(Setup {
        log: "warn",
        ..Setup::default()
    })
    .await;
    let (_, token) = world.session();
    let warm = world
        .get(Way::TunnelH2, "a.test", "/echo-as?enc=gzip")
        .bearer(&token);
    assert_eq!(
        world
            .guest()
            .send(Way::TunnelH2, &warm)
            .await
            .answered()
            .status,
        200
    );
    let before = world.plane().resident_kib();
    for way in Way::ALL {
        for coding in ["gzip", "zstd"] {
            let req = world
                .get(way, "a.test", &format!("/bomb?enc={coding}&mb=48"))
                .bearer(&token);
            let mut channel = world.guest().open(way, &req).await.expect("a connection");
            // Nothing is read: what is unpacked has nowhere to go.
            let stream = channel.start(&req).await.expect("a head");
            tokio::time::sleep(Duration::from_millis(300)).await;
            let grown = world.plane().resident_kib().saturating_sub(before);
            assert!(
                grown < 32 << 10,
                "{way:?} {coding}: memory grew by {grown} KiB"
            );
            drop(stream);
        }
    }
}

async fn a_coding_that_is_declared_in_an_odd_place_hides_nothing() {
    let world = World::with(Setup {
        alpn: Alpn::H1,
        ..Setup::default()
    })
    .await;
    let (_, token) = world.session();
    for way in [Way::AbsoluteForm, Way::TunnelH1] {
        for how in ["te", "hop", "grpc"] {
            let path = format!("/echo-as?enc=gzip&declare={how}");
            let req = world.get(way, "a.test", &path).bearer(&token);
            let outcome = world.guest().send(way, &req).await;
            let context = format!("{way:?} {how}");
            assert!(world.origin(way).last().mentions(K1), "{context}");
            if outcome.reason() == Some("response_unscrubbable") {
                continue;
            }
            let outgate_conformance::Outcome::Answered(answer) = outcome else {
                continue;
            };
            // Whatever arrived, read as the gzip that it may still be.
            let from = if how == "grpc" { 5 } else { 0 };
            let body = answer.body.get(from..).unwrap_or_default();
            let is_gzip = body.starts_with(&[0x1f, 0x8b]);
            let plain = codec::decode(is_gzip.then_some("gzip"), body).await;
            assert!(
                !codec::holds_secret(&plain, K1),
                "{context}: {}",
                answer.status
            );
        }
    }
}

async fn a_credential_that_an_upstream_kept_does_not_come_back_without_a_token() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let with = world.get(way, "optional.test", "/").bearer(&token);
        assert_eq!(world.guest().send(way, &with).await.answered().status, 200);
        assert_eq!(world.origin(way).last().headers.get("x-api-key"), Some(K1));
        let bare = world.get(way, "optional.test", "/kept");
        let answer = world.guest().send(way, &bare).await.answered();
        assert_eq!(answer.status, 200, "{way:?}");
        assert_eq!(world.origin(way).last().headers.get("x-api-key"), None);
        let body = plain_body(&answer).await;
        assert!(
            body.starts_with(b"kept: ") && body.len() > 6,
            "{way:?}: {}",
            answer.text()
        );
        assert!(
            !codec::holds_secret(&body, K1),
            "{way:?}: {}",
            answer.text()
        );
        let field = answer.headers.get("x-kept").unwrap_or("");
        assert!(
            !codec::holds_secret(field.as_bytes(), K1),
            "{way:?}: {field}"
        );
    }
}
