//! One request and its answer. [`exchange`] is the one exit: it owns the record and turns a denial into an answer.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, Version, header, request::Parts};
use hyper::body::Incoming;
use outgate_journey::{
    denial::{Denial, DenyCode},
    inject::AuditGate,
    record::{Caller, Entry},
};
use outgate_native::{
    answer::AnswerBody,
    guard::ActiveExchange,
    server::{discard, named_host},
};
use outgate_plane::{answer::denial_of, clock::unix_now, trail::Trail};

use crate::{
    answer::refusal,
    body::ServiceBody,
    connection::Connection,
    forward::{self, Forwarded},
    verdict::{Evidence, judge},
};

/// Serves one request.
pub(crate) async fn exchange(
    connection: &Arc<Connection>,
    request: Request<Incoming>,
) -> Response<AnswerBody<ServiceBody>> {
    let active = Arc::new(connection.guard.begin_exchange());
    let entry = if connection.is_tls {
        Entry::Inbound
    } else {
        Entry::InboundPlain
    };
    let mut trail = Trail::begin(&connection.core, entry, connection.client);
    let version = request.version();
    let wants_upgrade = request.headers().contains_key(header::UPGRADE);
    let is_awaited = request.headers().contains_key(header::EXPECT);
    let (parts, body) = request.into_parts();
    let mut body = Some(body);
    let mut response = match carry(connection, parts, &mut body, &active, &mut trail).await {
        Ok(forwarded) => forwarded.into_response(connection, trail, active),
        Err(denial) => {
            trail.deny(&denial);
            if let Some(body) = body.filter(|_| !is_awaited) {
                discard(body, version).await;
            }
            let own = refusal(&denial, trail.request_id(), version);
            trail.answer(own.status());
            own.map(AnswerBody::own)
        }
    };
    // What follows an upgrade that did not happen cannot be told from what follows one that did.
    if wants_upgrade
        && response.status() != StatusCode::SWITCHING_PROTOCOLS
        && version < Version::HTTP_2
    {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// Judged by what is in force at this moment, then sent on.
async fn carry(
    connection: &Arc<Connection>,
    parts: Parts,
    body: &mut Option<Incoming>,
    active: &Arc<ActiveExchange>,
    trail: &mut Trail,
) -> Result<Forwarded, Denial> {
    let state = connection.state();
    let by = |denial: Denial| denial.by(&state.rule);
    if let Some(fault) = connection.guard.fault_of(parts.uri.path()) {
        return Err(by(denial_of(fault)));
    }
    let path = parts.uri.path();
    trail.note_request(&parts.method, named_host(&parts), path, parts.version);
    let evidence = Evidence {
        method: &parts.method,
        target: &parts.uri,
        version: parts.version,
        headers: &parts.headers,
        is_tls: connection.is_tls,
    };
    let admitted = judge(&state.rules, &state.tokens, &evidence, unix_now)
        .await
        .map_err(by)?;
    trail.note_name(admitted.host.host());
    if let Some(caller) = &admitted.caller {
        let (issuer, subject) = (Arc::clone(&caller.issuer), Arc::clone(&caller.subject));
        trail.note_caller(Caller { issuer, subject }, &caller.token_id);
    }
    // What cannot be recorded is not let in.
    if !connection.core.plane.audit.is_writable() {
        return Err(by(DenyCode::AuditUnavailable.into()));
    }
    trail.allow(state.rule.as_str());
    let Some(body) = body.take() else {
        return Err(DenyCode::InternalFault.into());
    };
    forward::forward(connection, &state, admitted, (parts, body), active, trail)
        .await
        .map_err(by)
}
