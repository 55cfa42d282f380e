//! Doors for data planes, the minter, Envoy, and credentials of other processes: what they may be, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy knows test functions, not their helpers"
)]

use std::path::Path;

use outgate_config::{
    Config, DoorPlace, EnvoyAdmin, EnvoyConfig, MinterSource, PlaneAddress, PlaneDoor, Problems,
    TlsFiles, schema,
};
use outgate_journey::policy::{CredentialName, CredentialSource};

const EVERY_KEY: &str = include_str!("files/every-key.yaml");
/// What a door on TCP takes besides its address.
const TLS: &str = "certificate: c, key: k, client_ca: a";
/// What a client of one takes.
const MUTUAL: &str = "ca: a, certificate: c, key: k";

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse("outgate.yaml", text, Path::new("/etc/outgate"))
}

fn file(listen: &str, rest: &str) -> String {
    format!(
        "version: 1\nlisten: {{ {listen} }}\ndestinations: [{{ host: x.example.org }}]\n{rest}\n"
    )
}

fn config(listen: &str, rest: &str) -> Config {
    let text = file(listen, rest);
    parse(&text).unwrap_or_else(|problems| unreachable!("{text}\n{problems}"))
}

/// `code line:column key` of every problem.
fn told(listen: &str, rest: &str) -> Vec<String> {
    let problems = parse(&file(listen, rest)).err();
    let problems = problems.iter().flat_map(Problems::iter);
    problems
        .map(|p| format!("{} {}:{} {}", p.code, p.line, p.column, p.key))
        .collect()
}

fn warned(listen: &str, rest: &str) -> Vec<String> {
    let warnings = config(listen, rest).warnings;
    warnings
        .iter()
        .map(|w| format!("{} {}", w.code, w.key))
        .collect()
}

/// `told` without the places.
fn codes(listen: &str, rest: &str) -> Vec<String> {
    told(listen, rest)
        .iter()
        .map(|line| {
            let mut words = line.split(' ');
            let code = words.next().unwrap();
            format!("{code} {}", words.nth(1).unwrap())
        })
        .collect()
}

fn tls(name: &str) -> TlsFiles {
    TlsFiles {
        certificate: format!("/etc/outgate/{name}.crt").into(),
        key: format!("/etc/outgate/{name}.key").into(),
    }
}

#[test]
fn doors_and_ways_arrive_as_they_are_written() {
    let config = parse(EVERY_KEY).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(
        config.listen.xds,
        Some(PlaneDoor {
            place: DoorPlace::Tcp {
                address: "127.0.0.1:18000".parse().unwrap(),
                tls: tls("tls/xds"),
                client_ca: "/etc/outgate/tls/planes.pem".into(),
            },
            clients: vec!["envoy-1".to_owned(), "envoy-2.example.org".to_owned()],
        })
    );
    assert_eq!(
        config.listen.minter,
        Some(PlaneDoor {
            place: DoorPlace::Socket("/etc/outgate/run/minter.sock".into()),
            clients: Vec::new(),
        })
    );
    assert_eq!(config.ca, Some(tls("ca/tls")));
    assert_eq!(
        config.minter,
        Some(MinterSource {
            address: PlaneAddress::Tcp {
                host: "::1".to_owned(),
                port: 9445,
                ca: "/etc/outgate/minter.pem".into(),
                identity: tls("tls/gateway"),
                server_name: Some("minter.example.org".to_owned()),
            },
            leaf_ca: "/etc/outgate/ca.crt".into(),
        })
    );
    assert_eq!(
        config.envoy,
        Some(EnvoyConfig {
            proxy: ["127.0.0.1:10000", "[::1]:10000"]
                .map(|it| it.parse().unwrap())
                .to_vec(),
            transparent: vec!["127.0.0.1:15001".parse().unwrap()],
            admin: Some(EnvoyAdmin::Tcp("127.0.0.1:9901".parse().unwrap())),
            control: Some(PlaneAddress::Tcp {
                host: "control.example.org".to_owned(),
                port: 18000,
                ca: "/etc/outgate/envoy/ca.pem".into(),
                identity: tls("envoy/tls"),
                server_name: Some("xds.example.org".to_owned()),
            }),
            scrub: true,
        })
    );
    let planes = |name: &str| config.credential_planes.get(&CredentialName::new(name));
    assert_eq!(planes("maps").unwrap(), &["envoy-1"]);
    assert_eq!(
        planes("store").unwrap(),
        &["envoy-1", "envoy-2.example.org"]
    );
    assert_eq!(planes("forge"), None);
}

