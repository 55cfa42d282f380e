//! What is refused, where it is said to be, and what stays allowed beside it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy knows test functions, not their helpers"
)]

use std::path::Path;

use outgate_config::{Config, Problems};

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse("outgate.yaml", text, Path::new("/etc/outgate"))
}

/// `code line:column key` of every problem.
fn told(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .iter()
            .map(|p| format!("{} {}:{} {}", p.code, p.line, p.column, p.key))
            .collect(),
    }
}

/// The codes for a file that is sound but for `rest`, which begins in line 3.
fn told_about(rest: &str) -> Vec<String> {
    told(&format!(
        "version: 1\nlisten: {{ proxy: 127.0.0.1:8080 }}\n{rest}"
    ))
}

fn warned(rest: &str) -> Vec<String> {
    let text = format!("version: 1\nlisten: {{ proxy: 127.0.0.1:8080 }}\n{rest}");
    let warnings = parse(&text).unwrap().warnings;
    warnings
        .iter()
        .map(|w| format!("{} {}:{} {}", w.code, w.line, w.column, w.key))
        .collect()
}

#[track_caller]
fn check(table: &[(&str, &[&str])]) {
    for (rest, expected) in table {
        assert_eq!(told_about(rest), *expected, "{rest}");
    }
}

#[test]
fn the_shape_is_checked_and_every_mistake_has_its_place() {
    for (text, expected) in [
        ("", &["missing_key 1:1 "][..]),
        ("[]", &["wrong_type 1:1 "]),
        ("hello", &["wrong_type 1:1 "]),
        (
            "version: 2\nlisten: { proxy: 127.0.0.1:1 }",
            &["unsupported_version 1:10 version"],
        ),
        ("version: 1\nlisten: {}", &["missing_key 2:9 listen"]),
        ("version: 1\nlisten:", &["empty_value 2:7 listen"]),
        (
            "version: 1\nlisten: { proxi: 127.0.0.1:1 }",
            &["unknown_key 2:11 listen.proxi"],
        ),
        (
            "versoin: 1\nlisten: { proxy: 127.0.0.1:1 }",
            &["unknown_key 1:1 versoin"],
        ),
        (
            "version: \"1\"\nlisten: { proxy: 127.0.0.1:1 }",
            &["wrong_type 1:10 version"],
        ),
        (
            "version: 1\nlisten: { proxy: [] }",
            &["empty_list 2:18 listen.proxy"],
        ),
        (
            "version: 1\nlisten: { proxy: localhost:80 }",
            &["invalid_socket 2:18 listen.proxy"],
        ),
        (
            "version: 1\nlisten: { proxy: [127.0.0.1:1, 127.0.0.1:1] }",
            &["duplicate_value 2:32 listen.proxy[1]"],
        ),
        (
            "version: 1\nlisten: { proxy: 127.0.0.1:1, max_connections: 0 }",
            &["out_of_range 2:48 listen.max_connections"],
        ),
        (
            "version: 1\nlisten: { proxy: 127.0.0.1:1",
            &["syntax 2:29 "],
        ),
        ("\"a", &["syntax 1:1 "]),
    ] {
        assert_eq!(told(text), *expected, "{text}");
    }
}

#[test]
fn yaml_surprises_are_refused() {
    check(&[
        (
            "posture: auto\nposture: bump\n",
            &["duplicate_key 4:1 posture"],
        ),
        ("posture: &p auto\n", &["anchor 3:10 posture"]),
        (
            "posture: &p auto\nstate_dir: *p\n",
            &["anchor 3:10 posture", "alias 4:12 state_dir"],
        ),
        ("<<: { posture: auto }\n", &["merge_key 3:1 "]),
        ("posture: !!str auto\n", &["tag 3:10 posture"]),
        ("[a]: b\n", &["key_not_text 3:1 "]),
        ("~: b\n", &["key_not_text 3:1 "]),
        ("posture: ~\n", &["empty_value 3:10 posture"]),
        ("destinations:\n", &["empty_value 3:13 destinations"]),
        ("---\nversion: 1\n", &["several_documents 3:1 "]),
        ("posture: yes\n", &["unknown_word 3:10 posture"]),
        (
            "destinations: [{ host: a.example.org, plaintext: yes }]\n",
            &["wrong_type 3:50 destinations[0].plaintext"],
        ),
    ]);
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    assert_eq!(
        told_about(&format!("x: {deep}"))[0].split(' ').next(),
        Some("too_deep")
    );
    let large = format!("version: 1 #{}", "x".repeat(outgate_config::MAX_FILE_BYTES));
    assert_eq!(told(&large), ["file_too_large 1:1 "]);
}

