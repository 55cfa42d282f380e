//! Who operates a gateway, whose tokens it takes, what sessions are confined to, and where records go: what a valid
//! file becomes, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "clippy knows test functions, not their helpers"
)]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use outgate_config::{
    Algorithm, Config, ExportTarget, IssuerKeys, IssuerPolicy, Problems, Quotas, Scope,
    SessionView, TlsFiles, WebhookKey,
};
use outgate_journey::{
    policy::{CredentialSource, NamedPolicy, SessionLimits},
    session::PolicyName,
    tripwire::Tripwire,
};

const EVERY_KEY: &str = include_str!("files/every-key.yaml");

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse("outgate.yaml", text, Path::new("/etc/outgate"))
}

fn at(name: &str) -> PathBuf {
    Path::new("/etc/outgate").join(name)
}

const LISTEN: &str = "version: 1\nlisten: { proxy: 127.0.0.1:8080, operator: { address: 127.0.0.1:9443, certificate: c, key: k } }\n";

/// `code line:column key` of every problem, or of every warning, of a file with a listener for operators and one
/// destination; `rest` begins in line 4.
fn told(rest: &str) -> Vec<String> {
    let text = format!("{LISTEN}destinations: [{{ host: a.example.org }}]\n{rest}");
    let line =
        |p: &outgate_config::Problem| format!("{} {}:{} {}", p.code, p.line, p.column, p.key);
    match parse(&text) {
        Ok(config) => config.warnings.iter().map(line).collect(),
        Err(problems) => problems.iter().map(line).collect(),
    }
}

#[track_caller]
fn check(table: &[(&str, &[&str])]) {
    for (rest, expected) in table {
        assert_eq!(told(rest), *expected, "{rest}");
    }
}

const OPERATOR: &str = "operator: { tokens: [{ name: a, file: a, scopes: revoke }] }\n";

#[test]
fn every_operator_arrives_with_what_it_may_do() {
    let config = parse(EVERY_KEY).unwrap();
    let listen = config.listen.operator.as_ref().unwrap();
    assert_eq!(listen.address, "127.0.0.1:9443".parse().unwrap());
    let tls = |name: &str| TlsFiles {
        certificate: at(&format!("tls/{name}.crt")),
        key: at(&format!("tls/{name}.key")),
    };
    assert_eq!(listen.tls, tls("operator"));
    let control = config.listen.control.as_ref().unwrap();
    assert_eq!(
        (&control.tls, &control.client_ca),
        (&tls("control"), &at("tls/gateways.pem"))
    );
    assert_eq!(control.gateways, ["gw-1.example.org", "gw-2.example.org"]);

    let [ci, oncall] = config.operator.tokens.as_slice() else {
        panic!()
    };
    assert_eq!(
        (&*ci.name, &ci.file, ci.tenant.as_deref()),
        ("ci", &at("ci.token"), Some("team-a"))
    );
    assert_eq!(ci.scopes, [Scope::SessionCreate, Scope::SessionRead]);
    assert_eq!(
        oncall.scopes,
        [Scope::Revoke, Scope::Policy, Scope::AuditRead]
    );
    let [login, idp] = config.operator.oidc.as_slice() else {
        panic!()
    };
    assert_eq!(
        login.jwks.as_ref().unwrap().as_str(),
        "https://login.example.org/keys"
    );
    assert_eq!(
        (&*login.name_claim, login.tenant_claim.as_deref()),
        ("email", Some("org.id"))
    );
    assert_eq!(
        login.scopes.map["secops"],
        [Scope::Revoke, Scope::AuditRead]
    );
    assert_eq!(
        (&*idp.name_claim, &idp.jwks, &idp.ca),
        ("sub", &None, &None)
    );
    let keys: Vec<_> = config
        .operator
        .webhooks
        .iter()
        .map(|it| it.key.clone())
        .collect();
    assert_eq!(
        keys,
        [
            WebhookKey::Hmac(at("soar.secret")),
            WebhookKey::Ed25519(at("edr.pub"))
        ]
    );
    let quotas = config.operator.quotas;
    assert_eq!(
        (quotas.sessions, quotas.sessions_per_tenant),
        (5000, Some(1000))
    );
    assert_eq!(quotas.creations.unwrap().events.get(), 600);
    assert_eq!(Quotas::default().sessions, 10_000);
    assert!(Scope::ALL.iter().all(|it| EVERY_KEY.contains(it.as_str())));
}