#[test]
fn the_short_forms_have_the_documented_defaults() {
    let config = config(
        "xds: { socket: /run/x.sock }",
        "envoy: { transparent: 127.0.0.1:15001 }",
    );
    assert_eq!(config.warnings, []);
    assert!(config.listen.proxy.is_empty());
    assert_eq!(
        config.listen.xds.unwrap().place,
        DoorPlace::Socket("/run/x.sock".into())
    );
    let envoy = config.envoy.unwrap();
    assert!(envoy.scrub && envoy.proxy.is_empty());
    assert_eq!((envoy.admin, envoy.control), (None, None));
    assert_eq!((config.minter, config.listen.minter), (None, None));
}

#[test]
fn ways_are_told_as_places() {
    let way = |host: &str| PlaneAddress::Tcp {
        host: host.to_owned(),
        port: 443,
        ca: "a".into(),
        identity: tls("x"),
        server_name: None,
    };
    for (address, text) in [
        (
            PlaneAddress::Socket("/run/x.sock".into()),
            "unix:/run/x.sock",
        ),
        (way("a.example.org"), "a.example.org:443"),
        (way("10.0.0.1"), "10.0.0.1:443"),
        (way("::1"), "[::1]:443"),
    ] {
        assert_eq!(address.to_string(), text);
    }
}

#[test]
fn a_file_needs_some_door() {
    let xds = "xds: { socket: x }";
    for ok in [
        "proxy: 127.0.0.1:1",
        "transparent: 127.0.0.1:1",
        xds,
        "minter: { socket: x }",
        "control: { address: 127.0.0.1:1, certificate: c, key: k, client_ca: a }",
        "proxy: 127.0.0.1:1, xds: { socket: x }, minter: { socket: y }",
    ] {
        assert_eq!(told(ok, ""), [""; 0], "{ok}");
    }
    for (listen, expected) in [
        ("max_connections: 5", "missing_key 2:9 listen"),
        (
            "operator: { address: 127.0.0.1:1, certificate: c, key: k }",
            "missing_key 2:9 listen",
        ),
        ("metrics: 127.0.0.1:1", "missing_key 2:9 listen"),
        ("xsd: { socket: x }", "unknown_key 2:11 listen.xsd"),
    ] {
        assert_eq!(told(listen, "")[0], expected, "{listen}");
    }
    // An address that the schema refuses as well.
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let with = |listen: serde_json::Value| serde_json::json!({ "version": 1, "listen": listen });
    assert!(!validator.is_valid(&with(serde_json::json!({ "max_connections": 5 }))));
    assert!(validator.is_valid(&with(serde_json::json!({ "xds": { "socket": "x" } }))));
    assert!(validator.is_valid(&with(serde_json::json!({ "minter": { "socket": "x" } }))));
    let control = serde_json::json!({ "address": "127.0.0.1:1", "certificate": "c", "key": "k", "client_ca": "a" });
    assert!(validator.is_valid(&with(serde_json::json!({ "control": control }))));
}

