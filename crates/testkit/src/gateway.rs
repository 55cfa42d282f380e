//! The real binary, started with a config and a state directory of its own and ended by its own handle.

use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

pub use crate::process::CommandOutput;
use crate::process::{Log, Process, status_field};

/// How a gateway is started.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// The config; written as JSON, which is YAML.
    pub config: Value,
    /// Further environment variables.
    pub environment: Vec<(String, String)>,
    /// `RUST_LOG`.
    pub log: String,
}

impl GatewayOptions {
    /// A config, everything logged.
    #[must_use]
    pub fn new(config: Value) -> Self {
        Self {
            config,
            environment: Vec::new(),
            log: "trace".into(),
        }
    }

    /// One more environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Another log filter.
    #[must_use]
    pub fn log(mut self, filter: &str) -> Self {
        self.log = filter.into();
        self
    }
}

/// A running gateway.
pub struct Gateway {
    folder: Arc<TempDir>,
    options: GatewayOptions,
    process: Process,
    ready: Value,
    log: Log,
}

/// The binary: `OUTGATE_BIN`, or the sibling of the running test.
///
/// # Panics
/// If it is not there, with how to build it.
#[must_use]
pub fn binary() -> PathBuf {
    let path = std::env::var_os("OUTGATE_BIN").map_or_else(
        || {
            let test = std::env::current_exe().expect("the test's own path");
            let folder = test.ancestors().nth(2).expect("target/<profile>/deps");
            folder.join("outgate")
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "the gateway binary {} is missing: run `cargo build -p outgate`, or set OUTGATE_BIN",
        path.display()
    );
    path
}

impl Gateway {
    /// Starts a gateway in a folder of its own.
    ///
    /// # Panics
    /// If it is not ready within 20 seconds.
    #[must_use]
    pub fn start(options: GatewayOptions) -> Self {
        match Self::try_start(options) {
            Ok(gateway) => gateway,
            Err(output) => panic!("the gateway did not start: {output:?}"),
        }
    }

    /// Starts a gateway, or says how it ended.
    ///
    /// # Errors
    /// Its output, if it ended or was not ready in time.
    pub fn try_start(options: GatewayOptions) -> Result<Self, CommandOutput> {
        let folder = Arc::new(TempDir::with_prefix("outgate-test").expect("a temp folder"));
        Self::start_in(folder, options)
    }

    /// Starts a gateway on a folder that another one used: a restart.
    ///
    /// # Errors
    /// As [`Gateway::try_start`].
    pub fn start_in(folder: Arc<TempDir>, options: GatewayOptions) -> Result<Self, CommandOutput> {
        let log = Log::default();
        let (process, ready) = serve(folder.path(), &options, &log)?;
        Ok(Self {
            folder,
            options,
            process,
            ready,
            log,
        })
    }

    /// Kills it, without any chance to put things in order.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same state after it ended; the log goes on.
    ///
    /// # Panics
    /// If it does not come up again.
    pub fn revive(&mut self) {
        match serve(self.folder.path(), &self.options, &self.log) {
            Ok((process, ready)) => (self.process, self.ready) = (process, ready),
            Err(output) => panic!("the gateway did not start again: {output:?}"),
        }
    }

    /// Stops it from running until [`Gateway::go_on`]: it is there, and silent.
    pub fn pause(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets it run again.
    pub fn go_on(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Stops it and starts it again on the same state.
    ///
    /// # Panics
    /// If it does not come up again.
    #[must_use]
    pub fn restart(self) -> Self {
        match self.restart_after(|_| {}) {
            Ok(gateway) => gateway,
            Err(output) => panic!("the gateway did not start again: {output:?}"),
        }
    }

    /// Stops it, lets the test change its state folder, and starts it again.
    ///
    /// # Errors
    /// As [`Gateway::try_start`].
    pub fn restart_after(mut self, change: impl FnOnce(&Path)) -> Result<Self, CommandOutput> {
        self.terminate(Duration::from_secs(20));
        let (folder, options) = (Arc::clone(&self.folder), self.options.clone());
        change(&self.state());
        drop(self);
        Self::start_in(folder, options)
    }

    /// The ready line.
    #[must_use]
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// The first proxy listener.
    #[must_use]
    pub fn proxy(&self) -> SocketAddr {
        let text = self.ready["proxy"][0].as_str().expect("a proxy address");
        text.parse().expect("a socket address")
    }

    /// The CA certificate, if there is a CA.
    #[must_use]
    pub fn ca_pem(&self) -> Option<String> {
        let path = self.ready["ca"].as_str()?;
        Some(std::fs::read_to_string(path).expect("the CA file of the ready line"))
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The folder that holds the config and the state.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The config file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("outgate.yaml")
    }

    /// Runs `outgate check` on a config, without a gateway.
    #[must_use]
    pub fn check(config: &Value) -> CommandOutput {
        let folder = TempDir::with_prefix("outgate-check").expect("a temp folder");
        write_config(folder.path(), &config.to_string());
        CommandOutput::of(
            Command::new(binary())
                .args(["check", "--config"])
                .arg(folder.path().join("outgate.yaml")),
        )
    }

    /// Runs an operator command on this gateway's state.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> CommandOutput {
        CommandOutput::of(
            Command::new(binary())
                .args(arguments)
                .arg("--state-dir")
                .arg(self.state())
                .envs(self.options.environment.iter().cloned())
                .env("RUST_LOG", "error"),
        )
    }

    /// Creates a session: its id and its token.
    ///
    /// # Panics
    /// If the gateway refuses.
    #[must_use]
    pub fn session_create(&self) -> (String, String) {
        self.session_create_with(&[])
    }

    /// Creates a session with further arguments, such as `--ttl 2s`.
    ///
    /// # Panics
    /// If the gateway refuses.
    #[must_use]
    pub fn session_create_with(&self, arguments: &[&str]) -> (String, String) {
        let arguments = [&["session", "create", "--json"], arguments].concat();
        let output = self.command(&arguments);
        assert_eq!(output.code, Some(0), "session create: {output:?}");
        let answer: Value = serde_json::from_str(&output.stdout).expect("JSON");
        let text = |key: &str| answer[key].as_str().expect("a string").to_owned();
        (text("id"), text("token"))
    }

    /// Ends a session.
    ///
    /// # Panics
    /// If the gateway refuses.
    pub fn session_end(&self, id: &str) {
        let output = self.command(&["session", "end", id]);
        assert_eq!(output.code, Some(0), "session end: {output:?}");
    }

    /// Every audit record so far, in order.
    #[must_use]
    pub fn audit_records(&self) -> Vec<Value> {
        let folder = self.options.config["audit"]["dir"]
            .as_str()
            .map_or_else(|| self.state().join("audit"), PathBuf::from);
        let Ok(text) = std::fs::read_to_string(folder.join("audit.jsonl")) else {
            return Vec::new();
        };
        // The last line may be half written.
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).expect("an audit line is JSON"))
            .collect()
    }

    /// Everything it logged so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.log.text()
    }

    /// Where what it logs is collected.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its `RUST_LOG`.
    #[must_use]
    pub fn log_filter(&self) -> &str {
        &self.options.log
    }

    /// The config that it was given last.
    #[must_use]
    pub fn config(&self) -> &Value {
        &self.options.config
    }

    /// Replaces the config file in one step. The gateway watches it.
    pub fn write_config(&mut self, config: &Value) {
        self.options.config = config.clone();
        write_config(self.folder.path(), &config.to_string());
    }

    /// Replaces the config file by any text; a restart would still use the last good one.
    pub fn write_config_text(&self, text: &str) {
        write_config(self.folder.path(), text);
    }

    /// Sends SIGHUP: reload.
    pub fn hang_up(&self) {
        self.process.signal(Signal::HUP);
    }

    /// Sends SIGTERM: stop.
    pub fn begin_stop(&self) {
        self.process.signal(Signal::TERM);
    }

    fn kernel_pid(&self) -> rustix::process::Pid {
        i32::try_from(self.pid())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .expect("a pid")
    }

    /// Sends SIGTERM and waits.
    ///
    /// # Panics
    /// If it is still there after `limit`.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.begin_stop();
        self.wait(limit)
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it is still there after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.process.wait(limit)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Lets none of its files grow over `bytes` from here on, as if the disk were full; `None` lifts the limit.
    pub fn limit_file_size(&self, bytes: Option<u64>) {
        let limit = rustix::process::Rlimit {
            current: bytes,
            maximum: None,
        };
        let resource = rustix::process::Resource::Fsize;
        rustix::process::prlimit(Some(self.kernel_pid()), resource, limit)
            .expect("a child's limit");
    }

    /// Resident memory, in KiB.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        status_field(self.pid(), "VmRSS:")
    }

    /// The most resident memory it ever had, in KiB.
    #[must_use]
    pub fn peak_resident_kib(&self) -> u64 {
        status_field(self.pid(), "VmHWM:")
    }
}

fn serve(
    folder: &Path,
    options: &GatewayOptions,
    log: &Log,
) -> Result<(Process, Value), CommandOutput> {
    write_config(folder, &options.config.to_string());
    // A write over the file size limit must fail like one on a full disk, not kill: see `limit_file_size`.
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(binary())
        .args(["serve", "--json", "--config"])
        .arg(folder.join("outgate.yaml"))
        .arg("--state-dir")
        .arg(folder.join("state"))
        .env("RUST_LOG", &options.log)
        .env("RUST_BACKTRACE", "0")
        .envs(options.environment.iter().cloned())
        .current_dir(folder);
    Process::start(&mut command, log)
}

fn write_config(folder: &Path, text: &str) {
    let mut file = tempfile::NamedTempFile::new_in(folder).expect("a temp file");
    file.write_all(text.as_bytes()).expect("space");
    file.persist(folder.join("outgate.yaml")).expect("a rename");
}
