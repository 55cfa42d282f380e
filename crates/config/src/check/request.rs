//! Decides which requests a destination's `allow` and `deny` describe. An entry that covers nothing, or everything,
//! is refused: it does not say what its author meant.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, Method};
use outgate_journey::{
    path::PathPattern,
    policy::{RequestRule, RequestRules},
};

use super::{inject::belongs_to_connection, report::Report};
use crate::{
    file::{AnyOneOrMany, FileRequests, OneOrMany},
    node::KeyPath,
};

pub(super) fn check_requests(
    allow: Option<&[FileRequests]>,
    deny: Option<&[FileRequests]>,
    base: &KeyPath,
    report: &mut Report<'_>,
) -> RequestRules {
    let allow = check_list(allow, &base.key("allow"), report);
    let deny = check_list(deny, &base.key("deny"), report);
    for (path, entry) in &allow {
        let same = |(_, other): &&(KeyPath, RequestRule)| normal(other) == normal(entry);
        if let Some((other, _)) = deny.iter().find(same) {
            let (line, other) = (report.line(other), other.to_string());
            report.error(
                "contradicting_requests",
                path,
                format!("the same requests are refused by `{other}` in line {line}"),
                "take one of the two out",
            );
        }
    }
    let rules =
        |list: Vec<(KeyPath, RequestRule)>| list.into_iter().map(|(_, rule)| rule).collect();
    RequestRules {
        allow: rules(allow),
        deny: rules(deny),
    }
}

/// A text that is equal for two entries with the same meaning, literally.
fn normal(rule: &RequestRule) -> String {
    fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
        let mut list: Vec<T> = items.collect();
        list.sort();
        list
    }
    let methods = sorted(rule.methods.iter().map(Method::to_string));
    let paths = sorted(rule.paths.iter().map(PathPattern::to_string));
    let headers = sorted(
        rule.headers
            .iter()
            .map(|(name, values)| (name.as_str(), sorted(values.iter()))),
    );
    format!("{methods:?} {paths:?} {headers:?}")
}

fn check_list(
    entries: Option<&[FileRequests]>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Vec<(KeyPath, RequestRule)> {
    let Some(entries) = entries else {
        return Vec::new();
    };
    report.refuse_empty(entries, path);
    report
        .places(path, entries)
        .into_iter()
        .map(|(path, entry)| {
            let rule = check_entry(entry, &path, report);
            (path, rule)
        })
        .collect()
}

fn check_entry(entry: &FileRequests, path: &KeyPath, report: &mut Report<'_>) -> RequestRule {
    let bare = entry.methods.is_none() && entry.paths.is_none() && entry.headers.is_none();
    if bare && !report.touched(path) {
        report.error(
            "empty_rule",
            path,
            "an entry without keys covers every request".to_owned(),
            "name `methods`, `paths` or `headers`; to allow all leave `allow` out, to deny all write `posture: deny-all`",
        );
    }
    RequestRule {
        methods: check_each(
            entry.methods.as_ref(),
            &path.key("methods"),
            check_method,
            report,
        ),
        paths: check_each(
            entry.paths.as_ref(),
            &path.key("paths"),
            check_path_pattern,
            report,
        ),
        headers: entry.headers.as_ref().map_or_else(Vec::new, |headers| {
            check_headers(headers, &path.key("headers"), report)
        }),
    }
}

pub(super) fn check_each<T: PartialEq>(
    list: Option<&OneOrMany<String>>,
    path: &KeyPath,
    check: fn(&str, &KeyPath, &mut Report<'_>) -> Option<T>,
    report: &mut Report<'_>,
) -> Vec<T> {
    let Some(OneOrMany(texts)) = list else {
        return Vec::new();
    };
    report.refuse_empty(texts, path);
    let mut checked = Vec::new();
    for (path, text) in report.places(path, texts) {
        match check(text, &path, report) {
            Some(item) if checked.contains(&item) => report.duplicate(&path, text),
            Some(item) => checked.push(item),
            None => {}
        }
    }
    checked
}

pub(super) fn check_method(text: &str, path: &KeyPath, report: &mut Report<'_>) -> Option<Method> {
    const KNOWN: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT",
    ];
    let upper = text.to_ascii_uppercase();
    let help = if upper != text && KNOWN.contains(&upper.as_str()) {
        format!("methods are case-sensitive: write `{upper}`")
    } else if text == "*" {
        "leave `methods` out to cover every method".to_owned()
    } else if let Ok(method) = Method::from_bytes(text.as_bytes()) {
        return Some(method);
    } else {
        "write a method such as `GET`".to_owned()
    };
    report.error("invalid_method", path, "not a method".to_owned(), &help);
    None
}

pub(super) fn check_path_pattern(
    text: &str,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<PathPattern> {
    PathPattern::parse(text)
        .map_err(|error| {
            let help = "write a path such as `/v1/**` (everything below) or `/repos/*/issues` (one segment)";
            report.error("invalid_path_pattern", path, error.to_string(), help);
        })
        .ok()
}

fn check_headers(
    headers: &BTreeMap<String, AnyOneOrMany<String>>,
    base: &KeyPath,
    report: &mut Report<'_>,
) -> Vec<(HeaderName, Vec<String>)> {
    if headers.is_empty() && !report.touched(base) {
        let message = "no header field is named".to_owned();
        report.error(
            "empty_list",
            base,
            message,
            "name at least one, or take the key out",
        );
    }
    let mut checked: Vec<(HeaderName, Vec<String>)> = Vec::new();
    for (written, values) in headers {
        let path = base.key(written);
        let Ok(name) = HeaderName::from_bytes(written.as_bytes()) else {
            let message = "not the name of a header field".to_owned();
            report.error_at_key(
                "invalid_header",
                &path,
                message,
                "write a name such as `x-mode`",
            );
            continue;
        };
        if belongs_to_connection(&name) {
            report.error_at_key(
                "reserved_header",
                &path,
                format!("`{name}` belongs to the connection, not to the request"),
                "name a field of the request; hosts and ports are the destination's own keys",
            );
            continue;
        }
        if checked.iter().any(|(known, _)| *known == name) {
            let message = format!("`{name}` is named twice; case does not matter");
            report.error_at_key("duplicate_header", &path, message, "keep one of them");
            continue;
        }
        for (path, value) in report.places(&path, &values.0) {
            if HeaderValue::from_str(value).is_err() || value.trim_matches([' ', '\t']) != value {
                report.error(
                    "invalid_header_value",
                    &path,
                    "no header field can have this value".to_owned(),
                    "use visible characters, without spaces at either end",
                );
            }
        }
        checked.push((name, values.0.clone()));
    }
    checked
}
