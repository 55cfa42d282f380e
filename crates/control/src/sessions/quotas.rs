//! How many live sessions a tenant may have.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, atomic::Ordering},
};

use outgate_store::Change;
use serde::{Deserialize, Serialize};

use super::{RegistryError, SessionRules, Sessions, live::Live, lock};

/// What is used of what may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotasView {
    /// Live sessions that there may be.
    pub sessions: Option<u32>,
    /// Live sessions that a tenant may have, unless it has a number of its own.
    pub sessions_per_tenant: Option<u32>,
    /// Live sessions that there are.
    pub live: u32,
    /// Each tenant that has a session or a number of its own.
    pub tenants: BTreeMap<String, TenantQuota>,
}

/// One tenant's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantQuota {
    /// Live sessions that it may have.
    pub sessions: Option<u32>,
    /// Whether that was set for this tenant.
    pub own: bool,
    /// Live sessions that it has.
    pub live: u32,
}

#[derive(Default)]
pub(super) struct Quotas(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: u32,
    by_tenant: HashMap<String, u32>,
    /// Set by operators.
    own: BTreeMap<String, u32>,
}

impl Quotas {
    pub(super) fn set(&self, tenant: &str, sessions: Option<u32>) {
        let own = &mut lock(&self.0).own;
        match sessions {
            Some(sessions) => own.insert(tenant.to_owned(), sessions),
            None => own.remove(tenant),
        };
    }

    /// Takes a place, or says how many there may be.
    fn take(&self, tenant: Option<&str>, rules: &SessionRules) -> Result<(), u32> {
        let mut counts = lock(&self.0);
        if let Some(most) = rules.sessions
            && counts.all >= most
        {
            return Err(most);
        }
        if let Some(tenant) = tenant {
            let most = counts.own.get(tenant).copied();
            let live = counts.by_tenant.get(tenant).copied().unwrap_or(0);
            if let Some(most) = most.or(rules.sessions_per_tenant)
                && live >= most
            {
                return Err(most);
            }
        }
        counts.count(tenant);
        Ok(())
    }

    /// Counts a session that is live already.
    pub(super) fn count(&self, tenant: Option<&str>) {
        lock(&self.0).count(tenant);
    }

    fn give_back(&self, tenant: Option<&str>) {
        let mut counts = lock(&self.0);
        counts.all = counts.all.saturating_sub(1);
        let Some(tenant) = tenant else { return };
        if let Some(live) = counts.by_tenant.get_mut(tenant) {
            *live = live.saturating_sub(1);
            // A tenant without sessions takes no memory.
            if *live == 0 {
                counts.by_tenant.remove(tenant);
            }
        }
    }
}

impl Counts {
    fn count(&mut self, tenant: Option<&str>) {
        self.all = self.all.saturating_add(1);
        if let Some(tenant) = tenant {
            let live = self.by_tenant.entry(tenant.to_owned()).or_default();
            *live = live.saturating_add(1);
        }
    }
}

/// A place that is given back unless it is kept.
pub(super) struct Place<'a> {
    quotas: &'a Quotas,
    tenant: Option<String>,
    is_kept: bool,
}

impl Place<'_> {
    /// The session that took it exists: it gives it back when it is over.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.quotas.give_back(self.tenant.as_deref());
        }
    }
}

impl Sessions {
    pub(super) fn place(&self, tenant: Option<&str>) -> Result<Place<'_>, RegistryError> {
        let exceeded = |limit| RegistryError::QuotaExceeded { limit };
        let rules = self.rules.load();
        self.quotas.take(tenant, &rules).map_err(exceeded)?;
        Ok(Place {
            quotas: &self.quotas,
            tenant: tenant.map(str::to_owned),
            is_kept: false,
        })
    }

    pub(super) fn give_place_back(&self, live: &Arc<Live>) {
        if live.has_place.swap(false, Ordering::AcqRel) {
            self.quotas.give_back(live.tenant.as_deref());
        }
    }

    /// Sets how many live sessions a tenant may have; `None`: as many as any other. Ends none that there are.
    ///
    /// # Errors
    /// [`RegistryError::Store`]; then nothing was changed.
    pub async fn set_quota(
        &self,
        tenant: &str,
        sessions: Option<u32>,
    ) -> Result<(), RegistryError> {
        let change = Change::SetQuota {
            tenant: tenant.to_owned(),
            sessions,
        };
        self.hand_in(change).await?;
        self.quotas.set(tenant, sessions);
        Ok(())
    }

    /// What is used of what may be.
    #[must_use]
    pub fn quotas(&self) -> QuotasView {
        let rules = self.rules.load();
        let counts = lock(&self.quotas.0);
        let tenants = counts.own.keys().chain(counts.by_tenant.keys());
        let tenants = tenants.map(|tenant| {
            let own = counts.own.get(tenant).copied();
            let quota = TenantQuota {
                sessions: own.or(rules.sessions_per_tenant),
                own: own.is_some(),
                live: counts.by_tenant.get(tenant).copied().unwrap_or(0),
            };
            (tenant.clone(), quota)
        });
        QuotasView {
            sessions: rules.sessions,
            sessions_per_tenant: rules.sessions_per_tenant,
            live: counts.all,
            tenants: tenants.collect(),
        }
    }
}