#[test]
fn every_issuer_tripwire_and_policy_arrives() {
    let policy = |name: &str| PolicyName::parse(name).unwrap();
    let config = parse(EVERY_KEY).unwrap();
    let s = &config.sessions;
    assert_eq!(
        (s.idle.as_secs(), s.lifetime),
        (600, Some(Duration::from_secs(8 * 3600)))
    );
    let view = SessionView {
        requests: 20,
        bodies: 4096,
        memory: 8 << 20,
    };
    assert_eq!(s.view, view);
    let tripwire = Tripwire {
        window: Duration::from_secs(1800),
        bytes_out: Some(500 << 20),
        requests: Some(10_000),
        distinct_destinations: Some(30),
        arm: true,
    };
    assert_eq!(
        (s.tripwire, config.policy.tripwire()),
        (Some(tripwire), Some(&tripwire))
    );

    let [cluster, idp, ci] = s.issuers.as_slice() else {
        panic!()
    };
    assert_eq!(cluster.keys, IssuerKeys::File(at("cluster-jwks.json")));
    assert_eq!(cluster.session_claim, "kubernetes.io.pod.uid");
    assert_eq!(
        (cluster.max_age.as_secs(), cluster.policy.clone()),
        (7200, IssuerPolicy::One(policy("read-only")))
    );
    assert_eq!(idp.audiences, ["outgate", "outgate-test"]);
    assert_eq!(idp.algorithms, [Algorithm::Es256, Algorithm::EdDsa]);
    let asked = idp.introspection.as_ref().unwrap();
    assert_eq!(
        asked.client_secret,
        CredentialSource::Env("IDP_SECRET".to_owned())
    );
    assert_eq!(
        (asked.cache.as_secs(), &asked.ca),
        (10, &Some(at("introspection.pem")))
    );
    assert_eq!(
        (&ci.keys, &*ci.session_claim),
        (&IssuerKeys::Discovery, "sub")
    );
    assert_eq!(
        (ci.max_age.as_secs(), &ci.algorithms[..]),
        (86_400, &[Algorithm::Rs256][..])
    );
    assert_eq!(idp.policy, IssuerPolicy::Unconfined);
    let map = [("team-a/site", "one"), ("team-b/docs", "read-only")];
    assert_eq!(
        ci.policy,
        IssuerPolicy::ByClaim {
            claims: vec!["group.name".to_owned(), "project".to_owned()],
            map: map.map(|(key, name)| (key.to_owned(), policy(name))).into(),
        }
    );

    let read_only = &config.policies[&PolicyName::parse("read-only").unwrap()];
    let hosts: Vec<String> = read_only.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["api.anthropic.com", "*.mirror.example.net"]);
    assert_eq!(read_only.limits.bytes_out, Some(10 << 20));
    let named: Vec<&str> = config.policies.keys().map(PolicyName::as_str).collect();
    assert_eq!(named, ["one", "read-only"]);
    assert_eq!(config.policy.named().count(), 2);
    let one = NamedPolicy {
        hosts: vec![outgate_journey::name::HostPattern::parse("api.forge.example.com").unwrap()],
        limits: SessionLimits::default(),
    };
    assert_eq!(config.policies[&PolicyName::parse("one").unwrap()], one);
}

#[test]
fn the_trail_is_rotated_and_sent_where_the_file_says() {
    let config = parse(EVERY_KEY).unwrap();
    assert_eq!(
        (config.audit.rotate.size, config.audit.rotate.age.as_secs()),
        (512 << 20, 12 * 3600)
    );
    let [siem, local, soar] = config.audit.export.as_slice() else {
        panic!()
    };
    let ExportTarget::Otlp { url, headers } = &siem.target else {
        panic!()
    };
    assert_eq!(url.as_str(), "https://collector.example.org/v1/logs");
    assert_eq!(headers[0].1, CredentialSource::File(at("otlp.token")));
    assert_eq!(
        headers[1].1,
        CredentialSource::Env("OTLP_TENANT".to_owned())
    );
    let ExportTarget::Otlp { url, headers } = &local.target else {
        panic!()
    };
    assert!(url.is_plaintext() && headers.is_empty());
    let ExportTarget::Webhook { secret_file, .. } = &soar.target else {
        panic!()
    };
    assert_eq!(
        (secret_file, &siem.ca, &soar.ca),
        (&at("soar-out.secret"), &Some(at("collector.pem")), &None)
    );
}

