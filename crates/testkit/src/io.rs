//! Streams as trait objects, and one that writes its first bytes one at a time.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Any two-way byte stream.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Any two-way byte stream, boxed.
pub type BoxIo = Box<dyn Io>;

/// Makes closing send a reset instead of an orderly end.
pub fn reset_on_close(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
}

/// A stream whose first `slow` bytes go out in writes of one byte, each in a segment of its own.
pub struct Dribble {
    inner: TcpStream,
    slow: usize,
}

impl Dribble {
    /// Wraps a stream.
    #[must_use]
    pub fn new(inner: TcpStream, slow: usize) -> Self {
        let _ = inner.set_nodelay(true);
        Self { inner, slow }
    }
}

impl AsyncRead for Dribble {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let take = if self.slow > 0 { 1 } else { bytes.len() };
        let written = std::task::ready!(
            Pin::new(&mut self.inner).poll_write(cx, &bytes[..take.min(bytes.len())])
        )?;
        self.slow = self.slow.saturating_sub(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