#[test]
fn what_is_captured_arrives_where_nothing_else_does() {
    for (listen, expected) in [
        (
            "proxy: 127.0.0.1:1, transparent: [127.0.0.1:2, \"[::1]:2\"]",
            "",
        ),
        (
            "proxy: 127.0.0.1:1, transparent: 127.0.0.1:1",
            "same_address 2:44 listen.transparent",
        ),
        (
            "proxy: 127.0.0.1:1, transparent: [127.0.0.1:2, \"[::]:1\"]",
            "same_address 2:58 listen.transparent[1]",
        ),
        (
            "transparent: 127.0.0.1:2, metrics: 127.0.0.1:2",
            "same_address 2:46 listen.metrics",
        ),
        ("transparent: []", "empty_list 2:24 listen.transparent"),
        (
            "transparent: here",
            "invalid_socket 2:24 listen.transparent",
        ),
    ] {
        let problems = told(listen, "");
        assert_eq!(problems.first().map_or("", |it| it), expected, "{listen}");
    }
    let beyond = config("transparent: 0.0.0.0:1", "");
    let codes: Vec<_> = beyond.warnings.iter().map(|it| it.code).collect();
    assert_eq!(codes, ["listens_beyond_loopback"]);
    let next = config("transparent: 127.0.0.1:1", "");
    assert_eq!(beyond.restart_needed(&next), ["listen.transparent"]);
}

#[test]
fn a_door_is_a_socket_or_an_address_with_mutual_tls() {
    let long = format!("xds: {{ socket: /{} }}", "x".repeat(107));
    let table = [
        ("xds: {}", "one_place 2:16 listen.xds"),
        ("xds: { certificate: c }", "one_place 2:16 listen.xds"),
        ("xds: { sokcet: x }", "unknown_key 2:18 listen.xds.sokcet"),
        (
            "xds: { socket: \"\" }",
            "invalid_path 2:26 listen.xds.socket",
        ),
        (
            "xds: { socket: x, address: 127.0.0.1:1 }",
            "one_place 2:16 listen.xds",
        ),
        (
            "xds: { socket: x, certificate: c }",
            "no_such_use 2:29 listen.xds.certificate",
        ),
        (
            "xds: { socket: x, key: k }",
            "no_such_use 2:29 listen.xds.key",
        ),
        (
            "xds: { socket: x, client_ca: a }",
            "no_such_use 2:29 listen.xds.client_ca",
        ),
        (
            "xds: { socket: x, clients: a }",
            "no_such_use 2:29 listen.xds.clients",
        ),
        (&long, "socket_path_too_long 2:26 listen.xds.socket"),
        (
            "xds: { address: 127.0.0.1:1, key: k, client_ca: a }",
            "missing_key 2:16 listen.xds",
        ),
        (
            "xds: { address: 127.0.0.1:1, certificate: c, client_ca: a }",
            "missing_key 2:16 listen.xds",
        ),
        (
            "xds: { address: 127.0.0.1:1, certificate: c, key: k }",
            "missing_key 2:16 listen.xds",
        ),
        (
            "minter: { address: \"x.example.org:1\", certificate: c, key: k, client_ca: a }",
            "invalid_socket 2:30 listen.minter.address",
        ),
        (
            "minter: { address: 127.0.0.1:1, certificate: c, key: k, client_ca: a, clients: [] }",
            "empty_list 2:90 listen.minter.clients",
        ),
        (
            "minter: { address: 127.0.0.1:1, certificate: c, key: k, client_ca: a, clients: [b, b] }",
            "duplicate_value 2:94 listen.minter.clients[1]",
        ),
        (
            "minter: { address: 127.0.0.1:1, certificate: c, key: k, client_ca: a, clients: \"b c\" }",
            "invalid_client 2:90 listen.minter.clients",
        ),
    ];
    for (listen, expected) in table {
        assert_eq!(told(listen, ""), [expected], "{listen}");
    }
    let fits = format!("xds: {{ socket: /{} }}", "x".repeat(106));
    assert_eq!(told(&fits, ""), [""; 0]);
    assert_eq!(
        told("xds: { address: 127.0.0.1:1 }", "").len(),
        3,
        "all that is missing is told at once"
    );
}

#[test]
fn a_relative_socket_is_measured_with_its_folder() {
    let text = file("xds: { socket: x.sock }", "");
    let folder = format!("/{}", "d".repeat(99));
    let at = |folder: &str| Config::parse("f", &text, Path::new(folder)).map(|it| it.warnings);
    assert!(at(&folder).is_ok(), "100 + 1 + 6 bytes");
    let problems = at(&format!("{folder}d")).unwrap_err();
    assert_eq!(problems.as_slice()[0].code, "socket_path_too_long");
}

