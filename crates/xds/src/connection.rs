//! One client's connection, as the services behind the door see it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// What a client on a Unix socket is called.
pub const LOCAL: &str = "local";

/// Discovery streams at once on one connection: an Envoy has one, or without ADS one for each secret.
const STREAMS: usize = 1024;

/// Who sent a request; in the extensions of every request that comes through a door.
#[derive(Clone)]
pub struct Client {
    /// A name of its certificate that is let in, or [`LOCAL`].
    pub name: Arc<str>,
    /// No other connection of this process has the same.
    pub connection: u64,
    /// Room for streams.
    streams: Arc<Semaphore>,
    /// The connection is being closed, with patience: whoever holds a stream that would not end, ends it.
    closing: CancellationToken,
}

impl Client {
    /// A client that came through no door.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, connection: u64) -> Self {
        Self::with(name.into(), connection, CancellationToken::new())
    }

    pub(crate) fn accepted(name: Arc<str>, closing: CancellationToken) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self::with(name, NEXT.fetch_add(1, Ordering::Relaxed), closing)
    }

    fn with(name: Arc<str>, connection: u64, closing: CancellationToken) -> Self {
        Self {
            name,
            connection,
            streams: Arc::new(Semaphore::new(STREAMS)),
            closing,
        }
    }

    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    pub(crate) fn room_for_a_stream(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({} #{})", self.name, self.connection)
    }
}
