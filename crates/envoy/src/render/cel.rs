//! Conditions, as the syntax tree that Envoy's RBAC takes; it reads no text. A run-time error in one means "no match", so
//! whatever denies by a condition has an ALLOW with the opposite condition behind it.

use serde_json::{Value, json};

use super::names::DECISION;

fn call(function: &str, args: &[Value]) -> Value {
    json!({ "call_expr": { "function": function, "args": args } })
}

fn method(target: Value, function: &str, args: &[Value]) -> Value {
    json!({ "call_expr": { "target": target, "function": function, "args": args } })
}

fn ident(name: &str) -> Value {
    json!({ "ident_expr": { "name": name } })
}

fn field(operand: Value, name: &str) -> Value {
    json!({ "select_expr": { "operand": operand, "field": name } })
}

fn index(operand: Value, key: &str) -> Value {
    call("_[_]", &[operand, text(key)])
}

fn text(value: &str) -> Value {
    json!({ "const_expr": { "string_value": value } })
}

pub(super) fn equal(left: Value, right: Value) -> Value {
    call("_==_", &[left, right])
}

pub(super) fn all(left: Value, right: Value) -> Value {
    call("_&&_", &[left, right])
}

pub(super) fn any(left: Value, right: Value) -> Value {
    call("_||_", &[left, right])
}

pub(super) fn not(value: Value) -> Value {
    call("!_", &[value])
}

/// Whether the request opens a tunnel, or whether it does not.
pub(super) fn is_connect(wanted: bool) -> Value {
    let is = equal(field(ident("request"), "method"), text("CONNECT"));
    if wanted { is } else { not(is) }
}

/// The server name that the guest's TLS asked for; Envoy has it in lower case.
pub(super) fn server_name() -> Value {
    field(ident("connection"), "requested_server_name")
}

/// A text in filter state. Envoy shows it as bytes.
pub(super) fn state(key: &str) -> Value {
    call("string", &[index(ident("filter_state"), key)])
}

/// A text that ext_authz decided.
pub(super) fn decision(key: &str) -> Value {
    let namespaces = field(ident("metadata"), "filter_metadata");
    index(index(namespaces, DECISION), key)
}

/// Whether the request's own authority, spelled canonically, is `target` (`host:port`). Without a port it is the
/// `default` one.
pub(super) fn authority_is(target: &Value, default: Option<u16>) -> Value {
    let lower = method(field(ident("request"), "host"), "lowerAscii", &[]);
    let without_root = |host: Value| method(host, "replace", &[text(".:"), text(":")]);
    let as_sent = equal(without_root(lower.clone()), target.clone());
    let Some(port) = default else {
        return as_sent;
    };
    let completed = call("_+_", &[lower, text(&format!(":{port}"))]);
    any(as_sent, equal(without_root(completed), target.clone()))
}

/// The string functions that conditions use; they are off unless asked for.
pub(super) fn config() -> Value {
    json!({
        "enable_string_conversion": true,
        "enable_string_concat": true,
        "enable_string_functions": true,
    })
}
