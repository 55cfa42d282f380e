//! The audit trail, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    destination::FileSource,
    form::{DurationText, NameText, SizeText, UrlText},
};

/// The audit trail.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileAudit {
    /// Its directory, relative to this file's folder. Default: `audit` in the state directory.
    pub(crate) dir: Option<String>,
    /// When a file is closed and the next one begun.
    pub(crate) rotate: Option<FileRotation>,
    /// Where records are sent to as well.
    #[serde(default)]
    pub(crate) export: Vec<FileExport>,
}

/// When a file of the trail is closed and the next one begun, whichever comes first.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRotation {
    /// Its size, 1MiB to 1TiB. Default 1GiB.
    pub(crate) size: Option<SizeText>,
    /// Its age, 1m to 720h. Default 24h.
    pub(crate) age: Option<DurationText>,
}

/// A place that records are sent to: exactly one of `otlp` and `webhook`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "oneOf" = [{"required": ["otlp"]}, {"required": ["webhook", "secret_file"]}],
    "dependentRequired" = {"headers": ["otlp"], "secret_file": ["webhook"]}
))]
pub(crate) struct FileExport {
    /// Its name, also that of the file that keeps how far it is.
    pub(crate) name: NameText,
    /// The URL of an OpenTelemetry collector that takes logs over HTTP.
    pub(crate) otlp: Option<UrlText>,
    /// Header fields for the collector, and where their values come from.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, FileSource>,
    /// A URL that takes signed batches of records (Standard Webhooks).
    pub(crate) webhook: Option<UrlText>,
    /// The file with the secret that batches are signed with, relative to this file's folder.
    pub(crate) secret_file: Option<String>,
    /// A PEM file with the root certificates of the place. Default: the system's.
    pub(crate) ca: Option<String>,
}
