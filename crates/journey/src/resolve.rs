//! Stage *resolve and deny-set*: decides which addresses a destination has. The addresses that pass are the only
//! ones that are dialled: there is no second lookup that could answer differently.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
};

use crate::{
    denial::{Denial, DenyCode},
    name::HostName,
    policy::{AllowedDestination, Policy},
};

/// The gateway's own resolver. It is asked only for names that a rule covers.
pub trait Resolver {
    /// Every address of `host`, in the order to try them.
    ///
    /// # Errors
    /// Any failure, as text for the audit trail; an empty list counts as one.
    fn resolve(&self, host: &HostName) -> impl Future<Output = Result<Vec<IpAddr>, String>> + Send;
}

/// Proof of *resolve*: a destination with the addresses that may be dialled for it; never empty.
#[derive(Debug, Clone)]
pub struct ResolvedDestination {
    allowed: AllowedDestination,
    addresses: Vec<SocketAddr>,
}

impl ResolvedDestination {
    /// The destination and its rule.
    #[must_use]
    pub const fn allowed(&self) -> &AllowedDestination {
        &self.allowed
    }

    /// The vetted addresses, in the order to try them.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Resolves a destination and drops every address that the deny-set covers. One good address is enough.
///
/// # Errors
/// [`DenyCode::NameNotResolved`], or [`DenyCode::AddressDenied`] when no address is left.
pub async fn resolve(
    resolver: &impl Resolver,
    policy: &Policy,
    allowed: AllowedDestination,
) -> Result<ResolvedDestination, Denial> {
    let rule = allowed.rule();
    let found = resolver
        .resolve(allowed.destination().host())
        .await
        .map_err(|why| {
            Denial::new(DenyCode::NameNotResolved)
                .because(why)
                .by(&rule.id)
        })?;
    let mut addresses = Vec::with_capacity(found.len());
    let mut refused = None;
    for ip in found {
        let address = SocketAddr::new(ip, allowed.destination().port().get());
        match policy.deny_set().judge(address, &rule.addresses) {
            Ok(()) => addresses.push(address),
            Err(denial) => refused = Some(denial.because(format!("{ip}")).by(&rule.id)),
        }
    }
    if addresses.is_empty() {
        return Err(refused.unwrap_or_else(|| Denial::new(DenyCode::NameNotResolved).by(&rule.id)));
    }
    Ok(ResolvedDestination { allowed, addresses })
}
