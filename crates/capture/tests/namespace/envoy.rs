//! The capture with Envoy as the data plane: what is redirected meets Envoy's listener, which asks the kernel what was
//! dialled. `OUTGATE_ENVOY` names Envoy; without it these tests fail.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    time::Duration,
};

use crate::{
    served::{CREDENTIAL, NOWHERE, TRANSPARENT, World},
    ways::{PORT, answer_everything, connect},
    world::{AGENT, INSIDE, OUTSIDE, addresses},
};

/// Twice what Envoy waits for a head.
const PATIENCE: Duration = Duration::from_secs(20);

/// A pod in which everything is captured.
fn captured() -> World {
    let world = World::on_envoy();
    world.capture();
    world
}

/// What the service was sent: the credential this many times, and the token never.
fn saw(world: &World, count: usize) {
    let seen = world.seen.text();
    let with_credential = format!("x-api-key={CREDENTIAL}");
    assert_eq!(seen.matches(&with_credential).count(), count, "{seen}");
    assert!(!seen.contains(&world.token), "{seen}");
}

#[test]
fn curl_and_python_reach_their_service_and_the_token_is_replaced() {
    let world = captured();
    for address in NOWHERE {
        for output in [
            world.curl("api.test", address, 443),
            world.python("https://api.test/v1", address),
        ] {
            let outcome = (output.code, output.stdout.as_str());
            assert_eq!(outcome, (Some(0), "yes"), "{output:?}");
        }
    }
    world.recorded(4, "transparent", &["api.test", "\"posture\":\"bump\""]);
    world.recorded(4, "bumped", &["api.test", "\"injected\":\"key\""]);
    for inside in INSIDE {
        let client = format!("\"src_endpoint\":{{\"ip\":\"{inside}\"");
        world.recorded(2, "transparent", &[&client]);
        world.recorded(2, "bumped", &[&client]);
    }
    saw(&world, 4);
}

#[test]
fn what_no_rule_names_is_refused_before_the_handshake() {
    let world = captured();
    for address in NOWHERE {
        for output in [
            world.curl("other.test", address, 443),
            // Another port than the rule's; the name's own address is no way around.
            world.curl("api.test", address, 8443),
            world.python("https://other.test/v1", address),
        ] {
            assert_ne!(output.code, Some(0), "{output:?}");
            assert_eq!(output.stdout, "", "{output:?}");
        }
    }
    world.recorded(4, "transparent", &["other.test", "destination_not_allowed"]);
    let other_port = ["api.test", "\"port\":8443", "port_not_allowed"];
    world.recorded(2, "transparent", &other_port);
    assert_eq!(world.seen.text(), "");
}

#[test]
fn what_cannot_be_told_whose_it_is_passes_through_only_where_no_token_is_required() {
    let world = captured();
    for address in NOWHERE {
        let output = world.curl("passing.test", address, 443);
        assert_ne!(output.code, Some(0), "{output:?}");
        // The service's own certificate: nobody is between.
        let resolve = format!("open.test:443:{address}");
        let roots = world.service_ca();
        let words = ["--cacert", roots.to_str().unwrap(), "--resolve", &resolve];
        let output = world.curl_url("https://open.test/v1", &words);
        assert_eq!(output.stdout, "yes", "{output:?}");
    }
    world.recorded(2, "transparent", &["passing.test", "token_missing"]);
    let passed = ["open.test", "\"posture\":\"pass-through\""];
    world.recorded(2, "transparent", &passed);
    saw(&world, 0);
}

