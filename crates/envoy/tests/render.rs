//! The rendered configuration: the same bytes for the same policy, messages that Envoy's API knows, and nothing that a
//! real Envoy refuses. `OUTGATE_BLESS=1` writes the golden files. `OUTGATE_ENVOY` names Envoy, else it is on the PATH;
//! without one the test fails.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use outgate_config::{Config, DoorPlace};
use outgate_envoy::render::{
    self, Node, RenderOptions, Rendered, Tokens, TrustRoots, injection_key, names,
};
use outgate_envoy_proto::{any_from_json, check};
use outgate_journey::policy::{CredentialName, InjectionForm, PlaneAddress, TlsFiles};
use serde_json::Value;

const POLICIES: [&str; 4] = ["empty", "pass-through", "inject", "everything"];

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(file)
}

fn config(name: &str) -> Config {
    let text = fs::read_to_string(golden(&format!("{name}.yaml"))).unwrap();
    Config::parse("outgate.yaml", &text, Path::new("/etc/outgate")).unwrap()
}

fn with_options<T>(config: &Config, roots: &Path, act: impl FnOnce(&RenderOptions<'_>) -> T) -> T {
    let envoy = config.envoy.as_ref().unwrap();
    let control =
        envoy
            .control
            .clone()
            .unwrap_or_else(|| match &config.listen.xds.as_ref().unwrap().place {
                DoorPlace::Socket(path) => PlaneAddress::Socket(path.clone()),
                DoorPlace::Tcp { .. } => panic!("envoy.control is missing"),
            });
    act(&RenderOptions {
        envoy,
        control: &control,
        node: Node {
            id: "envoy-1",
            cluster: "outgate",
        },
        tokens: Tokens {
            issuer: "outgate",
            audience: "outgate",
        },
        roots: TrustRoots::File(roots),
        min_tls: config.upstream.min_tls,
        timeouts: &config.timeouts,
        max_connections: 10_000,
    })
}

fn rendered<T>(config: &Config, act: impl FnOnce(&RenderOptions<'_>) -> T) -> T {
    with_options(config, Path::new("/etc/outgate/roots.pem"), act)
}

fn dynamic(config: &Config) -> Vec<Rendered> {
    rendered(config, |options| {
        let policy = &config.policy;
        let mut all = render::clusters(options, policy);
        all.extend(render::listeners(options, policy));
        all.extend(render::routes(options, policy));
        all
    })
}

/// What fits in a line is in a line: the golden files are read by people.
fn pretty(value: &Value, indent: usize, out: &mut String) {
    let line = value.to_string();
    let (open, close, parts): (_, _, Vec<(String, &Value)>) = match value {
        Value::Object(map) if line.len() + indent > 150 => (
            '{',
            '}',
            map.iter()
                .map(|(key, value)| (format!("{key:?}: "), value))
                .collect(),
        ),
        Value::Array(list) if line.len() + indent > 150 => (
            '[',
            ']',
            list.iter().map(|value| (String::new(), value)).collect(),
        ),
        _ => return out.push_str(&line),
    };
    out.push(open);
    for (at, (key, part)) in parts.iter().enumerate() {
        out.push_str(if at == 0 { "\n" } else { ",\n" });
        out.push_str(&" ".repeat(indent + 1));
        out.push_str(key);
        pretty(part, indent + 1, out);
    }
    out.push('\n');
    out.push_str(&" ".repeat(indent));
    out.push(close);
}

/// What stands in a file many times over, equal each time, is shown once.
fn fold_repeats(value: &mut Value, first: &mut HashMap<String, Value>) {
    match value {
        Value::Object(map) => {
            for (key, part) in map {
                let repeats = ["local_reply_config", "address_denied", "validation_context"];
                if repeats.contains(&key.as_str()) {
                    let known = first.entry(key.clone()).or_insert_with(|| part.clone());
                    if std::mem::replace(known, part.clone()) == *part
                        && first.contains_key(&format!("{key} shown"))
                    {
                        *part = Value::from("as before");
                        continue;
                    }
                    first.insert(format!("{key} shown"), Value::Null);
                }
                fold_repeats(part, first);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|part| fold_repeats(part, first)),
        _ => {}
    }
}

fn compare(file: &str, value: &Value) {
    let mut value = value.clone();
    fold_repeats(&mut value, &mut HashMap::new());
    let mut text = String::new();
    pretty(&value, 0, &mut text);
    text.push('\n');
    let path = golden(file);
    if std::env::var_os("OUTGATE_BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let differs = kept
        .lines()
        .zip(text.lines())
        .position(|(kept, made)| kept != made);
    assert!(
        kept == text,
        "{file} differs from what is rendered (line {differs:?}): OUTGATE_BLESS=1 writes it"
    );
}

#[test]
fn the_same_policy_is_rendered_into_the_same_bytes() {
    for name in POLICIES {
        let config = config(name);
        compare(
            &format!("{name}.bootstrap.json"),
            &rendered(&config, render::bootstrap),
        );
        let bodies = |list: Vec<Rendered>| Value::from_iter(list.into_iter().map(|it| it.body));
        compare(
            &format!("{name}.routes.json"),
            &bodies(rendered(&config, |options| {
                render::routes(options, &config.policy)
            })),
        );
        // They hardly differ from one policy to the next.
        if name == "everything" {
            let (listeners, clusters) = rendered(&config, |options| {
                (
                    render::listeners(options, &config.policy),
                    render::clusters(options, &config.policy),
                )
            });
            compare("everything.listeners.json", &bodies(listeners));
            compare("everything.clusters.json", &bodies(clusters));
        }
    }
}

#[test]
fn every_resource_is_a_message_of_envoys_api() {
    for name in POLICIES {
        let config = config(name);
        for resource in dynamic(&config) {
            let any = any_from_json(&resource.body);
            assert!(
                any.is_ok(),
                "{name}: {}: {}",
                resource.name,
                any.unwrap_err()
            );
        }
        for bootstrap in [
            rendered(&config, render::bootstrap),
            rendered(&config, |options| {
                render::static_bootstrap(options, &config.policy)
            }),
        ] {
            check("envoy.config.bootstrap.v3.Bootstrap", &bootstrap).unwrap();
        }
    }
}

/// The fields of a message, by number.
fn fields(mut message: &[u8]) -> Vec<(u32, Vec<u8>)> {
    use prost::encoding::{WireType, decode_key, decode_varint};
    let mut fields = Vec::new();
    while !message.is_empty() {
        let (number, wire) = decode_key(&mut message).unwrap();
        assert_eq!(wire, WireType::LengthDelimited);
        let length = usize::try_from(decode_varint(&mut message).unwrap()).unwrap();
        let (field, rest) = message.split_at(length);
        fields.push((number, field.to_vec()));
        message = rest;
    }
    fields.sort_by_key(|(number, _)| *number);
    fields
}

#[test]
fn routes_are_served_as_they_are_shown() {
    for name in POLICIES {
        let config = config(name);
        let (shown, served) = rendered(&config, |options| {
            (
                render::routes(options, &config.policy),
                render::encoded_routes(options, &config.policy).unwrap(),
            )
        });
        assert_eq!(shown.len(), served.len());
        for (shown, served) in shown.iter().zip(served) {
            let whole = any_from_json(&shown.body).unwrap();
            assert_eq!(
                (&shown.name, &whole.type_url),
                (&served.name, &served.message.type_url)
            );
            let served = fields(&served.message.value);
            assert!(fields(&whole.value) == served, "{name}: {}", shown.name);
        }
    }
}

fn envoy() -> PathBuf {
    std::env::var_os("OUTGATE_ENVOY").map_or_else(|| "envoy".into(), PathBuf::from)
}

/// Envoy reads the files that its configuration names.
fn with_real_files(config: &mut Config, folder: &Path) -> PathBuf {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["envoy-1".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let (pem, key_pem) = (folder.join("certificate.pem"), folder.join("key.pem"));
    fs::write(&pem, certificate.pem()).unwrap();
    fs::write(&key_pem, key.serialize_pem()).unwrap();
    if let Some(PlaneAddress::Tcp { ca, identity, .. }) = config
        .envoy
        .as_mut()
        .and_then(|envoy| envoy.control.as_mut())
    {
        ca.clone_from(&pem);
        *identity = TlsFiles {
            certificate: pem.clone(),
            key: key_pem,
        };
    }
    pem
}

#[test]
fn envoy_itself_takes_every_rendered_file() {
    let folder = tempfile::tempdir().unwrap();
    for name in POLICIES {
        let mut config = config(name);
        let roots = with_real_files(&mut config, folder.path());
        let files = with_options(&config, &roots, |options| {
            [
                render::bootstrap(options),
                render::static_bootstrap(options, &config.policy),
            ]
        });
        for (at, file) in files.iter().enumerate() {
            let path = folder.path().join(format!("{name}-{at}.json"));
            fs::write(&path, file.to_string()).unwrap();
            let output = Command::new(envoy())
                .args([
                    "--mode",
                    "validate",
                    "--disable-hot-restart",
                    "-l",
                    "error",
                    "-c",
                ])
                .arg(&path)
                .output()
                .unwrap_or_else(|error| {
                    panic!("this test needs Envoy; OUTGATE_ENVOY names one: {error}")
                });
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name}-{at}: {said}");
        }
    }
}

#[test]
fn a_rule_that_changes_changes_routes_alone() {
    let (before, after) = (config("empty"), config("inject"));
    let versions = |config: &Config| -> Vec<(String, String)> {
        dynamic(config)
            .into_iter()
            .map(|it| (it.name, it.version))
            .collect()
    };
    for (before, after) in versions(&before).into_iter().zip(versions(&after)) {
        assert_eq!(before.0, after.0);
        // The listener that keeps secrets asked for carries nobody.
        let may_change = matches!(
            before.0.as_str(),
            names::ROUTES_PROXY | names::ROUTES_BUMPED | names::SECRETS
        );
        assert_eq!(before.1 != after.1, may_change, "{}", before.0);
    }
}

#[test]
fn nothing_secret_is_rendered() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("anthropic"), "sk-SECRET-VALUE").unwrap();
    let text = fs::read_to_string(golden("inject.yaml")).unwrap();
    let config = Config::parse("outgate.yaml", &text, folder.path()).unwrap();
    let whole = rendered(&config, |options| {
        render::static_bootstrap(options, &config.policy)
    })
    .to_string();
    assert!(whole.contains("injections/anthropic-"));
    for secret in ["SECRET-VALUE", "PRIVATE KEY", "generic_secret"] {
        assert!(!whole.contains(secret), "{secret}");
    }
    let place = folder.path().to_string_lossy().into_owned();
    assert!(
        !whole.contains(&place),
        "where credentials are kept is no business of Envoy's"
    );
}

#[test]
fn each_form_of_a_credential_has_a_secret_of_its_own_and_a_query_has_none() {
    let name = CredentialName::new("forge");
    let header = |field: &'static str, prefix: &str, suffix: &str| InjectionForm::Header {
        name: http::HeaderName::from_static(field),
        prefix: prefix.to_owned(),
        suffix: suffix.to_owned(),
    };
    let forms = [
        header("authorization", "Bearer ", ""),
        header("authorization", "", "Bearer "),
        header("x-api-key", "Bearer ", ""),
        header("basic", "agent", ""),
        InjectionForm::Basic {
            username: "agent".to_owned(),
        },
        InjectionForm::Basic {
            username: "other".to_owned(),
        },
    ];
    let keys: std::collections::BTreeSet<_> = forms
        .iter()
        .map(|form| injection_key(&name, form).unwrap())
        .collect();
    assert_eq!(keys.len(), forms.len());
    for key in &keys {
        let hex = key.strip_prefix("injections/forge-").unwrap();
        assert!(
            hex.len() == 8 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{key}"
        );
    }
    assert_eq!(
        injection_key(
            &name,
            &InjectionForm::Query {
                parameter: "key".to_owned()
            }
        ),
        None
    );
}

fn hosts_of<'v>(tables: &'v [Rendered], table: &str) -> &'v [Value] {
    let table = tables.iter().find(|it| it.name == table).unwrap();
    table.body["virtual_hosts"].as_array().unwrap()
}

