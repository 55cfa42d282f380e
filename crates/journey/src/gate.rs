//! The order (S3), straight down the page, once for every way in:
//! identify → authenticate → denylist → destination rule → resolve and deny-set → bump or pass through, for a
//! connection; then, for each request: agree → destination rule → authenticate → denylist → authorize → limit →
//! inject.
//!
//! A way in gathers the evidence below and calls [`judge_connection`] and [`judge_request`]; it decides nothing.

mod connection;
mod leaf;
mod name;
mod request;

use crate::{
    denial::Denial,
    inject::{AuditGate, Credentials},
    limit::Limits,
    policy::{AllowedDestination, Policy},
    resolve::Resolver,
    session::{
        Denylist, PresentedToken, Session, TokenVerifier, UnixSeconds, authenticate, check_denylist,
    },
};

pub use connection::{
    ConnectionPass, TunnelOpening, TunnelTreatment, count_connection, judge_connection,
    judge_dialled_address, judge_opening, opening_is_judged, resolve_destination, still_allowed,
};
pub use leaf::judge_leaf;
pub use name::{NamePass, judge_name, resolve_name};
pub use request::{
    PermittedRequest, RequestEvidence, judge_request, permit_request, resume_request,
};

/// What the journey needs from the plane that runs it.
pub trait Plane {
    /// Verifies tokens.
    type Tokens: TokenVerifier;
    /// Knows ended sessions.
    type Denylist: Denylist;
    /// Counts.
    type Limits: Limits;
    /// Resolves names.
    type Resolver: Resolver + Sync;
    /// Holds credentials.
    type Credentials: Credentials;
    /// Knows whether records can be written.
    type Audit: AuditGate;

    /// The token verifier.
    fn tokens(&self) -> &Self::Tokens;
    /// The denylist.
    fn denylist(&self) -> &Self::Denylist;
    /// The counters.
    fn limits(&self) -> &Self::Limits;
    /// The resolver.
    fn resolver(&self) -> &Self::Resolver;
    /// The credential store.
    fn credentials(&self) -> &Self::Credentials;
    /// The audit store's state.
    fn audit(&self) -> &Self::Audit;
    /// The wall clock, for tokens.
    fn now(&self) -> UnixSeconds;
}

/// Whose connection this is, from `Proxy-Authorization`: the first three stages, before anything is looked up.
///
/// # Errors
/// A presented token that is not good is refused, even where none is needed.
pub async fn attribute<P: Plane>(
    plane: &P,
    presented: &[PresentedToken<'_>],
) -> Result<Option<Session>, Denial> {
    for token in presented {
        plane.tokens().prepare(&token.text, plane.now()).await;
    }
    attribute_known(plane, presented)
}

/// As [`attribute`], for tokens that need nothing fetched to be verified; others are refused.
///
/// # Errors
/// As [`attribute`].
pub fn attribute_known<P: Plane>(
    plane: &P,
    presented: &[PresentedToken<'_>],
) -> Result<Option<Session>, Denial> {
    authenticate(plane.tokens(), presented, plane.now())?
        .map(|authenticated| check_denylist(plane.denylist(), authenticated))
        .transpose()
}

/// Leaves a session what the policy has that it is confined to.
fn confined(
    policy: &Policy,
    session: Option<&Session>,
    allowed: AllowedDestination,
) -> Result<AllowedDestination, Denial> {
    if let Some(session) = session {
        policy.confine(session, allowed.rule())?;
    }
    Ok(allowed)
}

fn with_session(denial: Denial, session: Option<&Session>) -> Denial {
    match session {
        Some(session) => denial.of(session.id()),
        None => denial,
    }
}
