//! When the next request begins.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{
    Mutex,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use super::{arguments::WorkArguments, window};

pub(super) enum Pace {
    /// At once.
    Free,
    /// At once, while there are requests left.
    Counted(AtomicU64),
    /// At the moments of a schedule, which does not wait for answers.
    Scheduled(Mutex<UnboundedReceiver<Instant>>),
}

/// A request may begin.
pub(super) enum Turn {
    Now,
    /// It should have begun then.
    Due(Instant),
}

impl Pace {
    pub(super) fn new(work: &WorkArguments) -> anyhow::Result<Self> {
        match (work.count, work.rate) {
            (Some(count), _) => Ok(Self::Counted(AtomicU64::new(count))),
            (None, Some(rate)) => schedule(rate, window::length(work)),
            (None, None) => Ok(Self::Free),
        }
    }

    /// Waits for the next turn; `None` when there are no more.
    pub(super) async fn turn(&self) -> Option<Turn> {
        match self {
            Self::Free => Some(Turn::Now),
            Self::Counted(left) => left
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                })
                .ok()
                .map(|_| Turn::Now),
            Self::Scheduled(due) => due.lock().await.recv().await.map(Turn::Due),
        }
    }

    /// Turns that nobody has taken, since every connection was busy.
    pub(super) async fn missed(&self) -> Option<usize> {
        match self {
            Self::Scheduled(due) => Some(due.lock().await.len()),
            Self::Free | Self::Counted(_) => None,
        }
    }
}

/// A thread keeps the time: the runtime's timer is a millisecond coarse, which is more than a gateway adds.
fn schedule(rate: f64, length: f64) -> anyhow::Result<Pace> {
    anyhow::ensure!(rate > 0.0, "--rate has to be above zero");
    let every = window::seconds(1.0 / rate)?;
    let length = window::seconds(length)?;
    let (sender, due) = unbounded_channel();
    thread::Builder::new().spawn(move || keep_time(every, length, &sender))?;
    Ok(Pace::Scheduled(Mutex::new(due)))
}

fn keep_time(every: Duration, length: Duration, sender: &UnboundedSender<Instant>) {
    let begin = Instant::now();
    let mut at = Duration::ZERO;
    while at < length {
        thread::sleep((begin + at).saturating_duration_since(Instant::now()));
        if sender.send(begin + at).is_err() {
            return;
        }
        at += every;
    }
}
