//! How a connection reached the gateway: from which socket, and whether it did so on a listener that was opened for one
//! session. The latter is a session that this process started for a command of its own; the token that speaks for it
//! is minted here, and renewed for as long as the command lives.

use std::{borrow::Cow, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use http::HeaderMap;
use outgate_journey::{
    denial::Denial,
    gate::{attribute, attribute_known},
    record::Entry,
    session::{
        PresentedToken, Session, SessionId, Terms, TokenSlot, UnixSeconds, presented_to_proxy,
    },
};
use outgate_plane::{GatewayPlane, clock, trail::Trail};
use outgate_session::{KeyError, KeyRing, Minted, SessionToken};

use crate::shared::Shared;

/// A session of this process's own, with the token of the moment.
pub struct OwnSession {
    id: SessionId,
    token: ArcSwap<SessionToken>,
}

impl OwnSession {
    pub(crate) fn new(id: SessionId, token: SessionToken) -> Self {
        Self {
            id,
            token: ArcSwap::from_pointee(token),
        }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> &SessionId {
        &self.id
    }

    /// Its token: good from this moment for at least half a token's life.
    #[must_use]
    pub fn token(&self) -> Arc<SessionToken> {
        self.token.load_full()
    }

    pub(crate) fn renew(
        &self,
        keys: &KeyRing,
        ttl: Duration,
        now: UnixSeconds,
    ) -> Result<UnixSeconds, KeyError> {
        let terms = Terms::default();
        let Minted { token, expires, .. } = keys.mint(&self.id, &terms, ttl, now)?;
        self.token.store(Arc::new(token));
        Ok(expires)
    }
}

/// How a connection reached the gateway.
#[derive(Clone)]
pub(crate) struct Arrival {
    /// The guest's socket.
    pub(crate) client: SocketAddr,
    /// The session that the listener was opened for.
    pub(crate) own: Option<Arc<OwnSession>>,
}

impl Arrival {
    /// The token that speaks for the listener at this moment.
    pub(crate) fn listener_token(&self) -> ListenerToken {
        ListenerToken(self.own.as_ref().map(|own| own.token()))
    }

    /// Whose connection it is at this moment, by the `Proxy-Authorization` in `headers` and by its listener.
    pub(crate) async fn attribute(
        &self,
        plane: &GatewayPlane,
        headers: Option<&HeaderMap>,
    ) -> Result<Option<Session>, Denial> {
        attribute(plane, &self.listener_token().beside(headers)).await
    }

    /// Begins a record; of whose it is, what its socket says is known from here on.
    pub(crate) fn begin_trail(&self, shared: &Shared, entry: Entry) -> Trail {
        let mut trail = Trail::begin(shared, entry, self.client);
        if self.own.is_some()
            && let Ok(Some(session)) = self.attribute_by_listener(&shared.plane)
        {
            trail.note_session(&session);
        }
        trail
    }

    /// Whose connection it is by its listener alone.
    pub(crate) fn attribute_by_listener(
        &self,
        plane: &GatewayPlane,
    ) -> Result<Option<Session>, Denial> {
        attribute_known(plane, &self.listener_token().beside(None))
    }
}

/// The listener's token, where it has one.
pub(crate) struct ListenerToken(Option<Arc<SessionToken>>);

impl ListenerToken {
    /// All tokens that speak for a connection: those in the `Proxy-Authorization` of `headers`, and this one.
    pub(crate) fn beside<'a>(&'a self, headers: Option<&'a HeaderMap>) -> Vec<PresentedToken<'a>> {
        let mut tokens = headers.map(presented_to_proxy).unwrap_or_default();
        tokens.extend(self.0.as_ref().map(|token| PresentedToken {
            slot: TokenSlot::Listener,
            text: Cow::Borrowed(token.expose()),
        }));
        tokens
    }
}

/// Tokens live for whole seconds: shorter ones would be over before they are renewed.
const SHORTEST: Duration = Duration::from_secs(4);

/// The life of a token that is renewed.
pub(crate) fn own_ttl(shared: &Shared) -> Duration {
    shared.live().ttl.max(SHORTEST)
}

/// Mints a fresh token whenever half of the last one's life is over.
pub(crate) async fn keep_fresh(shared: Arc<Shared>, keys: Arc<KeyRing>, own: Arc<OwnSession>) {
    loop {
        let ttl = own_ttl(&shared);
        tokio::time::sleep(ttl / 2).await;
        match own.renew(&keys, ttl, clock::unix_now()) {
            Ok(expires) => {
                if let Err(error) = shared.plane.sessions.renewed(own.id(), expires).await {
                    tracing::debug!(%error, "the session is over");
                }
            }
            Err(error) => tracing::error!(%error, "the session's token could not be renewed"),
        }
    }
}
