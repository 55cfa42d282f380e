//! Connections that do nothing, each after one request: what does a peer keep for them?

use std::{io, sync::Arc};

use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    Outcome,
    arguments::WorkArguments,
    connection::Connection,
    meter::{Meter, Reading},
    report::{self, Measured, float, put},
    tally::Recorder,
    target::Target,
    window,
};
use crate::processes::{Depth, Usage};

/// Seconds to hold them, and to wait after they were closed.
const HOLD: f64 = 2.0;

pub(super) async fn run(
    count: usize,
    work: &WorkArguments,
    target: Target,
    meter: &Meter,
) -> anyhow::Result<Outcome> {
    let hold = window::seconds(work.hold.unwrap_or(HOLD))?;
    let recorder = Arc::new(Recorder::default());
    let begin = meter.begin(Depth::Full).await?;
    recorder.open();
    let held = open_all(count, work.conc, Arc::new(target), &recorder).await;
    let tally = recorder.close();
    tokio::time::sleep(hold).await;
    let end = meter.end(Depth::Full).await?;
    drop(held);
    tokio::time::sleep(hold).await;
    let closed = meter.usages(Depth::Quick);
    let mut measured = window::measured(tally, begin, end);
    each(meter, &mut measured, &closed);
    Ok(report::outcome(meter, measured))
}

/// Opens `at_a_time` of them at a time; those that failed are errors.
async fn open_all(
    count: usize,
    at_a_time: usize,
    target: Arc<Target>,
    recorder: &Arc<Recorder>,
) -> Vec<Connection> {
    let permits = Arc::new(Semaphore::new(at_a_time));
    let opening: JoinSet<_> = (0..count)
        .map(|_| {
            let (permits, target) = (Arc::clone(&permits), Arc::clone(&target));
            let recorder = Arc::clone(recorder);
            async move {
                let _permit = permits.acquire().await;
                let opened = open(&target, &recorder).await;
                opened.inspect_err(|problem| recorder.error(problem)).ok()
            }
        })
        .collect();
    opening.join_all().await.into_iter().flatten().collect()
}

async fn open(target: &Target, recorder: &Recorder) -> io::Result<Connection> {
    let (mut connection, took) = Connection::dial(target).await?;
    let bytes = connection.fetch().await?;
    recorder.ok(bytes, took);
    Ok(connection)
}

fn each(meter: &Meter, measured: &mut Measured, closed: &[Usage]) {
    let Reading { usages: before, .. } = &measured.begin;
    let Reading { usages: after, .. } = &measured.end;
    let connections = float(measured.tally.ok.max(1));
    let readings = before.iter().zip(after).zip(closed);
    for (watch, ((before, after), closed)) in meter.watches.iter().zip(readings) {
        let name = &watch.name;
        let out = &mut measured.more;
        let rss = float(after.rss_kib) - float(before.rss_kib);
        let pss = float(after.pss_kib) - float(before.pss_kib);
        put(out, &format!("{name}_kib_per_conn"), rss / connections);
        put(out, &format!("{name}_pss_kib_per_conn"), pss / connections);
        out.insert(format!("{name}_rss_after_close"), closed.rss_kib.into());
        out.insert(format!("{name}_fds"), after.descriptors.into());
    }
}
