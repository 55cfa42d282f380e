//! The arguments of `outgate envoy` and `outgate minter`.

use std::{ffi::OsString, num::NonZeroU32, path::PathBuf};

use clap::{Args, Subcommand};

use super::{
    ConfigFile, LogFormat,
    reach::{Output, Reach},
};

#[derive(Debug, Args)]
pub(crate) struct Envoy {
    #[command(subcommand)]
    pub(crate) action: EnvoyAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EnvoyAction {
    /// Print the bootstrap for an Envoy that somebody else runs
    ///
    /// With it Envoy knows where its control plane is, and asks that for the rest: run `outgate serve` with the same
    /// configuration file.
    Bootstrap(EnvoyBootstrap),
    /// Run Envoy: check it, start it, start it again if it crashes, end it in order
    ///
    /// Everything after `--` goes to Envoy. Ends with SIGTERM or ^C: what is open may finish within `timeouts.drain`; a
    /// second signal does not wait. If this process is killed, Envoy ends with it.
    Run(EnvoyRun),
    /// Write a leaf certificate for every destination that is bumped, for an Envoy that reads them from files
    Leaves(EnvoyLeaves),
    /// List the data planes that ask a gateway for their configuration, and what they refused of it
    Status(EnvoyStatus),
}

#[derive(Debug, Args)]
pub(crate) struct EnvoyStatus {
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct EnvoyBootstrap {
    /// The configuration file
    #[arg(
        long,
        short,
        env = "OUTGATE_CONFIG",
        default_value = "outgate.yaml",
        value_name = "FILE"
    )]
    pub(crate) config: PathBuf,
    /// Write to a file instead
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Print what the control plane would say as well, in one file: to be read, and for `envoy --mode validate`
    #[arg(long = "static")]
    pub(crate) everything: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EnvoyRun {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// The Envoy to run [default: the first `envoy` on the PATH]
    #[arg(long, env = "OUTGATE_ENVOY", value_name = "PATH")]
    pub(crate) envoy: Option<PathBuf>,
    /// Worker threads [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<NonZeroU32>,
    /// Format of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "OUTGATE_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    /// Show what Envoy logs below `info` in full: header fields too, so session tokens and credentials
    #[arg(long)]
    pub(crate) log_secrets: bool,
    /// More flags for Envoy
    #[arg(last = true, value_name = "FLAG")]
    pub(crate) further: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct EnvoyLeaves {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// The folder to write them to
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Pass over destinations such as `*.example.org`, whose hosts cannot be counted
    #[arg(long)]
    pub(crate) skip_wildcards: bool,
    /// The id of a group whose members may read them too, as Envoy's own user
    #[arg(long, value_name = "GID")]
    pub(crate) group: Option<u32>,
    /// Mint all of them again, whatever is there
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Minter {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Format of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "OUTGATE_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
}
