//! Requests, one after another on each connection or each on its own.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Outcome,
    arguments::WorkArguments,
    connection::Connection,
    meter::Meter,
    pace::{Pace, Turn},
    report,
    tally::Recorder,
    target::Target,
    window,
};
use crate::clock;

/// A peer that refuses everything must not be asked as fast as this process can.
const FAILURES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);
/// A peer that does not take the end of a connection does not hold the next one up.
const CLOSING: Duration = Duration::from_millis(200);

struct Load {
    target: Target,
    recorder: Recorder,
    pace: Pace,
    new_connections: bool,
}

pub(super) async fn run(
    work: &WorkArguments,
    target: Target,
    meter: &Meter,
) -> anyhow::Result<Outcome> {
    let load = Arc::new(Load {
        target,
        recorder: Recorder::default(),
        pace: Pace::new(work)?,
        new_connections: work.new_conn,
    });
    let start = || window::workers(work.conc, &load, worker);
    let mut measured = window::measure(work, meter, &load.recorder, start).await?;
    if let Some(missed) = load.pace.missed().await {
        measured.more.insert("unsent".into(), missed.into());
    }
    Ok(report::outcome(meter, measured))
}

async fn worker(load: Arc<Load>) {
    let mut connection = None;
    let mut failures = 0;
    while let Some(turn) = load.pace.turn().await {
        match load.exchange(&mut connection, &turn).await {
            Ok(()) => failures = 0,
            Err(problem) => {
                load.recorder.error(&problem);
                connection = None;
                failures += 1;
                if failures > FAILURES {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        let ended = |open: &mut Connection| load.new_connections || !open.keeps();
        if let Some(open) = connection.take_if(ended) {
            let _ = tokio::time::timeout(CLOSING, open.close()).await;
        }
    }
}

impl Load {
    async fn exchange(&self, connection: &mut Option<Connection>, turn: &Turn) -> io::Result<()> {
        let begun = Instant::now();
        let open = match connection {
            Some(open) => open,
            None => {
                let (open, took) = Connection::dial(&self.target).await?;
                self.recorder.handshake(took);
                connection.insert(open)
            }
        };
        let bytes = open.fetch().await?;
        self.recorder.ok(bytes, clock::as_ns(begun.elapsed()));
        if let Turn::Due(due) = turn {
            self.recorder.scheduled(clock::as_ns(due.elapsed()));
        }
        Ok(())
    }
}
