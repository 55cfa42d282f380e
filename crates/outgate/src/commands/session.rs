//! `outgate session`: sessions of the running gateway. A token is printed where it was asked for and nowhere else.

mod requests;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, anyhow};
use outgate_control::{
    client::OperatorClient,
    operator::{self, CreatedSession, SessionBody, SessionStateBody},
};
use outgate_journey::limit_text::LimitsText;
use serde_json::json;

use super::{
    operator::{ask, print_json, speak, write_token},
    table, utc,
};
use crate::{
    cli::{CreateSession, Session, SessionAction, limits},
    style::say,
};

pub(crate) fn run(session: Session, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    let json = session.output.json;
    speak(&session.reach, state_dir, json, |client| {
        act(client, session.action, json)
    })
}

fn act(client: &OperatorClient, action: SessionAction, json: bool) -> Result<()> {
    match action {
        SessionAction::Create(create) => {
            let token_file = create.token_file.clone();
            let created = ask(client.create(&wanted(create)?))?;
            hand_out(&created, token_file.as_deref(), json).map_err(|error| {
                // Nobody has its token, so it would only count against quotas until it idles.
                match ask(client.end(&created.id)) {
                    Ok(()) => error.context("the session was ended again"),
                    Err(_) => error.context(format!("the session {} goes on", created.id)),
                }
            })
        }
        SessionAction::Renew {
            id,
            ttl,
            token_file,
        } => {
            let renewed = ask(client.renew(&id, ttl))?;
            hand_out(&renewed, token_file.as_deref(), json)
        }
        SessionAction::List { all } => list(client, all, json),
        SessionAction::Show { id } => show(&ask(client.show(&id))?, json),
        SessionAction::Requests { id, bodies } => {
            requests::show(&ask(client.requests(&id, None, bodies))?, bodies, json)
        }
        SessionAction::Limit {
            id, limits: given, ..
        } => {
            let wanted = limits(given).map_err(|why| anyhow!(why))?;
            let session = ask(client.set_limits(&id, &wanted))?;
            if json {
                return print_json(&session);
            }
            say!(
                "{id}: {}",
                limits_text(&session.limits).unwrap_or_else(|| "no limits of its own".to_owned())
            );
            Ok(())
        }
        SessionAction::End { id } => {
            ask(client.end(&id))?;
            if json {
                say!("{}", json!({ "id": id, "ended": true }));
            } else {
                say!("ended {id}: its tokens are refused, and what it had open is cut");
            }
            Ok(())
        }
    }
}

fn wanted(create: CreateSession) -> Result<operator::CreateSession> {
    let own = limits(create.limit).map_err(|why| anyhow!(why))?;
    Ok(operator::CreateSession {
        ttl_seconds: create.ttl,
        labels: create.label.into_iter().collect(),
        container: create.container,
        policy: create.policy,
        limits: (own != LimitsText::default()).then_some(own),
        tenant: create.tenant,
    })
}

/// Gives a token to whoever asked for it: in the file that they named, or printed.
fn hand_out(created: &CreatedSession, token_file: Option<&Path>, json: bool) -> Result<()> {
    if let Some(path) = token_file {
        write_token(path, &created.token)?;
    }
    match (token_file, json) {
        (None, true) => return print_json(created),
        (Some(path), true) => {
            say!(
                "{}",
                json!({ "id": created.id, "expires": created.expires, "token_file": path })
            );
        }
        (_, false) => {
            say!("session  {}", created.id);
            say!("expires  {}", utc(created.expires));
            match token_file {
                Some(path) => say!("token    in {}", path.display()),
                None => say!("token    {}", created.token),
            }
        }
    }
    Ok(())
}

fn list(client: &OperatorClient, all: bool, json: bool) -> Result<()> {
    let mut list = ask(client.list())?;
    list.sessions
        .retain(|session| all || session.state == SessionStateBody::Live);
    if json {
        return print_json(&list);
    }
    if list.sessions.is_empty() {
        say!("no sessions; `outgate session create` makes one");
        return Ok(());
    }
    let rows: Vec<_> = list
        .sessions
        .iter()
        .map(|session| {
            [
                session.id.clone(),
                state(session),
                utc(session.expires),
                session.tenant.clone().unwrap_or_default(),
                session.policy.clone().unwrap_or_default(),
                session.container.clone().unwrap_or_default(),
                session.subject.clone().unwrap_or_default(),
                labels(session),
            ]
        })
        .collect();
    table::print(
        [
            "ID",
            "STATE",
            "TOKEN UNTIL",
            "TENANT",
            "POLICY",
            "CONTAINER",
            "SUBJECT",
            "LABELS",
        ],
        &rows,
    );
    Ok(())
}

fn show(session: &SessionBody, json: bool) -> Result<()> {
    if json {
        return print_json(session);
    }
    let end = session
        .end
        .as_ref()
        .map(|end| format!("{} at {} by {}", end.cause, utc(end.at), end.by));
    table::print_pairs(&[
        ("session", Some(session.id.clone())),
        ("state", Some(state(session))),
        ("end", end),
        (
            "created",
            Some(format!(
                "{} by {}",
                utc(session.created),
                session.created_by
            )),
        ),
        (
            "active",
            Some(format!("{} or later", utc(session.last_active))),
        ),
        ("token until", Some(utc(session.expires))),
        ("ends at latest", session.ends_at_latest.map(utc)),
        ("tenant", session.tenant.clone()),
        ("policy", session.policy.clone()),
        ("limits", limits_text(&session.limits)),
        ("container", session.container.clone()),
        (
            "labels",
            Some(labels(session)).filter(|labels| !labels.is_empty()),
        ),
        ("issuer", session.issuer.clone()),
        ("subject", session.subject.clone()),
    ]);
    Ok(())
}

fn state(session: &SessionBody) -> String {
    match session.state {
        SessionStateBody::Live => "live".to_owned(),
        SessionStateBody::Expired => "expired".to_owned(),
        SessionStateBody::Ended => session
            .end
            .as_ref()
            .map_or_else(|| "ended".to_owned(), |end| end.cause.replace('_', " ")),
    }
}

fn labels(session: &SessionBody) -> String {
    let labels: Vec<_> = session
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(" ")
}

/// Limits as they are given on the command line.
fn limits_text(limits: &LimitsText) -> Option<String> {
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let parts = [
        ("requests", limits.requests.clone()),
        ("connections", limits.connections.clone()),
        (
            "concurrent_connections",
            number(limits.concurrent_connections.map(u64::from)),
        ),
        ("bytes_out", number(limits.bytes_out)),
        (
            "distinct_destinations",
            number(limits.distinct_destinations.map(u64::from)),
        ),
    ];
    let written: Vec<_> = parts
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", value?)))
        .collect();
    (!written.is_empty()).then(|| written.join(" "))
}
