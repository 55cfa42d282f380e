//! A changed policy reaches what is open; a broken one reaches nothing; a stop lets streams end.

use std::time::{Duration, Instant};

use outgate_conformance::{
    Outcome, Way, World, add_destination, destination, eventually, websocket, within,
};
use outgate_testkit::{Gateway, GatewayOptions};
use serde_json::{Value, json};

outgate_conformance::scenarios! {
    an_added_destination_works_and_a_removed_one_does_not: [D1 P1];
    a_broken_file_keeps_the_old_policy_and_says_where_it_is_broken: [D1];
    a_key_that_needs_a_restart_is_refused_by_name_and_nothing_of_the_file_is_taken: [D1], Envoy: Differs(
        "Envoy takes other addresses to listen on without a restart",
        "the log does not name listen"
    );
    tunnels_that_the_changed_policy_forbids_are_closed: [C3 P1];
    a_live_connection_is_judged_by_the_changed_policy_on_its_next_request: [S3];
    requests_during_many_reloads_do_not_fail: [D1];
    a_stop_lets_a_stream_end_takes_no_new_one_and_exits_with_0: [D1];
    a_stop_does_not_wait_for_ever: [D1];
    without_a_credential_there_is_no_ca_anywhere: [P2];
    the_ca_and_the_keys_are_private_and_live_over_a_restart: [I5 D1];
    two_gateways_never_share_a_state_folder: [D1];
    state_that_cannot_be_read_stops_the_start_instead_of_being_replaced: [D1];
    what_is_open_to_an_address_that_a_reload_denies_is_closed: [P4 C3];
}

