//! What can be judged without running the gateway's tests: formatting, lints, dependencies.

use std::{fs, path::PathBuf};

use crate::{
    places::Places,
    run::{Steps, Task},
    setup,
};

/// Runs every check.
pub(crate) fn run(places: &Places, steps: &mut Steps) {
    setup::for_checks(places, steps);
    steps.step("formatting", || {
        cargo(places, 2, &["fmt", "--all", "--check"])
    });
    steps.step("lints", || {
        cargo(
            places,
            25,
            &[
                "clippy",
                "--locked",
                "--workspace",
                "--all-targets",
                "--quiet",
                "--",
                "-D",
                "warnings",
            ],
        )
    });
    steps.step("dependencies: bans, licences, sources", || {
        deny(places, &["check", "bans", "licenses", "sources"])
    });
    match advisory_database() {
        Some(folder) => {
            println!("advisory database: {}", folder.display());
            steps.step("dependencies: advisories", || deny(places, &["--offline", "check", "advisories"]));
        }
        None => steps.note(
            "advisories were not checked: there is no advisory database in $CARGO_HOME/advisory-dbs \
             (`cargo deny fetch` makes one where its host can be reached)",
        ),
    }
}

fn cargo(places: &Places, minutes: u64, arguments: &[&str]) -> Result<(), String> {
    Task::cargo(minutes)
        .args(arguments)
        .inside(&places.root)
        .run()
}

fn deny(places: &Places, arguments: &[&str]) -> Result<(), String> {
    let deny = Task::new(places.tool("cargo-deny"), 10).inside(&places.root);
    deny.args(["--locked", "--log-level", "error"])
        .args(arguments)
        .args(["--hide-inclusion-graph"])
        .run()
}

/// Where `cargo-deny` keeps its clone of the advisory database, if there is one.
fn advisory_database() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let clones = fs::read_dir(home.join("advisory-dbs")).ok()?;
    clones
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join(".git").is_dir())
}
