//! An exporter that is killed at any moment: nothing is left out, and what is sent twice can be told by its id.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test helper fails loudly"
)]

mod common;

use std::{
    collections::BTreeMap,
    env,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{MemoryTrail, OK, Place, Receiver, Reply, acknowledged, quick, range};
use outgate_clock::{Clock, GuardedClock};
use outgate_export::{ExportConfig, Exporter, Target};
use outgate_journey::session::UnixSeconds;

const FOLDER: &str = "OUTGATE_TEST_EXPORT_FOLDER";
const URL: &str = "OUTGATE_TEST_EXPORT_URL";
const MOST: &str = "OUTGATE_TEST_EXPORT_MOST";
const RECORDS: u64 = 2500;

/// Batches of another size each time, so that only what the cursor says can give them the same ids.
fn start(folder: &str, url: &str, most: usize) -> Exporter {
    let folder = std::path::Path::new(folder);
    let target = Target::Webhook {
        secret_file: folder.join("key"),
    };
    let mut config = ExportConfig::new("killed", url, target).unwrap();
    config.ca = Some(folder.join("ca.pem"));
    config.tuning = quick();
    config.tuning.max_records = most;
    let clock: Arc<dyn Clock> = Arc::new(GuardedClock::new(UnixSeconds(0)));
    let trail = MemoryTrail::new(RECORDS);
    Exporter::start(config, &folder.join("export"), trail, clock).unwrap()
}

#[test]
#[ignore = "the child of a_killed_exporter_leaves_nothing_out"]
fn child_that_exports_until_killed() {
    let told = |name| env::var(name).unwrap();
    let _exporter = start(&told(FOLDER), &told(URL), told(MOST).parse().unwrap());
    std::thread::sleep(Duration::from_secs(60));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_exporter_leaves_nothing_out() {
    let place = Place::new("killed");
    let mut requests = 0_u32;
    let receiver = Receiver::start(move |_| {
        requests += 1;
        match requests % 11 {
            0 => Reply::Vanish,
            5 => Reply::Status(503, ""),
            _ => OK,
        }
    })
    .await;
    place.write("ca.pem", receiver.ca().pem());
    place.write("key", &"k".repeat(32));
    let (folder, url) = (place.folder.path().to_str().unwrap(), receiver.url("/hook"));
    for round in 0..10_u64 {
        let before = receiver.got().len();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_that_exports_until_killed", "--ignored"])
            .env(FOLDER, folder)
            .env(URL, &url)
            .env(MOST, (5 + round).to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        while receiver.got().len() == before {
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "the child sends nothing"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Any moment will do; a different one each round.
        tokio::time::sleep(Duration::from_micros(1700 * round * round + 330 * round)).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let sent = receiver.seqs().into_iter().max();
    assert!(sent < Some(RECORDS - 1), "it was done before it was killed");
    let exporter = start(folder, &url, 40);
    acknowledged(&exporter, RECORDS - 1).await;

    let mut by_id: BTreeMap<String, (Vec<u64>, Bytes)> = BTreeMap::new();
    for got in receiver.got() {
        let id = got.header("webhook-id").to_owned();
        let known = by_id
            .entry(id)
            .or_insert_with(|| (got.seqs(), got.body.clone()));
        assert_eq!(known.1, got.body, "one id, one body");
    }
    let mut seqs: Vec<u64> = by_id.into_values().flat_map(|(seqs, _)| seqs).collect();
    seqs.sort_unstable();
    assert_eq!(
        seqs,
        range(0, RECORDS),
        "by their ids: none missing, none twice"
    );
}
