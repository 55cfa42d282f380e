//! What a run lets out: file, flags and services together, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "clippy knows test functions, not their helpers"
)]

use std::path::Path;

use outgate_config::{Additions, Composed, Config, CredentialUse};
use outgate_journey::{
    destination::identify_connect,
    policy::{CredentialSource, InjectionForm, Policy, Posture},
};

#[derive(Default)]
struct Run<'a> {
    file: Option<&'a str>,
    allow: &'a [&'a str],
    credentials: &'a [&'a str],
    posture: Option<Posture>,
    set: &'a [&'a str],
}

impl Run<'_> {
    fn try_compose(&self) -> Result<Composed, Vec<String>> {
        let owned = |list: &[&str]| list.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
        let base = self.file.map(|rest| {
            let text = format!("version: 1\nlisten: {{ proxy: 127.0.0.1:8080 }}\n{rest}");
            Config::parse("outgate.yaml", &text, Path::new("/etc/outgate")).unwrap()
        });
        let additions = Additions {
            allow: &owned(self.allow),
            credentials: &owned(self.credentials),
            posture: self.posture,
            folder: Path::new("/work-dir"),
            is_set: &|name| self.set.contains(&name),
        };
        Config::compose(base, &additions)
            .map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
    }

    #[track_caller]
    fn compose(&self) -> Composed {
        self.try_compose().unwrap()
    }

    #[track_caller]
    fn refused(&self) -> Vec<String> {
        self.try_compose().unwrap_err()
    }
}

/// `rule` that lets a place out over TLS, with its posture, or the reason for a denial.
fn judged(policy: &Policy, place: &str) -> String {
    let place = if place.contains(':') {
        place.to_owned()
    } else {
        format!("{place}:443")
    };
    match policy.allow(identify_connect(&place).unwrap()) {
        Ok(allowed) => format!("{} {}", allowed.rule().id, allowed.rule().posture.as_str()),
        Err(denial) => denial.code().to_string(),
    }
}

#[track_caller]
fn check(run: &Run<'_>, table: &[(&str, &str)]) {
    let composed = run.compose();
    for (place, expected) in table {
        assert_eq!(judged(&composed.config.policy, place), *expected, "{place}");
    }
}

fn used<'c>(composed: &'c Composed, name: &str) -> &'c CredentialUse {
    let mut found = composed
        .credentials
        .iter()
        .filter(|it| it.name.as_str() == name);
    found
        .next()
        .unwrap_or_else(|| panic!("{name}: {composed:?}"))
}

#[test]
fn without_anything_nothing_is_let_out() {
    let composed = Run::default().compose();
    assert!(composed.config.policy.is_empty() && !composed.config.needs_ca());
    assert!(composed.credentials.is_empty() && composed.notes.is_empty());
}

#[test]
fn flags_let_hosts_out_on_their_ports_alone() {
    let run = Run {
        allow: &[
            "a.test",
            "b.test:8443",
            "*.c.example.org",
            "d.test:80",
            "a.test",
        ],
        ..Run::default()
    };
    check(
        &run,
        &[
            ("a.test", "--allow a.test pass-through"),
            ("a.test:8443", "port_not_allowed"),
            ("b.test:8443", "--allow b.test:8443 pass-through"),
            ("b.test", "port_not_allowed"),
            ("x.c.example.org", "--allow *.c.example.org pass-through"),
            ("c.example.org", "destination_not_allowed"),
            ("e.test", "destination_not_allowed"),
        ],
    );
    let composed = run.compose();
    assert_eq!(composed.config.policy.len(), 4);
    let plain = |place: &str| {
        composed
            .config
            .policy
            .allow(identify_connect(place).unwrap().in_clear())
    };
    assert!(plain("d.test:80").is_ok() && plain("a.test:443").is_err());
    let bumped = Run {
        posture: Some(Posture::Bump),
        ..run
    };
    assert_eq!(
        judged(&bumped.compose().config.policy, "a.test"),
        "--allow a.test bump"
    );
}

