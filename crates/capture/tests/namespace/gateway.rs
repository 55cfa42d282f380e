//! The capture with the gateway's own data plane: curl as an agent that knows of no proxy.

use std::{
    io::{Read, Write},
    net::SocketAddr,
};

use crate::{
    served::{CREDENTIAL, NOWHERE, TRANSPARENT, World, as_user},
    ways::{PORT, answer_everything, connect},
    world::{AGENT, INSIDE, OUTSIDE, addresses},
};

#[test]
fn curl_without_proxy_variables_reaches_its_service_and_the_token_is_replaced() {
    let world = World::native();
    world.capture();
    for address in NOWHERE {
        let output = world.curl("api.test", address, 443);
        let outcome = (output.code, output.stdout.as_str());
        assert_eq!(outcome, (Some(0), "yes"), "{output:?}");
    }
    world.recorded(2, "transparent", &["api.test", "\"posture\":\"bump\""]);
    world.recorded(2, "bumped", &["api.test", "\"injected\":\"key\""]);
    let seen = world.seen.text();
    let with_credential = format!("x-api-key={CREDENTIAL}");
    assert_eq!(seen.matches(&with_credential).count(), 2, "{seen}");
    assert!(!seen.contains(&world.token), "{seen}");
}

#[test]
fn what_cannot_be_told_whose_it_is_does_not_pass_through() {
    let world = World::native();
    world.capture();
    for address in NOWHERE {
        for host in ["passing.test", "other.test"] {
            let output = world.curl(host, address, 443);
            assert_ne!(output.code, Some(0), "{output:?}");
        }
    }
    world.recorded(2, "transparent", &["passing.test", "token_missing"]);
    world.recorded(2, "transparent", &["other.test", "destination_not_allowed"]);
}

#[test]
fn who_dials_the_listener_itself_is_refused_with_a_record() {
    let world = World::native();
    let refused = |address: &str| {
        let output = world.curl("api.test", address, TRANSPARENT);
        assert_ne!(output.code, Some(0), "{output:?}");
    };
    let texts = ["address_denied", "dialled itself", "\"port\":15001"];
    // Before any rule is there, and after.
    refused("127.0.0.1");
    world.recorded(1, "transparent", &texts);
    world.capture();
    refused("127.0.0.1");
    refused("[::1]");
    world.recorded(3, "transparent", &texts);
    assert_eq!(world.seen.text(), "");
}

#[test]
fn an_opaque_destination_is_known_by_the_address_that_was_dialled() {
    let world = World::native();
    answer_everything(&world.outside);
    world.capture();
    let echoes = |to: SocketAddr| {
        world.pod.run_as(AGENT, move || {
            let mut stream = connect(to).unwrap();
            let mut back = [0; 5];
            stream.write_all(b"hello").unwrap();
            stream.read_exact(&mut back).is_ok()
        })
    };
    for to in addresses(OUTSIDE) {
        assert!(echoes(SocketAddr::new(to, PORT)), "{to}");
    }
    world.recorded(
        2,
        "transparent",
        &["speaks.test", "\"posture\":\"pass-through\""],
    );
    for to in addresses(["192.0.2.1", "2001:db8:1::1"]) {
        assert!(!echoes(SocketAddr::new(to, PORT)), "{to}");
    }
    world.recorded(2, "transparent", &["\"posture\":\"pass-through\""]);
}

/// The gateway's own listeners are on loopback, which the rules leave alone: as a proxy it serves as before.
#[test]
fn the_proxy_serves_beside_the_capture() {
    let world = World::native();
    world.capture();
    let mut command = as_user(AGENT);
    command.args([
        "curl",
        "--silent",
        "--max-time",
        "10",
        "--proxy",
        "http://127.0.0.1:18080",
    ]);
    command.args(["--output", "/dev/null", "--write-out", "%{http_connect}"]);
    command.arg("https://other.test/").env_clear();
    let output = world.run(command);
    assert_eq!(output.stdout, "403", "{output:?}");
    // And from outside the pod nobody reaches it.
    let from_outside = addresses(INSIDE).map(|to| {
        let at = SocketAddr::new(to, 18080);
        world.outside.run(move || connect(at).is_some())
    });
    assert_eq!(from_outside, [false; 2]);
}
