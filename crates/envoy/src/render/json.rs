//! The few shapes that Envoy's configuration is made of.

use std::time::Duration;

use outgate_config::EnvoyAdmin;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::names::{CONTROL, DECISION, XDS};

/// A message in an `Any` field: its fields beside its type.
pub(super) fn typed(message: &str, mut fields: Value) -> Value {
    if let Value::Object(map) = &mut fields {
        map.insert("@type".to_owned(), Value::String(type_url(message)));
    }
    fields
}

/// How an `Any` names a message.
pub(super) fn type_url(message: &str) -> String {
    format!("type.googleapis.com/{message}")
}

/// An extension: a name and its settings.
pub(super) fn extension(name: &str, message: &str, fields: Value) -> Value {
    json!({ "name": name, "typed_config": typed(message, fields) })
}

/// The object of these pairs.
pub(super) fn object(pairs: impl IntoIterator<Item = (String, Value)>) -> Value {
    Value::Object(pairs.into_iter().collect::<Map<_, _>>())
}

/// The fields of `more` put into `fields`; both are objects.
pub(super) fn merged(mut fields: Value, more: Value) -> Value {
    if let (Value::Object(into), Value::Object(from)) = (&mut fields, more) {
        into.extend(from);
    }
    fields
}

/// A span of time as protobuf writes it in JSON.
pub(super) fn span(duration: Duration) -> Value {
    let millis = duration.subsec_millis();
    let seconds = duration.as_secs();
    Value::String(if millis == 0 {
        format!("{seconds}s")
    } else {
        format!("{seconds}.{millis:03}s")
    })
}

/// A gRPC service of ours.
pub(super) fn grpc(timeout: Duration, metadata: &[(&str, &str)]) -> Value {
    let pairs: Vec<_> = metadata
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": value }))
        .collect();
    let service = json!({ "envoy_grpc": { "cluster_name": CONTROL }, "timeout": span(timeout) });
    if pairs.is_empty() {
        return service;
    }
    merged(service, json!({ "initial_metadata": pairs }))
}

/// How Envoy asks us again: its own longest pause is half a minute, which a restart of ours must not cost.
pub(super) fn xds_service() -> Value {
    json!({ "envoy_grpc": {
        "cluster_name": XDS,
        "retry_policy": { "retry_back_off": { "base_interval": "0.1s", "max_interval": "1s" } },
    } })
}

/// Something that comes over the one stream from us. `wait`: how long what needs it waits for it; zero: until it comes.
pub(super) fn from_ads(wait: Duration) -> Value {
    json!({ "resource_api_version": "V3", "ads": {}, "initial_fetch_timeout": span(wait) })
}

/// What ext_authz decided, in a format string.
pub(super) fn decided(key: &str) -> String {
    format!("%DYNAMIC_METADATA({DECISION}:{key})%")
}

/// Where a value of the decision stands.
pub(super) fn decided_key(key: &str) -> Value {
    json!({ "key": DECISION, "path": [{ "key": key }] })
}

/// A socket's address.
pub(super) fn socket(address: std::net::SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// A Unix socket.
pub(super) fn pipe(path: &std::path::Path) -> Value {
    json!({ "pipe": { "path": path.to_string_lossy() } })
}

pub(super) fn admin(admin: &EnvoyAdmin) -> Value {
    let address = match admin {
        EnvoyAdmin::Tcp(address) => socket(*address),
        EnvoyAdmin::Socket(path) => pipe(path),
    };
    json!({ "address": address })
}

/// The first `bytes` bytes of a text's SHA-256, in hex.
pub(super) fn short_hash(text: &[u8], bytes: usize) -> String {
    use std::fmt::Write as _;
    let mut hex = String::new();
    for byte in Sha256::digest(text).iter().take(bytes) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
