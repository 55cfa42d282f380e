//! One call, from its head to its answer: who asks, whether they may, what is done, what is recorded, what is answered.
//! Every call leaves through `conclude`, so no path can forget the record.
//!
//! The order is the argument. Who may not call anything is not told what there is. What is not a revocation is refused
//! before it acts where there is no room or no audit trail; a revocation is not. A call that was accepted is carried
//! out and recorded even if its caller goes away meanwhile.

mod confided;
mod ledger;

use std::{net::SocketAddr, panic::AssertUnwindSafe, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response, request::Parts as Head};
use http_body_util::Full;
use hyper::body::Incoming;
use outgate_journey::record::{Operator, OperatorKind};
use outgate_wire::http1::HeadFault;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    OperatorApi, answer,
    call::{Call, Notes, Outcome},
    code::ErrorCode,
    identity::Identity,
    intake::read_body,
    problem::Refusal,
    query,
    route::{self, Access, Route},
    scope::{Scope, Scopes},
    seats::{Seat, Standing},
    webhook::once,
};

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Peer {
    /// On the Unix socket; the kernel says whose.
    Local(u32),
    /// On TLS; not known until it presents something.
    Remote(SocketAddr),
}

/// A connection, as a call sees it.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) peer: Peer,
    pub(crate) seat: Seat,
}

impl Visitor {
    pub(crate) const fn client(&self) -> Option<SocketAddr> {
        match self.peer {
            Peer::Local(_) => None,
            Peer::Remote(address) => Some(address),
        }
    }
}

/// Nobody that is known.
pub(crate) fn nobody() -> Operator {
    Operator {
        name: "unknown".to_owned(),
        kind: OperatorKind::Nobody,
        tenant: None,
    }
}

/// Answers a call. One on whose connection a fault was found is not looked at any further.
pub(crate) async fn attend(
    api: Arc<OperatorApi>,
    visitor: Arc<Visitor>,
    fault: Option<HeadFault>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let mut visit = Visit {
        request_id: api.next_request_id(),
        time_unix_ms: api.parts.clock.wall_ms(),
        operator: nobody(),
        operation: if fault.is_some() {
            "connect"
        } else {
            "unknown"
        },
        access: None,
        changes: true,
        notes: Arc::default(),
        place: None,
        visitor,
        api,
    };
    // A panic is a fault of ours: it is answered and recorded like every other refusal.
    let deciding = async {
        match fault {
            Some(fault) => Err(Refusal::saying(
                ErrorCode::MalformedRequest,
                fault.to_string(),
            )),
            None => visit.decide(request).await,
        }
    };
    let outcome = AssertUnwindSafe(deciding).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|_| {
        tracing::error!(request_id = visit.request_id, "an operator's call failed");
        Err(Refusal::from(ErrorCode::InternalFault).because("panicked"))
    });
    visit.conclude(outcome).await
}

struct Visit {
    api: Arc<OperatorApi>,
    visitor: Arc<Visitor>,
    request_id: String,
    time_unix_ms: u64,
    operator: Operator,
    operation: &'static str,
    access: Option<Access>,
    /// Whether the call changes anything, rather than show something.
    changes: bool,
    notes: Arc<Notes>,
    /// The place in the lane, until the call is answered.
    place: Option<OwnedSemaphorePermit>,
}

impl Visit {
    async fn decide(&mut self, request: Request<Incoming>) -> Outcome {
        let (head, body) = request.into_parts();
        let api = Arc::clone(&self.api);
        let found = route::find(&api.routes, &head.method, head.uri.path());
        let (route, places) = match found {
            Ok(found) => found,
            Err(refusal) => {
                self.authenticate(&head.headers).await?;
                return Err(refusal);
            }
        };
        (self.operation, self.access) = (route.operation, Some(route.access));
        self.changes = !head.method.is_safe();
        match route.access {
            Access::Public => self.show(route, places, &head, body).await,
            Access::Signed => self.signed(route, places, &head, body).await,
            Access::Scoped {
                any_of,
                every_tenant,
            } => {
                let identity = self.authenticate(&head.headers).await?;
                may(&identity, any_of, every_tenant)?;
                self.scoped(route, places, &head, body, identity).await
            }
        }
    }

    async fn authenticate(&mut self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        let identity = match self.visitor.peer {
            Peer::Local(uid) => Identity::local(uid),
            Peer::Remote(_) => {
                let loaded = self.api.loaded.load_full();
                loaded.identities.authenticate(headers).await?
            }
        };
        self.know(&identity);
        Ok(identity)
    }

