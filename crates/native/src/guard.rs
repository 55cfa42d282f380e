//! Stands between a guest's HTTP/1 bytes and the HTTP library: no byte of a head is let on before the whole head was
//! judged ([`outgate_wire::http1`]). A head that is refused is replaced by one marked request, so that its denial
//! is answered and recorded by the same exit as every other, and nothing after it is read.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use outgate_config::Timeouts;
use outgate_wire::http1::{HeadFault, Release, RequestStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::{Instant, Sleep},
};

const READ_SIZE: usize = 8 * 1024;
/// A connection is at rest when nothing was asked and nothing moved for so long.
const REST_AFTER: Duration = Duration::from_millis(250);
/// While an exchange goes on, it is looked so seldom.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How many bytes of interim answers wait for the guest.
const MAX_INFORMATIONAL: usize = 64 * 1024;

/// What the guard and the service behind the HTTP library tell each other.
pub struct GuardState {
    fault: OnceLock<HeadFault>,
    marker: String,
    active: AtomicUsize,
    informational: Mutex<BytesMut>,
    queued: Notify,
    progress: AtomicU64,
    is_at_rest: AtomicBool,
}

impl GuardState {
    /// The state of one connection; `marker` is a path that no client can guess.
    pub fn new(marker: String) -> Arc<Self> {
        Arc::new(Self {
            fault: OnceLock::new(),
            marker,
            active: AtomicUsize::new(0),
            informational: Mutex::default(),
            queued: Notify::new(),
            progress: AtomicU64::new(0),
            is_at_rest: AtomicBool::new(false),
        })
    }

    /// The fault that the request with this path stands for.
    pub fn fault_of(&self, path: &str) -> Option<HeadFault> {
        let is_marked = path.strip_prefix('/') == Some(&self.marker);
        if is_marked { self.fault() } else { None }
    }

    /// The fault that ended the connection's input, in a head or in a body.
    pub fn fault(&self) -> Option<HeadFault> {
        self.fault.get().copied()
    }

    /// Counts an exchange; while there is one, the connection is not idle.
    pub fn begin_exchange(self: &Arc<Self>) -> ActiveExchange {
        self.active.fetch_add(1, Ordering::Relaxed);
        ActiveExchange(Arc::clone(self))
    }

    /// Whether no exchange is going on.
    pub fn is_idle(&self) -> bool {
        self.active.load(Ordering::Relaxed) == 0
    }

    /// Whether the connection came to rest since it was asked last: no exchange is going on, no byte of a request is
    /// there, and everything that was written has left.
    pub(crate) fn came_to_rest(&self) -> bool {
        self.is_at_rest.swap(false, Ordering::Relaxed)
    }

    /// How many pieces of bodies were let on, and how many exchanges ended.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Queues the bytes of an interim answer (1xx); they are written before the final one. What a guest does not
    /// take is dropped: interim answers are advice.
    pub(crate) fn queue_informational(&self, bytes: &[u8]) {
        let mut queued = self
            .informational
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if queued.len() + bytes.len() <= MAX_INFORMATIONAL {
            queued.extend_from_slice(bytes);
        }
        drop(queued);
        self.queued.notify_one();
    }

    /// Waits until an interim answer was queued.
    pub(crate) async fn informational_queued(&self) {
        self.queued.notified().await;
    }
}

/// An exchange that is going on.
pub struct ActiveExchange(Arc<GuardState>);

