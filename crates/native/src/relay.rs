//! Carries bytes between two ends, both ways at once, without holding them: counted, charged, scrubbed where a
//! credential could come back, and ended from outside.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use bytes::BytesMut;
use outgate_credential::{ScrubStream, Scrubber};
use outgate_journey::denial::{Denial, DenyCode};
use outgate_plane::{Live, budget::Budget, trail::Meter, trail::Trail};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::{shared::Shared, socket_relay::pump_socket};

/// What is read at once, in bytes.
pub(crate) const BUFFER: usize = 16 * 1024;

/// What a relay needs besides its two ends.
pub(crate) struct Relay<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) budget: Option<Budget>,
    pub(crate) scrubber: Option<Arc<Scrubber>>,
    pub(crate) idle: Duration,
}

/// Why a relay ended.
enum Over {
    /// Both sides finished.
    Complete,
    /// One side failed.
    Failed(io::Error),
    /// The gateway cut it.
    Cut(DenyCode),
}

impl Relay<'_> {
    /// Carries until both sides are done, the session is ended, the policy forbids it (`judge_again`), the session's
    /// budget is used up, nothing moved for a while, or the gateway stops. Writes the record.
    pub(crate) async fn run<G, U>(
        self,
        guest: G,
        upstream: U,
        trail: Trail,
        judge_again: impl Fn(&Live, Option<SocketAddr>) -> Result<(), Denial>,
    ) where
        G: AsyncRead + AsyncWrite,
        U: AsyncRead + AsyncWrite,
    {
        let moved = AtomicU64::new(0);
        let meter = Arc::clone(trail.meter());
        let (guest_read, guest_write) = tokio::io::split(guest);
        let (upstream_read, upstream_write) = tokio::io::split(upstream);
        let scrub = self.scrubber.as_ref();
        let scrub = scrub.map(|scrubber| (scrubber.stream(), &*meter.scrubbed));
        let out = pump(guest_read, upstream_write, None, self.out(&meter, &moved));
        let back = pump(upstream_read, guest_write, scrub, back(&meter, &moved));
        let both = async { tokio::try_join!(out, back).map(drop) };
        let over = self.watch(both, &moved, &trail, judge_again).await;
        over.conclude(trail);
    }

    /// As [`Self::run`] does, between sockets whose bytes nobody looks at; `received` came from the guest already.
    pub(crate) async fn run_sockets(
        self,
        mut guest: TcpStream,
        received: BytesMut,
        mut upstream: TcpStream,
        trail: Trail,
        judge_again: impl Fn(&Live, Option<SocketAddr>) -> Result<(), Denial>,
    ) {
        let moved = AtomicU64::new(0);
        let meter = Arc::clone(trail.meter());
        let (guest_read, guest_write) = guest.split();
        let (upstream_read, upstream_write) = upstream.split();
        let pipes = &self.shared.pipes;
        let none = BytesMut::new();
        let counted = (self.out(&meter, &moved), back(&meter, &moved));
        let out = pump_socket(guest_read, upstream_write, received, pipes, counted.0);
        let back = pump_socket(upstream_read, guest_write, none, pipes, counted.1);
        let both = async { tokio::try_join!(out, back).map(drop) };
        let over = self.watch(both, &moved, &trail, judge_again).await;
        over.conclude(trail);
    }

    /// Counts what goes out before it does.
    fn out(&self, meter: &Meter, moved: &AtomicU64) -> impl Fn(usize) -> Result<(), DenyCode> {
        let budget = self.budget.as_ref();
        move |count| {
            moved.fetch_add(1, Ordering::Relaxed);
            meter.count_out(count);
            budget.map_or(Ok(()), |budget| budget.charge(count))
        }
    }

    async fn watch(
        &self,
        both: impl Future<Output = Result<(), Stopped>>,
        moved: &AtomicU64,
        trail: &Trail,
        judge_again: impl Fn(&Live, Option<SocketAddr>) -> Result<(), Denial>,
    ) -> Over {
        let mut both = std::pin::pin!(both);
        let mut reloads = self.shared.reloads.subscribe();
        // A policy that came between the verdict and this is not told again.
        if judge_again(&self.shared.live(), trail.upstream()).is_err() {
            return Over::Cut(DenyCode::PolicyChanged);
        }
        let mut check = Instant::now() + self.idle;
        let mut seen = 0;
        loop {
            tokio::select! {
                result = both.as_mut() => return match result {
                    Ok(()) => Over::Complete,
                    Err(Stopped::Cut(code)) => Over::Cut(code),
                    Err(Stopped::Io(error)) => Over::Failed(error),
                },
                code = trail.session_ended() => return Over::Cut(code),
                () = self.shared.killing.cancelled() => return Over::Cut(DenyCode::ShuttingDown),
                changed = reloads.changed() => {
                    if changed.is_err() || judge_again(&self.shared.live(), trail.upstream()).is_err() {
                        return Over::Cut(DenyCode::PolicyChanged);
                    }
                }
                () = tokio::time::sleep_until(check) => {
                    let now = moved.load(Ordering::Relaxed);
                    if now == seen {
                        return Over::Cut(DenyCode::RequestTimeout);
                    }
                    seen = now;
                    check = Instant::now() + self.idle;
                }
            }
        }
    }
}

/// Counts what comes back.
fn back(meter: &Meter, moved: &AtomicU64) -> impl Fn(usize) -> Result<(), DenyCode> {
    move |count| {
        moved.fetch_add(1, Ordering::Relaxed);
        meter.count_in(count);
        Ok(())
    }
}

impl Over {
    fn conclude(self, mut trail: Trail) {
        match self {
            Self::Complete => trail.complete(),
            Self::Failed(error) => trail.abort(&error),
            Self::Cut(code) => {
                trail.cut(code);
                trail.complete();
            }
        }
    }
}

/// Why a direction stopped before its end.
pub(crate) enum Stopped {
    /// An end failed.
    Io(io::Error),
    /// The gateway stopped it.
    Cut(DenyCode),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// One direction, until its end; then the other end is told.
async fn pump<R, W>(
    mut reader: R,
    mut writer: W,
    mut scrub: Option<(ScrubStream, &AtomicU64)>,
    count: impl Fn(usize) -> Result<(), DenyCode>,
) -> Result<(), Stopped>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::with_capacity(BUFFER);
    loop {
        if buffer.capacity() == 0 {
            buffer.reserve(BUFFER);
        }
        let read = reader.read_buf(&mut buffer).await?;
        if read == 0 {
            break;
        }
        count(read).map_err(Stopped::Cut)?;
        match &mut scrub {
            None => {
                writer.write_all(&buffer).await?;
                buffer.clear();
            }
            Some((stream, hits)) => {
                let before = stream.hits();
                for piece in stream.push(buffer.split().freeze()) {
                    writer.write_all(&piece).await?;
                }
                hits.fetch_add(stream.hits() - before, Ordering::Relaxed);
                buffer.reserve(BUFFER);
            }
        }
        writer.flush().await?;
    }
    if let Some((stream, _)) = &mut scrub
        && let Some(rest) = stream.finish()
    {
        writer.write_all(&rest).await?;
    }
    writer.shutdown().await?;
    Ok(())
}