#[test]
fn a_key_in_the_environment_lets_its_service_out() {
    let composed = Run {
        set: &["OPENAI_API_KEY", "GITHUB_TOKEN", "GH_TOKEN"],
        ..Run::default()
    }
    .compose();
    let policy = &composed.config.policy;
    for (place, expected) in [
        ("api.openai.com", "service openai: api.openai.com bump"),
        ("github.com", "service github: github.com bump"),
        (
            "codeload.github.com",
            "service github: codeload.github.com pass-through",
        ),
        ("api.anthropic.com", "destination_not_allowed"),
    ] {
        assert_eq!(judged(policy, place), expected);
    }
    assert!(composed.config.needs_ca());
    let github = used(&composed, "github");
    assert_eq!(
        github.source,
        CredentialSource::Env("GITHUB_TOKEN".to_owned())
    );
    assert_eq!(
        github.hosts,
        ["github.com", "api.github.com", "uploads.github.com"]
    );
    assert_eq!(github.token_variables, ["GITHUB_TOKEN", "GH_TOKEN"]);
    assert_eq!(github.secret_variables, ["GITHUB_TOKEN", "GH_TOKEN"]);
    assert_eq!(composed.config.credentials.len(), 2);
    assert_eq!(composed.notes, [""; 0]);
}

#[test]
fn a_flag_gives_a_service_its_key_from_elsewhere() {
    let run = Run {
        credentials: &["openai=env:WORK_KEY", "github=file:gh.key"],
        set: &["WORK_KEY", "GH_TOKEN"],
        ..Run::default()
    };
    let composed = run.compose();
    let openai = used(&composed, "openai");
    assert_eq!(openai.source, CredentialSource::Env("WORK_KEY".to_owned()));
    assert_eq!(openai.token_variables, ["OPENAI_API_KEY", "WORK_KEY"]);
    assert_eq!(openai.secret_variables, ["WORK_KEY"]);
    let github = used(&composed, "github");
    assert_eq!(
        github.source,
        CredentialSource::File("/work-dir/gh.key".into())
    );
    assert_eq!(github.token_variables, ["GITHUB_TOKEN", "GH_TOKEN"]);
    assert_eq!(github.secret_variables, ["GH_TOKEN"]);
}

#[test]
fn a_flag_gives_a_host_a_bearer() {
    let composed = Run {
        credentials: &["x.test=env:X", "y.test:8443=file:/k"],
        set: &["X"],
        allow: &["x.test"],
        ..Run::default()
    }
    .compose();
    assert_eq!(
        judged(&composed.config.policy, "x.test"),
        "--credential x.test bump"
    );
    assert_eq!(
        judged(&composed.config.policy, "y.test:8443"),
        "--credential y.test:8443 bump"
    );
    let forms: Vec<_> = composed
        .config
        .injections()
        .map(|(_, form)| form.clone())
        .collect();
    for form in forms {
        let InjectionForm::Header {
            name,
            prefix,
            suffix,
        } = form
        else {
            panic!("{form:?}")
        };
        assert_eq!(
            (name.as_str(), prefix.as_str(), suffix.as_str()),
            ("authorization", "Bearer ", "")
        );
    }
    assert_eq!(used(&composed, "x.test").token_variables, ["X"]);
    assert_eq!(used(&composed, "y.test:8443").token_variables, [""; 0]);
}

const FILE: &str = "credentials: { own: { from: { env: OWN_KEY } } }
destinations:
  - { host: api.openai.com, inject: { credential: own, header: authorization } }
  - { host: shut.test, posture: deny-all }
  - { host: narrow.test, posture: bump, allow: [{ paths: [/a] }] }
  - { host: '*.wide.example.org', ports: [443, 8443] }
services: { known: true }
";