/// Waits until a request that the changed policy decides otherwise is decided so.
async fn until(
    world: &World,
    way: Way,
    host: &str,
    token: &str,
    wanted: impl Fn(&Outcome) -> bool,
) {
    for _ in 0..200 {
        let outcome = world
            .guest()
            .send(way, &world.get(way, host, "/v1/x").bearer(token))
            .await;
        if wanted(&outcome) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the changed policy was never in force for {host}");
}

fn changed(world: &World, change: impl FnOnce(&mut Value)) -> Value {
    let mut config = world.config.clone();
    change(&mut config);
    config
}

async fn an_added_destination_works_and_a_removed_one_does_not() {
    let mut world = World::new().await;
    let (_, token) = world.session();
    let ports = json!([world.tls.port(), world.plain.port()]);
    let config = changed(&world, |config| {
        add_destination(
            config,
            json!({ "host": "x.test", "ports": ports, "plaintext": true, "posture": "bump" }),
        );
        config["destinations"]
            .as_array_mut()
            .unwrap()
            .retain(|rule| rule["host"] != "n.test");
    });
    world.plane_mut().write_config(&config);
    until(&world, Way::AbsoluteForm, "x.test", &token, |outcome| {
        outcome.reason().is_none()
    })
    .await;
    for way in Way::ALL {
        let answer = world
            .guest()
            .send(way, &world.get(way, "x.test", "/").bearer(&token))
            .await;
        assert_eq!(answer.answered().status, 200, "{way:?}");
        let mark = world.mark();
        let outcome = world
            .guest()
            .send(way, &world.get(way, "n.test", "/").bearer(&token))
            .await;
        world.assert_denied(
            mark,
            &outcome,
            "destination_not_allowed",
            &format!("{way:?}"),
        );
    }
}

async fn a_broken_file_keeps_the_old_policy_and_says_where_it_is_broken() {
    let world = World::new().await;
    let (_, token) = world.session();
    for (text, says) in [
        ("version: 1\ndestinations:\n  - host: [\n", "outgate.yaml"),
        (
            "version: 1\ndestinations:\n  - host: n.test\n    no_such_key: 1\n",
            "no_such_key",
        ),
        (
            "version: 1\ndestinations:\n  - host: n.test\n    inject: { credential: nobody, header: x }\n",
            "destinations[0].inject.credential",
        ),
        ("", ""),
    ] {
        let from = world.plane().logs().len();
        world.plane().write_config_text(text);
        let said = eventually(Duration::from_secs(5), || {
            let logs = world.plane().logs();
            let tail = &logs[from..];
            (tail.contains("ERROR") && tail.contains(says)).then_some(())
        });
        assert!(
            said.await.is_some(),
            "{text:?}: the log does not say {says:?}"
        );
        for way in Way::ALL {
            let answer = world
                .guest()
                .send(way, &world.get(way, "a.test", "/").bearer(&token))
                .await;
            assert_eq!(
                answer.answered().status,
                200,
                "{way:?}: the old policy serves"
            );
            let mark = world.mark();
            let outcome = world
                .guest()
                .send(way, &world.get(way, "x.test", "/").bearer(&token))
                .await;
            world.assert_denied(
                mark,
                &outcome,
                "destination_not_allowed",
                &format!("{way:?}"),
            );
        }
    }
}

async fn a_key_that_needs_a_restart_is_refused_by_name_and_nothing_of_the_file_is_taken() {
    let mut world = World::new().await;
    let (_, token) = world.session();
    for (key, value) in [
        ("listen", json!({ "proxy": "127.0.0.1:1" })),
        ("state_dir", json!("/nowhere/else")),
    ] {
        let from = world.plane().logs().len();
        let config = changed(&world, |config| {
            config[key] = value;
            config["destinations"]
                .as_array_mut()
                .unwrap()
                .retain(|rule| rule["host"] != "n.test");
        });
        world.plane_mut().write_config(&config);
        let said = eventually(Duration::from_secs(5), || {
            let logs = world.plane().logs();
            let tail = &logs[from..];
            (tail.contains(key) && tail.contains("restart")).then_some(())
        });
        assert!(said.await.is_some(), "the log does not name {key}");
        let answer = world
            .guest()
            .send(
                Way::TunnelH1,
                &world.get(Way::TunnelH1, "n.test", "/").bearer(&token),
            )
            .await;
        assert_eq!(
            answer.answered().status,
            200,
            "{key}: half of a refused file was taken"
        );
    }
}

async fn tunnels_that_the_changed_policy_forbids_are_closed() {
    let mut world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let req = world.get(Way::TunnelH1, "pass.test", "/sse?n=1000&every_ms=20");
    let mut busy = guest.open(Way::TunnelH1, &req).await.expect("a tunnel");
    let mut stream = busy.start(&req).await.expect("a head");
    stream.next().await.expect("an event");
    let mut idle = guest
        .open(Way::TunnelH1, &req)
        .await
        .expect("a tunnel")
        .into_h1();
    let kept = world
        .get(Way::TunnelH1, "n.test", "/sse?n=150&every_ms=20")
        .bearer(&token);
    let mut kept_channel = guest.open(Way::TunnelH1, &kept).await.expect("a tunnel");
    let kept_stream = kept_channel.start(&kept).await.expect("a head");
    let mark = world.mark();
    let config = changed(&world, |config| {
        config["destinations"]
            .as_array_mut()
            .unwrap()
            .retain(|rule| rule["host"] != "pass.test");
    });
    world.plane_mut().write_config(&config);
    within(5, "the busy tunnel closed", async {
        while let Ok(Some(_)) = stream.next().await {}
    })
    .await;
    within(5, "the idle tunnel closed", async {
        while let Ok(Some(_)) = idle.read_any().await {}
    })
    .await;
    world.assert_audited(mark, "policy_changed", "pass-through");
    assert!(
        kept_stream.finish().await.complete,
        "what is still allowed goes on"
    );
}

async fn a_live_connection_is_judged_by_the_changed_policy_on_its_next_request() {
    let mut world = World::new().await;
    let (_, token) = world.session();
    let mut open = Vec::new();
    for way in Way::ALL {
        let req = world.get(way, "rules.test", "/v1/x").bearer(&token);
        let mut channel = world.guest().open(way, &req).await.expect("a connection");
        assert_eq!(channel.send(&req).await.answered().status, 200, "{way:?}");
        open.push((way, req, channel));
    }
    let config = changed(&world, |config| {
        destination(config, "rules.test")["allow"] =
            json!([{ "methods": ["POST"], "paths": ["/v1/**"] }]);
    });
    world.plane_mut().write_config(&config);
    until(&world, Way::AbsoluteForm, "rules.test", &token, |outcome| {
        outcome.reason() == Some("method_not_allowed")
    })
    .await;
    for (way, req, channel) in &mut open {
        let mark = world.mark();
        let outcome = channel.send(req).await;
        world.assert_denied(mark, &outcome, "method_not_allowed", &format!("{way:?}"));
    }
}

async fn requests_during_many_reloads_do_not_fail() {
    let mut world = World::new().await;
    let (_, token) = world.session();
    let req = world.get(Way::TunnelH2, "a.test", "/").bearer(&token);
    let mut channel = world
        .guest()
        .open(Way::TunnelH2, &req)
        .await
        .expect("a tunnel");
    for round in 0..30 {
        let config = changed(&world, |config| {
            destination(config, "n.test")["limits"] =
                json!({ "requests": format!("{}/min", 1000 + round) });
        });
        world.plane_mut().write_config(&config);
        world.plane().gateway().hang_up();
        for _ in 0..4 {
            assert_eq!(
                channel.send(&req).await.answered().status,
                200,
                "round {round}"
            );
        }
    }
}

async fn a_stop_lets_a_stream_end_takes_no_new_one_and_exits_with_0() {
    for way in Way::ALL {
        let mut world = World::new().await;
        let (_, token) = world.session();
        let req = world
            .get(way, "a.test", "/sse?n=20&every_ms=50")
            .bearer(&token);
        let mut channel = world.guest().open(way, &req).await.expect("a connection");
        let mut stream = channel.start(&req).await.expect("a head");
        stream.next().await.expect("an event");
        world.plane().begin_stop();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let late = world
            .guest()
            .send(way, &world.get(way, "a.test", "/").bearer(&token))
            .await;
        assert!(
            !matches!(&late, Outcome::Answered(answer) if answer.status == 200),
            "{way:?}: a new connection was served: {late:?}"
        );
        let rest = within(5, "the stream", stream.finish()).await;
        assert!(
            rest.complete,
            "{way:?}: the stream was cut within its grace"
        );
        assert!(rest.text().ends_with("data: 19\n\n"), "{way:?}");
        let status = world.plane_mut().wait(Duration::from_secs(8));
        assert_eq!(status.code(), Some(0), "{way:?}");
    }
}

async fn a_stop_does_not_wait_for_ever() {
    let mut world = World::configured(|config, _| {
        config["timeouts"]["drain"] = json!("1s");
    })
    .await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let req = world
        .get(Way::TunnelH1, "a.test", "/sse?n=2000&every_ms=20")
        .bearer(&token);
    let mut channel = guest.open(Way::TunnelH1, &req).await.expect("a connection");
    let mut stream = channel.start(&req).await.expect("a head");
    stream.next().await.expect("an event");
    let tunnel = guest
        .connect(&format!("pass.test:{}", world.tls.port()))
        .await
        .expect("a tunnel");
    let begin = Instant::now();
    world.plane().begin_stop();
    let status = world.plane_mut().wait(Duration::from_secs(6));
    assert_eq!(status.code(), Some(0));
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    let records = world.plane().audit_records();
    assert!(
        records
            .iter()
            .any(|record| outgate_conformance::record::names(record, "shutting_down")),
        "the cut is on record"
    );
    drop(tunnel);
}

async fn without_a_credential_there_is_no_ca_anywhere() {
    let world = World::configured(|config, places| {
        config["credentials"] = json!({});
        config["destinations"] = json!([{ "host": "pass.test", "ports": [places.tls] }]);
    })
    .await;
    assert_eq!(world.plane().ca_pem(), None);
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let req = world.get(Way::TunnelH2, "pass.test", "/");
    assert_eq!(guest.send(Way::TunnelH2, &req).await.answered().status, 200);
    let gateway = world.plane().gateway();
    assert!(!gateway.state().join("ca").join("ca.key").exists());
    assert!(!gateway.state().join("ca").join("ca.crt").exists());
    assert_eq!(gateway.ready()["ca"], Value::Null);
}

async fn the_ca_and_the_keys_are_private_and_live_over_a_restart() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = World::new().await;
    let before = world.plane().ca_pem().expect("a CA");
    let gateway = world.plane().gateway();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let state = gateway.state();
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("ca/ca.key")), 0o600);
    assert_eq!(mode(&state.join("ca")), 0o700);
    for key in std::fs::read_dir(state.join("keys")).unwrap() {
        assert_eq!(mode(&key.unwrap().path()) & 0o077, 0);
    }
    assert_eq!(mode(&state.join("operator.sock")) & 0o077, 0);
    let (_, token) = world.session();
    world.restart();
    assert_eq!(world.plane().ca_pem(), Some(before), "the same CA");
    let req = world.get(Way::TunnelH1, "a.test", "/").bearer(&token);
    assert_eq!(
        world
            .guest()
            .send(Way::TunnelH1, &req)
            .await
            .answered()
            .status,
        200
    );
}

