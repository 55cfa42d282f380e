//! A request's journey up to *authorize*; the rate-limit service takes it on.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use http::header::{CONTENT_LENGTH, UPGRADE};
use outgate_envoy_proto::envoy::service::auth::v3::OkHttpResponse;
use outgate_journey::{
    denial::{Denial, DenyCode},
    destination::{Destination, agree_with_server_name, identify_absolute_form, identify_captured},
    gate::{PermittedRequest, RequestEvidence, attribute, permit_request, resolve_destination},
    policy::Port,
    session::{Session, presented_to_proxy},
};
use outgate_plane::{Live, trail::Trail};

use super::{Pass, agree, choose, leaving::leaving};
use crate::{
    control::{
        ControlPlane,
        evidence::{Evidence, with_host},
        exchange::{Exchange, Upgrade},
    },
    leg::Leg,
    render::names::decision,
};

pub(super) struct Permitted {
    live: Arc<Live>,
    permitted: PermittedRequest,
    inside: Option<Arc<Exchange>>,
    address: SocketAddr,
    headers: OkHttpResponse,
    is_upgrade: bool,
    /// See [`announced`].
    announced: u64,
}

impl ControlPlane {
    pub(super) async fn permit(
        &self,
        leg: Leg,
        evidence: &Evidence,
        tunnel: Option<Arc<Exchange>>,
        trail: &mut Trail,
    ) -> Result<Permitted, Denial> {
        self.is_open()?;
        let live = self.core.live();
        let inside = match leg.is_inner() {
            true => Some(entered(tunnel)?),
            false => None,
        };
        let (destination, attributed) = self.identify(leg, evidence, inside.as_deref()).await?;
        let verified = &evidence.verified;
        if leg == Leg::Forward {
            agree(verified.to_proxy.as_deref(), attributed.as_ref())?;
        }
        trail.note_destination(&destination);
        if let Some(session) = &attributed {
            trail.note_session(session);
        }
        let request = RequestEvidence {
            destination: &destination,
            attributed: attributed.as_ref(),
            method: &evidence.method,
            target: &evidence.target,
            headers: &evidence.headers,
        };
        let plane = &self.core.plane;
        let permitted = permit_request(plane, &live.policy, &request).await?;
        agree(verified.to_destination.as_deref(), permitted.session())?;
        if let Some(session) = permitted.session() {
            trail.note_session(session);
        }
        let allowed = permitted.permit().allowed().clone();
        let resolved = resolve_destination(plane, &live.policy, allowed).await?;
        let address = choose(resolved.addresses())?;
        let headers = leaving(evidence, &live, &permitted, &self.core.plane.tokens)?;
        Ok(Permitted {
            is_upgrade: evidence.headers.contains_key(UPGRADE),
            announced: announced(evidence),
            live,
            permitted,
            inside,
            address,
            headers,
        })
    }

    async fn identify(
        &self,
        leg: Leg,
        evidence: &Evidence,
        inside: Option<&Exchange>,
    ) -> Result<(Destination, Option<Session>), Denial> {
        if let Some(tunnel) = inside.and_then(|exchange| exchange.tunnel.as_ref()) {
            let destination = tunnel.pass.allowed().destination();
            let destination = if leg == Leg::Bumped {
                if evidence.server_name.is_empty() {
                    return Err(DenyCode::ServerNameMissing.into());
                }
                agree_with_server_name(destination, &evidence.server_name)?;
                destination.clone()
            } else {
                destination.in_clear()
            };
            return Ok((destination, tunnel.pass.session().cloned()));
        }
        if leg == Leg::TransparentPlain {
            let port = Port::new(evidence.local_port).ok_or(DenyCode::HostInvalid)?;
            let headers = with_host(evidence.headers.clone(), &evidence.authority);
            return Ok((identify_captured(&evidence.target, &headers, port)?, None));
        }
        let destination = identify_absolute_form(&evidence.target, &evidence.headers)?;
        let presented = presented_to_proxy(&evidence.headers);
        Ok((destination, attribute(&self.core.plane, &presented).await?))
    }

    pub(super) fn keep_request(
        &self,
        plane: &Arc<str>,
        permitted: Permitted,
        mut trail: Trail,
    ) -> Option<Pass> {
        let Permitted {
            live,
            permitted,
            inside,
            address,
            headers,
            is_upgrade,
            announced,
        } = permitted;
        trail.note_upstream(address);
        let session = permitted
            .session()
            .map(|session| session.id().as_str().to_owned());
        let destination = permitted.permit().allowed().destination();
        let mut metadata = vec![
            (decision::RECORD, trail.request_id().to_owned()),
            (decision::HOST, destination.host().as_str().to_owned()),
            (decision::TARGET, destination.to_string()),
            (decision::ADDRESS, address.to_string()),
            (
                decision::RULE,
                permitted.permit().allowed().rule().id.as_str().to_owned(),
            ),
            // As the native plane keys its connections: neither two sessions nor two policies share one.
            (
                decision::POOL,
                format!("{}/{}", session.as_deref().unwrap_or_default(), live.number),
            ),
        ];
        if let Some(session) = session {
            metadata.push((decision::SESSION, session));
        }
        let mut exchange = Exchange::new(plane, &live, trail).ok()?;
        let connection = inside.as_ref().map_or(&exchange.id, |tunnel| &tunnel.id);
        metadata.push((decision::CONNECTION, connection.to_string()));
        metadata.push((decision::REQUEST, exchange.id.to_string()));
        exchange.inside = inside;
        exchange.upgrade = is_upgrade.then(|| Upgrade {
            allowed: permitted.permit().allowed().clone(),
            session: permitted.session().cloned(),
        });
        exchange.state().announced = announced;
        exchange.state().permitted = Some(permitted);
        self.exchanges.keep(exchange)?;
        // Its tunnel's hold has judged by a policy that came meanwhile, without this upgrade: it has to look again.
        if is_upgrade && self.core.live().number != live.number {
            self.core.tell_of_reload();
        }
        Some(Pass { metadata, headers })
    }
}

/// The tunnel that a request came out of.
fn entered(tunnel: Option<Arc<Exchange>>) -> Result<Arc<Exchange>, Denial> {
    let known = tunnel.filter(|exchange| {
        let carried = exchange.tunnel.as_ref().map(|tunnel| &tunnel.carried);
        carried
            .inspect(|it| it.store(true, Ordering::Relaxed))
            .is_some()
    });
    known.ok_or_else(|| {
        Denial::new(DenyCode::InternalFault).because("the request's tunnel is not known")
    })
}

/// What a request says that it sends, in bytes: its head, as HTTP/1.1 would write it, and a body whose length it names. It
/// is charged before anything is sent; what a body without a length is, the access log tells.
fn announced(evidence: &Evidence) -> u64 {
    let target = evidence.target.path_and_query();
    let fields = evidence.headers.iter();
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let head =
        evidence.method.as_str().len() + target.map_or(1, |it| it.as_str().len()) + fields + 14;
    let body = evidence.headers.get(CONTENT_LENGTH);
    let body = body.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    body.unwrap_or(0).saturating_add(head as u64)
}
