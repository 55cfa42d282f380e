//! Decides what one destination's entry means, and refuses what it could not keep: a wildcard over names that
//! belong to many owners, a restriction that cannot be judged at its rung, two entries for one place.

use std::collections::HashMap;

use outgate_journey::{
    name::{HostName, HostPattern, NameError},
    policy::{DestinationLimits, Port, Posture, Rule, RuleId, TokenDemand, TunnelProtocol},
};

use super::{
    address::check_exceptions, inject::check_inject, limit::check_rate, report::Report,
    request::check_requests,
};
use crate::{
    file::{FileDestination, FilePosture, FileProtocol, FileToken, OneOrMany, PortNumber, Shared},
    node::{KeyPath, Node},
};

/// Whether some destination names the credential, in the file as written.
pub(super) fn mentions_credential(root: &Node, name: &str) -> bool {
    let destinations = root
        .entry("destinations")
        .map_or(&[][..], |entry| entry.value.items());
    destinations
        .iter()
        .filter_map(|destination| destination.entry("inject")?.value.entry("credential"))
        .any(|entry| entry.value.text() == Some(name))
}

pub(super) fn check_destinations(file: &Shared<'_>, report: &mut Report<'_>) -> Vec<Rule> {
    let base = KeyPath::of("destinations");
    if file.destinations.is_empty() && !report.touched(&base) {
        report.warn(
            "nothing_allowed",
            &base,
            "no destination is named: nothing is let out".to_owned(),
            "add `destinations: [{ host: api.example.org }]`",
        );
    }
    let mut rules = Vec::new();
    let mut taken = Taken::new();
    for (path, written) in report.places(&base, file.destinations) {
        let Some(rule) = check_destination(written, file.posture, &path, report) else {
            continue;
        };
        check_taken(&rule.host, &rule.ports, &path, &mut taken, report);
        rules.push(rule);
    }
    rules
}

/// Which pattern and port is whose: line and path of the entry.
pub(super) type Taken = HashMap<(HostPattern, Port), (usize, String)>;

/// Two entries for one pattern and port: which of them counts would depend on their order.
pub(super) fn check_taken(
    pattern: &HostPattern,
    ports: &[Port],
    path: &KeyPath,
    taken: &mut Taken,
    report: &mut Report<'_>,
) {
    let host = path.key("host");
    let line = report.line(&host);
    let mut clash = None;
    for port in ports {
        let key = (pattern.clone(), *port);
        if let Some(first) = taken.get(&key) {
            clash = clash.or_else(|| Some((*port, first.clone())));
        } else {
            taken.insert(key, (line, path.to_string()));
        }
    }
    if let Some((port, (first_line, first))) = clash {
        report.error(
            "contradicting_destinations",
            &host,
            format!(
                "lines {first_line} and {line} are both about {pattern} port {port} (`{first}` and `{path}`)"
            ),
            "merge them into one destination, or give them different ports",
        );
    }
}

