//! Every record arrives: through outages, restarts, slow and refusing receivers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test helper fails loudly"
)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{MemoryTrail, OK, Place, Receiver, Reply, acknowledged, failed, range, read, until};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use outgate_export::Target;
use outgate_journey::policy::CredentialSource;
use outgate_testkit::CertificateKind;

#[tokio::test(flavor = "multi_thread")]
async fn records_reach_a_collector_with_the_operators_headers_and_are_acknowledged() {
    let place = Place::new("reach");
    let receiver = Receiver::start(|_| OK).await;
    let mut config = place.otlp(&receiver);
    let token = place.write("token", "Bearer reach-hunter2\n");
    config.headers = vec![
        (AUTHORIZATION, CredentialSource::File(token)),
        // The protocol's own fields are not for the configuration to change.
        (
            CONTENT_TYPE,
            CredentialSource::File(place.write("type", "text/plain")),
        ),
    ];
    let trail = MemoryTrail::new(3);
    let exporter = place.start(&config, &trail);
    let status = acknowledged(&exporter, 2).await;
    assert!(status.last_error.is_none() && status.last_success.is_some() && !status.behind);
    trail.append(2);
    let status = acknowledged(&exporter, 4).await;
    assert_eq!((status.pending, status.rejected, status.missing), (0, 0, 0));
    assert_eq!(receiver.seqs(), range(0, 5), "in order, once");
    for got in receiver.got() {
        assert_eq!(got.path, "/v1/logs");
        assert_eq!(got.header("content-type"), "application/json");
        assert_eq!(got.headers.get_all("content-type").iter().count(), 1);
        assert_eq!(got.header("authorization"), "Bearer reach-hunter2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_everything_is_sent_in_order() {
    let place = Place::new("outage");
    let mut receiver = Receiver::start(|_| OK).await;
    let trail = MemoryTrail::new(2);
    let exporter = place.start(&place.otlp(&receiver), &trail);
    acknowledged(&exporter, 1).await;
    receiver.close().await;
    trail.append(2000);
    let status = failed(&exporter, "export_unreachable").await;
    assert_eq!(status.acknowledged_seq, Some(1));
    until(&exporter, "it is behind", |status| {
        status.behind && status.pending == 2000
    })
    .await;
    receiver.open(CertificateKind::Good).await;
    acknowledged(&exporter, 2001).await;
    until(&exporter, "it keeps up", |status| {
        !status.behind && status.pending == 0
    })
    .await;
    assert_eq!(receiver.seqs(), range(0, 2002));
    let log = place.log();
    for (code, times) in [
        ("export_unreachable", 1),
        ("export_behind", 1),
        ("export_resumed", 1),
        ("export_caught_up", 1),
    ] {
        assert_eq!(
            log.matches(&format!("\"{code}\"")).count(),
            times,
            "{code}: {log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_it_goes_on_where_it_was() {
    let place = Place::new("restart");
    let receiver = Receiver::start(|_| OK).await;
    let trail = MemoryTrail::new(0);
    for round in 1..=5 {
        let exporter = place.start(&place.otlp(&receiver), &trail);
        trail.append(20);
        acknowledged(&exporter, round * 20 - 1).await;
        exporter.stopped().await;
    }
    assert_eq!(receiver.seqs(), range(0, 100), "no gap, and nothing twice");
    let mode = std::fs::metadata(place.cursor()).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o7777,
        0o600
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_is_sent_again_after_a_restart() {
    let place = Place::new("unacknowledged");
    let receiver = Receiver::start(|_| Reply::Vanish).await;
    let trail = MemoryTrail::new(7);
    let exporter = place.start(&place.webhook(&receiver, &"k".repeat(32)), &trail);
    failed(&exporter, "export_unreachable").await;
    exporter.stopped().await;
    let before = receiver.got();
    assert_eq!(before[0].seqs(), range(0, 7));
    assert_eq!(
        exporter_cursor(&place)["acknowledged"],
        serde_json::Value::Null
    );
    // More has come in the meantime; the batch that may have arrived keeps its id all the same.
    trail.append(5);
    receiver.script(|_| OK);
    let exporter = place.start(&place.webhook(&receiver, &"k".repeat(32)), &trail);
    acknowledged(&exporter, 11).await;
    let after = &receiver.got()[before.len()..];
    assert_eq!(after[0].seqs(), range(0, 7));
    assert_eq!(
        after[0].header("webhook-id"),
        before[0].header("webhook-id")
    );
    assert_eq!(after[0].body, before[0].body);
    assert_eq!(after[1].seqs(), range(7, 12));
    assert_ne!(
        after[1].header("webhook-id"),
        before[0].header("webhook-id")
    );
}

fn exporter_cursor(place: &Place) -> serde_json::Value {
    serde_json::from_str(&read(&place.cursor())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_does_not_answer_is_given_up_on_and_tried_again() {
    let place = Place::new("slow");
    let hung = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hung);
    let receiver = Receiver::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0..2 => Reply::Hang,
        _ => OK,
    })
    .await;
    let exporter = place.start(&place.otlp(&receiver), &MemoryTrail::new(3));
    failed(&exporter, "export_timeout").await;
    acknowledged(&exporter, 2).await;
    assert_eq!(receiver.seqs(), [0, 1, 2].repeat(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_sends_what_is_pending() {
    let place = Place::new("stop-sends");
    let receiver = Receiver::start(|_| Reply::Status(503, "")).await;
    let trail = MemoryTrail::new(4);
    let mut config = place.otlp(&receiver);
    config.tuning.first_retry = Duration::from_secs(60);
    config.tuning.longest_retry = Duration::from_secs(60);
    let exporter = place.start(&config, &trail);
    failed(&exporter, "export_unavailable").await;
    receiver.script(|_| OK);
    let begin = Instant::now();
    exporter.stopped().await;
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(exporter_cursor(&place)["acknowledged"]["seq"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_bounded_and_says_what_is_left() {
    for (name, reply) in [
        ("stop-hang", Reply::Hang),
        ("stop-down", Reply::Status(503, "")),
        (
            "stop-throttled",
            Reply::With(429, &[("retry-after", "3600")], ""),
        ),
        ("stop-refused", Reply::Status(401, "")),
    ] {
        let place = Place::new(name);
        let receiver = Receiver::start(move |_| reply.clone()).await;
        let mut config = place.otlp(&receiver);
        config.tuning.timeout = Duration::from_secs(30);
        config.tuning.stop_within = Duration::from_millis(300);
        let exporter = place.start(&config, &MemoryTrail::new(4));
        until(&exporter, "a first request", |_| !receiver.got().is_empty()).await;
        let begin = Instant::now();
        exporter.stopped().await;
        let took = begin.elapsed();
        assert!(took < Duration::from_millis(750), "{name}: {took:?}");
        assert!(!place.cursor().exists(), "{name}");
        let log = place.log();
        assert!(
            log.contains("export_pending_at_stop") && log.contains("\"pending\":4"),
            "{log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_says_when_is_not_asked_before() {
    let place = Place::new("throttled");
    let first = AtomicBool::new(true);
    let receiver = Receiver::start(move |_| match first.swap(false, Ordering::SeqCst) {
        true => Reply::With(429, &[("retry-after", "1")], r#"{"message":"slow down"}"#),
        false => OK,
    })
    .await;
    let exporter = place.start(&place.otlp(&receiver), &MemoryTrail::new(1));
    let status = failed(&exporter, "export_throttled").await;
    let detail = status.last_error.unwrap().detail;
    assert_eq!(detail, "localhost answered 429: slow down");
    acknowledged(&exporter, 0).await;
    let got = receiver.got();
    assert_eq!(got.len(), 2);
    let waited = got[1].at.duration_since(got[0].at);
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_collector_rejects_are_counted_and_not_sent_again() {
    let place = Place::new("partial");
    let answer = r#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}"#;
    let receiver = Receiver::start(move |_| Reply::Status(200, answer)).await;
    let trail = MemoryTrail::new(5);
    let exporter = place.start(&place.otlp(&receiver), &trail);
    let status = acknowledged(&exporter, 4).await;
    assert_eq!(status.rejected, 2);
    exporter.stopped().await;
    receiver.script(|_| OK);
    trail.append(1);
    let exporter = place.start(&place.otlp(&receiver), &trail);
    let status = acknowledged(&exporter, 5).await;
    assert_eq!(status.rejected, 2, "remembered across a restart");
    assert_eq!(receiver.seqs(), range(0, 6));
    let log = place.log();
    let line = log
        .lines()
        .find(|line| line.contains("export_records_rejected"))
        .unwrap();
    for part in [
        "\"rejected\":2",
        "\"first_seq\":0",
        "\"last_seq\":4",
        "too old",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_receiver_refuses_is_neither_skipped_nor_forgotten() {
    for (index, (reply, code)) in [
        (Reply::Status(404, ""), "export_refused"),
        (Reply::Status(400, ""), "export_refused"),
        (Reply::Status(403, ""), "export_unauthorized"),
        (Reply::Status(410, ""), "export_refused"),
        (Reply::Status(500, ""), "export_unavailable"),
        (Reply::Status(408, ""), "export_timeout"),
        (
            Reply::Status(200, "<html>log in</html>"),
            "export_unexpected_answer",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let place = Place::new(&format!("refused-{index}"));
        let receiver = Receiver::start(move |_| reply.clone()).await;
        let trail = MemoryTrail::new(4);
        let exporter = place.start(&place.otlp(&receiver), &trail);
        failed(&exporter, code).await;
        until(&exporter, "several attempts", |_| receiver.got().len() >= 2).await;
        assert_eq!(exporter.status().acknowledged_seq, None, "{code}");
        assert!(place.log().contains(code));
        receiver.script(|_| OK);
        let before = receiver.got().len();
        acknowledged(&exporter, 3).await;
        let arrived: Vec<u64> = receiver.got()[before..]
            .iter()
            .flat_map(common::Got::seqs)
            .collect();
        assert_eq!(arrived, range(0, 4), "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_is_found_named_and_kept() {
    let place = Place::new("too-large");
    let generous = Arc::new(AtomicBool::new(false));
    let limit = Arc::clone(&generous);
    let receiver = Receiver::start(move |got| {
        match got.body.len() > 20_000 && !limit.load(Ordering::SeqCst) {
            true => Reply::Status(413, ""),
            false => OK,
        }
    })
    .await;
    let trail = MemoryTrail::new(11);
    trail.append_long(60_000);
    trail.append(8);
    let exporter = place.start(&place.otlp(&receiver), &trail);
    // Those before it arrive, in smaller requests.
    acknowledged(&exporter, 10).await;
    let named = |status: &outgate_export::ExportStatus| {
        status.last_error.as_ref().is_some_and(|error| {
            error.code == "export_too_large" && error.detail.starts_with("record 11 alone")
        })
    };
    until(&exporter, "the record is named", named).await;
    generous.store(true, Ordering::SeqCst);
    acknowledged(&exporter, 19).await;
    let mut arrived = receiver.seqs();
    arrived.sort_unstable();
    arrived.dedup();
    assert_eq!(arrived, range(0, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_bounded_in_records_and_bytes() {
    let place = Place::new("bounded");
    let receiver = Receiver::start(|_| OK).await;
    let trail = MemoryTrail::new(30);
    for _ in 0..6 {
        trail.append_long(9_000);
    }
    trail.append_long(60_000);
    let mut config = place.webhook(&receiver, &"k".repeat(24));
    config.tuning.max_records = 10;
    config.tuning.max_bytes = 20_000;
    let exporter = place.start(&config, &trail);
    acknowledged(&exporter, 36).await;
    let got = receiver.got();
    let sizes: Vec<usize> = got.iter().map(|got| got.seqs().len()).collect();
    assert_eq!(sizes, [10, 10, 10, 2, 2, 2, 1]);
    assert_eq!(receiver.seqs(), range(0, 37));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_gone_from_disk_are_said_to_be() {
    let place = Place::new("gone");
    let receiver = Receiver::start(|_| OK).await;
    let trail = MemoryTrail::new(4);
    let exporter = place.start(&place.otlp(&receiver), &trail);
    acknowledged(&exporter, 3).await;
    exporter.stopped().await;
    trail.append(10);
    trail.forget_before(9);
    let exporter = place.start(&place.otlp(&receiver), &trail);
    let status = acknowledged(&exporter, 13).await;
    assert_eq!(status.missing, 5);
    assert_eq!(receiver.seqs(), [range(0, 4), range(9, 14)].concat());
    let log = place.log();
    let line = log
        .lines()
        .find(|line| line.contains("export_records_missing"))
        .unwrap();
    for part in ["\"first\":4", "\"next\":9", "\"missing\":5"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_cannot_be_trusted_means_that_everything_is_sent_again() {
    type Change = fn(&Place, MemoryTrail) -> MemoryTrail;
    let table: [(&str, Change, &str); 6] = [
        (
            "corrupt",
            |place, trail| {
                std::fs::write(place.cursor(), "{").unwrap();
                trail
            },
            "export_cursor_unusable",
        ),
        (
            "moved",
            |place, trail| {
                let moved = read(&place.cursor()).replace("\"seq\":9", "\"seq\":12");
                std::fs::write(place.cursor(), moved).unwrap();
                trail
            },
            "export_cursor_unconfirmed",
        ),
        (
            "another-log",
            |_, trail| trail.named(&"f".repeat(32)),
            "export_cursor_other_log",
        ),
        (
            "shorter",
            |_, trail| {
                trail.forget_from(5);
                trail
            },
            "export_cursor_unconfirmed",
        ),
        (
            "just-shorter",
            |_, trail| {
                trail.forget_from(9);
                trail
            },
            "export_cursor_unconfirmed",
        ),
        (
            "rewritten",
            |_, trail| {
                trail.rewrite();
                trail
            },
            "export_cursor_unconfirmed",
        ),
    ];
    for (name, change, code) in table {
        let place = Place::new(&format!("cursor-{name}"));
        let receiver = Receiver::start(|_| OK).await;
        let trail = MemoryTrail::new(10);
        let exporter = place.start(&place.otlp(&receiver), &trail);
        acknowledged(&exporter, 9).await;
        exporter.stopped().await;
        let trail = change(&place, trail);
        let exporter = place.start(&place.otlp(&receiver), &trail);
        until(&exporter, code, |_| place.log().contains(code)).await;
        trail.append(10);
        let last = match name {
            "shorter" => 14,
            "just-shorter" => 18,
            _ => 19,
        };
        acknowledged(&exporter, last).await;
        let again: Vec<u64> = receiver.got()[1..]
            .iter()
            .flat_map(common::Got::seqs)
            .collect();
        assert_eq!(again, range(0, last + 1), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_cannot_be_written_holds_nothing_up() {
    let place = Place::new("unsaved");
    let receiver = Receiver::start(|_| OK).await;
    let trail = MemoryTrail::new(3);
    let exporter = place.start(&place.otlp(&receiver), &trail);
    acknowledged(&exporter, 2).await;
    // Its place is taken by a folder, which no file replaces.
    std::fs::remove_file(place.cursor()).unwrap();
    std::fs::create_dir(place.cursor()).unwrap();
    trail.append(3);
    acknowledged(&exporter, 5).await;
    assert_eq!(receiver.seqs(), range(0, 6));
    assert_eq!(place.log().matches("\"export_cursor_unsaved\"").count(), 1);
    std::fs::remove_dir(place.cursor()).unwrap();
    trail.append(3);
    acknowledged(&exporter, 8).await;
    assert_eq!(exporter_cursor(&place)["acknowledged"]["seq"], 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_on_this_machine_may_speak_plain_http() {
    let place = Place::new("plain");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/logs", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 64 * 1024];
        let read = stream.read(&mut head).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            .await
            .unwrap();
        head.truncate(read);
        head
    });
    let ca = outgate_testkit::TestCa::new("unused");
    let config = place.config(&url, &ca, Target::Otlp);
    let exporter = place.start(&config, &MemoryTrail::new(1));
    acknowledged(&exporter, 0).await;
    assert!(
        serving
            .await
            .unwrap()
            .starts_with(b"POST /v1/logs HTTP/1.1")
    );
}
