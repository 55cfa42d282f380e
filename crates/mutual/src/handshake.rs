//! Peers that have not shown who they are: how many are waited for, and for how long. Whoever only opens connections
//! takes nothing from those who do more.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

/// Of the peers that have not shown who they are, so many of the newest are waited for: whoever only opens connections
/// pushes out others who do, and an honest one is through long before its turn.
const STRANGERS: usize = 256;
/// How long a peer may take to show who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// For how long, and how much of, what a refused peer sends is read.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// The next connection; `Some(None)` where there is none for the moment, `None` once it is stopped.
pub async fn accept<T>(
    stop: &CancellationToken,
    next: impl Future<Output = io::Result<T>>,
) -> Option<Option<T>> {
    let accepted = tokio::select! {
        () = stop.cancelled() => return None,
        accepted = next => accepted,
    };
    if accepted.is_err() {
        // No file descriptor left, most likely; one that closes mends it.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Some(accepted.ok())
}

/// The handshakes of one listener.
#[derive(Debug)]
pub struct Handshakes {
    stop: CancellationToken,
    newest: VecDeque<CancellationToken>,
}

impl Handshakes {
    /// None yet; all end when it is stopped.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            stop,
            newest: VecDeque::new(),
        }
    }

    /// Begins another, which pushes out the oldest of too many. It ends with a peer that has shown a certificate, or
    /// with nothing. A peer whose handshake failed is `refused`; one that was pushed out or is too slow is just dropped.
    pub fn begin<F>(
        &mut self,
        connection: TcpStream,
        tls: Arc<ServerConfig>,
        refused: F,
    ) -> impl Future<Output = Option<TlsStream<TcpStream>>> + use<F>
    where
        F: FnOnce(&io::Error),
    {
        let pushed_out = self.stop.child_token();
        self.newest.push_back(pushed_out.clone());
        if self.newest.len() > STRANGERS
            && let Some(oldest) = self.newest.pop_front()
        {
            // One that has shown who it is does not listen to this any more.
            oldest.cancel();
        }
        async move {
            tokio::select! {
                () = pushed_out.cancelled() => None,
                secured = secure(connection, tls, refused) => secured,
            }
        }
    }
}

async fn secure(
    connection: TcpStream,
    tls: Arc<ServerConfig>,
    refused: impl FnOnce(&io::Error),
) -> Option<TlsStream<TcpStream>> {
    let _ = connection.set_nodelay(true);
    let handshake = TlsAcceptor::from(tls).accept(connection).into_fallible();
    match timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err((error, connection))) => {
            refused(&error);
            let _ = timeout(LINGER, linger(connection)).await;
            None
        }
        Err(_) => None,
    }
}

/// Reads what the peer still sends: closed at once, its end would discard the alert that tells it why.
async fn linger(mut connection: TcpStream) {
    let _ = connection.shutdown().await;
    let mut rest = connection.take(LINGER_BYTES);
    let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
}

#[cfg(test)]
mod tests {
    use rustls::version::TLS13;
    use tokio::{net::TcpListener, task::JoinHandle};

    use super::*;
    use crate::{
        Pem, client_config, connect, server_config,
        testing::{Ca, Identity},
    };

    /// Well within [`HANDSHAKE`].
    const SOON: Duration = Duration::from_secs(2);

    struct World {
        ca: Ca,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        stop: CancellationToken,
        handshakes: Handshakes,
    }

    fn pem<'a>(identity: &'a Identity, ca: &'a Ca) -> Pem<'a> {
        Pem {
            certificate: identity.certificate.as_bytes(),
            key: identity.key.as_bytes(),
            ca: ca.pem.as_bytes(),
            ca_is: "CA",
        }
    }

    impl World {
        async fn new() -> Self {
            let ca = Ca::new();
            let stop = CancellationToken::new();
            Self {
                listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
                tls: server_config(pem(&ca.server(), &ca), &[&TLS13]).unwrap(),
                handshakes: Handshakes::new(stop.clone()),
                ca,
                stop,
            }
        }

        /// The handshake of whoever connects next: its name if it has one, or why it was refused.
        async fn next(&mut self) -> JoinHandle<(Option<String>, Option<String>)> {
            let accepted = accept(&self.stop, self.listener.accept()).await;
            let (connection, _) = accepted.unwrap().unwrap();
            let (tell, told) = std::sync::mpsc::channel();
            let handshake =
                self.handshakes
                    .begin(connection, Arc::clone(&self.tls), move |error| {
                        tell.send(error.to_string()).unwrap();
                    });
            tokio::spawn(async move {
                let stream = handshake.await;
                let name = stream.map(|tls| crate::peer_names(tls.get_ref().1, &[])[0].to_string());
                (name, told.try_recv().ok())
            })
        }

        async fn dial(&self) -> TcpStream {
            let address = self.listener.local_addr().unwrap();
            TcpStream::connect(address).await.unwrap()
        }
    }

    #[tokio::test]
    async fn whoever_only_connects_is_pushed_out_by_newer_ones() {
        let mut world = World::new().await;
        let mut held = Vec::new();
        for _ in 0..STRANGERS {
            held.push((world.dial().await, world.next().await));
        }
        let tls = client_config(pem(&world.ca.client(&["a.test"]), &world.ca), &[&TLS13]).unwrap();
        let address = world.listener.local_addr().unwrap();
        let name = "server.test".try_into().unwrap();
        let (honest, came) =
            tokio::join!(connect("127.0.0.1", address.port(), name, &tls), async {
                world.next().await.await.unwrap()
            });
        honest.unwrap();
        assert_eq!(came, (Some("a.test".to_owned()), None));
        let second = held.remove(1).1;
        let first = timeout(SOON, held.remove(0).1).await.expect("pushed out");
        assert_eq!(first.unwrap(), (None, None));
        assert!(!second.is_finished());
        world.stop.cancel();
        let second = timeout(SOON, second).await.expect("stopped");
        assert_eq!(second.unwrap(), (None, None));
        assert!(accept(&world.stop, world.listener.accept()).await.is_none());
    }

    #[tokio::test]
    async fn a_refused_peer_reads_why_whatever_it_still_sends() {
        let mut world = World::new().await;
        let mut peer = world.dial().await;
        let handshake = world.next().await;
        peer.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let (name, why) = timeout(SOON, async {
            let mut answer = Vec::new();
            peer.write_all(&[b'x'; 4096]).await.unwrap();
            peer.read_to_end(&mut answer).await.unwrap();
            // An alert, and a fatal one.
            assert_eq!(answer.first(), Some(&21), "{answer:?}");
            assert_eq!(answer.get(5), Some(&2), "{answer:?}");
            drop(peer);
            handshake.await.unwrap()
        })
        .await
        .expect("it is not closed");
        assert_eq!(name, None);
        assert!(why.is_some());
    }

    #[tokio::test]
    async fn a_failure_to_accept_is_waited_out() {
        let stop = CancellationToken::new();
        let failed = async { Err::<(), _>(io::Error::from_raw_os_error(24)) };
        assert_eq!(accept(&stop, failed).await, Some(None));
        assert_eq!(accept(&stop, async { Ok(1) }).await, Some(Some(1)));
        stop.cancel();
        assert_eq!(accept::<()>(&stop, std::future::pending()).await, None);
    }
}