#[test]
fn each_door_has_a_place_of_its_own() {
    for (listen, expected) in [
        (
            format!("proxy: 127.0.0.1:1, xds: {{ address: 127.0.0.1:1, {TLS} }}"),
            "same_address listen.xds.address",
        ),
        (
            format!("proxy: 0.0.0.0:1, minter: {{ address: 127.0.0.1:1, {TLS} }}"),
            "same_address listen.minter.address",
        ),
        (
            format!(
                "xds: {{ address: 127.0.0.1:1, {TLS} }}, minter: {{ address: 127.0.0.1:1, {TLS} }}"
            ),
            "same_address listen.minter.address",
        ),
        (
            format!(
                "proxy: 127.0.0.1:1, control: {{ address: 127.0.0.1:2, {TLS} }}, xds: {{ address: 127.0.0.1:2, {TLS} }}"
            ),
            "same_address listen.xds.address",
        ),
        (
            "xds: { socket: x }, minter: { socket: x }".to_owned(),
            "same_address listen.minter.socket",
        ),
    ] {
        assert_eq!(codes(&listen, ""), [expected], "{listen}");
    }
    let both = format!(
        "xds: {{ address: 127.0.0.1:0, {TLS} }}, minter: {{ address: 127.0.0.1:0, {TLS} }}"
    );
    assert_eq!(told(&both, ""), [""; 0]);
}

#[test]
fn a_server_is_a_socket_or_a_host_and_a_port_with_mutual_tls() {
    let minter = |keys: &str| {
        codes(
            "proxy: 127.0.0.1:1",
            &format!("minter: {{ leaf_ca: l, {keys} }}"),
        )
    };
    for (address, host) in [
        ("a.example.org:1", "a.example.org"),
        ("A.Example.org.:1", "a.example.org"),
        ("bücher.example:1", "xn--bcher-kva.example"),
        ("localhost:1", "localhost"),
        ("10.0.0.1:1", "10.0.0.1"),
        ("[2001:DB8::1]:1", "2001:db8::1"),
    ] {
        let keys = format!("minter: {{ leaf_ca: l, address: \"{address}\", {MUTUAL} }}");
        let config = config("proxy: 127.0.0.1:1", &keys);
        let PlaneAddress::Tcp {
            host: got, port, ..
        } = config.minter.unwrap().address
        else {
            unreachable!("{address} became a socket");
        };
        assert_eq!((got.as_str(), port), (host, 1), "{address}");
    }
    for address in [
        "a.example.org",
        "a.example.org:",
        ":1",
        "a.example.org:0",
        "a.example.org:65536",
        "a.example.org:+1",
        "https://a.example.org:1",
        "user@a.example.org:1",
        "::1:1",
        "[::1]",
        "0.0.0.0:1",
        "[::]:1",
        "[fe80::1%3]:1",
        "127.1:1",
        "a b.example.org:1",
        "*.example.org:1",
    ] {
        let told = minter(&format!("address: \"{address}\", {MUTUAL}"));
        assert_eq!(told, ["invalid_server minter.address"], "{address}");
    }
    for (keys, expected) in [
        ("", "one_place minter"),
        ("socket: x, address: a.example.org:1", "one_place minter"),
        ("socket: x, ca: a", "no_such_use minter.ca"),
        (
            "socket: x, server_name: a",
            "no_such_use minter.server_name",
        ),
        (
            "address: a.example.org:1, certificate: c, key: k",
            "missing_key minter",
        ),
        (
            "address: a.example.org:1, ca: a, key: k",
            "missing_key minter",
        ),
        (
            "address: a.example.org:1, ca: a, certificate: c",
            "missing_key minter",
        ),
        (
            "address: a.example.org:1, ca: a, certificate: c, key: k, server_name: a.example.org:1",
            "invalid_server_name minter.server_name",
        ),
        (
            "address: a.example.org:1, ca: a, certificate: c, key: k, server_name: \"*.example.org\"",
            "invalid_server_name minter.server_name",
        ),
    ] {
        assert_eq!(minter(keys), [expected], "{keys}");
    }
    assert_eq!(
        codes("proxy: 127.0.0.1:1", "minter: { socket: x }"),
        ["missing_key minter"]
    );
}

