//! The file as written. These structs are both the parser and the schema, so the two cannot disagree; their doc
//! comments are what an editor shows. Texts with a form of their own (durations, rates, addresses, patterns) stay
//! texts here and are read in `check`, which knows their place.

mod audit;
mod ca;
mod destination;
mod form;
mod inbound;
mod issuer;
mod listen;
mod operator;
mod plane;
mod service;
mod session;
mod upstream;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use audit::{FileAudit, FileExport, FileRotation};
pub(crate) use ca::FileCa;
pub(crate) use destination::{
    FileAddresses, FileCredential, FileCredentialSource, FileDestination, FileInject, FilePosture,
    FileProtocol, FileRequests, FileSource, FileToken,
};
pub(crate) use form::{
    AnyOneOrMany, ClaimText, DurationText, NameText, OneOrMany, PortNumber, RateText, SizeText,
    TenantText,
};
pub(crate) use inbound::{FileCallerIssuer, FileExemption, FileInbound};
pub(crate) use issuer::{FileAlgorithm, FileClaimPolicies, FileIntrospection, FileIssuer};
pub(crate) use listen::{FileControl, FileControlListen, FileListen, FileOperatorListen};
pub(crate) use operator::{
    FileClaimScopes, FileOidc, FileOperator, FileOperatorToken, FileQuotas, FileScope, FileWebhook,
};
pub(crate) use plane::{
    FileEnvoy, FileEnvoyAdmin, FileMinter, FilePlaneDoor, FileSds, WrittenAddress,
};
pub(crate) use service::{FileCatalog, FileService, FileServiceDestination, FileServices};
pub(crate) use session::{FilePolicy, FileSessionLimits, FileSessions, FileTripwire, FileView};
pub(crate) use upstream::{FileResolver, FileRoots, FileTimeouts, FileTls, FileUpstream};

/// The version of the format.
pub(crate) const VERSION: u32 = 1;

/// The policy file of Outgate, an egress trust-edge.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    title = "Outgate configuration",
    extend("dependentSchemas" = {"control": {"not": {"anyOf": [
        {"required": ["posture"]}, {"required": ["destinations"]}, {"required": ["policies"]},
        {"required": ["sessions"]}
    ]}}})
)]
pub(crate) struct FileConfig {
    /// The version of this format: 1.
    #[schemars(required, extend("const" = 1))]
    pub(crate) version: Option<u32>,
    /// Where guests connect, and where operators, other gateways and data planes do. `outgate serve` needs it;
    /// `outgate run` opens sockets of its own.
    pub(crate) listen: Option<FileListen>,
    /// Where the gateway keeps its state, relative to this file's folder. Default: the platform's state directory.
    pub(crate) state_dir: Option<String>,
    /// The posture of destinations that name none.
    #[serde(default)]
    pub(crate) posture: FilePosture,
    /// Upstream credentials, by a name of your choice. Only where they come from: secrets do not belong in this file.
    #[serde(default)]
    pub(crate) credentials: BTreeMap<String, FileCredential>,
    /// What is let out. Everything else is denied.
    #[serde(default)]
    pub(crate) destinations: Vec<FileDestination>,
    /// What sessions can be confined to, by a name of your choice.
    #[serde(default)]
    pub(crate) policies: BTreeMap<String, FilePolicy>,
    /// Sessions and what each of them may use.
    pub(crate) sessions: Option<FileSessions>,
    /// Where names are looked up, and which resolved addresses may be dialled.
    pub(crate) resolver: Option<FileResolver>,
    /// How upstreams are verified.
    pub(crate) upstream: Option<FileUpstream>,
    /// How long things may take.
    pub(crate) timeouts: Option<FileTimeouts>,
    /// The audit trail.
    pub(crate) audit: Option<FileAudit>,
    /// Services whose keys `outgate run` finds in the environment. `outgate serve` does not read them.
    pub(crate) services: Option<FileServices>,
    /// Who may operate the gateway over the network, and how many sessions there may be.
    pub(crate) operator: Option<FileOperator>,
    /// The control plane that this gateway follows. `posture`, `destinations`, `policies` and `sessions` come from there.
    pub(crate) control: Option<FileControl>,
    /// Listeners in front of a service, for callers whose tokens verify.
    #[serde(default)]
    pub(crate) inbound: Vec<FileInbound>,
    /// What Envoy's configuration says, where Envoy is the data plane.
    pub(crate) envoy: Option<FileEnvoy>,
    /// The CA that signs the leaves, which the deployment supplies and renews. Default: the gateway makes one.
    pub(crate) ca: Option<FileCa>,
    /// Another process that stamps the leaves and alone holds the CA's key. Default: this gateway does.
    pub(crate) minter: Option<FileMinter>,
}

