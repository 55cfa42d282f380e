//! The peers: how each is started, what it can do, and how a client reaches the upstream through it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{
    ground::{FIELD, Ground, NAME, VALUE},
    others, outgate,
    process::Process,
    workload::Mode,
};

/// Who is measured, in the order of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Peer {
    /// No proxy at all
    Direct,
    /// The floor for pass-through: bytes moved by the kernel
    RelaySplice,
    /// The same, bytes copied
    RelayCopy,
    /// The floor for a bump: TLS on both sides, nothing between
    RelayBump,
    /// Outgate with its whole chain
    Outgate,
    /// Outgate that bumps and attaches nothing, so that nothing is scrubbed
    OutgatePlain,
    /// Outgate with 10 destinations
    #[value(name = "outgate-10")]
    Outgate10,
    /// Outgate with 100,000 destinations
    #[value(name = "outgate-100k")]
    Outgate100k,
    /// Outgate with 1,000,000 entries in its denylist
    OutgateDenials,
    /// Envoy, static, in its cheapest form
    Envoy,
    /// hudsucker
    Hudsucker,
    /// squid, one process
    Squid,
    /// mitmproxy
    Mitmproxy,
}

/// What a workload asks of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skill {
    Bump,
    Pass,
    Mint,
    Http2,
    WebSocket,
}

/// The programs of the peers, where there are any.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Programs {
    /// Outgate's program
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) outgate: Option<PathBuf>,
    /// Envoy's
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) envoy: Option<PathBuf>,
    /// The one that is built from bench/peers/hudsucker
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) hudsucker: Option<PathBuf>,
    /// squid's, built with OpenSSL
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) squid: Option<PathBuf>,
    /// mitmdump
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) mitmdump: Option<PathBuf>,
}

impl Programs {
    /// The program of a peer that has one.
    ///
    /// # Errors
    /// It is not known where it is.
    pub(crate) fn of(&self, peer: Peer) -> Result<Option<&Path>> {
        let (flag, program) = match peer {
            Peer::Direct | Peer::RelayCopy | Peer::RelaySplice | Peer::RelayBump => {
                return Ok(None);
            }
            Peer::Envoy => ("--envoy", &self.envoy),
            Peer::Hudsucker => ("--hudsucker", &self.hudsucker),
            Peer::Squid => ("--squid", &self.squid),
            Peer::Mitmproxy => ("--mitmdump", &self.mitmdump),
            _ => ("--outgate", &self.outgate),
        };
        program
            .as_deref()
            .map(Some)
            .with_context(|| format!("{} needs {flag}", peer.name()))
    }
}

/// A peer that was started, and how to reach the upstream through it.
pub(crate) struct Running {
    /// `None`: there is nothing between.
    pub(crate) process: Option<Process>,
    /// When it was started, on the wall clock, in nanoseconds since 1970.
    pub(crate) since_ns: u64,
    /// The host in `CONNECT`.
    pub(crate) host: String,
    /// What a client of a bump trusts, and nothing else.
    pub(crate) roots: PathBuf,
    /// What the origin's echo of the injected field looks like at the client.
    pub(crate) echo: Option<String>,
    /// Further arguments of the load generator.
    pub(crate) load: Vec<String>,
    /// How to revoke what the client presents.
    pub(crate) revoke: Option<Command>,
}

impl Running {
    pub(crate) fn new(ground: &Ground, roots: &str) -> Self {
        Self {
            process: None,
            since_ns: crate::clock::unix_ns(),
            host: NAME.to_owned(),
            roots: ground.certificate(roots),
            echo: Some(format!("{FIELD}: {VALUE}")),
            load: Vec::new(),
            revoke: None,
        }
    }

    /// Starts the peer's program, and the clock.
    pub(crate) fn started(mut self, command: &mut Command, folder: &Path) -> Result<Self> {
        self.since_ns = crate::clock::unix_ns();
        self.process = Some(Process::start(command, &folder.join("log"))?);
        Ok(self)
    }
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::RelaySplice => "relay-splice",
            Self::RelayCopy => "relay-copy",
            Self::RelayBump => "relay-bump",
            Self::Outgate => "outgate",
            Self::OutgatePlain => "outgate-plain",
            Self::Outgate10 => "outgate-10",
            Self::Outgate100k => "outgate-100k",
            Self::OutgateDenials => "outgate-denials",
            Self::Envoy => "envoy",
            Self::Hudsucker => "hudsucker",
            Self::Squid => "squid",
            Self::Mitmproxy => "mitmproxy",
        }
    }

    pub(crate) fn can(self, skill: Skill) -> bool {
        match self {
            Self::RelaySplice | Self::RelayCopy => skill == Skill::Pass,
            Self::RelayBump => matches!(skill, Skill::Bump | Skill::WebSocket),
            Self::Envoy => skill != Skill::Mint,
            // It asks name servers on port 53 alone, and ours is not there: one name stands in a file.
            Self::Squid => matches!(skill, Skill::Bump | Skill::Pass),
            // It would have to be told to forward the frames.
            Self::Hudsucker => skill != Skill::WebSocket,
            _ => true,
        }
    }

    /// Starts it. `program` is its program, if it has one.
    ///
    /// # Errors
    /// It cannot be configured or started. That it works is for the caller to see.
    pub(crate) fn start(
        self,
        ground: &Ground,
        program: Option<&Path>,
        mode: Mode,
    ) -> Result<Running> {
        let folder = ground.fresh(self.name())?;
        match (self, program) {
            (Self::Direct, _) => Ok(Running {
                echo: None,
                ..Running::new(ground, "upca.pem")
            }),
            (Self::RelayCopy, _) => others::relay(ground, &folder, "copy"),
            (Self::RelaySplice, _) => others::relay(ground, &folder, "splice"),
            (Self::RelayBump, _) => others::relay(ground, &folder, "bump"),
            (Self::Envoy, Some(program)) => others::envoy(ground, &folder, program, mode),
            (Self::Hudsucker, Some(program)) => others::hudsucker(ground, &folder, program, mode),
            (Self::Squid, Some(program)) => others::squid(ground, &folder, program, mode),
            (Self::Mitmproxy, Some(program)) => others::mitmproxy(ground, &folder, program, mode),
            (_, Some(program)) => outgate::start(ground, &folder, program, mode, self),
            (_, None) => bail!("{} has no program", self.name()),
        }
    }
}
