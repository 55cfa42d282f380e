//! What a valid file becomes, and that the documents, the schema and the parser say the same.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "clippy knows test functions, not their helpers"
)]

use std::{collections::BTreeSet, path::Path, time::Duration};

use outgate_config::{Config, PlaneAddress, Roots, SdsSource, TlsFiles, TlsFloor, schema};
use outgate_journey::{
    address::AddressExceptions,
    policy::{CredentialSource, InjectionForm, Posture, Rate, Rule, TokenDemand, TunnelProtocol},
};
use proptest::prelude::*;
use saphyr::LoadableYamlNode as _;

fn parse(text: &str) -> Config {
    Config::parse("outgate.yaml", text, Path::new("/etc/outgate")).unwrap()
}

const FIRST: &str = include_str!("files/first.yaml");
const EVERY_KEY: &str = include_str!("files/every-key.yaml");
const FOLLOWING: &str = include_str!("files/following.yaml");
const DOCUMENT: &str = include_str!("../../../docs/configuration.md");

fn rule<'c>(config: &'c Config, id: &str) -> &'c Rule {
    let mut rules = config.policy.rules();
    rules.find(|rule| rule.id.as_str() == id).unwrap()
}

#[test]
fn a_first_file_gets_the_documented_defaults() {
    let config = parse(FIRST);
    assert_eq!(config.warnings, []);
    assert_eq!(config.listen.proxy, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(config.listen.max_connections, 10_000);
    assert_eq!((&config.state_dir, &config.audit_dir), (&None, &None));
    assert_eq!(config.sessions.ttl, Duration::from_secs(1800));
    assert_eq!(config.upstream.roots, Roots::System);
    assert_eq!(config.upstream.min_tls, TlsFloor::Tls12);
    assert!(config.upstream.extra_roots.is_empty() && config.resolver.servers.is_empty());
    let t = config.timeouts;
    let seconds =
        [t.head, t.handshake, t.connect, t.response, t.idle, t.drain].map(|d| d.as_secs());
    assert_eq!(seconds, [10, 10, 10, 600, 600, 10]);

    let injected = rule(&config, "destinations[0] api.anthropic.com");
    assert_eq!(injected.posture, Posture::Bump);
    assert_eq!(
        injected.ports.iter().map(|p| p.get()).collect::<Vec<_>>(),
        [443]
    );
    assert_eq!(injected.token, TokenDemand::Required);
    assert!(!injected.plaintext && !injected.injection.as_ref().unwrap().over_plaintext);
    assert_eq!(
        injected.limits.requests,
        Some(Rate {
            events: 120.try_into().unwrap(),
            window_seconds: 60
        })
    );
    let passed = rule(&config, "destinations[1] *.example.org");
    assert_eq!(
        (passed.posture, passed.protocol),
        (Posture::PassThrough, TunnelProtocol::Tls)
    );
    assert!(passed.requests.is_unrestricted());
}

#[test]
fn every_key_arrives_where_it_belongs() {
    let config = parse(EVERY_KEY);
    assert_eq!(config.listen.proxy.len(), 2);
    assert_eq!(config.listen.transparent.len(), 2);
    assert_eq!(config.listen.metrics.len(), 2);
    assert_eq!(config.listen.max_connections, 500);
    // Relative paths are relative to the file's folder, absolute ones stay.
    assert_eq!(
        config.state_dir.as_deref(),
        Some(Path::new("/etc/outgate/state"))
    );
    assert_eq!(
        config.audit_dir.as_deref(),
        Some(Path::new("/var/log/outgate"))
    );
    assert_eq!(
        config.upstream.extra_roots,
        [Path::new("/etc/outgate/internal-ca.pem")]
    );
    assert_eq!(config.upstream.min_tls, TlsFloor::Tls13);
    let sources: Vec<_> = config.credentials.values().cloned().collect();
    assert_eq!(
        sources,
        [
            CredentialSource::Env("ANTHROPIC_API_KEY".to_owned()),
            CredentialSource::File("/run/secrets/forge".into()),
            CredentialSource::File("/etc/outgate/maps.key".into()),
            CredentialSource::Sds(SdsSource {
                address: PlaneAddress::Tcp {
                    host: "10.0.0.5".to_owned(),
                    port: 8443,
                    ca: "/etc/outgate/store.pem".into(),
                    identity: TlsFiles {
                        certificate: "/etc/outgate/store.crt".into(),
                        key: "/etc/outgate/store.key".into(),
                    },
                    server_name: Some("10.0.0.6".to_owned()),
                },
                name: "a/b".to_owned(),
                max_age: Some(Duration::from_secs(90)),
            }),
            CredentialSource::Sds(SdsSource {
                address: PlaneAddress::Socket("/run/vault/sds.sock".into()),
                name: "key".to_owned(),
                max_age: None,
            }),
        ]
    );
    let limits = config.policy.session_limits();
    assert_eq!(limits.bytes_out, Some(1 << 30));
    assert_eq!(
        (limits.concurrent_connections, limits.distinct_destinations),
        (Some(50), Some(20))
    );
    assert_eq!(limits.connections.unwrap().events.get(), 100);
    assert_eq!(config.policy.token_headers()[0].as_str(), "x-token");
    assert_eq!(config.resolver.hosts.len(), 2);
    assert_eq!(config.resolver.servers, ["127.0.0.1:5353".parse().unwrap()]);

    let forms: BTreeSet<String> = config
        .injections()
        .map(|(name, form)| format!("{name} {form:?}"))
        .collect();
    let expected = [
        (
            "anthropic",
            InjectionForm::Header {
                name: http::HeaderName::from_static("x-api-key"),
                prefix: String::new(),
                suffix: String::new(),
            },
        ),
        (
            "forge",
            InjectionForm::Basic {
                username: "x-access-token".to_owned(),
            },
        ),
        (
            "forge",
            InjectionForm::Header {
                name: http::header::AUTHORIZATION,
                prefix: "Bearer ".to_owned(),
                suffix: String::new(),
            },
        ),
        (
            "maps",
            InjectionForm::Query {
                parameter: "key".to_owned(),
            },
        ),
    ];
    let expected: BTreeSet<String> = expected
        .iter()
        .map(|(name, form)| format!("{name} {form:?}"))
        .collect();
    assert_eq!(forms, expected);

    let first = rule(&config, "destinations[0] api.anthropic.com");
    assert_eq!(first.requests.allow.len(), 2);
    assert_eq!(first.requests.allow[0].headers[0].1, ["a", "b"]);
    assert_eq!(first.requests.allow[1].headers[0].1, [""; 0]);
    assert_eq!(first.requests.deny[0].methods, [http::Method::DELETE]);
    let database = rule(&config, "destinations[4] db.internal.example");
    assert_eq!(database.protocol, TunnelProtocol::Opaque);
    assert_eq!(
        database.addresses,
        AddressExceptions {
            allow: vec!["10.0.0.0/24".parse().unwrap()],
            deny: vec!["10.0.0.9/32".parse().unwrap()],
        }
    );
    let plain = rule(&config, "destinations[5] *.mirror.example.net");
    assert_eq!(
        plain.ports.iter().map(|p| p.get()).collect::<Vec<_>>(),
        [443, 80]
    );
    assert_eq!(plain.token, TokenDemand::Optional);
    assert_eq!(
        rule(&config, "destinations[6] old.example.org").posture,
        Posture::DenyAll
    );
}

#[test]
fn a_ca_is_needed_only_where_tls_is_terminated() {
    let head = "version: 1\nlisten: { proxy: 127.0.0.1:0 }\n";
    for (rest, needed) in [
        ("", false),
        ("destinations: [{ host: a.example.org }]", false),
        (
            "destinations: [{ host: a.example.org, plaintext: true }]",
            false,
        ),
        (
            "destinations: [{ host: a.example.org, posture: bump }]",
            true,
        ),
        (
            "credentials: { k: { from: { file: k } } }\ndestinations: [{ host: a.example.org, inject: { credential: k, query: q } }]",
            true,
        ),
    ] {
        assert_eq!(parse(&format!("{head}{rest}")).needs_ca(), needed, "{rest}");
    }
}

#[test]
fn only_keys_that_cannot_be_reloaded_ask_for_a_restart() {
    let config = parse(EVERY_KEY);
    let changed = |from: &str, to: &str| {
        let text = EVERY_KEY.replace(from, to);
        assert_ne!(text, EVERY_KEY, "{from}");
        config.restart_needed(&parse(&text))
    };
    assert!(config.restart_needed(&config).is_empty());
    assert_eq!(
        changed("127.0.0.1:8080", "127.0.0.1:8081"),
        ["listen.proxy"]
    );
    assert_eq!(
        changed("max_connections: 500", "max_connections: 501"),
        ["listen.max_connections"]
    );
    assert_eq!(
        changed("state_dir: state", "state_dir: other"),
        ["state_dir"]
    );
    assert_eq!(
        changed("dir: /var/log/outgate", "dir: /var/log/other"),
        ["audit.dir"]
    );
    assert_eq!(
        changed("127.0.0.1:9443", "127.0.0.1:9445"),
        ["listen.operator"]
    );
    assert_eq!(
        changed("tls/gateways.pem", "tls/other.pem"),
        ["listen.control"]
    );
    assert_eq!(
        changed("127.0.0.1:18000", "127.0.0.1:18001"),
        ["listen.xds"]
    );
    assert_eq!(changed("tls/planes.pem", "tls/other.pem"), ["listen.xds"]);
    assert_eq!(
        changed("run/minter.sock", "run/other.sock"),
        ["listen.minter"]
    );
    assert_eq!(changed("0.0.0.0:8443", "0.0.0.0:8445"), ["inbound"]);
    assert_eq!(
        changed("max_connections: 50\n", "max_connections: 51\n"),
        ["inbound"]
    );
    assert_eq!(
        changed("plaintext: true, to", "tls: { certificate: a, key: b }, to"),
        ["inbound"]
    );
    assert_eq!(changed("ca/tls.crt", "ca/other.crt"), ["ca"]);
    assert_eq!(changed("ca/tls.key", "ca/other.key"), ["ca"]);
    assert_eq!(changed("leaf_ca: ca.crt", "leaf_ca: other.crt"), ["minter"]);
    assert_eq!(changed("ca: minter.pem", "ca: other.pem"), ["minter"]);
    for (from, to) in [
        ("response: 10m", "response: 11m"),
        ("ttl: 30m", "ttl: 31m"),
        ("127.0.0.1:5353", "127.0.0.1:5354"),
        ("min_tls: 1.3", "min_tls: 1.2"),
        ("ANTHROPIC_API_KEY", "OTHER_KEY"),
        ("120/min", "121/min"),
        ("idle: 10m\n", "idle: 9m\n"),
        (
            "to: https://agent.example.org",
            "to: https://other.example.org",
        ),
        ("inbound/tls.crt", "inbound/other.crt"),
        ("audience: [agent, agent-test]", "audience: [agent]"),
        ("file: ci.token", "file: other.token"),
        ("policy: read-only", "policy: one"),
        ("size: 512MiB", "size: 513MiB"),
        ("soar.example.org", "other.example.org"),
        ("clients: [envoy-1,", "clients: [envoy-3,"),
        ("127.0.0.1:10000", "127.0.0.1:10001"),
        ("127.0.0.1:9901", "127.0.0.1:9902"),
        ("Control.example.org", "other.example.org"),
        ("scrub: true", "scrub: false"),
        ("planes: [envoy-1]", "planes: [envoy-2.example.org]"),
        ("max_age: 90s", "max_age: 91s"),
    ] {
        assert_eq!(changed(from, to), [""; 0], "{from}");
    }
}

#[test]
fn a_file_is_loaded_from_its_folder_and_unreadable_ones_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outgate.yaml");
    let code = |path: &Path| Config::load(path).unwrap_err().as_slice()[0].code;
    assert_eq!(code(&path), "unreadable");
    std::fs::write(&path, EVERY_KEY).unwrap();
    assert_eq!(
        Config::load(&path).unwrap().state_dir,
        Some(folder.path().join("state"))
    );
    std::fs::write(&path, b"version: \xff").unwrap();
    assert_eq!(code(&path), "unreadable");
    std::fs::write(&path, " ".repeat(outgate_config::MAX_FILE_BYTES + 1)).unwrap();
    assert_eq!(code(&path), "file_too_large");
    std::fs::write(&path, "\u{feff}version: 1\nlisten: {}").unwrap();
    assert_eq!(code(&path), "missing_key");
}

