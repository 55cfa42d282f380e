//! What a supervisor tells: a line each, for people and for machines.

use std::{fmt, net::SocketAddr, time::Duration};

use super::AdminPlace;

/// Something that happened to Envoy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A process was started.
    Starting {
        /// Its id.
        pid: u32,
        /// 1 for the first.
        attempt: u32,
    },
    /// It serves: every socket that was asked for is open.
    Ready(Ready),
    /// An operator must see this.
    Notice(Notice),
    /// It logged something.
    Log(LogLine),
    /// It ended by itself and is started again.
    Ended {
        /// How, as in "was killed by signal 9 (SIGKILL)".
        how: String,
        /// What it said last.
        last_lines: Vec<String>,
        /// When.
        restart_in: Duration,
    },
    /// It is being ended: what is open may finish.
    Stopping {
        /// For how long at most.
        grace: Duration,
    },
    /// It has ended as it was told to.
    Stopped {
        /// What was open was cut at the end of the grace period, or by a second order.
        cut: bool,
    },
}

/// Where a serving Envoy listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The explicit proxy.
    pub proxy: Vec<SocketAddr>,
    /// For captured connections.
    pub transparent: Vec<SocketAddr>,
    /// Its administration interface.
    pub admin: AdminPlace,
    /// Its process.
    pub pid: u32,
}

/// What an operator must see, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How bad it is.
    pub level: Level,
    /// A stable word for it.
    pub code: &'static str,
    /// What happened.
    pub text: String,
    /// What to do; may be empty.
    pub remedy: &'static str,
}

/// A line of Envoy's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How bad it is.
    pub level: Level,
    /// The part of Envoy that says it; empty for what was not written by its logger.
    pub component: String,
    /// What it says: no line breaks, and nothing that a terminal would obey.
    pub message: String,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For those who mend Envoy.
    Debug,
    /// As it should be.
    Info,
    /// To be looked at.
    Warning,
    /// Something does not work.
    Error,
}

impl Level {
    /// As logs write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
