//! What a supervisor says, as people and machines read it: its own words on standard output, everything that goes on in
//! the log on standard error.

use std::path::Path;

use outgate_envoy::supervise::{AdminPlace, Event, Level, LogLine, Notice, Ready, Version};
use serde_json::json;

use crate::style::say;

/// How the supervisor's own words are printed.
pub(super) struct Teller<'a> {
    pub(super) json: bool,
    pub(super) version: Version,
    pub(super) program: &'a Path,
    pub(super) control: &'a str,
}

impl Teller<'_> {
    /// Tells one event.
    pub(super) fn tell(&self, event: Event) {
        match event {
            Event::Starting { pid, attempt } => self.starting(pid, attempt),
            Event::Ready(ready) => self.ready(&ready),
            Event::Notice(notice) => log_notice(&notice),
            Event::Log(line) => log_line(&line),
            Event::Ended {
                how,
                last_lines,
                restart_in,
            } => {
                let millis = u64::try_from(restart_in.as_millis()).unwrap_or(u64::MAX);
                let last_lines = last_lines.join(" | ");
                let last_lines = (!last_lines.is_empty()).then_some(last_lines);
                tracing::error!(
                    code = "envoy_ended",
                    restart_in_ms = millis,
                    last_lines,
                    "Envoy {how}; what was open is cut; it is started again in {restart_in:?}"
                );
            }
            Event::Stopping { grace } => {
                tracing::info!(
                    "stopping: what is open may finish within {grace:?}; a second signal does not wait"
                );
            }
            Event::Stopped { cut: true } => {
                tracing::warn!(
                    code = "envoy_stopped",
                    "Envoy has ended; what was still open was cut"
                );
            }
            Event::Stopped { cut: false } => {
                tracing::info!(code = "envoy_stopped", "Envoy has ended; nothing was cut");
            }
        }
    }

    fn starting(&self, pid: u32, attempt: u32) {
        if attempt > 1 || self.json {
            tracing::info!(pid, attempt, "starting Envoy {}", self.version);
            return;
        }
        say!(
            "starting    Envoy {} ({}), process {pid}",
            self.version,
            self.program.display()
        );
    }

    fn ready(&self, ready: &Ready) {
        let sockets = |addresses: &[std::net::SocketAddr]| {
            addresses
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        let (proxy, transparent) = (sockets(&ready.proxy), sockets(&ready.transparent));
        if self.json {
            say!(
                "{}",
                json!({
                    "event": "ready", "proxy": proxy, "transparent": transparent,
                    "admin": ready.admin.to_string(), "control": self.control,
                    "envoy": self.version.to_string(), "envoy_pid": ready.pid, "pid": std::process::id(),
                })
            );
            return;
        }
        for address in proxy {
            say!("proxy       http://{address}");
        }
        for address in transparent {
            say!("transparent {address}");
        }
        say!("control     {}", self.control);
        say!("admin       {}", admin(&ready.admin));
    }
}

/// How to look at it.
fn admin(place: &AdminPlace) -> String {
    match place {
        AdminPlace::Socket(path) => {
            format!("curl --unix-socket {} http://envoy/help", path.display())
        }
        AdminPlace::Tcp(address) => format!("http://{address}"),
    }
}

fn log_notice(notice: &Notice) {
    let Notice {
        level,
        code,
        text,
        remedy,
    } = notice;
    match (level, remedy.is_empty()) {
        (Level::Error, false) => tracing::error!(code, remedy, "{text}"),
        (Level::Error, true) => tracing::error!(code, "{text}"),
        (Level::Warning, false) => tracing::warn!(code, remedy, "{text}"),
        (Level::Warning, true) => tracing::warn!(code, "{text}"),
        (_, false) => tracing::info!(code, remedy, "{text}"),
        (_, true) => tracing::info!(code, "{text}"),
    }
}

fn log_line(line: &LogLine) {
    let (component, message) = (&line.component, &line.message);
    match line.level {
        Level::Error => tracing::error!(component, "envoy: {message}"),
        Level::Warning => tracing::warn!(component, "envoy: {message}"),
        Level::Info => tracing::info!(component, "envoy: {message}"),
        Level::Debug => tracing::debug!(component, "envoy: {message}"),
    }
}