#[test]
fn without_these_keys_the_documented_defaults_hold() {
    let config = parse("version: 1\nlisten: { proxy: 127.0.0.1:1 }\n").unwrap();
    assert_eq!(
        (&config.listen.operator, &config.listen.control),
        (&None, &None)
    );
    let s = &config.sessions;
    assert_eq!(
        (s.idle.as_secs(), s.lifetime, s.tripwire, s.issuers.len()),
        (900, None, None, 0)
    );
    assert_eq!(
        (config.audit.rotate.size, config.audit.rotate.age.as_secs()),
        (1 << 30, 86_400)
    );
    assert!(config.operator == Default::default() && config.control.is_none());
    let issuer = "sessions: { issuers: [{ issuer: \"https://i.example.org\", audience: a, ca: x.pem, introspection: { url: \"https://i.example.org/i\", client_id: c, client_secret: { file: s } } }] }";
    let config = parse(&format!(
        "version: 1\nlisten: {{ proxy: 127.0.0.1:1 }}\n{issuer}"
    ))
    .unwrap();
    let issuer = &config.sessions.issuers[0];
    assert_eq!(
        (&issuer.keys, &issuer.algorithms[..]),
        (&IssuerKeys::Discovery, &Algorithm::DEFAULT[..])
    );
    let asked = issuer.introspection.as_ref().unwrap();
    assert_eq!((asked.cache.as_secs(), &asked.ca), (30, &Some(at("x.pem"))));
}

#[test]
fn who_may_read_counts_reaches_no_other_listener() {
    let told = |proxy: &str, metrics: &str, operator: &str| {
        let text = format!(
            "version: 1\nlisten:\n  proxy: {proxy}\n  metrics: {metrics}\n  operator: {{ address: \"{operator}\", certificate: c, key: k }}\ndestinations: [{{ host: a.example.org }}]\n{OPERATOR}"
        );
        let problems = parse(&text).err();
        let problems = problems.iter().flat_map(|problems| problems.iter());
        let mut lines = problems.map(|p| format!("{} {}", p.code, p.key));
        lines.next().unwrap_or_default()
    };
    for (proxy, metrics, operator, expected) in [
        ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", ""),
        (
            "127.0.0.1:1",
            "[\"0.0.0.0:2\", \"[::]:2\"]",
            "127.0.0.1:3",
            "",
        ),
        (
            "127.0.0.1:1",
            "0.0.0.0:1",
            "127.0.0.1:3",
            "same_address listen.metrics",
        ),
        (
            "127.0.0.1:1",
            "[\"127.0.0.1:2\", \"127.0.0.1:1\"]",
            "127.0.0.1:3",
            "same_address listen.metrics[1]",
        ),
        (
            "127.0.0.1:1",
            "127.0.0.1:2",
            "127.0.0.1:2",
            "same_address listen.operator.address",
        ),
        (
            "127.0.0.1:1",
            "localhost:2",
            "127.0.0.1:3",
            "invalid_socket listen.metrics",
        ),
        (
            "127.0.0.1:1",
            "[]",
            "127.0.0.1:3",
            "empty_list listen.metrics",
        ),
    ] {
        assert_eq!(
            told(proxy, metrics, operator),
            expected,
            "{proxy} {metrics} {operator}"
        );
    }
}

#[test]
fn listeners_have_addresses_of_their_own() {
    let listen = |proxy: &str, operator: &str, control: &str| {
        let text = format!(
            "version: 1\nlisten:\n  proxy: {proxy}\n  operator: {{ address: \"{operator}\", certificate: c, key: k }}\n  control: {{ address: \"{control}\", certificate: c, key: k, client_ca: a }}\ndestinations: [{{ host: a.example.org }}]\n{OPERATOR}"
        );
        match parse(&text) {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .iter()
                .map(|p| format!("{} {}", p.code, p.key))
                .collect::<Vec<_>>(),
        }
    };
    let (operator, control) = (
        "same_address listen.operator.address",
        "same_address listen.control.address",
    );
    for (proxy, first, second, expected) in [
        ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", &[][..]),
        ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", &[]),
        ("127.0.0.1:1", "127.0.0.2:1", "[::1]:1", &[]),
        ("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:2", &[operator]),
        ("0.0.0.0:1", "127.0.0.1:1", "127.0.0.1:2", &[operator]),
        ("127.0.0.1:1", "0.0.0.0:1", "127.0.0.1:2", &[operator]),
        ("127.0.0.1:1", "[::]:1", "127.0.0.1:2", &[operator]),
        ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:2", &[control]),
        (
            "[127.0.0.1:1, 127.0.0.1:2]",
            "127.0.0.1:3",
            "127.0.0.1:2",
            &[control],
        ),
        (
            "127.0.0.1:1",
            "localhost:2",
            "127.0.0.1:2",
            &["invalid_socket listen.operator.address"],
        ),
    ] {
        assert_eq!(
            listen(proxy, first, second),
            expected,
            "{proxy} {first} {second}"
        );
    }
}

