//! Decides what a policy looks like that lets out what was seen and little else. It names each host that was reached,
//! with the ports, methods and path shapes of its requests; a host that showed no requests passes through. What was
//! denied while learning does not come in, and no secret does: only where each credential came from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use http::header::AUTHORIZATION;
use outgate_journey::{
    destination::identify_connect,
    name::HostName,
    policy::{
        CredentialName, CredentialSource, Injection, InjectionForm, Port, Rule, TokenDemand,
        TunnelProtocol,
    },
    record::{DecisionRecord, Entry, Verdict},
};

use crate::{
    Config,
    preamble::{head, path_text, ranges, sds_text},
    shape::{Requests, Shape},
    write::{list, scalar},
};

/// A policy in the making, from the records of a run.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    seen: BTreeMap<(HostName, Port), Traffic>,
}

#[derive(Debug, Clone, Default)]
struct Traffic {
    over_tls: bool,
    in_clear: bool,
    /// Tunnels, and whether requests in clear came out of some: if not, they carried TLS.
    tunnels: bool,
    opened: bool,
    requests: Requests,
}

/// One destination as it will be written, but for its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    keys: Vec<(&'static str, String)>,
    allow: Vec<String>,
    notes: Vec<String>,
}

impl Draft {
    /// A draft that lets nothing out.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what was let out. Anything else is ignored.
    pub fn record(&mut self, record: &DecisionRecord) {
        if record.verdict != Verdict::Allowed {
            return;
        }
        let host = record
            .host
            .as_deref()
            .and_then(|host| HostName::parse(host).ok());
        let (Some(host), Some(port)) = (host, record.port.and_then(Port::new)) else {
            return;
        };
        let in_clear = match record.entry {
            Entry::Connect | Entry::Transparent => None,
            Entry::Bumped => Some(false),
            Entry::AbsoluteForm | Entry::TunnelledPlain | Entry::TransparentPlain => Some(true),
            // A question alone sends nothing out, and bytes that are no request are not let out.
            Entry::Dns | Entry::Namespace | Entry::Listener => return,
            // What others ask of the service goes to no destination of the policy.
            Entry::Inbound | Entry::InboundPlain => return,
        };
        let traffic = self.seen.entry((host, port)).or_default();
        traffic.tunnels |= in_clear.is_none();
        if let (Some(in_clear), Some(method), Some(path)) = (in_clear, &record.method, &record.path)
        {
            traffic.in_clear |= in_clear;
            traffic.opened |= matches!(
                record.entry,
                Entry::TunnelledPlain | Entry::TransparentPlain
            );
            traffic.over_tls |= !in_clear;
            traffic.requests.add(method, path);
        }
    }

    /// The policy file. `config` is what the run was made with: credentials, addresses and roots are taken from it.
    #[must_use]
    pub fn to_yaml(&self, config: &Config) -> String {
        let mut merged: BTreeMap<&HostName, Vec<(Vec<Port>, Body)>> = BTreeMap::new();
        let mut used = BTreeSet::new();
        let names = Names::new(config);
        for ((host, port), traffic) in &self.seen {
            let rule = rule_of(config, host, *port);
            let (body, credential) = traffic.body(rule, *port, &names);
            used.extend(credential);
            let bodies = merged.entry(host).or_default();
            match bodies.iter_mut().find(|(_, known)| *known == body) {
                Some((ports, _)) => ports.push(*port),
                None => bodies.push((vec![*port], body)),
            }
        }
        let mut text = head(config);
        write_credentials(&mut text, config, &names, &used);
        if merged.is_empty() {
            text += "# Nothing was let out.\ndestinations: []\n";
        } else {
            text += "destinations:\n";
        }
        for (host, bodies) in merged {
            bodies
                .iter()
                .for_each(|(ports, body)| body.write(&mut text, host, ports));
        }
        text
    }
}

impl Traffic {
    fn body(
        &self,
        rule: Option<&Rule>,
        port: Port,
        names: &Names,
    ) -> (Body, Option<CredentialName>) {
        let is_seen = !self.requests.is_empty();
        let shape = if is_seen {
            self.requests.shape()
        } else {
            Shape {
                entries: Vec::new(),
                notes: vec!["no requests were seen here".to_owned()],
            }
        };
        // In clear nothing is attached.
        let injection = rule.and_then(|rule| rule.injection.as_ref());
        let injection =
            injection.filter(|it| self.over_tls || (self.in_clear && it.over_plaintext));
        // Only plain HTTP on its own port is judged without terminating TLS.
        let carries_tls = self.over_tls || (self.tunnels && !self.opened);
        let judged_in_clear = self.in_clear && !carries_tls && port == Port::HTTP;
        let bumped = !shape.entries.is_empty() && !judged_in_clear;
        let mut keys = Vec::new();
        if self.in_clear {
            keys.push(("plaintext", "true".to_owned()));
        }
        if let Some(injection) = injection {
            keys.push(("inject", inject_text(injection, names)));
        } else if bumped {
            keys.push(("posture", "bump".to_owned()));
        }
        if let Some(rule) = rule {
            let opaque = rule.protocol == TunnelProtocol::Opaque && !is_seen;
            keys.extend(opaque.then(|| ("protocol", "opaque".to_owned())));
            let hidden = rule.encrypted_client_hello && !bumped && injection.is_none();
            keys.extend(hidden.then(|| ("encrypted_client_hello", "true".to_owned())));
            let optional = rule.token == TokenDemand::Optional;
            keys.extend(optional.then(|| ("token", "optional".to_owned())));
            let (allow, deny) = (&rule.addresses.allow, &rule.addresses.deny);
            if !allow.is_empty() || !deny.is_empty() {
                keys.push((
                    "addresses",
                    format!("{{ allow: {}, deny: {} }}", ranges(allow), ranges(deny)),
                ));
            }
        }
        let credential = injection.map(|it| it.credential.clone());
        let allow = shape
            .entries
            .iter()
            .map(|(methods, paths)| entry_text(methods, paths));
        let body = Body {
            keys,
            allow: allow.collect(),
            notes: shape.notes,
        };
        (body, credential)
    }
}

