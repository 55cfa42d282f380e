//! What is advised after a denial, once written into the file that denied, lets the same request through.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "clippy knows test functions, not their helpers"
)]

use std::{net::SocketAddr, path::Path};

use http::{HeaderMap, Method};
use outgate_config::{Additions, Advice, Config, Edit, advise};
use outgate_journey::{
    authorize::authorize,
    denial::DenyCode,
    destination::{Destination, identify_connect},
    policy::{AllowedDestination, Posture, TokenDemand, TunnelProtocol},
    record::{DecisionRecord, Entry, Verdict},
};

/// A file as keys and values, so that advice can be written into it.
#[derive(Clone)]
struct File {
    head: &'static str,
    destinations: Vec<Vec<(String, String)>>,
}

impl File {
    fn new(head: &'static str, destinations: &[&[(&str, &str)]]) -> Self {
        let owned = |keys: &&[(&str, &str)]| {
            let pairs = keys
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            pairs.collect()
        };
        Self {
            head,
            destinations: destinations.iter().map(owned).collect(),
        }
    }

    fn parse(&self, added: &[String]) -> Config {
        let mut text = format!(
            "version: 1\nlisten: {{ proxy: 127.0.0.1:1 }}\n{}\ndestinations:\n",
            self.head
        );
        for keys in &self.destinations {
            let pairs: Vec<String> = keys
                .iter()
                .map(|(key, value)| format!("{key}: {value}"))
                .collect();
            text += &format!("  - {{ {} }}\n", pairs.join(", "));
        }
        for item in added {
            text += &format!("  {}\n", item.replace('\n', "\n  "));
        }
        if self.destinations.is_empty() && added.is_empty() {
            text += "  []\n";
        }
        Config::parse("x", &text, Path::new(""))
            .unwrap_or_else(|problems| panic!("{text}\n{problems}"))
    }

    fn with(&self, edits: &[Edit]) -> Config {
        let (mut file, mut added) = (self.clone(), Vec::new());
        for edit in edits {
            match edit {
                Edit::AddDestination { text } => added.push(text.clone()),
                Edit::Set {
                    destination,
                    key,
                    value,
                } => {
                    let keys = file.keys(destination);
                    keys.retain(|(known, _)| known != key);
                    keys.push(((*key).to_owned(), value.clone()));
                }
                Edit::Append {
                    destination,
                    key,
                    value,
                } => {
                    let keys = file.keys(destination);
                    let (_, list) = keys.iter_mut().find(|(known, _)| known == key).unwrap();
                    *list = format!("{}, {value}]", list.strip_suffix(']').unwrap());
                }
            }
        }
        file.parse(&added)
    }

    fn keys(&mut self, destination: &str) -> &mut Vec<(String, String)> {
        let index = destination.split(['[', ']']).nth(1).unwrap();
        &mut self.destinations[index.parse::<usize>().unwrap()]
    }
}

#[derive(Clone, Copy)]
struct Asked {
    entry: Entry,
    host: &'static str,
    port: u16,
    method: &'static str,
    path: &'static str,
}

const ASKED: Asked = Asked {
    entry: Entry::Bumped,
    host: "x.test",
    port: 443,
    method: "POST",
    path: "/v1/x",
};

impl Asked {
    fn is_plain(&self) -> bool {
        matches!(
            self.entry,
            Entry::AbsoluteForm | Entry::TunnelledPlain | Entry::TransparentPlain
        )
    }

    fn destination(&self) -> Destination {
        let place = identify_connect(&format!("{}:{}", self.host, self.port)).unwrap();
        if self.is_plain() {
            place.in_clear()
        } else {
            place
        }
    }

    fn judge(&self, config: &Config) -> Result<AllowedDestination, DenyCode> {
        let allowed = config
            .policy
            .allow(self.destination())
            .map_err(|denial| denial.code())?;
        let method = Method::from_bytes(self.method.as_bytes()).unwrap();
        if allowed.rule().posture == Posture::Bump || self.is_plain() {
            let permit = authorize(allowed.clone(), &method, self.path, &HeaderMap::new());
            permit.map_err(|denial| denial.code())?;
        }
        Ok(allowed)
    }