    fn know(&mut self, identity: &Identity) {
        self.operator = identity.operator.clone();
        self.seat(Standing::Known);
    }

    fn seat(&self, standing: Standing) {
        self.visitor
            .seat
            .set(standing, self.api.parts.clock.monotonic());
    }

    /// What is public: anybody may ask, if there is room.
    async fn show(
        &mut self,
        route: &Route,
        places: Vec<String>,
        head: &Head,
        body: Incoming,
    ) -> Outcome {
        let query = query::parse(route.query, head.uri.query())?;
        let body = read_body(route.takes, &head.headers, body).await?;
        if !route.is_instant {
            self.place = Some(self.api.lane.enter()?);
        }
        let identity = Identity {
            operator: nobody(),
            scopes: Scopes::default(),
        };
        (route.act)(self.call(identity, places, query, body)).await
    }

    async fn scoped(
        &mut self,
        route: &Route,
        places: Vec<String>,
        head: &Head,
        body: Incoming,
        identity: Identity,
    ) -> Outcome {
        let query = query::parse(route.query, head.uri.query())?;
        let body = read_body(route.takes, &head.headers, body).await?;
        confided::refuse_secrets(&self.api.loaded.load().identities, &places, &query, &body)?;
        if !route.revokes {
            self.place = Some(self.api.lane.enter()?);
            if !self.api.parts.audit.is_writable() {
                return Err(Refusal::saying(ErrorCode::AuditUnavailable, NOTHING_DONE));
            }
        }
        // From here on it is not given up for another.
        self.seat(Standing::Busy);
        (route.act)(self.call(identity, places, query, body)).await
    }

    /// A webhook: its signature is over the body, so that is read first.
    async fn signed(
        &mut self,
        route: &Route,
        places: Vec<String>,
        head: &Head,
        body: Incoming,
    ) -> Outcome {
        let query = query::parse(route.query, head.uri.query())?;
        let body = read_body(route.takes, &head.headers, body).await?;
        let (loaded, now) = (self.api.loaded.load_full(), self.api.parts.clock.unix());
        let name = places.first().map(String::as_str).unwrap_or_default();
        let verified = loaded
            .webhooks
            .verify(name, &head.headers, &body, now, self.api.began)?;
        let identity = Identity::webhook(&verified.name, verified.tenant.clone());
        self.know(&identity);
        self.seat(Standing::Busy);
        let call = self.call(identity, places, query, body);
        once(&verified, now, (route.act)(call)).await
    }

    fn call(
        &self,
        identity: Identity,
        places: Vec<String>,
        query: Vec<(&'static str, String)>,
        body: Bytes,
    ) -> Call {
        Call {
            api: Arc::clone(&self.api),
            identity,
            places,
            query,
            body,
            notes: Arc::clone(&self.notes),
        }
    }

    /// The one exit: records what became of the call, and answers it.
    async fn conclude(self, outcome: Outcome) -> Response<Full<Bytes>> {
        let settled = match outcome {
            Ok(done) if self.access == Some(Access::Public) => Ok(done),
            Ok(done) => self.settle(done).await,
            Err(refusal) if refusal.in_effect => Err(self.settle_in_effect(refusal).await),
            // Asked once a second, it would fill the trail.
            Err(refusal) if refusal.code == ErrorCode::NotReady => Err(refusal),
            Err(refusal) => {
                self.note(&refusal);
                Err(refusal)
            }
        };
        let is_known = self.operator.kind != OperatorKind::Nobody;
        if is_known {
            self.seat(Standing::Known);
        }
        match settled {
            Ok(done) => answer::respond(
                done.status,
                "application/json",
                done.body.unwrap_or_default(),
            ),
            Err(refusal) => answer::refuse(&refusal, &self.request_id, is_known),
        }
    }
}

const NOTHING_DONE: &str = "nothing was changed: what cannot be recorded is not done";

/// Whether an identity may call a route.
fn may(identity: &Identity, any_of: &[Scope], every_tenant: bool) -> Result<(), Refusal> {
    if !identity.scopes.has_any(any_of) {
        let words: Vec<_> = any_of.iter().map(|scope| scope.as_str()).collect();
        let detail = format!("this needs the scope {}", words.join(" or "));
        return Err(Refusal::saying(ErrorCode::ScopeMissing, detail));
    }
    if every_tenant && identity.tenant().is_some() {
        return Err(ErrorCode::TenantBound.into());
    }
    Ok(())
}
