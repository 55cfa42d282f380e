//! `outgate audit`.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use anyhow::Result;
use serde_json::json;

use super::state;
use crate::{cli::Audit, style::say};

pub(crate) fn run(command: Audit, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    let (Audit::Verify { path, .. } | Audit::Show { path, .. }) = &command;
    let path = match path {
        Some(path) => path.clone(),
        None => state(state_dir, None)?.audit(),
    };
    match command {
        Audit::Verify { json, .. } => verify(&path, json),
        Audit::Show { json, .. } => {
            for record in outgate_audit::show(&path)? {
                let record = record?;
                if json {
                    say!("{}", record.raw);
                } else {
                    say!("{record}");
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn verify(path: &std::path::Path, as_json: bool) -> Result<ExitCode> {
    let shows_progress = !as_json && std::io::stderr().is_terminal();
    let report = outgate_audit::verify(path, |bytes| {
        if shows_progress {
            anstream::eprint!("\r{} MiB read", bytes >> 20);
        }
    });
    if shows_progress {
        anstream::eprint!("\r                    \r");
    }
    match report {
        Ok(report) if as_json => {
            say!(
                "{}",
                json!({
                    "ok": true, "file": report.file, "records": report.records, "last_seq": report.last_seq,
                    "last_hash": report.last_hash, "log_id": report.log_id,
                })
            );
            Ok(ExitCode::SUCCESS)
        }
        Ok(report) => {
            say!(
                "{}: {} records, the chain verifies",
                report.file.display(),
                report.records
            );
            say!("last  {} {}", report.last_seq, report.last_hash);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if as_json => {
            say!("{}", json!({ "ok": false, "error": error.to_string() }));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}