async fn two_gateways_never_share_a_state_folder() {
    let world = World::new().await;
    let gateway = world.plane().gateway();
    let mut config = world.config.clone();
    config["state_dir"] = json!(gateway.state());
    let binary = outgate_testkit::gateway::binary();
    let folder = world.folder.path().join("second");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("outgate.yaml"), config.to_string()).unwrap();
    let output = tokio::time::timeout(
        Duration::from_secs(10),
        tokio::task::spawn_blocking(move || {
            std::process::Command::new(binary)
                .args(["serve", "--json", "--config"])
                .arg(folder.join("outgate.yaml"))
                .env("K1", "x")
                .env("K2", "y")
                .output()
        }),
    )
    .await
    .expect("the second one ends by itself")
    .unwrap()
    .unwrap();
    assert_ne!(output.status.code(), Some(0));
    let (_, token) = world.session();
    let req = world.get(Way::TunnelH1, "a.test", "/").bearer(&token);
    assert_eq!(
        world
            .guest()
            .send(Way::TunnelH1, &req)
            .await
            .answered()
            .status,
        200,
        "the first goes on"
    );
}

#[test]
fn a_broken_or_unsafe_config_does_not_start() {
    let inject = |extra: Value| {
        let mut rule =
            json!({ "host": "a.test", "inject": { "credential": "k", "header": "x-api-key" } });
        rule.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        json!({ "version": 1, "listen": { "proxy": "127.0.0.1:0" },
            "credentials": { "k": { "from": { "env": "PATH" } } }, "destinations": [rule] })
    };
    for (what, config) in [
        ("not a config", json!([1])),
        ("no version", json!({ "destinations": [] })),
        ("unknown key", json!({ "version": 1, "destinatons": [] })),
        (
            "pass-through with a credential",
            inject(json!({ "posture": "pass-through" })),
        ),
        (
            "opaque with a credential",
            inject(json!({ "protocol": "opaque" })),
        ),
        (
            "unknown credential",
            json!({ "version": 1, "destinations": [
            { "host": "a.test", "inject": { "credential": "none", "header": "x" } }] }),
        ),
        (
            "credential without a destination",
            json!({ "version": 1,
            "credentials": { "k": { "from": { "env": "PATH" } } }, "destinations": [] }),
        ),
        (
            "an address as host",
            json!({ "version": 1, "destinations": [{ "host": "10.0.0.1" }] }),
        ),
    ] {
        let mut config = config;
        if config.is_object() {
            config["listen"] = json!({ "proxy": "127.0.0.1:0" });
        }
        let output = Gateway::check(&config);
        assert_eq!(output.code, Some(1), "{what}: {output:?}");
        assert!(
            output.stderr.contains("1 problem in"),
            "{what}: only this is wrong: {output:?}"
        );
        let started = Gateway::try_start(GatewayOptions::new(config));
        assert!(started.is_err(), "{what}: it started");
    }
}

