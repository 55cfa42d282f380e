//! Stages *originate* and *scrub*: sends an admitted request on the gateway's own leg and lets the answer back. What
//! arrives here was judged; nothing is decided here but what the wire makes necessary.

use std::{sync::Arc, time::Duration};

use http::{
    HeaderValue, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, UPGRADE},
    request::Parts,
};
use hyper::{body::Incoming, ext::ReasonPhrase, upgrade::OnUpgrade};
use outgate_credential::{CredentialVersion, scrub_response};
use outgate_journey::{
    denial::{Denial, DenyCode},
    inject::InjectionPlan,
    outgoing::strip_for_guest,
};
use outgate_plane::{Live, budget::Budget, trail::Meter, trail::Trail};

use crate::{
    answer::AnswerBody,
    body::{RequestBody, ReturnToPool, Scrubbed, TrailerRules, UpstreamBody},
    carrier::Carrier,
    guard::ActiveExchange,
    outgoing::Outgoing,
    pool::{PoolKey, Sender},
    upgrade::{JudgedRequest, Upgraded, carry_upgrade},
};

pub(crate) type Plan = InjectionPlan<Arc<CredentialVersion>>;

/// An upstream's answer, and what has to be done with it.
pub(crate) struct Forwarded {
    response: Response<()>,
    body: Scrubbed,
    connection: Option<ReturnToPool>,
    upgrade: Option<Upgraded>,
    idle_after: Duration,
}

/// Sends the request and waits for the head of the answer.
///
/// # Errors
/// What stands between the gateway and the upstream's answer.
pub(crate) async fn forward(
    carrier: &Arc<Carrier>,
    live: &Arc<Live>,
    plan: Plan,
    mut parts: Parts,
    body: Incoming,
    trail: &mut Trail,
) -> Result<Forwarded, Denial> {
    let shared = &carrier.shared;
    let allowed = plan.admission().permit().allowed().clone();
    let guest_upgrade = take_upgrade(&mut parts);
    let judged = guest_upgrade
        .is_some()
        .then(|| JudgedRequest::of(&allowed, plan.admission().session(), &parts));
    let mut request = Outgoing::prepare(carrier, live, &plan, parts)?;
    if let Some(attachment) = plan.attachment() {
        trail.note_attachment(attachment);
    }

    let session = plan.admission().session();
    let key = PoolKey {
        destination: allowed.destination().clone(),
        session: session.map(|session| session.id().clone()),
        policy: live.number,
        http2: request.wants_http2(),
    };
    let budget = session.and_then(|session| Budget::of(shared, live, session));
    charge_head(request.head_bytes(), budget.as_ref(), trail.meter())
        .map_err(|denial| denial.by(&allowed.rule().id))?;
    let trailers = TrailerRules {
        shared: Arc::clone(shared),
        live: Arc::clone(live),
        rule: Arc::clone(allowed.rule()),
    };
    trail.keep_bodies();
    let body = RequestBody::new(
        body,
        Arc::clone(trail.meter()),
        budget.clone(),
        trail.activity(),
        trailers,
    );
    let (answer, connected) = request.send(live, &key, body, trail).await?;

    trail.answer(answer.status());
    let connection = match connected.sender {
        Sender::Http1(_) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => None,
        sender => Some(ReturnToPool {
            pool: Arc::clone(&shared.pool),
            key,
            sender,
            peer: connected.peer,
        }),
    };
    let lease = plan.lease_to_scrub(&carrier.shared.plane.credentials);
    let lease = lease.as_ref();
    let (response, body, upstream_upgrade) =
        admit_answer(answer, lease, guest_upgrade.is_some(), trail.meter())
            .map_err(|denial| denial.by(&allowed.rule().id))?;
    let upgrade = match (guest_upgrade, upstream_upgrade, judged) {
        (Some(guest), Some(upstream), Some(judged)) => {
            let scrubber = lease.map(|lease| Arc::clone(lease.scrubber()));
            Some(Upgraded {
                guest,
                upstream,
                judged,
                scrubber,
                budget,
            })
        }
        _ => None,
    };
    Ok(Forwarded {
        response,
        body,
        connection,
        upgrade,
        idle_after: live.timeouts.idle,
    })
}

/// A head is sent as much as a body is: what it holds is counted, and charged to the session's budget.
fn charge_head(bytes: usize, budget: Option<&Budget>, meter: &Meter) -> Result<(), Denial> {
    meter.count_out(bytes);
    budget.map_or(Ok(()), |budget| budget.charge(bytes))?;
    Ok(())
}

impl Forwarded {
    /// Lets the answer on; the record goes with its body, or with the protocol that follows it.
    pub(crate) fn into_response(
        self,
        carrier: &Arc<Carrier>,
        trail: Trail,
        active: ActiveExchange,
    ) -> Response<AnswerBody<UpstreamBody>> {
        if let Some(upgrade) = self.upgrade {
            carry_upgrade(carrier, upgrade, trail, active);
            return self.response.map(|()| AnswerBody::Own { bytes: None });
        }
        let cut = trail
            .activity()
            .map(|activity| activity.cut().clone().cancelled_owned());
        let body = UpstreamBody::new(
            self.body,
            trail,
            active,
            self.connection,
            cut,
            self.idle_after,
        );
        self.response.map(|()| AnswerBody::Passed { body })
    }
}

/// The guest's side of an upgrade, taken before the request is sent on.
fn take_upgrade(parts: &mut Parts) -> Option<OnUpgrade> {
    parts
        .headers
        .contains_key(UPGRADE)
        .then(|| parts.extensions.remove::<OnUpgrade>())
        .flatten()
}

type Admitted = (Response<()>, Scrubbed, Option<OnUpgrade>);

/// Stage *scrub*, and what else an answer loses before the guest sees it.
fn admit_answer(
    answer: Response<Incoming>,
    lease: Option<&Arc<CredentialVersion>>,
    asked_for_upgrade: bool,
    meter: &Meter,
) -> Result<Admitted, Denial> {
    let (mut parts, body) = answer.into_parts();
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let is_switch = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    if is_switch && !asked_for_upgrade {
        return Err(Denial::new(DenyCode::UpstreamProtocol).because("101 that was not asked for"));
    }
    // Before anything is stripped: the fields that say how the body is coded may be named by `Connection`.
    let body = match lease {
        Some(lease) => {
            let hits = Arc::clone(&meter.scrubbed);
            let body =
                scrub_response(&mut parts, body, lease.scrubber(), hits).map_err(|error| {
                    Denial::new(DenyCode::ResponseUnscrubbable).because(error.to_string())
                })?;
            Scrubbed::Scrubbed { body }
        }
        None => Scrubbed::Plain { body },
    };
    // The reason phrase is the upstream's free text, and no header field that could be scrubbed.
    parts.extensions.remove::<ReasonPhrase>();
    strip_for_guest(&mut parts.headers);
    if is_switch {
        let headers = &mut parts.headers;
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.remove(CONTENT_LENGTH);
    }
    // Each leg has a version of its own.
    parts.version = Version::default();
    Ok((
        Response::from_parts(parts, ()),
        body,
        upgrade.filter(|_| is_switch),
    ))
}
