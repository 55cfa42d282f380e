//! The process itself: started by a thread that lives as long, reaped by it, signalled by its group.

use std::{
    ffi::OsString,
    io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};
use tokio::sync::{mpsc, oneshot};

use super::{HELPER, SuperviseError, error::failed, lines};

/// Lines that may wait to be read.
const LINES: usize = 4096;

/// A running Envoy; killed on drop.
pub(super) struct Process {
    pid: u32,
    handle: Handle,
    ended: oneshot::Receiver<ExitStatus>,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts `helper` in the role that becomes `program` with these flags.
    pub(super) fn start(
        helper: &Path,
        program: &Path,
        flags: &[OsString],
    ) -> Result<Self, SuperviseError> {
        let mut command = Command::new(helper);
        only_harmless(&mut command);
        command
            .arg(HELPER)
            .arg(std::process::id().to_string())
            .arg(program)
            .args(flags)
            .stdin(Stdio::null())
            // A terminal's ^C is for the supervisor, which ends Envoy in order.
            .process_group(0);
        let (reader, writer) = io::pipe().map_err(failed("make a pipe for Envoy's log"))?;
        let copy = writer
            .try_clone()
            .map_err(failed("make a pipe for Envoy's log"))?;
        command.stdout(copy).stderr(writer);

        let handle = Handle::default();
        let (started, starting) = std::sync::mpsc::channel();
        let (end, ended) = oneshot::channel();
        let (line, lines) = mpsc::channel(LINES);
        let held = handle.clone();
        thread("envoy", move || {
            let child = command.spawn();
            // Its ends of the pipe go with it, or the log would never end.
            drop(command);
            match child {
                Ok(child) => live_with(child, &held, &started, end),
                Err(error) => drop(started.send(Err(error))),
            }
        })?;
        let pid = starting
            .recv()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
            .map_err(failed("start Envoy"))?;
        thread("envoy-log", move || lines::forward(reader, &line))?;
        Ok(Self {
            pid,
            handle,
            ended,
            lines,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The next line, or its end. Lines come first, and after its end there may be more of them.
    pub(super) async fn next(&mut self) -> Happening {
        tokio::select! {
            biased;
            Some(line) = self.lines.recv() => Happening::Line(line),
            status = &mut self.ended => Happening::Ended(status.unwrap_or_default()),
        }
    }

    /// The next of the lines that it left behind.
    pub(super) async fn next_line(&mut self) -> Option<String> {
        self.lines.recv().await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.handle.signal(Signal::KILL);
    }
}

/// Its id, until it is reaped: after that the number may be somebody else's.
#[derive(Clone, Default)]
pub(super) struct Handle(Arc<Mutex<Option<Pid>>>);

impl Handle {
    /// Sends a signal to it, and to what it may have started; nothing if it has ended.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = *self.lock() {
            // It may have ended in this moment, and is not reaped while the lock is held.
            let _ = kill_process_group(pid, signal);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a process does.
pub(super) enum Happening {
    Line(String),
    Ended(ExitStatus),
}

fn live_with(
    mut child: Child,
    handle: &Handle,
    started: &std::sync::mpsc::Sender<io::Result<u32>>,
    end: oneshot::Sender<ExitStatus>,
) {
    let pid = Pid::from_child(&child);
    *handle.lock() = Some(pid);
    let _ = started.send(Ok(child.id()));
    // Not reaped by this, so that its number stays its own until nobody signals it any more.
    let how = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while matches!(waitid(WaitId::Pid(pid), how), Err(Errno::INTR)) {}
    *handle.lock() = None;
    let _ = end.send(child.wait().unwrap_or_default());
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), SuperviseError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(failed("start a thread"))
}

/// How a process ended, in words.
pub(super) fn described(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => {
            let name = Signal::from_named_raw(signal).map(|it| format!("{it:?}"));
            // `"Signal::KILL"`, as the library writes it.
            let name = name.as_deref().and_then(|it| it.rsplit(':').next());
            let name = name.map(|it| format!(" (SIG{})", it.trim_matches('"')));
            format!("was killed by signal {signal}{}", name.unwrap_or_default())
        }
        (None, None) => "ended".to_owned(),
    }
}

/// The gateway's environment may hold credentials, and Envoy needs none of it.
fn only_harmless(command: &mut Command) {
    const NEEDED: [&str; 6] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH"];
    command.env_clear();
    command.envs(std::env::vars_os().filter(|(name, _)| NEEDED.iter().any(|it| name == it)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_with_the_names_of_signals() {
        let shown = |raw| described(ExitStatus::from_raw(raw));
        assert_eq!(shown(9), "was killed by signal 9 (SIGKILL)");
        assert_eq!(shown(11), "was killed by signal 11 (SIGSEGV)");
        assert_eq!(shown(1 << 8), "ended with exit code 1");
    }
}