async fn state_that_cannot_be_read_stops_the_start_instead_of_being_replaced() {
    use std::fs;
    let world = World::new().await;
    let start = || {
        let options = GatewayOptions::new(world.config.clone());
        Gateway::start(options.env("K1", "x-123456789").env("K2", "y-123456789"))
    };
    for what in ["ca/ca.key", "ca/ca.crt", "outgate.db", "audit-key", "keys"] {
        let broken = start().restart_after(|state| {
            let path = state.join(what);
            if path.is_dir() {
                for entry in fs::read_dir(&path).unwrap() {
                    fs::write(entry.unwrap().path(), "nonsense").unwrap();
                }
            } else {
                fs::write(&path, "nonsense\nand more\n").unwrap();
            }
        });
        assert!(broken.is_err(), "{what}: it started all the same");
    }
    let fine = start().restart_after(|_| {});
    assert!(fine.is_ok(), "untouched, it starts again");
}

async fn what_is_open_to_an_address_that_a_reload_denies_is_closed() {
    let mut world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let req = world.get(Way::TunnelH1, "pass.test", "/sse?n=1000&every_ms=20");
    let mut tunnel = guest.open(Way::TunnelH1, &req).await.expect("a tunnel");
    let mut stream = tunnel.start(&req).await.expect("a head");
    stream.next().await.expect("an event");
    let mut sockets = Vec::new();
    for way in [Way::AbsoluteForm, Way::TunnelH1] {
        let req = world
            .get(way, "a.test", "/ws")
            .bearer(&token)
            .header("upgrade", "websocket")
            .header("connection", "Upgrade")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", websocket::KEY);
        let mut channel = guest.open(way, &req).await.expect("a connection");
        let head = channel.start(&req).await.expect("a head").response;
        assert_eq!(head.status, 101, "{way:?}");
        let mut ws = channel.into_h1();
        ws.write(&websocket::frame(1, b"x", true)).await.unwrap();
        websocket::read_frame(&mut ws).await.expect("an echo");
        sockets.push((way, ws));
    }
    let mark = world.mark();
    let config = changed(&world, |config| {
        config["resolver"]["deny"] = json!(["127.0.0.1"]);
    });
    world.plane_mut().write_config(&config);
    within(5, "the tunnel closed", async {
        while let Ok(Some(_)) = stream.next().await {}
    })
    .await;
    for (way, ws) in &mut sockets {
        within(5, &format!("{way:?}: the WebSocket closed"), async {
            while let Ok(Some(_)) = ws.read_any().await {}
        })
        .await;
    }
    let records = world.assert_audited(mark, "policy_changed", "all three");
    assert!(!records.is_empty());
    until(&world, Way::AbsoluteForm, "rules.test", &token, |outcome| {
        outcome.reason() == Some("address_denied")
    })
    .await;
}

