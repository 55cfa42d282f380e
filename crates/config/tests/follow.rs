//! What a gateway becomes that follows a control plane, and what it does not take from there.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy knows test functions, not their helpers"
)]

use std::{path::Path, time::Duration};

use outgate_config::{Config, MAX_DOCUMENT_BYTES, Problems, TlsFiles};
use outgate_journey::policy::{CredentialName, CredentialSource, Rule};
use proptest::prelude::*;

const EVERY_KEY: &str = include_str!("files/every-key.yaml");
const FOLLOWING: &str = include_str!("files/following.yaml");

fn control(text: &str) -> Config {
    Config::parse("control.yaml", text, Path::new("/etc/control")).unwrap()
}

fn follow(document: &str) -> Result<Config, Problems> {
    Config::parse_following(
        "gateway.yaml",
        FOLLOWING,
        Path::new("/etc/gateway"),
        document,
    )
}

fn told(result: Result<Config, Problems>) -> Vec<String> {
    let problems = result.unwrap_err();
    problems
        .iter()
        .map(|p| format!("{} {}", p.code, p.key))
        .collect()
}

fn rules(config: &Config) -> Vec<Rule> {
    let mut rules: Vec<Rule> = config.policy.rules().map(|rule| (**rule).clone()).collect();
    rules.sort_by(|a, b| a.id.as_str().cmp(b.id.as_str()));
    rules
}

#[test]
fn until_a_policy_has_come_nothing_is_let_out() {
    let config = control(FOLLOWING);
    let plane = config.control.as_ref().unwrap();
    assert_eq!(plane.url.as_str(), "https://control.example.org:9444");
    assert_eq!(plane.max_staleness, Duration::from_secs(30));
    let tls = TlsFiles {
        certificate: "/etc/control/gateway.crt".into(),
        key: "/etc/control/gateway.key".into(),
    };
    assert_eq!(plane.tls, tls);
    assert!(config.policy.is_empty() && !config.needs_ca());
    assert_eq!(config.warnings, []);
    let default = FOLLOWING.replace("  max_staleness: 30s\n", "");
    assert_eq!(
        control(&default).control.unwrap().max_staleness,
        Duration::from_secs(60)
    );
    assert!(
        config
            .secret_files()
            .contains(&"/etc/control/gateway.key".into())
    );
}

#[test]
fn a_follower_lets_out_exactly_what_its_control_plane_does() {
    let control = control(EVERY_KEY);
    let config = follow(control.shared_document()).unwrap();
    assert_eq!(rules(&config), rules(&control));
    assert_eq!(config.policies, control.policies);
    assert_eq!(
        config.policy.session_limits(),
        control.policy.session_limits()
    );
    assert_eq!(config.policy.tripwire(), control.policy.tripwire());
    assert_eq!(
        config.policy.token_headers(),
        control.policy.token_headers()
    );
    assert_eq!(config.policy.named().count(), 2);
    assert_eq!(config.sessions.idle, control.sessions.idle);
    assert_eq!(config.sessions.issuers.len(), 3);
    assert_eq!(config.shared_document(), control.shared_document());
}

#[test]
fn what_is_a_machines_own_stays_its_own() {
    let control = control(EVERY_KEY);
    let config = follow(control.shared_document()).unwrap();
    assert_eq!(
        config.credentials[&CredentialName::new("anthropic")],
        CredentialSource::File("/etc/gateway/anthropic.key".into())
    );
    assert_eq!(config.operator.tokens[0].name, "oncall");
    assert_eq!(
        config.state_dir.as_deref(),
        Some(Path::new("/etc/gateway/state"))
    );
    assert_eq!(config.resolver.hosts.len(), 1);
    let exceptions = &config.resolver.exceptions;
    assert_eq!(exceptions.allow, ["10.0.0.0/24".parse().unwrap()]);
    assert_ne!(config.audit.rotate, control.audit.rotate);
    // Files that the document names are beside the gateway's own file.
    let keys = format!("{:?}", config.sessions.issuers[0].keys);
    assert!(keys.contains("/etc/gateway/cluster-jwks.json"), "{keys}");
    for own in [
        "ANTHROPIC_API_KEY",
        "/run/secrets/forge",
        "maps.key",
        "ci.token",
        "9443",
        "18000",
        "xds",
        "envoy",
        "minter",
        "sds.sock",
        "store",
        "/etc/outgate",
        "5353",
        "state_dir",
    ] {
        assert!(!control.shared_document().contains(own), "{own}");
    }
}

