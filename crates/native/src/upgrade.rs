//! What follows a `101`: the two connections become one WebSocket, judged again whenever the policy changes and cut
//! when the session ends. Bytes are carried only after the upstream switched; before that, none were let on.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, Method, request::Parts};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use outgate_credential::Scrubber;
use outgate_journey::{
    authorize::authorize,
    denial::{Denial, DenyCode},
    gate::still_allowed,
    policy::AllowedDestination,
    session::Session,
};
use outgate_plane::{Live, budget::Budget, trail::Trail};

use crate::{carrier::Carrier, guard::ActiveExchange, relay::Relay};

/// The request that opened an upgrade, kept to be judged again.
pub(crate) struct JudgedRequest {
    allowed: AllowedDestination,
    session: Option<Session>,
    method: Method,
    path: String,
    headers: HeaderMap,
}

impl JudgedRequest {
    pub(crate) fn of(
        allowed: &AllowedDestination,
        session: Option<&Session>,
        parts: &Parts,
    ) -> Self {
        Self {
            allowed: allowed.clone(),
            session: session.cloned(),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            headers: parts.headers.clone(),
        }
    }

    /// Whether a policy that came later would let it through, to the same credential.
    fn judge_again(&self, live: &Live, peer: Option<SocketAddr>) -> Result<(), Denial> {
        still_allowed(&live.policy, &self.allowed, self.session.as_ref(), peer)?;
        let allowed = live.policy.allow(self.allowed.destination().clone())?;
        if allowed.rule().injection != self.allowed.rule().injection {
            return Err(DenyCode::PolicyChanged.into());
        }
        authorize(allowed, &self.method, &self.path, &self.headers).map(drop)
    }
}

/// Both sides of an upgrade that the upstream accepted.
pub(crate) struct Upgraded {
    pub(crate) guest: OnUpgrade,
    pub(crate) upstream: OnUpgrade,
    pub(crate) judged: JudgedRequest,
    pub(crate) scrubber: Option<Arc<Scrubber>>,
    pub(crate) budget: Option<Budget>,
}

/// Carries the new protocol until it ends.
pub(crate) fn carry_upgrade(
    carrier: &Arc<Carrier>,
    upgraded: Upgraded,
    trail: Trail,
    active: ActiveExchange,
) {
    let carrier = Arc::clone(carrier);
    let shared = Arc::clone(&carrier.shared);
    shared.tasks.clone().spawn(async move {
        let Upgraded {
            guest,
            upstream,
            judged,
            scrubber,
            budget,
        } = upgraded;
        let (guest, upstream) = match tokio::try_join!(guest, upstream) {
            Ok(both) => both,
            Err(error) => return trail.abort(&error),
        };
        let relay = Relay {
            shared: &carrier.shared,
            budget,
            scrubber,
            idle: carrier.shared.live().timeouts.idle,
        };
        relay
            .run(
                TokioIo::new(guest),
                TokioIo::new(upstream),
                trail,
                |live, peer| judged.judge_again(live, peer),
            )
            .await;
        drop(active);
    });
}