/// The virtual host that Envoy finds for an authority: by its exact name, else by the longest ending.
fn host_of<'v>(tables: &'v [Rendered], table: &str, authority: &str) -> &'v Value {
    let found = hosts_of(tables, table).iter().flat_map(|host| {
        let domains = host["domains"].as_array().unwrap().iter();
        domains.filter_map(move |domain| {
            let domain = domain.as_str().unwrap();
            let rank = match domain.strip_prefix('*') {
                Some(ending) => authority.ends_with(ending).then_some(ending.len()),
                None => (domain == authority).then_some(usize::MAX),
            };
            rank.map(|rank| (rank, host))
        })
    });
    found.max_by_key(|(rank, _)| *rank).unwrap().1
}

/// The rule whose route carries a request to an authority; empty: nowhere.
fn carried_by<'v>(tables: &'v [Rendered], table: &str, authority: &str) -> &'v str {
    let mut routes = host_of(tables, table, authority)["routes"]
        .as_array()
        .unwrap()
        .iter();
    let is_taken = |route: &&Value| {
        let empty = Vec::new();
        let headers = route["match"]["headers"].as_array().unwrap_or(&empty);
        headers.iter().all(|header| {
            let expression = header["string_match"]["safe_regex"]["regex"].as_str();
            expression.is_some_and(|it| {
                let whole = format!("^(?:{it})$");
                regex::Regex::new(&whole).unwrap().is_match(authority)
            })
        })
    };
    routes.find(is_taken).unwrap()["name"]
        .as_str()
        .unwrap_or_default()
}