#[test]
fn hosts_are_names_and_wildcards_have_one_owner() {
    let host = |text: &str| told_about(&format!("destinations:\n  - host: {text}\n"));
    for ok in [
        "api.example.org",
        "API.Example.org",
        "\"*.example.org\"",
        "\"*.api.example.co.uk\"",
        "bücher.example",
        "localhost",
        "\"*.internal.example\"",
    ] {
        assert!(host(ok).is_empty(), "{ok}: {:?}", host(ok));
    }
    for (code, text) in [
        ("wildcard_over_public_suffix", "\"*.com\""),
        ("wildcard_over_public_suffix", "\"*.co.uk\""),
        ("wildcard_over_public_suffix", "\"*.test\""),
        ("wildcard_over_public_suffix", "\"*.internal\""),
        ("wildcard_over_public_suffix", "\"*.github.io\""),
        ("host_is_address", "1.2.3.4"),
        ("host_is_address", "\"[::1]\""),
        ("host_is_address", "0x7f000001"),
        ("host_is_address", "\"*.0.0.1\""),
        ("invalid_host", "https://api.example.org/v1"),
        ("invalid_host", "api.example.org/v1"),
        ("invalid_host", "api.example.org:443"),
        ("invalid_host", "\"*\""),
        ("invalid_host", "\"a.*.example.org\""),
        ("invalid_host", "\"**.example.org\""),
        ("invalid_host", "a b"),
        ("invalid_host", "\"\""),
    ] {
        assert_eq!(
            host(text),
            [format!("{code} 4:11 destinations[0].host")],
            "{text}"
        );
    }
    assert_eq!(
        told_about("destinations:\n  - ports: 443\n"),
        ["missing_key 4:5 destinations[0]"]
    );
}

#[test]
fn ports_are_numbers_that_occur_once() {
    check(&[
        (
            "destinations: [{ host: a.example.org, ports: [0, 443, 443] }]",
            &[
                "invalid_port 3:47 destinations[0].ports[0]",
                "duplicate_value 3:55 destinations[0].ports[2]",
            ],
        ),
        (
            "destinations: [{ host: a.example.org, ports: [] }]",
            &["empty_list 3:46 destinations[0].ports"],
        ),
        (
            "destinations: [{ host: a.example.org, ports: [70000, \"443\", -1, x] }]",
            &[
                "wrong_type 3:47 destinations[0].ports[0]",
                "wrong_type 3:54 destinations[0].ports[1]",
                "wrong_type 3:61 destinations[0].ports[2]",
                "wrong_type 3:65 destinations[0].ports[3]",
            ],
        ),
    ]);
}

#[test]
fn two_destinations_for_one_host_and_port_contradict_each_other() {
    let text = "destinations:\n  - host: a.example.org\n    ports: [443, 8443]\n  - { host: A.example.org., ports: 8443 }\n  \
                - { host: a.example.org, ports: 80, plaintext: true }\n  - host: \"*.example.org\"\n";
    assert_eq!(
        told_about(text),
        ["contradicting_destinations 6:13 destinations[1].host"]
    );
    let full = format!("version: 1\nlisten: {{ proxy: 127.0.0.1:8080 }}\n{text}");
    let problems = parse(&full).unwrap_err();
    assert!(
        problems.as_slice()[0].message.contains("lines 4 and 6"),
        "{problems}"
    );
}

