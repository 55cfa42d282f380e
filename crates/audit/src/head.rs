//! The head file: how far the records went. A chain alone cannot show that its end is gone.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    HEAD_FILE,
    chain::{Hash, LogId},
    error::{Problem, VerifyError},
};

/// A head file is far smaller.
const MAX_HEAD: u64 = 4096;

/// The last line known to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) log: LogId,
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadFile {
    log_id: String,
    seq: u64,
    hash: String,
}

impl Head {
    /// The file's bytes.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let file = HeadFile {
            log_id: self.log.text(),
            seq: self.seq,
            hash: self.hash.text(),
        };
        // A struct of two strings and a number always serialises.
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
        Some(Self {
            log: LogId::parse(&file.log_id)?,
            seq: file.seq,
            hash: Hash::parse(file.hash.as_bytes())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_and_anything_else_is_malformed() {
        let head = Head {
            log: LogId([1; 16]),
            seq: 9,
            hash: Hash([2; 32]),
        };
        assert_eq!(Head::parse(&head.to_bytes()), Some(head));
        for bytes in [
            &b""[..],
            b"{}",
            b"{\"log_id\":\"\",\"seq\":1,\"hash\":\"\"}",
        ] {
            assert_eq!(Head::parse(bytes), None);
        }
    }
}
