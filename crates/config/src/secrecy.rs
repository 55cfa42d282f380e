//! Decides which lines of a file are never repeated. Secrets do not belong in the file, but people paste them where
//! only their source is asked for: there, a line is told by its number alone.

use std::collections::HashSet;

use http::HeaderName;

use crate::{
    check::credential::is_variable_name,
    node::{Node, Value},
};

/// The lines on which a secret may stand by mistake: everything that says where a credential comes from, and values
/// under `inject` that are not what they should be.
pub(crate) fn secret_lines(root: &Node) -> HashSet<usize> {
    let mut lines = HashSet::new();
    let credentials = root.entry("credentials").map(|entry| &entry.value);
    for entry in credentials.iter().flat_map(|node| node.entries()) {
        lines.insert(entry.key_at.line);
        add_lines(&entry.value, &mut lines);
    }
    let is_known = |name: &str| credentials.is_some_and(|node| node.entry(name).is_some());
    let destinations = root.entry("destinations").map(|entry| &entry.value);
    for destination in destinations.iter().flat_map(|node| node.items()) {
        add_inject(destination, &is_known, &mut lines);
    }
    let services = root.entry("services").map(|entry| &entry.value);
    let extra = services.and_then(|node| Some(&node.entry("extra")?.value));
    for service in extra.iter().flat_map(|node| node.items()) {
        add_service(service, &mut lines);
    }
    add_elsewhere(root, &mut lines);
    add_urls(root, &mut lines);
    lines
}

/// Keys beside a secret's place at which nobody would write it.
const HARMLESS: [&str; 6] = ["name", "scopes", "tenant", "ca", "client_id", "cache"];

/// Operators, webhooks, exports and introspection: each says in which file a secret is.
fn add_elsewhere(root: &Node, lines: &mut HashSet<usize>) {
    let below = |first: &str, second: &str| {
        let node = root.entry(first)?.value.entry(second)?;
        Some(node.value.items())
    };
    let lists = [
        ("operator", "tokens"),
        ("operator", "webhooks"),
        ("audit", "export"),
    ];
    let entries = lists
        .iter()
        .filter_map(|(first, second)| below(first, second))
        .flatten();
    let issuers = below("sessions", "issuers").unwrap_or_default().iter();
    let asked = issuers.filter_map(|issuer| Some(&issuer.entry("introspection")?.value));
    for entry in entries.chain(asked).flat_map(Node::entries) {
        if !HARMLESS.contains(&entry.key.as_str()) {
            lines.insert(entry.key_at.line);
            add_lines(&entry.value, lines);
        }
    }
}

/// A password in a URL.
fn add_urls(node: &Node, lines: &mut HashSet<usize>) {
    let has_user = |text: &str| text.contains("://") && text.contains('@');
    if node.text().is_some_and(has_user) {
        lines.insert(node.at.line);
    }
    let entries = node.entries().iter().map(|entry| &entry.value);
    for inner in node.items().iter().chain(entries) {
        add_urls(inner, lines);
    }
}

fn add_inject(destination: &Node, is_known: &dyn Fn(&str) -> bool, lines: &mut HashSet<usize>) {
    let inject = destination.entry("inject").map(|entry| &entry.value);
    for entry in inject.iter().flat_map(|node| node.entries()) {
        let text = entry.value.text().unwrap_or_default();
        let is_sound = match entry.key.as_str() {
            "credential" => is_known(text),
            "template" => text.contains("{credential}"),
            "header" => HeaderName::from_bytes(text.as_bytes()).is_ok(),
            "over_plaintext" | "basic" | "query" => true,
            _ => false,
        };
        if !is_sound {
            add_lines(&entry.value, lines);
        }
    }
}

/// The key itself, where the name of its variable belongs.
fn add_service(service: &Node, lines: &mut HashSet<usize>) {
    if let Some(variables) = service.entry("variables").map(|entry| &entry.value) {
        let one = variables.text().into_iter();
        let many = variables
            .items()
            .iter()
            .map(|item| item.text().unwrap_or_default());
        if !one.chain(many).all(is_variable_name) {
            add_lines(variables, lines);
        }
    }
    let destinations = service.entry("destinations").map(|entry| &entry.value);
    for destination in destinations.iter().flat_map(|node| node.items()) {
        add_inject(destination, &|_| false, lines);
    }
}

fn add_lines(node: &Node, lines: &mut HashSet<usize>) {
    lines.insert(node.at.line);
    match &node.value {
        Value::Sequence(items) => items.iter().for_each(|item| add_lines(item, lines)),
        Value::Mapping(mapping) => {
            for entry in &mapping.entries {
                lines.insert(entry.key_at.line);
                add_lines(&entry.value, lines);
            }
        }
        Value::Scalar(..) | Value::Refused => {}
    }
}
