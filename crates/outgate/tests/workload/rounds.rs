//! Preflight and the ways: whatever is open is told, and only two good rounds in a row count.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use outgate_testkit::{CommandOutput, Gateway, free_port};

use super::support::{
    NOTHING, Running, closed_port, echo, file, gateway, json_of, options, preflight, stranger,
    timed, token, ways,
};

#[test]
fn every_kind_of_way_is_found_open() {
    let gateway = gateway();
    let token = token(&gateway);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("tcp://{}", listener.local_addr().unwrap());
    let dns = format!("dns://{}", echo("127.0.0.1:0"));
    let quic = format!("quic://{}", echo("127.0.0.1:0"));
    let closed = format!("tcp://{}", closed_port());
    for open in [&tcp, &dns, &quic] {
        let mut command = preflight(gateway.proxy(), token.path(), "3s");
        command
            .args(NOTHING)
            .args(["--probe", open, "--probe", &closed]);
        let output = CommandOutput::of(&mut command);
        assert_eq!(output.code, Some(1), "{open}: {output:?}");
        assert!(
            output.stderr.contains(&format!("open: {open} (added)")),
            "{output:?}"
        );
        assert!(!output.stderr.contains(&closed), "{output:?}");
        let (code, told) = json_of(&mut command);
        assert_eq!(code, Some(1));
        assert_eq!(ways(&told, "open"), std::slice::from_ref(open));
        assert_eq!(told["tried"], 2);
        assert_eq!(told["gateway"]["code"], "ok");
    }
}

#[test]
fn a_line_for_each_way_that_is_open() {
    let gateway = gateway();
    let token = token(&gateway);
    let open: Vec<_> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let mut command = preflight(gateway.proxy(), token.path(), "3s");
    command.args(NOTHING);
    for listener in &open {
        command.args([
            "--probe",
            &format!("tcp://{}", listener.local_addr().unwrap()),
        ]);
    }
    let output = CommandOutput::of(&mut command);
    assert_eq!(
        output.stderr.matches("open: tcp://").count(),
        3,
        "{output:?}"
    );
    assert_eq!(output.stderr.lines().count(), 3, "{output:?}");
}

/// A preflight that waits 2 s for a way that never answers in every round, so that the test can change the world
/// between two rounds, and what it tells first.
fn slow_rounds(
    gateway: &Gateway,
    token: &std::path::Path,
    way: SocketAddr,
    within: &str,
) -> Running {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    // Stays open, unread, for as long as the test runs.
    std::mem::forget(silent);
    let mut command = preflight(gateway.proxy(), token, within);
    command
        .args(NOTHING)
        .args(["--probe", &format!("tcp://{way}")])
        .args(["--probe", &format!("dns://{silent_at}")]);
    Running::start(&mut command)
}

#[test]
fn a_way_that_opens_between_two_rounds_is_found() {
    let gateway = gateway();
    let token = token(&gateway);
    let way = closed_port();
    let mut running = slow_rounds(&gateway, token.path(), way, "9s");
    let first = running.line();
    assert!(
        first.contains("round 1:") && first.contains("none open"),
        "{first}"
    );
    let listener = TcpListener::bind(way).unwrap();
    let second = running.line();
    assert!(
        second.contains("round 2:") && second.contains("open: tcp://"),
        "{second}"
    );
    let (code, said) = running.end();
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("open: tcp://{way}")), "{said}");
    drop(listener);
}

#[test]
fn after_an_open_way_two_more_good_rounds_are_needed() {
    let gateway = gateway();
    let token = token(&gateway);
    let way = closed_port();
    let mut running = slow_rounds(&gateway, token.path(), way, "60s");
    assert!(running.line().contains("round 1:"));
    let listener = TcpListener::bind(way).unwrap();
    assert!(running.line().contains("round 2:"));
    drop(listener);
    let third = running.line();
    assert!(third.contains("none open"), "{third}");
    // The fourth is like the third, and is not told again.
    assert!(running.line().contains("only way out"));
    assert_eq!(running.end().0, Some(0));
    let asked = gateway.audit_records();
    let asked = asked
        .iter()
        .filter(|it| it.to_string().contains("preflight.invalid"));
    assert!(asked.count() >= 4);
}

#[test]
fn closed_ways_prove_nothing_before_the_gateway_answers() {
    let port = free_port();
    let place = SocketAddr::from(([127, 0, 0, 1], port));
    let mut gateway = Gateway::start(options(port));
    let token = token(&gateway);
    gateway.kill();
    let way = closed_port();
    let mut command = preflight(place, token.path(), "60s");
    let mut running = Running::start(
        command
            .args(NOTHING)
            .args(["--probe", &format!("tcp://{way}")]),
    );
    let first = running.line();
    assert!(
        first.contains("refused") && first.contains("none open"),
        "{first}"
    );
    std::thread::sleep(Duration::from_secs(3));
    // Many rounds without an open way by now. The network comes up, and it is open.
    let listener = TcpListener::bind(way).unwrap();
    assert!(running.line().contains("open: tcp://"));
    gateway.revive();
    let with_gateway = running.line();
    assert!(
        with_gateway.contains("takes the token") && with_gateway.contains("open: "),
        "{with_gateway}"
    );
    drop(listener);
    assert!(running.line().contains("none open"));
    assert!(running.line().contains("only way out"));
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn the_time_is_kept_when_nothing_answers_at_all() {
    let token = file(b"T0KEN");
    let mut command = preflight(stranger(None), token.path(), "3s");
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let dns = format!("dns://{}", silent.local_addr().unwrap());
    let (output, took) = timed(
        command
            .args(NOTHING)
            .args(["--probe", &dns, "--timeout=30s"]),
    );
    assert_eq!(output.code, Some(1));
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_connection_that_the_gateway_captured_is_its_own_if_that_is_said() {
    let gateway = gateway();
    let token = token(&gateway);
    // Stands for a way whose connections are redirected to the gateway.
    let way = format!("tcp://{}", gateway.proxy());
    let code = |more: &[&str]| {
        let mut command = preflight(gateway.proxy(), token.path(), "4s");
        CommandOutput::of(command.args(NOTHING).args(["--probe", &way]).args(more)).code
    };
    assert_eq!(code(&[]), Some(1));
    assert_eq!(code(&["--captured"]), Some(0));
    let elsewhere = format!(
        "tcp://{}",
        stranger(Some("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"))
    );
    assert_eq!(code(&["--captured", "--probe", &elsewhere]), Some(1));
    let silent = format!("tcp://{}", stranger(None));
    let mut command = preflight(gateway.proxy(), token.path(), "8s");
    command
        .args(NOTHING)
        .args(["--captured", "--probe", &silent]);
    let (code, told) = json_of(&mut command);
    assert_eq!((code, ways(&told, "open")), (Some(1), vec![silent]));
}
