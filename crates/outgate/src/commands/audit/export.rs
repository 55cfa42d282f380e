//! `outgate audit export`: OCSF records without the chain around them, for a SIEM. The trail is verified first: whoever
//! takes the records is told by the exit status when they are not what was written.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};
use outgate_audit::{Follow, VerifyOptions};
use outgate_control::client::OperatorClient;

use super::{Sink, verify::with_progress};
use crate::{commands::operator::ask, style::warn};

/// The most that a gateway gives at once.
const PAGE: usize = 1000;

/// Sequence numbers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    from: Option<u64>,
    to: Option<u64>,
}

impl Range {
    pub(super) fn new(from: Option<u64>, to: Option<u64>) -> Result<Self> {
        if let (Some(from), Some(to)) = (from, to)
            && from > to
        {
            bail!("--from {from} is behind --to {to}");
        }
        Ok(Self { from, to })
    }

    /// What to begin behind.
    fn after(self) -> Option<u64> {
        self.from?.checked_sub(1)
    }

    fn ends_before(self, seq: u64) -> bool {
        self.to.is_some_and(|to| seq > to)
    }
}

pub(super) fn run(dir: &Path, range: Range, out: Option<&Path>) -> Result<ExitCode> {
    if !dir.is_dir() {
        bail!("{} is no folder: give the trail's folder", dir.display());
    }
    let mut records = Follow::from(dir, range.after())?;
    if range.from == Some(0) && records.oldest_seq() > 0 {
        bail!(
            "record 0 is no longer there; the oldest is {}",
            records.oldest_seq()
        );
    }
    // Where files were moved away, what is left is verified by itself.
    let options = VerifyOptions {
        archived: records.oldest_seq() > 0,
        ..VerifyOptions::default()
    };
    let verified = with_progress(dir, &options, false);
    // A gateway at work writes on: without an end, there would be none.
    let end = verified.as_ref().ok().map(|report| report.last_seq);
    let mut sink = Sink::open(out)?;
    let mut fault = verified.err().map(anyhow::Error::from);
    loop {
        let record = match records.next() {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(error) => {
                fault = fault.or(Some(error.into()));
                break;
            }
        };
        if range.ends_before(record.seq) || end.is_some_and(|end| record.seq > end) {
            break;
        }
        if !sink.line(record.record())? {
            return Ok(ExitCode::SUCCESS);
        }
    }
    sink.finish()?;
    match fault {
        None => Ok(ExitCode::SUCCESS),
        Some(fault) => {
            Err(fault.context("the trail is damaged; what can be read of it was exported"))
        }
    }
}

/// From a gateway elsewhere, which vouches for its trail itself.
pub(super) fn remotely(
    client: &OperatorClient,
    range: Range,
    out: Option<&Path>,
) -> Result<ExitCode> {
    let mut sink = Sink::open(out)?;
    let mut after = range.after();
    loop {
        let page = ask(client.audit_records(after, PAGE))?.records;
        let is_last = page.len() < PAGE;
        for entry in page {
            if range.ends_before(entry.seq) {
                sink.finish()?;
                return Ok(ExitCode::SUCCESS);
            }
            after = Some(entry.seq);
            let record = entry
                .record
                .get("record")
                .context("the answer holds no record")?;
            if !sink.line(record.to_string().as_bytes())? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        if is_last {
            break;
        }
    }
    sink.finish()?;
    warn(
        "exported as the gateway gave it; `outgate audit verify` where the trail lies says whether it is what was written",
    );
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_both_its_ends() {
        let range = Range::new(Some(3), Some(5)).unwrap();
        assert_eq!(range.after(), Some(2));
        assert!(!range.ends_before(5) && range.ends_before(6));
        assert_eq!(Range::new(Some(0), None).unwrap().after(), None);
        assert!(Range::new(Some(6), Some(5)).is_err());
    }
}