fn blocks(document: &str) -> Vec<&str> {
    let fenced = document.split("```yaml\n").skip(1);
    fenced
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

/// YAML 1.2 core schema, as an editor reads it.
fn as_json(text: &str) -> serde_json::Value {
    let documents = saphyr::Yaml::load_from_str(text).unwrap();
    node_as_json(&documents[0])
}

fn node_as_json(node: &saphyr::Yaml<'_>) -> serde_json::Value {
    use saphyr::{Scalar, Yaml};
    match node {
        Yaml::Value(Scalar::Null) => serde_json::Value::Null,
        Yaml::Value(Scalar::Boolean(truth)) => (*truth).into(),
        Yaml::Value(Scalar::Integer(number)) => (*number).into(),
        Yaml::Value(Scalar::FloatingPoint(number)) => number.into_inner().into(),
        Yaml::Value(Scalar::String(text)) => text.as_ref().into(),
        Yaml::Sequence(items) => items.iter().map(node_as_json).collect(),
        Yaml::Mapping(entries) => entries
            .iter()
            .map(|(key, value)| (key.as_str().unwrap().to_owned(), node_as_json(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_documented_example_is_valid() {
    let blocks = blocks(DOCUMENT);
    assert!(blocks.len() >= 2);
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for block in blocks {
        parse(block);
        assert!(validator.is_valid(&as_json(block)), "{block}");
    }
}

#[test]
fn the_schema_takes_valid_files_and_refuses_misshapen_ones() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for text in [FIRST, EVERY_KEY, FOLLOWING] {
        let faults: Vec<_> = validator
            .iter_errors(&as_json(text))
            .map(|e| e.to_string())
            .collect();
        assert_eq!(faults, [""; 0]);
    }
    for (from, to) in [
        ("address: 127.0.0.1:18000", "socket: xds.sock"),
        ("    client_ca: tls/planes.pem\n", ""),
        ("run/minter.sock", "run/minter.sock, clients: [a]"),
        (
            "run/minter.sock",
            "run/minter.sock, address: 127.0.0.1:18001",
        ),
        ("admin: { address", "admin: { socket: a, address"),
        ("  ca: minter.pem\n", ""),
        ("  leaf_ca: ca.crt\n", ""),
        ("scrub: true", "scrub: full"),
        ("planes: [envoy-1]", "planes: []"),
        ("sds.sock, name: key", "sds.sock"),
        (
            "sds.sock, name: key",
            "sds.sock, name: key, server_name: a.example.org",
        ),
        ("max_age: 90s", "max_age: 90"),
        ("from: { sds: { socket", "from: { file: a, sds: { socket"),
        (
            "client_secret: { env: IDP_SECRET }",
            "client_secret: { sds: { socket: s, name: n } }",
        ),
        ("version: 1", "version: 2"),
        ("version: 1", ""),
        ("posture: auto", "posture: full"),
        ("max_connections", "max_conections"),
        ("over_plaintext: false", "over_plaintext: 1"),
        ("header: x-api-key", "header: x-api-key, query: q"),
        ("methods: [GET, POST]", "methods: []"),
        ("ttl: 30m", "ttl: 30"),
        ("120/min", "120"),
        ("idle: 10m", "idle: null"),
        ("env: ANTHROPIC_API_KEY", "env: sk-ant-1"),
        ("address: 127.0.0.1:9443, ", ""),
        ("\"session:create\"", "\"session:write\""),
        (
            "secret_file: soar.secret",
            "public_key_file: k, secret_file: soar.secret",
        ),
        ("algorithms: RS256", "algorithms: HS256"),
        (
            "jwks_file: cluster-jwks.json",
            "jwks_file: a\n      jwks: https://a.example.org",
        ),
        (
            "audience: outgate\n      algorithms",
            "audience: outgate\n      policy: one\n      algorithms",
        ),
        (
            "map: { team-a/site: one, team-b/docs: read-only }",
            "map: {}",
        ),
        (
            "https://collector.example.org",
            "http://collector.example.org",
        ),
        ("otlp: \"http://127", "webhook: \"http://127"),
        (
            "window: 30m, bytes_out: 500MiB, requests: 10000, distinct_destinations: 30, arm",
            "arm",
        ),
        (
            "operator:\n  tokens",
            "control: { url: \"https://a.example.org\", ca: a, certificate: b, key: c }\noperator:\n  tokens",
        ),
    ] {
        let text = EVERY_KEY.replacen(from, to, 1);
        assert_ne!(text, EVERY_KEY, "{from}");
        assert!(!validator.is_valid(&as_json(&text)), "{to}");
        assert!(Config::parse("x", &text, Path::new("")).is_err(), "{to}");
    }
}

#[test]
fn the_checked_in_schema_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema/outgate.schema.json");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // Compared as values: the order of keys depends on the features that other crates switch on.
    let checked_in: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    assert!(
        checked_in == Some(schema()),
        "schema/outgate.schema.json is out of date; run: cargo run -- schema > schema/outgate.schema.json"
    );
}

#[test]
fn every_property_of_the_schema_is_described() {
    fn walk(value: &serde_json::Value, path: &str, silent: &mut Vec<String>) {
        let Some(object) = value.as_object() else {
            return;
        };
        if let Some(properties) = object.get("properties").and_then(|p| p.as_object()) {
            for (key, property) in properties {
                if property.get("description").is_none() {
                    silent.push(format!("{path}.{key}"));
                }
            }
        }
        for (key, inner) in object {
            walk(inner, &format!("{path}/{key}"), silent);
        }
    }
    let mut silent = Vec::new();
    walk(&schema(), "", &mut silent);
    assert_eq!(silent, [""; 0]);
}

/// Every quoted word that stands as a problem's code in the sources.
fn codes_in_sources() -> BTreeSet<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut text = String::new();
    for folder in [src.clone(), src.join("check")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                text += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    let starts = [
        "error(",
        "error_at_key(",
        "warn(",
        "report(",
        "whole_file(name,",
        "=> (",
        "invalid_host = ",
        "(",
    ];
    let squeezed = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = BTreeSet::new();
    for start in starts {
        for rest in squeezed.split(start).skip(1) {
            let word = rest
                .trim_start()
                .strip_prefix('"')
                .and_then(|rest| rest.split('"').next());
            let is_code =
                |w: &str| w.contains('_') && w.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            found.extend(word.filter(|w| is_code(w)).map(str::to_owned));
        }
    }
    found
}

#[test]
fn every_code_is_documented() {
    let codes = codes_in_sources();
    assert!(codes.len() > 40, "{codes:?}");
    let keys = keys_in_schema();
    let missing: Vec<_> = codes
        .difference(&keys)
        .filter(|code| !DOCUMENT.contains(&format!("`{code}`")))
        .collect();
    assert_eq!(missing, [""; 0]);
}

fn keys_in_schema() -> BTreeSet<String> {
    fn walk(value: &serde_json::Value, keys: &mut BTreeSet<String>) {
        let Some(object) = value.as_object() else {
            return;
        };
        if let Some(properties) = object.get("properties").and_then(|p| p.as_object()) {
            keys.extend(properties.keys().cloned());
        }
        object.values().for_each(|inner| walk(inner, keys));
    }
    let mut keys = BTreeSet::new();
    walk(&schema(), &mut keys);
    keys
}

#[test]
fn every_key_is_documented() {
    let keys = keys_in_schema();
    assert!(keys.len() > 50);
    let is_there = |key: &String| {
        let ways = [
            format!("`{key}`"),
            format!("`{key}."),
            format!(".{key}`"),
            format!(".{key}."),
        ];
        ways.iter().any(|way| DOCUMENT.contains(way))
    };
    let missing: Vec<_> = keys.iter().filter(|key| !is_there(key)).collect();
    assert_eq!(missing, [""; 0]);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}|[-:{}\\[\\],&*!|>'\"%#@ \nab01~<]{0,120}") {
        let _ = Config::parse("x", &text, Path::new("")).map_err(|problems| problems.to_string());
    }

    #[test]
    fn no_damage_to_a_valid_file_makes_the_parser_panic(
        at in 0..EVERY_KEY.len(), cut in 0usize..40, put in "[-:{}\\[\\],&*!|>'\"%#@ \na1ä~<\u{0}]{0,6}",
    ) {
        let end = (at + cut).min(EVERY_KEY.len());
        prop_assume!(EVERY_KEY.is_char_boundary(at) && EVERY_KEY.is_char_boundary(end));
        let text = format!("{}{put}{}", &EVERY_KEY[..at], &EVERY_KEY[end..]);
        if let Err(problems) = Config::parse("x", &text, Path::new("")) {
            prop_assert!(!problems.as_slice().is_empty());
            let lines = text.lines().count().max(1);
            prop_assert!(problems.iter().all(|p| (1..=lines + 1).contains(&p.line) && p.column >= 1));
            prop_assert!(problems.to_string().contains("help: "));
        }
    }
}
