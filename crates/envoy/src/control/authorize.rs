//! ext_authz: takes a tunnel through the whole of its journey, and a request up to *authorize*. The answer tells Envoy
//! what to dial, under which id the rest is asked, and which of the guest's fields do not leave.

mod leaving;
mod message;
mod request;
mod tunnel;

use std::{net::SocketAddr, sync::Arc};

use outgate_envoy_proto::{envoy::service::auth::v3::OkHttpResponse, google::rpc};
use outgate_journey::{
    denial::{Denial, DenyCode},
    session::Session,
};
use outgate_plane::{answer::Challenge, trail::Trail};
use outgate_xds::Call;
use tonic::Status;

pub(crate) use self::message::Question;
pub(super) use self::message::{Answer, Attributes, HttpRequest, Peer};
use self::{request::Permitted, tunnel::Opened};
use super::{
    ControlPlane,
    evidence::{Evidence, client_of},
    exchange::Exchange,
    refusal,
};
use crate::{leg::Leg, render::names::asks};

impl ControlPlane {
    /// Answers ext_authz.
    pub(super) async fn check(self, call: Call<Question>) -> Result<Answer, Status> {
        let leg = call
            .metadata
            .get(asks::LEG)
            .and_then(|word| word.to_str().ok())
            .and_then(Leg::parse)
            .ok_or_else(|| Status::invalid_argument("metadata `leg` is missing or unknown"))?;
        let attributes = call
            .question
            .attributes
            .ok_or_else(|| Status::invalid_argument("no attributes"))?;
        self.judge(&call.client, leg, attributes)
            .await
            // Whatever is not let through by an answer is refused.
            .ok_or_else(|| Status::unavailable("the gateway stops"))
    }
}

/// What Envoy is told of what may go on.
struct Pass {
    metadata: Vec<(&'static str, String)>,
    headers: OkHttpResponse,
}

impl ControlPlane {
    /// The one exit: every call ends in a verdict, and every refusal in a record. `None`: records are not kept any more.
    async fn judge(&self, plane: &Arc<str>, leg: Leg, attributes: Attributes) -> Option<Answer> {
        let peer = client_of(&attributes);
        let evidence = Evidence::read(leg, attributes);
        // On the inner legs Envoy talks to itself: the guest's socket is the tunnel's.
        let tunnel = evidence.as_ref().ok().filter(|_| leg.is_inner());
        let tunnel = tunnel.and_then(|it| self.exchanges.find(plane, it.connection.as_deref()?));
        let client = tunnel.as_deref().and_then(client_in).unwrap_or(peer);
        let mut trail = Trail::begin(&self.core, leg.entry(), client);
        let judged = match evidence {
            Err(denial) => Err(denial),
            Ok(evidence) => {
                trail.note_request(
                    &evidence.method,
                    Some(&evidence.authority),
                    path_of(&evidence),
                    evidence.version,
                );
                match leg {
                    Leg::Connect | Leg::Transparent => self
                        .open(leg, &evidence, &mut trail)
                        .await
                        .map(Judged::Tunnel),
                    _ => self
                        .permit(leg, &evidence, tunnel, &mut trail)
                        .await
                        .map(Judged::Request),
                }
            }
        };
        match judged {
            Ok(Judged::Tunnel(opened)) => self.keep_tunnel(plane, opened, trail).map(allowed),
            Ok(Judged::Request(permitted)) => {
                self.keep_request(plane, permitted, trail).map(allowed)
            }
            Err(denial) => Some(refused(leg, &denial, trail)),
        }
    }

    /// Whether anything is taken on at this moment.
    fn is_open(&self) -> Result<(), Denial> {
        if self.core.stopping.is_cancelled() {
            return Err(DenyCode::ShuttingDown.into());
        }
        if !self.core.keeps_records() {
            return Err(
                Denial::new(DenyCode::AuditUnavailable).because("records wait to be written")
            );
        }
        self.exchanges.has_room()
    }
}

/// Who opened a tunnel, while its record is open.
fn client_in(tunnel: &Exchange) -> Option<SocketAddr> {
    tunnel.state().trail.as_ref().map(Trail::client)
}

/// The vetted address that Envoy dials: the first of them, IPv4 before IPv6 as long as both are there, because Envoy is
/// told one address only and most networks carry the former.
fn choose(addresses: &[SocketAddr]) -> Result<SocketAddr, Denial> {
    addresses
        .iter()
        .find(|address| address.is_ipv4())
        .or_else(|| addresses.first())
        .copied()
        .ok_or_else(|| DenyCode::NameNotResolved.into())
}

/// Envoy's own reading of a token must not be another session's than ours: then the two read different fields.
fn agree(verified: Option<&str>, session: Option<&Session>) -> Result<(), Denial> {
    match (verified, session) {
        (Some(verified), Some(session)) if verified != session.id().as_str() => {
            Err(Denial::new(DenyCode::InternalFault)
                .because("Envoy verified another session's token"))
        }
        _ => Ok(()),
    }
}

enum Judged {
    Tunnel(Opened),
    Request(Permitted),
}

/// Writes the record, and gives the answer.
fn refused(leg: Leg, denial: &Denial, mut trail: Trail) -> Answer {
    trail.deny(denial);
    // The proxy knows whose request it is: what it lacks is what the destination was to get.
    let challenge = match leg {
        Leg::Forward if trail.activity().is_some() => Challenge::Destination,
        _ => leg.challenge(),
    };
    let answer = refusal::refuse(denial, trail.request_id(), challenge);
    trail.answer(answer.status());
    trail.complete();
    refusal::checked(&answer)
}

fn path_of(evidence: &Evidence) -> &str {
    if evidence.method == http::Method::CONNECT {
        ""
    } else {
        evidence.target.path()
    }
}

fn allowed(pass: Pass) -> Answer {
    Answer {
        status: Some(rpc::Status::default()),
        denied: None,
        ok: Some(pass.headers),
        dynamic_metadata: Some(pass.metadata.into_iter().collect()),
    }
}
