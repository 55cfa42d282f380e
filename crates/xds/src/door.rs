//! The door: accepts data planes' connections, learns who each is, and passes its calls on. Bounds how many there are,
//! for how long, and how long one may take to say who it is.
//!
//! The same door carries a few streams that live for hours and tens of thousands of short calls a second, on connections
//! of HTTP/2 whose bounds all stand in [`conversation`].

pub(crate) mod bare;
mod conversation;
mod stream;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use outgate_mutual::{Handshakes, accept, peer_names};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::conversation::{Conversation, FAREWELL};
use crate::{
    LOCAL, Services,
    fault::DoorFault,
    random,
    socket::{SocketFile, listen_at},
    tls::TlsDoor,
};

/// Connections at once.
const CONNECTIONS: usize = 1024;
/// How long a connection over TCP is given new calls, at most. Bounded, so that certificates are judged again.
const LIFE: Duration = Duration::from_secs(60 * 60);

/// A listener that serves [`Services`].
#[derive(Debug)]
pub struct Door(Place);

#[derive(Debug)]
enum Place {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener, TlsDoor),
}

impl Door {
    /// Makes a Unix socket that this process's user and root can open, in a folder that exists. To be called within a
    /// runtime.
    ///
    /// # Errors
    /// [`DoorFault`]; among others where another process listens there.
    pub fn unix(path: &Path) -> Result<Self, DoorFault> {
        let (listener, file) = listen_at(path)?;
        let listener = UnixListener::from_std(listener).map_err(DoorFault::Listener)?;
        Ok(Self(Place::Unix(listener, file)))
    }

    /// Serves a listener that is bound. To be called within a runtime.
    ///
    /// # Errors
    /// [`DoorFault::Listener`].
    pub fn tcp(listener: std::net::TcpListener, tls: TlsDoor) -> Result<Self, DoorFault> {
        listener
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(listener))
            .map(|listener| Self(Place::Tcp(listener, tls)))
            .map_err(DoorFault::Listener)
    }

    /// Where it listens, if on TCP.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Place::Unix(..) => None,
            Place::Tcp(listener, _) => listener.local_addr().ok(),
        }
    }

    /// Serves until it is stopped, and then for as long as what is under way takes, at most five seconds. The socket's
    /// file is gone when it returns.
    pub async fn serve(self, services: Services, stop: CancellationToken) {
        let stop = stop.child_token();
        // Also where this future is dropped, nobody is served on.
        let _stop_all = stop.clone().drop_guard();
        let hall = Hall {
            services: Arc::new(services),
            room: Arc::new(Semaphore::new(CONNECTIONS)),
            tasks: TaskTracker::new(),
            stop,
        };
        match self.0 {
            Place::Unix(listener, file) => {
                hall.serve_unix(&listener).await;
                // Gone before the last call ends: who comes meanwhile is told at once that nobody is there.
                drop((listener, file));
            }
            Place::Tcp(listener, tls) => {
                hall.serve_tcp(&listener, &tls).await;
                drop(listener);
            }
        }
        hall.tasks.close();
        let _ = timeout(FAREWELL * 2, hall.tasks.wait()).await;
    }
}

/// What all of a door's connections share.
struct Hall {
    services: Arc<Services>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Hall {
    async fn serve_unix(&self, listener: &UnixListener) {
        while let Some(accepted) = accept(&self.stop, listener.accept()).await {
            let Some((connection, _)) = accepted else {
                continue;
            };
            if !is_ours(&connection) {
                continue;
            }
            let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
                tracing::warn!("a data plane was refused: there are too many");
                continue;
            };
            let call =
                Conversation::new(LOCAL.into(), Arc::clone(&self.services), self.stop.clone());
            self.tasks.spawn(async move {
                let _permit = permit;
                call.hold(connection, std::future::pending(), None).await;
            });
        }
    }

    async fn serve_tcp(&self, listener: &TcpListener, tls: &TlsDoor) {
        let mut handshakes = Handshakes::new(self.stop.clone());
        while let Some(accepted) = accept(&self.stop, listener.accept()).await {
            let Some((connection, address)) = accepted else {
                continue;
            };
            let secured = handshakes.begin(connection, tls.config(), move |error| {
                tracing::info!(%address, %error, "a peer did not show that it is a data plane");
            });
            let (tls, room) = (tls.clone(), Arc::clone(&self.room));
            let (services, stop) = (Arc::clone(&self.services), self.stop.clone());
            self.tasks.spawn(async move {
                let Some(stream) = secured.await else { return };
                let Ok(_permit) = room.try_acquire_owned() else {
                    tracing::warn!(%address, "a data plane was refused: there are too many");
                    return;
                };
                converse_tls(services, stop, stream, address, &tls).await;
            });
        }
    }
}

fn is_ours(connection: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    match connection.peer_cred().map(|peer| peer.uid()) {
        Ok(uid) if uid == own || uid == 0 => true,
        Ok(uid) => {
            tracing::warn!(uid, "a process of another user was refused");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "whose process this is cannot be told");
            false
        }
    }
}

async fn converse_tls(
    services: Arc<Services>,
    stop: CancellationToken,
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
    tls: &TlsDoor,
) {
    // Before the list is first read: what is changed from here on is seen below.
    let mut list = tls.list();
    // Nobody on TCP is called what a local client is called.
    let names = peer_names(stream.get_ref().1, &[LOCAL]);
    let Some(name) = tls.admit(&names) else {
        let first = names.first().map_or("", |name| name);
        tracing::warn!(%address, name = first, "a data plane was refused: it is not on the list");
        return;
    };
    let struck = async {
        while list.changed().await.is_ok() {
            if tls.admit(&names).as_ref() != Some(&name) {
                tracing::info!(%address, %name, "a data plane is cut: it is not on the list any more");
                return;
            }
        }
        std::future::pending().await
    };
    let conversation = Conversation::new(Arc::clone(&name), services, stop);
    // Spread, so that those who came together do not come back together.
    let life = LIFE.mul_f64(0.75 + random() / 4.0);
    conversation.hold(stream, struck, Some(life)).await;
}
