//! `outgate session`: the operator's side, through the running gateway's socket.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use outgate_control::{client::OperatorClient, operator::CreateSession};
use serde_json::json;

use super::{block_on, state, utc};
use crate::{cli::Session, style::say};

pub(crate) fn run(command: Session, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    let client = OperatorClient::new(&state(state_dir, None)?.operator_socket());
    match command {
        Session::Create { ttl, label, json } => {
            let wanted = CreateSession {
                ttl_seconds: ttl,
                labels: label.into_iter().collect(),
            };
            let created = block_on(async { Ok(client.create(&wanted).await?) })?;
            if json {
                say!("{}", serde_json::to_string(&created)?);
            } else {
                say!("session  {}", created.id);
                say!("expires  {}", utc(created.expires));
                say!("token    {}", created.token);
            }
        }
        Session::List { json } => {
            let list = block_on(async { Ok(client.list().await?) })?;
            if json {
                say!("{}", serde_json::to_string(&list)?);
            } else if list.sessions.is_empty() {
                say!("no sessions; `outgate session create` makes one");
            }
            for session in list.sessions.iter().filter(|_| !json) {
                let labels: Vec<_> = session
                    .labels
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                let state = if session.ended { "ended" } else { "live " };
                say!(
                    "{}  {state}  until {}  {}",
                    session.id,
                    utc(session.expires),
                    labels.join(" ")
                );
            }
        }
        Session::End { id, json } => {
            block_on(async { Ok(client.end(&id).await?) })?;
            if json {
                say!("{}", json!({ "id": id, "ended": true }));
            } else {
                say!("ended {id}: its token is refused, and what it had open is cut");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
