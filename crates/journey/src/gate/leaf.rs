//! A question for a leaf, by a data plane whose TLS another process ends.

use crate::{
    denial::{Denial, DenyCode},
    destination::identify_name,
    name::HostName,
    policy::{Policy, Posture},
};

/// Judges whether `name`, the server name of a handshake as the guest wrote it, may have a leaf: only a host that some
/// rule bumps (P3, E2). The spelling must be the canonical one: a data plane keeps a leaf for each spelling that it was
/// given one for, and a guest can write one name in more spellings than there is memory.
///
/// # Errors
/// [`DenyCode::HostInvalid`], [`DenyCode::IpLiteral`] or [`DenyCode::DestinationNotAllowed`].
pub fn judge_leaf(policy: &Policy, name: &str) -> Result<HostName, Denial> {
    let host = identify_name(name)?;
    if host.as_str() != name {
        return Err(Denial::new(DenyCode::HostInvalid).because("not in its canonical spelling"));
    }
    let allowed = policy.allow_name(&host)?;
    if allowed.iter().any(|it| it.rule().posture == Posture::Bump) {
        return Ok(host);
    }
    let denial = Denial::new(DenyCode::DestinationNotAllowed).because("the host is not bumped");
    Err(match allowed.first() {
        Some(allowed) => denial.by(&allowed.rule().id),
        None => denial,
    })
}
