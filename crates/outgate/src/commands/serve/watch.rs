//! Watches the configuration file and the credentials' files, and has the gateway take changes over. Folders are
//! watched, not files: editors and Kubernetes replace a file by renaming. A look every now and then catches what a
//! file system does not tell.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::home::Home;

/// How long to wait for an editor to finish.
const SETTLE: Duration = Duration::from_millis(200);
/// How often to look without being told.
const LOOK: Duration = Duration::from_secs(30);

/// Whether the file is read again although it looks the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    IfChanged,
    Always,
}

/// Follows changes until the future is dropped. `told` is a request of the operator to look now (SIGHUP).
pub(super) async fn follow(home: &Arc<Home>, mut told: mpsc::Receiver<()>) {
    let (events, mut changed) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |_| {
        // A full channel means that a look is due already.
        let _ = events.try_send(());
    })
    .inspect_err(
        |error| tracing::warn!(%error, "files cannot be watched; looking every 30 s instead"),
    )
    .ok();
    let mut watched = BTreeSet::new();
    let mut last = std::fs::read(home.config_file()).ok();
    loop {
        if let Some(watcher) = &mut watcher {
            watch_folders(watcher, &mut watched, folders(home));
        }
        let look = tokio::select! {
            Some(()) = told.recv() => Look::Always,
            Some(()) = changed.recv() => {
                tokio::time::sleep(SETTLE).await;
                let _ = changed.try_recv();
                Look::IfChanged
            }
            () = tokio::time::sleep(LOOK) => Look::IfChanged,
        };
        let (home, before) = (Arc::clone(home), last.take());
        let looked = tokio::task::spawn_blocking(move || take_over(&home, before, look)).await;
        last = looked.unwrap_or_default();
    }
}

/// Reads what changed; gives back the file as it was read.
fn take_over(home: &Home, before: Option<Vec<u8>>, look: Look) -> Option<Vec<u8>> {
    let path = home.config_file();
    let text = std::fs::read(path).ok();
    if look == Look::Always || text != before {
        let file = path.display();
        match home.reload() {
            Ok(()) => tracing::info!(%file, "configuration taken over"),
            Err(error) => tracing::error!(
                %file,
                "configuration not taken over; the old policy goes on: {error:#}"
            ),
        }
    }
    home.gateway().refresh_credentials();
    text
}

fn folders(home: &Home) -> BTreeSet<PathBuf> {
    let files = home.gateway().credential_files();
    files
        .iter()
        .map(PathBuf::as_path)
        .chain([home.config_file()])
        .map(folder_of)
        .collect()
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn watch_folders(
    watcher: &mut impl Watcher,
    watched: &mut BTreeSet<PathBuf>,
    wanted: BTreeSet<PathBuf>,
) {
    for folder in watched.difference(&wanted) {
        let _ = watcher.unwatch(folder);
    }
    for folder in wanted.difference(watched) {
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            tracing::warn!(folder = %folder.display(), %error, "folder cannot be watched; looking every 30 s instead");
        }
    }
    *watched = wanted;
}
