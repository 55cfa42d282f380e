//! Decides, for one denied request, which rule it met and which keys of it stand in the way.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use outgate_journey::{
    address::{AddressExceptions, reached_address},
    denial::DenyCode,
    name::{HostName, HostPattern, parent_of},
    policy::{Port, Posture, Rule, TunnelProtocol},
    record::{DecisionRecord, Entry},
};

use crate::{
    Advice, Config, Edit,
    advice::{CUT_METHOD_BYTES, CUT_PATH_BYTES},
    write,
};

/// A denied request, as far as the policy is concerned.
pub(crate) struct Case<'a> {
    record: &'a DecisionRecord,
    config: &'a Config,
    host: HostName,
    port: Port,
    plain: bool,
    pub(crate) rule: Option<&'a Rule>,
}

impl<'a> Case<'a> {
    pub(crate) fn new(record: &'a DecisionRecord, config: &'a Config) -> Option<Self> {
        let host = HostName::parse(record.host.as_deref()?).ok()?;
        let port = match record.entry {
            // A question names no port.
            Entry::Dns => Port::HTTPS,
            _ => record.port.and_then(Port::new).unwrap_or(Port::HTTPS),
        };
        let in_clear = matches!(
            record.entry,
            Entry::AbsoluteForm | Entry::TunnelledPlain | Entry::TransparentPlain
        );
        Some(Self {
            rule: deciding_rule(record, config, &host, port),
            plain: in_clear || port == Port::HTTP,
            record,
            config,
            host,
            port,
        })
    }

    /// Every code is named: a new one has to be thought about.
    pub(crate) fn change(&self, code: DenyCode) -> Option<Advice> {
        match code {
            DenyCode::DestinationNotAllowed => Some(self.allow_host()),
            DenyCode::PortNotAllowed => Some(self.allow_port()),
            DenyCode::PlaintextNotAllowed => self.allow_plaintext(),
            DenyCode::AddressDenied => self.allow_address(),
            DenyCode::TlsNotAllowed => self.set(&[("posture", "bump".to_owned())], None),
            DenyCode::TlsRequired => self.allow_opaque(),
            DenyCode::EncryptedClientHello => self.set(
                &[("encrypted_client_hello", "true".to_owned())],
                Some("the name that is really asked for is then hidden from the gateway"),
            ),
            DenyCode::TokenMissing => self.set(
                &[("token", "optional".to_owned())],
                Some("requests without the session token then go out with nothing attached"),
            ),
            DenyCode::MethodNotAllowed | DenyCode::PathNotAllowed | DenyCode::HeaderNotAllowed => {
                self.allow_request()
            }
            // Not the policy's doing, or nothing that a line could mend.
            DenyCode::MalformedRequest
            | DenyCode::HeaderTooLarge
            | DenyCode::RequestTimeout
            | DenyCode::CleartextHttp2
            | DenyCode::UpgradeNotSupported
            | DenyCode::HostInvalid
            | DenyCode::IpLiteral
            | DenyCode::AuthorityMismatch
            | DenyCode::TokenInvalid
            | DenyCode::TokenExpired
            | DenyCode::SessionMismatch
            | DenyCode::SessionRevoked
            | DenyCode::SessionIdle
            | DenyCode::SessionLifetime
            | DenyCode::KillSwitch
            | DenyCode::NameNotResolved
            | DenyCode::ServerNameMissing
            | DenyCode::ServerNameMismatch
            | DenyCode::TlsHandshakeFailed
            | DenyCode::CaExpired
            | DenyCode::PathAmbiguous
            | DenyCode::RequestDenied
            | DenyCode::TokenInUrl
            | DenyCode::RateLimited
            | DenyCode::ConnectionLimit
            | DenyCode::BytesLimit
            | DenyCode::DestinationsLimit
            | DenyCode::CredentialUnavailable
            | DenyCode::CredentialOverPlaintext
            | DenyCode::AuditUnavailable
            | DenyCode::DenylistStale
            | DenyCode::UpstreamUnreachable
            | DenyCode::UpstreamTlsFailed
            | DenyCode::UpstreamTimeout
            | DenyCode::UpstreamProtocol
            | DenyCode::ResponseUnscrubbable
            | DenyCode::BearerMissing
            | DenyCode::BearerRepeated
            | DenyCode::BearerInvalid
            | DenyCode::BearerExpired
            | DenyCode::IssuerUnavailable
            | DenyCode::PolicyChanged
            | DenyCode::TooManyConnections
            | DenyCode::ShuttingDown
            | DenyCode::InternalFault => None,
        }
    }

