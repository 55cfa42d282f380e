//! Watches the configuration file, the files that are read with it and the credentials' files, and has the gateway take
//! changes over. Folders are watched, not files: editors and Kubernetes replace a file by renaming. A look every now and
//! then catches what a file system does not tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecursiveMode, Watcher};
use outgate_config::{Config, WebhookKey};
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
    let mut last = Seen::by(home);
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
        let (home, before) = (Arc::clone(home), last);
        let looked = tokio::task::spawn_blocking(move || take_over(&home, before, look)).await;
        last = looked.unwrap_or_default();
    }
}

/// What shows that a file was written or replaced: its inode, length and time.
type Stamp = Option<(u64, u64, i64, i64)>;

/// What the gateway's configuration was read from.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    text: Option<Vec<u8>>,
    beside: BTreeMap<PathBuf, Stamp>,
}

impl Seen {
    fn by(home: &Home) -> Self {
        Self::of(home.config_file(), read_beside(&home.gateway().config()))
    }

    fn of(config_file: &Path, beside: Vec<PathBuf>) -> Self {
        let mut seen = Self {
            text: std::fs::read(config_file).ok(),
            beside: BTreeMap::new(),
        };
        seen.turn_to(beside);
        seen
    }

    /// Looks at these files from here on: those that were looked at already are not looked at again, so that no change in
    /// between is missed.
    fn turn_to(&mut self, beside: Vec<PathBuf>) {
        let mut before = std::mem::take(&mut self.beside);
        let looked = beside.into_iter().map(|path| {
            let stamp = before.remove(&path).unwrap_or_else(|| stamp(&path));
            (path, stamp)
        });
        self.beside = looked.collect();
    }
}

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

/// The files that are read when the configuration is, and at no other time: certificates that are renewed in their
/// place, operators' tokens, webhooks' keys. Without a look at them they would count from the next restart on.
fn read_beside(config: &Config) -> Vec<PathBuf> {
    let (operator, control) = (&config.listen.operator, &config.listen.control);
    let doors = operator.iter().map(|door| &door.tls);
    let doors = doors.chain(control.iter().map(|door| &door.tls));
    let doors = doors.chain(config.control.iter().map(|followed| &followed.tls));
    let roots = control.iter().map(|door| &door.client_ca);
    let tokens = config.operator.tokens.iter().map(|token| &token.file);
    let webhooks = config.operator.webhooks.iter();
    let keys = webhooks.map(|webhook| match &webhook.key {
        WebhookKey::Hmac(path) | WebhookKey::Ed25519(path) => path,
    });
    let files = doors.flat_map(|tls| [&tls.certificate, &tls.key]);
    let files = files.chain(roots).chain(tokens).chain(keys);
    files.cloned().collect()
}

/// Takes over what changed; gives back what was read.
fn take_over(home: &Home, before: Seen, look: Look) -> Seen {
    let mut seen = Seen::by(home);
    if look == Look::Always || seen != before {
        let file = home.config_file().display();
        match home.reload() {
            Ok(()) => tracing::info!(%file, "configuration taken over"),
            Err(error) => tracing::error!(
                %file,
                "configuration not taken over; the old policy goes on: {error:#}"
            ),
        }
        seen.turn_to(read_beside(&home.gateway().config()));
    }
    home.gateway().refresh_credentials();
    seen
}

fn folders(home: &Home) -> BTreeSet<PathBuf> {
    let files = home.gateway().credential_files();
    let beside = read_beside(&home.gateway().config());
    files
        .iter()
        .chain(&beside)
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

#[cfg(test)]
mod tests {
    use std::fs::{rename, write};

    use super::*;

    #[test]
    fn a_file_beside_the_configuration_that_is_renewed_in_its_place_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (config, certificate) = (at("outgate.yaml"), at("tls.crt"));
        write(&config, "version: 1").unwrap();
        let see = || Seen::of(&config, vec![certificate.clone()]);
        let missing = see();
        assert_eq!(see(), missing);
        write(&certificate, "one").unwrap();
        let first = see();
        assert_ne!(first, missing);
        assert_eq!(see(), first);
        write(at("next.crt"), "two").unwrap();
        rename(at("next.crt"), &certificate).unwrap();
        assert_ne!(see(), first);
    }

    #[test]
    fn a_file_that_stays_is_remembered_as_it_was_when_it_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (config, stays, comes) = (at("outgate.yaml"), at("stays"), at("comes"));
        write(&stays, "one").unwrap();
        let mut seen = Seen::of(&config, vec![stays.clone(), at("goes")]);
        write(&stays, "longer").unwrap();
        seen.turn_to(vec![stays.clone(), comes.clone()]);
        assert_ne!(seen, Seen::of(&config, vec![stays, comes]));
    }
}