#[test]
fn nothing_comes_from_the_gateways_own_door() {
    let minter = "minter: { leaf_ca: l, socket: x }";
    assert_eq!(codes("xds: { socket: x }", minter), ["own_door minter"]);
    assert_eq!(codes("xds: { socket: y }", minter), [""; 0]);
    assert_eq!(
        codes("proxy: 127.0.0.1:1, minter: { socket: x }", minter),
        [""; 0],
        "the minter reads the same file"
    );
    let sds = "credentials: { k: { from: { sds: { socket: x, name: n } } } }";
    assert_eq!(
        codes("xds: { socket: x }", sds),
        ["own_door credentials.k.from.sds"]
    );
    let xds = format!("xds: {{ address: 127.0.0.1:5, {TLS} }}");
    let way = |port: u16| format!("minter: {{ leaf_ca: l, address: 127.0.0.1:{port}, {MUTUAL} }}");
    assert_eq!(codes(&xds, &way(5)), ["own_door minter"]);
    assert_eq!(codes(&xds, &way(6)), [""; 0]);
}

#[test]
fn envoys_listeners_are_apart_from_each_other() {
    let xds = "xds: { socket: x }";
    for (envoy, expected) in [
        ("{}", "missing_key envoy"),
        ("{ scrub: true }", "missing_key envoy"),
        ("{ proxi: 127.0.0.1:1 }", "unknown_key envoy.proxi"),
        (
            "{ transparnt: 127.0.0.1:1 }",
            "unknown_key envoy.transparnt",
        ),
        ("{ proxy: [] }", "empty_list envoy.proxy"),
        ("{ proxy: \"localhost:1\" }", "invalid_socket envoy.proxy"),
        (
            "{ proxy: [127.0.0.1:1, 127.0.0.1:1] }",
            "duplicate_value envoy.proxy[1]",
        ),
        (
            "{ proxy: 127.0.0.1:1, transparent: 127.0.0.1:1 }",
            "same_address envoy.transparent",
        ),
        (
            "{ proxy: 0.0.0.0:1, transparent: 127.0.0.1:1 }",
            "same_address envoy.transparent",
        ),
        (
            "{ proxy: 127.0.0.1:1, admin: { address: 127.0.0.1:1 } }",
            "same_address envoy.admin.address",
        ),
        (
            "{ proxy: 127.0.0.1:1, admin: 127.0.0.1:2 }",
            "wrong_type envoy.admin",
        ),
        ("{ proxy: 127.0.0.1:1, admin: {} }", "one_place envoy.admin"),
        (
            "{ proxy: 127.0.0.1:1, admin: { address: 127.0.0.1:2, socket: a } }",
            "one_place envoy.admin",
        ),
        (
            "{ proxy: 127.0.0.1:1, admin: { address: localhost } }",
            "invalid_socket envoy.admin.address",
        ),
        (
            "{ proxy: 127.0.0.1:1, admin: { address: 127.0.0.1:0 } }",
            "invalid_socket envoy.admin.address",
        ),
        (
            "{ proxy: 127.0.0.1:1, admin: { socket: x } }",
            "same_address envoy.admin.socket",
        ),
        (
            "{ proxy: 127.0.0.1:1, control: {} }",
            "one_place envoy.control",
        ),
        (
            "{ proxy: 127.0.0.1:1, scrub: \"true\" }",
            "wrong_type envoy.scrub",
        ),
    ] {
        assert_eq!(
            codes(xds, &format!("envoy: {envoy}")),
            [expected],
            "{envoy}"
        );
    }
    for ok in [
        "{ proxy: 0.0.0.0:1 }",
        "{ proxy: 127.0.0.1:0, transparent: 127.0.0.1:0, admin: { address: 127.0.0.1:2 } }",
        "{ proxy: 127.0.0.1:1, admin: { socket: y }, control: { socket: /mnt/x } }",
    ] {
        assert_eq!(warned(xds, &format!("envoy: {ok}")), [""; 0], "{ok}");
    }
}

