//! The peers that are not ours: how each is configured and started.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use super::{
    MINUTE,
    ground::{FIELD, Ground, NAME, VALUE, fill, loopback},
    peers::Running,
    process::output,
    workload::Mode,
};

const ENVOY: &str = include_str!("../../peers/envoy.yaml");
const SQUID: &str = include_str!("../../peers/squid.conf");
const SQUID_BUMP: &str = include_str!("../../peers/squid-bump.conf");
const MITMPROXY: &str = include_str!("../../peers/mitmproxy.py");
/// Where Debian's package has squid's helper.
const SQUID_CERTGEN: &str = "/usr/lib/squid/security_file_certgen";
/// Threads that carry, of each peer that can be told.
const THREADS: &str = "2";

/// # Errors
/// It cannot be configured or started.
pub(crate) fn relay(ground: &Ground, folder: &Path, mode: &str) -> Result<Running> {
    let mut command = ground.kit(&["relay", mode, "--threads", THREADS]);
    command
        .arg("--listen")
        .arg(loopback(ground.ports.proxy))
        .arg("--to")
        .arg(loopback(ground.ports.tls));
    if mode == "bump" {
        for (flag, file) in [
            ("--cert", "leaf.pem"),
            ("--key", "leaf.key"),
            ("--ca", "upca.pem"),
        ] {
            command.arg(flag).arg(ground.certificate(file));
        }
    }
    let running = Running {
        echo: None,
        ..Running::new(ground, "ca.pem")
    };
    running.started(&mut command, folder)
}

/// # Errors
/// It cannot be configured or started.
pub(crate) fn envoy(ground: &Ground, folder: &Path, program: &Path, mode: Mode) -> Result<Running> {
    let mut words = ground.words();
    let tunnels_to = if mode == Mode::Pass {
        "origin_raw"
    } else {
        "bump"
    };
    words.push(("TUNNELS_TO", tunnels_to.to_owned()));
    let file = folder.join("envoy.yaml");
    fs::write(&file, fill(ENVOY, &words)?)?;
    let mut command = Command::new(program);
    command.arg("-c").arg(file).args([
        "--concurrency",
        THREADS,
        "--disable-hot-restart",
        "-l",
        "error",
    ]);
    Running::new(ground, "ca.pem").started(&mut command, folder)
}

/// # Errors
/// It cannot be configured or started.
pub(crate) fn hudsucker(
    ground: &Ground,
    folder: &Path,
    program: &Path,
    mode: Mode,
) -> Result<Running> {
    let mut command = Command::new(program);
    command.arg(ground.ports.proxy.to_string());
    command.args(["ca.pem", "ca.key", "upca.pem"].map(|file| ground.certificate(file)));
    command.args([
        FIELD,
        VALUE,
        if mode == Mode::Pass { "pass" } else { "bump" },
    ]);
    let mut running = Running::new(ground, "ca.pem");
    if mode == Mode::Pass {
        // A tunnel's name is looked up by the system.
        running.host = "127.0.0.1".to_owned();
    }
    running.started(&mut command, folder)
}

/// # Errors
/// It cannot be configured or started.
pub(crate) fn squid(ground: &Ground, folder: &Path, program: &Path, mode: Mode) -> Result<Running> {
    let root = rustix::process::geteuid().is_root();
    let user = if root {
        "proxy".to_owned()
    } else {
        std::env::var("USER")?
    };
    // It reads these as its own user, who cannot read the run's folder.
    for file in ["ca.pem", "ca.key", "upca.pem"] {
        fs::copy(ground.certificate(file), folder.join(file))?;
    }
    let mut words = ground.words();
    words.retain(|(word, _)| *word != "ROOTS");
    words.push(("ROOTS", folder.join("upca.pem").display().to_string()));
    words.push(("FOLDER", folder.display().to_string()));
    words.push(("CERTGEN", SQUID_CERTGEN.to_owned()));
    words.push(("USER", user.clone()));
    let (mut options, mut bump) = (String::new(), String::new());
    if mode != Mode::Pass {
        let (ca, key) = (folder.join("ca.pem"), folder.join("ca.key"));
        options = format!(
            "ssl-bump tls-cert={} tls-key={} generate-host-certificates=on dynamic_cert_mem_cache_size=64MB",
            ca.display(),
            key.display()
        );
        bump = fill(SQUID_BUMP, &words)?;
        let mut database = Command::new(SQUID_CERTGEN);
        database
            .args(["-c", "-s"])
            .arg(folder.join("leaves"))
            .args(["-M", "64MB"]);
        output(&mut database, MINUTE, &ground.interrupt)?;
    }
    words.extend([("LISTEN_OPTIONS", options), ("BUMP", bump)]);
    fs::write(folder.join("squid.conf"), fill(SQUID, &words)?)?;
    fs::write(folder.join("hosts"), format!("127.0.0.1 {NAME}\n"))?;
    if root {
        // It does not stay root, and its helpers and the roots are read as its own user.
        let mut own = Command::new("chown");
        own.arg("-R").arg(&user).arg(folder);
        output(&mut own, MINUTE, &ground.interrupt)?;
    }
    let mut command = Command::new(program);
    command
        .args(["-N", "-n", "outgatebench", "-f"])
        .arg(folder.join("squid.conf"));
    Running::new(ground, "ca.pem").started(&mut command, folder)
}

/// # Errors
/// It cannot be configured or started.
pub(crate) fn mitmproxy(
    ground: &Ground,
    folder: &Path,
    program: &Path,
    mode: Mode,
) -> Result<Running> {
    fs::copy(
        ground.certificate("ca-both.pem"),
        folder.join("mitmproxy-ca.pem"),
    )?;
    let script = folder.join("inject.py");
    fs::write(&script, MITMPROXY)?;
    let mut command = Command::new(program);
    command.env("FIELD", FIELD).env("VALUE", VALUE);
    command
        .args([
            "-q",
            "--listen-host",
            "127.0.0.1",
            "-p",
            &ground.ports.proxy.to_string(),
            "-s",
        ])
        .arg(script);
    for (option, file) in [
        ("confdir", folder),
        (
            "ssl_verify_upstream_trusted_ca",
            &ground.certificate("upca.pem"),
        ),
    ] {
        command
            .arg("--set")
            .arg(format!("{option}={}", file.display()));
    }
    command.args(["--set", "stream_large_bodies=1m"]);
    if mode == Mode::Pass {
        command.args(["--ignore-hosts", ".*"]);
    }
    // It mints by the server name, and looks no name up.
    let running = Running {
        host: "127.0.0.1".to_owned(),
        ..Running::new(ground, "ca.pem")
    };
    running.started(&mut command, folder)
}