#[test]
fn who_is_named_needs_a_door_and_a_door_somebody_who_is_named() {
    let without = |rest: &str| {
        let text = format!("version: 1\nlisten: {{ proxy: 127.0.0.1:1 }}\n{rest}");
        parse(&text).err().map(|problems| {
            problems
                .iter()
                .map(|p| format!("{} {}", p.code, p.key))
                .collect::<Vec<_>>()
        })
    };
    for (rest, key) in [
        ("tokens: [{ name: a, file: a, scopes: revoke }]", "tokens"),
        (
            "oidc: [{ issuer: \"https://i.example.org\", audience: a, scopes: { claim: g, map: { x: revoke } } }]",
            "oidc",
        ),
        ("webhooks: [{ name: a, secret_file: a }]", "webhooks"),
    ] {
        let told = without(&format!("operator: {{ {rest} }}"));
        assert_eq!(
            told.unwrap(),
            [format!("operator_without_listener operator.{key}")]
        );
        assert_eq!(
            self::told(&format!("operator: {{ {rest} }}")),
            [""; 0],
            "{rest}"
        );
    }
    assert_eq!(without("operator: { quotas: { sessions: 5 } }"), None);
    check(&[
        ("", &["nobody_may_operate 2:44 listen.operator"]),
        (
            "operator: { quotas: { sessions: 5 } }",
            &["nobody_may_operate 2:44 listen.operator"],
        ),
    ]);
    // A listener that was itself reported is there all the same.
    let text = LISTEN.replace("certificate: c", "certificat: c") + OPERATOR;
    let codes: Vec<_> = parse(&text).unwrap_err().iter().map(|p| p.code).collect();
    assert_eq!(codes, ["unknown_key"]);
}

#[test]
fn operators_are_told_apart_and_have_no_right_that_they_cannot_use() {
    let with = |rest: &str| told(&format!("operator: {{ {rest} }}"));
    for (rest, expected) in [
        (
            "tokens: [{ name: a b, file: a, scopes: revoke }]",
            &["invalid_name 4:30 operator.tokens[0].name"][..],
        ),
        (
            "tokens: [{ name: a, file: a, scopes: revoke }, { name: a, file: b, scopes: revoke }]",
            &["duplicate_name 4:68 operator.tokens[1].name"],
        ),
        (
            "tokens: [{ name: a, file: s, scopes: revoke }, { name: b, file: s, scopes: revoke }]",
            &["shared_secret 4:77 operator.tokens[1].file"],
        ),
        (
            "webhooks: [{ name: a, secret_file: s }, { name: b, secret_file: s }]",
            &["shared_secret 4:53 operator.webhooks[1]"],
        ),
        (
            "tokens: [{ name: a, file: a, scopes: [] }]",
            &["empty_list 4:50 operator.tokens[0].scopes"],
        ),
        (
            "tokens: [{ name: a, file: a, scopes: [revoke, revoke] }]",
            &["duplicate_value 4:59 operator.tokens[0].scopes[1]"],
        ),
        (
            "tokens: [{ name: a, file: a, scopes: admin }]",
            &["unknown_word 4:50 operator.tokens[0].scopes"],
        ),
        (
            "tokens: [{ name: a, file: a }]",
            &["missing_key 4:22 operator.tokens[0]"],
        ),
        (
            "tokens: [{ name: a, file: a, scopes: [revoke, policy], tenant: t }]",
            &["scope_beyond_tenant 4:50 operator.tokens[0].scopes"],
        ),
        (
            "tokens: [{ name: a, file: a, scopes: \"audit:read\", tenant: t }]",
            &["scope_beyond_tenant 4:50 operator.tokens[0].scopes"],
        ),
        (
            "tokens: [{ name: a, file: a, scopes: revoke, tenant: t t }]",
            &["invalid_tenant 4:66 operator.tokens[0].tenant"],
        ),
        (
            "webhooks: [{ name: a }]",
            &["one_signature 4:24 operator.webhooks[0]"],
        ),
        (
            "webhooks: [{ name: a, secret_file: a, public_key_file: b }]",
            &["one_signature 4:24 operator.webhooks[0]"],
        ),
        (
            "webhooks: [{ name: a, secret_file: a }, { name: a, public_key_file: b }]",
            &["duplicate_name 4:61 operator.webhooks[1].name"],
        ),
        (
            "quotas: { sessions: 0 }, tokens: [{ name: a, file: a, scopes: revoke }]",
            &["out_of_range 4:33 operator.quotas.sessions"],
        ),
    ] {
        assert_eq!(with(rest), expected, "{rest}");
    }
    let oidc = |issuer: &str, rest: &str| {
        with(&format!(
            "oidc: [{{ issuer: \"{issuer}\", audience: a, scopes: {{ claim: g, map: {{ x: revoke }} }}{rest} }}]"
        ))
    };
    assert_eq!(oidc("https://i.example.org", ""), [""; 0]);
    for (issuer, rest, expected) in [
        (
            "http://127.0.0.1/",
            "",
            "not_https 4:30 operator.oidc[0].issuer",
        ),
        (
            "https://u:p@i.example.org/",
            "",
            "secret_in_url 4:30 operator.oidc[0].issuer",
        ),
        (
            "https://i.example.org/?t=1",
            "",
            "not_discoverable 4:30 operator.oidc[0].issuer",
        ),
        (
            "https://i.example.org",
            ", name_claim: a..b",
            "invalid_claim 4:122 operator.oidc[0].name_claim",
        ),
        (
            "https://i.example.org",
            ", jwks: \"http://127.0.0.1/k\"",
            "not_https 4:116 operator.oidc[0].jwks",
        ),
    ] {
        assert_eq!(oidc(issuer, rest), [expected], "{issuer} {rest}");
    }
    let twice = "oidc: [{ issuer: \"https://i.example.org\", audience: a, scopes: { claim: g, map: {} } }, { issuer: \"https://i.example.org\", audience: b, scopes: { claim: g, map: { x: revoke } } }]";
    assert_eq!(
        with(twice),
        [
            "empty_list 4:93 operator.oidc[0].scopes.map",
            "duplicate_issuer 4:111 operator.oidc[1].issuer"
        ]
    );
}