#[test]
fn envoy_has_a_way_to_its_control_plane() {
    let tcp = format!("xds: {{ address: 127.0.0.1:5, {TLS} }}");
    let envoy = "envoy: { proxy: 127.0.0.1:1 }";
    assert_eq!(codes(&tcp, envoy), ["missing_key envoy"]);
    let with = |control: &str| format!("envoy: {{ proxy: 127.0.0.1:1, control: {control} }}");
    let way = with(&format!("{{ address: 127.0.0.1:5, {MUTUAL} }}"));
    let socket = with("{ socket: y }");
    assert_eq!(warned(&tcp, &way), [""; 0]);
    assert_eq!(warned(&tcp, &socket), ["other_kind_of_place envoy.control"]);
    assert_eq!(
        warned("xds: { socket: x }", &way),
        ["other_kind_of_place envoy.control"]
    );
    assert_eq!(
        codes(&tcp, &with("{ sokcet: y }")),
        ["unknown_key envoy.control.sokcet"],
        "one mistake is told once"
    );
    assert_eq!(
        warned("proxy: 127.0.0.1:2", envoy),
        ["envoy_without_xds envoy"]
    );
}

#[test]
fn what_two_listeners_on_one_machine_could_not_do_is_warned_of() {
    let xds = format!("xds: {{ address: 127.0.0.1:5, {TLS} }}");
    let control = format!("control: {{ address: 127.0.0.1:9, {MUTUAL} }}");
    for (listen, envoy, expected) in [
        (
            "proxy: 127.0.0.1:1, xds: { socket: x }",
            "proxy: 127.0.0.1:1",
            "envoy_at_own_address envoy.proxy",
        ),
        (
            "proxy: 127.0.0.1:1, xds: { socket: x }",
            "proxy: [127.0.0.1:2, 0.0.0.0:1]",
            "envoy_at_own_address envoy.proxy[1]",
        ),
        (
            &xds,
            &format!("proxy: 127.0.0.1:5, {control}"),
            "envoy_at_own_address envoy.proxy",
        ),
        (
            "xds: { socket: x }",
            "proxy: 127.0.0.1:1, admin: { address: 0.0.0.0:2 }",
            "listens_beyond_loopback envoy.admin.address",
        ),
    ] {
        let told = warned(listen, &format!("envoy: {{ {envoy} }}"));
        assert_eq!(told, [expected], "{envoy}");
    }
}

#[test]
fn answers_that_are_not_scrubbed_are_told_where_something_could_come_back() {
    let credential = "credentials: { k: { from: { env: A } } }";
    let injects = "destinations: [{ host: a.test }, { host: b.test, inject: { credential: k, header: x-k } }]";
    let none = "destinations: [{ host: a.test }]";
    let warned = |scrub: &str, rest: &str| -> Vec<String> {
        let text = format!(
            "version: 1\nlisten: {{ xds: {{ socket: x }} }}\nenvoy: {{ proxy: 127.0.0.1:1{scrub} }}\n{credential}\n{rest}\n"
        );
        let config = parse(&text).unwrap_or_else(|problems| unreachable!("{text}\n{problems}"));
        assert_eq!(config.envoy.unwrap().scrub, !scrub.contains("false"));
        let warnings = config.warnings.iter();
        warnings
            .map(|it| format!("{} {}", it.code, it.key))
            .collect()
    };
    for (scrub, rest, expected) in [
        (", scrub: false", injects, &["not_scrubbed envoy.scrub"][..]),
        (", scrub: false", none, &[]),
        (", scrub: true", injects, &[]),
        ("", injects, &[]),
    ] {
        assert_eq!(warned(scrub, rest), expected, "{scrub} {rest}");
    }
    // Where the rules come from elsewhere, a credential is what tells.
    let follows = "control: { url: \"https://a.test\", ca: a, certificate: c, key: k }";
    let told = warned(", scrub: false", follows);
    assert_eq!(told, ["not_scrubbed envoy.scrub"]);
}

