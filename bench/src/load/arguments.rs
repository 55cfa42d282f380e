//! The load generator's command line.

use std::{path::PathBuf, str::FromStr};

/// One run: where to, what, and what to watch meanwhile. Of an option given twice, the later counts.
#[derive(Debug, clap::Args)]
#[command(args_override_self = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub target: TargetArguments,

    #[command(flatten)]
    pub work: WorkArguments,

    #[command(flatten)]
    pub meter: MeterArguments,

    /// Gives up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub max_secs: u64,

    #[arg(long, default_value_t = 1)]
    pub threads: usize,
}

/// How the origin is reached.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags")]
pub(crate) struct TargetArguments {
    /// The proxy (HOST:PORT). Without one, requests go to `--direct`.
    #[arg(long)]
    pub proxy: Option<String>,

    /// Where to go without a proxy (HOST:PORT).
    #[arg(long, required_unless_present = "proxy")]
    pub direct: Option<String>,

    /// The destination, as a proxy is asked for it (HOST:PORT). `{n}` is another number for each connection.
    #[arg(long)]
    pub connect: String,

    /// The name that the server is verified by; may hold `{n}`. The destination's, unless given.
    #[arg(long)]
    pub sni: Option<String>,

    /// Where `{n}` begins.
    #[arg(long, default_value_t = 0)]
    pub base: u64,

    /// The path of each request.
    #[arg(long)]
    pub path: Option<String>,

    /// A header of each request (`NAME: VALUE`).
    #[arg(long, value_parser = header)]
    pub header: Vec<String>,

    /// A header for the proxy alone (`NAME: VALUE`).
    #[arg(long, value_parser = header)]
    pub proxy_header: Vec<String>,

    /// The CA that the server is verified by, PEM. No other is trusted.
    #[arg(long, required_unless_present_any = ["no_tls", "forward"])]
    pub ca: Option<PathBuf>,

    /// Clear text, inside the tunnel or without one.
    #[arg(long)]
    pub no_tls: bool,

    /// No tunnel: asks the proxy by absolute form, in clear.
    #[arg(long, requires = "proxy")]
    pub forward: bool,

    /// HTTP/2.
    #[arg(long, conflicts_with_all = ["forward", "no_tls", "sse", "ws", "cut"])]
    pub h2: bool,

    /// Offers to resume TLS sessions.
    #[arg(long)]
    pub resume: bool,

    /// Prefers the post-quantum key exchange.
    #[arg(long)]
    pub post_quantum: bool,

    /// Bytes of each connection's buffer.
    #[arg(long, value_name = "BYTES", default_value_t = 65_536)]
    pub buf: usize,

    /// Sends a body of this length instead of asking for one.
    #[arg(long, value_name = "BYTES")]
    pub upload: Option<u64>,
}

/// What is done. Without one of the kinds: requests, one after another on each connection.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags")]
pub(crate) struct WorkArguments {
    /// Connections at a time; streams of --sse and --cut.
    #[arg(long, default_value_t = 32)]
    pub conc: usize,

    /// Seconds that are measured. --sse measures to the end of its streams, unless given.
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<f64>,

    /// Seconds before those: 1, or none for --sse.
    #[arg(long, value_name = "SECONDS")]
    pub warmup: Option<f64>,

    /// Measures this many requests or messages, all of them, instead of a time.
    #[arg(long, conflicts_with_all = ["duration", "rate"])]
    pub count: Option<u64>,

    /// Requests per second, on a schedule, whatever becomes of the earlier ones.
    #[arg(long)]
    pub rate: Option<f64>,

    /// A new connection for each request.
    #[arg(long)]
    pub new_conn: bool,

    /// Kind: holds this many connections, each after one request, and reads memory.
    #[arg(long, value_name = "N", group = "kind")]
    pub idle: Option<usize>,

    /// Kind: server-sent events, of which each says when it was sent.
    #[arg(long, group = "kind")]
    pub sse: bool,

    /// Kind: WebSocket messages, each after the echo of the one before.
    #[arg(long, group = "kind")]
    pub ws: bool,

    /// Kind: streams of events, until somebody cuts them.
    #[arg(long, group = "kind")]
    pub cut: bool,

    /// Kind: one request for /echo; see --expect and --forbid.
    #[arg(long, group = "kind")]
    pub check: bool,

    /// Kind: tries for this many seconds until a request is answered 200.
    #[arg(long, value_name = "SECONDS", group = "kind")]
    pub wait_ready: Option<f64>,

    /// --ws: bytes of each message.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub message: u64,

    /// --sse, --cut: streams that are being opened at a time.
    #[arg(long, default_value_t = 32)]
    pub opening: usize,

    /// --idle: seconds to hold, and to wait after closing (2). --cut: seconds until a stream counts as not cut (10).
    #[arg(long, value_name = "SECONDS")]
    pub hold: Option<f64>,

    /// --cut: written once every stream has had an event.
    #[arg(long, value_name = "FILE")]
    pub when_ready: Option<PathBuf>,

    /// --cut: time is counted from when this file appears, or from the nanoseconds since 1970 in it. Or from SIGUSR1.
    #[arg(long, value_name = "FILE")]
    pub cut_after_file: Option<PathBuf>,

    /// --check: what the origin has to have received; case does not matter.
    #[arg(long, value_name = "TEXT")]
    pub expect: Vec<String>,

    /// --check: what the origin must not have received.
    #[arg(long, value_name = "TEXT")]
    pub forbid: Vec<String>,

    /// --wait-ready: when the peer was started, in nanoseconds since 1970.
    #[arg(long, value_name = "NS")]
    pub since_ns: Option<u64>,

    /// --wait-ready: gives up when one of these has ended.
    #[arg(long, value_name = "PID,…", default_value = "")]
    pub alive: Pids,
}

/// What is read besides the client's own figures.
#[derive(Debug, clap::Args)]
pub(crate) struct MeterArguments {
    /// Reports CPU and memory of these processes, and all that descend from them, under this name.
    #[arg(long, value_name = "NAME=PID,…")]
    pub watch: Vec<Watch>,

    /// The upstream's plain address: what it counted is reported.
    #[arg(long, value_name = "HOST:PORT")]
    pub stats: Option<String>,

    /// Copied to the output.
    #[arg(long, default_value = "")]
    pub peer: String,

    /// Copied to the output.
    #[arg(long, default_value = "")]
    pub workload: String,

    /// Copied to the output.
    #[arg(long, default_value_t = 0)]
    pub rep: u32,
}

/// Processes, by comma-separated numbers; none is fine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pids(pub Vec<u32>);

impl FromStr for Pids {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pids = text.split(',').map(str::trim).filter(|pid| !pid.is_empty());
        pids.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// Processes that are reported under a name.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    pub name: String,
    pub pids: Pids,
}

impl FromStr for Watch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, pids) = text.split_once('=').ok_or("not NAME=PID,…")?;
        Ok(Self {
            name: name.to_owned(),
            pids: pids.parse().map_err(|problem| format!("{problem}"))?,
        })
    }
}

/// A header's line without its end.
fn header(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((name, _)) if !name.is_empty() && !text.contains(['\r', '\n']) => Ok(text.to_owned()),
        _ => Err("not NAME: VALUE".to_owned()),
    }
}
