//! The listeners: accept, and bound how many connections there are. On the explicit proxy's, read each connection's
//! first request and hand it to its entry; a captured connection has one of its own. Decide nothing.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use outgate_journey::{
    denial::{Denial, DenyCode},
    record::Entry,
};
use outgate_plane::answer::{Afterwards, Challenge, denial_of, refuse, to_wire};
use outgate_wire::http1::{Head, HeadFault, MAX_FIELDS, MAX_HEAD, read_head};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    arrival::{Arrival, OwnSession},
    captured,
    carrier::{Carrier, Carries},
    connect::{Connect, ConnectRequest, GuestConnection, connect},
    dialled::Capturing,
    opened::Opened,
    shared::Shared,
};

/// How many tries a client has to send a `CONNECT` that is let through.
const MAX_TRIES: usize = 8;

/// What a listener's connections are.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) kind: DoorKind,
    /// The session that the listener was opened for, if it was for one.
    pub(crate) own: Option<Arc<OwnSession>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DoorKind {
    /// Connections to the proxy.
    Proxy,
    /// Connections that were captured on their way to some address.
    Transparent(Capturing),
}

/// How many connections are still taken in after the stop: as many as may have waited.
const LAST_ONES: usize = 4096;

/// Accepts connections until the gateway stops.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener, door: Door) {
    loop {
        let accepted = tokio::select! {
            () = shared.stopping.cancelled() => return take_in_who_waits(&shared, listener, &door),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => admit(&shared, stream, client, &door),
            Err(error) => {
                // Out of descriptors or a connection that died in the queue: either passes.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Takes in whom the kernel has let in already: closing the listener would reset their connections, and who is refused
/// tries again where who is reset does not. Does not wait in between, so that as few as possible come after it.
fn take_in_who_waits(shared: &Arc<Shared>, listener: TcpListener, door: &Door) {
    let Ok(listener) = listener.into_std() else {
        return;
    };
    for _ in 0..LAST_ONES {
        let Ok((stream, client)) = listener.accept() else {
            return;
        };
        let registered = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = registered {
            admit(shared, stream, client, door);
        }
    }
}

fn admit(shared: &Arc<Shared>, stream: TcpStream, client: SocketAddr, door: &Door) {
    if !shared.keeps_records() {
        tracing::error!(
            code = "audit_backlog",
            "connection refused: the audit trail is not being written"
        );
        return;
    }
    let arrival = Arrival {
        client,
        own: door.own.clone(),
    };
    let Ok(room) = Arc::clone(&shared.room).try_acquire_owned() else {
        return turn_back(shared, &stream, &arrival, door.kind);
    };
    let (shared, kind) = (Arc::clone(shared), door.kind);
    shared.tasks.clone().spawn(async move {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "guest connection ended");
            return;
        }
        let guest = GuestConnection {
            stream,
            received: BytesMut::new(),
            arrival,
        };
        if let Some(opened) = Box::pin(open(&shared, guest, kind)).await {
            opened.carry(&shared).await;
        }
        drop(room);
    });
}

/// There is no room. Said if the socket takes it at once, and where it is known what the client speaks; nobody waits for
/// a connection that there is no room for.
fn turn_back(shared: &Arc<Shared>, stream: &TcpStream, arrival: &Arrival, kind: DoorKind) {
    let mut trail = arrival.begin_trail(shared, Entry::Listener);
    let denial = Denial::new(DenyCode::TooManyConnections);
    trail.deny(&denial);
    if let DoorKind::Transparent(capturing) = kind {
        if let Ok(dialled) = capturing.dialled(stream) {
            trail.note_dialled(dialled);
        }
        return;
    }
    let response = refuse(
        &denial,
        trail.request_id(),
        Challenge::Proxy,
        Afterwards::Close,
    );
    trail.answer(response.status());
    let _ = stream.try_write(&to_wire(&response));
}

/// Reads what comes first, and has it judged. `None`: the connection is over.
async fn open(shared: &Arc<Shared>, guest: GuestConnection, kind: DoorKind) -> Option<Opened> {
    match kind {
        DoorKind::Proxy => open_proxied(shared, guest).await,
        DoorKind::Transparent(capturing) => captured::open(shared, guest, capturing).await,
    }
}

async fn open_proxied(shared: &Arc<Shared>, mut guest: GuestConnection) -> Option<Opened> {
    for _ in 0..MAX_TRIES {
        let read = tokio::select! {
            read = read_first_head(shared, &mut guest) => read,
            () = shared.last_call_is_over() => return None,
        };
        match read {
            First::Closed => return None,
            First::Fault(fault) => return refuse_head(shared, guest, fault).await,
            First::Head(head) if !head.is_connect => {
                let carrier = Carrier::new(shared, guest.arrival, Carries::Proxied);
                return Some(Opened::Plain(carrier, guest.stream, guest.received, None));
            }
            First::Head(head) => {
                let request = match read_connect(&guest.received) {
                    Some(request) => request,
                    None => {
                        return refuse_head(shared, guest, HeadFault::Malformed("CONNECT")).await;
                    }
                };
                guest.received.advance(head.length);
                match connect(shared, guest, request).await {
                    Connect::Over => return None,
                    Connect::Opened(opened) => return Some(opened),
                    Connect::TryAgain(same) => guest = same,
                }
            }
        }
    }
    None
}

enum First {
    Head(Head),
    Fault(HeadFault),
    Closed,
}

async fn read_first_head(shared: &Shared, guest: &mut GuestConnection) -> First {
    let reading = async {
        let mut seen = 0;
        loop {
            let received = &guest.received;
            // A head changes its verdict where a line ends or where it grows too large.
            if received.get(seen..).is_some_and(|new| new.contains(&b'\n'))
                || received.len() >= MAX_HEAD
            {
                match read_head(received) {
                    Ok(Some(head)) => return First::Head(head),
                    Ok(None) => {}
                    Err(fault) => return First::Fault(fault),
                }
                seen = received.len();
            }
            guest.received.reserve(2048);
            match guest.stream.read_buf(&mut guest.received).await {
                Ok(0) | Err(_) => return First::Closed,
                Ok(_) => {}
            }
        }
    };
    match tokio::time::timeout(shared.live().timeouts.head, reading).await {
        Ok(first) => first,
        // Nothing was asked, so nothing is answered or recorded.
        Err(_) if guest.received.is_empty() => First::Closed,
        Err(_) => First::Fault(HeadFault::TimedOut),
    }
}

async fn refuse_head<T>(
    shared: &Arc<Shared>,
    mut guest: GuestConnection,
    fault: HeadFault,
) -> Option<T> {
    let mut trail = guest.arrival.begin_trail(shared, Entry::Listener);
    let denial: Denial = denial_of(fault);
    trail.deny(&denial);
    let response = refuse(
        &denial,
        trail.request_id(),
        Challenge::Proxy,
        Afterwards::Close,
    );
    trail.answer(response.status());
    drop(trail);
    let _ = guest.stream.write_all(&to_wire(&response)).await;
    linger(guest.stream).await;
    None
}

/// Lets the answer arrive: closing with unread input would reset the connection and take the answer back.
async fn linger(mut stream: TcpStream) {
    const MOST: usize = 1024 * 1024;
    let draining = async {
        let _ = stream.shutdown().await;
        let (mut sink, mut drained) = (vec![0; 8192], 0);
        while let Ok(count @ 1..) = stream.read(&mut sink).await {
            drained += count;
            if drained > MOST {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), draining).await;
}

/// Reads a judged `CONNECT` head into evidence.
fn read_connect(bytes: &[u8]) -> Option<ConnectRequest> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(bytes).ok()?;
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for field in request.headers.iter() {
        headers.append(
            HeaderName::from_bytes(field.name.as_bytes()).ok()?,
            HeaderValue::from_bytes(field.value).ok()?,
        );
    }
    Some(ConnectRequest {
        target: request.path?.to_owned(),
        headers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_heads_target_and_fields_are_read_as_sent() {
        let head = b"CONNECT A.test:443 HTTP/1.1\r\nHost: a.test:443\r\nX-A: 1\r\nx-a: \xc3\xa4\r\n\r\n\x16\x03";
        let request = read_connect(head).unwrap();
        assert_eq!(request.target, "A.test:443");
        assert_eq!(request.headers["host"], "a.test:443");
        let values: Vec<&[u8]> = request
            .headers
            .get_all("x-a")
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        assert_eq!(values, [b"1".as_slice(), "ä".as_bytes()]);
    }

    #[test]
    fn the_most_fields_that_a_head_may_have_are_read() {
        let fields = |count| "x: 1\r\n".repeat(count);
        let head = |count| format!("CONNECT a.test:443 HTTP/1.1\r\n{}\r\n", fields(count));
        let request = read_connect(head(MAX_FIELDS).as_bytes()).unwrap();
        assert_eq!(request.headers.len(), MAX_FIELDS);
        assert!(read_connect(head(MAX_FIELDS + 1).as_bytes()).is_none());
    }

    #[test]
    fn what_is_no_request_head_is_no_connect() {
        for head in [
            "",
            "CONNECT",
            "CONNECT \r\n\r\n",
            "\x16\x03\x01",
            "CONNECT a b c\r\n\r\n",
        ] {
            assert!(read_connect(head.as_bytes()).is_none(), "{head:?}");
        }
    }
}