#[test]
fn a_session_has_an_end_and_a_tripwire_something_to_watch() {
    let with = |rest: &str| told(&format!("{OPERATOR}sessions: {{ {rest} }}"));
    for rest in [
        "idle: 1s",
        "idle: 15m",
        "lifetime: 12h",
        "tripwire: { requests: 1 }",
        "tripwire: { bytes_out: 1 }",
        "tripwire: { distinct_destinations: 1, window: 24h }",
        "view: {}",
        "view: { requests: 0 }",
        "view: { requests: 1000, bodies: 16KiB, memory: 1GiB }",
    ] {
        assert_eq!(with(rest), [""; 0], "{rest}");
    }
    for (rest, expected) in [
        ("idle: 16m", "out_of_range 5:19 sessions.idle"),
        ("idle: 0s", "out_of_range 5:19 sessions.idle"),
        ("lifetime: 13h", "out_of_range 5:23 sessions.lifetime"),
        ("lifetime: 1d", "invalid_duration 5:23 sessions.lifetime"),
        (
            "tripwire: { arm: true }",
            "tripwire_without_budget 5:23 sessions.tripwire",
        ),
        (
            "tripwire: { requests: 0 }",
            "out_of_range 5:35 sessions.tripwire.requests",
        ),
        (
            "tripwire: { bytes_out: 0 }",
            "invalid_size 5:36 sessions.tripwire.bytes_out",
        ),
        (
            "tripwire: { requests: 1, window: 25h }",
            "out_of_range 5:46 sessions.tripwire.window",
        ),
        (
            "view: { requests: 1001 }",
            "out_of_range 5:31 sessions.view.requests",
        ),
        (
            "view: { bodies: 17KiB }",
            "out_of_range 5:29 sessions.view.bodies",
        ),
        (
            "view: { bodies: 0 }",
            "invalid_size 5:29 sessions.view.bodies",
        ),
        (
            "view: { bodies: true }",
            "invalid_size 5:29 sessions.view.bodies",
        ),
        (
            "view: { requests: 0, bodies: 1KiB }",
            "no_such_use 5:42 sessions.view.bodies",
        ),
        (
            "view: { memory: 8GiB }",
            "out_of_range 5:29 sessions.view.memory",
        ),
        (
            "tripwire: { request: 1 }",
            "unknown_key 5:25 sessions.tripwire.request",
        ),
    ] {
        assert_eq!(with(rest), [expected], "{rest}");
    }
    let text = format!("{LISTEN}{OPERATOR}sessions: {{ idle: 1h, lifetime: 0s }}");
    let helps: Vec<String> = parse(&text)
        .unwrap_err()
        .iter()
        .map(|p| p.help.clone())
        .collect();
    assert_eq!(
        helps,
        [
            "write a duration from 1s to 15m",
            "write a duration from 1s to 12h"
        ]
    );
}

