//! The real-client tests: pytest inside a network namespace with nothing but loopback, where port 443 is free and
//! no client can reach anything but the gateway and the local upstreams.

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

/// Runs the client tests; `arguments` go to pytest.
///
/// # Errors
/// How they ended, or why they cannot be run here.
pub(crate) fn run(places: &Places, arguments: &[&str]) -> Result<(), String> {
    let folder = places.root.join("clients");
    Task::new("unshare", 15)
        .args(namespace()?)
        .args(["sh", "-ec", INSIDE, "sh"])
        .args([places.client_program("python")])
        .args(["-m", "pytest", "--quiet"])
        .args(arguments)
        .inside(&folder)
        .env("OUTGATE_BIN", places.gateway())
        .env("OUTGATE_NODE_PACKAGES", places.node_packages())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .run()
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
