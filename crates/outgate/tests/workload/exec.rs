//! `outgate exec`: the command has its token, is started as it is written, and ends as itself.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use outgate_testkit::CommandOutput;

use super::support::{file, gateway, outgate, token};

/// `outgate exec -- COMMAND…` with the variables that the manifests set.
fn exec(token: &Path, command: &[&str]) -> Command {
    let mut run = outgate(&["exec", "--"]);
    run.args(command)
        .env("OUTGATE_PROXY", "10.96.0.7:8080")
        .env("OUTGATE_SESSION_TOKEN_FILE", token)
        .env(
            "OUTGATE_TOKEN_VARIABLES",
            "ANTHROPIC_API_KEY,OPENAI_API_KEY",
        )
        .env("SSL_CERT_FILE", "/etc/outgate/trust/bundle.pem")
        .env("HTTPS_PROXY", "http://10.96.0.7:8080")
        .env("KEPT_PASSWORD", "of the pod");
    run
}

fn code(command: &mut Command) -> Option<i32> {
    CommandOutput::of(command).code
}

#[test]
fn the_command_has_the_token_where_programs_look_for_it() {
    let token = file(b"T0KEN\n");
    let output = CommandOutput::of(&mut exec(token.path(), &["env"]));
    assert_eq!(output.code, Some(0), "{output:?}");
    let lines: Vec<_> = output.stdout.lines().collect();
    for expected in [
        "ANTHROPIC_API_KEY=T0KEN",
        "OPENAI_API_KEY=T0KEN",
        "OUTGATE_SESSION_TOKEN=T0KEN",
        "HTTPS_PROXY=http://session:T0KEN@10.96.0.7:8080",
        "https_proxy=http://session:T0KEN@10.96.0.7:8080",
        "NO_PROXY=localhost,127.0.0.1,::1",
        "NODE_USE_ENV_PROXY=1",
        "SSL_CERT_FILE=/etc/outgate/trust/bundle.pem",
        "KEPT_PASSWORD=of the pod",
        "OUTGATE_PROXY=10.96.0.7:8080",
    ] {
        assert!(lines.contains(&expected), "{expected}: {lines:#?}");
    }
    let java = lines.iter().find(|it| it.starts_with("JAVA_TOOL_OPTIONS="));
    assert!(java.unwrap().contains("-Dhttps.proxyHost=10.96.0.7"));
}

#[test]
fn the_token_is_read_anew_each_time() {
    let token = file(b"first");
    let command = ["printenv", "OUTGATE_SESSION_TOKEN"];
    assert_eq!(
        CommandOutput::of(&mut exec(token.path(), &command)).stdout,
        "first\n"
    );
    fs::write(token.path(), "second").unwrap();
    assert_eq!(
        CommandOutput::of(&mut exec(token.path(), &command)).stdout,
        "second\n"
    );
}

#[test]
fn arguments_are_handed_on_as_they_are() {
    let token = file(b"T0KEN");
    let words = ["printf", "%s|", "a b", "$HOME", "*", "--json", "", "--"];
    let output = CommandOutput::of(&mut exec(token.path(), &words));
    assert_eq!(output.stdout, "a b|$HOME|*|--json||--|", "{output:?}");
}

#[test]
fn it_becomes_the_command() {
    let token = file(b"T0KEN");
    let mut child = exec(token.path(), &["sleep", "60"]).spawn().unwrap();
    let own = format!("/proc/{}/comm", child.id());
    let name = || fs::read_to_string(&own).unwrap_or_default();
    for _ in 0..500 {
        if name() == "sleep\n" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(name(), "sleep\n");
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert_eq!(
        code(&mut exec(token.path(), &["sh", "-c", "exit 7"])),
        Some(7)
    );
}

#[test]
fn what_cannot_be_started_has_a_shells_status() {
    let token = file(b"T0KEN");
    let plain = file(b"data");
    fs::set_permissions(plain.path(), fs::Permissions::from_mode(0o644)).unwrap();
    for (command, status) in [
        ("no-such-command", 127),
        ("/nowhere/command", 127),
        ("/etc/passwd/command", 127),
        (plain.path().to_str().unwrap(), 126),
        ("/tmp", 126),
    ] {
        let output = CommandOutput::of(&mut exec(token.path(), &[command]));
        assert_eq!(output.code, Some(status), "{command}: {output:?}");
        assert!(output.stderr.contains(command), "{output:?}");
        assert!(!output.stderr.contains("T0KEN"), "{output:?}");
    }
}

#[test]
fn nothing_is_started_without_a_token() {
    let marker = tempfile::tempdir().unwrap();
    let started = marker.path().join("started");
    let touch = ["touch", started.to_str().unwrap()];
    let good = file(b"T0KEN");
    let (empty, two) = (file(b"\n"), file(b"two tokens"));
    let nowhere = Path::new("/nowhere/token");
    for bad in [nowhere, empty.path(), two.path(), Path::new("/")] {
        assert_eq!(code(&mut exec(bad, &touch)), Some(125), "{bad:?}");
    }
    for missing in ["OUTGATE_PROXY", "OUTGATE_SESSION_TOKEN_FILE"] {
        assert_eq!(
            code(exec(good.path(), &touch).env_remove(missing)),
            Some(125),
            "{missing}"
        );
    }
    for (name, value) in [
        ("OUTGATE_PROXY", "$(OUTGATE_SERVICE_HOST):8080"),
        ("OUTGATE_PROXY", "http://10.96.0.7:8080"),
        ("OUTGATE_TOKEN_VARIABLES", "A=B"),
    ] {
        assert_eq!(
            code(exec(good.path(), &touch).env(name, value)),
            Some(125),
            "{value}"
        );
    }
    assert!(!started.exists());
    assert_eq!(code(&mut exec(good.path(), &touch)), Some(0));
    assert!(started.exists());
}

#[test]
fn names_of_variables_are_optional() {
    let token = file(b"T0KEN");
    let mut run = exec(token.path(), &["printenv", "ANTHROPIC_API_KEY"]);
    assert_eq!(code(run.env_remove("OUTGATE_TOKEN_VARIABLES")), Some(1));
}

#[test]
fn an_unmodified_program_goes_out_by_the_gateway() {
    let gateway = gateway();
    let token = token(&gateway);
    let mut run = exec(
        token.path(),
        &[
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_connect}",
            "https://elsewhere.test/",
        ],
    );
    let output = CommandOutput::of(run.env("OUTGATE_PROXY", gateway.proxy().to_string()));
    assert_eq!(output.stdout, "403", "{output:?}");
    let refused = || -> Vec<String> {
        let records = gateway.audit_records();
        let records = records.iter().map(ToString::to_string);
        records.filter(|it| it.contains("elsewhere.test")).collect()
    };
    // On disk a little later than the answer is out.
    let until = Instant::now() + Duration::from_secs(5);
    while refused().is_empty() && Instant::now() < until {
        sleep(Duration::from_millis(5));
    }
    let refused = refused();
    assert_eq!(refused.len(), 1);
    // Attributed to its session: the token was in the proxy's address.
    assert!(refused[0].contains("s_"), "{refused:?}");
}
