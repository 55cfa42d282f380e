//! `outgate kill`: revokes one session, or all.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use outgate_control::{client::OperatorClient, operator::KillState};
use serde_json::json;

use super::{
    operator::{ask, print_json, speak},
    table::shown,
    utc,
};
use crate::{cli::Kill, style::say};

pub(crate) fn run(kill: Kill, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    let json = kill.output.json;
    speak(&kill.reach, state_dir, json, |client| {
        act(client, &kill, json)
    })
}

fn act(client: &OperatorClient, kill: &Kill, json: bool) -> Result<()> {
    if let Some(id) = &kill.id {
        ask(client.kill(id, kill.reason.as_deref()))?;
        if json {
            say!("{}", json!({ "id": id, "killed": true }));
        } else {
            say!("killed {id}: its tokens are refused, and what it had open is cut");
        }
        return Ok(());
    }
    let state = ask(async {
        match (&kill.reason, kill.lift) {
            (Some(reason), _) => client.kill_all(reason).await,
            (None, true) => client.lift().await,
            (None, false) => client.kill_state().await,
        }
    })?;
    if json {
        return print_json(&state);
    }
    say!("{}", described(&state, kill));
    Ok(())
}

fn described(state: &KillState, kill: &Kill) -> String {
    if !state.on {
        let off = "the kill switch is off";
        return if kill.lift {
            format!("{off}: sessions that were not ended go on")
        } else {
            off.to_owned()
        };
    }
    let mut text = "the kill switch is on".to_owned();
    if let Some(since) = state.since {
        text.push_str(&format!(" since {}", utc(since)));
    }
    if let Some(by) = &state.by {
        text.push_str(&format!(" by {}", shown(by)));
    }
    if let Some(reason) = &state.reason {
        text.push_str(&format!(": {}", shown(reason)));
    }
    text + "\nevery session is refused and cut, and none can be created, until `outgate kill --lift`"
}
