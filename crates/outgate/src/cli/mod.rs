//! The arguments.

mod audit;
mod capture;
mod envoy;
mod operator;
mod probe;
mod reach;
mod run;
mod workload;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::{
    audit::{Audit, AuditAction},
    capture::Capture,
    envoy::{Envoy, EnvoyAction, EnvoyBootstrap, EnvoyLeaves, EnvoyRun, EnvoyStatus, Minter},
    operator::{
        CreateSession, Deny, DenyAction, DenyTarget, Env, EnvFormat, Keys, KeysAction, Kill, Quota,
        QuotaNumber, Session, SessionAction,
    },
    probe::{Group, ProbeArgument, Way, WayKind},
    reach::{Place, Reach, limits},
    run::{Run, RunIsolation, RunPosture},
    workload::{Exec, Install, Preflight, Trust},
};

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
    /// Use Envoy as the data plane: print its bootstrap, run it, write leaves for it
    Envoy(Envoy),
    /// Run the process that alone holds the CA's key and mints leaves for gateways and Envoys
    Minter(Minter),
    /// Close every way out of this network namespace but the gateway's, by packet filter rules (Linux)
    ///
    /// Writes one table of the family `inet`, so for IPv4 and IPv6 at once, in the place of what an earlier run wrote, and
    /// reads it back. Loopback stays open. Takes CAP_NET_ADMIN, and no program and no file. Exit status: 0 if the rules are
    /// there; 1 if not, and then nothing was changed unless the message says so.
    Capture(Capture),
    /// Say whether the gateway of the state folder answers, or with --ready whether it should be given work
    ///
    /// For probes. One line says which; exit status: 0 or 1. It is over within two seconds and leaves no record. Not ready
    /// is a gateway that starts or stops, whose audit trail cannot be written, whose CA is not usable, or which never had
    /// its control plane's policy.
    Health(Health),
    /// Check a configuration file; all problems at once, each with its line
    Check(ConfigFile),
    /// Say what would happen to a request, stage by stage, without sending it. Exit status: 0 allowed, 2 denied
    Explain(Explain),
    /// Create, renew, list, limit and end sessions of the running gateway
    Session(Session),
    /// Revoke one session, or pull the kill switch on all
    ///
    /// `outgate kill ID` ends a session for good: its tokens are refused, no credential is drawn for it, and its tunnels,
    /// streams and WebSockets are cut within a second. `outgate kill --all` does that to every session there is, whoever
    /// issued it, and lets none be created, until `outgate kill --lift`: then those that were not ended go on with the
    /// tokens that they have. Both hold across restarts of the gateway.
    ///
    /// Traffic of destinations with `token: optional` that presents no token is no session's: it goes on.
    Kill(Kill),
    /// Edit the denylist: sessions, single tokens, and workloads of trusted issuers that are refused
    Deny(Deny),
    /// Rotate or show the keys that sign session tokens
    Keys(Keys),
    /// Show or set how many sessions a tenant may have
    Quota(Quota),
    /// Print the environment that a workload needs
    Env(Env),
    /// Show or export the CA that workloads trust
    Ca(Ca),
    /// Read, verify, prove and export the audit trail
    Audit(Audit),
    /// In a workload's place, prove that the gateway is its only way out. Exit status: 0 if it is, 1 if not
    ///
    /// Asks the gateway, with the workload's token, for a name that nobody allows, and tries the ways around it: public
    /// addresses, the name servers, metadata services, the cluster's API server. Ends when the gateway answered and no
    /// way was open two rounds in a row, or when the time is over, with a line for each way that is open.
    Preflight(Preflight),
    /// Copy this program to a folder, as `outgate`, for an image that does not have it
    Install(Install),
    /// Write what a workload trusts: the roots of the image that this runs in, and the gateway's CA
    Trust(Trust),
    /// Start a workload with its session token in its environment
    ///
    /// Sets the proxy variables and those of --token-variables, and becomes the command. Exit status: the command's own,
    /// 126 or 127 if it cannot be started, 125 if the token cannot be read.
    Exec(Exec),
    /// Print the JSON Schema of the configuration file
    Schema,
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

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Whether it should be given work, and not merely whether it answers
    #[arg(long)]
    pub(crate) ready: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: Place,
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

#[derive(Debug, Args)]
pub(crate) struct Ca {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) action: CaAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaAction {
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
