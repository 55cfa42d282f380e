//! The door for gateways that follow this one: what they are told, and what becomes of what they report.

use std::{collections::BTreeSet, net::TcpListener, sync::Arc};

use anyhow::{Context, Result};
use outgate_config::Config;
use outgate_control::sessions::{DenyEntry, DenyTarget};
use outgate_fleet::{
    AnomalyRecord, Denylist, Fact, FleetServer, PolicyDocument, ServerTls, StateSource, Target,
};
use outgate_journey::{
    record::{AuditEvent, AuditSink},
    session::UnixSeconds,
};
use tokio::sync::watch;

use super::{core::Core, record::end_for_anomaly};
use crate::commands::files::read;

/// The door before it is opened.
pub(super) struct Door {
    pub(super) tls: ServerTls,
    pub(super) gateways: Option<BTreeSet<String>>,
}

/// The door that the file names, if it names one.
pub(super) fn door(config: &Config) -> Result<Option<Door>> {
    let Some(listen) = &config.listen.control else {
        return Ok(None);
    };
    let tls = ServerTls::from_pem(
        &read(&listen.tls.certificate)?,
        &read(&listen.tls.key)?,
        &read(&listen.client_ca)?,
    )
    .context("listen.control")?;
    let names: BTreeSet<_> = listen.gateways.iter().cloned().collect();
    Ok(Some(Door {
        tls,
        gateways: (!names.is_empty()).then_some(names),
    }))
}

/// The socket of the door that the file names, if it names one.
pub(super) fn listener(config: &Config) -> Result<Option<TcpListener>> {
    let listen = config.listen.control.as_ref();
    listen
        .map(|listen| {
            let listener = TcpListener::bind(listen.address)
                .with_context(|| format!("listen.control {}", listen.address))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
        .transpose()
}

/// The server behind the door.
pub(super) fn server(core: &Arc<Core>, door: Door) -> Result<Arc<FleetServer>> {
    let source: Arc<dyn StateSource> = Arc::new(Told(Arc::clone(core)));
    let server = FleetServer::new(source, door.tls)?;
    server.set_gateways(door.gateways);
    Ok(Arc::new(server))
}

/// What followers are told.
struct Told(Arc<Core>);

impl StateSource for Told {
    fn policy(&self) -> PolicyDocument {
        PolicyDocument {
            number: *self.0.changed.borrow(),
            text: self.0.gateway.config().shared_document().into(),
        }
    }

    fn jwks(&self) -> Arc<str> {
        self.0.keys.jwks().to_string().into()
    }

    fn denylist(&self) -> Denylist {
        let snapshot = self.0.sessions.snapshot();
        let ended = snapshot.ended.into_iter().map(|ended| Fact::Ended {
            session: ended.id,
            how: ended.cause,
        });
        let kill = snapshot.kill.map(|kill| Fact::KillSwitch {
            since: UnixSeconds(kill.since),
            by: kill.by.into(),
            reason: kill.reason.into(),
        });
        let limits = snapshot.limits.into_iter();
        let limits = limits.map(|(session, limits)| Fact::Limits { session, limits });
        let denied = snapshot.denied.into_iter().map(denied);
        ended.chain(denied).chain(limits).chain(kill).collect()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// A gateway's word ends a session only where this gateway's own tripwire is armed: its identity carries no right.
    fn report(&self, gateway: &str, mut anomaly: AnomalyRecord) {
        let config = self.0.gateway.config();
        anomaly.armed = config.sessions.tripwire.is_some_and(|wire| wire.arm);
        let (session, armed) = (anomaly.session.clone(), anomaly.armed);
        tracing::warn!(code = "tripwire", gateway, %session, armed, "a gateway reports an anomaly");
        self.0.audit.record(AuditEvent::Anomaly(Box::new(anomaly)));
        if armed {
            end_for_anomaly(&self.0, session, format!("gateway:{gateway}"));
        }
    }
}

fn denied(entry: DenyEntry) -> Fact {
    Fact::Denied {
        target: match entry.target {
            DenyTarget::Session(session) => Target::Session(session),
            DenyTarget::Token(token) => Target::Token(token.into()),
            DenyTarget::Subject { issuer, subject } => Target::Subject {
                issuer: issuer.into(),
                subject: subject.into(),
            },
        },
        reason: entry.reason.into(),
        by: entry.by.into(),
        at: UnixSeconds(entry.at),
        until: entry.until.map(UnixSeconds),
    }
}