#[test]
fn the_file_wins_over_what_is_found() {
    let composed = Run {
        file: Some(FILE),
        set: &["OPENAI_API_KEY", "GROQ_API_KEY"],
        ..Run::default()
    }
    .compose();
    assert_eq!(
        judged(&composed.config.policy, "api.openai.com"),
        "destinations[0] api.openai.com bump"
    );
    assert_eq!(
        judged(&composed.config.policy, "api.groq.com"),
        "service groq: api.groq.com bump"
    );
    let left = "service openai: api.openai.com is left to destinations[0] api.openai.com";
    assert!(
        composed.notes.contains(&left.to_owned()),
        "{:?}",
        composed.notes
    );
    assert_eq!(composed.credentials.len(), 2);
    let own = used(&composed, "own");
    assert_eq!(
        (&own.token_variables[..], &own.hosts[..]),
        (
            &["OWN_KEY".to_owned()][..],
            &["api.openai.com".to_owned()][..]
        )
    );
}

#[test]
fn a_flag_names_another_source_for_a_credential_of_the_file() {
    let composed = Run {
        file: Some(FILE),
        credentials: &["own=env:OTHER"],
        set: &["OTHER"],
        ..Run::default()
    }
    .compose();
    let own = used(&composed, "own");
    assert_eq!(own.source, CredentialSource::Env("OTHER".to_owned()));
    assert_eq!(own.secret_variables, ["OTHER", "OWN_KEY"]);
    let in_config = composed.config.credentials.values().next();
    assert_eq!(in_config, Some(&own.source));
}

#[test]
fn a_flag_that_contradicts_the_file_is_refused_and_names_both() {
    for (allow, credentials, rule) in [
        (&["shut.test"][..], &[][..], "destinations[1] shut.test"),
        (&["narrow.test"], &[], "destinations[2] narrow.test"),
        (&[], &["openai=env:X"], "destinations[0] api.openai.com"),
        (&[], &["narrow.test=env:X"], "destinations[2] narrow.test"),
        (
            &[],
            &["a.wide.example.org=env:X"],
            "destinations[3] *.wide.example.org",
        ),
    ] {
        let told = Run {
            file: Some(FILE),
            allow,
            credentials,
            set: &["X"],
            ..Run::default()
        }
        .refused();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].ends_with("[flag_contradicts_file]"), "{told:?}");
        let flag = allow.first().or(credentials.first()).unwrap();
        let flag = flag.split('=').next().unwrap();
        assert!(told[0].contains(rule) && told[0].contains(flag), "{told:?}");
    }
}

#[test]
fn what_the_file_lets_out_already_is_no_contradiction() {
    let composed = Run {
        file: Some(FILE),
        allow: &["api.openai.com", "a.wide.example.org:8443"],
        ..Run::default()
    }
    .compose();
    assert_eq!(composed.config.policy.len(), 4);
    let told = composed
        .notes
        .iter()
        .filter(|it| it.contains("already allowed by"))
        .count();
    assert_eq!(told, 2);
}

#[test]
fn an_added_name_takes_nothing_from_its_wildcard() {
    check(
        &Run {
            file: Some(FILE),
            allow: &["a.wide.example.org:9000"],
            ..Run::default()
        },
        &[
            (
                "a.wide.example.org:9000",
                "--allow a.wide.example.org:9000 pass-through",
            ),
            (
                "a.wide.example.org:8443",
                "destinations[3] *.wide.example.org pass-through",
            ),
            (
                "a.wide.example.org",
                "destinations[3] *.wide.example.org pass-through",
            ),
            ("b.wide.example.org:9000", "port_not_allowed"),
        ],
    );
    check(
        &Run {
            allow: &["*.c.example.org", "a.c.example.org:8443"],
            ..Run::default()
        },
        &[
            ("a.c.example.org", "--allow *.c.example.org pass-through"),
            (
                "a.c.example.org:8443",
                "--allow a.c.example.org:8443 pass-through",
            ),
        ],
    );
}

#[test]
fn a_service_whose_name_the_file_uses_keeps_its_own_key() {
    let file = "credentials: { groq: { from: { env: OTHER } } }
destinations: [{ host: x.test, inject: { credential: groq, header: authorization } }]
services: { known: true }";
    let composed = Run {
        file: Some(file),
        set: &["GROQ_API_KEY"],
        ..Run::default()
    }
    .compose();
    assert_eq!(used(&composed, "groq").hosts, ["x.test"]);
    assert_eq!(used(&composed, "service groq").hosts, ["api.groq.com"]);
}

