//! A policy that was written from records lets the same requests out, and no host that was not among them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "clippy knows test functions, not their helpers"
)]

use std::{net::SocketAddr, path::Path};

use http::{HeaderMap, Method};
use outgate_config::{Additions, Config, Draft};
use outgate_journey::{
    authorize::authorize,
    denial::DenyCode,
    destination::identify_connect,
    path::is_ambiguous,
    policy::{CredentialSource, Posture, TunnelProtocol},
    record::{DecisionRecord, Entry, Verdict},
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Seen {
    entry: Entry,
    host: String,
    port: u16,
    request: Option<(String, String)>,
}

fn seen(entry: Entry, place: &str, request: Option<(&str, &str)>) -> Seen {
    let (host, port) = place.split_once(':').unwrap_or((place, "443"));
    Seen {
        entry,
        host: host.to_owned(),
        port: port.parse().unwrap(),
        request: request.map(|(method, path)| (method.to_owned(), path.to_owned())),
    }
}

impl Seen {
    fn is_plain(&self) -> bool {
        matches!(
            self.entry,
            Entry::AbsoluteForm | Entry::TunnelledPlain | Entry::TransparentPlain
        )
    }

    fn record(&self) -> DecisionRecord {
        let mut record = DecisionRecord::begin(
            "r".to_owned(),
            0,
            self.entry,
            SocketAddr::from(([127, 0, 0, 1], 1)),
        );
        record.host = Some(self.host.clone());
        record.port = Some(self.port);
        record.verdict = Verdict::Allowed;
        if let Some((method, path)) = &self.request {
            // As the gateway cuts them.
            record.method = Some(method.chars().take(32).collect());
            record.path = Some(path.chars().take(1024).collect());
        }
        record
    }

    fn judge(&self, config: &Config) -> Result<(), DenyCode> {
        let place = identify_connect(&format!("{}:{}", self.host, self.port)).unwrap();
        let place = if self.is_plain() {
            place.in_clear()
        } else {
            place
        };
        let allowed = config.policy.allow(place).map_err(|denial| denial.code())?;
        // A tunnel that cannot be looked into is not carried under rules that judge requests.
        let rule = allowed.rule();
        if !self.is_plain()
            && rule.posture == Posture::PassThrough
            && !rule.requests.is_unrestricted()
        {
            return Err(DenyCode::TlsNotAllowed);
        }
        let Some((method, path)) = &self.request else {
            return Ok(());
        };
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let permit = authorize(allowed, &method, path, &HeaderMap::new());
        permit.map(|_| ()).map_err(|denial| denial.code())
    }
}

fn draft(all: &[Seen], config: &Config) -> String {
    let mut draft = Draft::new();
    all.iter().for_each(|seen| draft.record(&seen.record()));
    draft.to_yaml(config)
}

#[track_caller]
fn parse(text: &str) -> Config {
    Config::parse("draft.yaml", text, Path::new("/etc/outgate"))
        .unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

#[test]
fn a_draft_reads_as_a_person_would_write_it() {
    let all = [
        seen(
            Entry::Bumped,
            "api.example.org",
            Some(("GET", "/v1/users/42")),
        ),
        seen(
            Entry::Bumped,
            "api.example.org",
            Some(("GET", "/v1/users/43")),
        ),
        seen(
            Entry::Bumped,
            "api.example.org",
            Some(("POST", "/v1/users")),
        ),
        seen(Entry::Connect, "api.example.org", None),
        seen(Entry::Connect, "pinned.example.org", None),
        seen(Entry::Transparent, "pinned.example.org:8443", None),
        seen(
            Entry::AbsoluteForm,
            "mirror.example.org:80",
            Some(("GET", "/dists/stable/InRelease")),
        ),
        seen(Entry::Dns, "asked.example.org", None),
    ];
    let text = draft(&all, &Config::without_file());
    let expected = "\
# Written by `outgate run --learn` from what a command was seen to do. Read it before you rely on it.
version: 1
destinations:
  # api.example.org: generalised from 3 paths
  - host: api.example.org
    posture: bump
    allow:
      - { methods: [GET], paths: [\"/v1/users/*\"] }
      - { methods: [POST], paths: [/v1/users] }
  - host: mirror.example.org
    ports: [80]
    plaintext: true
    allow:
      - { methods: [GET], paths: [/dists/stable/InRelease] }
  # pinned.example.org: no requests were seen here
  - host: pinned.example.org
    ports: [443, 8443]
";
    assert_eq!(text, expected);
    let config = parse(&text);
    assert_eq!(config.warnings, []);
    let mut turned = all.to_vec();
    turned.reverse();
    assert_eq!(draft(&turned, &Config::without_file()), text);
    let asked = seen(Entry::Connect, "asked.example.org", None);
    assert_eq!(asked.judge(&config), Err(DenyCode::DestinationNotAllowed));
}

#[test]
fn what_was_denied_does_not_come_in() {
    let mut draft = Draft::new();
    let mut record = seen(Entry::Bumped, "x.test", Some(("GET", "/"))).record();
    record.verdict = Verdict::Denied(DenyCode::AddressDenied);
    draft.record(&record);
    let text = draft.to_yaml(&Config::without_file());
    assert!(parse(&text).policy.is_empty(), "{text}");
}

#[test]
fn a_credential_is_written_with_its_source_and_form() {
    let additions = Additions {
        allow: &[],
        credentials: &[
            "x.test:8443=file:x.key".to_owned(),
            "github=env:WORK".to_owned(),
        ],
        posture: None,
        folder: Path::new("/home/me"),
        is_set: &|name| ["WORK", "ANTHROPIC_API_KEY", "GROQ_API_KEY"].contains(&name),
    };
    let config = Config::compose(None, &additions).unwrap().config;
    let all = [
        seen(Entry::Bumped, "x.test:8443", Some(("GET", "/"))),
        seen(Entry::Bumped, "github.com", Some(("GET", "/o/r/info/refs"))),
        seen(
            Entry::Bumped,
            "api.anthropic.com",
            Some(("POST", "/v1/messages")),
        ),
    ];
    let text = draft(&all, &config);
    let parsed = parse(&text);
    let sources: Vec<_> = parsed.credentials.values().cloned().collect();
    assert_eq!(
        sources,
        [
            CredentialSource::Env("ANTHROPIC_API_KEY".to_owned()),
            CredentialSource::Env("WORK".to_owned()),
            CredentialSource::File("/home/me/x.key".into()),
        ],
        "{text}"
    );
    let forms = |config: &Config| {
        let used = config
            .policy
            .rules()
            .filter(|rule| all.iter().any(|it| rule.host.to_string() == it.host));
        let mut forms: Vec<String> = used
            .filter_map(|rule| {
                Some(format!(
                    "{} {:?} {:?}",
                    rule.host,
                    rule.injection.as_ref()?.form,
                    rule.token
                ))
            })
            .collect();
        forms.sort();
        forms
    };
    assert_eq!(forms(&parsed), forms(&config));
    assert!(all.iter().all(|it| it.judge(&parsed).is_ok()));
    assert!(!text.contains("GROQ"), "not used, so not written");
}

#[test]
fn a_credential_of_another_process_is_written_as_it_was() {
    for source in [
        "{ socket: s.sock, name: a/b }",
        "{ address: vault.example.org:1, ca: a, certificate: c, key: k, name: n, max_age: 1500ms }",
        "{ address: \"[::1]:1\", ca: a, certificate: c, key: k, server_name: 10.0.0.1, name: \"007\", max_age: 24h }",
    ] {
        let config = parse(&format!(
            "version: 1\ncredentials: {{ k: {{ from: {{ sds: {source} }} }} }}\n\
            destinations: [{{ host: x.test, inject: {{ credential: k, query: q }} }}]\n"
        ));
        let text = draft(
            &[seen(Entry::Bumped, "x.test", Some(("GET", "/")))],
            &config,
        );
        assert_eq!(parse(&text).credentials, config.credentials, "{text}");
    }
}

#[test]
fn what_the_run_needed_to_reach_its_servers_is_kept() {
    let file = "version: 1
listen: { proxy: [127.0.0.1:8080, '[::1]:8080'] }
sessions: { token_headers: [x-token] }
resolver: { servers: ['127.0.0.1:5353', '[::1]:53'], hosts: { a.test: 10.0.0.7, b.test: [10.0.0.8, 'fd00::1'] }, allow: [10.0.0.0/24], deny: [10.0.0.9] }
upstream: { roots: none, extra_roots: [ca.pem], min_tls: 1.3 }
credentials: { k: { from: { file: k } } }
destinations:
  - { host: a.test, protocol: opaque, ports: 5432, addresses: { allow: [192.168.0.0/16] } }
  - { host: '*.b.example.org', encrypted_client_hello: true }
  - { host: c.test, plaintext: true, inject: { credential: k, header: x-key, template: 'K {credential}', over_plaintext: true } }
  - { host: d.test, inject: { credential: k, query: key } }
";
    let base = Config::parse("x", file, Path::new("/etc/outgate")).unwrap();
    let all = [
        seen(Entry::Connect, "a.test:5432", None),
        seen(Entry::Connect, "x.b.example.org", None),
        seen(Entry::AbsoluteForm, "c.test:80", Some(("GET", "/"))),
        seen(Entry::Bumped, "d.test", Some(("GET", "/"))),
    ];
    let text = draft(&all, &base);
    let parsed = parse(&text);
    assert_eq!(parsed.listen.proxy, base.listen.proxy);
    assert_eq!(
        (&parsed.resolver, &parsed.upstream),
        (&base.resolver, &base.upstream)
    );
    assert_eq!(parsed.policy.token_headers(), base.policy.token_headers());
    let mut rules: Vec<_> = parsed.policy.rules().collect();
    rules.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
    assert_eq!(rules[0].protocol, TunnelProtocol::Opaque);
    assert_eq!(
        rules[0].addresses.allow,
        ["192.168.0.0/16".parse().unwrap()]
    );
    assert!(rules[3].encrypted_client_hello);
    assert!(rules[1].injection.as_ref().unwrap().over_plaintext);
    assert!(all.iter().all(|it| it.judge(&parsed).is_ok()), "{text}");
}

#[test]
fn a_path_that_can_be_read_in_two_ways_leaves_paths_unjudged_there_alone() {
    let all = [
        seen(Entry::Bumped, "a.test", Some(("GET", "/x//y"))),
        seen(Entry::Bumped, "a.test", Some(("OPTIONS", "*"))),
        seen(Entry::Bumped, "b.test", Some(("GET", "/a**b/**/*"))),
    ];
    let parsed = parse(&draft(&all, &Config::without_file()));
    assert!(all.iter().all(|it| it.judge(&parsed).is_ok()));
    let other = |method, host| seen(Entry::Bumped, host, Some((method, "/other"))).judge(&parsed);
    assert_eq!(other("POST", "a.test"), Err(DenyCode::MethodNotAllowed));
    assert_eq!(other("GET", "b.test"), Err(DenyCode::PathNotAllowed));
}

fn any_seen() -> impl Strategy<Value = Seen> {
    let entry = prop::sample::select(vec![
        Entry::Connect,
        Entry::Transparent,
        Entry::Bumped,
        Entry::AbsoluteForm,
        Entry::TunnelledPlain,
        Entry::TransparentPlain,
    ]);
    let host = prop_oneof![
        3 => prop::sample::select(vec!["a.test", "b.test", "c.example.org", "null.test", "1a.test"]).prop_map(str::to_owned),
        1 => "[a-z]{1,3}\\.(test|example\\.org)",
    ];
    let port =
        prop_oneof![3 => Just(443u16), 2 => Just(80u16), 1 => Just(8443u16), 1 => 1u16..=65535];
    let method = prop_oneof![
        6 => prop::sample::select(vec!["GET", "POST", "DELETE", "OPTIONS", "get", "null", "*"]).prop_map(str::to_owned),
        1 => "[A-Za-z!#$%&'*+.^_`|~0-9-]{1,40}",
    ];
    let segment = prop_oneof![
        6 => "[a-z0-9]{0,3}",
        2 => prop::sample::select(vec!["42", "*", "**", "a*b", ".", "..", "%20", "%2f", "%zz", ";p", "null", "'", "\"", "{x}", "#", "3f2b8c1e-5d0a-4b7f-9c3d-1a2b3c4d5e6f"]).prop_map(str::to_owned),
        1 => "[!-~]{1,8}".prop_map(|text| text.replace(['/', '?'], "-")),
        1 => Just("x".repeat(600)),
    ];
    let path = prop_oneof![
        20 => prop::collection::vec(segment, 1..6).prop_map(|segments| format!("/{}", segments.join("/"))),
        1 => Just("*".to_owned()),
    ];
    (entry, host, port, method, path).prop_map(|(entry, host, port, method, path)| {
        let shows = !matches!(entry, Entry::Connect | Entry::Transparent);
        Seen {
            entry,
            host,
            port,
            request: shows.then_some((method, path)),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_seen_is_let_out_again_and_no_other_host(all in prop::collection::vec(any_seen(), 0..40)) {
        let text = draft(&all, &Config::without_file());
        let parsed = Config::parse("draft.yaml", &text, Path::new("")).map_err(|problems| TestCaseError::fail(format!("{text}\n{problems}")))?;
        for seen in &all {
            // A tunnel out of which requests in clear came carried those.
            let opens = |it: &Seen| matches!(it.entry, Entry::TunnelledPlain | Entry::TransparentPlain);
            let same = |it: &&Seen| (&it.host, it.port) == (&seen.host, seen.port);
            if seen.request.is_none() && all.iter().filter(same).any(opens) {
                continue;
            }
            // What stands behind the end of a recorded path cannot be known.
            let unknown = |path: &str| path.len() > 1024 && is_ambiguous(path);
            if seen.request.as_ref().is_some_and(|(_, path)| unknown(path)) {
                continue;
            }
            prop_assert!(seen.judge(&parsed).is_ok(), "{seen:?}\n{text}");
            let other = Seen { host: format!("x{}", seen.host.replace('.', "-")) + ".test", ..seen.clone() };
            prop_assert_eq!(other.judge(&parsed), Err(DenyCode::DestinationNotAllowed));
        }
    }
}
