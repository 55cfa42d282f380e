//! Whom an exporter talks to, what it proves, and what it keeps to itself.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test helper fails loudly"
)]

mod common;

use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use common::{Got, MemoryTrail, OK, Place, Receiver, Reply, acknowledged, failed, range, until};
use http::header::AUTHORIZATION;
use outgate_export::Target;
use outgate_journey::policy::CredentialSource;
use outgate_testkit::{CertificateKind, TestCa};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_a_receiver_that_does_not_prove_its_name() {
    for (index, kind) in [
        CertificateKind::SelfSigned,
        CertificateKind::WrongName,
        CertificateKind::Expired,
        CertificateKind::NotYetValid,
        CertificateKind::UnknownCa,
    ]
    .into_iter()
    .enumerate()
    {
        let place = Place::new(&format!("certificate-{index}"));
        let mut receiver = Receiver::presenting(kind, |_| OK).await;
        let exporter = place.start(&place.otlp(&receiver), &MemoryTrail::new(2));
        failed(&exporter, "export_tls").await;
        assert!(receiver.got().is_empty(), "{kind:?}");
        receiver.close().await;
        receiver.open(CertificateKind::Good).await;
        acknowledged(&exporter, 1).await;
        assert_eq!(receiver.seqs(), range(0, 2), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_file_of_roots_counts_without_a_restart() {
    let place = Place::new("roots");
    let receiver = Receiver::start(|_| OK).await;
    let stranger = TestCa::new("stranger");
    let config = place.config(&receiver.url("/v1/logs"), &stranger, Target::Otlp);
    let exporter = place.start(&config, &MemoryTrail::new(1));
    failed(&exporter, "export_tls").await;
    place.write("ca.pem", "this is no certificate");
    failed(&exporter, "export_secret").await;
    place.write("ca.pem", receiver.ca().pem());
    acknowledged(&exporter, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let place = Place::new("redirect");
    let other = Receiver::start(|_| OK).await;
    let location: &'static str = Box::leak(other.url("/v1/logs").into_boxed_str());
    for status in [301, 302, 303, 307, 308] {
        let headers: &'static [_] = Box::leak(Box::new([("location", location)]));
        let receiver = Receiver::start(move |_| Reply::With(status, headers, "")).await;
        let exporter = place.start(&place.otlp(&receiver), &MemoryTrail::new(1));
        failed(&exporter, "export_redirected").await;
        until(&exporter, "several attempts", |_| receiver.got().len() >= 2).await;
        assert_eq!(exporter.status().acknowledged_seq, None);
        exporter.stopped().await;
    }
    assert!(other.got().is_empty());
}

fn verified(got: &Got, key: &[u8]) -> bool {
    let (id, at) = (got.header("webhook-id"), got.header("webhook-timestamp"));
    let mut signed = format!("{id}.{at}.").into_bytes();
    signed.extend_from_slice(&got.body);
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    got.header("webhook-signature").split(' ').any(|signature| {
        let signature = STANDARD
            .decode(signature.strip_prefix("v1,").unwrap())
            .unwrap();
        hmac::verify(&key, &signed, &signature).is_ok()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_signed_and_keeps_its_id_over_attempts() {
    let place = Place::new("signed");
    let mut attempts = 0;
    let receiver = Receiver::start(move |_| {
        attempts += 1;
        if attempts < 3 {
            Reply::Status(502, "")
        } else {
            Reply::Status(204, "")
        }
    })
    .await;
    let key = [9; 32];
    let config = place.webhook(&receiver, &format!("whsec_{}\n", STANDARD.encode(key)));
    let exporter = place.start(&config, &MemoryTrail::new(3));
    acknowledged(&exporter, 2).await;
    let got = receiver.got();
    assert_eq!(got.len(), 3);
    for attempt in &got {
        assert!(verified(attempt, &key) && !verified(attempt, &[8; 32]));
        assert_eq!(
            attempt.header("webhook-id"),
            format!("{}-0-2", common::LOG_ID)
        );
        assert_eq!(attempt.header("content-type"), "application/json");
        assert_eq!(attempt.body, got[0].body);
        #[expect(clippy::disallowed_methods, reason = "what a receiver compares with")]
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let at: u64 = attempt.header("webhook-timestamp").parse().unwrap();
        assert!(now.abs_diff(at) <= 10, "{at}");
    }
    let json = got[0].json();
    assert_eq!(json["log_id"], common::LOG_ID);
    assert_eq!(
        (&json["first_seq"], &json["last_seq"]),
        (&0.into(), &2.into())
    );
    let records = json["records"].as_array().unwrap();
    assert_eq!(
        records[2],
        serde_json::from_str::<serde_json::Value>(&common::line(2, "")).unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_without_a_gap() {
    let place = Place::new("keys");
    let receiver = Receiver::start(|_| OK).await;
    let (old, new) = ("old-".repeat(8), "new-".repeat(8));
    let trail = MemoryTrail::new(1);
    let exporter = place.start(&place.webhook(&receiver, &old), &trail);
    acknowledged(&exporter, 0).await;
    for (seq, content) in [(1, format!("{new}\n{old}\n")), (2, new.clone())] {
        place.write("key", &content);
        trail.append(1);
        acknowledged(&exporter, seq).await;
    }
    let verdicts: Vec<_> = receiver
        .got()
        .iter()
        .map(|got| (verified(got, old.as_bytes()), verified(got, new.as_bytes())))
        .collect();
    assert_eq!(verdicts, [(true, false), (true, true), (false, true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_token_is_used_at_once() {
    let place = Place::new("renewed");
    let receiver = Receiver::start(|got| match got.header("authorization") {
        "Bearer renewed-good" => OK,
        _ => Reply::Status(401, r#"{"message":"what is renewed-old ?"}"#),
    })
    .await;
    let mut config = place.otlp(&receiver);
    config.tuning.slow_retry = Duration::from_secs(3600);
    let token = place.write("token", "Bearer renewed-old");
    config.headers = vec![(AUTHORIZATION, CredentialSource::File(token))];
    let exporter = place.start(&config, &MemoryTrail::new(1));
    let status = failed(&exporter, "export_unauthorized").await;
    let detail = status.last_error.unwrap().detail;
    assert_eq!(
        detail,
        "localhost answered 401: (its words repeat a secret)"
    );
    let begin = Instant::now();
    place.write("token", "Bearer renewed-good");
    acknowledged(&exporter, 0).await;
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(receiver.got().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_secret_nothing_is_sent() {
    let place = Place::new("no-secret");
    let receiver = Receiver::start(|_| OK).await;
    let config = place.webhook(&receiver, "too short");
    let exporter = place.start(&config, &MemoryTrail::new(1));
    failed(&exporter, "export_secret").await;
    std::fs::remove_file(place.path("key")).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(receiver.got().is_empty());
    place.write("key", &"k".repeat(24));
    acknowledged(&exporter, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_logged() {
    let place = Place::new("secretive");
    let (token, key) = (
        "secretive-hunter2-token",
        "secretive-hunter2-key-of-24-bytes",
    );
    let receiver = Receiver::start(|got| match got.headers.contains_key("webhook-id") {
        true => Reply::Status(400, r#"{"message":"secretive-hunter2-token"}"#),
        false => OK,
    })
    .await;
    let mut config = place.webhook(&receiver, key);
    config.url =
        outgate_https::Url::parse(&receiver.url("/hook?secretive-hunter2-query=1")).unwrap();
    let file = place.write("token", token);
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    config.headers = vec![(AUTHORIZATION, CredentialSource::File(file))];
    let exporter = place.start(&config, &MemoryTrail::new(1));
    failed(&exporter, "export_refused").await;
    place.write("key", "secretive-hunter2");
    failed(&exporter, "export_secret").await;
    place.write("key", key);
    place.write("token", "secretive-hunter2\nsecretive-hunter2");
    until(&exporter, "the token is refused", |status| {
        status
            .last_error
            .as_ref()
            .is_some_and(|error| error.detail.contains("authorization"))
    })
    .await;
    let status = format!("{:?}", exporter.status());
    exporter.stopped().await;
    let log = place.log();
    assert!(
        log.contains("export_refused") && log.contains("export_secret_exposed"),
        "{log}"
    );
    let everything = common::whole_log();
    let debug = format!("{config:?}");
    for text in [&everything, &status, &debug] {
        assert!(!text.contains("secretive-hunter2"), "{text}");
    }
}