    fn allow_host(&self) -> Advice {
        if let Some(rule) = self.rule.filter(|rule| rule.posture == Posture::DenyAll) {
            let posture = if rule.injection.is_some() || !rule.requests.is_unrestricted() {
                "bump"
            } else {
                "pass-through"
            };
            if let Some(advice) = self.set(&[("posture", posture.to_owned())], None) {
                return advice;
            }
        }
        let mut keys = Vec::new();
        if self.port != Port::HTTPS {
            keys.push(("ports", write::list([self.port])));
        }
        if self.plain {
            keys.push(("plaintext", "true".to_owned()));
        }
        if self.config.posture == Some(Posture::DenyAll) {
            keys.push(("posture", "auto".to_owned()));
        }
        self.add(&self.host.to_string(), &keys, None)
    }

    fn allow_port(&self) -> Advice {
        let rules = self.covering();
        let open = rules.iter().find(|rule| rule.posture != Posture::DenyAll);
        let Some(rule) = open.filter(|rule| is_of_file(rule)) else {
            // Beside rules that deny, or that no file holds, a destination of its own; a wildcard's under the wildcard,
            // since an exact name would hide it.
            let host = rules
                .first()
                .map_or_else(|| self.host.to_string(), |rule| rule.host.to_string());
            let mut keys = vec![("ports", write::list([self.port]))];
            if self.plain {
                keys.push(("plaintext", "true".to_owned()));
            }
            if self.config.posture == Some(Posture::DenyAll) {
                keys.push(("posture", "auto".to_owned()));
            }
            return self.add(&host, &keys, None);
        };
        let mut edits = vec![set(rule, "ports", ports_with(rule, self.port))];
        if self.plain && !rule.plaintext {
            edits.push(set(rule, "plaintext", "true".to_owned()));
        }
        // Plain HTTP alone can be judged without terminating TLS; with another port there is TLS.
        let judged = !rule.requests.is_unrestricted() || rule.limits.requests.is_some();
        if judged && rule.posture == Posture::PassThrough {
            edits.push(set(rule, "posture", "bump".to_owned()));
        }
        Advice::Policy {
            edits,
            flag: None,
            note: None,
        }
    }

    fn allow_plaintext(&self) -> Option<Advice> {
        let rule = self.rule?;
        let mut keys = vec![("plaintext", "true".to_owned())];
        // Without `ports` the key would open port 80 too.
        if is_of_file(rule) && !rule.ports.contains(&Port::HTTP) {
            keys.push(("ports", write::list(&rule.ports)));
        }
        self.set(
            &keys,
            Some("what is sent in clear can be read and changed on its way"),
        )
    }

    fn allow_address(&self) -> Option<Advice> {
        let rule = self.rule?;
        let upstream = self.record.upstream.map(|socket| socket.ip());
        let address: IpAddr = upstream.or_else(|| self.record.detail.trim().parse().ok())?;
        let mut exceptions = rule.addresses.clone();
        let range = IpNet::from(reached_address(address));
        exceptions.deny.retain(|net| !net.contains(&address));
        exceptions.allow.push(range);
        let socket = SocketAddr::new(address, self.port.get());
        // Some addresses no exception opens.
        self.config
            .policy
            .deny_set()
            .judge(socket, &exceptions)
            .ok()?;
        self.set(
            &[("addresses", exceptions_text(&exceptions))],
            Some("make sure that this address is the one you mean"),
        )
    }

    fn allow_opaque(&self) -> Option<Advice> {
        let rule = self.rule?;
        let plain = rule.posture == Posture::PassThrough
            && rule.requests.is_unrestricted()
            && rule.limits.requests.is_none()
            && rule.protocol == TunnelProtocol::Tls;
        if !plain {
            return None;
        }
        self.set(
            &[("protocol", "opaque".to_owned())],
            Some("any bytes may then pass: only host and port are judged"),
        )
    }

    fn allow_request(&self) -> Option<Advice> {
        let rule = self.rule.filter(|rule| is_of_file(rule))?;
        let value = request_text(self.record.method.as_deref(), self.record.path.as_deref()?)?;
        let edit = Edit::Append {
            destination: rule.id.to_string(),
            key: "allow",
            value,
        };
        Some(Advice::Policy {
            edits: vec![edit],
            flag: None,
            note: None,
        })
    }