#[test]
fn equal_policies_have_equal_documents_and_different_ones_have_not() {
    let document = |text: &str| control(text).shared_document().to_owned();
    let same = EVERY_KEY
        .replace("ports: 5432", "ports: [5432]")
        .replace("size: 512MiB", "size: 513MiB")
        .replace("posture: auto\n", "posture: \"auto\" # as before\n");
    assert_ne!(same, EVERY_KEY);
    assert_eq!(document(&same), document(EVERY_KEY));
    for (from, to) in [
        ("requests: 60/min", "requests: 61/min"),
        ("ports: 5432", "ports: 5433"),
        ("idle: 10m\n", "idle: 9m\n"),
        ("deny-all", "bump"),
    ] {
        assert_ne!(
            document(&EVERY_KEY.replace(from, to)),
            document(EVERY_KEY),
            "{from}"
        );
    }
    // Texts that look like something else stay texts.
    let odd = "version: 1\ndestinations: [{ host: a.example.org, posture: bump, allow: [{ headers: { x-a: [007, \"true\", ~x, \"\u{2028}\\\"\\\\\"] } }] }]\n".replace("\u{2028}", "\u{e9}");
    let odd = control(&odd);
    let followed = follow(odd.shared_document()).unwrap();
    assert_eq!(rules(&followed), rules(&odd));
}

#[test]
fn a_document_with_a_problem_is_refused_whole() {
    let sound = control(EVERY_KEY).shared_document().to_owned();
    assert!(follow(&sound).is_ok());
    let changed = |from: &str, to: &str| {
        let text = sound.replacen(from, to, 1);
        assert_ne!(text, sound, "{from}");
        told(follow(&text))
    };
    assert_eq!(
        changed("\"version\":1", "\"version\":2"),
        ["unsupported_version version"]
    );
    assert_eq!(
        changed("\"version\":1", "\"version\":1,\"listen\":{}"),
        ["unknown_key listen"]
    );
    assert_eq!(
        changed("\"version\":1", "\"version\":1,\"credentials\":{}"),
        ["unknown_key credentials"]
    );
    assert_eq!(
        changed("\"credential\":\"anthropic\"", "\"credential\":\"other\""),
        ["unknown_credential destinations[0].inject.credential"]
    );
    assert_eq!(
        changed("\"host\":\"api.anthropic.com\"", "\"host\":\"*.com\""),
        [
            "wildcard_over_public_suffix destinations[0].host",
            "unknown_destination policies.read-only.destinations[0]"
        ]
    );
    for text in ["", "{}", "[]", "nonsense", "{\"version\":1", "\u{0}"] {
        assert!(follow(text).is_err(), "{text}");
    }
    let long = " ".repeat(MAX_DOCUMENT_BYTES + 1);
    assert_eq!(told(follow(&long)), ["file_too_large "]);
    let problems = follow("{\"version\":1,\"posture\":\"x\"}").unwrap_err();
    assert_eq!(
        problems.name(),
        "policy of https://control.example.org:9444"
    );
}

#[test]
fn a_document_brings_no_issuer_that_this_gateways_operators_come_from() {
    let own = FOLLOWING.replace(
        "operator: { tokens",
        "operator: { oidc: [{ issuer: \"https://ci.example.org/tenant\", audience: outgate, scopes: { claim: g, map: { x: revoke } } }], tokens",
    );
    let document = control(EVERY_KEY).shared_document().to_owned();
    let result = Config::parse_following("gateway.yaml", &own, Path::new("/"), &document);
    assert_eq!(
        told(result),
        ["guests_could_operate sessions.issuers[2].audience"]
    );
}

