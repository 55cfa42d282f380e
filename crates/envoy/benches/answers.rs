//! How long Envoy waits for a verdict: ext_authz and rate-limit answers over the real door, on one processor, with the
//! access log that belongs to them. The goal is that of 20,000 answers a second 99 % come within 200 µs.
//!
//! Calls are sent by a schedule and timed from when they were due, so that a server that stands still is charged for every
//! call that it kept waiting. Beside it, in the same run, services that decide nothing: what is left is the machine's,
//! HTTP/2's and the client's.
//!
//! `OUTGATE_BIN` names the gateway (else the one of the same profile).
//! `cargo bench -p outgate-envoy --bench answers -- [NAME [nothing|ours]]`.
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
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::SendStream;
use outgate_envoy_proto::envoy::service::{
    accesslog::v3::{StreamAccessLogsMessage, stream_access_logs_message::Identifier},
    auth::v3::CheckResponse,
    ratelimit::v3::{RateLimitResponse, rate_limit_response::Code},
};
use outgate_testkit::TestCa;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use tokio::task::JoinSet;
use tracing::subscriber::NoSubscriber;

use support::{
    caller::{Caller, framed, unframed, with_length},
    edge::Places,
    machine::{Latencies, cores, median, pin, time_of},
    messages::{self, CHECK, LIMIT, LOG},
    nothing,
    template::{Template, id_in},
};

const DESTINATIONS: usize = 1000;
/// Of the upstream, which nobody dials.
const PORT: u16 = 443;
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

const RUNS: [(&str, Asked, u32); 5] = [
    ("ext_authz alone", Asked::Check, 20_000),
    ("rate limit alone", Asked::Limit, 20_000),
    ("both, 5,000 answers", Asked::Both, 2500),
    ("both, 20,000 answers", Asked::Both, 10_000),
    ("both, 40,000 answers", Asked::Both, 20_000),
];

fn main() {
    // As in the gateway, where nobody listens to what its libraries trace.
    tracing::subscriber::set_global_default(NoSubscriber::new()).unwrap();
    if nothing::is_asked_for() {
        return nothing::decide();
    }
    let mut chosen = std::env::args().skip(1).filter(|it| !it.starts_with("--"));
    let (filter, only) = (chosen.next(), chosen.next());
    let servers = ["nothing", "ours"].map(|it| only.as_ref().is_none_or(|only| only == it));
    let cores = cores();
    let (Some(&of_client), Some(&of_server)) = (cores.first(), cores.last()) else {
        return;
    };
    let ca = TestCa::new("the upstreams' CA");
    let places = Places::new(PORT, &ca);
    // Also what it starts stays where it was started.
    let start = || {
        pin(of_server);
        places.gateway(DESTINATIONS, false)
    };
    let gateway = std::thread::scope(|scope| scope.spawn(start).join().unwrap());
    let tokens: Vec<_> = (0..SESSIONS).map(|_| gateway.session_create().1).collect();
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
        let ours = Server {
            socket: gateway.folder().join("xds.sock"),
            process: gateway.pid(),
        };
        nothing::record(&ours.socket, &tokens[0], PORT, places.folder.path()).await;
        let (deciding_nothing, socket) = nothing::start(places.folder.path(), of_server);
        let nothing = Server {
            socket,
            process: deciding_nothing.id(),
        };
        for (name, asked, rate) in RUNS {
            if filter
                .as_ref()
                .is_some_and(|filter| !name.contains(filter.as_str()))
            {
                continue;
            }
            let mut all = [Vec::new(), Vec::new()];
            for _ in 0..ROUNDS {
                for (which, server) in [&nothing, &ours].into_iter().enumerate() {
                    if !servers[which] {
                        continue;
                    }
                    let mut world = World::new(server, &tokens).await;
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
}

/// One that is asked, on a processor of its own.
struct Server {
    socket: PathBuf,
    process: u32,
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

/// One connection, as of one of Envoy's workers, and what goes on over it.
struct World {
    /// The server's.
    process: u32,
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
        let question = framed(&messages::connect(token, PORT));
        let connection = decided(&caller.call(CHECK, "connect", question).await);
        let check = framed(&messages::bumped(token, &connection["connection"], PORT));
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
    async fn new(server: &Server, tokens: &[String]) -> Self {
        let caller = Caller::connect(&server.socket).await;
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
            process: server.process,
            caller,
            tunnels,
            log,
        }
    }

    async fn run(&mut self, asked: Asked, rate: u32, length: Duration) -> Measured {
        let total = rate as usize * usize::try_from(length.as_secs()).unwrap();
        let every = Duration::from_secs(1) / rate;
        let figures: Rc<RefCell<[Latencies; 4]>> = Rc::default();
        let (mut process, mut passed) = (Duration::ZERO, Duration::ZERO);
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
            let (before, start) = (time_of(self.process), Instant::now());
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
            process += time_of(self.process) - before;
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
            cpu: process.as_secs_f64() * 1e6 / calls,
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
