//! One run: start the peer, see that it works, see that it does its job, load it, end it.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{
    MINUTE,
    ground::{FIELD, Ground, NAME, loopback},
    peers::{Peer, Running},
    process::{Process, output},
    results::Line,
    workload::{Mode, Shape, Workload},
};

/// No run lasts longer; the load generator ends sooner by itself.
const LONGEST: Duration = Duration::from_secs(150);
/// Seconds that a peer has to start: a million entries of a denylist are read first.
const STARTS: &str = "90";
/// How long a started peer rests before its memory is read.
const REST: Duration = Duration::from_secs(1);

/// What is to be measured.
pub(crate) struct Order<'a> {
    pub(crate) workload: &'static Workload,
    pub(crate) peer: Peer,
    pub(crate) program: Option<&'a Path>,
    pub(crate) round: u32,
    pub(crate) seconds: u32,
}

impl Order<'_> {
    /// The run's line. The peer has ended when this returns.
    ///
    /// # Errors
    /// The peer did not start, does not do its job, or failed every request.
    pub(crate) fn run(&self, ground: &Ground) -> Result<Line> {
        let running = self.peer.start(ground, self.program, self.workload.mode)?;
        let route = self.route(ground, &running);
        let ready = ready(ground, &route, &running).with_context(|| self.log(ground))?;
        check(ground, &route, self.workload.mode, &running)?;
        if self.workload.shape == Shape::Start {
            ground.interrupt.sleep(REST)?;
        }
        let mut words = self.words(ground, &route, &running);
        let printed = if self.workload.shape == Shape::Cut {
            cut(ground, &mut words, running)?
        } else {
            ground.run_kit(&words, LONGEST)?
        };
        let mut line: Line =
            serde_json::from_str(printed.trim()).context("the load generator's line")?;
        line.insert("ready_ms".to_owned(), ready);
        if let Some(size) = self.program.and_then(|program| fs::metadata(program).ok()) {
            line.insert("program_bytes".to_owned(), size.len().into());
        }
        Ok(line)
    }

    /// The arguments that lead to the upstream.
    fn route(&self, ground: &Ground, running: &Running) -> Vec<String> {
        let (tls, ports) = (ground.ports.tls, ground.ports);
        let mut words: Vec<String> = ["load", "--direct"].map(str::to_owned).to_vec();
        words.push(loopback(tls));
        if self.peer != Peer::Direct {
            words.extend(["--proxy".to_owned(), loopback(ports.proxy)]);
        }
        let (host, name) = match self.workload.mode {
            Mode::Mint => ("h{n}.bench.test", "h{n}.bench.test"),
            _ => (NAME, NAME),
        };
        // A peer that looks no names up is given the address.
        let host = if running.host == NAME {
            host
        } else {
            &running.host
        };
        let roots = match self.workload.mode {
            Mode::Pass => ground.certificate("upca.pem"),
            _ => running.roots.clone(),
        };
        for (flag, value) in [
            ("--connect", format!("{host}:{tls}")),
            ("--sni", name.to_owned()),
        ] {
            words.extend([flag.to_owned(), value]);
        }
        if self.workload.mode == Mode::Mint {
            // No peer has a leaf from a run before.
            words.extend([
                "--base".to_owned(),
                (running.since_ns / 1_000_000_000 * 10_000).to_string(),
            ]);
        }
        words.extend(["--ca".to_owned(), roots.display().to_string()]);
        words.extend(running.load.iter().cloned());
        words
    }

    fn words(&self, ground: &Ground, route: &[String], running: &Running) -> Vec<String> {
        let mut words = route.to_vec();
        let mut add = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
        add("--peer", self.peer.name().to_owned());
        add("--workload", self.workload.name.to_owned());
        add("--rep", self.round.to_string());
        add("--stats", loopback(ground.ports.plain));
        add("--watch", format!("up={}", ground.upstream()));
        if let Some(process) = &running.process {
            add("--watch", format!("px={}", process.id()));
        }
        words.extend(self.workload.load(self.seconds));
        words
    }

    fn log(&self, ground: &Ground) -> String {
        let text = fs::read_to_string(ground.log(self.peer.name())).unwrap_or_default();
        format!("{} did not start: {}", self.peer.name(), text.trim())
    }
}

