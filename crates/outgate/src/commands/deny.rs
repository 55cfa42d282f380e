//! `outgate deny`: the denylist.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use outgate_control::{
    client::OperatorClient,
    operator::{DenyBody, DenyRequest, DenyTargetBody},
};
use outgate_journey::outgoing::resembles_token;
use outgate_plane::clock::unix_now;
use serde_json::json;

use super::{
    operator::{ask, print_json, speak},
    table::{self, shown},
    utc,
};
use crate::{
    cli::{Deny, DenyAction, DenyTarget},
    style::say,
};

pub(crate) fn run(deny: Deny, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    let json = deny.output.json;
    speak(&deny.reach, state_dir, json, |client| {
        act(client, deny.action, json)
    })
}

fn act(client: &OperatorClient, action: DenyAction, json: bool) -> Result<()> {
    match action {
        DenyAction::Add {
            target,
            reason,
            duration,
        } => add(client, target, reason, duration, json),
        DenyAction::Remove { target } => {
            let target = target_body(target)?;
            ask(client.undeny(&target))?;
            if json {
                say!("{}", json!({ "removed": true }));
            } else {
                say!("off the denylist: {}", named(&target));
            }
            Ok(())
        }
        DenyAction::List => list(client, json),
    }
}

fn add(
    client: &OperatorClient,
    target: DenyTarget,
    reason: String,
    duration: Option<u64>,
    json: bool,
) -> Result<()> {
    let target = target_body(target)?;
    let wanted = DenyRequest {
        session: target.session,
        token: target.token,
        issuer: target.issuer,
        subject: target.subject,
        reason,
        // This second is not over yet: a denial must not end early.
        until: duration.map(|seconds| unix_now().0.saturating_add(seconds).saturating_add(1)),
    };
    let entry = ask(client.deny(&wanted))?;
    if json {
        return print_json(&entry);
    }
    let until = entry.until.map_or_else(
        || "until it is removed".to_owned(),
        |until| format!("until {}", utc(until)),
    );
    say!(
        "denied {} {until}; what it had open is cut",
        named(&target_of(&entry))
    );
    Ok(())
}

fn target_body(target: DenyTarget) -> Result<DenyTargetBody> {
    if target.token.as_deref().is_some_and(resembles_token) {
        // A list of tokens would be a list of secrets.
        bail!(
            "--token takes a token's id (its `jti`, as audit records have it under token_id), never the token"
        );
    }
    let (issuer, subject) = match target.subject.as_deref() {
        Some([issuer, subject]) => (Some(issuer.clone()), Some(subject.clone())),
        _ => (None, None),
    };
    Ok(DenyTargetBody {
        session: target.id,
        token: target.token,
        issuer,
        subject,
    })
}

fn list(client: &OperatorClient, json: bool) -> Result<()> {
    let list = ask(client.denylist())?;
    if json {
        return print_json(&list);
    }
    if list.entries.is_empty() {
        say!("nothing is denied");
        return Ok(());
    }
    let rows: Vec<_> = list
        .entries
        .iter()
        .map(|entry| {
            [
                named(&target_of(entry)),
                utc(entry.at),
                entry.until.map(utc).unwrap_or_default(),
                entry.by.clone(),
                entry.reason.clone(),
            ]
        })
        .collect();
    table::print(["DENIED", "SINCE", "UNTIL", "BY", "REASON"], &rows);
    Ok(())
}

fn target_of(entry: &DenyBody) -> DenyTargetBody {
    DenyTargetBody {
        session: entry.session.clone(),
        token: entry.token.clone(),
        issuer: entry.issuer.clone(),
        subject: entry.subject.clone(),
    }
}

fn named(target: &DenyTargetBody) -> String {
    let text = match (
        &target.session,
        &target.token,
        &target.issuer,
        &target.subject,
    ) {
        (Some(session), ..) => format!("session {session}"),
        (_, Some(token), ..) => format!("token {token}"),
        (_, _, Some(issuer), Some(subject)) => format!("subject {subject} of {issuer}"),
        _ => "nothing".to_owned(),
    };
    shown(&text).into_owned()
}
