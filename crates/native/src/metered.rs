//! Stands between a guest's HTTP/2 bytes and the HTTP library, and ends a connection that floods it
//! ([`outgate_wire::http2`]).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use outgate_wire::http2::FrameMeter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::ahead::write_through;

const WINDOW: Duration = Duration::from_secs(10);

/// A connection whose frames are counted.
pub struct Metered<T> {
    io: T,
    frames: FrameMeter,
    window_began: Instant,
}

impl<T> Metered<T> {
    /// Counts from the next byte on.
    pub fn new(io: T) -> Self {
        Self {
            io,
            frames: FrameMeter::default(),
            window_began: Instant::now(),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        if this.window_began.elapsed() >= WINDOW {
            this.window_began = Instant::now();
            this.frames.begin_window();
        }
        let read = buf.filled().get(before..).unwrap_or_default();
        Poll::Ready(this.frames.count(read).map_err(io::Error::other))
    }
}

write_through!(Metered);
