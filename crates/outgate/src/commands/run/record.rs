//! What remains of a run: a folder of its own below the state folder, with its audit trail and the gateway's log.

use std::{
    fs::{DirBuilder, File},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use outgate_native::state::StatePaths;
use outgate_plane::{clock, random_hex};

use crate::commands::utc;

/// How many runs are kept.
const MOST_RUNS: usize = 100;

/// One run's folder.
pub(super) struct RunRecord(PathBuf);

impl RunRecord {
    /// Makes the folder: below `audit`, if the configuration names an audit folder, else below the state folder.
    pub(super) fn create(state: &StatePaths, audit: Option<&Path>) -> Result<Self> {
        let runs = audit.map_or_else(|| state.folder().join("runs"), Path::to_owned);
        let time = utc(clock::unix_now().0).replace(':', "");
        let folder = runs.join(format!("{time}-{}", random_hex()?.split_at(8).0));
        private(true)
            .create(&runs)
            .and_then(|()| private(false).create(&folder))
            .with_context(|| format!("{}: a folder for the run's audit trail", runs.display()))?;
        forget_old(&runs);
        Ok(Self(folder))
    }

    /// The folder of the audit trail.
    pub(super) fn audit(&self) -> PathBuf {
        self.0.join("audit")
    }

    /// A folder for the command's trust. Other runs' commands cannot reach it: state folders are hidden from them.
    pub(super) fn trust_folder(&self) -> Result<tempfile::TempDir> {
        tempfile::Builder::new()
            .prefix("trust-")
            .tempdir_in(&self.0)
            .with_context(|| format!("{}: a folder for the run's trust", self.0.display()))
    }

    /// Where what was learnt goes if it cannot go where it should.
    pub(super) fn learnt(&self) -> PathBuf {
        self.0.join("learnt.yaml")
    }

    /// What the gateway logs while the terminal is the command's.
    pub(super) fn log_file(&self) -> Result<File> {
        let path = self.0.join("gateway.log");
        File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| path.display().to_string())
    }
}

fn private(recursive: bool) -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(recursive).mode(0o700);
    builder
}

/// Removes the oldest runs. Their names begin with their time. What cannot be removed stays.
fn forget_old(runs: &Path) {
    let Ok(entries) = std::fs::read_dir(runs) else {
        return;
    };
    let is_run = |name: &str| name.len() == 27 && name.as_bytes().get(18) == Some(&b'-');
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_run(name))
        .collect();
    names.sort_unstable();
    let old = names.len().saturating_sub(MOST_RUNS);
    for name in names.iter().take(old) {
        let _ = std::fs::remove_dir_all(runs.join(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_runs_are_kept_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let state = StatePaths::new(dir.path().join("state"));
        let first = RunRecord::create(&state, None).unwrap().0;
        let runs = first.parent().unwrap();
        for number in 0..MOST_RUNS {
            let name = format!("2000-01-01T000000Z-{number:08x}");
            std::fs::create_dir(runs.join(name)).unwrap();
        }
        std::fs::create_dir(runs.join("mine")).unwrap();
        RunRecord::create(&state, None).unwrap();
        assert_eq!(std::fs::read_dir(runs).unwrap().count(), MOST_RUNS + 1);
        assert!(first.exists() && runs.join("mine").exists());
        assert!(!runs.join("2000-01-01T000000Z-00000000").exists());
    }
}