#[test]
fn the_posture_is_the_additions_own() {
    let keyed = Run {
        set: &["OPENAI_API_KEY"],
        posture: Some(Posture::PassThrough),
        allow: &["a.test"],
        ..Run::default()
    };
    let composed = keyed.compose();
    assert!(!composed.config.needs_ca() && composed.credentials.is_empty());
    assert!(
        composed
            .notes
            .iter()
            .any(|it| it.starts_with("service openai: left out"))
    );
    let shut = Run {
        posture: Some(Posture::DenyAll),
        file: Some(FILE),
        set: &["GROQ_API_KEY"],
        ..Run::default()
    };
    assert_eq!(shut.compose().config.policy.len(), 4);
    for (run, code) in [
        (
            Run {
                posture: Some(Posture::DenyAll),
                allow: &["a.test"],
                ..Run::default()
            },
            "[contradicting_flags]",
        ),
        (
            Run {
                posture: Some(Posture::PassThrough),
                credentials: &["openai=file:/k"],
                ..Run::default()
            },
            "[inject_needs_bump]",
        ),
    ] {
        assert!(run.refused()[0].ends_with(code));
    }
}

#[test]
fn bad_flags_say_what_to_write() {
    for (allow, code, help) in [
        ("https://x.test/", "invalid_host", "write `--allow x.test`"),
        (
            "https://x.test:8443/a?b",
            "invalid_host",
            "write `--allow x.test:8443`",
        ),
        ("http://x.test", "invalid_host", "write `--allow x.test:80`"),
        ("x.test/v1", "invalid_host", "paths are for a file"),
        ("*", "invalid_host", "--learn"),
        ("a*.test", "invalid_host", "exactly one label"),
        ("", "invalid_host", "api.example.org"),
        ("10.0.0.1", "host_is_address", "resolver"),
        ("10.0.0.1:443", "host_is_address", "resolver"),
        ("0x7f.1", "host_is_address", "resolver"),
        ("::1", "host_is_address", "resolver"),
        ("[::1]:443", "host_is_address", "resolver"),
        ("*.com", "wildcard_over_public_suffix", "one by one"),
        (
            "*.github.io:443",
            "wildcard_over_public_suffix",
            "one by one",
        ),
        ("x.test:0", "invalid_port", "x.test:8443"),
        ("x.test:65536", "invalid_port", "x.test:8443"),
        ("x.test:+1", "invalid_port", "x.test:8443"),
        ("x.test:", "invalid_port", "x.test:8443"),
    ] {
        let told = Run {
            allow: &[allow],
            ..Run::default()
        }
        .refused();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].ends_with(&format!("[{code}]")) && told[0].contains(help),
            "{allow}: {told:?}"
        );
    }
    for (credential, code, help) in [
        (
            "opnai=env:X",
            "unknown_credential",
            "did you mean `openai`?",
        ),
        ("zzzzzz=env:X", "unknown_credential", "anthropic"),
        ("openai", "invalid_source", "env:VARIABLE"),
        ("openai=X", "invalid_source", "env:VARIABLE"),
        ("openai=file:", "invalid_source", "file:PATH"),
        ("openai=env:", "invalid_env_name", "env:VARIABLE"),
        ("openai=env:sk-1", "invalid_env_name", "env:VARIABLE"),
        ("openai=env:UNSET", "variable_not_set", "export UNSET"),
    ] {
        let told = Run {
            credentials: &[credential],
            set: &["X"],
            ..Run::default()
        }
        .refused();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].ends_with(&format!("[{code}]")) && told[0].contains(help),
            "{credential}: {told:?}"
        );
    }
    let all = Run {
        allow: &["*", "10.0.0.1"],
        credentials: &["openai=X", "groq=env:X", "groq=env:X"],
        set: &["X"],
        ..Run::default()
    };
    assert_eq!(all.refused().len(), 4);
}