#[test]
fn a_credential_of_another_process_has_a_place_and_a_name() {
    let source = |from: &str| {
        codes(
            "xds: { socket: x }",
            &format!("credentials: {{ k: {{ from: {{ {from} }} }} }}"),
        )
    };
    for ok in [
        "sds: { socket: y, name: n }",
        "sds: { socket: y, name: \"spiffe://a/b\", max_age: 1s }",
        "sds: { address: a.example.org:1, ca: a, certificate: c, key: k, name: n, max_age: 24h }",
    ] {
        assert_eq!(source(ok), [""; 0], "{ok}");
    }
    for (from, expected) in [
        ("", "one_source credentials.k.from"),
        (
            "env: A, sds: { socket: y, name: n }",
            "one_source credentials.k.from",
        ),
        (
            "file: A, sds: { socket: y, name: n }",
            "one_source credentials.k.from",
        ),
        ("env: A, file: B", "one_source credentials.k.from"),
        ("sds: { socket: y }", "missing_key credentials.k.from.sds"),
        ("sds: { name: n }", "one_place credentials.k.from.sds"),
        (
            "sds: { socket: y, name: \"\" }",
            "invalid_secret_name credentials.k.from.sds.name",
        ),
        (
            "sds: { socket: y, name: \"a b\" }",
            "invalid_secret_name credentials.k.from.sds.name",
        ),
        (
            "sds: { socket: y, name: n, max_age: 0s }",
            "out_of_range credentials.k.from.sds.max_age",
        ),
        (
            "sds: { socket: y, name: n, max_age: 25h }",
            "out_of_range credentials.k.from.sds.max_age",
        ),
        (
            "sds: { socket: y, name: n, max_age: 1 }",
            "invalid_duration credentials.k.from.sds.max_age",
        ),
        (
            "sds: { socket: y, nmae: n }",
            "unknown_key credentials.k.from.sds.nmae",
        ),
        (
            "sds: { address: a, ca: a, certificate: c, key: k, name: n }",
            "invalid_server credentials.k.from.sds.address",
        ),
    ] {
        assert_eq!(source(from), [expected], "{from}");
    }
    // A secret of another kind stands in a variable or a file.
    let header = "audit: { export: [{ name: a, otlp: \"https://a.example.org\", headers: { x-a: { sds: { socket: s, name: n } } } }] }";
    assert_eq!(codes("proxy: 127.0.0.1:1", header).len(), 1);
}

#[test]
fn a_credential_that_nothing_injects_is_of_use_to_data_planes_alone() {
    let credential = "credentials: { k: { from: { env: A } } }";
    assert_eq!(
        codes("proxy: 127.0.0.1:1", credential),
        ["unused_credential credentials.k"]
    );
    assert_eq!(
        codes("proxy: 127.0.0.1:1, minter: { socket: x }", credential),
        ["unused_credential credentials.k"]
    );
    assert_eq!(
        warned("proxy: 127.0.0.1:1, xds: { socket: x }", credential),
        [""; 0]
    );
}

#[test]
fn data_planes_are_told_apart_by_names_that_they_show() {
    let planes =
        |planes: &str| format!("credentials: {{ k: {{ from: {{ env: A }}, planes: {planes} }} }}");
    let all = format!("xds: {{ address: 127.0.0.1:5, {TLS} }}");
    let some = format!("xds: {{ address: 127.0.0.1:5, {TLS}, clients: [envoy-1, envoy-2] }}");
    let one = format!("xds: {{ address: 127.0.0.1:5, {TLS}, clients: envoy-1 }}");
    for listen in [&all, &some, &one] {
        assert_eq!(warned(listen, &planes("envoy-1")), [""; 0], "{listen}");
    }
    for (listen, written, expected) in [
        (
            "proxy: 127.0.0.1:1",
            "envoy-1",
            "unused_credential credentials.k",
        ),
        (
            "xds: { socket: x }",
            "envoy-1",
            "planes_on_socket credentials.k.planes",
        ),
        (all.as_str(), "[]", "empty_list credentials.k.planes"),
        (
            all.as_str(),
            "[a, a]",
            "duplicate_value credentials.k.planes[1]",
        ),
        (
            all.as_str(),
            "\"a b\"",
            "invalid_plane credentials.k.planes",
        ),
    ] {
        assert_eq!(
            codes(listen, &planes(written))[0],
            expected,
            "{listen} {written}"
        );
    }
    let told = codes("proxy: 127.0.0.1:1", &planes("envoy-1"));
    assert_eq!(told[1], "planes_without_xds credentials.k.planes");
    let warnings = config(&some, &planes("[envoy-1, envoi-2, other]")).warnings;
    let told: Vec<_> = warnings
        .iter()
        .map(|it| (it.code, &*it.key, &*it.help))
        .collect();
    assert_eq!(
        told,
        [
            (
                "unknown_plane",
                "credentials.k.planes[1]",
                "did you mean `envoy-2`?"
            ),
            (
                "unknown_plane",
                "credentials.k.planes[2]",
                "add the name to `listen.xds.clients`"
            ),
        ]
    );
}

