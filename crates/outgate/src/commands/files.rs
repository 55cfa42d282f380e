//! Files that a process reads again when they change. Folders are watched, not files: editors and Kubernetes replace a
//! file by renaming. A look every now and then catches what a file system does not tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

/// How long to wait for an editor to finish.
const SETTLE: Duration = Duration::from_millis(200);
/// How soon to look again after files did not fit together, as while they are written one after the other.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often to look without being told.
const LOOK: Duration = Duration::from_secs(30);

/// A file, wiped from memory once it was used: it may be a key.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Ok(Zeroizing::new(bytes))
}

/// What shows that a file was written or replaced: its inode, length and time; nothing where there is none.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

/// Files, as they were when they were last looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps(BTreeMap<PathBuf, Stamp>);

impl Stamps {
    /// These files, as they are now.
    pub(super) fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut stamps = Self::default();
        stamps.turn_to(files);
        stamps
    }

    /// Is about these files from here on: those that were looked at already are not looked at again, so that no change
    /// in between is missed.
    pub(super) fn turn_to(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let mut before = std::mem::take(&mut self.0);
        let looked = files.into_iter().map(|path| {
            let stamp = before.remove(&path).unwrap_or_else(|| stamp(&path));
            (path, stamp)
        });
        self.0 = looked.collect();
    }

    /// Looks at all of them; whether one is not as it was.
    pub(super) fn look(&mut self) -> bool {
        let mut changed = false;
        for (path, seen) in &mut self.0 {
            let found = stamp(path);
            changed |= found != *seen;
            *seen = found;
        }
        changed
    }

    /// Their places.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }
}

/// Tells when it is time to look at files.
pub(super) struct FileWatch {
    /// `None` where the system has none to give.
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    told: mpsc::Receiver<()>,
}

impl FileWatch {
    pub(super) fn new() -> Self {
        let (tell, told) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |_| {
            // A full channel means that a look is due already.
            let _ = tell.try_send(());
        })
        .inspect_err(
            |error| tracing::warn!(%error, "files cannot be watched; looking every 30 s instead"),
        )
        .ok();
        Self {
            watcher,
            folders: BTreeSet::new(),
            told,
        }
    }

    /// Watches the folders of these files, and no others.
    pub(super) fn turn_to<'f>(&mut self, files: impl IntoIterator<Item = &'f Path>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let wanted: BTreeSet<_> = files.into_iter().map(folder_of).collect();
        for folder in self.folders.difference(&wanted) {
            let _ = watcher.unwatch(folder);
        }
        for folder in wanted.difference(&self.folders) {
            if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %folder.display(), %error, "folder cannot be watched; looking every 30 s instead");
            }
        }
        self.folders = wanted;
    }

    /// Waits until it is time to look: something was written in a folder and has settled, or nothing was heard for long.
    pub(super) async fn due(&mut self) {
        tokio::select! {
            Some(()) = self.told.recv() => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(LOOK) => {}
        }
        let _ = self.told.try_recv();
    }
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{rename, write};

    use super::*;

    #[test]
    fn a_file_that_is_renewed_in_its_place_is_a_change_and_one_only() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut stamps = Stamps::of([at("cert")]);
        assert!(!stamps.look());
        write(at("cert"), "one").unwrap();
        assert!(stamps.look());
        assert!(!stamps.look());
        write(at("next"), "two").unwrap();
        rename(at("next"), at("cert")).unwrap();
        assert!(stamps.look());
    }

    #[test]
    fn a_file_that_stays_is_remembered_as_it_was_when_it_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut stamps = Stamps::of([at("stays"), at("goes")]);
        write(at("stays"), "longer").unwrap();
        write(at("goes"), "unseen").unwrap();
        write(at("comes"), "new").unwrap();
        stamps.turn_to([at("stays"), at("comes")]);
        assert!(stamps.files().eq([at("comes"), at("stays")]));
        assert!(stamps.look());
        assert!(!stamps.look());
        write(at("goes"), "again").unwrap();
        assert!(!stamps.look());
    }

    #[tokio::test]
    async fn a_change_is_noticed_without_waiting_for_the_next_look() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        write(&file, "1").unwrap();
        let mut watch = FileWatch::new();
        watch.turn_to([&*file]);
        write(&file, "22").unwrap();
        let noticed = tokio::time::timeout(LOOK / 3, watch.due()).await;
        noticed.unwrap();
    }
}
