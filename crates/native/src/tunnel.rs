//! A tunnel that may be opened: reads its first bytes, and opens it as the journey says: bumped, passed through, or
//! not at all. Nothing is dialled before those bytes were judged.

use std::{sync::Arc, time::Duration};

use outgate_journey::{
    denial::{Denial, DenyCode},
    destination::Destination,
    gate::{TunnelOpening, TunnelTreatment, judge_opening},
    name::HostName,
    record::Entry,
};
use outgate_pki::PkiError;
use outgate_plane::{clock::unix_now, trail::Trail};
use outgate_wire::client_hello::{ClientHello, Opening, read_opening};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

use crate::{
    ahead::ReadAhead,
    arrival::Arrival,
    carrier::{Carrier, Carries},
    connect::{Admitted, GuestConnection},
    dial::dial,
    opened::{Opened, Passing},
    pool::PoolKey,
    server_tls::{LeafFault, Offer},
    shared::Shared,
    upstream,
};

/// Reads what the guest says first, and opens the tunnel accordingly. `None`: it is over.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    mut guest: GuestConnection,
    admitted: Admitted,
    mut trail: Trail,
) -> Option<Opened> {
    if admitted.dialled.is_some() {
        trail.note_treatment(TunnelTreatment::PassThrough);
        return dial_and_pass(guest, admitted, trail).await;
    }
    let read = tokio::select! {
        read = read_hello(&mut guest, admitted.live.timeouts.handshake) => read,
        code = trail.session_ended() => Err(code.into()),
    };
    match read {
        Ok(hello) => open_after(shared, guest, admitted, hello, trail).await,
        Err(denial) => turn_away(guest, trail, &denial).await,
    }
}

/// Opens a tunnel whose first bytes were read: a ClientHello, or something else.
pub(crate) async fn open_after(
    shared: &Arc<Shared>,
    guest: GuestConnection,
    admitted: Admitted,
    hello: Option<ClientHello>,
    mut trail: Trail,
) -> Option<Opened> {
    let opening = match &hello {
        Some(hello) => TunnelOpening::Tls {
            server_name: hello.server_name.as_deref(),
            encrypted_client_hello: hello.encrypted_client_hello,
        },
        None => TunnelOpening::NotTls,
    };
    let treatment = match judge_opening(&admitted.pass, opening) {
        Ok(treatment) => treatment,
        Err(denial) => return turn_away(guest, trail, &denial).await,
    };
    trail.note_treatment(treatment);
    match treatment {
        TunnelTreatment::PassThrough => dial_and_pass(guest, admitted, trail).await,
        TunnelTreatment::Bump => {
            bump(shared, guest, admitted, &hello.unwrap_or_default(), trail).await
        }
        TunnelTreatment::PlainHttp => Some(plain(shared, guest, admitted, trail)),
    }
}