#[test]
fn a_credential_and_its_destination_need_each_other() {
    check(&[
        (
            "credentials: { k: { from: { env: K } } }\ndestinations: [{ host: a.example.org }]",
            &["unused_credential 3:16 credentials.k"],
        ),
        (
            "credentials: { anthropic: { from: { env: K } } }\ndestinations: [{ host: a.example.org, inject: { credential: antropic, header: x-api-key } }]",
            &[
                "unused_credential 3:16 credentials.anthropic",
                "unknown_credential 4:61 destinations[0].inject.credential",
            ],
        ),
        (
            "credentials: { k: { from: {} } }\ndestinations: [{ host: a.example.org, inject: { credential: k, query: key } }]",
            &["one_source 3:27 credentials.k.from"],
        ),
        (
            "credentials: { k: { from: { env: A, file: b } } }\ndestinations: [{ host: a.example.org, inject: { credential: k, query: key } }]",
            &["one_source 3:27 credentials.k.from"],
        ),
        (
            "credentials: { k: { from: { env: sk-123 } } }\ndestinations: [{ host: a.example.org, inject: { credential: k, query: key } }]",
            &["invalid_env_name 3:34 credentials.k.from.env"],
        ),
        (
            "credentials: { \"a b\": { from: { env: K } } }\ndestinations: [{ host: a.example.org, inject: { credential: a b, query: key } }]",
            &["invalid_credential_name 3:16 credentials[\"a b\"]"],
        ),
    ]);
}

/// A destination that injects credential `k`; the rest of the flow mapping begins in line 5, column 3.
fn told_about_injection(destination: &str, inject: &str) -> Vec<String> {
    told_about(&format!(
        "credentials: {{ k: {{ from: {{ env: K }} }} }}\ndestinations: [{{ host: a.example.org,\n  {destination}\n  \
         inject: {{ credential: k,\n {inject} }} }}]"
    ))
}

#[test]
fn forms_of_injection_are_checked() {
    let at = "destinations[0].inject";
    for ok in [
        "header: x-api-key",
        "header: Authorization",
        "header: authorization, template: \"token {credential}\"",
        "header: x-a, template: \"{credential}\"",
        "basic: x-access-token",
        "query: key",
        "query: $key",
    ] {
        assert!(
            told_about_injection("", ok).is_empty(),
            "{ok}: {:?}",
            told_about_injection("", ok)
        );
    }
    for (inject, expected) in [
        ("", format!("one_form 6:11 {at}")),
        ("header: x-a, query: b", format!("one_form 6:11 {at}")),
        ("basic: a:b", format!("invalid_username 7:9 {at}.basic")),
        (
            "basic: \"a\\nb\"",
            format!("invalid_username 7:9 {at}.basic"),
        ),
        ("query: a=b", format!("invalid_parameter 7:9 {at}.query")),
        ("query: \"\"", format!("invalid_parameter 7:9 {at}.query")),
        (
            "query: k, template: \"{credential}\"",
            format!("template_without_header 7:22 {at}.template"),
        ),
        (
            "header: x-a, template: Bearer",
            format!("template_placeholder 7:25 {at}.template"),
        ),
        (
            "header: x-a, template: \"{credential}{credential}\"",
            format!("template_placeholder 7:25 {at}.template"),
        ),
        (
            "header: x-a, template: \"a\\r\\nb: {credential}\"",
            format!("invalid_template 7:25 {at}.template"),
        ),
        (
            "header: x-a, template: \" {credential}\"",
            format!("invalid_template 7:25 {at}.template"),
        ),
        (
            "header: x-a, template: \"{credential}ä\"",
            format!("invalid_template 7:25 {at}.template"),
        ),
        (
            "header: \"x a\"",
            format!("invalid_header 7:10 {at}.header"),
        ),
        (
            "header: x-a, over_plaintext: true",
            format!("over_plaintext_without_plaintext 7:31 {at}.over_plaintext"),
        ),
    ] {
        assert_eq!(told_about_injection("", inject), [expected], "{inject}");
    }
    for name in [
        "Host",
        "content-length",
        "TE",
        "transfer-encoding",
        "connection",
        "upgrade",
        "keep-alive",
        "trailer",
        "proxy-authorization",
        "proxy-connection",
        "expect",
    ] {
        let expected = format!("reserved_header 7:10 {at}.header");
        assert_eq!(
            told_about_injection("", &format!("header: {name}")),
            [expected],
            "{name}"
        );
    }
}

