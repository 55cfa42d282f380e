//! How long Envoy waits for a verdict: ext_authz and rate-limit answers over the real door, on one processor, with the
//! access log that belongs to them. The goal is that of 20,000 answers a second 99 % come within 200 µs.
//!
//! Calls are sent by a schedule and timed from when they were due, so that a server that stands still is charged for every
//! call that it kept waiting. Beside it, in the same run, services that decide nothing: what is left is the machine's,
//! HTTP/2's and the client's. `cargo bench -p outgate-envoy --bench answers -- [NAME [nothing|ours]]`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot go on should stop"
)]

mod support;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::Path,
    rc::Rc,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::SendStream;
use outgate_config::Config;
use outgate_envoy::control::{ControlPlane, Keys};
use outgate_envoy_proto::envoy::service::{
    accesslog::v3::{StreamAccessLogsMessage, stream_access_logs_message::Identifier},
    auth::v3::CheckResponse,
    ratelimit::v3::{RateLimitResponse, rate_limit_response::Code},
};
use outgate_native::gateway::{AuditPlace, InMemoryGateway};
use outgate_xds::{Door, Services};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::subscriber::NoSubscriber;

use support::{
    caller::{Caller, framed, unframed, with_length},
    machine::{Latencies, cores, median, pin, process_time, thread_time},
    messages::{self, CHECK, HOST, LIMIT, LOG},
    nothing::Nothing,
    template::{Template, id_in},
};

const DESTINATIONS: usize = 1000;
const SESSIONS: usize = 16;
const TUNNELS: usize = 64;
/// So much is measured at once, after a second that is not.
const MEASURED: Duration = Duration::from_secs(4);
const ROUNDS: usize = 3;
/// Envoy sends its log when so much of it waits, in bytes, or after the time that the rendered configuration says.
const LOG_BYTES: usize = 16 * 1024;
const LOG_AFTER: Duration = Duration::from_millis(200);
/// So many permitted requests wait for the rate limit at once where it is measured alone.
const PREPARED: usize = 2000;

type Decision = BTreeMap<String, String>;

/// As the gateway has it.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is asked.
#[derive(Clone, Copy, PartialEq)]
enum Asked {
    Check,
    Limit,
    /// One, and when it is answered the other.
    Both,
}

const RUNS: [(&str, Asked, u32); 4] = [
    ("ext_authz alone", Asked::Check, 20_000),
    ("rate limit alone", Asked::Limit, 20_000),
    ("both, 20,000 answers", Asked::Both, 10_000),
    ("both, 40,000 answers", Asked::Both, 20_000),
];

fn main() {
    // As in the gateway, where nobody listens to what its libraries trace.
    tracing::subscriber::set_global_default(NoSubscriber::new()).unwrap();
    let mut chosen = std::env::args().skip(1).filter(|it| !it.starts_with("--"));
    let (filter, only) = (chosen.next(), chosen.next());
    let servers = ["nothing", "ours"].map(|it| only.as_ref().is_none_or(|only| only == it));
    let cores = cores();
    let (Some(&of_client), Some(&of_server)) = (cores.first(), cores.last()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (ready, is_ready) = mpsc::channel();
    let place = folder.path().to_owned();
    let server = std::thread::spawn(move || serve(of_server, &place, &ready));
    let tokens = is_ready.recv().unwrap();
    pin(of_client);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    println!(
        "server on processor {of_server}, client on {of_client}; {DESTINATIONS} destinations, {TUNNELS} tunnels"
    );
    println!(
        "{:<22} {:<8} {:>7} {:>9} {:>9} {:>9} {:>9} {:>12} {:>9}",
        "",
        "server",
        "calls/s",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "most µs",
        "CPU µs/call",
        "late µs"
    );
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        for (name, asked, rate) in RUNS {
            if filter
                .as_ref()
                .is_some_and(|filter| !name.contains(filter.as_str()))
            {
                continue;
            }
            let mut all = [Vec::new(), Vec::new()];
            for _ in 0..ROUNDS {
                for (which, server) in ["nothing", "ours"].into_iter().enumerate() {
                    if !servers[which] {
                        continue;
                    }
                    let mut world = World::new(&folder.path().join(server), &tokens).await;
                    let _warm = world.run(asked, rate, Duration::from_secs(1)).await;
                    let measured = world.run(asked, rate, MEASURED).await;
                    all[which].push(measured);
                }
            }
            for (server, runs) in ["nothing", "ours"].into_iter().zip(&all) {
                if !runs.is_empty() {
                    report(name, server, runs);
                }
            }
            if only.is_some() {
                continue;
            }
            let cpu =
                |which: usize| median(&all[which].iter().map(|it| it.cpu).collect::<Vec<_>>());
            println!("{:<22} CPU of ours to nothing: {:.2}", "", cpu(1) / cpu(0));
        }
    });
    drop(server);
}

