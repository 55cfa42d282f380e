//! Stage *limit*: decides whether the session may use more. The counters live with the plane; what is counted,
//! against which number, and what is answered is decided here.

use crate::{
    authorize::Permit,
    denial::{Denial, DenyCode},
    destination::Destination,
    policy::{Policy, Rule, SessionBounds},
    session::Session,
};

/// A limit that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// Requests in the window; seconds until the next one.
    Requests {
        /// When to try again.
        retry_after_seconds: u64,
    },
    /// New or concurrent connections.
    Connections,
    /// Bytes towards upstreams.
    BytesOut,
    /// Distinct hosts.
    DistinctDestinations,
}

impl From<Exceeded> for Denial {
    fn from(exceeded: Exceeded) -> Self {
        match exceeded {
            Exceeded::Requests {
                retry_after_seconds,
            } => Self::new(DenyCode::RateLimited).retry_after(retry_after_seconds),
            Exceeded::Connections => DenyCode::ConnectionLimit.into(),
            Exceeded::BytesOut => DenyCode::BytesLimit.into(),
            Exceeded::DistinctDestinations => DenyCode::DestinationsLimit.into(),
        }
    }
}

/// The plane's counters, per session, on a monotonic clock.
pub trait Limits {
    /// Counts a connection for as long as it lives.
    type Slot: Send + Sync;

    /// Counts a new connection of `session` to `destination`, and its host among the distinct ones.
    ///
    /// # Errors
    /// [`Exceeded`]; then nothing is counted.
    fn admit_connection(
        &self,
        session: &Session,
        destination: &Destination,
        bounds: &SessionBounds,
    ) -> Result<Self::Slot, Exceeded>;

    /// Counts a request of `session` under `rule`.
    ///
    /// # Errors
    /// [`Exceeded`]; a rate that was asked before the exceeded one keeps its count: only the session's own.
    fn admit_request(
        &self,
        session: &Session,
        rule: &Rule,
        bounds: &SessionBounds,
    ) -> Result<(), Exceeded>;
}

/// Proof of *limit*: a permitted request that was counted.
#[derive(Debug, Clone)]
pub struct Admission {
    permit: Permit,
    session: Option<Session>,
}

impl Admission {
    /// The permit.
    #[must_use]
    pub const fn permit(&self) -> &Permit {
        &self.permit
    }

    /// The session, unless the rule needs none and none was presented.
    #[must_use]
    pub const fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }
}

/// Stage *limit* for a request. A request without a session (only where the rule allows one) has no budget to use.
///
/// # Errors
/// [`DenyCode::RateLimited`] and its siblings.
pub fn admit(
    limits: &impl Limits,
    policy: &Policy,
    permit: Permit,
    session: Option<Session>,
) -> Result<Admission, Denial> {
    if let Some(session) = &session {
        let rule = permit.allowed().rule();
        limits
            .admit_request(session, rule, &policy.bounds_of(session))
            .map_err(|exceeded| Denial::from(exceeded).by(&rule.id))?;
    }
    Ok(Admission { permit, session })
}