    fn denied(&self, code: DenyCode, rule: Option<String>) -> DecisionRecord {
        let mut record = DecisionRecord::begin(
            "r".to_owned(),
            0,
            self.entry,
            SocketAddr::from(([127, 0, 0, 1], 1)),
        );
        record.host = Some(self.host.to_owned());
        record.port = Some(self.port);
        record.method = Some(self.method.to_owned());
        record.path = Some(self.path.to_owned());
        record.verdict = Verdict::Denied(code);
        record.rule = rule;
        record
    }
}

#[track_caller]
fn edits(advice: &Advice) -> &[Edit] {
    match advice {
        Advice::Policy { edits, .. } => edits,
        Advice::Hint(hint) => panic!("a hint: {hint}"),
    }
}

/// The request is denied with `code`, and is not after the advice was written.
#[track_caller]
fn check(file: &File, asked: Asked, code: DenyCode) -> Advice {
    let config = file.parse(&[]);
    assert_eq!(asked.judge(&config).unwrap_err(), code);
    let denial = config.policy.allow(asked.destination());
    let rule = match &denial {
        Ok(allowed) => Some(allowed.rule().id.to_string()),
        Err(denial) => denial.rule().map(ToString::to_string),
    };
    let advice = advise(&asked.denied(code, rule), &config).unwrap();
    let after = file.with(edits(&advice));
    assert!(asked.judge(&after).is_ok(), "{advice}");
    // A host that nobody asked for stays denied.
    let other = Asked {
        host: "other.test",
        ..asked
    };
    assert!(other.judge(&after).is_err(), "{advice}");
    advice
}

#[test]
fn a_host_is_added_with_its_port_and_in_clear_where_it_was_asked_in_clear() {
    let empty = File::new("", &[]);
    let closed = File::new("posture: deny-all", &[]);
    let shut = File::new("", &[&[("host", "x.test"), ("posture", "deny-all")]]);
    let plain = Asked {
        entry: Entry::AbsoluteForm,
        port: 80,
        ..ASKED
    };
    for file in [&empty, &closed, &shut] {
        for asked in [
            ASKED,
            Asked {
                entry: Entry::Connect,
                ..ASKED
            },
        ] {
            check(file, asked, DenyCode::DestinationNotAllowed);
        }
    }
    for file in [&empty, &closed] {
        for asked in [
            plain,
            Asked {
                entry: Entry::TunnelledPlain,
                port: 8080,
                ..ASKED
            },
            Asked {
                entry: Entry::TransparentPlain,
                ..plain
            },
            Asked {
                port: 8443,
                ..ASKED
            },
        ] {
            check(file, asked, DenyCode::DestinationNotAllowed);
        }
    }
    let told = check(&empty, ASKED, DenyCode::DestinationNotAllowed).to_string();
    assert_eq!(told, "- host: x.test   # or --allow x.test");
    let told = check(&empty, plain, DenyCode::DestinationNotAllowed).to_string();
    assert_eq!(
        told,
        "- host: x.test\n  ports: [80]\n  plaintext: true   # or --allow x.test:80"
    );
    let Advice::Policy { flag, .. } = check(
        &empty,
        Asked {
            port: 8080,
            ..plain
        },
        DenyCode::DestinationNotAllowed,
    ) else {
        panic!();
    };
    assert_eq!(flag, None, "a flag does not say plain HTTP on this port");
}