#[test]
fn what_a_rung_cannot_keep_is_refused() {
    let inject = "header: x-a";
    for posture in [
        "posture: pass-through,",
        "posture: deny-all,",
        "protocol: opaque,",
    ] {
        assert_eq!(
            told_about_injection(posture, inject),
            ["inject_needs_bump 6:11 destinations[0].inject"],
            "{posture}"
        );
    }
    assert!(told_about_injection("posture: bump,", inject).is_empty());
    assert!(
        told_about_injection("plaintext: true,", "header: x-a, over_plaintext: true").is_empty()
    );
    let one = |rest: &str| {
        told_about(&format!(
            "destinations: [{{ host: a.example.org, {rest} }}]"
        ))
    };
    for ok in [
        "posture: bump",
        "posture: bump, allow: [{ methods: GET }]",
        "plaintext: true, ports: 80, allow: [{ methods: GET }]",
        "posture: deny-all, allow: [{ methods: GET }]",
        "protocol: opaque, ports: [5432]",
        "plaintext: true",
    ] {
        assert!(one(ok).is_empty(), "{ok}: {:?}", one(ok));
    }
    for (rest, expected) in [
        (
            "allow: [{ methods: GET }]",
            "rules_need_bump 3:46 destinations[0].allow",
        ),
        (
            "deny: [{ methods: GET }]",
            "rules_need_bump 3:45 destinations[0].deny",
        ),
        (
            "posture: pass-through, deny: [{ methods: GET }]",
            "rules_need_bump 3:68 destinations[0].deny",
        ),
        (
            "plaintext: true, allow: [{ methods: GET }]",
            "rules_need_bump 3:63 destinations[0].allow",
        ),
        (
            "limits: { requests: 1/s }",
            "limit_needs_bump 3:59 destinations[0].limits.requests",
        ),
        (
            "protocol: opaque, posture: bump",
            "opaque_bump 3:49 destinations[0].protocol",
        ),
        (
            "protocol: opaque, allow: [{ methods: GET }]",
            "opaque_with_request_rules 3:64 destinations[0].allow",
        ),
    ] {
        assert_eq!(one(rest), [expected], "{rest}");
    }
}

#[test]
fn the_default_posture_counts_like_a_written_one() {
    check(&[
        (
            "posture: bump\ndestinations: [{ host: a.example.org, allow: [{ methods: GET }] }]",
            &[],
        ),
        (
            "posture: pass-through\ncredentials: { k: { from: { env: K } } }\ndestinations: [{ host: a.example.org, inject: { credential: k, query: q } }]",
            &["inject_needs_bump 5:47 destinations[0].inject"],
        ),
    ]);
}

#[test]
fn request_rules_say_something() {
    let one = |rest: &str| {
        told_about(&format!(
            "destinations: [{{ host: a.example.org, posture: bump,\n {rest} }}]"
        ))
    };
    for (rest, expected) in [
        ("allow: []", "empty_list 4:9 destinations[0].allow"),
        ("allow: [{}]", "empty_rule 4:10 destinations[0].allow[0]"),
        (
            "deny: [{ methods: [] }]",
            "empty_list 4:20 destinations[0].deny[0].methods",
        ),
        (
            "deny: [{ headers: {} }]",
            "empty_list 4:20 destinations[0].deny[0].headers",
        ),
        (
            "allow: [{ methods: [GET, get] }]",
            "invalid_method 4:27 destinations[0].allow[0].methods[1]",
        ),
        (
            "allow: [{ methods: \"*\" }]",
            "invalid_method 4:21 destinations[0].allow[0].methods",
        ),
        (
            "allow: [{ methods: [GET, GET] }]",
            "duplicate_value 4:27 destinations[0].allow[0].methods[1]",
        ),
        (
            "allow: [{ paths: v1 }]",
            "invalid_path_pattern 4:19 destinations[0].allow[0].paths",
        ),
        (
            "allow: [{ paths: [/a/../b] }]",
            "invalid_path_pattern 4:20 destinations[0].allow[0].paths[0]",
        ),
        (
            "allow: [{ paths: [/a**] }]",
            "invalid_path_pattern 4:20 destinations[0].allow[0].paths[0]",
        ),
        (
            "allow: [{ headers: { \"x y\": a } }]",
            "invalid_header 4:23 destinations[0].allow[0].headers[\"x y\"]",
        ),
        (
            "allow: [{ headers: { X-A: a, x-a: b } }]",
            "duplicate_header 4:31 destinations[0].allow[0].headers.x-a",
        ),
        (
            "allow: [{ headers: { x-a: \" a\" } }]",
            "invalid_header_value 4:28 destinations[0].allow[0].headers.x-a",
        ),
        (
            "allow: [{ methods: [GET, PUT] }], deny: [{ methods: [PUT, GET] }]",
            "contradicting_requests 4:10 destinations[0].allow[0]",
        ),
    ] {
        assert_eq!(one(rest), [expected], "{rest}");
    }
    assert!(one("allow: [{ methods: GET }], deny: [{ methods: GET, paths: /x }]").is_empty());
    assert!(one("allow: [{ headers: { x-a: [], x-b: 7 } }]").is_empty());
}

