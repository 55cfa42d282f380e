//! Decides what sessions can be confined to. A policy picks among the destinations and adds none: what it names and
//! nobody lets out would be believed to be reachable.

use std::collections::{BTreeMap, HashSet};

use outgate_journey::{
    name::HostPattern,
    policy::{NamedPolicy, SessionLimits},
    session::PolicyName,
};

use super::{destination::check_host, limit::check_session_limits, report::Report};
use crate::{
    file::{FilePolicy, NameText},
    node::{KeyPath, Node},
    read::similar,
};

pub(super) fn check_policies(
    policies: &BTreeMap<String, FilePolicy>,
    report: &mut Report<'_>,
) -> BTreeMap<PolicyName, NamedPolicy> {
    let known = hosts_of(report.root());
    let mut checked = BTreeMap::new();
    for (name, policy) in policies {
        let path = KeyPath::of("policies").key(name);
        let Some(name) = PolicyName::parse(name) else {
            report.error_at_key(
                "invalid_name",
                &path,
                "not a name".to_owned(),
                "use 1 to 64 letters, digits, `_` and `-`",
            );
            continue;
        };
        let limits = policy
            .limits
            .as_ref()
            .map_or_else(SessionLimits::default, |limits| {
                check_session_limits(limits, &path.key("limits"), report)
            });
        let hosts = check_hosts(
            &policy.destinations.0,
            &known,
            &path.key("destinations"),
            report,
        );
        checked.insert(name, NamedPolicy { hosts, limits });
    }
    checked
}

/// The hosts of all destinations, in the file as written: one whose entry was reported is known all the same.
fn hosts_of(root: &Node) -> HashSet<HostPattern> {
    let destinations = root
        .entry("destinations")
        .map_or(&[][..], |entry| entry.value.items());
    destinations
        .iter()
        .filter_map(|destination| destination.entry("host")?.value.text())
        .filter_map(|text| HostPattern::parse(text).ok())
        .collect()
}

fn check_hosts(
    texts: &[String],
    known: &HashSet<HostPattern>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Vec<HostPattern> {
    report.refuse_empty(texts, path);
    let mut hosts = Vec::new();
    for (path, text) in report.places(path, texts) {
        let Some(host) = check_host(text, &path, report) else {
            continue;
        };
        if hosts.contains(&host) {
            report.duplicate(&path, text);
        } else if known.contains(&host) {
            hosts.push(host);
        } else {
            report.error(
                "unknown_destination",
                &path,
                format!("`{host}` is not the host of a destination"),
                &explain_unknown(&host, known),
            );
        }
    }
    hosts
}

fn explain_unknown(host: &HostPattern, known: &HashSet<HostPattern>) -> String {
    if let HostPattern::Exact(name) = host
        && let Some(wildcard) = known.iter().find(|pattern| pattern.covers(name))
    {
        return format!(
            "write `\"{wildcard}\"`, or give `{host}` an entry of its own under `destinations`"
        );
    }
    let texts: Vec<String> = known.iter().map(ToString::to_string).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    match similar(&host.to_string(), &texts) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => {
            "a policy narrows what `destinations` lets out: add the host there, or take it out here"
                .to_owned()
        }
    }
}

/// The policy that some other key names.
pub(super) fn check_policy_name(
    name: Option<&NameText>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<PolicyName> {
    let NameText(text) = name?;
    let policies = report.root().entry("policies");
    let entries = policies.map_or(&[][..], |entry| entry.value.entries());
    if entries.iter().any(|entry| entry.key == *text) {
        return PolicyName::parse(text);
    }
    let known: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    let help = similar(text, &known).map_or_else(
        || "add it under `policies`, or name one that is there".to_owned(),
        |meant| format!("did you mean `{meant}`?"),
    );
    let message = "there is no policy of this name".to_owned();
    report.error("unknown_policy", path, message, &help);
    None
}