#[test]
fn a_port_is_added_to_the_destination_that_has_the_host() {
    let asked = Asked {
        port: 8443,
        ..ASKED
    };
    for file in [
        File::new("", &[&[("host", "x.test")]]),
        File::new(
            "",
            &[&[
                ("host", "x.test"),
                ("posture", "bump"),
                ("allow", "[{ methods: POST }]"),
            ]],
        ),
        File::new(
            "",
            &[&[
                ("host", "x.test"),
                ("ports", "80"),
                ("plaintext", "true"),
                ("allow", "[{ methods: POST }]"),
            ]],
        ),
        File::new("", &[&[("host", "x.test"), ("posture", "deny-all")]]),
        File::new("posture: deny-all", &[&[("host", "x.test")]]),
        File::new(
            "",
            &[
                &[("host", "x.test"), ("posture", "deny-all")],
                &[("host", "x.test"), ("ports", "22")],
            ],
        ),
    ] {
        check(&file, asked, DenyCode::PortNotAllowed);
        check(
            &file,
            Asked {
                entry: Entry::AbsoluteForm,
                port: 8080,
                ..ASKED
            },
            DenyCode::PortNotAllowed,
        );
    }
    let wild = File::new("", &[&[("host", "'*.x.example.org'")]]);
    let advice = check(
        &wild,
        Asked {
            host: "a.x.example.org",
            ..asked
        },
        DenyCode::PortNotAllowed,
    );
    assert_eq!(
        advice.to_string(),
        "ports: [443, 8443]   # in destinations[0] *.x.example.org"
    );
}

#[test]
fn plain_http_is_switched_on_without_opening_another_port() {
    let file = File::new(
        "",
        &[
            &[("host", "x.test")],
            &[("host", "x.test"), ("ports", "80")],
        ],
    );
    check(
        &file,
        Asked {
            entry: Entry::AbsoluteForm,
            ..ASKED
        },
        DenyCode::PlaintextNotAllowed,
    );
    check(
        &file,
        Asked {
            entry: Entry::AbsoluteForm,
            port: 80,
            ..ASKED
        },
        DenyCode::PlaintextNotAllowed,
    );
}

#[test]
fn requests_are_added_to_what_is_allowed() {
    let bumped = |allow: &str| {
        File::new(
            "",
            &[&[("host", "x.test"), ("posture", "bump"), ("allow", allow)]],
        )
    };
    let advice = check(
        &bumped("[{ paths: [/v2/**] }]"),
        ASKED,
        DenyCode::PathNotAllowed,
    );
    assert_eq!(
        advice.to_string(),
        "allow: [{ methods: [POST], paths: [/v1/x] }]   # add to destinations[0] x.test"
    );
    check(
        &bumped("[{ methods: GET }]"),
        ASKED,
        DenyCode::MethodNotAllowed,
    );
    check(
        &bumped("[{ headers: { x-mode: [a] } }]"),
        ASKED,
        DenyCode::HeaderNotAllowed,
    );
    for path in [
        "/a*b", "/a**", "/**", "/x/*/", "/a%20b", "/a:b@c,d", "/'", "/null", "/{a}", "/",
    ] {
        check(
            &bumped("[{ paths: [/v2/**] }]"),
            Asked { path, ..ASKED },
            DenyCode::PathNotAllowed,
        );
    }
    for method in ["get", "PROPFIND", "null", "*", "M'"] {
        check(
            &bumped("[{ paths: [/v2/**] }]"),
            Asked { method, ..ASKED },
            DenyCode::PathNotAllowed,
        );
    }
    let long: &'static str = Box::leak(format!("/v1/{}", "a".repeat(1020)).into_boxed_str());
    check(
        &bumped("[{ paths: [/v2/**] }]"),
        Asked {
            path: long,
            ..ASKED
        },
        DenyCode::PathNotAllowed,
    );
}

fn rule_after(
    file: &File,
    asked: Asked,
    code: DenyCode,
    detail: &str,
) -> outgate_journey::policy::Rule {
    let config = file.parse(&[]);
    let rule = config
        .policy
        .allow(asked.destination())
        .unwrap()
        .rule()
        .id
        .to_string();
    let mut record = asked.denied(code, Some(rule));
    record.detail = detail.to_owned();
    let advice = advise(&record, &config).unwrap();
    let after = file.with(edits(&advice));
    let allowed = after.policy.allow(asked.destination()).unwrap();
    (**allowed.rule()).clone()
}