#[test]
fn exceptions_that_cannot_work_are_refused() {
    for base in ["resolver", "destinations[0].addresses"] {
        let told = |ranges: &str| {
            told_about(&if base == "resolver" {
                format!("resolver: {{\n {ranges} }}")
            } else {
                format!("destinations: [{{ host: a.example.org, addresses: {{\n {ranges} }} }}]")
            })
        };
        for ok in [
            "allow: 10.0.0.0/24",
            "allow: [127.0.0.1, \"::1\", \"fd00::/8\"], deny: [127.0.0.2]",
            "allow: [169.254.0.0/16]",
            "deny: [169.254.169.254, \"::ffff:1.2.3.4\"]",
            "allow: []",
        ] {
            assert!(told(ok).is_empty(), "{base} {ok}: {:?}", told(ok));
        }
        for (ranges, code) in [
            (
                "allow: 169.254.169.254/32",
                "range_never_dialled 4:9 %.allow",
            ),
            (
                "allow: [224.0.0.0/24]",
                "range_never_dialled 4:10 %.allow[0]",
            ),
            (
                "allow: [\"fd00:ec2::254\"]",
                "range_never_dialled 4:10 %.allow[0]",
            ),
            (
                "allow: [\"ff02::/16\"]",
                "range_never_dialled 4:10 %.allow[0]",
            ),
            ("allow: [0.0.0.0]", "range_never_dialled 4:10 %.allow[0]"),
            (
                "allow: [\"::ffff:10.0.0.0/104\"]",
                "range_without_effect 4:10 %.allow[0]",
            ),
            ("allow: [10.0.0.7/24]", "invalid_range 4:10 %.allow[0]"),
            ("deny: [example.org]", "invalid_range 4:9 %.deny[0]"),
            (
                "allow: [10.0.0.1, 10.0.0.1/32]",
                "duplicate_value 4:20 %.allow[1]",
            ),
            (
                "allow: [10.0.0.1], deny: [10.0.0.0/8]",
                "contradicting_ranges 4:10 %.allow[0]",
            ),
        ] {
            assert_eq!(told(ranges), [code.replace('%', base)], "{ranges}");
        }
    }
}

