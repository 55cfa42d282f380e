//! Streams that somebody else cuts: how long after the word was given does each end?
//!
//! Whoever gives the word waits for the file `--when-ready`, writes the time (nanoseconds since 1970) into the file
//! `--cut-after-file`, and cuts. Or sends SIGUSR1, and cuts.

use std::{fs, io, path::Path, time::Duration};

use anyhow::Context;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::UnboundedReceiver,
    time::Instant,
};

use super::{
    Outcome,
    arguments::WorkArguments,
    meter::Meter,
    report,
    streams::{self, Life},
    tally::Recorder,
    target::Target,
    window,
};
use crate::{clock, processes::Depth};

/// Seconds until a stream that still lives counts as not cut.
const HOLD: f64 = 10.0;
/// How often the file is looked for. The time is in it, so that this is not part of what is measured.
const LOOK: Duration = Duration::from_millis(1);

pub(super) async fn run(
    work: &WorkArguments,
    target: Target,
    meter: &Meter,
) -> anyhow::Result<Outcome> {
    let hold = window::seconds(work.hold.unwrap_or(HOLD))?;
    // Before anybody is told that the word may be given: unheard, the signal would end this process.
    let mut word = signal(SignalKind::user_defined1())?;
    let (running, streams, mut lives) = streams::start(work, target);
    let live = streams::begun(work.conc, &mut lives).await;
    let begin = meter.begin(Depth::Quick).await?;
    if let Some(path) = &work.when_ready {
        announce(path, live)?;
    }
    let given = wait(&mut word, work.cut_after_file.as_deref()).await;
    // What streams counted and complained of so far was about events.
    let opened = streams.recorder.close();
    let cuts = Recorder::default();
    cuts.open();
    let left = collect(live, given, hold, &mut lives, &cuts).await;
    let mut tally = cuts.close();
    tally.err += left as u64;
    tally.err_all = tally.err + opened.err_all;
    tally.first_error = tally.first_error.or(opened.first_error);
    let end = meter.end(Depth::Quick).await?;
    drop(running);
    let mut measured = window::measured(tally, begin, end);
    measured.more.insert("streams".into(), live.into());
    measured.more.insert("uncut".into(), left.into());
    let outcome = report::outcome(meter, measured);
    let success = outcome.success && left == 0;
    Ok(Outcome { success, ..outcome })
}

/// Counts the ends of `live` streams; how many are left after `hold`.
async fn collect(
    live: usize,
    given: u64,
    hold: Duration,
    lives: &mut UnboundedReceiver<Life>,
    cuts: &Recorder,
) -> usize {
    let until = Instant::now() + hold;
    let mut left = live;
    while left > 0 {
        match tokio::time::timeout_at(until, lives.recv()).await {
            Ok(Some(Life::Ended(at))) => {
                left -= 1;
                match at.checked_sub(given) {
                    Some(ns) => cuts.ok(0, ns),
                    None => cuts.error(&io::Error::other("ended before the word was given")),
                }
            }
            Ok(Some(Life::Begun | Life::Failed)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    left
}

/// Writes the file whole or not at all.
fn announce(path: &Path, live: usize) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, format!("{live}\n"))
        .and_then(|()| fs::rename(&part, path))
        .with_context(|| path.display().to_string())
}

/// The moment that the word was given, by the monotonic clock.
async fn wait(word: &mut Signal, file: Option<&Path>) -> u64 {
    let Some(path) = file else {
        word.recv().await;
        return clock::monotonic_ns();
    };
    loop {
        if let Ok(text) = fs::read_to_string(path) {
            return moment(&text);
        }
        tokio::select! {
            _ = word.recv() => return clock::monotonic_ns(),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// What the file says, or now.
fn moment(text: &str) -> u64 {
    let now = clock::monotonic_ns();
    let ago = text
        .trim()
        .parse()
        .map(|at| clock::unix_ns().saturating_sub(at));
    now.saturating_sub(ago.unwrap_or(0))
}
