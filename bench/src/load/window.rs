//! Measures work that goes on by itself: for a time, or until all of it is done.

use std::{sync::Arc, time::Duration};

use serde_json::Map;
use tokio::task::JoinSet;

use super::{arguments::WorkArguments, meter::Meter, report::Measured, tally::Recorder};
use crate::processes::Depth;

/// Measured, unless something else is asked for.
const LENGTH: f64 = 5.0;
const WARM_UP: f64 = 1.0;

/// Runs what `start` starts. Where no number of requests was asked for, it is ended after the window.
pub(super) async fn measure(
    work: &WorkArguments,
    meter: &Meter,
    recorder: &Recorder,
    start: impl FnOnce() -> JoinSet<()>,
) -> anyhow::Result<Measured> {
    if work.count.is_some() {
        let begin = meter.begin(Depth::Quick).await?;
        recorder.open();
        start().join_all().await;
        let tally = recorder.close();
        let end = meter.end(Depth::Quick).await?;
        return Ok(measured(tally, begin, end));
    }
    let running = start();
    tokio::time::sleep(seconds(work.warmup.unwrap_or(WARM_UP))?).await;
    let begin = meter.begin(Depth::Quick).await?;
    recorder.open();
    tokio::time::sleep(seconds(work.duration.unwrap_or(LENGTH))?).await;
    let tally = recorder.close();
    let end = meter.end(Depth::Quick).await?;
    drop(running);
    Ok(measured(tally, begin, end))
}

/// How many seconds a measured run lasts in all; a schedule needs to know.
pub(super) fn length(work: &WorkArguments) -> f64 {
    work.warmup.unwrap_or(WARM_UP) + work.duration.unwrap_or(LENGTH)
}

pub(super) fn measured(
    tally: super::tally::Tally,
    begin: super::meter::Reading,
    end: super::meter::Reading,
) -> Measured {
    Measured {
        tally,
        begin,
        end,
        more: Map::new(),
    }
}

pub(super) fn seconds(seconds: f64) -> anyhow::Result<Duration> {
    Ok(Duration::try_from_secs_f64(seconds)?)
}

/// One task for each of `count` workers.
pub(super) fn workers<T, F>(
    count: usize,
    shared: &Arc<T>,
    worker: impl Fn(Arc<T>) -> F,
) -> JoinSet<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    (0..count).map(|_| worker(Arc::clone(shared))).collect()
}
