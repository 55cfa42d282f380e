//! A real Envoy under `outgate envoy run`, beside a gateway that is its control plane.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, ExitStatus},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    gateway::{Gateway, binary},
    process::{CommandOutput, Process, children, signal_to, status_field},
};

/// The Envoy binary: `OUTGATE_ENVOY`.
///
/// # Panics
/// If it is not there, with how to get it.
#[must_use]
pub fn envoy_binary() -> PathBuf {
    let path = PathBuf::from(std::env::var_os("OUTGATE_ENVOY").unwrap_or_default());
    assert!(
        path.is_file(),
        "OUTGATE_ENVOY={}: no such file: `cargo xtask envoy` installs one and prints its path",
        path.display()
    );
    path
}

/// A supervised Envoy. Killed, with its Envoy, when dropped.
pub struct Envoy {
    supervisor: Process,
    ready: Value,
}

impl Envoy {
    /// Starts an Envoy by a gateway's config, which has `envoy` and `listen.xds`, and waits until it serves. What it
    /// logs goes to the gateway's log.
    ///
    /// # Errors
    /// The output of `outgate envoy run`, if it ended or was not ready in time.
    pub fn start(gateway: &Gateway) -> Result<Self, CommandOutput> {
        let mut command = Command::new(binary());
        command
            .args(["envoy", "run", "--json", "--config"])
            .arg(gateway.config_file())
            .arg("--state-dir")
            .arg(gateway.state())
            .arg("--envoy")
            .arg(envoy_binary())
            .env("RUST_LOG", gateway.log_filter())
            .env("RUST_BACKTRACE", "0")
            .current_dir(gateway.folder());
        let (supervisor, ready) = Process::start(&mut command, gateway.log())?;
        Ok(Self { supervisor, ready })
    }

    /// The ready line.
    #[must_use]
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// The first explicit proxy.
    ///
    /// # Panics
    /// If the ready line names none.
    #[must_use]
    pub fn proxy(&self) -> SocketAddr {
        let text = self.ready["proxy"][0].as_str().expect("a proxy address");
        text.parse().expect("a socket address")
    }

    /// The Envoys that the supervisor has at this moment: one, or none while it is being started again.
    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        children(self.supervisor.id())
    }

    /// Kills Envoy, not its supervisor, and returns the process ids that were killed.
    pub fn kill_envoy(&self) -> Vec<u32> {
        let ids = self.ids();
        for id in &ids {
            signal_to(*id, Signal::KILL);
        }
        ids
    }

    /// Begins a graceful stop of both.
    pub fn begin_stop(&self) {
        self.supervisor.signal(Signal::TERM);
    }

    /// Waits for the end of a graceful stop.
    ///
    /// # Panics
    /// If the supervisor is still there after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.supervisor.wait(limit)
    }

    /// Whether the supervisor still runs.
    pub fn is_running(&mut self) -> bool {
        self.supervisor.is_running()
    }

    /// Resident memory of both, in KiB.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let ids = self.ids().into_iter().chain([self.supervisor.id()]);
        ids.map(|id| status_field(id, "VmRSS:")).sum()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let ids = self.ids();
        self.supervisor.signal(Signal::KILL);
        for id in ids {
            signal_to(id, Signal::KILL);
        }
    }
}

/// A port of loopback that nothing else takes: outside the range from which the kernel gives to others, and another
/// one in every process and at every call.
///
/// # Panics
/// If a thousand in a row are taken.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    let free = (0..1000).find_map(|_| {
        // Processes that run at the same time have ids near to each other; each gets a row of eight.
        let call = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let place = (std::process::id().wrapping_mul(8)).wrapping_add(call) % COUNT;
        let port = u16::try_from(FIRST + place).expect("below 65536");
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        TcpListener::bind(address).is_ok().then_some(port)
    });
    free.expect("a free port")
}
