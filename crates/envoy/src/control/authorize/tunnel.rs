//! A tunnel's whole journey: what becomes of it, and what Envoy dials for it.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
};

use outgate_envoy_proto::envoy::service::auth::v3::OkHttpResponse;
use outgate_journey::{
    denial::{Denial, DenyCode},
    destination::{Destination, identify_connect, identify_server_name},
    gate::{TunnelTreatment, judge_connection},
    policy::Port,
    session::presented_to_proxy,
};
use outgate_plane::{
    budget::Budget,
    connection::{AdmittedConnection, admit_connection},
    trail::Trail,
};

use super::{Pass, agree, choose};
use crate::{
    control::{
        ControlPlane, Treatment,
        evidence::Evidence,
        exchange::{Exchange, Tunnel},
    },
    leg::Leg,
    render::names::decision,
};

pub(super) struct Opened {
    admitted: AdmittedConnection,
    treatment: Treatment,
    address: SocketAddr,
}

impl ControlPlane {
    pub(super) async fn open(
        &self,
        leg: Leg,
        evidence: &Evidence,
        trail: &mut Trail,
    ) -> Result<Opened, Denial> {
        self.is_open()?;
        let live = self.core.live();
        let destination = match leg {
            Leg::Transparent => captured_name(&evidence.authority)?,
            _ => identify_connect(&evidence.authority)?,
        };
        trail.note_destination(&destination);
        let presented = match leg {
            Leg::Transparent => Vec::new(),
            _ => presented_to_proxy(&evidence.headers),
        };
        let plane = &self.core.plane;
        let pass = judge_connection(plane, &live.policy, destination, &presented).await?;
        agree(evidence.verified.to_proxy.as_deref(), pass.session())?;
        let treatment = Treatment::of(&pass)?;
        let admitted = admit_connection(&self.core, live, pass, trail).await?;
        if let Some(treatment) = tls_treatment(treatment) {
            trail.note_treatment(treatment);
        }
        let address = choose(admitted.resolved.addresses())?;
        trail.allow(admitted.pass.allowed().rule().id.as_str());
        Ok(Opened {
            admitted,
            treatment,
            address,
        })
    }

    pub(super) fn keep_tunnel(
        &self,
        plane: &Arc<str>,
        opened: Opened,
        mut trail: Trail,
    ) -> Option<Pass> {
        let Opened {
            admitted,
            treatment,
            address,
        } = opened;
        let destination = admitted.pass.allowed().destination();
        let mut metadata = vec![
            (decision::RECORD, trail.request_id().to_owned()),
            (decision::HOST, destination.host().as_str().to_owned()),
            (decision::TARGET, destination.to_string()),
            (decision::TREATMENT, treatment.as_str().to_owned()),
            (
                decision::RULE,
                admitted.pass.allowed().rule().id.as_str().to_owned(),
            ),
        ];
        if treatment.carries_bytes() {
            metadata.push((decision::TUNNEL_ADDRESS, address.to_string()));
            trail.note_upstream(address);
        }
        let session = admitted.pass.session().cloned();
        if let Some(session) = &session {
            metadata.push((decision::SESSION, session.id().as_str().to_owned()));
        }
        let budget = session
            .as_ref()
            .filter(|_| treatment.carries_bytes())
            .and_then(|session| Budget::of(&self.core, &admitted.live, session));
        let destination = destination.clone();
        let mut exchange = Exchange::new(plane, &admitted.live, trail).ok()?;
        for key in [decision::CONNECTION, decision::TUNNEL, decision::REQUEST] {
            metadata.push((key, exchange.id.to_string()));
        }
        exchange.tunnel = Some(Tunnel {
            pass: admitted.pass,
            carries_bytes: treatment.carries_bytes(),
            carried: AtomicBool::new(false),
        });
        exchange.state().budget = budget;
        if let (Some(session), Some(slot)) = (&session, admitted.slot) {
            exchange
                .uses
                .keep_slot(&self.core, session, &destination, slot);
        }
        self.exchanges.keep(exchange)?;
        Some(Pass {
            metadata,
            headers: OkHttpResponse::default(),
        })
    }
}

/// What a `CONNECT` that Envoy made of a captured connection names: its SNI, and the port that was dialled.
fn captured_name(authority: &str) -> Result<Destination, Denial> {
    let (name, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    let port = port
        .parse()
        .ok()
        .and_then(Port::new)
        .ok_or(DenyCode::HostInvalid)?;
    // An absent SNI is a hyphen where Envoy writes it.
    let name = Some(name).filter(|name| !name.is_empty() && *name != "-");
    identify_server_name(name, port)
}

const fn tls_treatment(treatment: Treatment) -> Option<TunnelTreatment> {
    match treatment {
        Treatment::Opaque => Some(TunnelTreatment::PassThrough),
        Treatment::Judged { tls, .. } => tls,
    }
}