#[test]
fn a_host_and_a_port_lead_to_the_rule_that_the_journey_takes() {
    let text = "
version: 1
listen: { xds: { socket: /run/outgate/xds.sock } }
envoy: { proxy: 127.0.0.1:8080 }
destinations:
  - { host: api.example.org, ports: [443], plaintext: false, posture: bump }
  - { host: api.example.org, ports: [8080], plaintext: true, posture: bump }
  - { host: '*.example.org', ports: [443, 8080, 9443], plaintext: true, posture: bump }
  - { host: never.example.org, posture: deny-all }
  - { host: plain.example.net, ports: [80], plaintext: true, posture: bump }
";
    let config = Config::parse("outgate.yaml", text, Path::new("/etc/outgate")).unwrap();
    let tables = rendered(&config, |options| render::routes(options, &config.policy));
    let (bumped, plain, proxy) = (
        names::ROUTES_BUMPED,
        names::ROUTES_PLAIN,
        names::ROUTES_PROXY,
    );
    for (table, authority, rule) in [
        (bumped, "api.example.org", "destinations[0] "),
        (bumped, "api.example.org.", "destinations[0] "),
        (bumped, "api.example.org:443", "destinations[0] "),
        (bumped, "api.example.org.:443", "destinations[0] "),
        (bumped, "api.example.org:8080", "destinations[1] "),
        (plain, "api.example.org:8080", "destinations[1] "),
        (plain, "api.example.org", ""),
        (proxy, "api.example.org:443", "destinations[0] "),
        (proxy, "api.example.org:8080", "destinations[1] "),
        // The name has rules of its own, and none for this port: its wildcard does not count.
        (bumped, "api.example.org:9443", ""),
        (bumped, "api.example.org.:9443", ""),
        (proxy, "api.example.org:9443", ""),
        (bumped, "never.example.org", ""),
        (bumped, "never.example.org:443", ""),
        (proxy, "never.example.org:9443", ""),
        (bumped, "www.example.org", "destinations[2] "),
        (bumped, "www.example.org:9443", "destinations[2] "),
        (plain, "www.example.org.:9443", "destinations[2] "),
        (proxy, "www.example.org:443", "destinations[2] "),
        // One label.
        (bumped, "a.b.example.org", ""),
        (bumped, "a.api.example.org", ""),
        (bumped, "example.org", ""),
        (bumped, "www.example.org:444", ""),
        (bumped, "api.example.org:0443", ""),
        (bumped, "api.example.org:443:443", ""),
        (bumped, "api.example.org@evil.example:443", ""),
        (plain, "plain.example.net", "destinations[4] "),
        (plain, "plain.example.net:80", "destinations[4] "),
        (proxy, "plain.example.net", "destinations[4] "),
        (bumped, "elsewhere.example", ""),
    ] {
        let taken = carried_by(&tables, table, authority);
        let as_expected = if rule.is_empty() {
            taken.is_empty()
        } else {
            taken.starts_with(rule)
        };
        assert!(as_expected, "{table} {authority}: {taken:?}");
    }
}

