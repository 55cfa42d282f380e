//! The arguments of what a workload's own pod runs: `outgate preflight`, `install`, `trust` and `exec`.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::Args;

use super::{
    probe::{ProbeArgument, parse_address},
    reach::parse_duration,
};

#[derive(Debug, Args)]
pub(crate) struct Preflight {
    /// The gateway's proxy; names are not looked up
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_address)]
    pub(crate) gateway: SocketAddr,
    /// The file with the session token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
    /// Give up after this time
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) within: u64,
    /// How long one probe waits: what gives no answer in this time is closed
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: u64,
    /// A way that has to be closed: KIND://ADDRESS[:PORT], where KIND is tcp, dns, quic or icmp. With `GROUP=` before it,
    /// it replaces the probes of a group (public, dns, metadata, api); `GROUP=none` leaves them out. May be repeated
    #[arg(long, value_name = "PROBE")]
    pub(crate) probe: Vec<ProbeArgument>,
    /// The gateway captures connections (`outgate capture --redirect`): one that it answers itself is no way around it
    #[arg(long)]
    pub(crate) captured: bool,
    /// Print what was found as JSON, at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    /// The folder; it has to be there
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Trust {
    /// The certificates of the gateway's CA, in PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: PathBuf,
    /// The folder for bundle.pem and truststore.jks; it has to be there
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The gateway's proxy, as in 10.96.0.7:8080
    #[arg(long, env = "OUTGATE_PROXY", value_name = "HOST:PORT")]
    pub(crate) proxy: Option<String>,
    /// The file with the session token
    #[arg(long, env = "OUTGATE_SESSION_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The variables that get the token in place of a key, separated by commas
    #[arg(
        long,
        env = "OUTGATE_TOKEN_VARIABLES",
        value_name = "NAMES",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) token_variables: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
