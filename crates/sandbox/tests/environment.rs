//! What a command finds in its environment: no real secret, no way around the gateway, everything else as it was.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy knows test functions, not their helpers"
)]

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
};

use outgate_sandbox::environment::{Isolation, Notes, Plan, Secret, Trust, gateway_variables};

const REAL: &str = "sk-real-0123456789";

fn plan() -> Plan {
    Plan {
        proxy: "127.0.0.1:8080".to_owned(),
        token: Secret::new("TOKEN"),
        token_variables: vec!["OPENAI_API_KEY".to_owned()],
        secrets: vec![Secret::new(REAL)],
        secret_variables: vec!["OPENAI_API_KEY".to_owned(), "WORK_SETTING".to_owned()],
        trust: Some(Trust {
            ca: "/run/x/ca.crt".into(),
            bundle: "/run/x/bundle.pem".into(),
            truststore: Some("/run/x/truststore.jks".into()),
        }),
        isolation: Isolation::Full,
        keep: Vec::new(),
    }
}

type Found = BTreeMap<OsString, OsString>;

fn made(plan: &Plan, caller: &[(&str, &str)]) -> (Found, Notes) {
    let caller = caller
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    let made = plan.environment(caller);
    (made.variables.into_iter().collect(), made.notes)
}

fn value<'f>(found: &'f Found, name: &str) -> Option<&'f str> {
    found.get(OsStr::new(name)).map(|it| it.to_str().unwrap())
}

#[test]
fn the_token_stands_where_the_key_stood() {
    let (found, notes) = made(
        &plan(),
        &[
            ("OPENAI_API_KEY", REAL),
            ("WORK_SETTING", REAL),
            ("HOME", "/h"),
        ],
    );
    assert_eq!(value(&found, "OPENAI_API_KEY"), Some("TOKEN"));
    assert_eq!(value(&found, "OUTGATE_SESSION_TOKEN"), Some("TOKEN"));
    assert_eq!(value(&found, "WORK_SETTING"), None);
    assert_eq!(value(&found, "HOME"), Some("/h"));
    assert_eq!(notes, Notes::default());
    // Also for a key from a file, of which the caller has no variable.
    let (found, _) = made(&plan(), &[]);
    assert_eq!(value(&found, "OPENAI_API_KEY"), Some("TOKEN"));
}

#[test]
fn a_real_secret_is_nowhere() {
    let caller = [
        ("OPENAI_API_KEY", REAL.to_owned()),
        (
            "PIP_INDEX_URL",
            format!("https://u:{REAL}@pypi.test/simple"),
        ),
        ("JAVA_TOOL_OPTIONS", format!("-Dkey={REAL}")),
        ("COPY", format!("{REAL},{REAL}")),
        ("KEPT_KEY", REAL.to_owned()),
    ];
    let caller = caller
        .iter()
        .map(|(name, value)| (name.into(), value.into()));
    let made = Plan {
        keep: vec!["KEPT_KEY".to_owned()],
        ..plan()
    }
    .environment(caller);
    for (name, value) in &made.variables {
        assert!(!value.to_str().unwrap().contains(REAL), "{name:?}");
    }
    assert_eq!(
        made.notes.replaced,
        ["COPY", "JAVA_TOOL_OPTIONS", "KEPT_KEY", "PIP_INDEX_URL"]
    );
    let (arguments, changed) = plan().arguments(["curl".into(), format!("x-key: {REAL}").into()]);
    assert_eq!((arguments[1].to_str(), changed), (Some("x-key: TOKEN"), 1));
    assert!(!format!("{:?}", plan()).contains("sk-real"));
}

#[test]
fn proxies_of_the_caller_are_replaced_and_only_this_machine_is_excepted() {
    let (found, _) = made(
        &Plan {
            keep: vec!["ALL_PROXY".to_owned(), "no_proxy".to_owned()],
            ..plan()
        },
        &[
            ("HTTPS_PROXY", "http://corp:3128"),
            ("https_proxy", "http://corp:3128"),
            ("Http_Proxy", "http://corp:3128"),
            ("ALL_PROXY", "socks5://corp:1080"),
            ("all_proxy", "socks5://corp:1080"),
            ("ftp_proxy", "http://corp:3128"),
            ("npm_config_https_proxy", "http://corp:3128"),
            ("NO_PROXY", "*"),
            ("no_proxy", ".example.org"),
            ("GOPROXY", "https://modules.example"),
        ],
    );
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        assert_eq!(
            value(&found, name),
            Some("http://session:TOKEN@127.0.0.1:8080")
        );
    }
    for name in ["NO_PROXY", "no_proxy"] {
        assert_eq!(value(&found, name), Some("localhost,127.0.0.1,::1"));
    }
    for name in [
        "Http_Proxy",
        "ALL_PROXY",
        "all_proxy",
        "ftp_proxy",
        "npm_config_https_proxy",
    ] {
        assert_eq!(value(&found, name), None, "{name}");
    }
    assert_eq!(value(&found, "GOPROXY"), Some("https://modules.example"));
    assert_eq!(value(&found, "NODE_USE_ENV_PROXY"), Some("1"));
}

