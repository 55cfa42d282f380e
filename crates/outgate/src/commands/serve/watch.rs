//! Watches the configuration file, the files that are read with it, the credentials' files and the CA's, and has the
//! gateway take changes over.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use outgate_config::{Config, WebhookKey};
use outgate_journey::policy::{CredentialSource, PlaneAddress};
use tokio::sync::mpsc;

use super::home::Home;
use crate::commands::{
    files::{FileWatch, LOOK_AGAIN, Stamps},
    plane_door,
};

/// Whether the file is read again although it looks the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    IfChanged,
    Always,
}

/// Follows changes until the future is dropped. `told` is a request of the operator to look now (SIGHUP).
pub(super) async fn follow(home: &Arc<Home>, mut told: mpsc::Receiver<()>) {
    let mut watch = FileWatch::new();
    let mut last = Seen::by(home);
    let mut is_settled = true;
    loop {
        watch.turn_to(followed(home).iter().map(PathBuf::as_path));
        let look = tokio::select! {
            Some(()) = told.recv() => Look::Always,
            () = watch.due() => Look::IfChanged,
            () = tokio::time::sleep(LOOK_AGAIN), if !is_settled => Look::IfChanged,
        };
        let (home, before) = (Arc::clone(home), last);
        let looked = tokio::task::spawn_blocking(move || {
            let seen = take_over(&home, before, look);
            (seen, home.refresh_ca())
        });
        (last, is_settled) = looked.await.unwrap_or_default();
    }
}

/// What the gateway's configuration was read from.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    text: Option<Vec<u8>>,
    beside: Stamps,
}

impl Seen {
    fn by(home: &Home) -> Self {
        Self::of(home.config_file(), read_beside(&home.gateway().config()))
    }

    fn of(config_file: &Path, beside: Vec<PathBuf>) -> Self {
        Self {
            text: std::fs::read(config_file).ok(),
            beside: Stamps::of(beside),
        }
    }
}

/// The files that are read when the configuration is, and at no other time: certificates that are renewed in their
/// place, operators' tokens, webhooks' keys. Without a look at them they would count from the next restart on.
fn read_beside(config: &Config) -> Vec<PathBuf> {
    let (operator, control) = (&config.listen.operator, &config.listen.control);
    let doors = operator.iter().map(|door| &door.tls);
    let doors = doors.chain(control.iter().map(|door| &door.tls));
    let doors = doors.chain(config.control.iter().map(|followed| &followed.tls));
    let doors = doors.chain(config.inbound.iter().filter_map(|it| it.tls.as_ref()));
    let roots = control.iter().map(|door| &door.client_ca);
    let tokens = config.operator.tokens.iter().map(|token| &token.file);
    let webhooks = config.operator.webhooks.iter();
    let keys = webhooks.map(|webhook| match &webhook.key {
        WebhookKey::Hmac(path) | WebhookKey::Ed25519(path) => path,
    });
    let files = doors.flat_map(|tls| [&tls.certificate, &tls.key]);
    let files = files.chain(roots).chain(tokens).chain(keys);
    let leaf_ca = config.minter.iter().map(|minter| &minter.leaf_ca);
    let ways = ways(config).filter_map(|way| match way {
        PlaneAddress::Tcp { ca, identity, .. } => Some([ca, &identity.certificate, &identity.key]),
        PlaneAddress::Socket(_) => None,
    });
    let planes = config.listen.xds.iter().flat_map(plane_door::files);
    files
        .chain(leaf_ca)
        .chain(ways.flatten())
        .cloned()
        .chain(planes)
        .collect()
}

/// How this gateway reaches the processes that tell it secrets.
fn ways(config: &Config) -> impl Iterator<Item = &PlaneAddress> {
    let sources = config.credentials.values();
    let sources = sources.filter_map(|source| match source {
        CredentialSource::Sds(sds) => Some(&sds.address),
        CredentialSource::Env(_) | CredentialSource::File(_) => None,
    });
    let minter = config.minter.iter().map(|minter| &minter.address);
    minter.chain(sources)
}

/// Takes over what changed; gives back what was read.
fn take_over(home: &Home, before: Seen, look: Look) -> Seen {
    let mut seen = Seen::by(home);
    if look == Look::Always || seen != before {
        let file = home.config_file().display();
        match home.reload() {
            Ok(()) => tracing::info!(%file, "configuration taken over"),
            Err(error) => tracing::error!(
                code = "config_not_taken_over",
                %file,
                "configuration not taken over; the old policy goes on: {error:#}"
            ),
        }
        seen.beside.turn_to(read_beside(&home.gateway().config()));
    }
    home.gateway().refresh_credentials();
    seen
}

fn followed(home: &Home) -> Vec<PathBuf> {
    let mut files = home.gateway().credential_files();
    files.extend(read_beside(&home.gateway().config()));
    files.extend(home.gateway().ca_files());
    files.push(home.config_file().to_owned());
    files
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
}
