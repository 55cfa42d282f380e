//! Runs a step: announces it, bounds it in time, and keeps what came of it for the summary.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    path::Path,
    process::{Command, ExitCode, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A program to run, and how long it may take.
pub(crate) struct Task {
    command: Command,
    minutes: u64,
}

impl Task {
    /// A program, killed with everything it started after `minutes`, and when this program dies.
    pub(crate) fn new(program: impl AsRef<OsStr>, minutes: u64) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--", "timeout", "--kill-after=15"]);
        command
            .arg(format!("{minutes}m"))
            .arg(program)
            .stdin(Stdio::null());
        Self { command, minutes }
    }

    /// `cargo`, the one that runs this program.
    pub(crate) fn cargo(minutes: u64) -> Self {
        Self::new(
            std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            minutes,
        )
    }

    /// Adds arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs in this folder.
    pub(crate) fn inside(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Runs it; what it prints goes where this program prints.
    ///
    /// # Errors
    /// How it ended, if not well.
    pub(crate) fn run(mut self) -> Result<(), String> {
        verdict(self.command.status(), self.minutes)
    }

    /// Runs it; what it prints on both streams goes to this file.
    fn run_into(mut self, file: &Path) -> Result<(), String> {
        let status = File::create(file).and_then(|printed| {
            let command = self.command.stdout(printed.try_clone()?).stderr(printed);
            command.status()
        });
        verdict(status, self.minutes)
    }

    /// Runs it and returns what it printed on standard output.
    ///
    /// # Errors
    /// How it ended, if not well, with what it said.
    pub(crate) fn output(mut self) -> Result<Vec<u8>, String> {
        let output = self
            .command
            .output()
            .map_err(|error| format!("cannot start it: {error}"))?;
        if output.status.success() {
            Ok(output.stdout)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    /// Whether it runs and exits with 0.
    pub(crate) fn succeeds(self) -> bool {
        self.output().is_ok()
    }
}

fn verdict(status: io::Result<ExitStatus>, minutes: u64) -> Result<(), String> {
    let status = status.map_err(|error| format!("cannot start it: {error}"))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(124 | 137) => Err(format!("stopped after {minutes} minutes")),
        Some(code) => Err(format!("exit status {code}")),
        None => Err("ended by a signal".to_owned()),
    }
}

/// What came of each step so far.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<Step>,
    notes: Vec<String>,
}

struct Step {
    name: String,
    took: Duration,
    outcome: Result<(), String>,
}

impl Steps {
    /// Runs one step. A failed step does not keep the next ones from running, so that one run says all there is to
    /// say; the answer tells whether it went well, for steps that cannot do without it.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<(), String>) -> bool {
        println!("\n=== {name}");
        let start = Instant::now();
        let outcome = work();
        self.count(name, start.elapsed(), outcome)
    }

    /// Runs steps, and beside them commands of this program, each in a process of its own. Each of them is a step here; what
    /// it prints grows in a file in `folder` and is shown when it is over, in their order.
    pub(crate) fn beside<const N: usize>(
        &mut self,
        folder: &Path,
        others: [(&str, Task); N],
        work: impl FnOnce(&mut Self),
    ) {
        thread::scope(|scope| {
            let started = others.map(|(name, task)| {
                let file = folder.join(name).with_extension("log");
                println!("\n=== {name}, beside what follows: {}", file.display());
                let start = Instant::now();
                let over = scope.spawn({
                    let file = file.clone();
                    move || (task.run_into(&file), start.elapsed())
                });
                (name, file, over)
            });
            work(self);
            for (name, file, over) in started {
                let (outcome, took) = over.join().unwrap_or_else(|_| {
                    let outcome = Err("it could not be run".to_owned());
                    (outcome, Duration::ZERO)
                });
                println!("\n=== {name}, beside the steps before");
                // What cannot be shown is no reason to stop.
                let _ = File::open(&file).and_then(|mut it| io::copy(&mut it, &mut io::stdout()));
                self.count(name, took, outcome);
            }
        });
    }

    fn count(&mut self, name: &str, took: Duration, outcome: Result<(), String>) -> bool {
        if let Err(problem) = &outcome {
            println!("=== {name} FAILED: {problem}");
        }
        let well = outcome.is_ok();
        self.done.push(Step {
            name: name.to_owned(),
            took,
            outcome,
        });
        well
    }

    /// Counts a step that could not be run at all.
    pub(crate) fn fail(&mut self, name: &str, problem: &str) {
        self.step(name, || Err(problem.to_owned()));
    }

    /// Says in the summary what was not looked at, and why.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Prints what came of every step.
    pub(crate) fn summarize(&self) -> ExitCode {
        println!("\n=== summary");
        for Step {
            name,
            took,
            outcome,
        } in &self.done
        {
            let verdict = outcome
                .as_ref()
                .map_or_else(|problem| format!("FAILED: {problem}"), |()| "ok".to_owned());
            println!("{:>8.1} s  {name}: {verdict}", took.as_secs_f64());
        }
        for note in &self.notes {
            println!("    note:  {note}");
        }
        let failed = self
            .done
            .iter()
            .filter(|step| step.outcome.is_err())
            .count();
        println!(
            "steps: {} passed, {failed} failed",
            self.done.len() - failed
        );
        if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// What the compiler calls this machine.
///
/// # Errors
/// Why it cannot be asked.
pub(crate) fn host_triple() -> Result<String, String> {
    let told = Task::new("rustc", 1).args(["-vV"]).output()?;
    let told = String::from_utf8_lossy(&told).into_owned();
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| "rustc -vV names no host".to_owned())
}