#[test]
fn a_credential_can_be_drawn_on_the_routes_of_its_own_host_only() {
    let config = config("everything");
    let tables = rendered(&config, |options| render::routes(options, &config.policy));
    for (table, host, drawn) in [
        (
            names::ROUTES_BUMPED,
            "api.anthropic.com",
            Some("injections/anthropic-"),
        ),
        (
            names::ROUTES_BUMPED,
            "forge.example.org",
            Some("injections/forge-"),
        ),
        (
            names::ROUTES_PLAIN,
            "forge.example.org",
            Some("injections/forge-"),
        ),
        (names::ROUTES_BUMPED, "query.example.org", None),
        (names::ROUTES_BUMPED, "any.example.net", None),
        (names::ROUTES_PLAIN, "internal.example.org", None),
        (names::ROUTES_BUMPED, "outgate_unlisted", None),
        (names::ROUTES_PROXY, "outgate_unlisted", None),
    ] {
        let text = host_of(&tables, table, host).to_string();
        assert_eq!(
            text.contains("injections/"),
            drawn.is_some(),
            "{table} {host}"
        );
        assert_eq!(
            text.matches(drawn.unwrap_or("injections/")).count(),
            text.matches("injections/").count()
        );
    }
}

#[test]
fn what_no_rule_covers_goes_to_a_cluster_without_an_endpoint() {
    let config = config("everything");
    let tables = rendered(&config, |options| render::routes(options, &config.policy));
    for table in &tables {
        for host in hosts_of(&tables, &table.name) {
            let domains = host["domains"].to_string();
            let routes = host["routes"].as_array().unwrap();
            let takes_all = |kind: &str| {
                let is_all = |route: &&Value| {
                    let of = &route["match"];
                    let headers = of["headers"].as_array().is_some_and(|it| !it.is_empty());
                    !of[kind].is_null() && !headers
                };
                routes.iter().any(|route| is_all(&route))
            };
            // A request without a route is refused before the journey is asked why.
            let both = (takes_all("connect_matcher"), takes_all("prefix"));
            let tunnels = table.name == names::ROUTES_PROXY;
            assert_eq!(both, (tunnels, true), "{} {domains}", table.name);
            let ends_nowhere = routes.last().unwrap()["route"]["cluster"] == names::NOWHERE;
            assert!(
                ends_nowhere || !domains.contains('*'),
                "{} {domains}",
                table.name
            );
        }
    }
    for (table, authority) in [
        (names::ROUTES_PROXY, "never.example.org:443"),
        (names::ROUTES_BUMPED, "db.example.org"),
        (names::ROUTES_PLAIN, "api.anthropic.com"),
    ] {
        assert_eq!(
            carried_by(&tables, table, authority),
            "",
            "{table} {authority}"
        );
    }
}
