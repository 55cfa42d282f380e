//! The name server of a session's guests: the DNS entry. Which server a guest asks does not matter, every question
//! arrives here. Only names that the policy lets out are looked up, so no label carries anything to anybody else; only
//! their addresses are told. There are no other records: none that could hide a server name (`ech` in HTTPS and SVCB,
//! RFC 9460) or lead past the gateway.

mod answer;
mod packet;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use self::packet::Question;
use crate::{
    arrival::{Arrival, OwnSession},
    shared::Shared,
};

/// Questions that are being answered at once; more are dropped, and asked again by who needs them.
const MOST_AT_ONCE: usize = 256;
const MAX_UDP_QUESTION: usize = 4096;
const TCP_IDLE: Duration = Duration::from_secs(10);

/// The sockets of the name server.
#[derive(Default)]
pub struct NameSockets {
    /// Bound to any address; an answer leaves from the address that was asked.
    pub udp: Vec<UdpSocket>,
    /// The same over TCP (RFC 7766).
    pub tcp: Vec<TcpListener>,
}

/// Answers until the gateway stops.
pub(crate) fn serve(shared: &Arc<Shared>, sockets: NameSockets, own: Option<&Arc<OwnSession>>) {
    let room = Arc::new(Semaphore::new(MOST_AT_ONCE));
    for socket in sockets.udp {
        let (own, room) = (own.cloned(), Arc::clone(&room));
        shared.spawn_until_stopped(serve_udp(Arc::clone(shared), socket, own, room));
    }
    for listener in sockets.tcp {
        let (own, room) = (own.cloned(), Arc::clone(&room));
        shared.spawn_until_stopped(serve_tcp(Arc::clone(shared), listener, own, room));
    }
}

async fn serve_udp(
    shared: Arc<Shared>,
    socket: UdpSocket,
    own: Option<Arc<OwnSession>>,
    room: Arc<Semaphore>,
) {
    if let Err(error) = packet::tell_asked_addresses(&socket) {
        tracing::error!(%error, "the name server cannot learn which address was asked");
        return;
    }
    let socket = Arc::new(socket);
    let mut buffer = vec![0; MAX_UDP_QUESTION];
    loop {
        let question = match packet::receive(&socket, &mut buffer).await {
            Ok(question) => question,
            Err(error) => {
                pause(&error).await;
                continue;
            }
        };
        let Some(room) = take_room(&shared, &room) else {
            continue;
        };
        let (shared, socket) = (Arc::clone(&shared), Arc::clone(&socket));
        let arrival = arrival(question.peer, own.as_ref());
        shared.tasks.clone().spawn(async move {
            let Question { bytes, peer, asked } = question;
            if let Some(answer) = answer::answer(&shared, &arrival, &bytes, answer::Over::Udp).await
                && let Err(error) = packet::send(&socket, &answer, peer, asked).await
            {
                tracing::debug!(%error, "a name server's answer was not sent");
            }
            drop(room);
        });
    }
}

async fn serve_tcp(
    shared: Arc<Shared>,
    listener: TcpListener,
    own: Option<Arc<OwnSession>>,
    room: Arc<Semaphore>,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                pause(&error).await;
                continue;
            }
        };
        let Some(room) = take_room(&shared, &room) else {
            continue;
        };
        let (shared, arrival) = (Arc::clone(&shared), arrival(peer, own.as_ref()));
        shared.tasks.clone().spawn(async move {
            if let Err(error) = answer_stream(&shared, &arrival, stream).await {
                tracing::debug!(%error, "a name server's connection ended");
            }
            drop(room);
        });
    }
}

/// Answers the questions of one connection, each behind its length in two octets (RFC 1035 section 4.2.2).
async fn answer_stream(
    shared: &Arc<Shared>,
    arrival: &Arrival,
    mut stream: TcpStream,
) -> io::Result<()> {
    loop {
        let reading = async {
            let length = stream.read_u16().await?;
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await?;
            Ok::<_, io::Error>(question)
        };
        if !shared.keeps_records() {
            return Ok(());
        }
        let question = tokio::select! {
            read = tokio::time::timeout(TCP_IDLE, reading) => read.map_err(io::Error::from)??,
            () = shared.stopping.cancelled() => return Ok(()),
        };
        let Some(answer) = answer::answer(shared, arrival, &question, answer::Over::Tcp).await
        else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&answer);
        tokio::time::timeout(TCP_IDLE, stream.write_all(&framed)).await??;
    }
}

fn take_room(shared: &Shared, room: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let room = Arc::clone(room).try_acquire_owned().ok()?;
    shared.keeps_records().then_some(room)
}

fn arrival(client: SocketAddr, own: Option<&Arc<OwnSession>>) -> Arrival {
    Arrival {
        client,
        own: own.cloned(),
    }
}

/// Whatever a socket complains of passes; not so fast that it fills the log.
async fn pause(error: &io::Error) {
    tracing::debug!(%error, "the name server's socket");
    tokio::time::sleep(Duration::from_millis(10)).await;
}
