//! `outgate health`, from before the start to after the end.

use std::time::Duration;

use outgate_testkit::{
    Gateway, GatewayOptions, Guest, Req, Way, certs::roots_from_pem, eventually,
};

use super::support::{Upstreams, health, until};

fn is_one_line(text: &str) -> bool {
    text.ends_with('\n') && text.matches('\n').count() == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_ready_from_its_listeners_to_the_signal_and_answers_to_its_end() {
    let upstreams = Upstreams::new().await;
    let nowhere = tempfile::tempdir().unwrap();
    for arguments in [&[][..], &["--ready"]] {
        let before = health(nowhere.path(), arguments);
        assert_eq!(before.code, Some(1));
        assert!(is_one_line(&before.stderr), "{before:?}");
        assert!(before.stderr.starts_with("not_running: "), "{before:?}");
    }

    let options = GatewayOptions::new(upstreams.config("127.0.0.1:0"));
    let mut gateway = Gateway::start(options.log("info"));
    let state = gateway.state();
    let records = gateway.audit_records().len();
    for (arguments, says) in [(&[][..], "ok\n"), (&["--ready"], "ready\n")] {
        let output = health(&state, arguments);
        assert_eq!((output.code, &*output.stderr), (Some(0), says));
        assert_eq!(output.stdout, "");
    }
    let json = health(&state, &["--ready", "--json"]);
    assert_eq!(
        json.stdout,
        "{\"code\":\"ready\",\"detail\":\"\",\"ok\":true}\n"
    );

    let guest = Guest::new(
        gateway.proxy(),
        roots_from_pem([upstreams.ca.pem()].into_iter()),
    );
    let req = Req::get("a.test", upstreams.plain.port(), "/sse?n=60&every_ms=50");
    let mut channel = guest.open(Way::AbsoluteForm, &req).await.unwrap();
    let mut stream = channel.start(&req).await.unwrap();
    stream.next().await.unwrap().unwrap();
    gateway.begin_stop();
    // The signal is on its way for a moment; from then on there is no other answer.
    until(&state, &["--ready"], 1, "not_ready: stopping");
    for _ in 0..5 {
        let ready = health(&state, &["--ready"]);
        assert_eq!(
            (ready.code, &*ready.stderr),
            (Some(1), "not_ready: stopping\n")
        );
        assert_eq!(health(&state, &[]).code, Some(0));
        stream.next().await.unwrap().unwrap();
    }
    let closed = eventually(Duration::from_secs(2), || {
        std::net::TcpStream::connect(gateway.proxy()).err()
    });
    let closed = closed.await.expect("the listener closes");
    assert_eq!(closed.kind(), std::io::ErrorKind::ConnectionRefused);
    let rest = stream.finish().await;
    assert!(rest.complete && rest.text().ends_with("data: 59\n\n"));
    assert_eq!(gateway.wait(Duration::from_secs(15)).code(), Some(0));
    for arguments in [&[][..], &["--ready"]] {
        assert_eq!(health(&state, arguments).code, Some(1));
    }
    // The stream alone left a record.
    assert_eq!(gateway.audit_records().len(), records + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_cannot_record_answers_and_is_not_ready() {
    let upstreams = Upstreams::new().await;
    let options = GatewayOptions::new(upstreams.config("127.0.0.1:0"));
    let gateway = Gateway::start(options.log("info"));
    let state = gateway.state();
    assert_eq!(health(&state, &["--ready"]).code, Some(0));
    gateway.limit_file_size(Some(1));
    let guest = Guest::new(
        gateway.proxy(),
        roots_from_pem([upstreams.ca.pem()].into_iter()),
    );
    let req = Req::get("a.test", upstreams.plain.port(), "/");
    let _ = guest.send(Way::AbsoluteForm, &req).await;
    until(&state, &["--ready"], 1, "not_ready: audit_unavailable");
    assert_eq!(health(&state, &[]).code, Some(0));
    gateway.limit_file_size(None);
    until(&state, &["--ready"], 0, "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_hangs_is_found_out_within_two_seconds() {
    let upstreams = Upstreams::new().await;
    let options = GatewayOptions::new(upstreams.config("127.0.0.1:0"));
    let gateway = Gateway::start(options.log("info"));
    gateway.pause();
    let begin = std::time::Instant::now();
    let output = health(&gateway.state(), &[]);
    let took = begin.elapsed();
    gateway.go_on();
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.starts_with("no_answer: "), "{output:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}
