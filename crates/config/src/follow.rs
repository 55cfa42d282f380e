//! Decides what a gateway does that follows a control plane: its own file says where things are on its machine, and the
//! control plane says what is let out. The two make one [`Config`], or none: a document with a problem changes nothing.

use std::path::{Path, PathBuf};

use outgate_journey::policy::{CredentialSource, PlaneAddress};

use crate::{
    Config, DoorPlace, EnvoyAdmin, ExportTarget, PlaneDoor, Problems, WebhookKey, check, read_file,
};

/// Documents of a control plane above this size, in bytes, are refused. What a file of the largest size says takes
/// less.
pub const MAX_DOCUMENT_BYTES: usize = 16 << 20;

impl Config {
    /// What a gateway that follows this one needs of the file, as JSON: `version`, `posture`, `destinations`, `policies`
    /// and `sessions`. Equal files have equal documents. It names files and variables that a follower must have, but
    /// nothing that is in them. On a gateway that follows another one: the document that is in force.
    #[must_use]
    pub fn shared_document(&self) -> &str {
        &self.document
    }

    /// As [`Self::load`], for a file with `control`, with a document of its control plane. Relative paths in the
    /// document are relative to this file's folder, and the credentials are those of this file.
    ///
    /// # Errors
    /// All problems of the file, or else all of the document.
    pub fn load_following(path: &Path, document: &str) -> Result<Self, Problems> {
        let (name, text) = read_file(path)?;
        Self::parse_following(
            &name,
            &text,
            path.parent().unwrap_or(Path::new("")),
            document,
        )
    }

    /// As [`Self::parse`], with a document of the control plane. No I/O.
    ///
    /// # Errors
    /// As [`Self::load_following`].
    pub fn parse_following(
        name: &str,
        text: &str,
        folder: &Path,
        document: &str,
    ) -> Result<Self, Problems> {
        let own = Self::parse(name, text, folder)?;
        let Some(control) = &own.control else {
            return Err(Problems::no_control(name));
        };
        let source = format!("policy of {}", control.url);
        let shared = check::parse_shared(&source, document, &own, folder)?;
        let deny_set = own.policy.deny_set().clone();
        Ok(shared.into_config(own, deny_set))
    }

    /// Every file that the configuration names and that holds a secret, and every socket that gives one away: what a guest
    /// on this machine must not reach.
    #[must_use]
    pub fn secret_files(&self) -> Vec<PathBuf> {
        let asked = self.sessions.issuers.iter();
        let asked = asked.filter_map(|it| Some(&it.introspection.as_ref()?.client_secret));
        let exports = self.audit.export.iter().map(|export| &export.target);
        let headers = exports.clone().filter_map(|target| match target {
            ExportTarget::Otlp { headers, .. } => Some(headers.iter().map(|(_, source)| source)),
            ExportTarget::Webhook { .. } => None,
        });
        let sources = self
            .credentials
            .values()
            .chain(asked)
            .chain(headers.flatten());
        let mut files = self.withheld.clone();
        files.extend(sources.filter_map(|source| match source {
            CredentialSource::File(path) => Some(path.clone()),
            CredentialSource::Sds(sds) => Some(secret_of_way(&sds.address)),
            CredentialSource::Env(_) => None,
        }));
        files.extend(self.secrets_of_planes());
        files.extend(exports.filter_map(|target| match target {
            ExportTarget::Webhook { secret_file, .. } => Some(secret_file.clone()),
            ExportTarget::Otlp { .. } => None,
        }));
        files.extend(self.operator.tokens.iter().map(|token| token.file.clone()));
        files.extend(
            self.operator
                .webhooks
                .iter()
                .filter_map(|it| match &it.key {
                    WebhookKey::Hmac(path) => Some(path.clone()),
                    WebhookKey::Ed25519(_) => None,
                }),
        );
        let keys = [
            self.listen.operator.as_ref().map(|it| &it.tls.key),
            self.listen.control.as_ref().map(|it| &it.tls.key),
            self.control.as_ref().map(|it| &it.tls.key),
            self.ca.as_ref().map(|it| &it.key),
        ];
        let inbound = self.inbound.iter().filter_map(|it| it.tls.as_ref());
        files.extend(inbound.map(|tls| tls.key.clone()));
        files.extend(keys.into_iter().flatten().cloned());
        files.sort();
        files.dedup();
        files
    }

    /// Of the doors for data planes, the ways to other processes, and Envoy.
    fn secrets_of_planes(&self) -> impl Iterator<Item = PathBuf> {
        let doors = [&self.listen.xds, &self.listen.minter];
        let doors = doors.into_iter().flatten().map(secret_of_door);
        let envoy = self.envoy.as_ref();
        let minter = self.minter.as_ref().map(|minter| &minter.address);
        let ways = minter
            .into_iter()
            .chain(envoy.and_then(|envoy| envoy.control.as_ref()))
            .map(secret_of_way);
        let admin = envoy.and_then(|envoy| match &envoy.admin {
            Some(EnvoyAdmin::Socket(path)) => Some(path.clone()),
            _ => None,
        });
        doors.chain(ways).chain(admin)
    }
}

fn secret_of_door(door: &PlaneDoor) -> PathBuf {
    match &door.place {
        DoorPlace::Socket(path) => path.clone(),
        DoorPlace::Tcp { tls, .. } => tls.key.clone(),
    }
}

/// The socket alone lets its user in; over a network the key does.
fn secret_of_way(address: &PlaneAddress) -> PathBuf {
    match address {
        PlaneAddress::Socket(path) => path.clone(),
        PlaneAddress::Tcp { identity, .. } => identity.key.clone(),
    }
}
