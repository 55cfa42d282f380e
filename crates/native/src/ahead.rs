//! A stream that reads ahead of whoever reads it.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    task::coop::poll_proceed,
};

/// How much is read ahead at once, in bytes: a few TLS records.
const AHEAD: usize = 32 * 1024;
/// Whoever has room for so many bytes and has all of it filled takes part in a bulk transfer. The TLS library reads in
/// pieces of this size.
const BULK: usize = 4 * 1024;

/// Gives what was read ahead, then the stream's own bytes. The TLS library reads a record in many small pieces; while
/// those come filled, they are cut from one large read, which holds its buffer only until it is used up.
pub(crate) struct ReadAhead<T> {
    io: T,
    ahead: BytesMut,
    is_bulk: bool,
}

impl<T> ReadAhead<T> {
    /// `ahead` was read already.
    pub(crate) fn new(io: T, ahead: BytesMut) -> Self {
        Self {
            io,
            ahead,
            is_bulk: false,
        }
    }
}

impl<T: AsyncRead + Unpin> ReadAhead<T> {
    fn poll_through(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let is_large = buf.remaining() >= BULK;
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.is_bulk = is_large && buf.remaining() == 0;
        Poll::Ready(Ok(()))
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ahead.reserve(AHEAD);
        let read = pin!(self.io.read_buf(&mut self.ahead)).poll(cx);
        self.is_bulk = matches!(read, Poll::Ready(Ok(count)) if count >= BULK);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        ready!(read)?;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadAhead<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            if !this.is_bulk {
                return this.poll_through(cx, buf);
            }
            ready!(this.poll_ahead(cx))?;
        }
        // As if it came from the socket: whoever is sent much without end must still give way to others, and to timers.
        let turn = ready!(poll_proceed(cx));
        turn.made_progress();
        let count = this.ahead.len().min(buf.remaining());
        buf.put_slice(this.ahead.get(..count).unwrap_or_default());
        this.ahead.advance(count);
        if this.ahead.is_empty() {
            this.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// Writes of a wrapper that only looks at what is read: they go straight through to its `io`.
macro_rules! write_through {
    ($wrapper:ident) => {
        impl<T: AsyncWrite + Unpin> AsyncWrite for $wrapper<T> {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bytes)
            }

            fn is_write_vectored(&self) -> bool {
                self.io.is_write_vectored()
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().io).poll_flush(cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
            }
        }
    };
}
pub(crate) use write_through;

write_through!(ReadAhead);

#[cfg(test)]
mod tests;
