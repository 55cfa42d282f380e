//! One request and its answer. [`exchange`] is the one exit: it owns the record and turns a denial into an answer;
//! [`carry`] is the journey, top to bottom, and leaves by `?`.

use std::sync::Arc;

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version, header::CONNECTION, request::Parts,
};
use hyper::body::Incoming;
use outgate_journey::{
    denial::{Denial, DenyCode},
    destination::{Destination, identify_absolute_form, identify_captured},
    gate::{RequestEvidence, judge_request},
    policy::Port,
    session::Session,
};
use outgate_plane::{
    answer::{Challenge, afterwards, denial_of, refuse},
    trail::Trail,
    tripwire::Seen,
};

use crate::{
    answer::AnswerBody,
    body::UpstreamBody,
    carrier::{Carrier, Carries},
    forward::{self, Forwarded},
    server::{discard, named_host},
};

/// Serves one request.
pub(crate) async fn exchange(
    carrier: &Arc<Carrier>,
    request: Request<Incoming>,
) -> Response<AnswerBody<UpstreamBody>> {
    let active = carrier.guard.begin_exchange();
    let mut trail = carrier
        .arrival
        .begin_trail(&carrier.shared, carrier.entry());
    if let Carries::Captured(dialled) = &carrier.carries {
        trail.note_dialled(*dialled);
    }
    let version = request.version();
    let wants_upgrade = request.headers().contains_key(http::header::UPGRADE);
    let is_awaited = request.headers().contains_key(http::header::EXPECT);
    let mut leg = Leg::new(carrier);
    let (parts, body) = request.into_parts();
    let mut body = Some(body);
    let mut response = match carry(carrier, parts, &mut body, &mut trail, &mut leg).await {
        Ok(forwarded) => forwarded.into_response(carrier, trail, active),
        Err(denial) => {
            trail.deny(&denial);
            if let Some(body) = body.filter(|_| !is_awaited) {
                discard(body, version).await;
            }
            let own = refuse(
                &denial,
                trail.request_id(),
                leg.challenge,
                afterwards(&denial, version),
            );
            trail.answer(own.status());
            own.map(AnswerBody::own)
        }
    };
    // What follows an upgrade that did not happen cannot be told from what follows one that did; and what follows on a
    // gateway that stops is another gateway's.
    let is_last = wants_upgrade || carrier.shared.stopping.is_cancelled();
    if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS && version < Version::HTTP_2
    {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// How the leg towards the guest answers.
struct Leg {
    challenge: Challenge,
}

impl Leg {
    fn new(carrier: &Carrier) -> Self {
        let challenge = match carrier.carries {
            Carries::Proxied => Challenge::Proxy,
            Carries::Captured(_) | Carries::Tunnelled { .. } => Challenge::Destination,
        };
        Self { challenge }
    }
}

/// The journey of one request.
async fn carry(
    carrier: &Arc<Carrier>,
    parts: Parts,
    body: &mut Option<Incoming>,
    trail: &mut Trail,
    leg: &mut Leg,
) -> Result<Forwarded, Denial> {
    let shared = &carrier.shared;
    let live = shared.live();
    if let Some(fault) = carrier.guard.fault_of(parts.uri.path()) {
        return Err(denial_of(fault));
    }
    trail.note_request(
        &parts.method,
        named_host(&parts),
        parts.uri.path(),
        parts.version,
    );
    if parts.method == Method::CONNECT {
        return Err(Denial::new(DenyCode::MalformedRequest)
            .because("CONNECT must be the first request of its connection"));
    }

    let (destination, attributed) = identify(carrier, &parts).await?;
    trail.note_destination(&destination);
    if let Some(session) = &attributed {
        trail.note_session(session);
        leg.challenge = Challenge::Destination;
    }

    let evidence = RequestEvidence {
        destination: &destination,
        attributed: attributed.as_ref(),
        method: &parts.method,
        target: &parts.uri,
        headers: &parts.headers,
    };
    let plan = judge_request(&shared.plane, &live.policy, &evidence).await?;
    let allowed = plan.admission().permit().allowed().clone();
    if let Some(session) = plan.admission().session() {
        trail.note_session(session);
        carrier.uses.count(shared, &live, session, &allowed)?;
        let host = allowed.destination().host();
        shared.watch_session(&live, session, Seen::Request(host))?;
    }
    trail.allow(allowed.rule().id.as_str());
    let Some(body) = body.take() else {
        return Err(DenyCode::InternalFault.into());
    };
    forward::forward(carrier, &live, plan, parts, body, trail).await
}

/// Which destination, and whose connection.
async fn identify(
    carrier: &Carrier,
    parts: &Parts,
) -> Result<(Destination, Option<Session>), Denial> {
    let (arrival, plane) = (&carrier.arrival, &carrier.shared.plane);
    match &carrier.carries {
        Carries::Tunnelled {
            pass, destination, ..
        } => {
            // The listener's token is renewed while the tunnel lives; the one on a CONNECT is not.
            let session = match &arrival.own {
                Some(_) => arrival.attribute(plane, None).await?,
                None => pass.session().cloned(),
            };
            Ok((destination.clone(), session))
        }
        Carries::Proxied => {
            let destination = identify_absolute_form(&parts.uri, &parts.headers)?;
            let session = arrival.attribute(plane, Some(&parts.headers)).await?;
            Ok((destination, session))
        }
        Carries::Captured(dialled) => {
            let port = Port::new(dialled.port()).ok_or(DenyCode::HostInvalid)?;
            let destination = identify_captured(&parts.uri, &parts.headers, port)?;
            Ok((destination, arrival.attribute(plane, None).await?))
        }
    }
}
