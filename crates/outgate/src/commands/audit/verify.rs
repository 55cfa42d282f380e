//! `outgate audit verify`.

use std::{io::IsTerminal, path::Path, process::ExitCode};

use anyhow::Result;
use outgate_audit::{Report, VerifierKey, VerifyError, VerifyOptions};
use outgate_control::client::OperatorClient;
use serde_json::{Value, json};

use crate::{
    commands::operator::ask,
    style::{say, warn},
};

pub(super) fn run(
    path: &Path,
    keys: Vec<VerifierKey>,
    archived: bool,
    json: bool,
) -> Result<ExitCode> {
    let is_pinned = !keys.is_empty();
    let options = VerifyOptions {
        keys,
        archived,
        ..VerifyOptions::default()
    };
    let report = with_progress(path, &options, json);
    if json {
        say!("{}", as_json(&report));
        return Ok(if report.is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    print(&report?, is_pinned);
    Ok(ExitCode::SUCCESS)
}

/// Verifies a trail, and says on a terminal how far that is.
pub(super) fn with_progress(
    path: &Path,
    options: &VerifyOptions,
    quiet: bool,
) -> Result<Report, VerifyError> {
    let shows_progress = !quiet && std::io::stderr().is_terminal();
    let report = outgate_audit::verify(path, options, |bytes| {
        if shows_progress {
            anstream::eprint!("\r{} MiB read", bytes >> 20);
        }
    });
    if shows_progress {
        anstream::eprint!("\r                    \r");
    }
    report
}

/// What a gateway elsewhere says of its own trail.
pub(super) fn remotely(client: &OperatorClient, json: bool) -> Result<ExitCode> {
    let report = ask(client.audit_verify())?;
    let is_ok = report.get("ok").and_then(Value::as_bool) == Some(true);
    let text = |key: &str| match report.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "?".to_owned(),
    };
    if json {
        say!("{report}");
    } else if is_ok {
        say!(
            "the gateway says: {} records, the chain verifies",
            text("records")
        );
        say!("last  {} {}", text("last_seq"), text("last_hash"));
    } else {
        anyhow::bail!("the gateway says: {}", text("error"));
    }
    Ok(if is_ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The report, for programs.
pub(crate) fn as_json(report: &Result<Report, VerifyError>) -> Value {
    let (ok, told) = match report {
        Ok(report) => (true, serde_json::to_value(report).unwrap_or_default()),
        Err(error) => (
            false,
            json!({ "code": error.code(), "error": error.to_string() }),
        ),
    };
    let mut told = match told {
        Value::Object(told) => told,
        _ => serde_json::Map::new(),
    };
    told.insert("ok".to_owned(), ok.into());
    Value::Object(told)
}

fn print(report: &Report, is_pinned: bool) {
    say!(
        "{}: {} records, the chain verifies",
        report.file.display(),
        report.records
    );
    if report.first_seq > 0 {
        say!("first {}: earlier records are not here", report.first_seq);
    }
    say!("last  {} {}", report.last_seq, report.last_hash);
    match &report.last_day {
        Some(day) => say!("heads {} signed, up to {day}", report.heads),
        None => say!("heads none yet: the first is signed when the day (UTC) is over"),
    }
    if report.heads > 0 && !is_pinned {
        warn(
            "the heads were checked with the key that the trail itself names; pin it with --key (`outgate audit key` prints it)",
        );
    }
    if report.torn_bytes > 0 {
        say!(
            "{} bytes behind the last line are a record that is being written, or that was not finished",
            report.torn_bytes
        );
    }
}