#[test]
fn the_resolver_and_the_rest_are_checked() {
    check(&[
        (
            "resolver: { servers: 1.1.1.1 }",
            &["invalid_socket 3:22 resolver.servers"],
        ),
        (
            "resolver: { servers: [1.1.1.1:0] }",
            &["invalid_port 3:23 resolver.servers[0]"],
        ),
        (
            "resolver: { hosts: { a.example.org: x } }",
            &["invalid_address 3:37 resolver.hosts[\"a.example.org\"]"],
        ),
        (
            "resolver: { hosts: { a.example.org: [] } }",
            &["empty_list 3:37 resolver.hosts[\"a.example.org\"]"],
        ),
        (
            "resolver: { hosts: { \"*.example.org\": 1.1.1.1 } }",
            &["invalid_host 3:22 resolver.hosts[\"*.example.org\"]"],
        ),
        (
            "resolver: { hosts: { 10.0.0.1: 1.1.1.1 } }",
            &["invalid_host 3:22 resolver.hosts[\"10.0.0.1\"]"],
        ),
        (
            "resolver: { hosts: { A.example.org: 1.1.1.1, a.example.org: 1.1.1.1 } }",
            &["duplicate_host 3:46 resolver.hosts[\"a.example.org\"]"],
        ),
        (
            "sessions: { ttl: 61m }",
            &["out_of_range 3:18 sessions.ttl"],
        ),
        (
            "sessions: { ttl: 999ms }",
            &["out_of_range 3:18 sessions.ttl"],
        ),
        (
            "sessions: { ttl: 30 }",
            &["invalid_duration 3:18 sessions.ttl"],
        ),
        (
            "sessions: { token_headers: [Host, x-a, X-A] }",
            &[
                "reserved_header 3:29 sessions.token_headers[0]",
                "duplicate_value 3:40 sessions.token_headers[2]",
            ],
        ),
        (
            "sessions: { limits: { requests: 10, bytes_out: 1gig, concurrent_connections: 0 } }",
            &[
                "invalid_rate 3:33 sessions.limits.requests",
                "invalid_size 3:48 sessions.limits.bytes_out",
                "out_of_range 3:78 sessions.limits.concurrent_connections",
            ],
        ),
        (
            "timeouts: { head: 0s, idle: 25h }",
            &[
                "out_of_range 3:19 timeouts.head",
                "out_of_range 3:29 timeouts.idle",
            ],
        ),
        (
            "upstream: { roots: none }",
            &["no_roots 3:20 upstream.roots"],
        ),
        (
            "upstream: { min_tls: 1.1 }",
            &["unknown_word 3:22 upstream.min_tls"],
        ),
        (
            "upstream: { extra_roots: [a.pem, a.pem] }",
            &["duplicate_value 3:34 upstream.extra_roots[1]"],
        ),
        ("state_dir: \"\"", &["invalid_path 3:12 state_dir"]),
        ("audit: { dir: \"\" }", &["invalid_path 3:15 audit.dir"]),
        (
            "audit: {}\nupstream: { roots: none, extra_roots: a.pem }",
            &[],
        ),
    ]);
}

#[test]
fn what_is_valid_but_hardly_meant_is_a_warning() {
    for (rest, expected) in [
        ("", &["nothing_allowed 1:1 destinations"][..]),
        (
            "destinations: [{ host: a.example.org, ports: 80 }]",
            &["tls_on_port_80 3:46 destinations[0].ports"],
        ),
        (
            "destinations: [{ host: a.example.org, posture: bump, encrypted_client_hello: true }]",
            &["no_effect 3:78 destinations[0].encrypted_client_hello"],
        ),
        (
            "destinations: [{ host: a.example.org }]\nresolver: { allow: 0.0.0.0/0 }",
            &["range_very_wide 4:20 resolver.allow"],
        ),
        (
            "destinations: [{ host: a.example.org }]\nresolver: { hosts: { a.example.org: [1.1.1.1, 10.0.0.7] } }",
            &["host_will_be_denied 4:47 resolver.hosts[\"a.example.org\"][1]"],
        ),
        (
            "destinations: [{ host: a.example.org }]\nresolver: { hosts: { a.example.org: 10.0.0.7 }, allow: 10.0.0.0/24 }",
            &[],
        ),
        (
            "destinations: [{ host: a.example.org, addresses: { allow: 10.0.0.7 } }]\nresolver: { hosts: { a.example.org: 10.0.0.7 } }",
            &[],
        ),
    ] {
        assert_eq!(warned(rest), *expected, "{rest}");
    }
    let wide = parse(
        "version: 1\nlisten: { proxy: [127.0.0.1:1, 0.0.0.0:2] }\ndestinations: [{ host: a.example.org }]",
    );
    let warnings = wide.unwrap().warnings;
    assert_eq!(
        (warnings.len(), warnings[0].code, &*warnings[0].key),
        (1, "listens_beyond_loopback", "listen.proxy[1]")
    );
}