/// What came of one run.
struct Measured {
    latencies: Vec<(&'static str, [f64; 4])>,
    calls: f64,
    cpu: f64,
    late: f64,
}

/// The median of the rounds, figure by figure.
fn report(name: &str, server: &str, runs: &[Measured]) {
    for (at, (what, _)) in runs[0].latencies.iter().enumerate() {
        let of = |figure: usize| {
            median(
                &runs
                    .iter()
                    .map(|it| it.latencies[at].1[figure])
                    .collect::<Vec<_>>(),
            )
        };
        let [calls, cpu, late] = [
            |it: &Measured| it.calls,
            |it: &Measured| it.cpu,
            |it: &Measured| it.late,
        ]
        .map(|of| median(&runs.iter().map(of).collect::<Vec<_>>()));
        println!(
            "{:<22} {server:<8} {calls:>7.0} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {cpu:>12.2} {late:>9.1}",
            if what.is_empty() {
                name.to_owned()
            } else {
                format!("  {what}")
            },
            of(0),
            of(1),
            of(2),
            of(3),
        );
    }
}

/// One processor that answers, on two doors.
fn serve(core: usize, folder: &Path, ready: &mpsc::Sender<Vec<String>>) {
    pin(core);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let audit = AuditPlace {
            folder: folder.join("audit"),
            most_records: u64::MAX,
        };
        let gateway = InMemoryGateway::start(config(folder), audit, &[], Box::new(|_| {})).unwrap();
        let mut tokens = Vec::new();
        for _ in 0..SESSIONS {
            let session = gateway.begin_session(BTreeMap::new()).await.unwrap();
            tokens.push(session.token().expose().to_owned());
        }
        let keys: Keys = Arc::new(String::new);
        let control = ControlPlane::new(gateway.core());
        let stop = CancellationToken::new();
        let ours = control.offer(Services::new(), keys);
        tokio::spawn(
            Door::unix(&folder.join("ours"))
                .unwrap()
                .serve(ours, stop.clone()),
        );
        record(folder, &tokens[0]).await;
        let nothing = Nothing::read(folder).offer(Services::new(), Bytes::new());
        let door = Door::unix(&folder.join("nothing")).unwrap();
        ready.send(tokens).unwrap();
        tokio::spawn(async move { control.keep_house().await });
        door.serve(nothing, stop).await;
    });
}

/// Asks once and keeps the answers, for the services that decide nothing.
async fn record(folder: &Path, token: &str) {
    let caller = Caller::connect(&folder.join("ours")).await;
    let question = framed(&messages::connect(token, 443));
    let tunnel = caller.call(CHECK, "connect", question).await;
    let connection = &decided(&tunnel)["connection"];
    let question = framed(&messages::bumped(token, connection, 443));
    let request = caller.call(CHECK, "bumped", question).await;
    let question = framed(&messages::limit(&decided(&request)));
    let limit = caller.call(LIMIT, "", question).await;
    for (name, answer) in [("tunnel", tunnel), ("request", request), ("limit", limit)] {
        std::fs::write(folder.join(name), answer).unwrap();
    }
}

fn config(folder: &Path) -> Config {
    std::fs::write(folder.join("key"), "a-credential-of-some-length").unwrap();
    let destination = |name: String| {
        json!({
            "host": name,
            "inject": { "credential": "key", "header": "x-api-key" },
            "allow": [{ "methods": ["GET", "POST"], "paths": ["/v1/**"] }],
            "limits": { "requests": "1000000/s" },
        })
    };
    let others = (1..DESTINATIONS).map(|at| format!("h{at}.example.org"));
    let names = [HOST.to_owned()].into_iter().chain(others);
    let config = json!({
        "version": 1,
        "listen": { "proxy": "127.0.0.1:0" },
        "credentials": { "key": { "from": { "file": "key" } } },
        "destinations": names.map(destination).collect::<Vec<_>>(),
        "sessions": { "limits": { "requests": "1000000/s", "bytes_out": "1000000GiB" } },
        "resolver": { "servers": ["127.0.0.1:9"], "hosts": { HOST: "93.184.215.14" } },
        "upstream": { "roots": "bundled" },
    });
    Config::parse("bench.yaml", &config.to_string(), folder).unwrap()
}

