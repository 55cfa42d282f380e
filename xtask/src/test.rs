//! Every test, from a fresh clone to the summary.

use crate::{
    clients, conformance, instructions,
    places::Places,
    run::{Steps, Task},
    setup,
};

/// Sets up, builds, and runs every test.
pub(crate) fn run(places: &Places, steps: &mut Steps) {
    setup::for_checks(places, steps);
    let mut built = false;
    let others = [("set-up", itself(places, &["setup"], 40))];
    steps.beside(&places.target, others, |steps| {
        built = steps.step("build", || build(places));
    });
    if !built {
        return;
    }
    steps.step("tests of the workspace", || {
        nextest(places, "not package(outgate-conformance)").run()
    });
    instructions::run(places, steps);
    conformance::run(places, steps);
    steps.step("documentation examples", || {
        let task = Task::cargo(15).args(["test", "--locked", "--workspace", "--doc", "--quiet"]);
        task.inside(&places.root).run()
    });
    // Most of their time is waiting.
    let others = [
        ("deployment", itself(places, &["deploy"], 40)),
        ("fuzz", itself(places, &["fuzz", "--smoke"], 40)),
    ];
    steps.beside(&places.target, others, |steps| {
        steps.step("real clients", || clients::run(places, &[]));
    });
}

/// A command of this program, in a process of its own.
fn itself(places: &Places, command: &[&str], minutes: u64) -> Task {
    let task = Task::new(places.built("xtask"), minutes).args(command);
    task.inside(&places.root)
}

/// Builds everything that the tests start, once, with one set of features.
///
/// # Errors
/// How the build ended.
pub(crate) fn build(places: &Places) -> Result<(), String> {
    let arguments = ["build", "--locked", "--workspace", "--bins", "--tests"];
    Task::cargo(40).args(arguments).inside(&places.root).run()
}

/// The test runner with everything that the tests ask the environment for.
pub(crate) fn nextest(places: &Places, filter: &str) -> Task {
    let task = Task::new(places.tool("cargo-nextest"), 25).inside(&places.root);
    task.args(["nextest", "run", "--locked", "--workspace", "--config-file"])
        .args([places.root.join("xtask/nextest.toml")])
        .args(["--filterset", filter])
        .env("OUTGATE_BIN", places.gateway())
        .env("OUTGATE_ENVOY", places.envoy())
}