fn check_destination(
    written: &FileDestination,
    default_posture: FilePosture,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<Rule> {
    let host = check_host(&written.host, &path.key("host"), report);
    let ports = check_ports(written.ports.as_ref(), written.plaintext, path, report);
    let injection = written
        .inject
        .as_ref()
        .and_then(|inject| check_inject(inject, &path.key("inject"), report));
    let requests = check_requests(
        written.allow.as_deref(),
        written.deny.as_deref(),
        path,
        report,
    );
    let limits_path = path.key("limits").key("requests");
    let limits = DestinationLimits {
        requests: check_rate(
            written
                .limits
                .as_ref()
                .and_then(|limits| limits.requests.as_ref()),
            &limits_path,
            report,
        ),
    };
    let addresses = check_exceptions(written.addresses.as_ref(), &path.key("addresses"), report);
    let posture = resolve_posture(written, default_posture);
    // What was taken out may be the very key that would make the entry sound.
    if !report.touched(path) {
        check_posture(written, posture, &ports, path, report);
    }
    let host = host?;
    Some(Rule {
        id: RuleId::new(format!("{path} {host}")),
        host,
        ports,
        posture,
        protocol: match written.protocol {
            FileProtocol::Tls => TunnelProtocol::Tls,
            FileProtocol::Opaque => TunnelProtocol::Opaque,
        },
        plaintext: written.plaintext,
        encrypted_client_hello: written.encrypted_client_hello,
        token: token_demand(written.token),
        requests,
        injection,
        limits,
        addresses,
    })
}

pub(super) const fn token_demand(written: FileToken) -> TokenDemand {
    match written {
        FileToken::Required => TokenDemand::Required,
        FileToken::Optional => TokenDemand::Optional,
    }
}

/// The rung of destinations that name none; `None` is `auto`.
pub(super) const fn default_posture(written: FilePosture) -> Option<Posture> {
    match written {
        FilePosture::DenyAll => Some(Posture::DenyAll),
        FilePosture::PassThrough => Some(Posture::PassThrough),
        FilePosture::Bump => Some(Posture::Bump),
        FilePosture::Auto => None,
    }
}

/// The rung that is meant, `auto` being the lowest that serves the entry.
fn resolve_posture(written: &FileDestination, default: FilePosture) -> Posture {
    let auto = if written.inject.is_some() {
        Posture::Bump
    } else {
        Posture::PassThrough
    };
    default_posture(written.posture.unwrap_or(default)).unwrap_or(auto)
}

pub(super) fn check_host(
    text: &str,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<HostPattern> {
    let pattern = match HostPattern::parse(text) {
        Ok(pattern) => pattern,
        Err(error) => {
            let (code, message, help) = explain_host(text, error);
            report.error(code, path, message.to_owned(), &help);
            return None;
        }
    };
    if let HostPattern::Wildcard(parent) = &pattern
        && is_public_suffix(parent)
    {
        report.error(
            "wildcard_over_public_suffix",
            path,
            format!("names directly below `{parent}` belong to many owners"),
            "write the names one by one, or a wildcard below a name of one owner, as in `*.api.example.org`",
        );
        return None;
    }
    Some(pattern)
}

/// A name below which anyone may register, by the Public Suffix List; a single label always is.
pub(crate) fn is_public_suffix(name: &HostName) -> bool {
    psl::suffix_str(name.as_str()).is_some_and(|suffix| suffix == name.as_str())
}

fn explain_host(text: &str, error: NameError) -> (&'static str, &'static str, String) {
    let invalid = |help: &str| ("invalid_host", "not a host name", help.to_owned());
    if let Some((scheme, _)) = text.split_once("://") {
        let extra = if scheme == "http" {
            " and `plaintext: true`"
        } else {
            ""
        };
        return invalid(&format!(
            "write the name only, without scheme and path{extra}"
        ));
    }
    if text.contains('/') {
        return invalid("write the name only; paths go under `allow: [{ paths: […] }]`");
    }
    if let Some((host, port)) = text.split_once(':')
        && HostPattern::parse(host).is_ok()
        && port.parse::<u16>().is_ok()
    {
        return invalid(&format!("write `host: {host}` and `ports: [{port}]`"));
    }
    match error {
        NameError::Address => (
            "host_is_address",
            "an address, not a host name",
            "give it a name: `resolver: { hosts: { api.internal.example: <address> } }`, and use the name here"
                .to_owned(),
        ),
        NameError::Malformed if text.contains('*') => {
            invalid("a wildcard is `*.` and a name: exactly one label in front of that name")
        }
        NameError::Malformed => invalid("write a name such as `api.example.org`"),
    }
}

pub(super) fn check_ports(
    written: Option<&OneOrMany<PortNumber>>,
    plaintext: bool,
    base: &KeyPath,
    report: &mut Report<'_>,
) -> Vec<Port> {
    let Some(list) = written else {
        return if plaintext {
            vec![Port::HTTPS, Port::HTTP]
        } else {
            vec![Port::HTTPS]
        };
    };
    let path = base.key("ports");
    report.refuse_empty(&list.0, &path);
    let mut ports = Vec::new();
    for (path, PortNumber(number)) in report.places(&path, &list.0) {
        match Port::new(*number) {
            Some(port) if ports.contains(&port) => report.duplicate(&path, &number.to_string()),
            Some(port) => ports.push(port),
            None => report.error(
                "invalid_port",
                &path,
                "0 is not a port".to_owned(),
                "write a number from 1 to 65535",
            ),
        }
    }
    if ports == [Port::HTTP] && !plaintext && !report.touched(base) {
        report.warn(
            "tls_on_port_80",
            &path,
            "only TLS is let out to port 80".to_owned(),
            "add `plaintext: true` if plain HTTP is meant",
        );
    }
    ports
}

/// Whether what the entry asks for can be kept at its rung of the posture ladder.
fn check_posture(
    written: &FileDestination,
    posture: Posture,
    ports: &[Port],
    path: &KeyPath,
    report: &mut Report<'_>,
) {
    let opaque = written.protocol == FileProtocol::Opaque;
    let judged = if written.allow.is_some() {
        Some("allow")
    } else {
        written.deny.as_ref().map(|_| "deny")
    };
    if let Some(inject) = &written.inject {
        check_inject_posture(inject.over_plaintext, written, posture, path, report);
    } else if opaque && posture == Posture::Bump {
        report.error(
            "opaque_bump",
            &path.key("protocol"),
            "an opaque tunnel cannot be bumped: nothing says that it carries TLS".to_owned(),
            "write `posture: pass-through`, or take `protocol: opaque` out",
        );
    }
    if opaque && let Some(key) = judged {
        report.error(
            "opaque_with_request_rules",
            &path.key(key),
            "an opaque tunnel shows no requests to judge".to_owned(),
            "take `allow` and `deny` out, or `protocol: opaque`",
        );
    } else if posture == Posture::PassThrough && !is_plain_only(written.plaintext, ports) {
        check_judged_without_bump(written, judged, path, report);
    }
    if written.encrypted_client_hello && posture != Posture::PassThrough {
        report.warn(
            "no_effect",
            &path.key("encrypted_client_hello"),
            "has an effect only with posture pass-through".to_owned(),
            "take the key out",
        );
    }
}

/// A tunnel that passes through shows no requests to judge or count.
fn check_judged_without_bump(
    written: &FileDestination,
    judged: Option<&str>,
    path: &KeyPath,
    report: &mut Report<'_>,
) {
    if let Some(key) = judged {
        report.error(
                "rules_need_bump",
                &path.key(key),
                "requests can only be judged when TLS is terminated".to_owned(),
                "write `posture: bump` (creates a CA that the guests must trust), or take `allow` and `deny` out",
            );
    }
    if written
        .limits
        .as_ref()
        .is_some_and(|limits| limits.requests.is_some())
    {
        report.error(
                "limit_needs_bump",
                &path.key("limits").key("requests"),
                "requests can only be counted when TLS is terminated".to_owned(),
                "write `posture: bump` (creates a CA that the guests must trust), or use `sessions.limits.connections`",
            );
    }
}

fn check_inject_posture(
    over_plaintext: bool,
    written: &FileDestination,
    posture: Posture,
    path: &KeyPath,
    report: &mut Report<'_>,
) {
    let reason = if written.protocol == FileProtocol::Opaque {
        Some(("`protocol: opaque`", "take `protocol: opaque` out"))
    } else if posture != Posture::Bump {
        Some((
            "this posture",
            "write `posture: auto` or `posture: bump` for this destination",
        ))
    } else {
        None
    };
    if let Some((what, help)) = reason {
        report.error(
            "inject_needs_bump",
            &path.key("inject"),
            format!("a credential cannot be attached with {what}: TLS is not terminated"),
            &format!("{help}, or take `inject` out"),
        );
    }
    if over_plaintext && !written.plaintext {
        report.error(
            "over_plaintext_without_plaintext",
            &path.key("inject").key("over_plaintext"),
            "this destination does not serve plain HTTP".to_owned(),
            "add `plaintext: true` to the destination, or take `over_plaintext` out",
        );
    }
}

/// Only port 80 is taken to speak nothing but plain HTTP.
fn is_plain_only(plaintext: bool, ports: &[Port]) -> bool {
    plaintext && ports == [Port::HTTP]
}