#[test]
fn one_mistake_is_told_once() {
    check(&[
        // The misspelt key is what is missing.
        (
            "credentials: { k: { from: { env: K } } }\ndestinations:\n  - hots: a.example.org\n    inject: { credental: k, header: x-a }\n",
            &[
                "unused_credential 3:16 credentials.k",
                "unknown_key 5:5 destinations[0].hots",
                "unknown_key 6:15 destinations[0].inject.credental",
            ],
        ),
        // Without its posture the entry would look unsound.
        (
            "destinations: [{ host: a.example.org, posture: bmup, allow: [{ methods: GET }] }]",
            &["unknown_word 3:48 destinations[0].posture"],
        ),
        // A list whose items were refused is not an empty list, and the others keep their places.
        (
            "destinations: [{ host: a.example.org, ports: [x], posture: bump, allow: [7, { methods: get }] }]",
            &[
                "wrong_type 3:47 destinations[0].ports[0]",
                "wrong_type 3:74 destinations[0].allow[0]",
                "invalid_method 3:88 destinations[0].allow[1].methods",
            ],
        ),
        // A credential whose source was refused is known all the same.
        (
            "credentials: { k: { from: 7 } }\ndestinations: [{ host: a.example.org, inject: { credential: k, header: x-a } }]",
            &["wrong_type 3:27 credentials.k.from"],
        ),
    ]);
}

const FIVE_PROBLEMS: &str = "\
version: 1
listen: { proxy: 127.0.0.1:8080, max_conections: 5 }
credentials:
  anthropic: { from: sk-ant-secret }
