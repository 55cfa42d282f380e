//! How far a receiver has acknowledged. Moves only behind an acknowledgement, and is on disk before the next request.
//! A cursor that cannot be trusted is not repaired or believed: the trail is sent again from its beginning.

use std::{
    io,
    path::{Path, PathBuf},
};

use outgate_state::{StateError, read_private, write_private_atomic};
use serde::{Deserialize, Serialize};

use crate::{config::ExporterName, trail::is_hex};

const VERSION: u8 = 1;

/// The state of one exporter that outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cursor {
    version: u8,
    /// The trail that it belongs to.
    pub(crate) log_id: String,
    /// The last record that was acknowledged.
    pub(crate) acknowledged: Option<Place>,
    /// The last record of the batch that is being sent: after a restart the same batch is sent again, under the same
    /// id, so that a receiver recognises it.
    pub(crate) sending: Option<u64>,
    /// Records that the receiver took note of and refused for good.
    pub(crate) rejected: u64,
    /// Records that were gone from disk before they were sent.
    pub(crate) missing: u64,
}

/// A record, by its number and by what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) seq: u64,
    pub(crate) hash: String,
}

impl Cursor {
    /// Before the first record of this trail.
    pub(crate) const fn begin(log_id: String) -> Self {
        Self {
            version: VERSION,
            log_id,
            acknowledged: None,
            sending: None,
            rejected: 0,
            missing: 0,
        }
    }

    /// The record that has to come next.
    pub(crate) fn next_seq(&self) -> u64 {
        self.acknowledged
            .as_ref()
            .map_or(0, |place| place.seq.saturating_add(1))
    }

    fn is_sound(&self) -> bool {
        self.version == VERSION
            && is_hex(&self.log_id, 32)
            && self
                .acknowledged
                .as_ref()
                .is_none_or(|place| is_hex(&place.hash, 64) && place.seq < u64::MAX)
    }
}

/// Where a cursor is kept: `<folder>/<name>.cursor`, mode 0600, replaced in one step.
#[derive(Debug)]
pub(crate) struct CursorFile(PathBuf);

impl CursorFile {
    pub(crate) fn new(folder: &Path, name: &ExporterName) -> Self {
        Self(folder.join(format!("{name}.cursor")))
    }

    /// The cursor; `None` if there is none; why not, if what is there cannot be used.
    pub(crate) fn load(&self) -> Result<Option<Cursor>, String> {
        let bytes = match read_private(&self.0) {
            Ok(bytes) => bytes,
            Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error.to_string()),
        };
        match serde_json::from_slice::<Cursor>(&bytes) {
            Ok(cursor) if cursor.is_sound() => Ok(Some(cursor)),
            _ => Err(format!("{} is not a cursor", self.0.display())),
        }
    }

    pub(crate) fn save(&self, cursor: &Cursor) -> Result<(), StateError> {
        // A struct of strings and numbers always serialises.
        let mut bytes = serde_json::to_vec(cursor).unwrap_or_default();
        bytes.push(b'\n');
        write_private_atomic(&self.0, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn cursor() -> Cursor {
        Cursor {
            acknowledged: Some(Place {
                seq: 41,
                hash: "ab".repeat(32),
            }),
            sending: Some(44),
            rejected: 2,
            ..Cursor::begin("0f".repeat(16))
        }
    }

    #[test]
    fn a_cursor_reads_back_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let file = CursorFile::new(folder.path(), &ExporterName::new("siem").unwrap());
        assert_eq!(file.load(), Ok(None));
        file.save(&cursor()).unwrap();
        assert_eq!(file.load(), Ok(Some(cursor())));
        let path = folder.path().join("siem.cursor");
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(
            (cursor().next_seq(), Cursor::begin(String::new()).next_seq()),
            (42, 0)
        );
    }

    #[test]
    fn what_is_not_a_sound_cursor_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("siem.cursor");
        let file = CursorFile::new(folder.path(), &ExporterName::new("siem").unwrap());
        file.save(&cursor()).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for bad in [
            String::new(),
            "{}".to_owned(),
            good[..good.len() / 2].to_owned(),
            good.replace("\"version\":1", "\"version\":2"),
            good.replace("0f0f", "0F0F"),
            good.replace("abab", "xyxy"),
            good.replace(":41", ":-41"),
            good.replace("\"seq\"", "\"sequence\""),
        ] {
            fs::write(&path, &bad).unwrap();
            assert!(file.load().is_err(), "{bad}");
        }
        fs::write(&path, &good).unwrap();
        assert!(file.load().is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(file.load().is_err(), "anybody could have moved it");
    }
}