#[test]
fn a_file_says_nothing_beside_the_control_plane_that_it_names() {
    let told = |from: &str, to: &str| {
        let text = FOLLOWING.replacen(from, to, 1);
        assert_ne!(text, FOLLOWING, "{from}");
        told(Config::parse("gateway.yaml", &text, Path::new("/")))
    };
    for (key, value) in [
        ("posture", "auto"),
        ("destinations", "[]"),
        ("policies", "{}"),
        ("sessions", "{ ttl: 1m }"),
    ] {
        let told = told("control:\n", &format!("{key}: {value}\ncontrol:\n"));
        assert_eq!(told, [format!("comes_from_control_plane {key}")]);
    }
    let listen = "version: 1\nlisten:\n  control: { address: 127.0.0.1:1, certificate: c, key: k, client_ca: a }\n";
    assert_eq!(
        told("version: 1\nlisten:\n", listen),
        ["follows_and_controls listen.control"]
    );
    for (from, to, expected) in [
        (
            "https://control.example.org:9444",
            "http://127.0.0.1:9444",
            "not_https control.url",
        ),
        (
            "https://control.example.org:9444",
            "https://control.example.org/x",
            "invalid_url control.url",
        ),
        (
            "max_staleness: 30s",
            "max_staleness: 11m",
            "out_of_range control.max_staleness",
        ),
        (
            "max_staleness: 30s",
            "max_staleness: 999ms",
            "out_of_range control.max_staleness",
        ),
        ("  key: gateway.key\n", "", "missing_key control"),
        ("  ca: control-ca.pem\n", "", "missing_key control"),
    ] {
        assert_eq!(told(from, to), [expected], "{to}");
    }
}

#[test]
fn a_document_needs_a_file_that_names_its_control_plane() {
    let own = "version: 1\nlisten: { proxy: 127.0.0.1:1 }\n";
    let document = control(EVERY_KEY).shared_document().to_owned();
    let result = Config::parse_following("gateway.yaml", own, Path::new("/"), &document);
    assert_eq!(told(result), ["no_control_plane "]);
    let broken = Config::parse_following("gateway.yaml", "version: 2", Path::new("/"), &document);
    assert_eq!(broken.unwrap_err().name(), "gateway.yaml");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.yaml");
    assert_eq!(
        told(Config::load_following(&path, &document)),
        ["unreadable "]
    );
    std::fs::write(&path, FOLLOWING).unwrap();
    assert!(Config::load_following(&path, &document).is_ok());
}

#[test]
fn following_another_control_plane_needs_a_restart_and_its_policy_does_not() {
    let document = control(EVERY_KEY).shared_document().to_owned();
    let before = follow("{\"version\":1}").unwrap();
    let after = follow(&document).unwrap();
    assert_eq!(before.restart_needed(&after), [""; 0]);
    let other = FOLLOWING.replace("30s", "31s");
    let other = Config::parse("gateway.yaml", &other, Path::new("/etc/gateway")).unwrap();
    assert_eq!(before.restart_needed(&other), ["control"]);
}

#[test]
fn operators_of_a_follower_are_told_that_they_create_no_sessions_there() {
    let own = FOLLOWING.replace("scopes: revoke", "scopes: [revoke, \"session:create\"]");
    let warnings = control(&own).warnings;
    let told: Vec<_> = warnings.iter().map(|p| (p.code, &*p.key)).collect();
    assert_eq!(told, [("no_effect", "operator.tokens[0].scopes[1]")]);
    assert_eq!(control(EVERY_KEY).warnings, []);
}

#[test]
fn a_document_is_hardly_larger_than_its_file() {
    let destinations = (0..2000).map(|n| format!("- host: h{n}.test.example\n"));
    let text = format!(
        "version: 1\ndestinations:\n{}",
        destinations.collect::<String>()
    );
    let document = control(&text).shared_document().to_owned();
    assert!(document.len() < 2 * text.len(), "{}", document.len());
    assert_eq!(follow(&document).unwrap().policy.len(), 2000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_damage_to_a_document_makes_a_follower_panic(
        at in 0usize..4000, cut in 0usize..40, put in "[-:{}\\[\\],\"# \na1ä\u{0}]{0,6}",
    ) {
        let document = control(EVERY_KEY).shared_document().to_owned();
        let end = (at + cut).min(document.len());
        prop_assume!(at <= end && document.is_char_boundary(at) && document.is_char_boundary(end));
        let text = format!("{}{put}{}", &document[..at], &document[end..]);
        if let Err(problems) = follow(&text) {
            prop_assert!(problems.to_string().contains("help: "));
        }
    }
}
