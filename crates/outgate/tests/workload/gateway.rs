//! Preflight and the gateway: only its own refusal is a proof, and whatever else is there is named.

use std::{os::unix::fs::symlink, time::Duration};

use outgate_testkit::{CommandOutput, process::signal_to};
use rustix::process::Signal;

use super::support::{
    NOTHING, Running, closed_port, file, gateway, json_of, preflight, stranger, timed, token,
};

/// How it ends with this gateway and token, and the code that it tells.
fn told(gateway: std::net::SocketAddr, token: &std::path::Path, within: &str) -> (i32, String) {
    let closed = format!("tcp://{}", closed_port());
    let mut command = preflight(gateway, token, within);
    let (code, told) = json_of(command.args(NOTHING).args(["--probe", &closed]));
    assert_eq!(told["ok"], code == Some(0));
    assert_eq!(told["open"].as_array().unwrap().len(), 0, "{told}");
    let reason = told["gateway"]["code"].as_str().unwrap_or("nothing");
    (code.unwrap(), reason.to_owned())
}

#[test]
fn a_gateway_that_takes_the_token_and_no_open_way_is_a_start() {
    let gateway = gateway();
    let token = token(&gateway);
    let closed = format!("tcp://{}", closed_port());
    let mut command = preflight(gateway.proxy(), token.path(), "30s");
    let (output, took) = timed(command.args(NOTHING).args(["--probe", &closed]));
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert!(output.stdout.contains("the only way out"), "{output:?}");
    assert!(took >= Duration::from_secs(1), "two rounds: {took:?}");
    // What it was asked is on record, as any refusal.
    let records = gateway.audit_records();
    let asked = |it: &&serde_json::Value| it.to_string().contains("preflight.invalid");
    assert_eq!(records.iter().filter(asked).count(), 2);
    assert_eq!(told(gateway.proxy(), token.path(), "30s"), (0, "ok".into()));
}

#[test]
fn a_refused_token_is_named() {
    let gateway = gateway();
    let bad = file(b"not.a.token");
    assert_eq!(
        told(gateway.proxy(), bad.path(), "3s"),
        (1, "token_invalid".into())
    );
    let (id, ended) = gateway.session_create();
    gateway.session_end(&id);
    let ended = file(ended.as_bytes());
    assert_eq!(
        told(gateway.proxy(), ended.path(), "3s"),
        (1, "session_revoked".into())
    );
    let mut command = preflight(gateway.proxy(), ended.path(), "3s");
    let output = CommandOutput::of(command.args(NOTHING).args(["--probe", "tcp://127.0.0.1:9"]));
    assert!(output.stderr.contains("session_revoked"), "{output:?}");
}

#[test]
fn an_expired_token_is_told_from_a_wrong_one() {
    let gateway = gateway();
    let (_, short) = gateway.session_create_with(&["--ttl", "1s"]);
    let short = file(short.as_bytes());
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(
        told(gateway.proxy(), short.path(), "3s"),
        (1, "token_expired".into())
    );
}

#[test]
fn a_token_that_cannot_be_read_is_named_and_its_content_is_not() {
    let gateway = gateway();
    let missing = std::path::Path::new("/nowhere/token");
    assert_eq!(
        told(gateway.proxy(), missing, "3s"),
        (1, "token_unreadable".into())
    );
    let odd = file(b"hush-hush two");
    let mut command = preflight(gateway.proxy(), odd.path(), "3s");
    let output = CommandOutput::of(command.args(NOTHING).args(["--probe", "tcp://127.0.0.1:9"]));
    assert_eq!(output.code, Some(1));
    assert!(
        !output.stderr.contains("hush") && !output.stdout.contains("hush"),
        "{output:?}"
    );
    assert!(
        output.stderr.contains(odd.path().to_str().unwrap()),
        "{output:?}"
    );
}

#[test]
fn what_answers_in_the_gateways_place_is_no_gateway() {
    let token = file(b"T0KEN");
    for (words, code) in [
        (
            "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
            "not_outgate",
        ),
        (
            "HTTP/1.1 403 Forbidden\r\nx-deny-reason: because\r\ncontent-length: 0\r\n\r\n",
            "not_outgate",
        ),
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n",
            "not_outgate",
        ),
        (
            "HTTP/1.1 200 Connection established\r\n\r\n",
            "tunnel_opened",
        ),
        ("SSH-2.0-OpenSSH_9.6\r\n", "not_http"),
        ("", "not_http"),
    ] {
        let place = stranger(Some(words));
        assert_eq!(told(place, token.path(), "3s"), (1, code.into()), "{words}");
    }
    assert_eq!(
        told(closed_port(), token.path(), "3s"),
        (1, "refused".into())
    );
}

#[test]
fn a_gateway_that_says_nothing_is_not_waited_for_beyond_the_time() {
    let token = file(b"T0KEN");
    let mut command = preflight(stranger(None), token.path(), "3s");
    let (output, took) = timed(command.args(NOTHING).args(["--probe", "tcp://127.0.0.1:9"]));
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("--within"), "{output:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(
        told(stranger(None), token.path(), "8s"),
        (1, "silent".into())
    );
}

#[test]
fn a_token_that_comes_later_is_read_then() {
    let gateway = gateway();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("token");
    let closed = format!("tcp://{}", closed_port());
    let mut command = preflight(gateway.proxy(), &place, "30s");
    let mut running = Running::start(command.args(NOTHING).args(["--probe", &closed]));
    let first = running.line();
    assert!(first.contains("not asked"), "{first}");
    // As kubelet does: a link to what is there.
    let real = token(&gateway);
    symlink(real.path(), &place).unwrap();
    assert!(running.line().contains("takes the token"));
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn a_signal_ends_it_without_a_proof() {
    let token = file(b"T0KEN");
    let mut command = preflight(closed_port(), token.path(), "60s");
    let mut running = Running::start(command.args(NOTHING).args(["--probe", "tcp://127.0.0.1:9"]));
    let _ = running.line();
    signal_to(running.id(), Signal::TERM);
    let (code, said) = running.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("stopped"), "{said}");
}

#[test]
fn arguments_that_prove_nothing_are_refused() {
    let token = file(b"T0KEN");
    let output = |more: &[&str]| {
        CommandOutput::of(preflight(closed_port(), token.path(), "3s").args(more)).code
    };
    assert_eq!(output(&NOTHING), Some(1));
    assert_eq!(output(&["--timeout=0s"]), Some(1));
    assert_eq!(output(&["--probe", "tcp://example.org:443"]), Some(2));
    assert_eq!(output(&["--probe", "cluster=none"]), Some(2));
    assert_eq!(output(&["--gateway=$(OUTGATE_SERVICE_HOST):8080"]), Some(2));
}