#[test]
fn plain_http_is_known_by_its_host_and_told_why_it_is_refused() {
    let world = captured();
    let token = format!("x-api-key: {}", world.token);
    for address in NOWHERE {
        let get = |host: &str| {
            let resolve = format!("{host}:80:{address}");
            let words = ["--include", "--header", &token, "--resolve", &resolve];
            world.curl_url(&format!("http://{host}/v1"), &words)
        };
        let output = get("plain.test");
        assert!(output.stdout.ends_with("yes"), "{output:?}");
        let python = world.python("http://plain.test/v1", address);
        assert_eq!(python.stdout, "yes", "{python:?}");
        for (host, reason) in [
            ("other.test", "destination_not_allowed"),
            ("api.test", "port_not_allowed"),
        ] {
            let output = get(host);
            assert!(output.stdout.starts_with("HTTP/1.1 403"), "{output:?}");
            let reason = format!("x-deny-reason: {reason}\r\n");
            assert!(output.stdout.contains(&reason), "{output:?}");
        }
    }
    world.recorded(4, "transparent-plain", &["\"injected\":\"key\""]);
    world.recorded(2, "transparent-plain", &["destination_not_allowed"]);
    world.recorded(2, "transparent-plain", &["port_not_allowed"]);
    saw(&world, 4);
}

#[test]
fn an_address_without_a_name_is_refused() {
    let world = captured();
    let token = format!("x-api-key: {}", world.token);
    // One that is nobody's, and the service's own.
    for address in NOWHERE.into_iter().chain(["198.51.100.2", "[2001:db8::2]"]) {
        let words = ["--insecure", "--header", &token];
        // To an address curl sends no server name.
        let output = world.curl_url(&format!("https://{address}/v1"), &words);
        assert_ne!(output.code, Some(0), "{output:?}");
        let words = ["--include", "--header", &token];
        let output = world.curl_url(&format!("http://{address}/v1"), &words);
        assert!(output.stdout.starts_with("HTTP/1.1 403"), "{output:?}");
        let reason = "x-deny-reason: ip_literal\r\n";
        assert!(output.stdout.contains(reason), "{output:?}");
    }
    world.recorded(4, "transparent", &["server_name_missing"]);
    world.recorded(4, "transparent-plain", &["ip_literal"]);
    assert_eq!(world.seen.text(), "");
}

/// The port that the kernel tells is the listener's own, and no rule names it.
#[test]
fn who_dials_the_listener_itself_is_refused_with_a_record() {
    let world = World::on_envoy();
    let refused = |address: &str| {
        let output = world.curl("api.test", address, TRANSPARENT);
        assert_ne!(output.code, Some(0), "{output:?}");
    };
    let texts = ["port_not_allowed", "\"port\":15001"];
    // Before any rule is there, and after.
    refused("127.0.0.1");
    world.recorded(1, "transparent", &texts);
    world.capture();
    refused("127.0.0.1");
    refused("[::1]");
    world.recorded(3, "transparent", &texts);
    assert_eq!(world.seen.text(), "");
}

/// Envoy's listener knows no destination by its address alone: what says no name goes nowhere.
#[test]
fn an_opaque_destination_is_not_reached_by_its_address() {
    let world = captured();
    answer_everything(&world.outside);
    let silent = addresses(OUTSIDE).map(|to| {
        let to = SocketAddr::new(to, PORT);
        world.pod.run_as(AGENT, move || connect(to)).unwrap()
    });
    for to in addresses(OUTSIDE) {
        let answer = world.pod.run_as(AGENT, move || {
            let mut stream = connect(SocketAddr::new(to, PORT)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"hello\r\n\r\n").unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            String::from_utf8_lossy(&answer).into_owned()
        });
        assert_eq!(answer, "HTTP/1.1 400", "{to}");
    }
    world.recorded(2, "transparent-plain", &["malformed_request"]);
    // Who waits for the other end to speak first is closed when a head would have had to be there.
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let heard = stream.read(&mut [0; 1]);
        let is_open = matches!(&heard, Err(error) if error.kind() == ErrorKind::WouldBlock);
        assert!(!is_open && !matches!(heard, Ok(1..)), "{heard:?}");
    }
    assert!(world.records("transparent", &[]).is_empty());
    // By its name it is reached: what comes back is what was sent, which is no TLS server's answer.
    for address in OUTSIDE {
        let output = world.curl("speaks.test", address, PORT);
        assert_eq!(output.code, Some(35), "{output:?}");
    }
    let carried = ["speaks.test", "\"posture\":\"pass-through\""];
    world.recorded(2, "transparent", &carried);
}
