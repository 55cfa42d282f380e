//! The tests of `deploy/`: what is rendered, who reaches whom, what the contract says, and real gateways in namespaces
//! that stand for a cluster. They need no cluster, and they need root.

use std::{fs, path::PathBuf};

use crate::{
    places::Places,
    run::{Steps, Task},
    setup, test,
};

/// Sets up, builds, and runs them alone.
pub(crate) fn alone(places: &Places, steps: &mut Steps, arguments: &[&str]) {
    setup::everything(places, steps);
    if steps.step("build", || test::build(places)) {
        steps.step("deployment", || run(places, arguments));
    }
}

/// Runs them; `arguments` go to pytest.
///
/// # Errors
/// How they ended.
pub(crate) fn run(places: &Places, arguments: &[&str]) -> Result<(), String> {
    let program = static_program(places)?;
    Task::new(places.deploy_program("python"), 15)
        .args(["-m", "pytest", "--quiet"])
        .args(arguments)
        .inside(&places.root.join("deploy/tests"))
        .env("OUTGATE_BIN", places.gateway())
        .env("OUTGATE_STATIC", program)
        .env("OUTGATE_DEPLOY_TOOLS", places.deploy_tools())
        .env(
            "OUTGATE_DEPLOY_NODE_PACKAGES",
            places.deploy_node_packages().join("node_modules"),
        )
        .env("OUTGATE_NODE", places.client_program("node"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .run()
}

/// The gateway as the image has it: one file that needs no library. Only the last crate is told to be linked so, and
/// what it makes goes to a place of its own: the other tests' program stays the one that it was.
///
/// # Errors
/// How the build ended.
fn static_program(places: &Places) -> Result<PathBuf, String> {
    let folder = places.target.join("image");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let program = folder.join("outgate");
    let emit = format!("--emit=link={}", program.display());
    Task::cargo(20)
        .args(["rustc", "--locked", "--package", "outgate", "--bin"])
        .args(["outgate", "--", "-C", "target-feature=+crt-static", &emit])
        .inside(&places.root)
        .run()?;
    Ok(program)
}
