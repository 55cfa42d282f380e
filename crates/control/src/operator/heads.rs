//! Reads along what a connection brings, so that a head which the HTTP library mends is refused instead: two lengths, a
//! length beside chunks, no Host or two, lines that end in a bare LF ([`outgate_wire::http1`], as guests are judged).
//! What the library refuses by itself never becomes a call.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use outgate_wire::http1::{HeadFault, Release, RequestStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What was found wrong with a connection's requests. From then on every call on it is refused.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault(Arc<OnceLock<HeadFault>>);

impl Fault {
    pub(crate) fn found(&self) -> Option<HeadFault> {
        self.0.get().copied()
    }
}

/// A connection that is read along.
#[derive(Debug)]
pub(crate) struct Judged<T> {
    io: T,
    requests: RequestStream,
    /// Read, not judged: at most what the HTTP library takes for one head.
    held: Vec<u8>,
    fault: Fault,
}

impl<T> Judged<T> {
    pub(crate) fn new(io: T, fault: Fault) -> Self {
        Self {
            io,
            requests: RequestStream::default(),
            held: Vec::new(),
            fault,
        }
    }

    fn judge(&mut self, bytes: &[u8]) {
        if self.fault.found().is_some() {
            return;
        }
        self.held.extend_from_slice(bytes);
        // A head changes its verdict only where a line ends.
        if self.requests.is_between_requests() && !bytes.contains(&b'\n') {
            return;
        }
        loop {
            match self.requests.advance(&self.held) {
                Ok(Release::Bytes(count)) => drop(self.held.drain(..count.min(self.held.len()))),
                Ok(Release::NeedMore) => return,
                Err(fault) => {
                    let _ = self.fault.0.set(fault);
                    self.held = Vec::new();
                    return;
                }
            }
            // Nothing is upgraded here: the next head follows.
            if self.requests.unseen() == u64::MAX {
                self.requests = RequestStream::default();
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Judged<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        this.judge(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Judged<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
