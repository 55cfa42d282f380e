//! A program under test that says on standard output, once, that it is ready, and logs on standard error.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};
use serde_json::Value;

/// How long a program may take until it is ready.
const START: Duration = Duration::from_secs(20);

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct CommandOutput {
    /// Exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl CommandOutput {
    /// Runs a program to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn of(command: &mut Command) -> Self {
        let output = command
            .stdin(Stdio::null())
            .output()
            .expect("the program runs");
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// What one or more processes logged, line by line in the order of arrival.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Everything so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic holds it")).into_owned()
    }

    fn collect(&self, from: impl Read + Send + 'static) -> JoinHandle<()> {
        let Self(lines) = self.clone();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while let Ok(1..) = from.read_until(b'\n', &mut line) {
                lines.lock().expect("no panic holds it").append(&mut line);
            }
        })
    }
}

/// A running program; killed when dropped.
pub struct Process {
    child: Child,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a program and waits for its ready line, which is one JSON document.
    ///
    /// # Errors
    /// Its output, if it ended or was not ready in time.
    ///
    /// # Panics
    /// If it cannot be started, or says something else.
    pub fn start(command: &mut Command, log: &Log) -> Result<(Self, Value), CommandOutput> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let (send_line, lines) = mpsc::channel();
        let readers = vec![
            collect_lines(child.stdout.take().expect("piped"), send_line),
            log.collect(child.stderr.take().expect("piped")),
        ];
        let mut process = Self { child, readers };
        match lines.recv_timeout(START) {
            Ok(line) => {
                let ready = serde_json::from_str(&line).expect("the ready line is JSON");
                Ok((process, ready))
            }
            Err(_) => {
                let code = process.kill().code();
                Err(CommandOutput {
                    code,
                    stdout: String::new(),
                    stderr: log.text(),
                })
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        signal_to(self.id(), signal);
    }

    /// Kills it and what it started, and waits for its end.
    ///
    /// # Panics
    /// If it is no child.
    pub fn kill(&mut self) -> ExitStatus {
        // What it started would hold its pipes open for ever.
        let started = children(self.id());
        let _ = self.child.kill();
        for id in started {
            signal_to(id, Signal::KILL);
        }
        let status = self.child.wait().expect("a child");
        self.join();
        status
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it is still there after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                self.join();
                return status;
            }
            assert!(begin.elapsed() < limit, "still running after {limit:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn join(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its readers end when the last holder of the pipes does, which need not be it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process, if there is one.
pub fn signal_to(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The processes that this one started and that still run.
#[must_use]
pub fn children(id: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|child: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // The name, in brackets, may hold anything; state and parent follow it.
        let mut rest = stat.rsplit(')').next().unwrap_or("").split_whitespace();
        let dead = matches!(rest.next(), Some("Z" | "X"));
        !dead && rest.next() == Some(id.to_string().as_str())
    })
    .collect()
}

/// A number of `/proc/<id>/status`, such as `VmRSS:`, in KiB; 0 if there is no such process.
#[must_use]
pub fn status_field(id: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn collect_lines(from: impl Read + Send + 'static, into: mpsc::Sender<String>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = into.send(line);
        }
    })
}
