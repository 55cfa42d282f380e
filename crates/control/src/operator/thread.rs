//! The thread that the interface runs on: its own, with its own runtime, so that it is served while every thread of the
//! data plane is busy.

use std::{
    io, net::TcpListener as StdTcpListener, os::unix::net::UnixListener as StdUnixListener,
    sync::Arc, thread::JoinHandle, time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Builder,
};
use tokio_util::sync::CancellationToken;

use super::{OperatorApi, door::Doorkeeper};

/// How long calls may take that are open when the interface stops.
const GRACE: Duration = Duration::from_secs(2);
/// Connections that may wait to be accepted: as many as Linux allows unless it is told otherwise (`somaxconn`). With fewer, a
/// burst of others costs a caller the second after which its system knocks again; the wait behind them is short, as they
/// are taken in dozens at a time.
const BACKLOG: i32 = 4096;
/// Threads for what blocks on files: the audit trail's readers, key rotation, a reload.
const BLOCKING_THREADS: usize = 8;

/// Where the interface listens.
#[derive(Debug, Default)]
pub struct Doors {
    /// The Unix socket, from [`bind_unix`](super::bind_unix).
    pub unix: Option<StdUnixListener>,
    /// TLS.
    pub tls: Option<TlsDoor>,
}

/// A listener for TLS.
#[derive(Debug)]
pub struct TlsDoor {
    /// Bound.
    pub listener: StdTcpListener,
    /// The certificate. Client certificates mean nothing here; HTTP/1.1 is what is offered.
    pub config: Arc<rustls::ServerConfig>,
}

/// The running interface.
#[derive(Debug)]
pub struct OperatorThread(JoinHandle<()>);

impl OperatorThread {
    /// Waits until it has ended: some seconds after it was told to stop, at most. Blocks.
    pub fn join(self) {
        let _ = self.0.join();
    }
}

impl OperatorApi {
    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// If a listener or the thread cannot be had.
    pub fn start(
        self: &Arc<Self>,
        doors: Doors,
        stop: CancellationToken,
    ) -> io::Result<OperatorThread> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("operator-files")
            .build()?;
        let entered = runtime.enter();
        let keeper = Doorkeeper::new(Arc::clone(self), stop.clone());
        if let Some(listener) = doors.unix {
            rustix::net::listen(&listener, BACKLOG)?;
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener)?;
            runtime.spawn(keeper.clone().serve_unix(listener));
        }
        if let Some(door) = doors.tls {
            self.replace_tls(&door.config);
            rustix::net::listen(&door.listener, BACKLOG)?;
            door.listener.set_nonblocking(true)?;
            let queue = door.listener.try_clone()?;
            let listener = TcpListener::from_std(door.listener)?;
            runtime.spawn(keeper.clone().serve_tls(listener, queue));
        }
        runtime.spawn(keeper.clone().keep_house());
        drop(entered);
        let run = move || {
            runtime.block_on(async {
                stop.cancelled().await;
                keeper.tasks.close();
                let _ = tokio::time::timeout(GRACE, keeper.tasks.wait()).await;
            });
            // A verification of the trail that is under way is not waited for.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("operator".to_owned());
        thread.spawn(run).map(OperatorThread)
    }
}
