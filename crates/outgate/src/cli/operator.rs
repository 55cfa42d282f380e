//! The arguments of the commands that speak to a running gateway.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::reach::{Limit, Output, Reach, parse_duration, parse_label, parse_limit};

#[derive(Debug, Args)]
pub(crate) struct Session {
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) action: SessionAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionAction {
    /// Create a session; prints its token, or writes it to a file
    Create(CreateSession),
    /// Get a fresh token for a live session; the tokens before it end when they would have
    Renew {
        /// The session's id
        id: String,
        /// Life of the fresh token, as in 30m; at most sessions.ttl
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        ttl: Option<u64>,
        /// Write the token to this file (mode 0600, replaced in one step) and do not print it
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
    /// List live sessions, the newest first
    List {
        /// Those that ended within the last hour, too
        #[arg(long)]
        all: bool,
    },
    /// Show a session: its terms, its limits, when it ends, what ended it
    Show {
        /// The session's id
        id: String,
    },
    /// Show what a session asked this gateway for lately: requests that have ended, the oldest first
    Requests {
        /// The session's id
        id: String,
        /// With the beginnings of decrypted bodies, where sessions.view.bodies keeps them; on the gateway's own machine alone
        #[arg(long)]
        bodies: bool,
    },
    /// Set a session's own limits, in place of those that it had
    ///
    /// They hold beside the configuration's and can only narrow them. What is not named has no limit of its own then.
    #[command(group(ArgGroup::new("what").required(true).args(["limits", "none"])))]
    Limit {
        /// The session's id
        id: String,
        /// requests=120/min, connections=30/min, concurrent_connections=10, bytes_out=1GiB, distinct_destinations=20
        #[arg(value_name = "KEY=VALUE", value_parser = parse_limit)]
        limits: Vec<Limit>,
        /// Take its own limits off
        #[arg(long)]
        none: bool,
    },
    /// End a session: its tokens are refused from now on, and what it has open is cut
    End {
        /// The session's id
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateSession {
    /// Life of its token, as in 30m; at most and by default sessions.ttl
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) ttl: Option<u64>,
    /// A label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) label: Vec<(String, String)>,
    /// The name of the workload's container
    #[arg(long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// Confine it to this policy of the configuration
    #[arg(long, value_name = "NAME")]
    pub(crate) policy: Option<String>,
    /// Whose session it is
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// A limit of its own, as in requests=120/min; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_limit)]
    pub(crate) limit: Vec<Limit>,
    /// Write the token to this file (mode 0600, replaced in one step) and do not print it
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["id", "all", "lift", "status"])))]
pub(crate) struct Kill {
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Revoke this session
    pub(crate) id: Option<String>,
    /// Pull the kill switch: every session, those of other issuers too, is refused and cut until it is lifted
    #[arg(long, requires = "reason")]
    pub(crate) all: bool,
    /// Lift the kill switch: sessions that were not ended go on
    #[arg(long)]
    pub(crate) lift: bool,
    /// Say whether the kill switch is on, since when, by whom and why
    #[arg(long)]
    pub(crate) status: bool,
    /// Why; it is recorded
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["lift", "status"])]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Deny {
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) action: DenyAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DenyAction {
    /// Refuse a session, one token, or all tokens of another issuer's subject; what is open is cut
    Add {
        #[command(flatten)]
        target: DenyTarget,
        /// Why; it is recorded
        #[arg(long, value_name = "TEXT", default_value = "no reason given")]
        reason: String,
        /// For how long, as in 2h [default: until it is removed]
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
        duration: Option<u64>,
    },
    /// Take an entry off: what it covered goes on, with the tokens that are still good
    Remove {
        #[command(flatten)]
        target: DenyTarget,
    },
    /// List the entries
    List,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct DenyTarget {
    /// A session's id
    pub(crate) id: Option<String>,
    /// The id of one token (its jti, as audit records have it), never the token
    #[arg(long, value_name = "JTI")]
    pub(crate) token: Option<String>,
    /// What a trusted issuer calls the workload
    #[arg(long, num_args = 2, value_names = ["ISSUER", "SUBJECT"])]
    pub(crate) subject: Option<Vec<String>>,
}

#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) action: KeysAction,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum KeysAction {
    /// Sign tokens with a new key from now on; tokens of the one before stay good until they end
    Rotate,
    /// Show the public keys (JWKS)
    Show,
}

#[derive(Debug, Args)]
pub(crate) struct Quota {
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Set the quota of this tenant; without it, show all
    #[arg(requires = "sessions")]
    pub(crate) tenant: Option<String>,
    /// The most live sessions, or `default` for what the configuration says
    #[arg(value_name = "N", value_parser = parse_quota)]
    pub(crate) sessions: Option<QuotaNumber>,
}

/// A tenant's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QuotaNumber {
    Own(u32),
    Default,
}

fn parse_quota(text: &str) -> Result<QuotaNumber, String> {
    match text {
        "default" => Ok(QuotaNumber::Default),
        _ => text
            .parse()
            .map(QuotaNumber::Own)
            .map_err(|_| "a number, or `default`".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Env {
    #[command(flatten)]
    pub(crate) reach: Reach,
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