/// Waits until a request is answered; gives the milliseconds from the peer's start.
fn ready(ground: &Ground, route: &[String], running: &Running) -> Result<Value> {
    let mut words = route.to_vec();
    let mut add = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
    add("--wait-ready", STARTS.to_owned());
    add("--max-secs", STARTS.to_owned());
    add("--since-ns", running.since_ns.to_string());
    add("--path", "/b/64".to_owned());
    if let Some(process) = &running.process {
        add("--alive", process.id().to_string());
    }
    let printed = ground.run_kit(&words, LONGEST)?;
    let mut line: Line = serde_json::from_str(printed.trim())?;
    line.remove("ready_ms").context("no ready_ms")
}

/// A peer that does not do its job is not measured.
fn check(ground: &Ground, route: &[String], mode: Mode, running: &Running) -> Result<()> {
    let mut words = route.to_vec();
    words.extend(["--check", "--path", "/echo"].map(str::to_owned));
    match (mode, &running.echo) {
        (Mode::Pass, _) => words.extend(["--forbid".to_owned(), format!("{FIELD}:")]),
        (_, Some(echo)) => words.extend(["--expect".to_owned(), echo.clone()]),
        (_, None) => {}
    }
    ground
        .run_kit(&words, MINUTE)
        .map(drop)
        .context("the peer does not do its job")
}

/// Streams, and the time from a revocation until each of them has ended.
fn cut(ground: &Ground, words: &mut Vec<String>, mut running: Running) -> Result<String> {
    let Some(mut revoke) = running.revoke.take() else {
        bail!("nothing can be revoked at this peer");
    };
    let folder = ground.fresh("cut")?;
    let (open, now, out) = (folder.join("open"), folder.join("now"), folder.join("line"));
    words.extend(["--when-ready".to_owned(), open.display().to_string()]);
    words.extend(["--cut-after-file".to_owned(), now.display().to_string()]);
    let load = Process::start(ground.kit(&[]).args(&*words), &out)?;
    wait_for(ground, &load, &open)?;
    // As a whole or not at all: whoever reads it wants the time in it.
    let part = folder.join("part");
    fs::write(&part, crate::clock::unix_ns().to_string())?;
    fs::rename(&part, &now)?;
    output(&mut revoke, MINUTE, &ground.interrupt)?;
    load.wait(LONGEST, &ground.interrupt)?;
    let line = fs::read_to_string(out)?;
    ensure!(line.contains("\"uncut\":0"), "streams went on: {line}");
    Ok(line)
}

fn wait_for(ground: &Ground, load: &Process, file: &Path) -> Result<()> {
    while !file.exists() {
        if load.ended() {
            bail!("the load generator ended before its streams were open");
        }
        ground.interrupt.sleep(Duration::from_millis(10))?;
    }
    Ok(())
}

/// Cores that the hypervisor takes away at this moment.
///
/// # Errors
/// The user asked for the end.
pub(crate) fn stolen_now(ground: &Ground) -> Result<f64> {
    const SAMPLE: Duration = Duration::from_millis(500);
    let ticks = || -> f64 {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let stolen = text
            .lines()
            .next()
            .and_then(|all| all.split_whitespace().nth(8));
        stolen.and_then(|ticks| ticks.parse().ok()).unwrap_or(0.0)
    };
    let before = ticks();
    ground.interrupt.sleep(SAMPLE)?;
    // A hundred ticks are a second.
    Ok((ticks() - before) / 100.0 / SAMPLE.as_secs_f64())
}
