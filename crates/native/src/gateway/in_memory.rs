//! A gateway that belongs to one process and ends with it: keys, CA and sessions in memory, and sockets that were opened
//! for one session.

use std::{collections::BTreeMap, net::SocketAddr, ops::Deref, path::PathBuf, sync::Arc};

use outgate_audit::{AuditKey, AuditLog, AuditOptions, Rotation};
use outgate_clock::Clock;
use outgate_config::Config;
use outgate_control::sessions::{NewSession, Sessions};
use outgate_issuer::Issuers;
use outgate_journey::{
    denial::{Denial, DenyCode},
    record::{AuditEvent, AuditSink, Entry, Operator, SessionChange, SessionRecord},
    session::{SessionEnd, SessionId, Terms, UnixSeconds},
};
use outgate_session::{KeyRing, new_session_id};
use tokio::net::TcpListener;

use super::ca::authority;
use super::{AUDIENCE, CaPlace, Gateway, GatewayError, ISSUER, Parts};
#[cfg(target_os = "linux")]
use outgate_plane::{
    Observer,
    clock::{self, unix_now},
    tokens::Tokens,
};

use crate::names::{self, NameSockets};
use crate::{
    arrival::{Arrival, OwnSession, keep_fresh, own_ttl},
    dialled::Capturing,
    listener::{Door, DoorKind},
};

/// Where an audit trail goes that belongs to one run.
#[derive(Debug, Clone)]
pub struct AuditPlace {
    /// The folder.
    pub folder: PathBuf,
    /// After so many records the gateway closes everything; at least 1.
    pub most_records: u64,
}

/// What says whose a connection is that arrives on a session's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribution {
    /// The socket: nobody but the session's guests can reach it.
    BySocket,
    /// The guest's token.
    ByToken,
}

/// Sockets on which the guests of one session reach the gateway.
pub struct SessionSockets {
    /// Of the explicit proxy.
    pub proxy: Vec<TcpListener>,
    /// On which connections to every address arrive; a connection's local address is the one that was dialled.
    pub transparent: Vec<TcpListener>,
    /// Of the name server.
    #[cfg(target_os = "linux")]
    pub names: NameSockets,
}

impl SessionSockets {
    /// Of the explicit proxy alone.
    #[must_use]
    pub fn of_proxy(listener: TcpListener) -> Self {
        Self {
            proxy: vec![listener],
            transparent: Vec::new(),
            #[cfg(target_os = "linux")]
            names: NameSockets::default(),
        }
    }
}

/// A gateway that keeps nothing but its audit trail, for sessions that this process begins itself.
pub struct InMemoryGateway {
    gateway: Gateway,
    keys: Arc<KeyRing>,
    /// The CA's certificate, in PEM.
    ca: Option<String>,
}

impl Deref for InMemoryGateway {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

impl InMemoryGateway {
    /// Starts one. It has no operator, and listens nowhere until [`Self::serve_session`]; `listeners` are the sockets
    /// among those of then that are in this process's own network, and never dialled.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub fn start(
        config: Config,
        audit: AuditPlace,
        listeners: &[SocketAddr],
        observer: Observer,
    ) -> Result<Self, GatewayError> {
        let now = unix_now();
        let keys = KeyRing::in_memory(ISSUER, AUDIENCE, now)
            .map_err(|error| GatewayError::Keys(error.to_string()))?;
        let (authority, ca) = authority(&config, now)?;
        let failed = |error: &dyn std::fmt::Display| GatewayError::Audit(error.to_string());
        let options = AuditOptions {
            clock: clock::machine(),
            key: AuditKey::in_memory().map_err(|error| failed(&error))?,
            rotation: Rotation::NEVER,
        };
        let trail = AuditLog::open(&audit.folder, options).map_err(|error| failed(&error))?;
        let nobody = Issuers::new(Vec::new(), clock::machine())
            .map_err(|error| GatewayError::Keys(error.to_string()))?;
        let parts = Parts {
            tokens: Tokens::new(keys.verifier(), nobody),
            sessions: Arc::new(Sessions::in_memory(clock::machine())),
            audit: trail,
            most_records: audit.most_records,
            observer: Some(observer),
            on_anomaly: None,
            ca: CaPlace::Memory(authority.map(Box::new)),
            doors: Vec::new(),
        };
        Ok(Self {
            gateway: Gateway::assemble(config, parts, listeners.into())?,
            keys: Arc::new(keys),
            ca,
        })
    }

