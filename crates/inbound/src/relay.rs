//! What follows a `101`: bytes both ways, counted, until both sides are done, nothing moves, the token that opened it
//! expires, or the gateway stops.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use outgate_journey::denial::DenyCode;
use outgate_native::guard::ActiveExchange;
use outgate_plane::{Core, trail::Trail};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

use crate::connection::Connection;

const BUFFER: usize = 16 * 1024;

/// Both sides of an upgrade that the service accepted.
pub(crate) struct Upgraded {
    pub(crate) caller: OnUpgrade,
    pub(crate) service: OnUpgrade,
    pub(crate) until: Option<Instant>,
    pub(crate) idle: Duration,
}

/// Carries the new protocol in the background.
pub(crate) fn carry(
    connection: &Arc<Connection>,
    upgraded: Upgraded,
    trail: Trail,
    active: Arc<ActiveExchange>,
) {
    let connection = Arc::clone(connection);
    let tasks = connection.core.tasks.clone();
    tasks.spawn(async move {
        run(&connection.core, upgraded, trail).await;
        drop(active);
    });
}

async fn run(core: &Core, upgraded: Upgraded, mut trail: Trail) {
    let Upgraded {
        caller,
        service,
        until,
        idle,
    } = upgraded;
    let (caller, service) = match tokio::try_join!(caller, service) {
        Ok(both) => both,
        Err(error) => return trail.abort(&error),
    };
    let (caller_read, caller_write) = tokio::io::split(TokioIo::new(caller));
    let (service_read, service_write) = tokio::io::split(TokioIo::new(service));
    let meter = Arc::clone(trail.meter());
    let moved = AtomicU64::new(0);
    let out = pump(caller_read, service_write, &moved, |n| meter.count_out(n));
    let back = pump(service_read, caller_write, &moved, |n| meter.count_in(n));
    let both = async { tokio::try_join!(out, back).map(drop) };
    let cut = tokio::select! {
        result = both => return match result {
            Ok(()) => trail.complete(),
            Err(error) => trail.abort(&error),
        },
        () = expired(until) => DenyCode::BearerExpired,
        () = core.killing.cancelled() => DenyCode::ShuttingDown,
        () = stalled(&moved, idle) => DenyCode::RequestTimeout,
    };
    trail.cut(cut);
    trail.complete();
}

async fn expired(until: Option<Instant>) {
    match until {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn stalled(moved: &AtomicU64, idle: Duration) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(idle).await;
        let now = moved.load(Ordering::Relaxed);
        if now == seen {
            return;
        }
        seen = now;
    }
}

/// One direction, until its end; then the other end is told.
async fn pump<R, W>(
    mut reader: R,
    mut writer: W,
    moved: &AtomicU64,
    count: impl Fn(usize),
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::with_capacity(BUFFER);
    while reader.read_buf(&mut buffer).await? > 0 {
        moved.fetch_add(1, Ordering::Relaxed);
        count(buffer.len());
        writer.write_all(&buffer).await?;
        writer.flush().await?;
        buffer.clear();
    }
    writer.shutdown().await
}
