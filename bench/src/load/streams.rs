//! Streams of server-sent events: how late each event is, or how soon each stream ends when it is cut.

use std::{io, sync::Arc};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    Outcome,
    arguments::WorkArguments,
    h1::{Framing, H1},
    meter::Meter,
    report,
    tally::Recorder,
    target::Target,
    window,
};
use crate::{clock, processes::Depth, upstream::Repeated};

/// What streams report on.
pub(super) struct Streams {
    target: Target,
    pub recorder: Recorder,
    opening: Semaphore,
}

/// A stream's life, for whoever waits for all of them.
#[derive(Debug)]
pub(super) enum Life {
    /// It has had its first event.
    Begun,
    /// It could not be opened, or ended before an event.
    Failed,
    /// It ended at this moment of the monotonic clock, in good order or not.
    Ended(u64),
}

pub(super) async fn run(
    work: &WorkArguments,
    target: Target,
    meter: &Meter,
) -> anyhow::Result<Outcome> {
    let (mut running, streams, mut lives) = start(work, target);
    let live = begun(work.conc, &mut lives).await;
    tokio::time::sleep(window::seconds(work.warmup.unwrap_or(0.0))?).await;
    let begin = meter.begin(Depth::Quick).await?;
    streams.recorder.open();
    let all = async { while running.join_next().await.is_some() {} };
    match work.duration {
        Some(duration) => {
            let _ = tokio::time::timeout(window::seconds(duration)?, all).await;
        }
        None => all.await,
    }
    let tally = streams.recorder.close();
    let end = meter.end(Depth::Quick).await?;
    let mut measured = window::measured(tally, begin, end);
    measured.more.insert("streams".into(), live.into());
    if measured.tally.ok == 0 {
        let problem = "no event after the last stream had begun: ask for more of them";
        let first = &mut measured.tally.first_error;
        first.get_or_insert_with(|| problem.to_owned());
    }
    Ok(report::outcome(meter, measured))
}

/// Starts all streams, and tells what becomes of each.
pub(super) fn start(
    work: &WorkArguments,
    target: Target,
) -> (JoinSet<()>, Arc<Streams>, mpsc::UnboundedReceiver<Life>) {
    let (tell, lives) = mpsc::unbounded_channel();
    let streams = Arc::new(Streams {
        target,
        recorder: Recorder::default(),
        opening: Semaphore::new(work.opening.max(1)),
    });
    let running = window::workers(work.conc, &streams, |streams| {
        let tell = tell.clone();
        async move { streams.live(&tell).await }
    });
    (running, streams, lives)
}

/// Waits until every one of `count` streams has begun or failed; how many live. None has been seen to end by then,
/// or its end is for whoever asks next.
pub(super) async fn begun(count: usize, lives: &mut mpsc::UnboundedReceiver<Life>) -> usize {
    let (mut live, mut told) = (0, 0);
    while told < count {
        match lives.recv().await {
            Some(Life::Begun) => (live, told) = (live + 1, told + 1),
            Some(Life::Failed) => told += 1,
            // Counted again when the ends are: a stream that is over cannot be cut.
            Some(Life::Ended(_)) => live -= 1,
            None => break,
        }
    }
    live
}

impl Streams {
    /// Reads one stream to its end.
    async fn live(&self, tell: &mpsc::UnboundedSender<Life>) {
        let mut begun = false;
        let outcome = self.read(tell, &mut begun).await;
        let ended = clock::monotonic_ns();
        if let Err(problem) = outcome {
            self.recorder.error(&problem);
        }
        // Nobody listens any more where only events count.
        let _ = tell.send(if begun {
            Life::Ended(ended)
        } else {
            Life::Failed
        });
    }

    async fn read(&self, tell: &mpsc::UnboundedSender<Life>, begun: &mut bool) -> io::Result<()> {
        let permit = self.opening.acquire().await.map_err(io::Error::other)?;
        let (mut wire, mut body) = self.open().await?;
        let mut permit = Some(permit);
        let mut events = Events::default();
        loop {
            let record = &mut |sent| {
                let delay = clock::monotonic_ns().saturating_sub(sent);
                self.recorder.ok(0, delay);
                if permit.take().is_some() {
                    *begun = true;
                    let _ = tell.send(Life::Begun);
                }
            };
            if !wire
                .piece(&mut body, &mut |piece| events.take(piece, record))
                .await?
            {
                return Ok(());
            }
        }
    }

    async fn open(&self) -> io::Result<(H1, Framing)> {
        let number = self.target.number();
        let mut wire = H1::new(self.target.open(number).await?, self.target.buffer);
        let request = self.target.h1_request(number, "");
        wire.send(&request, Repeated::new(0)).await?;
        let head = wire.head().await?;
        match head.status {
            200 => Ok((wire, head.body)),
            status => Err(io::Error::other(format!("status {status}"))),
        }
    }
}

/// Lines of a stream, which may be cut anywhere.
#[derive(Debug, Default)]
struct Events {
    line: Vec<u8>,
}

impl Events {
    /// Hands on the moment that each event was sent.
    fn take(&mut self, piece: &[u8], record: &mut (dyn FnMut(u64) + Send)) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                if let Some(sent) = sent(&self.line) {
                    record(sent);
                }
                self.line.clear();
            }
        }
    }
}

fn sent(line: &[u8]) -> Option<u64> {
    let value = line.strip_prefix(b"data: ")?;
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_counts_once_wherever_the_stream_is_cut() {
        let text = b"data: 12\n\ndata: 345\n\n";
        for cut in 0..text.len() {
            let mut events = Events::default();
            let mut seen = Vec::new();
            for piece in [&text[..cut], &text[cut..]] {
                events.take(piece, &mut |sent| seen.push(sent));
            }
            assert_eq!(seen, [12, 345], "{cut}");
        }
    }
}
