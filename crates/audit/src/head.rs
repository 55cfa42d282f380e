//! The head file: how far the records went. A chain alone cannot show that its end is gone. It also keeps what the
//! writer would otherwise have to read the day's records again for: the open day, and the tree's frontier.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    HEAD_FILE,
    chain::{Hash, LogId},
    day::Day,
    error::{Problem, VerifyError},
    merkle::Frontier,
};

/// A head file is smaller: 64 peaks are the most that there can be.
const MAX_HEAD: u64 = 8192;

/// The last line known to be on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) log: LogId,
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
    /// The open day and the tree up to and including that line; absent from the logs of versions without days.
    pub(crate) progress: Option<(Day, Frontier)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadFile {
    log_id: String,
    seq: u64,
    hash: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    peaks: Vec<String>,
}

impl Head {
    /// The file's bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let peaks = self.progress.iter().flat_map(|(_, tree)| tree.peaks());
        let file = HeadFile {
            log_id: self.log.text(),
            seq: self.seq,
            hash: self.hash.text(),
            day: self.progress.as_ref().map(|(day, _)| day.to_string()),
            peaks: peaks.map(|peak| peak.text()).collect(),
        };
        // A struct of texts and a number always serialises.
        let mut bytes = serde_json::to_vec(&file).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// The head file of a directory; `None` if there is none.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, VerifyError> {
        let path = dir.join(HEAD_FILE);
        let broken = || VerifyError::Broken {
            file: path.clone(),
            line: None,
            seq: None,
            problem: Problem::HeadMalformed,
        };
        match fs::metadata(&path) {
            Ok(meta) if !meta.is_file() || meta.len() > MAX_HEAD => return Err(broken()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            _ => {}
        }
        let bytes = fs::read(&path).map_err(|source| VerifyError::Io {
            path: path.clone(),
            source,
        })?;
        Self::parse(&bytes).map(Some).ok_or_else(broken)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let file: HeadFile = serde_json::from_slice(bytes).ok()?;
        let progress = match file.day {
            Some(day) => {
                let peaks = file.peaks.iter().map(|peak| Hash::parse(peak.as_bytes()));
                let size = file.seq.checked_add(1)?;
                let tree = Frontier::from_parts(size, peaks.collect::<Option<_>>()?)?;
                Some((Day::parse(&day)?, tree))
            }
            None if file.peaks.is_empty() => None,
            None => return None,
        };
        Some(Self {
            log: LogId::parse(&file.log_id)?,
            seq: file.seq,
            hash: Hash::parse(file.hash.as_bytes())?,
            progress,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_and_anything_else_is_malformed() {
        let mut tree = Frontier::default();
        for number in 0..10 {
            tree.push(Hash([number; 32]));
        }
        let old = Head {
            log: LogId([1; 16]),
            seq: 9,
            hash: Hash([2; 32]),
            progress: None,
        };
        let head = Head {
            progress: Some((Day::of_unix_ms(1_790_000_000_000), tree)),
            ..old.clone()
        };
        assert_eq!(Head::parse(&old.to_bytes()).as_ref(), Some(&old));
        assert_eq!(Head::parse(&head.to_bytes()).as_ref(), Some(&head));
        let text = String::from_utf8(head.to_bytes()).unwrap();
        for bytes in [
            String::new(),
            "{}".to_owned(),
            "{\"log_id\":\"\",\"seq\":1,\"hash\":\"\"}".to_owned(),
            text.replace("\"seq\":9", "\"seq\":10"),
            text.replace("2026-09-21", "2026-9-21"),
            text.replace("\"day\":\"2026-09-21\",", ""),
        ] {
            assert_eq!(Head::parse(bytes.as_bytes()), None, "{bytes}");
        }
    }
}