impl ActiveExchange {
    /// Notes that a piece of its body was let on.
    pub fn note_progress(&self) {
        self.0.progress.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for ActiveExchange {
    fn drop(&mut self) {
        self.note_progress();
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long the guard waits.
#[derive(Debug, Clone, Copy)]
pub struct GuardTimeouts {
    /// For the rest of a head whose first byte came.
    pub head: Duration,
    /// For the next head.
    pub idle: Duration,
}

impl From<&Timeouts> for GuardTimeouts {
    fn from(timeouts: &Timeouts) -> Self {
        Self {
            head: timeouts.head,
            idle: timeouts.idle,
        }
    }
}

/// A connection whose input is judged.
pub struct Guarded<T> {
    io: T,
    state: Arc<GuardState>,
    requests: RequestStream,
    /// Arrived, not judged.
    held: BytesMut,
    /// Judged, not let on.
    released: BytesMut,
    /// Bytes of `held` in which no line ended when it was judged last.
    seen: usize,
    timeouts: GuardTimeouts,
    timer: Pin<Box<Sleep>>,
    waiting: Waiting,
    /// The state's progress when the wait began.
    progress: u64,
    /// The marked request was let on: nothing follows it.
    ended: bool,
    /// Runs while a guest does not take what is written.
    stalled: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    No,
    ForHead,
    ForRequest,
    /// As before, at rest.
    AtRest,
}

impl<T: AsyncRead + Unpin> Guarded<T> {
    /// Guards a connection on which `prefix` has arrived already.
    pub fn new(io: T, prefix: BytesMut, state: Arc<GuardState>, timeouts: GuardTimeouts) -> Self {
        Self {
            io,
            state,
            requests: RequestStream::default(),
            held: prefix,
            released: BytesMut::new(),
            seen: 0,
            timeouts,
            timer: Box::pin(tokio::time::sleep(timeouts.idle)),
            waiting: Waiting::No,
            progress: 0,
            ended: false,
            stalled: None,
        }
    }

    pub(crate) fn state(&self) -> &Arc<GuardState> {
        &self.state
    }

    /// Judges what has arrived; `true` if something is released.
    fn judge(&mut self) -> io::Result<bool> {
        let new = self.held.get(self.seen..).unwrap_or_default();
        // A head changes its verdict only where a line ends, or where it grows too large.
        if self.requests.is_between_requests()
            && self.seen > 0
            && !new.contains(&b'\n')
            && new.len() < READ_SIZE
        {
            return Ok(false);
        }
        match self.requests.advance(&self.held) {
            Ok(Release::Bytes(count)) => {
                self.released = self.held.split_to(count);
                self.seen = 0;
                Ok(true)
            }
            Ok(Release::NeedMore) => {
                self.seen = self.held.len();
                Ok(false)
            }
            Err(fault) => self.fail(fault).map(|()| true),
        }
    }

    /// Ends the input: in place of a head with the marked request, inside a body with an error.
    fn fail(&mut self, fault: HeadFault) -> io::Result<()> {
        let in_head = self.requests.is_between_requests();
        let _ = self.state.fault.set(fault);
        self.ended = true;
        self.held.clear();
        if !in_head {
            return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
        }
        let head = format!(
            "GET /{} HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n",
            self.state.marker
        );
        self.released = BytesMut::from(head.as_bytes());
        Ok(())
    }

    /// Polls the clock for what is being waited for. Ready: the input is over.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wanted = match (self.requests.is_between_requests(), self.held.is_empty()) {
            (true, false) => Waiting::ForHead,
            (true, true) => Waiting::ForRequest,
            (false, _) => Waiting::No,
        };
        if wanted == Waiting::No {
            self.waiting = wanted;
            return Poll::Pending;
        }
        loop {
            match (self.waiting, wanted) {
                (Waiting::ForHead, Waiting::ForHead)
                | (Waiting::ForRequest | Waiting::AtRest, Waiting::ForRequest) => {}
                (_, Waiting::ForHead) => self.wait(wanted, self.timeouts.head),
                _ => self.wait(wanted, self.timeouts.idle.min(REST_AFTER)),
            }
            ready!(self.timer.as_mut().poll(cx));
            let is_busy = !self.state.is_idle();
            let moved = is_busy || self.stalled.is_some() || self.state.progress() != self.progress;
            match self.waiting {
                Waiting::ForHead => return Poll::Ready(self.fail(HeadFault::TimedOut)),
                // The next request was not due yet. What is not taken has a clock of its own.
                _ if moved => {
                    let look_again = if is_busy { LOOK_AGAIN } else { REST_AFTER };
                    self.wait(Waiting::ForRequest, self.timeouts.idle.min(look_again));
                }
                Waiting::ForRequest if self.timeouts.idle > REST_AFTER => {
                    self.state.is_at_rest.store(true, Ordering::Relaxed);
                    let left = self.timeouts.idle.saturating_sub(REST_AFTER);
                    self.wait(Waiting::AtRest, left);
                }
                _ => {
                    self.ended = true;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn wait(&mut self, waiting: Waiting, wait: Duration) {
        self.waiting = waiting;
        self.progress = self.state.progress();
        self.timer.as_mut().reset(Instant::now() + wait);
    }

    /// Waits until something is judged and let on (`true`), or the input is over.
    pub(crate) fn poll_judged(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if !self.released.is_empty() {
                return Poll::Ready(Ok(true));
            }
            if self.ended {
                // After the marked request there is nothing; an idle connection is closed.
                return if self.state.fault().is_some() {
                    Poll::Pending
                } else {
                    Poll::Ready(Ok(false))
                };
            }
            if !self.held.is_empty() && self.held.len() > self.seen && self.judge()? {
                self.waiting = Waiting::No;
                continue;
            }
            // On the stack: most polls find nothing, and an idle connection holds no buffer.
            let mut room = [const { MaybeUninit::uninit() }; READ_SIZE];
            let mut read = ReadBuf::uninit(&mut room);
            match Pin::new(&mut self.io).poll_read(cx, &mut read)? {
                Poll::Ready(()) if read.filled().is_empty() => return Poll::Ready(Ok(false)),
                Poll::Ready(()) => self.held.extend_from_slice(read.filled()),
                Poll::Pending => {
                    if self.held.is_empty() {
                        self.held = BytesMut::new();
                    }
                    ready!(self.poll_timer(cx))?;
                }
            }
        }
    }

    /// Puts back what was let on and not used.
    pub(crate) fn put_back(&mut self, unused: &[u8]) {
        if !unused.is_empty() {
            let rest = std::mem::replace(&mut self.released, BytesMut::from(unused));
            self.released.unsplit(rest);
        }
    }

    /// Reads what may go by unseen straight into the reader's buffer.
    fn poll_unseen(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let unseen = self.requests.unseen();
        let room = buf.remaining();
        let most = usize::try_from(unseen).unwrap_or(usize::MAX).min(room);
        let count = if most == room {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            buf.filled().len() - before
        } else {
            let mut limited = ReadBuf::new(buf.initialize_unfilled_to(most));
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut limited))?;
            let count = limited.filled().len();
            buf.advance(count);
            count
        };
        self.requests.skip(count as u64);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.released.is_empty()
            && this.held.is_empty()
            && this.requests.unseen() > 0
            && !this.ended
        {
            return this.poll_unseen(cx, buf);
        }
        if ready!(this.poll_judged(cx))? {
            let count = this.released.len().min(buf.remaining());
            buf.put_slice(this.released.get(..count).unwrap_or_default());
            this.released.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Guarded<T> {
    /// Writes queued interim answers.
    fn poll_informational(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut queued = self
            .state
            .informational
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while !queued.is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &queued))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            queued.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Guarded<T> {
    /// Passes a write's result on; one that a guest keeps waiting for too long fails.
    fn bounded<R>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        self.state.is_at_rest.store(false, Ordering::Relaxed);
        let wait = self.timeouts.idle;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match this.poll_informational(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.io).poll_write(cx, bytes),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        this.bounded(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match this.poll_informational(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.io).poll_write_vectored(cx, bytes),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        this.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = match this.poll_informational(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.io).poll_flush(cx),
            other => other,
        };
        this.bounded(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // TLS says that it ends, which a guest may keep waiting like anything else.
        let shut = Pin::new(&mut this.io).poll_shutdown(cx);
        this.bounded(cx, shut)
    }
}

#[cfg(test)]
mod tests;
