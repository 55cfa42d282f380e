//! `outgate audit prove` and `check-proof`. What is handed on is one file: the record's line, then the tlog-proof. It
//! proves itself to whoever holds the verifier key, without the trail.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use outgate_audit::{Follow, Proof, VerifierKey};
use serde_json::json;

use super::Sink;
use crate::{commands::read_text, style::say};

pub(super) fn prove(dir: &Path, seq: u64, out: Option<&Path>) -> Result<ExitCode> {
    let proof = outgate_audit::prove(dir, seq)?;
    let mut records = Follow::from(dir, seq.checked_sub(1))?;
    let record = records.next()?.filter(|record| record.seq == seq);
    let record = record.with_context(|| format!("record {seq} is not there"))?;
    let mut sink = Sink::open(out)?;
    sink.line(&record.line)?;
    // Its text ends with a line break of its own.
    sink.line(proof.to_string().trim_end_matches('\n').as_bytes())?;
    sink.finish()?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn check(
    file: &Path,
    key: &VerifierKey,
    record: Option<&Path>,
    json: bool,
) -> Result<ExitCode> {
    let text = read_text(file)?;
    let (own, proof) = parts(&text);
    let line = match (record, own) {
        (Some(record), _) => read_text(record)?,
        (None, Some(line)) => line.to_owned(),
        (None, None) => bail!(
            "{} holds the proof alone; give the record's line with --record",
            file.display()
        ),
    };
    let proof = Proof::parse(proof)
        .with_context(|| format!("{} is no tlog-proof of an audit trail", file.display()))?;
    let seq = proof.check(line.trim_end_matches('\n').as_bytes(), key)?;
    if json {
        say!("{}", json!({ "ok": true, "seq": seq }));
    } else {
        say!("record {seq} is in the log whose heads this key signs");
    }
    Ok(ExitCode::SUCCESS)
}

/// The record's line, if it is there, and the proof.
fn parts(text: &str) -> (Option<&str>, &str) {
    match text.split_once('\n') {
        Some((line, proof)) if line.starts_with('{') => (Some(line), proof),
        _ => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_read_with_and_without_its_record() {
        assert_eq!(
            parts("{\"seq\":1}\nc2sp\nx\n"),
            (Some("{\"seq\":1}"), "c2sp\nx\n")
        );
        assert_eq!(parts("c2sp\nx\n"), (None, "c2sp\nx\n"));
        assert_eq!(parts(""), (None, ""));
    }
}
