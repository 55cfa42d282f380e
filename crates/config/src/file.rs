//! The file as written. These structs are both the parser and the schema, so the two cannot disagree; their doc
//! comments are what an editor shows. Texts with a form of their own (durations, rates, addresses, patterns) stay
//! texts here and are read in `check`, which knows their place.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The policy file of Outgate, an egress trust-edge.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Outgate configuration")]
pub(crate) struct FileConfig {
    /// The version of this format: 1.
    #[schemars(required, extend("const" = 1))]
    pub(crate) version: Option<u32>,
    /// Where guests connect. `outgate serve` needs it; `outgate run` opens sockets of its own.
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
}

/// Where guests connect.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileListen {
    /// Address and port of the proxy, one or a list: `127.0.0.1:8080`. Port 0 lets the system choose.
    #[schemars(required)]
    pub(crate) proxy: Option<OneOrMany<String>>,
    /// Connections open at once. Default 10000.
    #[schemars(range(min = 1))]
    pub(crate) max_connections: Option<u32>,
}

/// What the gateway does with traffic to a destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FilePosture {
    /// Nothing goes out.
    DenyAll,
    /// TLS is not terminated; only the server name is judged.
    PassThrough,
    /// TLS is terminated with a certificate minted by the gateway's own CA, and re-originated.
    Bump,
    /// `bump` if a credential is injected, else `pass-through`.
    #[default]
    Auto,
}

/// One upstream credential.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileCredential {
    /// Where its value comes from.
    pub(crate) from: FileSource,
}

/// Where a credential's value comes from: `env` or `file`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["env"]}, {"required": ["file"]}]))]
pub(crate) struct FileSource {
    /// An environment variable of the gateway, read at start.
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub(crate) env: Option<String>,
    /// A file, watched; relative to this file's folder. One trailing line break is not part of the value.
    pub(crate) file: Option<String>,
}

/// One destination: a host, its ports and what may happen there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileDestination {
    /// A name, or `*.` and a name: exactly one label in front of it. Never an address.
    pub(crate) host: String,
    /// TCP ports, one or a list. Default 443; 443 and 80 with `plaintext: true`.
    pub(crate) ports: Option<OneOrMany<PortNumber>>,
    /// What the gateway does with the traffic. Default: the file's `posture`.
    pub(crate) posture: Option<FilePosture>,
    /// What a tunnel carries.
    #[serde(default)]
    pub(crate) protocol: FileProtocol,
    /// Whether plain `http://` is served too.
    #[serde(default)]
    pub(crate) plaintext: bool,
    /// Whether a TLS handshake with a real Encrypted ClientHello may pass through.
    #[serde(default)]
    pub(crate) encrypted_client_hello: bool,
    /// Whether a request must present a session token.
    #[serde(default)]
    pub(crate) token: FileToken,
    /// Which credential is attached, and how.
    pub(crate) inject: Option<FileInject>,
    /// Requests that are let through; at least one entry must cover a request. Default: all.
    #[schemars(length(min = 1))]
    pub(crate) allow: Option<Vec<FileRequests>>,
    /// Requests that are refused; wins over `allow`.
    #[schemars(length(min = 1))]
    pub(crate) deny: Option<Vec<FileRequests>>,
    /// What one session may use of this destination.
    pub(crate) limits: Option<FileDestinationLimits>,
    /// Exceptions to the address deny-set for this destination.
    pub(crate) addresses: Option<FileAddresses>,
}

/// What a tunnel carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FileProtocol {
    /// TLS whose server name is the host.
    #[default]
    Tls,
    /// Any bytes: only host and port are judged. Only with pass-through and without request rules.
    Opaque,
}

/// Whether a request must present a session token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FileToken {
    /// Without one the request is refused.
    #[default]
    Required,
    /// Without one the request is forwarded with nothing attached.
    Optional,
}

/// How a credential is attached: exactly one of `header`, `basic` and `query`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "oneOf" = [{"required": ["header"]}, {"required": ["basic"]}, {"required": ["query"]}],
    "dependentRequired" = {"template": ["header"]}
))]
pub(crate) struct FileInject {
    /// A name under `credentials`.
    pub(crate) credential: String,
    /// A header field.
    pub(crate) header: Option<String>,
    /// The header's value, with `{credential}` once. Default: `Bearer {credential}` for `authorization`, else
    /// `{credential}`.
    pub(crate) template: Option<String>,
    /// HTTP Basic: this user name, and the credential as the password.
    pub(crate) basic: Option<String>,
    /// A query parameter.
    pub(crate) query: Option<String>,
    /// Whether the credential may be sent without TLS. Needs `plaintext: true`.
    #[serde(default)]
    pub(crate) over_plaintext: bool,
}

/// A set of requests. A key that is not there covers everything; all that are there must cover the request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct FileRequests {
    /// Methods, one or a list, exactly as sent.
    pub(crate) methods: Option<OneOrMany<String>>,
    /// Path patterns, one or a list: `*` is one segment or a part of one, `**` any number of segments.
    pub(crate) paths: Option<OneOrMany<String>>,
    /// Header fields that must be present with one of these values; an empty list: with any value.
    pub(crate) headers: Option<BTreeMap<String, AnyOneOrMany<String>>>,
}

/// What one session may use of one destination.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileDestinationLimits {
    /// Requests per window.
    pub(crate) requests: Option<RateText>,
}

