//! Sends a request that was let in to the service and lets its answer back. Nothing is decided here but what the wire
//! makes necessary.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, UPGRADE},
    request::Parts,
};
use hyper::{body::Incoming, ext::ReasonPhrase, upgrade::OnUpgrade};
use outgate_issuer::VerifiedClaims;
use outgate_journey::{
    denial::{Denial, DenyCode},
    outgoing::strip_for_guest,
};
use outgate_native::{answer::AnswerBody, guard::ActiveExchange};
use outgate_plane::{clock, trail::Trail};
use tokio::time::Instant;

use crate::{
    body::{RequestBody, ServiceBody},
    connection::Connection,
    head::{self, Arrival},
    relay::{self, Upgraded},
    service::peer,
    state::State,
    verdict::Admitted,
};

/// The service's answer, and what has to be done with it.
pub(crate) struct Forwarded {
    response: Response<()>,
    body: Incoming,
    upgrade: Option<Upgraded>,
    until: Option<Instant>,
    idle: Duration,
}

/// Sends the request and waits for the head of the answer.
///
/// # Errors
/// What stands between the gateway and the service's answer.
pub(crate) async fn forward(
    connection: &Connection,
    state: &State,
    admitted: Admitted,
    (mut parts, body): (Parts, Incoming),
    active: &Arc<ActiveExchange>,
    trail: &mut Trail,
) -> Result<Forwarded, Denial> {
    let caller = admitted
        .is_upgrade
        .then(|| parts.extensions.remove::<OnUpgrade>())
        .flatten();
    // What the server knows of the caller's connection is nothing for the other leg.
    parts.extensions.clear();
    let arrival = Arrival {
        client: connection.client,
        is_tls: connection.is_tls,
        request_id: trail.request_id(),
    };
    head::prepare(&mut parts, &state.rules, &admitted, &arrival)?;
    let until = admitted.caller.as_deref().map(end_of);
    let body = RequestBody::new(body, Arc::clone(trail.meter()), Arc::clone(active), until);
    let request = Request::from_parts(parts, body);
    let answer = answer(connection, state, request, trail).await?;
    if let Some(peer) = peer(&answer) {
        trail.note_upstream(peer);
    }
    let idle = connection.core.live().timeouts.idle;
    admit(answer, caller, until, idle, trail)
}

/// When the token that let a request in is over.
fn end_of(caller: &VerifiedClaims) -> Instant {
    let left = caller.expires.0.saturating_sub(clock::unix_now().0);
    // A day is longer than any stream is left alone; the sum must not overflow.
    Instant::now() + Duration::from_secs(left.min(366 * 24 * 3600))
}

/// Waits for as long as the request still moves, and then for the time that the file gives.
async fn answer(
    connection: &Connection,
    state: &State,
    request: Request<RequestBody>,
    trail: &Trail,
) -> Result<Response<Incoming>, Denial> {
    let patience = connection.core.live().timeouts.response;
    let mut sending = std::pin::pin!(state.service.send(request));
    let meter = trail.meter();
    let mut seen = 0;
    loop {
        match tokio::time::timeout(patience, sending.as_mut()).await {
            Ok(answer) => {
                return answer.map_err(|denial| {
                    match (connection.guard.fault(), meter.cut.get()) {
                        // What ended it comes before what it looks like from the other side.
                        (Some(fault), _) => outgate_plane::answer::denial_of(fault),
                        (None, Some(code)) => (*code).into(),
                        (None, None) => denial,
                    }
                });
            }
            Err(_) => {
                let now = meter.bytes_out.load(Ordering::Relaxed);
                if now == seen {
                    return Err(DenyCode::UpstreamTimeout.into());
                }
                seen = now;
            }
        }
    }
}

/// What an answer loses before the caller sees it.
fn admit(
    answer: Response<Incoming>,
    caller: Option<OnUpgrade>,
    until: Option<Instant>,
    idle: Duration,
    trail: &mut Trail,
) -> Result<Forwarded, Denial> {
    let (mut parts, body) = answer.into_parts();
    let service = parts.extensions.remove::<OnUpgrade>();
    let is_switch = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    if is_switch && caller.is_none() {
        return Err(Denial::new(DenyCode::UpstreamProtocol).because("101 that was not asked for"));
    }
    parts.extensions.remove::<ReasonPhrase>();
    strip_for_guest(&mut parts.headers);
    if let Ok(id) = HeaderValue::from_str(trail.request_id()) {
        let name = HeaderName::from_static("x-request-id");
        parts.headers.insert(name, id);
    }
    if is_switch {
        let websocket = HeaderValue::from_static("websocket");
        parts
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, websocket);
        parts.headers.remove(CONTENT_LENGTH);
    }
    // Each leg has a version of its own.
    parts.version = Version::default();
    trail.answer(parts.status);
    let upgrade = caller.zip(service.filter(|_| is_switch));
    Ok(Forwarded {
        response: Response::from_parts(parts, ()),
        body,
        upgrade: upgrade.map(|(caller, service)| Upgraded {
            caller,
            service,
            until,
            idle,
        }),
        until,
        idle,
    })
}

impl Forwarded {
    /// Lets the answer on; the record goes with its body, or with the protocol that follows it.
    pub(crate) fn into_response(
        self,
        connection: &Arc<Connection>,
        trail: Trail,
        active: Arc<ActiveExchange>,
    ) -> Response<AnswerBody<ServiceBody>> {
        if let Some(upgrade) = self.upgrade {
            relay::carry(connection, upgrade, trail, active);
            return self.response.map(|()| AnswerBody::Own { bytes: None });
        }
        let body = ServiceBody::new(self.body, trail, active, self.until, self.idle);
        self.response.map(|()| AnswerBody::Passed { body })
    }
}
