//! The kit against itself: every kind of work, through every relay, by counts alone.

use std::{net::SocketAddr, path::Path};

use clap::Parser;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    Cli, Command, certificates, load,
    relay::{self, Mode},
    upstream::{self, Addresses},
};

struct Kit {
    folder: tempfile::TempDir,
    upstream: Addresses,
    _serving: JoinSet<()>,
    proxy: Option<(JoinSet<()>, SocketAddr)>,
    /// Who signs what the client meets.
    ca: &'static str,
}

impl Kit {
    async fn new(mode: Option<Mode>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates::make(folder.path()).unwrap();
        let arguments = upstream::for_test(folder.path());
        let (serving, upstream) = upstream::start(&arguments).await.unwrap();
        let to = upstream.tls.unwrap();
        let proxy = mode.map(|mode| relay::start(&relay::for_test(mode, to, folder.path())));
        Self {
            proxy: proxy.transpose().unwrap(),
            folder,
            upstream,
            _serving: serving,
            ca: if mode == Some(Mode::Bump) {
                "ca.pem"
            } else {
                "upca.pem"
            },
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The arguments of `words`, and those that lead to this kit.
    fn arguments(&self, words: &str) -> load::Arguments {
        let stats = self.upstream.plain.unwrap();
        let (option, address) = match &self.proxy {
            Some((_, address)) => ("--proxy", *address),
            None => ("--direct", self.upstream.tls.unwrap()),
        };
        let common = format!(
            "outgate-bench load {option} {address} --connect up.bench.test:443 --ca {} --stats {stats} \
             --watch px={} {words}",
            self.path(self.ca),
            std::process::id(),
        );
        match Cli::try_parse_from(common.split_ascii_whitespace())
            .unwrap()
            .command
        {
            Command::Load(arguments) => *arguments,
            other => panic!("{other:?}"),
        }
    }

    /// A run that has to succeed: what it printed.
    async fn load(&self, words: &str) -> Value {
        let outcome = load::run(&self.arguments(words)).await.unwrap();
        assert!(outcome.success, "{words}: {}", outcome.text);
        let report: Value = serde_json::from_str(&outcome.text).unwrap();
        assert_eq!(report["err_all"], 0, "{words}: {report}");
        report
    }

    async fn refuses(&self, words: &str) -> bool {
        match load::run(&self.arguments(words)).await {
            Ok(outcome) => !outcome.success,
            Err(_) => true,
        }
    }
}

fn number(report: &Value, name: &str) -> u64 {
    report[name]
        .as_u64()
        .unwrap_or_else(|| panic!("{name}: {report}"))
}

#[tokio::test]
async fn kept_connections_carry_all_requests_through_a_bump() {
    let kit = Kit::new(Some(Mode::Bump)).await;
    let report = kit
        .load("--count 200 --conc 4 --peer bump --workload W1 --rep 3")
        .await;
    for (name, count) in [
        ("ok", 200),
        ("up_h1", 200),
        ("up_tcp", 4),
        ("hs_n", 4),
        ("rep", 3),
    ] {
        assert_eq!(number(&report, name), count, "{name}: {report}");
    }
    assert_eq!(number(&report, "bytes"), 200 * 1024);
    assert_eq!(
        (&report["peer"], &report["workload"]),
        (&"bump".into(), &"W1".into())
    );
    assert!(
        report["px_cpu_us_per_req"].as_f64().unwrap() > 0.0,
        "{report}"
    );
}

#[tokio::test]
async fn a_new_connection_for_each_request_resumes_only_where_that_is_asked_for() {
    let kit = Kit::new(Some(Mode::Copy)).await;
    let report = kit.load("--count 200 --conc 4 --new-conn").await;
    for name in ["ok", "up_tcp", "up_tls_full", "hs_n"] {
        assert_eq!(number(&report, name), 200, "{name}: {report}");
    }
    let report = kit.load("--count 10 --conc 1 --new-conn --resume").await;
    assert_eq!(number(&report, "up_tls_full"), 1, "{report}");
    assert_eq!(number(&report, "up_tls_resumed"), 9, "{report}");
    let report = kit
        .load("--count 8 --conc 2 --new-conn --connect h{n}.bench.test:443 --base 5")
        .await;
    assert_eq!(number(&report, "ok"), 8, "{report}");
}

#[tokio::test]
async fn http2_and_a_schedule_are_what_the_upstream_sees() {
    let kit = Kit::new(None).await;
    let report = kit.load("--h2 --count 200 --conc 4").await;
    assert_eq!(
        (number(&report, "up_h2"), number(&report, "up_tcp")),
        (200, 4)
    );
    let report = kit
        .load("--rate 500 --warmup 0.05 --duration 0.2 --conc 4")
        .await;
    assert!(number(&report, "ok") > 0, "{report}");
    assert_eq!(number(&report, "sched_n"), number(&report, "lat_n"));
}

#[tokio::test]
async fn bulk_arrives_whole_through_every_relay() {
    for mode in [Mode::Copy, Mode::Splice, Mode::Bump] {
        let kit = Kit::new(Some(mode)).await;
        let report = kit.load("--count 2 --conc 2 --path /b/3000001").await;
        assert_eq!(number(&report, "bytes"), 6_000_002, "{mode:?}: {report}");
        let report = kit
            .load("--count 2 --conc 2 --path /up --upload 300001")
            .await;
        assert_eq!(number(&report, "bytes"), 600_002, "{mode:?}: {report}");
    }
}

#[tokio::test]
async fn messages_and_events_are_counted_one_by_one() {
    let kit = Kit::new(Some(Mode::Bump)).await;
    let report = kit.load("--ws --count 200 --conc 4 --message 200").await;
    for name in ["ok", "lat_n", "up_ws"] {
        assert_eq!(number(&report, name), 200, "{name}: {report}");
    }
    let report = kit.load("--sse --conc 4 --path /sse?n=40&ms=5").await;
    let events = number(&report, "ok");
    assert!((1..160).contains(&events), "{report}");
    assert_eq!(
        (number(&report, "lat_n"), number(&report, "streams")),
        (events, 4)
    );
}

#[tokio::test]
async fn idle_connections_are_held_and_weighed() {
    let kit = Kit::new(Some(Mode::Bump)).await;
    let report = kit.load("--idle 20 --conc 4 --hold 0.01").await;
    assert_eq!((number(&report, "ok"), number(&report, "up_tcp")), (20, 20));
    // This process is both ends of all of them: client, relay twice, upstream.
    assert!(number(&report, "px_fds") >= 80, "{report}");
    assert!(report["px_kib_per_conn"].is_f64(), "{report}");
}

#[tokio::test]
async fn streams_that_are_cut_are_told_from_those_that_are_not() {
    let mut kit = Kit::new(Some(Mode::Bump)).await;
    let (ready, word) = (kit.path("ready"), kit.path("word"));
    let words = format!("--cut --conc 5 --hold 0.2 --when-ready {ready} --cut-after-file {word}");
    std::fs::write(&word, "").unwrap();
    let outcome = load::run(&kit.arguments(&words)).await.unwrap();
    let report: Value = serde_json::from_str(&outcome.text).unwrap();
    assert!(!outcome.success);
    assert_eq!(
        (number(&report, "uncut"), number(&report, "ok")),
        (5, 0),
        "{report}"
    );

    std::fs::remove_file(&ready).unwrap();
    std::fs::remove_file(&word).unwrap();
    let arguments = kit.arguments(&format!("{words} --hold 5"));
    let (relay, _) = kit.proxy.take().unwrap();
    let cut = async {
        while !Path::new(&ready).exists() {
            tokio::task::yield_now().await;
        }
        std::fs::write(&word, "").unwrap();
        drop(relay);
    };
    let (outcome, ()) = tokio::join!(load::run(&arguments), cut);
    let report: Value = serde_json::from_str(&outcome.unwrap().text).unwrap();
    assert_eq!(
        (number(&report, "uncut"), number(&report, "streams")),
        (0, 5),
        "{report}"
    );
    assert_eq!(
        number(&report, "ok") + number(&report, "err"),
        5,
        "{report}"
    );
}

#[tokio::test]
async fn a_peer_that_does_not_do_its_job_fails_the_check() {
    let kit = Kit::new(Some(Mode::Bump)).await;
    let sent = "--check --header X-Bench:secret";
    assert!(
        !kit.refuses(&format!(
            "{sent} --expect x-bench: --expect SECRET --forbid other"
        ))
        .await
    );
    assert!(kit.refuses(&format!("{sent} --expect x-other:")).await);
    assert!(kit.refuses(&format!("{sent} --forbid X-BENCH:")).await);
    // One that does not bump is met by the upstream's own certificate.
    let through = Kit::new(Some(Mode::Copy)).await;
    assert!(!through.refuses("--check").await);
    let bumping = through.path("ca.pem");
    assert!(through.refuses(&format!("--check --ca {bumping}")).await);
    assert!(!through.refuses("--wait-ready 5").await);
}