/// One connection, as of one of Envoy's workers, and what goes on over it.
struct World {
    caller: Caller,
    tunnels: Vec<Rc<Tunnel>>,
    log: Rc<RefCell<Log>>,
}

/// What is sent about the requests of one tunnel.
struct Tunnel {
    check: Bytes,
    limit: RefCell<Template>,
    entry: RefCell<Template>,
}

impl Tunnel {
    async fn open(caller: &Caller, token: &str) -> Self {
        let question = framed(&messages::connect(token, 443));
        let connection = decided(&caller.call(CHECK, "connect", question).await);
        let check = framed(&messages::bumped(token, &connection["connection"], 443));
        let decision = decided(&caller.call(CHECK, "bumped", check.clone()).await);
        let with = move |id: &str| {
            let mut decision = decision.clone();
            decision.insert("request".to_owned(), id.to_owned());
            decision
        };
        let of_log = with.clone();
        let limit = move |id: &str| messages::limit(&with(id)).encode_to_vec();
        let entry = move |id: &str| messages::ended(&of_log(id)).encode_to_vec();
        Self {
            check,
            limit: RefCell::new(Template::new(limit)),
            entry: RefCell::new(Template::new(entry)),
        }
    }
}

impl World {
    async fn new(socket: &Path, tokens: &[String]) -> Self {
        let caller = Caller::connect(socket).await;
        let mut tunnels = Vec::new();
        for at in 0..TUNNELS {
            let tunnel = Tunnel::open(&caller, &tokens[at % tokens.len()]).await;
            tunnels.push(Rc::new(tunnel));
        }
        let stream = caller.stream(LOG).await;
        let log = Rc::new(RefCell::new(Log {
            stream,
            waiting: Vec::new(),
            sent: Instant::now(),
            is_first: true,
        }));
        Self {
            caller,
            tunnels,
            log,
        }
    }

    async fn run(&mut self, asked: Asked, rate: u32, length: Duration) -> Measured {
        let total = rate as usize * usize::try_from(length.as_secs()).unwrap();
        let every = Duration::from_secs(1) / rate;
        let figures: Rc<RefCell<[Latencies; 4]>> = Rc::default();
        let (mut process, mut own, mut passed) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let at_once = if asked == Asked::Limit {
            PREPARED
        } else {
            total
        };
        let mut done = 0;
        while done < total {
            let count = at_once.min(total - done);
            let prepared = if asked == Asked::Limit {
                self.prepare(count).await
            } else {
                Vec::new()
            };
            let (process_before, own_before, start) =
                (process_time(), thread_time(), Instant::now());
            let mut tasks = JoinSet::new();
            for number in 0..count {
                let due = start + every * u32::try_from(number).unwrap();
                loop {
                    tokio::task::yield_now().await;
                    if Instant::now() >= due {
                        break;
                    }
                }
                figures.borrow_mut()[3].note(due.elapsed());
                let call = Call {
                    caller: self.caller.clone(),
                    tunnel: Rc::clone(&self.tunnels[number % self.tunnels.len()]),
                    log: Rc::clone(&self.log),
                    figures: Rc::clone(&figures),
                    due,
                };
                match (asked, prepared.get(number)) {
                    (Asked::Limit, Some(answer)) => tasks.spawn_local(call.limit(answer.clone())),
                    (Asked::Both, _) => tasks.spawn_local(call.both()),
                    _ => tasks.spawn_local(call.check()),
                };
            }
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap();
            }
            self.log.borrow_mut().flush();
            // What the log leaves to do belongs to the calls.
            tokio::time::sleep(Duration::from_millis(20)).await;
            process += process_time() - process_before;
            own += thread_time() - own_before;
            passed += start.elapsed();
            done += count;
        }
        let mut figures = figures.borrow().clone();
        let per_request = if asked == Asked::Both { 2.0 } else { 1.0 };
        let calls = total as f64 * per_request;
        let names = match asked {
            Asked::Both => vec!["", "then the rate limit", "the two of a request"],
            _ => vec![""],
        };
        Measured {
            latencies: names
                .into_iter()
                .enumerate()
                .map(|(at, name)| (name, figures[at].summary()))
                .collect(),
            calls: calls / passed.as_secs_f64(),
            cpu: (process - own).as_secs_f64() * 1e6 / calls,
            late: figures[3].summary()[1],
        }
    }

    /// Requests that wait for the rate limit.
    /// The answers about requests that wait for the rate limit; each is of the tunnel that its number chooses.
    async fn prepare(&self, count: usize) -> Vec<Bytes> {
        let mut answers = Vec::with_capacity(count);
        for number in 0..count {
            let tunnel = &self.tunnels[number % self.tunnels.len()];
            answers.push(
                self.caller
                    .call(CHECK, "bumped", tunnel.check.clone())
                    .await,
            );
        }
        answers
    }
}