#[test]
fn two_flags_for_one_place_are_refused() {
    let told = Run {
        credentials: &["openai=env:X", "api.openai.com=env:X"],
        set: &["X"],
        ..Run::default()
    }
    .refused();
    assert!(told[0].ends_with("[contradicting_flags]"), "{told:?}");
}

#[test]
fn a_secret_in_the_wrong_place_is_never_repeated() {
    for text in [
        "openai=sk-live-1234",
        "sk-live-1234",
        "sk-live-1234==",
        "openai=env:sk-live-1234",
        "sk-live-1234=env:X",
    ] {
        let run = Run {
            credentials: &[text],
            set: &["X"],
            ..Run::default()
        };
        let told = run.refused().join("\n");
        assert!(!told.contains("sk-live"), "{told}");
    }
}

#[test]
fn warnings_that_a_run_makes_idle_are_left_out() {
    let file = "listen: { proxy: 0.0.0.0:8080 }
version: 1
resolver: { allow: [0.0.0.0/0] }";
    let base = Config::parse("x", file, Path::new("")).unwrap();
    let codes = |allow: &[String]| -> Vec<&str> {
        let additions = Additions {
            allow,
            credentials: &[],
            posture: None,
            folder: Path::new(""),
            is_set: &|_| false,
        };
        let composed = Config::compose(Some(base.clone()), &additions).unwrap();
        composed.config.warnings.iter().map(|it| it.code).collect()
    };
    assert_eq!(base.warnings.len(), 3);
    assert_eq!(codes(&[]).len(), 2);
    assert_eq!(codes(&["a.test".to_owned()]), ["range_very_wide"]);
}

#[test]
fn a_run_uses_nothing_of_operators_and_hides_their_files_all_the_same() {
    let text = include_str!("files/every-key.yaml");
    let file = Config::parse("outgate.yaml", text, Path::new("/etc/outgate")).unwrap();
    let files = file.secret_files();
    let nothing = Additions {
        allow: &["b.example.org".to_owned()],
        credentials: &[],
        posture: None,
        folder: Path::new("/"),
        is_set: &|_| false,
    };
    let (tripwire, named) = (file.policy.tripwire().copied(), file.policy.named().count());
    let Composed { config, notes, .. } = Config::compose(Some(file), &nothing).unwrap();
    assert_eq!(
        (&config.listen.operator, &config.listen.control),
        (&None, &None)
    );
    assert_eq!((&config.listen.xds, &config.listen.minter), (&None, &None));
    assert!(config.listen.transparent.is_empty() && config.listen.metrics.is_empty());
    assert_eq!((&config.minter, &config.envoy), (&None, &None));
    assert_eq!(config.ca, None);
    assert!(config.credential_planes.is_empty());
    assert_eq!(config.operator, Default::default());
    assert!(config.audit.export.is_empty() && config.sessions.issuers.is_empty());
    assert_eq!(config.sessions.lifetime, None);
    assert_eq!(config.secret_files(), files);
    // What bounds a session bounds the run's too.
    assert!(tripwire.is_some() && config.policy.tripwire().copied() == tripwire);
    assert_eq!(config.policy.named().count(), named);
    let told = "not used by a run: `listen.transparent`, `listen.metrics`, `listen.operator`, `listen.control`, `listen.xds`, `listen.minter`, `ca`, `minter`, `inbound`, `envoy`, \
        `credentials.NAME.planes`, `operator`, `sessions.lifetime`, `sessions.view`, `sessions.issuers`, `audit.export`";
    assert!(notes.iter().any(|note| note == told), "{notes:?}");
    let plain = Run {
        file: Some("destinations: [{ host: a.example.org }]"),
        ..Run::default()
    };
    assert_eq!(plain.compose().notes, [""; 0]);
}

#[test]
fn a_run_takes_no_file_that_leaves_its_policy_to_a_control_plane() {
    let file = Some("control: { url: \"https://c.example.org\", ca: a, certificate: b, key: k }");
    let refused = Run {
        file,
        ..Run::default()
    }
    .refused();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].starts_with("what the file lets out comes from https://c.example.org"));
    assert!(refused[0].ends_with("[control_in_run]"), "{refused:?}");
}