impl Body {
    fn write(&self, text: &mut String, host: &HostName, ports: &[Port]) {
        for note in &self.notes {
            let _ = writeln!(text, "  # {host}: {note}");
        }
        let _ = writeln!(text, "  - host: {}", scalar(host.as_str()));
        if ports != [Port::HTTPS] || self.keys.iter().any(|(key, _)| *key == "plaintext") {
            let _ = writeln!(text, "    ports: {}", list(ports));
        }
        for (key, value) in &self.keys {
            let _ = writeln!(text, "    {key}: {value}");
        }
        if !self.allow.is_empty() {
            let _ = writeln!(text, "    allow:");
        }
        for entry in &self.allow {
            let _ = writeln!(text, "      - {entry}");
        }
    }
}

fn entry_text(methods: &BTreeSet<String>, paths: &[String]) -> String {
    match (methods.is_empty(), paths.is_empty()) {
        (true, _) => format!("{{ paths: {} }}", list(paths)),
        (false, true) => format!("{{ methods: {} }}", list(methods)),
        (false, false) => format!("{{ methods: {}, paths: {} }}", list(methods), list(paths)),
    }
}

/// The rule that served this place, where a rule of its own did.
fn rule_of<'c>(config: &'c Config, host: &HostName, port: Port) -> Option<&'c Rule> {
    let destination = identify_connect(&format!("{host}:{port}")).ok()?;
    let allowed = config.policy.allow(destination).ok()?;
    let rules = config.policy.rules();
    let mut same = rules.filter(|rule| rule.id == allowed.rule().id && rule.host.covers(host));
    same.find(|rule| rule.ports.contains(&port))
        .map(|rule| &**rule)
}

/// Names of credentials as a file can write them.
struct Names(BTreeMap<CredentialName, String>);

impl Names {
    fn new(config: &Config) -> Self {
        let mut names = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for name in config.credentials.keys() {
            let simple = |c: char| {
                if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                    c
                } else {
                    '-'
                }
            };
            let base: String = name.as_str().chars().map(simple).take(56).collect();
            let numbered = (2..).map(|number| format!("{base}-{number}"));
            let mut free = std::iter::once(base.clone()).chain(numbered);
            let chosen = free.find(|text| !text.is_empty() && taken.insert(text.clone()));
            names.insert(name.clone(), chosen.unwrap_or_default());
        }
        Self(names)
    }

    fn of(&self, name: &CredentialName) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

fn inject_text(injection: &Injection, names: &Names) -> String {
    let mut text = format!("{{ credential: {}", scalar(names.of(&injection.credential)));
    match &injection.form {
        InjectionForm::Header {
            name,
            prefix,
            suffix,
        } => {
            let _ = write!(text, ", header: {}", scalar(name.as_str()));
            let default = if *name == AUTHORIZATION {
                "Bearer "
            } else {
                ""
            };
            if prefix != default || !suffix.is_empty() {
                let template = format!("{prefix}{{credential}}{suffix}");
                let _ = write!(text, ", template: {}", scalar(&template));
            }
        }
        InjectionForm::Basic { username } => {
            let _ = write!(text, ", basic: {}", scalar(username));
        }
        InjectionForm::Query { parameter } => {
            let _ = write!(text, ", query: {}", scalar(parameter));
        }
    }
    if injection.over_plaintext {
        text += ", over_plaintext: true";
    }
    text += " }";
    text
}

fn write_credentials(
    text: &mut String,
    config: &Config,
    names: &Names,
    used: &BTreeSet<CredentialName>,
) {
    if used.is_empty() {
        return;
    }
    *text += "credentials:\n";
    for name in used {
        let source = match config.credentials.get(name) {
            Some(CredentialSource::Env(variable)) => format!("env: {}", scalar(variable)),
            Some(CredentialSource::File(path)) => format!("file: {}", path_text(path)),
            Some(CredentialSource::Sds(sds)) => format!("sds: {}", sds_text(sds)),
            None => continue,
        };
        let _ = writeln!(
            text,
            "  {}: {{ from: {{ {source} }} }}",
            scalar(names.of(name))
        );
    }
}
