//! Everything is logged at trace level and nothing of it is a secret. Every world of the suite ends with this search;
//! here the secrets are put where they are most likely to slip out.

use std::time::Duration;

use outgate_conformance::{K1, K2, Way, World, raw};

outgate_conformance::scenarios! {
    no_secret_is_in_any_output_however_it_is_presented: [I5 A4];
    answers_name_no_secret_and_no_inner_detail: [I5 P8];
}

async fn no_secret_is_in_any_output_however_it_is_presented() {
    let world = World::new().await;
    let (id, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let half = &token[..token.len() - 4];
    for way in Way::ALL {
        for host in ["a.test", "b.test", "n.test", "optional.test", "x.test"] {
            let _ = guest
                .send(way, &world.get(way, host, "/echo").bearer(&token))
                .await;
            let _ = guest
                .send(
                    way,
                    &world
                        .get(way, host, "/echo-header")
                        .header("x-api-key", &token),
                )
                .await;
            let _ = world
                .guest()
                .send(way, &world.get(way, host, "/").bearer(half))
                .await;
            let _ = guest
                .send(
                    way,
                    &world
                        .get(way, host, &format!("/{token}?t={token}"))
                        .bearer(&token),
                )
                .await;
            let _ = guest
                .send(way, &world.get(way, host, "/reset").bearer(&token))
                .await;
            let odd = world
                .get(way, host, "/")
                .header("authorization", &format!("Digest {token}"));
            let _ = guest.send(way, &odd).await;
            let _ = guest
                .send(
                    way,
                    &world
                        .get(way, host, "/")
                        .header("cookie", &format!("t={token}")),
                )
                .await;
        }
    }
    for way in Way::TUNNELS {
        let _ = guest
            .send(
                way,
                &world.get(way, "query.test", &format!("/?key={token}")),
            )
            .await;
        let _ = guest
            .send(way, &world.get(way, "basic.test", "/").bearer(&token))
            .await;
    }
    // Malformed, with the token in sight.
    for head in [
        format!(
            "GET http://a.test/ HTTP/1.1\r\nhost: a.test\r\nauthorization : Bearer {token}\r\n\r\n"
        ),
        format!("GET http://a.test/{token} HTTP/9.9\r\nauthorization: Bearer {token}\r\n\r\n"),
        format!("CONNECT {token}:443 HTTP/1.1\r\nproxy-authorization: Bearer {token}\r\n\r\n"),
        format!("GET http://session:{token}@a.test/ HTTP/1.1\r\nhost: a.test\r\n\r\n"),
        format!("{token} http://a.test/ HTTP/1.1\r\nhost: a.test\r\n\r\n"),
    ] {
        let _ = raw::exchange(
            world.plane().proxy(),
            head.as_bytes(),
            Duration::from_millis(500),
        )
        .await;
    }
    world.plane().session_end(&id);
    let _ = guest
        .send(
            Way::TunnelH1,
            &world.get(Way::TunnelH1, "a.test", "/").bearer(&token),
        )
        .await;
    // What is written when something goes wrong, too.
    world.plane().write_config_text(
        "version: 1
no_such_key: 1
",
    );
    world.until_logged("no_such_key").await;
    let gateway = world.plane().gateway();
    let config = gateway.config_file();
    let config = config.to_str().unwrap();
    for arguments in [
        &["session", "list", "--json"][..],
        &["session", "list"],
        &["ca", "show"],
        &["audit", "show"],
        &["check", "--config", config],
        &["explain", "GET", "https://a.test/", "--config", config],
    ] {
        let output = gateway.command(arguments);
        let text = format!("{}{}", output.stdout, output.stderr);
        for secret in [K1, K2, token.as_str()] {
            assert!(!text.contains(secret), "{arguments:?} prints a secret");
        }
    }
    let environment = std::fs::read_to_string(format!("/proc/{}/cmdline", gateway.pid())).unwrap();
    assert!(!environment.contains(K1));
}

async fn answers_name_no_secret_and_no_inner_detail() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        for req in [
            world.get(way, "a.test", "/reset").bearer(&token),
            world
                .get(way, "a.test", &format!("/?t={token}"))
                .bearer(&token),
            world.get(way, "rules.test", "/v2").bearer(&token),
            world.get(way, "x.test", "/").bearer(&token),
        ] {
            let outcome = world.guest().with_proxy_token(&token).send(way, &req).await;
            let answer = outcome.response().expect("an answer");
            let text = format!("{:?} {}", answer.headers, answer.text());
            for secret in [K1, token.as_str(), "127.0.0.1"] {
                assert!(!text.contains(secret), "{way:?} {}: {text}", req.path);
            }
        }
    }
}