#[test]
fn what_a_tunnel_may_carry_is_changed_in_its_rule() {
    let open = File::new("", &[&[("host", "x.test")]]);
    assert_eq!(
        rule_after(&open, ASKED, DenyCode::TlsRequired, "").protocol,
        TunnelProtocol::Opaque
    );
    assert!(rule_after(&open, ASKED, DenyCode::EncryptedClientHello, "").encrypted_client_hello);
    assert_eq!(
        rule_after(&open, ASKED, DenyCode::TokenMissing, "").token,
        TokenDemand::Optional
    );
    let plain = File::new(
        "",
        &[&[
            ("host", "x.test"),
            ("ports", "80"),
            ("plaintext", "true"),
            ("allow", "[{ methods: GET }]"),
        ]],
    );
    let asked = Asked { port: 80, ..ASKED };
    assert_eq!(
        rule_after(&plain, asked, DenyCode::TlsNotAllowed, "").posture,
        Posture::Bump
    );
}

#[test]
fn an_address_is_opened_for_its_destination_alone() {
    for (keys, address) in [
        (&[("host", "x.test")][..], "10.0.0.7"),
        (
            &[
                ("host", "x.test"),
                ("addresses", "{ allow: [10.1.0.0/16], deny: [10.0.0.0/24] }"),
            ],
            "10.0.0.7",
        ),
        (&[("host", "x.test")], "fd12::1"),
        (&[("host", "x.test")], "::ffff:127.0.0.1"),
    ] {
        let file = File::new("", &[keys]);
        let rule = rule_after(&file, ASKED, DenyCode::AddressDenied, address);
        let socket = SocketAddr::new(address.parse().unwrap(), 443);
        let config = file.parse(&[]);
        assert!(
            config
                .policy
                .deny_set()
                .judge(socket, &rule.addresses)
                .is_ok(),
            "{address}"
        );
    }
    for (head, address) in [
        ("", "169.254.169.254"),
        ("", "0.0.0.0"),
        ("resolver: { deny: [10.0.0.0/8] }", "10.0.0.7"),
        ("", "?"),
    ] {
        let config = File::new(head, &[&[("host", "x.test")]]).parse(&[]);
        let mut record = ASKED.denied(DenyCode::AddressDenied, None);
        record.detail = address.to_owned();
        assert!(
            matches!(advise(&record, &config), Some(Advice::Hint(_))),
            "{address}"
        );
    }
}

#[test]
fn rules_of_flags_are_replaced_by_a_destination_of_a_file() {
    let additions = Additions {
        allow: &["x.test".to_owned()],
        credentials: &[],
        posture: None,
        folder: Path::new(""),
        is_set: &|_| false,
    };
    let config = Config::compose(None, &additions).unwrap().config;
    let advice = advise(
        &Asked {
            port: 8443,
            ..ASKED
        }
        .denied(DenyCode::PortNotAllowed, None),
        &config,
    )
    .unwrap();
    assert_eq!(
        advice.to_string(),
        "- host: x.test\n  ports: [8443]   # or --allow x.test:8443"
    );
    let told = advise(
        &ASKED.denied(DenyCode::TlsRequired, Some("--allow x.test".to_owned())),
        &config,
    )
    .unwrap();
    let after = File::new("", &[]).with(edits(&told));
    assert_eq!(
        ASKED.judge(&after).unwrap().rule().protocol,
        TunnelProtocol::Opaque
    );
}

#[test]
fn every_code_has_advice_and_what_was_allowed_has_none() {
    let config = File::new("", &[&[("host", "x.test")]]).parse(&[]);
    for code in DenyCode::ALL {
        for host in [Some("x.test"), Some("1.2.3.4"), Some("not a name"), None] {
            let mut record = ASKED.denied(*code, None);
            record.host = host.map(str::to_owned);
            let told = advise(&record, &config).unwrap().to_string();
            assert!(!told.is_empty(), "{code}");
        }
    }
    let mut record = ASKED.denied(DenyCode::InternalFault, None);
    record.verdict = Verdict::Allowed;
    assert_eq!(advise(&record, &config), None);
}
