//! Services whose keys `outgate run` finds, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    destination::{FileRequests, FileToken},
    form::{OneOrMany, PortNumber},
};

/// Services whose keys `outgate run` finds in the environment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileServices {
    /// Whether the built-in catalog counts too. Without a file it does.
    #[serde(default)]
    pub(crate) known: bool,
    /// Services of your own. One with the name of a built-in one replaces it.
    #[serde(default)]
    pub(crate) extra: Vec<FileService>,
}

/// The built-in catalog.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileCatalog {
    pub(crate) services: Vec<FileService>,
}

/// One service: which variables hold its key, and where the key is sent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileService {
    /// Its name, for `--credential NAME=…` and for rules in answers and records.
    pub(crate) name: String,
    /// Environment variables that hold its key, one or a list; the first that is set counts.
    pub(crate) variables: OneOrMany<String>,
    /// What is let out when one of them is set; at least one destination injects the key.
    #[schemars(length(min = 1))]
    pub(crate) destinations: Vec<FileServiceDestination>,
}

/// One destination of a service. Bumped if it injects, else passed through.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileServiceDestination {
    /// A name, or `*.` and a name: exactly one label in front of it. Never an address.
    pub(crate) host: String,
    /// TCP ports, one or a list. Default 443.
    pub(crate) ports: Option<OneOrMany<PortNumber>>,
    /// Whether a request must present a session token.
    #[serde(default)]
    pub(crate) token: FileToken,
    /// How the service's key is attached.
    pub(crate) inject: Option<FileServiceInject>,
    /// Requests that are let through; at least one entry must cover a request. Default: all.
    #[schemars(length(min = 1))]
    pub(crate) allow: Option<Vec<FileRequests>>,
    /// Requests that are refused; wins over `allow`.
    #[schemars(length(min = 1))]
    pub(crate) deny: Option<Vec<FileRequests>>,
}

/// How a service's key is attached: exactly one of `header`, `basic` and `query`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "oneOf" = [{"required": ["header"]}, {"required": ["basic"]}, {"required": ["query"]}],
    "dependentRequired" = {"template": ["header"]}
))]
pub(crate) struct FileServiceInject {
    /// A header field.
    pub(crate) header: Option<String>,
    /// The header's value, with `{credential}` once. Default: `Bearer {credential}` for `authorization`, else
    /// `{credential}`.
    pub(crate) template: Option<String>,
    /// HTTP Basic: this user name, and the key as the password.
    pub(crate) basic: Option<String>,
    /// A query parameter.
    pub(crate) query: Option<String>,
}
