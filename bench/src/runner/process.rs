//! Programs that a run starts, and their end. Each has a process group of its own, so that the terminal's Ctrl-C reaches
//! the runner alone, and what it started ends with it in the order that it says.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

const POLL: Duration = Duration::from_millis(10);
/// How long a program has after it was asked to end.
const GRACE: Duration = Duration::from_secs(3);

/// Whether the user asked for the end.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Hears `SIGINT` and `SIGTERM`.
    pub(crate) fn install() -> Result<Self> {
        let heard = Self::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&heard.0))?;
        }
        Ok(heard)
    }

    /// # Errors
    /// It came.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    /// Sleeps, unless it comes.
    pub(crate) fn sleep(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check()?;
            thread::sleep(POLL.min(time));
        }
        self.check()
    }
}

/// A program in the background. It ends with this value, and whatever it started in its group too.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts it; what it says goes to the file `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| log.display().to_string())?;
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        Self::spawn(command)
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended. It is not reaped, so that its number stays its own.
    pub(crate) fn ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(
            waitid(WaitId::Pid(Pid::from_child(&self.child)), options),
            Ok(None)
        )
    }

    /// # Errors
    /// It has not ended within `limit`.
    pub(crate) fn wait(&self, limit: Duration, interrupt: &Interrupt) -> Result<()> {
        let end = Instant::now() + limit;
        while !self.ended() {
            interrupt.check()?;
            ensure!(Instant::now() < end, "not done after {} s", limit.as_secs());
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        let end = Instant::now() + GRACE;
        // A group that is gone already is what is wanted.
        let _ = kill_process_group(group, Signal::TERM);
        while !self.ended() && Instant::now() < end {
            thread::sleep(POLL);
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Runs a program to its end and gives what it printed. `limit` is a last resort.
///
/// # Errors
/// It did not end well; the text has what it said.
pub(crate) fn output(
    command: &mut Command,
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = Process::spawn(command)?;
    let mut readers = Vec::new();
    for pipe in [
        process
            .child
            .stdout
            .take()
            .map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>),
        process
            .child
            .stderr
            .take()
            .map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>),
    ] {
        readers.push(thread::spawn(move || pipe.map(std::io::read_to_string)));
    }
    process
        .wait(limit, interrupt)
        .with_context(|| program.clone())?;
    let mut texts = readers.into_iter().map(|reader| match reader.join() {
        Ok(Some(Ok(text))) => text,
        _ => String::new(),
    });
    let (printed, said) = (
        texts.next().unwrap_or_default(),
        texts.next().unwrap_or_default(),
    );
    let status = process.child.wait()?;
    if !status.success() {
        bail!("{program}: {status}: {}{}", said.trim(), printed.trim());
    }
    Ok(printed)
}