#[test]
fn a_session_token_in_place_of_a_credential_stops_the_start() {
    let folder = std::sync::Arc::new(tempfile::TempDir::with_prefix("outgate-scenario").unwrap());
    let config = json!({
        "version": 1,
        "listen": { "proxy": "127.0.0.1:0" },
        "credentials": { "k": { "from": { "env": "THE_REAL_KEY" } } },
        "destinations": [{ "host": "a.test", "inject": { "credential": "k", "header": "x-api-key" } }],
    });
    let start = |value: &str| {
        let options = GatewayOptions::new(config.clone()).env("THE_REAL_KEY", value);
        Gateway::start_in(std::sync::Arc::clone(&folder), options)
    };
    let mut first = start("a-real-key-0123456789").expect("a real key is fine");
    let (_, token) = first.session_create();
    first.terminate(Duration::from_secs(20));
    drop(first);
    let refused = start(&token).err().expect("a session token is not");
    assert!(refused.stderr.contains("THE_REAL_KEY"), "{refused:?}");
    assert!(
        !refused.stderr.contains(&token),
        "the message holds the token"
    );
    assert!(refused.code.is_some_and(|code| code != 0), "{refused:?}");
    assert!(
        start("a-real-key-0123456789").is_ok(),
        "the state is as it was"
    );
}