    /// Keys to set in the rule that decided; a rule that stands in no file is replaced by a destination that does.
    fn set(&self, keys: &[(&'static str, String)], note: Option<&'static str>) -> Option<Advice> {
        let rule = self.rule?;
        if is_of_file(rule) {
            let edits = keys
                .iter()
                .map(|(key, value)| set(rule, key, value.clone()));
            return Some(Advice::Policy {
                edits: edits.collect(),
                flag: None,
                note,
            });
        }
        // What a service attaches cannot be said without its credential.
        if rule.injection.is_some() {
            return None;
        }
        let mut all = Vec::new();
        if rule.ports != [Port::HTTPS] {
            all.push(("ports", write::list(&rule.ports)));
        }
        all.extend_from_slice(keys);
        let Advice::Policy { edits, .. } = self.add(&rule.host.to_string(), &all, None) else {
            return None;
        };
        Some(Advice::Policy {
            edits,
            flag: None,
            note: note.or(Some("in a file, instead of the flag")),
        })
    }

    fn add(
        &self,
        host: &str,
        keys: &[(&'static str, String)],
        note: Option<&'static str>,
    ) -> Advice {
        let mut text = format!("- host: {}", write::scalar(host));
        for (key, value) in keys {
            text += &format!("\n  {key}: {value}");
        }
        // A flag is TLS on every port but 80.
        let says_as_much = !self.plain || self.port == Port::HTTP;
        let flag = match self.port {
            Port::HTTPS => format!("--allow {host}"),
            port => format!("--allow {host}:{port}"),
        };
        Advice::Policy {
            edits: vec![Edit::AddDestination { text }],
            flag: says_as_much.then_some(flag),
            note,
        }
    }

    fn covering(&self) -> Vec<&'a Rule> {
        covering(self.config, &self.host)
    }
}

/// The rules for a host, as the policy finds them, in the order of their names.
fn covering<'c>(config: &'c Config, host: &HostName) -> Vec<&'c Rule> {
    let of = |pattern: &HostPattern| -> Vec<&'c Rule> {
        let rules = config.policy.rules().map(|rule| &**rule);
        let mut found: Vec<&Rule> = rules.filter(|rule| rule.host == *pattern).collect();
        found.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
        found
    };
    let exact = of(&HostPattern::Exact(host.clone()));
    if !exact.is_empty() {
        return exact;
    }
    let parent = parent_of(host).and_then(|parent| HostName::parse(parent).ok());
    parent.map_or_else(Vec::new, |parent| of(&HostPattern::Wildcard(parent)))
}

fn deciding_rule<'c>(
    record: &DecisionRecord,
    config: &'c Config,
    host: &HostName,
    port: Port,
) -> Option<&'c Rule> {
    let rules = covering(config, host);
    let named = rules
        .iter()
        .find(|rule| record.rule.as_deref() == Some(rule.id.as_str()));
    let by_port = || rules.iter().find(|rule| rule.ports.contains(&port));
    named.or_else(by_port).copied()
}

/// Rules of flags and services have other names.
fn is_of_file(rule: &Rule) -> bool {
    rule.id.as_str().starts_with("destinations")
}

fn set(rule: &Rule, key: &'static str, value: String) -> Edit {
    Edit::Set {
        destination: rule.id.to_string(),
        key,
        value,
    }
}

fn ports_with(rule: &Rule, port: Port) -> String {
    let mut ports = rule.ports.clone();
    ports.push(port);
    write::list(ports)
}

fn exceptions_text(exceptions: &AddressExceptions) -> String {
    let ranges = |list: &[IpNet]| {
        let texts = list.iter().map(|net| {
            if net.prefix_len() == net.max_prefix_len() {
                net.addr().to_string()
            } else {
                net.to_string()
            }
        });
        let quoted: Vec<String> = texts.map(|text| format!("\"{text}\"")).collect();
        format!("[{}]", quoted.join(", "))
    };
    if exceptions.deny.is_empty() {
        format!("{{ allow: {} }}", ranges(&exceptions.allow))
    } else {
        format!(
            "{{ allow: {}, deny: {} }}",
            ranges(&exceptions.allow),
            ranges(&exceptions.deny)
        )
    }
}

/// `{ methods: [POST], paths: [/v1/x] }`, as narrow as a file can say it. `None` for paths that no pattern covers.
fn request_text(method: Option<&str>, path: &str) -> Option<String> {
    let mut pattern = write::pattern(path)?;
    if path.len() >= CUT_PATH_BYTES {
        let kept = pattern
            .rfind('/')
            .and_then(|at| pattern.get(..at))
            .unwrap_or_default();
        pattern = format!("{kept}/**");
    }
    let paths = write::list([pattern]);
    let method = method.filter(|text| text.len() < CUT_METHOD_BYTES && write::is_method(text));
    Some(match method {
        Some(method) => format!("{{ methods: {}, paths: {paths} }}", write::list([method])),
        None => format!("{{ paths: {paths} }}"),
    })
}