#[test]
fn only_issuers_that_can_be_checked_are_trusted() {
    let with = |rest: &str| {
        told(&format!(
            "{OPERATOR}sessions: {{ issuers: [{{ {rest} }}] }}"
        ))
    };
    let sound = "issuer: \"https://i.example.org\", audience: a";
    for rest in [
        sound,
        "issuer: kubernetes/serviceaccount, audience: a, jwks_file: k",
        "issuer: x, audience: [a, b], jwks: \"https://10.0.0.1:6443/openid/v1/jwks\"",
    ] {
        assert_eq!(with(rest), [""; 0], "{rest}");
    }
    for (rest, expected) in [
        (
            "issuer: x, audience: a",
            "not_discoverable 5:33 sessions.issuers[0].issuer",
        ),
        (
            "issuer: \"http://127.0.0.1\", audience: a",
            "not_discoverable 5:33 sessions.issuers[0].issuer",
        ),
        (
            "issuer: outgate, audience: a, jwks_file: k",
            "invalid_issuer 5:33 sessions.issuers[0].issuer",
        ),
        (
            "issuer: \"\", audience: a, jwks_file: k",
            "invalid_issuer 5:33 sessions.issuers[0].issuer",
        ),
        (
            "issuer: x, audience: [], jwks_file: k",
            "empty_list 5:46 sessions.issuers[0].audience",
        ),
        (
            "issuer: x, audience: \"a b\", jwks_file: k",
            "invalid_audience 5:46 sessions.issuers[0].audience",
        ),
        (
            "issuer: x, audience: [a, a], jwks_file: k",
            "duplicate_value 5:50 sessions.issuers[0].audience[1]",
        ),
        (
            "issuer: x, audience: a, jwks_file: k, jwks: \"https://i.example.org\"",
            "one_key_source 5:23 sessions.issuers[0]",
        ),
        (
            "issuer: x, audience: a, jwks: \"http://127.0.0.1/k\"",
            "not_https 5:55 sessions.issuers[0].jwks",
        ),
        (
            "issuer: x, audience: a, jwks_file: k, algorithms: HS256",
            "unknown_word 5:75 sessions.issuers[0].algorithms",
        ),
        (
            "issuer: x, audience: a, jwks_file: k, algorithms: none",
            "unknown_word 5:75 sessions.issuers[0].algorithms",
        ),
        (
            "issuer: x, audience: a, jwks_file: k, algorithms: [RS256, RS256]",
            "duplicate_value 5:83 sessions.issuers[0].algorithms[1]",
        ),
        (
            "issuer: x, audience: a, jwks_file: k, max_age: 25h",
            "out_of_range 5:72 sessions.issuers[0].max_age",
        ),
        (
            "issuer: x, audience: a, jwks_file: k, session_claim: .a",
            "invalid_claim 5:78 sessions.issuers[0].session_claim",
        ),
        (
            "issuer: x, audience: a, jwks_file: k, policy: none",
            "unknown_policy 5:71 sessions.issuers[0].policy",
        ),
        (
            "issuer: x, audience: a, jwks_file: k, introspection: { url: \"http://127.0.0.1\", client_id: c, client_secret: { env: S } }",
            "not_https 5:85 sessions.issuers[0].introspection.url",
        ),
        (
            "issuer: x, audience: a, jwks_file: k, introspection: { url: \"https://i.example.org\", client_id: c, client_secret: { env: S }, cache: 61s }",
            "out_of_range 5:158 sessions.issuers[0].introspection.cache",
        ),
        (
            "issuer: x, audience: a, jwks_file: k, introspection: { url: \"https://i.example.org\", client_id: c, client_secret: {} }",
            "one_source 5:139 sessions.issuers[0].introspection.client_secret",
        ),
    ] {
        assert_eq!(with(rest), [expected], "{rest}");
    }
    let twice = with(&format!("{sound} }}, {{ {sound}"));
    assert_eq!(twice, ["duplicate_issuer 5:83 sessions.issuers[1].issuer"]);
}

#[test]
fn an_issuers_sessions_have_one_policy_or_one_each_that_is_there() {
    let with = |rest: &str| {
        told(&format!(
            "{OPERATOR}policies: {{ p: {{ destinations: a.example.org }} }}\nsessions: {{ issuers: [{{ issuer: x, audience: a, jwks_file: k, {rest} }}] }}"
        ))
    };
    for rest in [
        "policy: p",
        "policies: { claim: sub, map: { \"repo:a/b:ref\": p, \"/\": p } }",
        "policies: { claim: [kubernetes.io.namespace, kubernetes.io.serviceaccount.name], map: { a/b: p } }",
    ] {
        assert_eq!(with(rest), [""; 0], "{rest}");
    }
    let map = "sessions.issuers[0].policies.map";
    for (rest, expected) in [
        (
            "policies: { claim: sub, map: { a: q } }",
            format!("unknown_policy 6:97 {map}.a"),
        ),
        (
            "policies: { claim: sub, map: {} }",
            format!("empty_list 6:92 {map}"),
        ),
        (
            "policies: { claim: sub, map: { a b: p } }",
            format!("invalid_claim_value 6:94 {map}[\"a b\"]"),
        ),
        (
            "policies: { claim: [], map: { a: p } }",
            "empty_list 6:82 sessions.issuers[0].policies.claim".to_owned(),
        ),
        (
            "policies: { claim: [s, s], map: { a/b: p } }",
            "duplicate_value 6:86 sessions.issuers[0].policies.claim[1]".to_owned(),
        ),
        (
            "policies: { claim: [s, t.], map: { a/b: p } }",
            "invalid_claim 6:86 sessions.issuers[0].policies.claim[1]".to_owned(),
        ),
        (
            "policies: { claim: [s, t], map: { a: p } }",
            format!("invalid_claim_value 6:97 {map}.a"),
        ),
        (
            "policies: { claim: [s, t], map: { a/b/c: p } }",
            format!("invalid_claim_value 6:97 {map}[\"a/b/c\"]"),
        ),
        (
            "policies: { claim: [s, t], map: { a/: p } }",
            format!("invalid_claim_value 6:97 {map}[\"a/\"]"),
        ),
        (
            "policies: { claim: sub }",
            "missing_key 6:73 sessions.issuers[0].policies".to_owned(),
        ),
        (
            "policy: p, policies: { claim: sub, map: { a: p } }",
            "one_confinement 6:71 sessions.issuers[0].policy".to_owned(),
        ),
    ] {
        assert_eq!(with(rest), [expected], "{rest}");
    }
}