fn decided(answer: &Bytes) -> Decision {
    let answer: CheckResponse = unframed(answer);
    assert_eq!(answer.status.as_ref().map(|it| it.code), Some(0), "refused");
    messages::decision(&answer)
}

struct Call {
    caller: Caller,
    tunnel: Rc<Tunnel>,
    log: Rc<RefCell<Log>>,
    figures: Rc<RefCell<[Latencies; 4]>>,
    due: Instant,
}

impl Call {
    async fn check(self) {
        let question = self.tunnel.check.clone();
        let answer = self.caller.call(CHECK, "bumped", question).await;
        self.note(0, self.due);
        self.ended(id_in(&answer));
    }

    /// Of a request that was let through.
    async fn limit(self, let_through: Bytes) {
        let id = id_in(&let_through);
        let question = with_length(&self.tunnel.limit.borrow_mut().about(id));
        let answer = self.caller.call(LIMIT, "", question).await;
        self.note(0, self.due);
        is_ok(&answer);
        self.ended(id);
    }

    async fn both(self) {
        let question = self.tunnel.check.clone();
        let let_through = self.caller.call(CHECK, "bumped", question).await;
        self.note(0, self.due);
        let id = id_in(&let_through);
        let question = with_length(&self.tunnel.limit.borrow_mut().about(id));
        let sent = Instant::now();
        let answer = self.caller.call(LIMIT, "", question).await;
        self.note(1, sent);
        self.note(2, self.due);
        is_ok(&answer);
        self.ended(id);
    }

    fn note(&self, figure: usize, since: Instant) {
        self.figures.borrow_mut()[figure].note(since.elapsed());
    }

    fn ended(&self, id: &[u8]) {
        let entry = self.tunnel.entry.borrow_mut().about(id);
        self.log.borrow_mut().note(&entry);
    }
}

fn is_ok(answer: &Bytes) {
    let answer: RateLimitResponse = unframed(answer);
    assert_eq!(answer.overall_code, i32::from(Code::Ok), "over a limit");
}

/// The access log, sent as Envoy sends it.
struct Log {
    stream: SendStream<Bytes>,
    waiting: Vec<u8>,
    sent: Instant,
    is_first: bool,
}

impl Log {
    fn note(&mut self, entry: &[u8]) {
        encode_key(1, WireType::LengthDelimited, &mut self.waiting);
        encode_varint(entry.len() as u64, &mut self.waiting);
        self.waiting.extend_from_slice(entry);
        if self.waiting.len() >= LOG_BYTES || self.sent.elapsed() >= LOG_AFTER {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let identifier = std::mem::take(&mut self.is_first).then(|| Identifier {
            log_name: "bumped".to_owned(),
            ..Identifier::default()
        });
        let message = StreamAccessLogsMessage {
            identifier,
            log_entries: None,
        };
        let mut message = message.encode_to_vec();
        encode_key(2, WireType::LengthDelimited, &mut message);
        encode_varint(self.waiting.len() as u64, &mut message);
        message.append(&mut self.waiting);
        self.stream.send_data(with_length(&message), false).unwrap();
        self.sent = Instant::now();
    }
}
