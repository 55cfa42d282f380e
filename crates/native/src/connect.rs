//! The `CONNECT` entry: gathers the evidence of a tunnel (its target and its token) and has it judged before it is
//! opened.

use std::{net::SocketAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Version};
use outgate_journey::{
    denial::Denial,
    destination::identify_connect,
    gate::{ConnectionPass, judge_connection, opening_is_judged},
    record::Entry,
    resolve::ResolvedDestination,
};
use outgate_plane::{
    Live,
    answer::{Afterwards, Challenge, refuse, to_wire},
    connection::{AdmittedConnection, admit_connection},
    limits::ConnectionSlot,
    trail::Trail,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{arrival::Arrival, dial::dial, opened::Opened, shared::Shared, tunnel::open};

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// A guest's connection, and what has arrived on it beyond the `CONNECT`.
pub(crate) struct GuestConnection {
    pub(crate) stream: TcpStream,
    pub(crate) received: BytesMut,
    pub(crate) arrival: Arrival,
}

/// A `CONNECT` that was read.
pub(crate) struct ConnectRequest {
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
}

/// What became of a `CONNECT`.
pub(crate) enum Connect {
    /// It is over.
    Over,
    /// A tunnel to be carried.
    Opened(Opened),
    /// It was refused and answered; the connection may carry another try.
    TryAgain(GuestConnection),
}

/// Serves a `CONNECT`: the one exit of this entry.
pub(crate) async fn connect(
    shared: &Arc<Shared>,
    mut guest: GuestConnection,
    request: ConnectRequest,
) -> Connect {
    let mut trail = guest.arrival.begin_trail(shared, Entry::Connect);
    trail.note_request(
        &Method::CONNECT,
        Some(&request.target),
        "",
        Version::HTTP_11,
    );
    let admitted = match admit_connect(shared, &guest.arrival, &request, &mut trail).await {
        Ok(admitted) => admitted,
        Err(denial) => {
            trail.deny(&denial);
            // A client that was asked for its token tries again on the same connection.
            let again = denial.code().status() == 401;
            let after = if again {
                Afterwards::KeepAlive
            } else {
                Afterwards::Close
            };
            let response = refuse(&denial, trail.request_id(), Challenge::Proxy, after);
            trail.answer(response.status());
            drop(trail);
            return match guest.answer(&response).await {
                Ok(()) if again => Connect::TryAgain(guest),
                _ => {
                    let _ = guest.stream.shutdown().await;
                    Connect::Over
                }
            };
        }
    };
    // It holds the session token, and nothing of it is needed while the tunnel lives.
    drop(request);
    if guest.stream.write_all(ESTABLISHED).await.is_err() {
        return Connect::Over;
    }
    trail.answer(http::StatusCode::OK);
    let opened = open(shared, guest, admitted, trail).await;
    opened.map_or(Connect::Over, Connect::Opened)
}

impl GuestConnection {
    async fn answer(&mut self, response: &http::Response<Bytes>) -> std::io::Result<()> {
        self.stream.write_all(&to_wire(response)).await
    }
}

/// A tunnel that may be opened.
pub(crate) struct Admitted {
    pub(crate) live: Arc<Live>,
    pub(crate) pass: ConnectionPass,
    pub(crate) slot: Option<ConnectionSlot>,
    pub(crate) resolved: ResolvedDestination,
    /// Dialled before the answer, where nothing that the guest says first is judged.
    pub(crate) dialled: Option<(TcpStream, SocketAddr)>,
}

/// The journey of a `CONNECT` up to its answer.
async fn admit_connect(
    shared: &Arc<Shared>,
    arrival: &Arrival,
    request: &ConnectRequest,
    trail: &mut Trail,
) -> Result<Admitted, Denial> {
    let live = shared.live();
    let destination = identify_connect(&request.target)?;
    trail.note_destination(&destination);
    let token = arrival.listener_token();
    let tokens = token.beside(Some(&request.headers));
    let pass = judge_connection(&shared.plane, &live.policy, destination, &tokens).await?;
    admit(shared, live, pass, trail).await
}

/// The journey of a judged connection, on every way in, up to where it may be opened.
pub(crate) async fn admit(
    shared: &Arc<Shared>,
    live: Arc<Live>,
    pass: ConnectionPass,
    trail: &mut Trail,
) -> Result<Admitted, Denial> {
    let AdmittedConnection {
        live,
        pass,
        slot,
        resolved,
    } = admit_connection(shared, live, pass, trail).await?;
    let dialled = if opening_is_judged(pass.allowed().rule()) {
        None
    } else {
        Some(dial(&resolved, &live.policy, live.timeouts.connect).await?)
    };
    trail.allow(pass.allowed().rule().id.as_str());
    Ok(Admitted {
        live,
        pass,
        slot,
        resolved,
        dialled,
    })
}
