//! A question about a name.

use std::net::{IpAddr, SocketAddr};

use super::{Plane, attribute, confined, with_session};
use crate::{
    denial::{Denial, DenyCode},
    destination::identify_name,
    policy::{AllowedDestination, Policy, RuleId},
    resolve::resolve,
    session::{PresentedToken, Session},
};

/// A name that may be looked up.
#[derive(Debug, Clone)]
pub struct NamePass {
    session: Option<Session>,
    /// A destination of each rule that lets the name out; never empty.
    allowed: Vec<AllowedDestination>,
}

impl NamePass {
    /// Whose question it was.
    #[must_use]
    pub const fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// The rule that lets the name out.
    #[must_use]
    pub fn rule(&self) -> Option<&RuleId> {
        self.allowed.first().map(|allowed| &allowed.rule().id)
    }
}

/// Judges a question about a name: only one that some rule lets out is looked up (P1).
///
/// # Errors
/// What [`attribute`] gives, [`DenyCode::HostInvalid`], [`DenyCode::IpLiteral`] or
/// [`DenyCode::DestinationNotAllowed`].
pub async fn judge_name<P: Plane>(
    plane: &P,
    policy: &Policy,
    name: &str,
    presented: &[PresentedToken<'_>],
) -> Result<NamePass, Denial> {
    let session = attribute(plane, presented).await?;
    let allowed = identify_name(name)
        .and_then(|host| policy.allow_name(&host))
        .and_then(|allowed| {
            let mut refused = None;
            let kept: Vec<_> = allowed
                .into_iter()
                .filter_map(|allowed| {
                    confined(policy, session.as_ref(), allowed)
                        .map_err(|denial| refused = Some(denial))
                        .ok()
                })
                .collect();
            refused.filter(|_| kept.is_empty()).map_or(Ok(kept), Err)
        })
        .map_err(|denial| with_session(denial, session.as_ref()))?;
    Ok(NamePass { session, allowed })
}

/// The addresses of a name that may be dialled, which are the ones that may be told; never empty.
///
/// # Errors
/// As [`resolve`].
pub async fn resolve_name<P: Plane>(
    plane: &P,
    policy: &Policy,
    pass: &NamePass,
) -> Result<Vec<IpAddr>, Denial> {
    let mut addresses = Vec::new();
    let mut refused = Denial::new(DenyCode::NameNotResolved);
    for allowed in &pass.allowed {
        match resolve(plane.resolver(), policy, allowed.clone()).await {
            Ok(resolved) => addresses.extend(resolved.addresses().iter().map(SocketAddr::ip)),
            Err(denial) => refused = denial,
        }
    }
    if addresses.is_empty() {
        return Err(with_session(refused, pass.session()));
    }
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    Ok(addresses)
}
