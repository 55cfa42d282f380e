//! Listeners in front of a service: what arrives, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy knows test functions, not their helpers"
)]

use std::path::Path;

use http::Method;
use outgate_config::{Algorithm, Config, Inbound, IssuerKeys, Problems};

const EVERY_KEY: &str = include_str!("files/every-key.yaml");
const ISSUER: &str = "issuers: [{ issuer: https://i.test, audience: agent }]";

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse("outgate.yaml", text, Path::new("/etc/outgate"))
}

fn file(keys: &str) -> String {
    format!(
        "version: 1\nlisten: {{ proxy: \"127.0.0.1:8080\" }}\ninbound:\n  - {{ {keys} }}\n\
         destinations: [{{ host: a.example.org }}]\n"
    )
}

/// `code line:column key` of every problem.
fn told(text: &str) -> Vec<String> {
    let problems = parse(text).err();
    let problems = problems.iter().flat_map(Problems::iter);
    problems
        .map(|p| format!("{} {}:{} {}", p.code, p.line, p.column, p.key))
        .collect()
}

fn codes(keys: &str) -> Vec<String> {
    let place = |line: &String| {
        let mut words = line.split(' ');
        format!("{} {}", words.next().unwrap(), words.nth(1).unwrap())
    };
    told(&file(keys)).iter().map(place).collect()
}

fn warned(keys: &str) -> Vec<String> {
    let config = parse(&file(keys)).unwrap();
    let warnings = config.warnings.iter();
    warnings.map(|w| format!("{} {}", w.code, w.key)).collect()
}

fn in_clear(keys: &str) -> String {
    format!("listen: \"127.0.0.1:0\", plaintext: true, to: \"http://127.0.0.1:9000\", {keys}")
}

#[test]
fn every_key_arrives_where_it_belongs() {
    let config = parse(EVERY_KEY).unwrap();
    let [first, second] = &config.inbound[..] else {
        unreachable!("two listeners");
    };
    assert_eq!(first.listen, "0.0.0.0:8443".parse().unwrap());
    let tls = first.tls.as_ref().unwrap();
    assert_eq!(tls.key, Path::new("/etc/outgate/inbound/tls.key"));
    assert!(config.secret_files().contains(&tls.key));
    assert_eq!(first.to.to_string(), "https://agent.example.org:443");
    assert_eq!(first.hosts.len(), 2);
    let issuer = &first.issuers[0];
    assert_eq!(issuer.audiences, ["agent", "agent-test"]);
    assert!(matches!(issuer.keys, IssuerKeys::Url(_)));
    assert_eq!(issuer.algorithms, [Algorithm::Es256]);
    assert_eq!(issuer.subject_claim, "preferred.name");
    assert_eq!(
        issuer.ca.as_deref(),
        Some(Path::new("/etc/outgate/callers.pem"))
    );
    let keys = IssuerKeys::File("/etc/outgate/callers.json".into());
    assert_eq!(first.issuers[1].keys, keys);
    assert_eq!(first.exempt[0].methods, [Method::GET, Method::HEAD]);
    assert_eq!(first.exempt[1].methods, [Method::OPTIONS]);
    assert!(first.forward_token && first.max_connections == 50);
    let is_plain = |it: &Inbound| it.tls.is_none() && it.to.is_http2 && !it.to.is_tls;
    assert!(is_plain(second));
    assert_eq!(second.to.authority, "[::1]:9000");
    assert_eq!(
        (second.max_connections, second.forward_token),
        (1000, false)
    );
    assert_eq!(second.issuers[0].algorithms, Algorithm::DEFAULT);
}

#[test]
fn a_wrong_value_is_told_with_its_place() {
    let text = "version: 1\nlisten: { proxy: \"127.0.0.1:8080\" }\ninbound:\n  - listen: nowhere\n    plaintext: true\n    \
        to: ftp://x\n    issuers:\n      - { issuer: a, audience: agent }\n";
    assert_eq!(
        told(text),
        [
            "invalid_socket 4:13 inbound[0].listen",
            "invalid_target 6:9 inbound[0].to",
            "not_discoverable 8:19 inbound[0].issuers[0].issuer",
        ]
    );
}

