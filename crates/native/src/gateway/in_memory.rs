//! A gateway that belongs to one process and ends with it: keys, CA and sessions in memory, and sockets that were opened
//! for one session.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use outgate_config::Config;
use outgate_control::sessions::Sessions;
use outgate_journey::{
    denial::{Denial, DenyCode},
    record::Entry,
};
use outgate_pki::CertificateAuthority;
use outgate_session::{KeyRing, new_session_id};
use tokio::net::TcpListener;

use super::{AUDIENCE, Gateway, GatewayError, Home, ISSUER, Parts, minting, share};
#[cfg(target_os = "linux")]
use crate::names::{self, NameSockets};
use crate::{
    arrival::{Arrival, OwnSession, keep_fresh, own_ttl},
    clock::unix_now,
    listener::{Door, DoorKind},
    shared::Observer,
    trail::Trail,
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

impl Gateway {
    /// Starts a gateway that keeps nothing but its audit trail. It has no operator socket, and
    /// listens nowhere until [`Self::serve_session`]; `listeners` are the sockets among those of then that are in this
    /// process's own network, and never dialled.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub fn start_in_memory(
        config: Config,
        audit: AuditPlace,
        listeners: &[SocketAddr],
        observer: Observer,
    ) -> Result<Self, GatewayError> {
        let now = unix_now();
        let keys = KeyRing::in_memory(ISSUER, AUDIENCE, now)
            .map_err(|error| GatewayError::Keys(error.to_string()))?;
        let ca = config
            .needs_ca()
            .then(|| CertificateAuthority::in_memory(now))
            .transpose()
            .map_err(|error| GatewayError::Ca(error.to_string()))?;
        let certificate = ca.as_ref().map(|ca| ca.certificate_pem().to_owned());
        let parts = Parts {
            keys: Arc::new(keys),
            sessions: Arc::new(Sessions::in_memory()),
            audit: audit.folder,
            most_records: audit.most_records,
            observer: Some(observer),
            server_tls: ca.map(minting).transpose()?,
        };
        let keys = Arc::clone(&parts.keys);
        let shared = share(&config, parts, listeners)?;
        let config = Arc::new(ArcSwap::from_pointee(config));
        let home = Home::Memory { ca: certificate };
        Ok(Self::assemble(shared, config, keys, home, listeners.into()))
    }

    /// Begins a session whose token this process keeps fresh.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub fn begin_session(
        &self,
        labels: BTreeMap<String, String>,
    ) -> Result<Arc<OwnSession>, GatewayError> {
        let (now, ttl) = (unix_now(), own_ttl(&self.shared));
        let id = new_session_id();
        let minted = self
            .keys
            .mint(&id, ttl, now)
            .map_err(|error| GatewayError::Keys(error.to_string()))?;
        self.shared
            .plane
            .sessions
            .create(&id, labels, minted.expires, now)
            .map_err(|error| GatewayError::Sessions(error.to_string()))?;
        let own = Arc::new(OwnSession::new(id, minted.token));
        let (shared, keys) = (Arc::clone(&self.shared), Arc::clone(&self.keys));
        self.shared
            .spawn_until_stopped(keep_fresh(shared, keys, Arc::clone(&own)));
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
        self.accept(sockets.proxy, &door(DoorKind::Proxy));
        self.accept(sockets.transparent, &door(DoorKind::Transparent));
        #[cfg(target_os = "linux")]
        names::serve(&self.shared, sockets.names, own.as_ref());
    }

    /// Records what a session's namespace refused without asking anybody, in words.
    pub fn record_refusals(&self, session: &Arc<OwnSession>, what: &str) {
        let arrival = Arrival {
            client: SocketAddr::from(([127, 0, 0, 1], 0)),
            own: Some(Arc::clone(session)),
        };
        let mut trail = Trail::begin(&self.shared, Entry::Namespace, &arrival);
        trail.deny(&Denial::new(DenyCode::PortNotAllowed).because(what.to_owned()));
    }

    /// Ends a session and cuts what it has open.
    ///
    /// # Errors
    /// [`GatewayError::Sessions`]; it is cut all the same.
    pub fn end_session(&self, session: &OwnSession) -> Result<(), GatewayError> {
        self.shared
            .plane
            .sessions
            .end(session.id(), unix_now())
            .map_err(|error| GatewayError::Sessions(error.to_string()))
    }
}