/// What a control plane gives to the gateways that follow it: the part of the file that decides about requests, and
/// nothing of where anything is on a machine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileShared {
    pub(crate) version: Option<u32>,
    #[serde(default)]
    pub(crate) posture: FilePosture,
    #[serde(default)]
    pub(crate) destinations: Vec<FileDestination>,
    #[serde(default)]
    pub(crate) policies: BTreeMap<String, FilePolicy>,
    pub(crate) sessions: Option<FileSessions>,
}

/// The same, wherever it is from; as it is written for others.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Shared<'f> {
    version: u32,
    pub(crate) posture: FilePosture,
    pub(crate) destinations: &'f [FileDestination],
    pub(crate) policies: &'f BTreeMap<String, FilePolicy>,
    pub(crate) sessions: Option<&'f FileSessions>,
}

/// The keys of [`Shared`] but for the version.
pub(crate) const SHARED_KEYS: [&str; 4] = ["posture", "destinations", "policies", "sessions"];

impl FileConfig {
    pub(crate) fn shared(&self) -> Shared<'_> {
        Shared {
            version: VERSION,
            posture: self.posture,
            destinations: &self.destinations,
            policies: &self.policies,
            sessions: self.sessions.as_ref(),
        }
    }
}

impl Default for Shared<'_> {
    fn default() -> Self {
        const NONE: &BTreeMap<String, FilePolicy> = &BTreeMap::new();
        Self {
            version: VERSION,
            posture: FilePosture::default(),
            destinations: &[],
            policies: NONE,
            sessions: None,
        }
    }
}

impl Shared<'_> {
    /// As JSON, which [`FileShared`] reads back as the same.
    pub(crate) fn document(&self) -> String {
        let mut document = serde_json::to_value(self).unwrap_or_default();
        without_defaults(&mut document);
        document.to_string()
    }
}

/// Takes out what says nothing: a key that was not written is null here, and no truth is true by default. A document is
/// then hardly larger than its file.
fn without_defaults(value: &mut serde_json::Value) {
    use serde_json::Value::{Array, Bool, Null, Object, String};
    let says = |key: &str, value: &serde_json::Value| match value {
        Null | Bool(false) => false,
        String(word) => !matches!(
            (key, word.as_str()),
            ("protocol", "tls") | ("token", "required")
        ),
        _ => true,
    };
    if let Object(object) = value {
        object.retain(|key, value| says(key, value));
        object.values_mut().for_each(without_defaults);
    } else if let Array(items) = value {
        items.iter_mut().for_each(without_defaults);
    }
}

impl FileShared {
    pub(crate) fn shared(&self) -> Shared<'_> {
        Shared {
            version: VERSION,
            posture: self.posture,
            destinations: &self.destinations,
            policies: &self.policies,
            sessions: self.sessions.as_ref(),
        }
    }
}

/// The document of a file that shares nothing.
pub(crate) fn nothing_shared() -> String {
    Shared::default().document()
}

/// The schema of [`FileConfig`]. A key may be left out, but never be null.
pub(crate) fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(FileConfig).to_value();
    without_null(&mut schema);
    schema
}

fn without_null(value: &mut serde_json::Value) {
    use serde_json::Value::{Array, Object};
    if let Object(object) = value {
        if let Some(Array(types)) = object.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                object.insert("type".to_owned(), only);
            }
        }
        if let Some(Array(choices)) = object.get_mut("anyOf") {
            choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
            if let [Object(only)] = choices.as_slice() {
                let only = only.clone();
                object.remove("anyOf");
                object.extend(only);
            }
        }
        object.values_mut().for_each(without_null);
    } else if let Array(items) = value {
        items.iter_mut().for_each(without_null);
    }
}
