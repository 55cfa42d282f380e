//! `outgate envoy status`: the data planes of a gateway, as it sees them.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use outgate_control::operator::DataPlane;
use outgate_journey::session::UnixSeconds;

use crate::{
    cli::EnvoyStatus,
    commands::{
        operator::{ask, print_json, speak},
        table, utc,
    },
    style::say,
};

pub(super) fn run(status: &EnvoyStatus, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    let json = status.output.json;
    speak(&status.reach, state_dir, json, |client| {
        let planes = ask(client.about())?.data_planes;
        if json {
            return print_json(&planes);
        }
        if planes.is_empty() {
            say!("no data plane has asked this gateway for anything since it started");
            return Ok(());
        }
        let rows: Vec<_> = planes.iter().map(row).collect();
        table::print(["CLIENT", "NODE", "STATE", "ACCEPTED", "REFUSED"], &rows);
        Ok(())
    })
}

fn row(plane: &DataPlane) -> [String; 5] {
    let state = if plane.streams > 0 {
        "connected"
    } else {
        "gone"
    };
    let accepted = plane
        .accepted_unix_ms
        .map(|at| utc(UnixSeconds(at / 1000).0))
        .unwrap_or_default();
    let refused: Vec<_> = plane
        .refused
        .iter()
        .map(|(kind, why)| format!("{}: {why}", kind.rsplit('.').next().unwrap_or(kind)))
        .collect();
    [
        plane.client.clone(),
        plane.node.clone(),
        state.to_owned(),
        accepted,
        refused.join("; "),
    ]
}
