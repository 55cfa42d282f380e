//! `outgate keys`: the keys that sign session tokens.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use outgate_control::client::OperatorClient;

use super::{
    operator::{ask, print_json, speak},
    table,
};
use crate::{
    cli::{Keys, KeysAction},
    style::say,
};

pub(crate) fn run(keys: Keys, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    let json = keys.output.json;
    speak(&keys.reach, state_dir, json, |client| {
        act(client, keys.action, json)
    })
}

fn act(client: &OperatorClient, action: KeysAction, json: bool) -> Result<()> {
    match action {
        KeysAction::Rotate => {
            let rotated = ask(client.rotate_keys())?;
            if json {
                return print_json(&rotated);
            }
            say!(
                "tokens are signed with {}; those of the key before stay good until they end",
                rotated.kid
            );
        }
        KeysAction::Show => {
            let set = ask(client.jwks())?;
            if json {
                return print_json(&set);
            }
            let keys = set.get("keys").and_then(serde_json::Value::as_array);
            let text = |key: &serde_json::Value, name: &str| {
                key.get(name)
                    .and_then(serde_json::Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            };
            let rows: Vec<_> = keys
                .into_iter()
                .flatten()
                .map(|key| [text(key, "kid"), text(key, "alg"), text(key, "x")])
                .collect();
            table::print(["KID", "ALGORITHM", "PUBLIC KEY"], &rows);
        }
    }
    Ok(())
}
