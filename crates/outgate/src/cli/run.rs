//! The arguments of `outgate run`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

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