#[test]
fn what_is_written_under_credentials_is_never_repeated() {
    let long = format!("sds: {{ socket: /{}SECRET, name: n }}", "x".repeat(110));
    for from in [
        "sds: { SECRET-0123456789 }",
        "sds: SECRET",
        "sds: { socket: y, name: \"SECRET SECRET\" }",
        "sds: { address: SECRET, ca: a, certificate: c, key: k, name: n }",
        "sds: { address: a.example.org:1, server_name: \"SECRET:1\", ca: a, certificate: c, key: k, name: n }",
        "sds: { socket: y, name: n, max_age: SECRET }",
        &long,
        "env: A }, planes: [\"SECRET SECRET\"], x: { a: 1",
        "env: A }, planes: [SECRET, SECRET], x: { a: 1",
    ] {
        let text = file(
            &format!("xds: {{ address: 127.0.0.1:5, {TLS} }}"),
            &format!("credentials: {{ k: {{ from: {{ {from} }} }} }}"),
        );
        let problems = parse(&text).unwrap_err();
        let json = serde_json::to_string(&problems).unwrap();
        assert!(!problems.to_string().contains("SECRET"), "{problems}");
        assert!(!json.contains("SECRET"), "{json}");
    }
}

#[test]
fn a_gateway_that_follows_another_one_may_be_a_control_plane_of_envoys() {
    let control = "control: { url: \"https://c.example.org\", ca: a, certificate: b, key: k }";
    let text = format!(
        "version: 1\nlisten: {{ xds: {{ socket: x }} }}\nenvoy: {{ proxy: 127.0.0.1:1 }}\n\
        credentials: {{ k: {{ from: {{ sds: {{ socket: s, name: n }} }} }} }}\n{control}\n"
    );
    let document = config("proxy: 127.0.0.1:1", "")
        .shared_document()
        .to_owned();
    let followed = Config::parse_following("f", &text, Path::new("/g"), &document).unwrap();
    assert!(followed.listen.xds.is_some() && followed.envoy.is_some());
    let source = &followed.credentials[&CredentialName::new("k")];
    assert!(matches!(source, CredentialSource::Sds(_)));
    assert_eq!(followed.policy.len(), 1);
}

#[test]
fn a_ca_is_a_certificate_and_its_key() {
    let listen = "proxy: 127.0.0.1:0";
    for (ca, expected) in [
        ("{}", "missing_key ca"),
        ("{ certificate: c }", "missing_key ca"),
        ("{ key: k }", "missing_key ca"),
        (
            "{ certificate: \"\", key: k }",
            "invalid_path ca.certificate",
        ),
        ("{ certificate: c, key: \"\" }", "invalid_path ca.key"),
        (
            "{ certificate: c, key: k, chain: x }",
            "unknown_key ca.chain",
        ),
    ] {
        let told = codes(listen, &format!("ca: {ca}"));
        assert!(told.contains(&expected.to_owned()), "{ca}: {told:?}");
    }
    // The process that mints and the gateways that ask it may have one file.
    let both = config(
        listen,
        "ca: { certificate: c, key: k }\nminter: { socket: m, leaf_ca: c }",
    );
    assert!(both.ca.is_some() && both.minter.is_some() && both.warnings.is_empty());
}
