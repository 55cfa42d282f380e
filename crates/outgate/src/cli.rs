//! The arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The one way out for software that must not hold secrets.
///
/// Outgate lets out only what its owner allowed, and attaches the real credential on the far side to requests that
/// present a verified session token.
#[derive(Debug, Parser)]
#[command(
    name = "outgate",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// Folder for keys, sessions and the audit trail [default: the platform's state folder]
    #[arg(long, global = true, env = "OUTGATE_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the whole story with real requests; needs nothing but this binary
    Demo,
    /// Run a command in a sandbox whose only exit is a gateway of its own
    ///
    /// The command sees session tokens in place of keys, and reaches what the policy lets out and nothing else. Without a
    /// configuration file, the keys of known services in the environment say what is let out. Exit status: the command's
    /// own, 128 and the signal's number if one ended it, 126 or 127 if it cannot be started, 125 if outgate fails.
    Run(Run),
    /// Run the gateway
    Serve(Serve),
    /// Check a configuration file; all problems at once, each with its line
    Check(ConfigFile),
    /// Say what would happen to a request, stage by stage, without sending it. Exit status: 0 allowed, 2 denied
    Explain(Explain),
    /// Create, list and end sessions of the running gateway
    #[command(subcommand)]
    Session(Session),
    /// Print the environment that a workload needs
    Env(Env),
    /// Show or export the CA that workloads trust
    #[command(subcommand)]
    Ca(Ca),
    /// Read and verify the audit trail
    #[command(subcommand)]
    Audit(Audit),
    /// Print the JSON Schema of the configuration file
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The configuration file
    #[arg(long, short, env = "OUTGATE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Let this host out too; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) allow: Vec<String>,
    /// Where a credential comes from: NAME=env:VARIABLE or NAME=file:PATH, for a known service, a name under
    /// `credentials`, or a host that takes it as a bearer token; may be repeated
    #[arg(long, value_name = "NAME=SOURCE")]
    pub(crate) credential: Vec<String>,
    /// What is done with traffic to what flags and known services let out
    #[arg(long, value_enum, value_name = "POSTURE")]
    pub(crate) posture: Option<RunPosture>,
    /// How the command is isolated
    #[arg(long, value_enum, default_value_t = RunIsolation::Full)]
    pub(crate) isolation: RunIsolation,
    /// Let out what no rule names, within bounds, and write a policy of what was used to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) learn: Option<PathBuf>,
    /// Tell each decision while the command runs, on standard error or in a file
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub(crate) log: Option<Option<PathBuf>>,
    /// Neither say what was decided before the command starts nor sum up after it
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Pass a variable on that looks like a secret; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) keep_env: Vec<String>,
    /// A file or folder that the command sees empty; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) hide: Vec<PathBuf>,
    /// A further place to write to, for a command that root runs; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) write: Vec<PathBuf>,
    /// Let the command make user namespaces of its own, as browsers and other sandboxes do
    #[arg(long)]
    pub(crate) user_namespaces: bool,
    /// Let the command use Unix sockets: those of this machine whose path is known are covered, no others
    #[arg(long)]
    pub(crate) unix_sockets: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunPosture {
    /// Nothing is let out
    DenyAll,
    /// TLS is not terminated
    PassThrough,
    /// TLS is terminated and re-originated
    Bump,
    /// `bump` where a credential is attached, else `pass-through`
    Auto,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunIsolation {
    /// Namespaces of its own: there is no other way out
    Full,
    /// Its environment only: it can ignore the gateway
    ProxyOnly,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file
    #[arg(
        long,
        short,
        env = "OUTGATE_CONFIG",
        default_value = "outgate.yaml",
        value_name = "FILE"
    )]
    pub(crate) config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Format of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "OUTGATE_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The method, as in `GET`
    pub(crate) method: String,
    /// The URL
    pub(crate) url: String,
    /// Judge it for this session; without it, for a session that is good
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// Judge it as a request that presents no session token
    #[arg(long, conflicts_with = "session")]
    pub(crate) without_token: bool,
    /// A header field, as in `x-mode: a`; may be repeated
    #[arg(long, short = 'H', value_name = "FIELD")]
    pub(crate) header: Vec<String>,
    /// Do not look the name up
    #[arg(long)]
    pub(crate) offline: bool,
    #[command(flatten)]
    pub(crate) file: ConfigFile,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Session {
    /// Create a session and print its token
    Create {
        /// Life of its token, as in 30m; at most sessions.ttl
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        ttl: Option<u64>,
        /// A label; may be repeated
        #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
        label: Vec<(String, String)>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List sessions whose token has not run out
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End a session: its token is refused from now on, and what it has open is cut
    End {
        /// The session's id
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Env {
    /// Use the token in this file instead of creating a session; - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = EnvFormat::Sh)]
    pub(crate) format: EnvFormat,
    /// The proxy's address as the workload sees it [default: the first listener]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) proxy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnvFormat {
    /// Lines for `eval "$(outgate env)"`
    Sh,
    /// One object
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    /// Show subject, fingerprint, validity and place
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the CA certificate in PEM
    Export {
        /// The system's roots and the CA, for variables that replace the roots
        #[arg(long)]
        bundle: bool,
        /// Write to a file instead
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Verify the chain: finds any edit, gap, reordering or truncation
    Verify {
        /// The folder or file [default: the state folder's]
        path: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the records, one a line
    Show {
        /// The folder or file [default: the state folder's]
        path: Option<PathBuf>,
        /// Print the OCSF records as they are stored
        #[arg(long)]
        json: bool,
    },
}

/// `90`, `90s`, `30m` or `1h`, in seconds.
fn parse_duration(text: &str) -> Result<u64, String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale = match unit {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        _ => return Err("a number and s, m or h, as in 30m".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "a number and s, m or h, as in 30m".to_owned())?;
    number
        .checked_mul(scale)
        .ok_or_else(|| "too long".to_owned())
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE".to_owned()),
    }
}
