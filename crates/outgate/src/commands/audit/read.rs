//! `outgate audit tail` and `show`: records for people, or as they are stored.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use outgate_audit::Follow;

use super::Sink;

const PAUSE: Duration = Duration::from_millis(200);

pub(super) fn show(path: &Path, json: bool) -> Result<ExitCode> {
    let mut sink = Sink::open(None)?;
    for record in outgate_audit::show(path)? {
        let record = record?;
        let text = if json {
            record.raw.clone()
        } else {
            record.to_string()
        };
        if !sink.line(text.as_bytes())? {
            break;
        }
    }
    sink.finish()?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn tail(dir: &Path, lines: u64, follow: bool, json: bool) -> Result<ExitCode> {
    let mut records = Follow::last(dir, lines)?;
    let mut sink = Sink::open(None)?;
    loop {
        while let Some(record) = records.next()? {
            let is_read = if json {
                sink.line(&record.line)?
            } else {
                let shown = record
                    .shown()
                    .with_context(|| format!("record {} cannot be read", record.seq))?;
                sink.line(shown.to_string().as_bytes())?
            };
            if !is_read {
                return Ok(ExitCode::SUCCESS);
            }
        }
        if !sink.flush()? || !follow {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(PAUSE);
    }
}