/// Exceptions to the address deny-set, as ranges or single addresses. `deny` wins.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileAddresses {
    /// Ranges that may be dialled although the deny-set covers them.
    pub(crate) allow: Option<AnyOneOrMany<String>>,
    /// Ranges that are not dialled.
    pub(crate) deny: Option<AnyOneOrMany<String>>,
}

/// Sessions and what each of them may use.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileSessions {
    /// A token's life, 1s to 60m. Default 30m.
    pub(crate) ttl: Option<DurationText>,
    /// Further header fields in which a session token may be presented.
    pub(crate) token_headers: Option<AnyOneOrMany<String>>,
    /// What each session may use. Default: no limit.
    pub(crate) limits: Option<FileSessionLimits>,
}

/// What each session may use.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileSessionLimits {
    /// Requests per window.
    pub(crate) requests: Option<RateText>,
    /// New connections per window.
    pub(crate) connections: Option<RateText>,
    /// Connections open at once.
    #[schemars(range(min = 1))]
    pub(crate) concurrent_connections: Option<u32>,
    /// Bytes sent to upstreams over the session's life.
    pub(crate) bytes_out: Option<SizeText>,
    /// Different hosts over the session's life.
    #[schemars(range(min = 1))]
    pub(crate) distinct_destinations: Option<u32>,
}

/// Where names are looked up, and which resolved addresses may be dialled.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileResolver {
    /// DNS servers, address and port, one or a list. Default: the system's.
    pub(crate) servers: Option<OneOrMany<String>>,
    /// Names with fixed addresses, which no DNS server is asked for.
    #[serde(default)]
    pub(crate) hosts: BTreeMap<String, OneOrMany<String>>,
    /// Ranges that every destination may dial although the deny-set covers them.
    pub(crate) allow: Option<AnyOneOrMany<String>>,
    /// Ranges that no destination may dial.
    pub(crate) deny: Option<AnyOneOrMany<String>>,
}

/// How upstreams are verified.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileUpstream {
    /// The root certificates to begin with.
    #[serde(default)]
    pub(crate) roots: FileRoots,
    /// PEM files with further root certificates, relative to this file's folder.
    pub(crate) extra_roots: Option<AnyOneOrMany<String>>,
    /// The lowest TLS version spoken to an upstream.
    #[serde(default)]
    #[schemars(schema_with = "min_tls_schema")]
    pub(crate) min_tls: FileTls,
}

/// Root certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FileRoots {
    /// The operating system's.
    #[default]
    System,
    /// Mozilla's, built in.
    Bundled,
    /// Only `extra_roots`.
    None,
}

/// A TLS version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FileTls {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// A YAML reader that guesses types sees a number where the quotes are left out; both are accepted.
fn min_tls_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The lowest TLS version spoken to an upstream.",
        "enum": ["1.2", "1.3", 1.2, 1.3],
        "default": "1.2"
    })
}

/// How long things may take.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileTimeouts {
    /// A request's head, from its first byte to its last. Default 10s.
    pub(crate) head: Option<DurationText>,
    /// A TLS handshake, on either side. Default 10s.
    pub(crate) handshake: Option<DurationText>,
    /// Resolving and connecting. Default 10s.
    pub(crate) connect: Option<DurationText>,
    /// From the end of a request to the head of its response. Default 10m.
    pub(crate) response: Option<DurationText>,
    /// A connection on which nothing moves. Default 10m.
    pub(crate) idle: Option<DurationText>,
    /// Open streams, after the gateway was told to stop. Default 10s.
    pub(crate) drain: Option<DurationText>,
}

/// The audit trail.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileAudit {
    /// Its directory, relative to this file's folder. Default: `audit` in the state directory.
    pub(crate) dir: Option<String>,
}

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

/// A list that is not empty; one item may be written without brackets.
#[derive(Debug, Deserialize)]
#[serde(rename = "OneOrMany")]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<T>);

/// A list; one item may be written without brackets.
#[derive(Debug, Deserialize)]
#[serde(rename = "OneOrMany")]
pub(crate) struct AnyOneOrMany<T>(pub(crate) Vec<T>);

fn one_or_many<T: JsonSchema>(generator: &mut SchemaGenerator, at_least: u8) -> Schema {
    let item = generator.subschema_for::<T>();
    let mut list = json_schema!({ "type": "array", "items": item });
    if at_least > 0 {
        list.insert("minItems".to_owned(), at_least.into());
    }
    json_schema!({ "anyOf": [item, list] })
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        one_or_many::<T>(generator, 1)
    }
}

impl<T: JsonSchema> JsonSchema for AnyOneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("AnyOneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        one_or_many::<T>(generator, 0)
    }
}

/// A TCP port, or 0, which `check` refuses.
#[derive(Debug, Deserialize)]
pub(crate) struct PortNumber(pub(crate) u16);

impl JsonSchema for PortNumber {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 65535 })
    }
}

/// A text with a form of its own, which `check` reads.
macro_rules! text_form {
    ($(#[$doc:meta])* $name:ident, $schema:tt) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize)]
        pub(crate) struct $name(pub(crate) String);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text_form! {
    /// `30m`, `10s`, `500ms`.
    DurationText, { "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" }
}
text_form! {
    /// `120/min`.
    RateText, { "type": "string", "pattern": "^[1-9][0-9]*/(s|sec|second|min|minute|h|hour|d|day)$" }
}
text_form! {
    /// `1GiB`, or a number of bytes.
    SizeText, {
        "anyOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": "^[1-9][0-9]*(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$" }
        ]
    }
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