    /// The CA's certificate, in PEM, where some destination is bumped.
    #[must_use]
    pub fn ca_certificate(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// Begins a session whose token this process keeps fresh.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn begin_session(
        &self,
        labels: BTreeMap<String, String>,
    ) -> Result<Arc<OwnSession>, GatewayError> {
        let shared = &self.gateway.shared;
        let (now, ttl) = (unix_now(), own_ttl(shared));
        let id = new_session_id();
        let minted = self
            .keys
            .mint(&id, &Terms::default(), ttl, now)
            .map_err(|error| GatewayError::Keys(error.to_string()))?;
        let new = NewSession {
            id: id.clone(),
            tenant: None,
            labels,
            container: None,
            terms: Terms::default(),
            expires: minted.expires,
            created_by: Operator::itself().name,
        };
        let created = shared.plane.sessions.create(new).await;
        created.map_err(|error| GatewayError::Sessions(error.to_string()))?;
        self.record(&id, SessionChange::Began, Some(minted.expires));
        let own = Arc::new(OwnSession::new(id, minted.token));
        let keeping = keep_fresh(Arc::clone(shared), Arc::clone(&self.keys), Arc::clone(&own));
        self.gateway.spawn_until_stopped(keeping);
        Ok(own)
    }

    /// Serves sockets for one session's guests. With `attributes`, whoever connects to them *is* the session, because
    /// nobody else can reach them; otherwise the guest's token says so.
    pub fn serve_session(
        &self,
        sockets: SessionSockets,
        session: &Arc<OwnSession>,
        attribution: Attribution,
    ) {
        let own = (attribution == Attribution::BySocket).then(|| Arc::clone(session));
        let door = |kind| Door {
            kind,
            own: own.clone(),
        };
        let captured = DoorKind::Transparent(Capturing::ByRoute);
        self.gateway.accept(sockets.proxy, &door(DoorKind::Proxy));
        self.gateway.accept(sockets.transparent, &door(captured));
        #[cfg(target_os = "linux")]
        names::serve(&self.gateway.shared, sockets.names, own.as_ref());
    }

    /// Records what a session's namespace refused without asking anybody, in words.
    pub fn record_refusals(&self, session: &Arc<OwnSession>, what: &str) {
        let arrival = Arrival {
            client: SocketAddr::from(([127, 0, 0, 1], 0)),
            own: Some(Arc::clone(session)),
        };
        let mut trail = arrival.begin_trail(&self.gateway.shared, Entry::Namespace);
        trail.deny(&Denial::new(DenyCode::PortNotAllowed).because(what.to_owned()));
    }

    /// Ends a session and cuts what it has open.
    ///
    /// # Errors
    /// [`GatewayError::Sessions`]; it is cut all the same.
    pub async fn end_session(&self, session: &OwnSession) -> Result<(), GatewayError> {
        let end = SessionEnd::Ended;
        self.record(session.id(), SessionChange::Ended(end), None);
        let sessions = &self.gateway.shared.plane.sessions;
        let ended = sessions
            .end(session.id(), end, &Operator::itself().name)
            .await;
        ended.map_err(|error| GatewayError::Sessions(error.to_string()))
    }

    fn record(&self, id: &SessionId, change: SessionChange, expires: Option<UnixSeconds>) {
        let record = SessionRecord {
            expires,
            ..SessionRecord::by_itself(id, change, clock::machine().wall_ms())
        };
        let audit = &self.gateway.shared.plane.audit;
        audit.record(AuditEvent::Session(Box::new(record)));
    }

    #[cfg(test)]
    pub(super) fn into_gateway(self) -> Gateway {
        self.gateway
    }
}