#[test]
fn no_guest_can_hold_a_token_that_operators_come_in_with() {
    let with = |audience: &str| {
        told(&format!(
            "operator: {{ oidc: [{{ issuer: \"https://i.example.org\", audience: ops, scopes: {{ claim: g, map: {{ x: revoke }} }} }}] }}\nsessions: {{ issuers: [{{ issuer: \"https://i.example.org\", audience: {audience} }}] }}"
        ))
    };
    assert_eq!(with("guests"), [""; 0]);
    assert_eq!(
        with("[guests, ops]"),
        ["guests_could_operate 5:68 sessions.issuers[0].audience"]
    );
}

#[test]
fn a_policy_picks_among_the_destinations() {
    let with =
        |rest: &str| told(&format!("{OPERATOR}policies: {{ {rest} }}").replace("tokens", "tokens"));
    assert_eq!(with("p: { destinations: A.example.org. }"), [""; 0]);
    for (rest, expected) in [
        (
            "p: { destinations: b.example.org }",
            "unknown_destination 5:32 policies.p.destinations",
        ),
        (
            "p: { destinations: [a.example.org, a.example.org] }",
            "duplicate_value 5:48 policies.p.destinations[1]",
        ),
        (
            "p: { destinations: [] }",
            "empty_list 5:32 policies.p.destinations",
        ),
        (
            "p: { destinations: \"*.com\" }",
            "wildcard_over_public_suffix 5:32 policies.p.destinations",
        ),
        (
            "p: { destinations: 10.0.0.1 }",
            "host_is_address 5:32 policies.p.destinations",
        ),
        ("p: {}", "missing_key 5:16 policies.p"),
        (
            "p p: { destinations: a.example.org }",
            "invalid_name 5:13 policies[\"p p\"]",
        ),
        (
            "p: { destinations: a.example.org, limits: { requests: 0/min } }",
            "invalid_rate 5:67 policies.p.limits.requests",
        ),
    ] {
        assert_eq!(with(rest), [expected], "{rest}");
    }
    let help = |destinations: &str, named: &str| {
        let text = format!(
            "{LISTEN}{OPERATOR}destinations: [{destinations}]\npolicies: {{ p: {{ destinations: \"{named}\" }} }}"
        );
        parse(&text).unwrap_err().as_slice()[0].help.clone()
    };
    assert_eq!(
        help("{ host: \"*.example.org\" }", "a.example.org"),
        "write `\"*.example.org\"`, or give `a.example.org` an entry of its own under `destinations`"
    );
    assert_eq!(
        help("{ host: api.example.org }", "api.exmaple.org"),
        "did you mean `api.example.org`?"
    );
    // The host of an entry that was itself reported is known all the same.
    let text = format!(
        "{LISTEN}{OPERATOR}destinations: [{{ host: a.example.org, posture: x, token: y }}]\npolicies: {{ p: {{ destinations: a.example.org }} }}"
    );
    let codes: Vec<_> = parse(&text).unwrap_err().iter().map(|p| p.code).collect();
    assert_eq!(codes, ["unknown_word", "unknown_word"]);
}