destinations:
  - host: \"*.com\"
  - host: api.anthropic.com
    inject: { credential: anthropic, header: x-api-key, template: sk-ant-secret }
    allow: [{ methods: [get], paths: [/v1/**] }]
";

#[test]
fn a_person_reads_every_problem_with_its_line_and_what_to_write() {
    let expected = "\
outgate.yaml:2:34: unknown key `max_conections` [unknown_key]
  2 | listen: { proxy: 127.0.0.1:8080, max_conections: 5 }
    |                                  ^
  key:  listen.max_conections
  help: did you mean `max_connections`?

outgate.yaml:4:22: this value does not fit here [wrong_type]
  key:  credentials.anthropic.from
  help: write a mapping, `key: value`

outgate.yaml:6:11: names directly below `com` belong to many owners [wildcard_over_public_suffix]
  6 |   - host: \"*.com\"
    |           ^
  key:  destinations[0].host
  help: write the names one by one, or a wildcard below a name of one owner, as in `*.api.example.org`

outgate.yaml:8:67: a template has `{credential}` exactly once [template_placeholder]
  key:  destinations[1].inject.template
  help: write for example \"Bearer {credential}\"; the secret itself does not belong in this file

outgate.yaml:9:25: not a method [invalid_method]
  9 |     allow: [{ methods: [get], paths: [/v1/**] }]
    |                         ^
  key:  destinations[1].allow[0].methods[0]
  help: methods are case-sensitive: write `GET`

5 problems in outgate.yaml";
    assert_eq!(parse(FIVE_PROBLEMS).unwrap_err().to_string(), expected);
}

#[test]
fn a_program_reads_the_same_and_nobody_reads_a_secret() {
    let problems = parse(FIVE_PROBLEMS).unwrap_err();
    let json = serde_json::to_value(&problems).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 5);
    assert_eq!(
        json[0],
        serde_json::json!({
            "code": "unknown_key", "line": 2, "column": 34, "key": "listen.max_conections",
            "message": "unknown key `max_conections`", "help": "did you mean `max_connections`?"
        })
    );
    for text in [
        problems.to_string(),
        format!("{problems:?}"),
        json.to_string(),
    ] {
        assert!(!text.contains("sk-ant"), "{text}");
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    for rest in [
        "credentials: { k: SECRET }",
        "credentials: { k: { from: SECRET } }",
        "credentials: { k: { from: { SECRET } } }",
        "credentials: { k: { from: { SECRET: 1 } } }",
        "credentials: { k: { from: { env: SECRET-1 } } }",
        "credentials: { k: { from: { value: SECRET } } }",
        "credentials: { k: { value: SECRET } }",
        "credentials: { k: { from: { env: [SECRET] } } }",
        "credentials: { k: { from: &a SECRET } }",
        "destinations: [{ host: a.example.org, posture: x, inject: { credential: SECRET, header: x-a } }]",
        "destinations: [{ host: a.example.org, posture: x, inject: { header: \"x-a: SECRET\" } }]",
        "destinations: [{ hots: x, inject: { credential: k, header: x-a, template: SECRET } }]",
    ] {
        let text = format!("version: 1\nlisten: {{ proxy: 127.0.0.1:8080 }}\n{rest}");
        let problems = parse(&text).unwrap_err();
        let json = serde_json::to_string(&problems).unwrap();
        assert!(!problems.to_string().contains("SECRET"), "{problems}");
        assert!(!json.contains("SECRET"), "{json}");
    }
}

#[test]
fn there_is_a_bound_on_how_many_problems_are_looked_for() {
    let many: String = (0..1000).map(|n| format!("wrong{n}: 1\n")).collect();
    let told = told_about(&many);
    assert!((50..60).contains(&told.len()), "{}", told.len());
}

#[test]
fn long_lines_are_cut_around_the_caret() {
    let text = format!(
        "version: 1\nlisten: {{ proxy: [{}, x] }}",
        "\"127.0.0.1:1\"".to_owned() + &" ".repeat(500)
    );
    let shown = parse(&text).unwrap_err().to_string();
    assert!(shown.lines().all(|line| line.len() < 160), "{shown}");
    assert!(shown.contains(", x] }"), "{shown}");
}

#[test]
fn services_are_held_to_what_destinations_are() {
    let service =
        |rest: &str| format!("services: {{ extra: [{{ name: a, variables: A, {rest} }}] }}\n");
    let sound = "destinations: [{ host: a.test, inject: { header: x } }]";
    for (rest, expected) in [
        (
            "services: { knwon: true }\n".to_owned(),
            "unknown_key 3:13 services.knwon",
        ),
        (
            service("destinations: []"),
            "empty_list 3:60 services.extra[0].destinations",
        ),
        (
            service("destinations: [{ host: a.test }]"),
            "service_without_inject 3:60 services.extra[0].destinations",
        ),
        (
            service("destinations: [{ host: a.test, inject: { } }]"),
            "one_form 3:85 services.extra[0].destinations[0].inject",
        ),
        (
            service("destinations: [{ host: a.test, inject: { credential: a, header: x } }]"),
            "unknown_key 3:87 services.extra[0].destinations[0].inject.credential",
        ),
        (
            service(
                "destinations: [{ host: a.test, inject: { header: x } }, { host: A.test., inject: { header: x } }]",
            ),
            "contradicting_destinations 3:110 services.extra[0].destinations[1].host",
        ),
        (
            service("destinations: [{ host: '*.com', inject: { header: x } }]"),
            "wildcard_over_public_suffix 3:69 services.extra[0].destinations[0].host",
        ),
        (
            service(
                "destinations: [{ host: a.test, inject: { header: x } }, { host: b.test, allow: [{ methods: GET }] }]",
            ),
            "rules_need_bump 3:125 services.extra[0].destinations[1].allow",
        ),
        (
            format!("services: {{ extra: [{{ name: a b, variables: A, {sound} }}] }}\n"),
            "invalid_service_name 3:29 services.extra[0].name",
        ),
        (
            format!("services: {{ extra: [{{ name: a, variables: [A, A], {sound} }}] }}\n"),
            "duplicate_value 3:47 services.extra[0].variables[1]",
        ),
        (
            format!(
                "services: {{ extra: [{{ name: a, variables: A, {sound} }}, {{ name: a, variables: B, destinations: [{{ host: b.test, inject: {{ header: x }} }}] }}] }}\n"
            ),
            "duplicate_service 3:113 services.extra[1].name",
        ),
    ] {
        assert_eq!(told_about(&rest), [expected], "{rest}");
    }
    assert_eq!(told_about(&service(sound)), [""; 0]);
}

#[test]
fn a_key_in_place_of_its_variable_is_never_repeated() {
    let text = "version: 1
listen: { proxy: 127.0.0.1:1 }
services:
  extra:
    - name: a
      variables: [sk-live-1]
      destinations: [{ host: a.test, inject: { header: x } }]
    - name: b
      variables: sk-live-2
      destinations:
        - host: b.test
          inject: { header: 'x sk-live-3' }
";
    let problems = parse(text).unwrap_err();
    assert_eq!(problems.as_slice().len(), 3, "{problems}");
    assert!(!problems.to_string().contains("sk-live"), "{problems}");
}
