//! `listen.metrics`: what it says, what it does not say, and whom it is not for.

use std::time::Duration;

use outgate_testkit::{
    Gateway, GatewayOptions, Guest, Req, Way, certs::roots_from_pem, free_port, raw,
};
use serde_json::json;

use super::support::Upstreams;

async fn page(port: u16) -> String {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    let to = ([127, 0, 0, 1], port).into();
    let answer = raw::exchange(to, request.as_bytes(), Duration::from_secs(5)).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 200);
    answer.text()
}

fn value(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {page}"));
    line.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_counted_and_who_it_was_is_not_told() {
    let upstreams = Upstreams::new().await;
    let port = free_port();
    let mut config = upstreams.config("127.0.0.1:0");
    config["listen"]["metrics"] = json!(format!("127.0.0.1:{port}"));
    let gateway = Gateway::start(GatewayOptions::new(config).log("info"));
    assert_eq!(
        gateway.ready()["metrics"],
        json!([format!("http://127.0.0.1:{port}/metrics")])
    );
    let before = page(port).await;
    let allowed = r#"outgate_requests_total{asked="request",verdict="allowed",code=""}"#;
    let denied = r#"outgate_requests_total{asked="request",verdict="denied",code="destination_not_allowed"}"#;
    assert_eq!(
        (value(&before, allowed), value(&before, denied)),
        (0.0, 0.0)
    );
    assert_eq!(value(&before, "outgate_ready "), 1.0);

    let (id, token) = gateway.session_create();
    let roots = [gateway.ca_pem().unwrap(), upstreams.ca.pem().to_owned()];
    let guest = Guest::new(
        gateway.proxy(),
        roots_from_pem(roots.iter().map(String::as_str)),
    );
    let plain = Req::get("a.test", upstreams.plain.port(), "/secret-path").bearer(&token);
    let tls = Req::get("a.test", upstreams.tls.port(), "/").bearer(&token);
    assert_eq!(
        guest
            .send(Way::AbsoluteForm, &plain)
            .await
            .answered()
            .status,
        200
    );
    assert_eq!(guest.send(Way::TunnelH2, &tls).await.answered().status, 200);
    let other = Req::get("other.test", 80, "/");
    let refused = guest.send(Way::AbsoluteForm, &other).await;
    assert_eq!(refused.reason(), Some("destination_not_allowed"));

    // Records are written when connections have ended, which takes a moment.
    let mut after = page(port).await;
    for _ in 0..100 {
        if value(&after, allowed) >= 2.0 && value(&after, denied) >= 1.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        after = page(port).await;
    }
    assert_eq!((value(&after, allowed), value(&after, denied)), (2.0, 1.0));
    assert_eq!(value(&after, "outgate_leaves_minted_total "), 1.0);
    assert_eq!(value(&after, "outgate_sessions_live "), 1.0);
    assert_eq!(value(&after, "outgate_denylist_entries "), 0.0);
    assert!(value(&after, r#"outgate_bytes_total{direction="out"}"#) > 0.0);
    assert!(value(&after, "outgate_audit_records_total ") >= 3.0);
    assert!(value(&after, "outgate_ca_not_after_timestamp_seconds ") > 1e9);
    for secret in [
        "a.test",
        "other.test",
        "secret-path",
        "127.0.0.1",
        &id,
        &token,
    ] {
        assert!(!after.contains(secret), "{secret}: {after}");
    }
    // As many lines, whatever guests do.
    assert_eq!(before.lines().count(), after.lines().count());

    let mut broken = gateway.config().clone();
    broken["destinations"] = json!("none");
    gateway.write_config_text(&broken.to_string());
    gateway.hang_up();
    for _ in 0..100 {
        if value(&page(port).await, "outgate_policy_refused_total ") >= 1.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let last = page(port).await;
    assert_eq!(value(&last, "outgate_policy_last_reload_successful "), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_guest_is_let_through_to_it() {
    let upstreams = Upstreams::new().await;
    let port = free_port();
    let mut config = upstreams.config("127.0.0.1:0");
    config["listen"]["metrics"] = json!(format!("0.0.0.0:{port}"));
    config["destinations"][0]["ports"] = json!([port, upstreams.plain.port()]);
    let gateway = Gateway::start(GatewayOptions::new(config).log("info"));
    let guest = Guest::new(
        gateway.proxy(),
        roots_from_pem([upstreams.ca.pem()].into_iter()),
    );
    let req = |port| Req::get("a.test", port, "/metrics");
    let other = guest
        .send(Way::AbsoluteForm, &req(upstreams.plain.port()))
        .await;
    assert_eq!(other.answered().status, 200);
    let refused = guest.send(Way::AbsoluteForm, &req(port)).await;
    assert_eq!(refused.reason(), Some("address_denied"), "{refused:?}");
}
