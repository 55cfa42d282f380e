//! Quotas: how many sessions a tenant may have at once.

use std::sync::Arc;

use http::{Method, StatusCode};

use crate::{
    operator::{
        body::{Quotas, SetQuota, TenantQuotaBody},
        call::{Call, Done, Outcome},
        code::ErrorCode,
        route::{Access, Gives, Route, Takes, schema},
        scope::Scope,
        text,
    },
    sessions::{QuotasView, TenantQuota},
};

const ACCESS: Access = Access::Scoped {
    any_of: &[Scope::Policy],
    every_tenant: true,
};

pub(crate) fn table() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/quotas", "quota.list", ACCESS, |call| {
            Box::pin(list(call))
        })
        .about("Shows the quotas, and how much of them is used.")
        .giving(Gives::Json(200, schema::<Quotas>)),
        Route::new(
            Method::PUT,
            "/v1/quotas/{tenant}",
            "quota.set",
            ACCESS,
            |call| Box::pin(set(call)),
        )
        .about(
            "Sets a tenant's own quota, or takes it away again. Sessions that are live stay live.",
        )
        .taking(Takes::Always(schema::<SetQuota>))
        .giving(Gives::Json(200, schema::<TenantQuotaBody>))
        .refusing(&[ErrorCode::InvalidId, ErrorCode::StoreUnavailable]),
    ]
}

async fn list(call: Call) -> Outcome {
    Done::json(
        StatusCode::OK,
        &Quotas::from(call.api.parts.sessions.quotas()),
    )
}

async fn set(call: Call) -> Outcome {
    let tenant = call
        .places
        .first()
        .filter(|tenant| text::is_tenant(tenant))
        .cloned()
        .ok_or(ErrorCode::InvalidId)?;
    call.notes.set_target(format!("tenant {tenant}"));
    let wanted: SetQuota = call.json()?;
    let sessions = Arc::clone(&call.api.parts.sessions);
    let before = own_quota(&sessions.quotas(), &tenant);
    sessions.set_quota(&tenant, wanted.sessions).await?;
    let quotas = sessions.quotas();
    let known = quotas.tenants.get(&tenant).map(TenantQuotaBody::from);
    let body = known.unwrap_or(TenantQuotaBody {
        sessions: quotas.sessions_per_tenant,
        own: false,
        live: 0,
    });
    let words =
        |quota: Option<u32>| quota.map_or("default".to_owned(), |number| number.to_string());
    let detail = format!("{}, was {}", words(wanted.sessions), words(before));
    let done = Done::json(StatusCode::OK, &body)?.noting(detail);
    Ok(done.or_undo(async move {
        let _ = sessions.set_quota(&tenant, before).await;
    }))
}

fn own_quota(quotas: &QuotasView, tenant: &str) -> Option<u32> {
    let quota = quotas.tenants.get(tenant)?;
    quota.sessions.filter(|_| quota.own)
}

impl From<QuotasView> for Quotas {
    fn from(view: QuotasView) -> Self {
        let tenants = view.tenants.iter();
        Self {
            sessions: view.sessions,
            sessions_per_tenant: view.sessions_per_tenant,
            live: view.live,
            tenants: tenants
                .map(|(name, quota)| (name.clone(), quota.into()))
                .collect(),
        }
    }
}

impl From<&TenantQuota> for TenantQuotaBody {
    fn from(quota: &TenantQuota) -> Self {
        Self {
            sessions: quota.sessions,
            own: quota.own,
            live: quota.live,
        }
    }
}