#[test]
fn what_replaces_the_roots_gets_the_roots_too() {
    let caller = [
        ("SSL_CERT_FILE", "/corp.pem"),
        ("npm_config_cafile", "/corp.pem"),
    ];
    let (found, _) = made(&plan(), &caller);
    for name in [
        "SSL_CERT_FILE",
        "CURL_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "PIP_CERT",
        "AWS_CA_BUNDLE",
        "CARGO_HTTP_CAINFO",
        "DENO_CERT",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        "NPM_CONFIG_CAFILE",
    ] {
        assert_eq!(value(&found, name), Some("/run/x/bundle.pem"), "{name}");
    }
    assert_eq!(value(&found, "NODE_EXTRA_CA_CERTS"), Some("/run/x/ca.crt"));
    assert_eq!(value(&found, "npm_config_cafile"), None);
    let (found, _) = made(
        &Plan {
            trust: None,
            ..plan()
        },
        &caller,
    );
    assert_eq!(value(&found, "SSL_CERT_FILE"), Some("/corp.pem"));
    assert_eq!(value(&found, "NODE_EXTRA_CA_CERTS"), None);
    assert_eq!(value(&found, "JAVA_TOOL_OPTIONS"), None);
}

#[test]
fn java_keeps_its_options_and_learns_of_the_gateway() {
    let trusting = "-Djavax.net.ssl.trustStore=/run/x/truststore.jks -Djavax.net.ssl.trustStorePassword=changeit -Djavax.net.ssl.trustStoreType=JKS";
    let (found, _) = made(&plan(), &[("JAVA_TOOL_OPTIONS", "-Xmx1g")]);
    assert_eq!(
        value(&found, "JAVA_TOOL_OPTIONS"),
        Some(format!("-Xmx1g {trusting}").as_str())
    );
    let (found, _) = made(&plan(), &[]);
    assert_eq!(value(&found, "JAVA_TOOL_OPTIONS"), Some(trusting));

    let proxied = Plan {
        isolation: Isolation::ProxyOnly,
        trust: None,
        ..plan()
    };
    let (found, _) = made(&proxied, &[]);
    assert_eq!(
        value(&found, "JAVA_TOOL_OPTIONS"),
        Some(
            "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=8080 -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=8080 \
             -Dhttp.nonProxyHosts=localhost|127.0.0.1|[::1]"
        )
    );
    let mut spaced = plan();
    spaced.trust.as_mut().unwrap().truststore = Some("/a b/t.jks".into());
    let (found, _) = made(&spaced, &[]);
    let options = value(&found, "JAVA_TOOL_OPTIONS").unwrap();
    assert!(
        options.starts_with("\"-Djavax.net.ssl.trustStore=/a b/t.jks\" "),
        "{options}"
    );
}

#[test]
fn handles_and_what_is_named_like_a_secret_stay_outside_unless_kept() {
    let caller = [
        ("SSH_AUTH_SOCK", "/run/ssh"),
        ("DOCKER_HOST", "unix:///run/docker.sock"),
        ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/bus"),
        ("STRIPE_SECRET_KEY", "sk_live_1"),
        ("PGPASSWORD", "p"),
        ("EMPTY_TOKEN", ""),
        ("OUTGATE_STATE_DIR", "/state"),
        ("OUTGATE_CONFIG", "/c"),
        ("OUTGATE_SESSION_TOKEN", "outer"),
        ("GPG_KEY", "E3FF2839C048B25C084DEBE9B26995E310250568"),
        ("TERM", "xterm"),
    ];
    let (found, notes) = made(&plan(), &caller);
    assert_eq!(notes.withheld, ["PGPASSWORD", "STRIPE_SECRET_KEY"]);
    assert_eq!(
        notes.agents,
        ["DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST", "SSH_AUTH_SOCK"]
    );
    for (name, _) in &caller {
        let stays = ["EMPTY_TOKEN", "GPG_KEY", "TERM", "OUTGATE_SESSION_TOKEN"].contains(name);
        assert_eq!(value(&found, name).is_some(), stays, "{name}");
    }
    assert_eq!(value(&found, "OUTGATE_SESSION_TOKEN"), Some("TOKEN"));
    let lines = notes.lines();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains("PGPASSWORD, STRIPE_SECRET_KEY") && !lines[0].contains("sk_live"));

    let keep = [
        "SSH_AUTH_SOCK",
        "PGPASSWORD",
        "OUTGATE_STATE_DIR",
        "OPENAI_API_KEY",
    ]
    .map(str::to_owned)
    .to_vec();
    let (found, _) = made(&Plan { keep, ..plan() }, &caller);
    assert_eq!(value(&found, "SSH_AUTH_SOCK"), Some("/run/ssh"));
    assert_eq!(value(&found, "PGPASSWORD"), Some("p"));
    assert_eq!(value(&found, "OUTGATE_STATE_DIR"), None);
    assert_eq!(value(&found, "OPENAI_API_KEY"), Some("TOKEN"));
}

#[test]
fn what_is_no_text_survives() {
    let odd = OsStr::from_bytes(b"a\xff\xfeb").to_owned();
    let caller = [(odd.clone(), odd.clone()), ("X".into(), odd.clone())];
    let made = plan().environment(caller);
    let found: Found = made.variables.into_iter().collect();
    assert_eq!(found.get(&odd), Some(&odd));
    assert_eq!(found.get(OsStr::new("X")), Some(&odd));
}

#[test]
fn both_commands_use_one_table() {
    let plan = plan();
    let (found, _) = made(&plan, &[]);
    for (name, value) in gateway_variables(&plan.proxy, "TOKEN".as_ref(), plan.trust.as_ref()) {
        assert_eq!(found.get(OsStr::new(name)), Some(&value), "{name}");
    }
}
