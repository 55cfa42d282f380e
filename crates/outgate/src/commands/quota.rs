//! `outgate quota`: how many sessions there may be.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use outgate_control::client::OperatorClient;

use super::{
    operator::{ask, print_json, speak},
    table,
};
use crate::{
    cli::{Quota, QuotaNumber},
    style::say,
};

pub(crate) fn run(quota: Quota, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    let json = quota.output.json;
    speak(&quota.reach, state_dir, json, |client| {
        match (&quota.tenant, quota.sessions) {
            (Some(tenant), Some(number)) => set(client, tenant, number, json),
            _ => show(client, json),
        }
    })
}

fn set(client: &OperatorClient, tenant: &str, number: QuotaNumber, json: bool) -> Result<()> {
    let sessions = match number {
        QuotaNumber::Own(sessions) => Some(sessions),
        QuotaNumber::Default => None,
    };
    let quota = ask(client.set_quota(tenant, sessions))?;
    if json {
        return print_json(&quota);
    }
    say!("{tenant}: {} live of {}", quota.live, most(quota.sessions));
    Ok(())
}

fn show(client: &OperatorClient, json: bool) -> Result<()> {
    let quotas = ask(client.quotas())?;
    if json {
        return print_json(&quotas);
    }
    let all = [
        "all".to_owned(),
        quotas.live.to_string(),
        most(quotas.sessions),
        String::new(),
    ];
    let tenants = quotas.tenants.iter().map(|(tenant, quota)| {
        let own = if quota.own { "its own" } else { "" };
        [
            tenant.clone(),
            quota.live.to_string(),
            most(quota.sessions),
            own.to_owned(),
        ]
    });
    let rows: Vec<_> = std::iter::once(all).chain(tenants).collect();
    table::print(["TENANT", "LIVE", "AT MOST", "QUOTA"], &rows);
    if let Some(each) = quotas.sessions_per_tenant {
        say!("a tenant without a quota of its own may have {each}");
    }
    Ok(())
}

fn most(sessions: Option<u32>) -> String {
    sessions.map_or_else(|| "any number".to_owned(), |sessions| sessions.to_string())
}