#[test]
fn records_are_kept_and_sent_as_it_can_be_done() {
    let with = |rest: &str| told(&format!("{OPERATOR}audit: {{ {rest} }}"));
    let export = |rest: &str| with(&format!("export: [{{ name: a, {rest} }}]"));
    for (rest, expected) in [
        (
            "rotate: { size: 1kB }",
            "out_of_range 5:26 audit.rotate.size",
        ),
        (
            "rotate: { size: 2TiB }",
            "out_of_range 5:26 audit.rotate.size",
        ),
        (
            "rotate: { size: big }",
            "invalid_size 5:26 audit.rotate.size",
        ),
        ("rotate: { age: 59s }", "out_of_range 5:25 audit.rotate.age"),
        (
            "rotate: { age: 721h }",
            "out_of_range 5:25 audit.rotate.age",
        ),
        (
            "export: [{ otlp: \"https://c.example.org\" }]",
            "missing_key 5:19 audit.export[0]",
        ),
    ] {
        assert_eq!(with(rest), [expected], "{rest}");
    }
    for rest in [
        "otlp: \"http://[::1]:4318/v1/logs\"",
        "webhook: \"http://127.0.0.1/x\", secret_file: s",
    ] {
        assert_eq!(export(rest), [""; 0], "{rest}");
    }
    for (rest, expected) in [
        ("ca: x", "one_target 5:19 audit.export[0]"),
        (
            "otlp: \"https://c.example.org\", webhook: \"https://c.example.org\", secret_file: s",
            "one_target 5:19 audit.export[0]",
        ),
        (
            "otlp: \"http://localhost:4318\"",
            "not_https 5:36 audit.export[0].otlp",
        ),
        (
            "webhook: \"http://10.0.0.1\", secret_file: s",
            "not_https 5:39 audit.export[0].webhook",
        ),
        (
            "webhook: \"https://c.example.org\"",
            "missing_key 5:19 audit.export[0]",
        ),
        (
            "webhook: \"https://c.example.org\", secret_file: s, headers: { a: { env: A } }",
            "no_such_use 5:80 audit.export[0].headers",
        ),
        (
            "otlp: \"https://c.example.org\", secret_file: s",
            "no_such_use 5:61 audit.export[0].secret_file",
        ),
        (
            "otlp: \"https://c.example.org\", headers: { host: { env: A } }",
            "reserved_header 5:78 audit.export[0].headers.host",
        ),
        (
            "otlp: \"https://c.example.org\", headers: { a: { env: A, file: b } }",
            "one_source 5:75 audit.export[0].headers.a",
        ),
        (
            "otlp: \"http://127.0.0.1\", ca: x",
            "no_effect 5:60 audit.export[0].ca",
        ),
    ] {
        assert_eq!(export(rest), [expected], "{rest}");
    }
    let twice = with(
        "export: [{ name: a, otlp: \"https://c.example.org\" }, { name: a, otlp: \"https://d.example.org\" }]",
    );
    assert_eq!(twice, ["duplicate_name 5:71 audit.export[1].name"]);
}

#[test]
fn a_secret_in_place_of_its_file_is_not_repeated() {
    for rest in [
        "operator: { tokens: [{ name: a, file: [SECRET], scopes: revoke }] }",
        "operator: { tokens: [{ name: a, token: SECRET, scopes: revoke }] }",
        "operator: { tokens: [{ name: a b, file: SECRET, scopes: revoke }] }",
        "operator: { webhooks: [{ name: a, secret: SECRET }] }",
        "sessions: { issuers: [{ issuer: x, audience: a, jwks_file: k, introspection: { url: \"https://a.example.org\", client_id: c, client_secret: SECRET } }] }",
        "sessions: { issuers: [{ issuer: x, audience: a, jwks_file: k, introspection: { url: \"https://a.example.org\", client_id: c, client_secret: { SECRET } } }] }",
        "sessions: { issuers: [{ issuer: x, audience: a, jwks: \"https://u:SECRET@a.example.org\" }] }",
        "audit: { export: [{ name: a, otlp: \"https://a.example.org\", headers: { authorization: SECRET } }] }",
        "audit: { export: [{ name: a, otlp: \"https://a.example.org\", headers: { authorization: { SECRET: x } } }] }",
        "audit: { export: [{ name: a b, webhook: \"https://a.example.org/SECRET\", secret_file: s }] }",
    ] {
        let problems = parse(&format!("{LISTEN}{rest}")).unwrap_err();
        let json = serde_json::to_string(&problems).unwrap();
        assert!(!problems.to_string().contains("SECRET"), "{problems}");
        assert!(!json.contains("SECRET"), "{json}");
    }
}

#[test]
fn every_file_with_a_secret_is_known() {
    let config = parse(EVERY_KEY).unwrap();
    let mut expected: Vec<PathBuf> = [
        "ci.token",
        "oncall.token",
        "soar.secret",
        "soar-out.secret",
        "otlp.token",
        "maps.key",
        "tls/operator.key",
        "tls/control.key",
        "tls/xds.key",
        "tls/gateway.key",
        "ca/tls.key",
        "inbound/tls.key",
        "envoy/tls.key",
        "store.key",
        "/run/secrets/forge",
        // Who reaches a socket is given what it gives.
        "run/minter.sock",
        "/run/vault/sds.sock",
    ]
    .map(at)
    .to_vec();
    expected.sort();
    assert_eq!(config.secret_files(), expected);
}
