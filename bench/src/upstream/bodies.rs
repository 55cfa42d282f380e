//! Bodies that cost the sender next to nothing.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Interval, MissedTickBehavior};

use crate::clock;

const PIECE: u64 = 64 * 1024;

/// Letters, none of which is part of a secret that a peer might look for.
static LETTERS: LazyLock<Bytes> = LazyLock::new(|| (b'a'..=b'z').cycle().take(64 * 1024).collect());

/// Letters, of a length that is said in advance.
#[derive(Debug)]
pub(crate) struct Repeated {
    left: u64,
}

impl Repeated {
    pub(crate) const fn new(length: u64) -> Self {
        Self { left: length }
    }

    /// The next piece of at most 64 KiB; `None` at the end.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        let length = self.left.min(PIECE);
        self.left -= length;
        let length = usize::try_from(length).unwrap_or(0);
        (length > 0).then(|| LETTERS.slice(..length))
    }
}

impl Body for Repeated {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.take().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Server-sent events, of which each says when it was sent: nanoseconds of the machine's monotonic clock.
#[derive(Debug)]
pub(super) struct Events {
    left: u64,
    every: Interval,
}

impl Events {
    /// `count` events, the first at once.
    pub(super) fn new(count: u64, every: Duration) -> Self {
        let mut every = tokio::time::interval(every.max(Duration::from_millis(1)));
        // Two events at once would be read as one delay.
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { left: count, every }
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        ready!(self.every.poll_tick(context));
        self.left -= 1;
        let event = format!("data: {}\n\n", clock::monotonic_ns());
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(event)))))
    }
}
