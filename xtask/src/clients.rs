//! The real-client tests: pytest inside a network namespace with nothing but loopback, where port 443 is free and
//! no client can reach anything but the gateway and the local upstreams.

use std::path::Path;

use crate::{
    places::Places,
    run::{Steps, Task},
    setup, test,
};

const INSIDE: &str = "ip link set lo up && exec \"$@\"";

/// Sets up, builds, and runs the client tests alone.
pub(crate) fn alone(places: &Places, steps: &mut Steps, arguments: &[&str]) {
    setup::everything(places, steps);
    if steps.step("build", || test::build(places)) {
        steps.step("real clients", || run(places, arguments));
    }
}

/// How often [`startup`] measures everything.
const ROUNDS: &str = "40";

/// Runs the client tests; `arguments` go to pytest.
///
/// # Errors
/// How they ended, or why they cannot be run here.
pub(crate) fn run(places: &Places, arguments: &[&str]) -> Result<(), String> {
    let python = python(places, &places.gateway())?;
    python
        .args(["-m", "pytest", "--quiet"])
        .args(arguments)
        .run()
}

/// Measures what `outgate run` adds to a command, with a release build.
pub(crate) fn startup(places: &Places, steps: &mut Steps) {
    setup::everything(places, steps);
    let built = steps.step("release build", || {
        let task = Task::cargo(40).inside(&places.root);
        task.args(["build", "--locked", "--release", "--package", "outgate"])
            .run()
    });
    if built {
        steps.step("startup of `outgate run`", || {
            let python = python(places, &places.target.join("release/outgate"))?;
            python.args(["startup.py", ROUNDS]).run()
        });
    }
}

/// The clients' Python in a namespace of its own, in their folder.
fn python(places: &Places, gateway: &Path) -> Result<Task, String> {
    let folder = places.root.join("clients");
    let task = in_namespace(15)?
        .args([places.client_program("python")])
        .inside(&folder)
        .env("OUTGATE_BIN", gateway)
        .env("OUTGATE_ENVOY", places.envoy())
        .env("OUTGATE_NODE_PACKAGES", places.node_packages())
        .env("OUTGATE_GO_GUESTS", places.go_guests())
        .env("OUTGATE_RUST_GUEST", places.rust_guest())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(task)
}

/// A program to be named, in a network namespace of its own.
///
/// # Errors
/// Why there can be none here.
pub(crate) fn in_namespace(minutes: u64) -> Result<Task, String> {
    let task = Task::new("unshare", minutes).args(namespace()?);
    Ok(task.args(["sh", "-ec", INSIDE, "sh"]))
}

/// How to get a network namespace: a user namespace makes anybody its root; root can do without one.
fn namespace() -> Result<&'static [&'static str], String> {
    const WAYS: [&[&str]; 2] = [&["--user", "--map-root-user", "--net"], &["--net"]];
    let works = |way: &&&[&str]| {
        Task::new("unshare", 1)
            .args(way.iter())
            .args(["sh", "-ec", "ip link set lo up"])
            .succeeds()
    };
    WAYS.iter().find(works).copied().ok_or_else(|| {
        "this machine allows no network namespace (`unshare --user --map-root-user --net`): run as root, or allow \
         unprivileged user namespaces"
            .to_owned()
    })
}