/// Reads the guest's first bytes: its ClientHello, or `None` where it does not speak TLS.
pub(crate) async fn read_hello(
    guest: &mut GuestConnection,
    timeout: Duration,
) -> Result<Option<ClientHello>, Denial> {
    let reading = async {
        loop {
            match read_opening(&guest.received) {
                Opening::Hello(hello) => return Ok(Some(hello)),
                Opening::NotTls => return Ok(None),
                Opening::Malformed => {
                    return Err(Denial::new(DenyCode::TlsHandshakeFailed)
                        .because("not a ClientHello that can be trusted"));
                }
                Opening::Incomplete => {}
            }
            guest.received.reserve(4096);
            let closed = |why| Denial::new(DenyCode::TlsRequired).because(why);
            match guest.stream.read_buf(&mut guest.received).await {
                Ok(0) => return Err(closed("the guest closed the tunnel".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(closed(error.to_string())),
            }
        }
    };
    match tokio::time::timeout(timeout, reading).await {
        Ok(opening) => opening,
        Err(_) => Err(Denial::new(DenyCode::RequestTimeout).because("no ClientHello in time")),
    }
}

/// Ends a tunnel that has no HTTP answer any more: with a TLS alert (RFC 8446 section 6), so that the client says
/// something better than "connection reset". The reason is in the record.
pub(crate) async fn turn_away<T>(
    mut guest: GuestConnection,
    mut trail: Trail,
    denial: &Denial,
) -> Option<T> {
    const UNRECOGNIZED_NAME: u8 = 112;
    const ACCESS_DENIED: u8 = 49;
    const INTERNAL_ERROR: u8 = 80;
    trail.deny(denial);
    drop(trail);
    let description = match denial.code() {
        DenyCode::ServerNameMismatch | DenyCode::ServerNameMissing | DenyCode::IpLiteral => {
            UNRECOGNIZED_NAME
        }
        code if code.status() >= 500 => INTERNAL_ERROR,
        _ => ACCESS_DENIED,
    };
    if guest.received.first() == Some(&22) {
        let _ = guest
            .stream
            .write_all(&[21, 3, 3, 0, 2, 2, description])
            .await;
    }
    let _ = guest.stream.shutdown().await;
    None
}

/// Dials, unless that was done: a destination whose peer may speak first is dialled before the guest's hello is judged.
async fn dial_and_pass(
    guest: GuestConnection,
    mut admitted: Admitted,
    mut trail: Trail,
) -> Option<Opened> {
    let live = &admitted.live;
    let dialled = match admitted.dialled.take() {
        Some(dialled) => Ok(dialled),
        None => dial(&admitted.resolved, &live.policy, live.timeouts.connect).await,
    };
    match dialled {
        Ok((upstream, peer)) => {
            trail.note_upstream(peer);
            let passing = Passing {
                guest,
                upstream,
                admitted,
                trail,
            };
            Some(Opened::Passing(Box::new(passing)))
        }
        Err(denial) => turn_away(guest, trail, &denial).await,
    }
}

/// Terminates TLS with a leaf for the judged name.
async fn bump(
    shared: &Arc<Shared>,
    guest: GuestConnection,
    admitted: Admitted,
    hello: &ClientHello,
    trail: Trail,
) -> Option<Opened> {
    let terminated = Box::pin(terminate(shared, guest, &admitted, hello, trail));
    let (stream, arrival, trail) = terminated.await?;
    let destination = admitted.pass.allowed().destination().clone();
    let carrier = carrier(shared, arrival, admitted, destination, Entry::Bumped);
    Some(Opened::Bumped(carrier, stream, trail))
}

/// A guest's TLS that was terminated, where it came from, and its record. On the heap, as it is moved a few times on its
/// way, and whoever carries it has room for each of them.
type Terminated = (Box<TlsStream<ReadAhead<TcpStream>>>, Arrival, Trail);

/// The handshake with the guest. `None`: there is none, and the record says why.
async fn terminate(
    shared: &Arc<Shared>,
    guest: GuestConnection,
    admitted: &Admitted,
    hello: &ClientHello,
    mut trail: Trail,
) -> Option<Terminated> {
    let host = admitted.pass.allowed().destination().host().clone();
    let offer = choose_offer(shared, admitted, hello).await;
    let patience = admitted.live.timeouts.handshake;
    let until = Instant::now() + patience;
    let config = tokio::select! {
        config = leaf_for(shared, &host, offer, patience) => config,
        code = trail.session_ended() => {
            trail.deny(&code.into());
            return None;
        }
    };
    let config = match config {
        Ok(config) => config,
        Err(denial) => {
            return turn_away(guest, trail, &denial).await;
        }
    };
    let accepting = TlsAcceptor::from(config).accept(ReadAhead::new(guest.stream, guest.received));
    let denial = tokio::select! {
        accepted = tokio::time::timeout_at(until, accepting) => match accepted {
            Ok(Ok(stream)) => return Some((Box::new(stream), guest.arrival, trail)),
            Ok(Err(error)) => Denial::new(DenyCode::TlsHandshakeFailed).because(error.to_string()),
            Err(_) => Denial::new(DenyCode::RequestTimeout).because("TLS handshake"),
        },
        code = trail.session_ended() => code.into(),
    };
    trail.deny(&denial);
    None
}

/// What a handshake is made with, or why there is none.
async fn leaf_for(
    shared: &Arc<Shared>,
    host: &HostName,
    offer: Offer,
    wait: Duration,
) -> Result<Arc<ServerConfig>, Denial> {
    let failed = |code, why| Denial::new(code).because(why);
    let tls = shared.server_tls().ok_or_else(|| {
        let why = "there is no CA: it is made when the gateway starts with a bumped destination";
        failed(DenyCode::InternalFault, why.to_owned())
    })?;
    let config = tls.config(host, offer, unix_now(), wait).await;
    config.map_err(|error| {
        let code = match &error {
            LeafFault::Pki(PkiError::Expired { .. }) => DenyCode::CaExpired,
            _ => DenyCode::InternalFault,
        };
        failed(code, error.to_string())
    })
}

fn plain(shared: &Arc<Shared>, guest: GuestConnection, admitted: Admitted, trail: Trail) -> Opened {
    let destination = admitted.pass.allowed().destination().in_clear();
    let entry = Entry::TunnelledPlain;
    let carrier = carrier(shared, guest.arrival, admitted, destination, entry);
    Opened::Plain(carrier, guest.stream, guest.received, Some(trail))
}

fn carrier(
    shared: &Arc<Shared>,
    arrival: Arrival,
    admitted: Admitted,
    destination: Destination,
    entry: Entry,
) -> Arc<Carrier> {
    let Admitted { pass, slot, .. } = admitted;
    let session = pass.session().cloned();
    let carrier = Carrier::new(
        shared,
        arrival,
        Carries::Tunnelled {
            pass,
            destination: destination.clone(),
            entry,
        },
    );
    if let (Some(session), Some(slot)) = (session, slot) {
        carrier.uses.keep_slot(shared, &session, &destination, slot);
    }
    carrier
}

/// Offers the guest what the upstream speaks. The first time, an attributed connection is worth dialling for; the
/// dialled connection then serves its first request.
async fn choose_offer(shared: &Arc<Shared>, admitted: &Admitted, hello: &ClientHello) -> Offer {
    if !hello.offers_h2 {
        return Offer::Http1;
    }
    let destination = admitted.pass.allowed().destination();
    let learnt = (destination.host().clone(), destination.port());
    let known = shared.speaks_http2.get(&learnt);
    let speaks_http2 = match (known, admitted.pass.session()) {
        (Some(known), _) => known,
        // Nobody has proven who asks: nothing is dialled for them. Each leg may speak its own protocol.
        (None, None) => true,
        (None, Some(session)) => {
            let session = Some(session.id().clone());
            let key = PoolKey {
                destination: destination.clone(),
                session,
                policy: admitted.live.number,
                http2: true,
            };
            if let Ok(connected) =
                upstream::open(shared, &admitted.live, &admitted.resolved, &key).await
                && let crate::pool::Sender::Http1(sender) = connected.sender
            {
                let key = PoolKey {
                    http2: false,
                    ..key
                };
                shared.pool.give_back(key, sender, connected.peer);
            }
            // An upstream that cannot be reached is told to the first request, which has an answer to tell it by.
            shared.speaks_http2.get(&learnt).unwrap_or(true)
        }
    };
    if speaks_http2 || !hello.offers_http1 {
        Offer::Http2
    } else {
        Offer::Http1
    }
}