#[test]
fn what_would_let_in_more_than_is_meant_is_refused() {
    let base = in_clear(ISSUER);
    let to = |url: &str| in_clear(ISSUER).replace("http://127.0.0.1:9000", url);
    for (keys, expected) in [
        (base.clone(), &[][..]),
        (
            base.replace("plaintext: true, ", ""),
            &["tls_or_plaintext inbound[0]"],
        ),
        (
            base.replace(
                "plaintext: true",
                "plaintext: true, tls: { certificate: a, key: b }",
            ),
            &["tls_or_plaintext inbound[0]"],
        ),
        (
            base.replace("127.0.0.1:0", "127.0.0.1:8080"),
            &["same_address inbound[0].listen"],
        ),
        (
            base.replace("127.0.0.1:0", "0.0.0.0:8080"),
            &["same_address inbound[0].listen"],
        ),
        (in_clear("issuers: []"), &["empty_list inbound[0].issuers"]),
        (in_clear("http2: false"), &["missing_key inbound[0]"]),
        (format!("{base}, oops: 1"), &["unknown_key inbound[0].oops"]),
        (
            format!("{base}, exempt: [{{ methods: GET }}]"),
            &["missing_key inbound[0].exempt[0]"],
        ),
        (
            format!("{base}, exempt: [{{ paths: [] }}]"),
            &["empty_list inbound[0].exempt[0].paths"],
        ),
        (
            format!("{base}, exempt: [{{ paths: healthz }}]"),
            &["invalid_path_pattern inbound[0].exempt[0].paths"],
        ),
        (
            format!("{base}, exempt: [{{ paths: /a/../b }}]"),
            &["invalid_path_pattern inbound[0].exempt[0].paths"],
        ),
        (
            format!("{base}, exempt: [{{ paths: /a, methods: get }}]"),
            &["invalid_method inbound[0].exempt[0].methods"],
        ),
        (
            format!("{base}, hosts: \"agent.test:8443\""),
            &["invalid_host inbound[0].hosts"],
        ),
        (
            format!("{base}, hosts: 10.0.0.1"),
            &["invalid_host inbound[0].hosts"],
        ),
        (
            format!("{base}, max_connections: 0"),
            &["out_of_range inbound[0].max_connections"],
        ),
        (
            base.replace(
                "audience: agent",
                "audience: agent, jwks: \"https://i.test/k\", jwks_file: k",
            ),
            &["one_key_source inbound[0].issuers[0]"],
        ),
        (
            base.replace(
                "audience: agent",
                "audience: agent, jwks: \"http://i.test/k\"",
            ),
            &["not_https inbound[0].issuers[0].jwks"],
        ),
        (
            base.replace(
                "audience: agent }",
                "audience: agent }, { issuer: https://i.test, audience: other }",
            ),
            &["duplicate_issuer inbound[0].issuers[1].issuer"],
        ),
        (
            base.replace("audience: agent", "audience: agent, algorithms: HS256"),
            &["unknown_word inbound[0].issuers[0].algorithms"],
        ),
        (to("http://"), &["invalid_target inbound[0].to"]),
        (to("127.0.0.1:9000"), &["invalid_target inbound[0].to"]),
        (to("http://a/path"), &["invalid_target inbound[0].to"]),
        (to("http://a/?q"), &["invalid_target inbound[0].to"]),
        (to("http://a/#f"), &["invalid_target inbound[0].to"]),
        (to("http://u:p@a"), &["invalid_target inbound[0].to"]),
        (to("http://a:0"), &["invalid_target inbound[0].to"]),
        (to("http://a:99999"), &["invalid_target inbound[0].to"]),
        (to("http://a..b"), &["invalid_target inbound[0].to"]),
        (to("unix:///run/a.sock"), &["invalid_target inbound[0].to"]),
        (to("https://10.0.0.7/"), &[]),
    ] {
        assert_eq!(codes(&keys), expected, "{keys}");
    }
}

#[test]
fn a_token_is_good_for_one_kind_of_door() {
    let text = file(&in_clear(ISSUER));
    let guests = "sessions: { issuers: [{ issuer: https://i.test, audience: [a, agent] }] }\n";
    let operators = "operator: { oidc: [{ issuer: https://i.test, audience: agent, scopes: { claim: c, map: { a: revoke } } }] }\n";
    for more in [guests, operators] {
        let found = told(&format!("{text}{more}"));
        let is_it = |line: &String| {
            line.starts_with("token_for_two_doors 4:")
                && line.ends_with("inbound[0].issuers[0].audience")
        };
        assert!(found.iter().any(is_it), "{found:?}");
    }
    let other = guests.replace("[a, agent]", "a");
    assert_eq!(told(&format!("{text}{other}")), [""; 0]);
}

#[test]
fn what_is_probably_not_meant_is_said() {
    let base = in_clear(ISSUER);
    assert_eq!(warned(&base), [""; 0]);
    assert_eq!(warned(&format!("{base}, forward_token: true")), [""; 0]);
    let beyond = base.replace("http://127.0.0.1:9000", "http://agent.test");
    assert_eq!(warned(&beyond), [""; 0]);
    assert_eq!(
        warned(&format!("{beyond}, forward_token: true")),
        ["token_in_clear inbound[0].forward_token"]
    );
    assert_eq!(
        warned(&format!("{base}, exempt: [{{ paths: /** }}]")),
        ["everything_exempt inbound[0].exempt[0].paths"]
    );
    let preflight = format!("{base}, exempt: [{{ paths: /**, methods: OPTIONS }}]");
    assert_eq!(warned(&preflight), [""; 0]);
}
