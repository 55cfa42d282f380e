//! The transparent entry: a connection that was captured on its way to some address. What it says first names its
//! destination: the server name of its TLS, or the `Host` of each plain request. The address that was dialled names
//! nothing, because the guest may dial any; it only tells opaque destinations apart, whose peers may speak first.

use std::{net::SocketAddr, sync::Arc};

use outgate_journey::{
    denial::{Denial, DenyCode},
    destination::identify_server_name,
    gate::{ConnectionPass, judge_connection, judge_dialled_address},
    policy::Port,
    record::Entry,
};
use outgate_plane::{Live, trail::Trail};
use outgate_wire::client_hello::ClientHello;

use crate::{
    carrier::{Carrier, Carries},
    connect::{GuestConnection, admit},
    dialled::Capturing,
    opened::Opened,
    shared::Shared,
    tunnel::{self, open_after, read_hello, turn_away},
};

/// Judges a captured connection, and opens it. `None`: it is over.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    mut guest: GuestConnection,
    capturing: Capturing,
) -> Option<Opened> {
    let dialled = match capturing.dialled(&guest.stream) {
        Ok(dialled) => dialled,
        Err(denial) => {
            let mut trail = guest.arrival.begin_trail(shared, Entry::Transparent);
            if let Ok(own) = guest.stream.local_addr() {
                trail.note_dialled(own);
            }
            return turn_away(guest, trail, &denial).await;
        }
    };
    let port = Port::new(dialled.port())?;
    let live = shared.live();
    if live.policy.opaque_on(port).next().is_some() {
        let token = guest.arrival.listener_token();
        let tokens = token.beside(None);
        match judge_dialled_address(&shared.plane, &live.policy, dialled, &tokens).await {
            Ok(pass) => return open_opaque(shared, guest, dialled, live, pass).await,
            // No opaque destination: what the guest says may still name one.
            Err(denial) if denial.code() == DenyCode::IpLiteral => {}
            Err(denial) => {
                let trail = begin(shared, &guest, dialled);
                return turn_away(guest, trail, &denial).await;
            }
        }
    }
    let read = tokio::select! {
        read = read_hello(&mut guest, live.timeouts.handshake) => read,
        () = shared.last_call_is_over() => return None,
    };
    match read {
        Ok(Some(hello)) => open_tls(shared, guest, dialled, port, live, hello).await,
        Ok(None) => {
            let carrier = Carrier::new(shared, guest.arrival, Carries::Captured(dialled));
            Some(Opened::Plain(carrier, guest.stream, guest.received, None))
        }
        Err(denial) => {
            let nameless = guest.received.is_empty() && denial.code() == DenyCode::TlsRequired;
            let denial = if nameless {
                Denial::new(DenyCode::ServerNameMissing).because("closed before it named a host")
            } else {
                denial
            };
            let trail = begin(shared, &guest, dialled);
            turn_away(guest, trail, &denial).await
        }
    }
}

fn begin(shared: &Arc<Shared>, guest: &GuestConnection, dialled: SocketAddr) -> Trail {
    let mut trail = guest.arrival.begin_trail(shared, Entry::Transparent);
    trail.note_dialled(dialled);
    trail
}

async fn open_opaque(
    shared: &Arc<Shared>,
    guest: GuestConnection,
    dialled: SocketAddr,
    live: Arc<Live>,
    pass: ConnectionPass,
) -> Option<Opened> {
    let mut trail = begin(shared, &guest, dialled);
    trail.note_destination(pass.allowed().destination());
    match admit(shared, live, pass, &mut trail).await {
        Ok(admitted) => tunnel::open(shared, guest, admitted, trail).await,
        Err(denial) => turn_away(guest, trail, &denial).await,
    }
}

async fn open_tls(
    shared: &Arc<Shared>,
    guest: GuestConnection,
    dialled: SocketAddr,
    port: Port,
    live: Arc<Live>,
    hello: ClientHello,
) -> Option<Opened> {
    let mut trail = begin(shared, &guest, dialled);
    let judging = async {
        let destination = identify_server_name(hello.server_name.as_deref(), port)?;
        trail.note_destination(&destination);
        let token = guest.arrival.listener_token();
        let tokens = token.beside(None);
        let pass = judge_connection(&shared.plane, &live.policy, destination, &tokens).await?;
        admit(shared, live, pass, &mut trail).await
    };
    match judging.await {
        Ok(admitted) => open_after(shared, guest, admitted, Some(hello), trail).await,
        Err(denial) => turn_away(guest, trail, &denial).await,
    }
}
