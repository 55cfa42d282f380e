//! Reading audit records. The one place that knows how a record (OCSF, in a chain) spells what a scenario asks of it.

use serde_json::Value;

/// The first value of a key, at any depth.
#[must_use]
pub fn find<'a>(record: &'a Value, key: &str) -> Option<&'a Value> {
    match record {
        Value::Object(fields) => fields
            .get(key)
            .or_else(|| fields.values().find_map(|value| find(value, key))),
        Value::Array(items) => items.iter().find_map(|item| find(item, key)),
        _ => None,
    }
}

/// The reason code of a denial, or of a cut.
#[must_use]
pub fn reason(record: &Value) -> Option<&str> {
    find(record, "status_code").and_then(Value::as_str)
}

/// How what was let out ended: `completed`, `aborted` and so on.
#[must_use]
pub fn ending(record: &Value) -> Option<&str> {
    find(record, "ending").and_then(Value::as_str)
}

/// The name of the credential that was attached.
#[must_use]
pub fn injected(record: &Value) -> Option<&str> {
    find(record, "injected").and_then(Value::as_str)
}

/// Whether any text in the record equals `wanted`.
#[must_use]
pub fn names(record: &Value, wanted: &str) -> bool {
    match record {
        Value::String(text) => text == wanted,
        Value::Array(items) => items.iter().any(|item| names(item, wanted)),
        Value::Object(fields) => fields.values().any(|value| names(value, wanted)),
        _ => false,
    }
}
