//! What every connection of the native plane shares, beside what all planes do.

use std::{ops::Deref, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use outgate_journey::{name::HostName, policy::Port};
use outgate_plane::Core;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use crate::{pool::Pool, server_tls::ServerTls};

/// What every connection shares.
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    /// There is one only where some destination is bumped.
    pub(crate) server_tls: ArcSwapOption<ServerTls>,
    pub(crate) speaks_http2: Cache<(HostName, Port), bool>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) room: Arc<Semaphore>,
    /// For bulky tunnels.
    pub(crate) pipes: Arc<Semaphore>,
    /// How much room there is where nobody is.
    pub(crate) most_connections: usize,
    /// What no guest can guess: marks the requests that the guard makes.
    pub(crate) marker: String,
}

impl Deref for Shared {
    type Target = Arc<Core>;

    fn deref(&self) -> &Arc<Core> {
        &self.core
    }
}

/// How long a connection that nothing goes on over is kept once the gateway stops, at most: what its client sends until
/// then is answered, with word that it was the last. Whoever is not heard of by then would not have been soon.
const LAST_CALL: Duration = Duration::from_secs(3);

impl Shared {
    /// How long an idle connection is kept after the gateway was told to stop.
    pub(crate) fn last_call(&self) -> Duration {
        LAST_CALL.min(self.live().timeouts.drain / 2)
    }

    /// Waits until the gateway was told to stop, and for the time that an idle connection is kept then.
    pub(crate) async fn last_call_is_over(&self) {
        self.stopping.cancelled().await;
        tokio::time::sleep(self.last_call()).await;
    }

    pub(crate) fn server_tls(&self) -> Option<Arc<ServerTls>> {
        self.server_tls.load_full()
    }
}
