//! The benchmarks of the control plane, alone and beside a real Envoy: they need an Envoy, the gateway as it is shipped, and
//! a network of their own, in which there is nothing but the loopback interface.

use std::path::Path;

use crate::{
    clients::in_namespace,
    dist,
    places::Places,
    run::{Steps, Task},
    setup,
};

/// Those of `outgate-envoy`.
pub(crate) const BENCHMARKS: [&str; 2] = ["answers", "envoy"];

/// Runs them; `part` is `answers`, `share` or `memory`, else all.
pub(crate) fn run(places: &Places, steps: &mut Steps, part: Option<&str>) {
    if !prepare(places, steps) || !steps.step("build: the gateway", || dist::build(places)) {
        return;
    }
    for benchmark in BENCHMARKS {
        let (is_wanted, part) = match part {
            None => (true, None),
            Some("answers") => (benchmark == "answers", None),
            Some(part) => (benchmark == "envoy", Some(part)),
        };
        if is_wanted {
            steps.step(&format!("benchmark: {benchmark}"), || {
                measure(places, benchmark, part, &dist::program(places)?)
            });
        }
    }
}

/// Obtains and builds what they need but the gateway.
pub(crate) fn prepare(places: &Places, steps: &mut Steps) -> bool {
    steps.step("set up: Envoy", || setup::envoy(places))
        && steps.step("build of the benchmarks", || {
            let build = Task::cargo(60).args(["bench", "--locked", "--no-run"]);
            build
                .args(["--package", "outgate-envoy"])
                .args(BENCHMARKS.iter().flat_map(|name| ["--bench", name]))
                .inside(&places.root)
                .run()
        })
}

/// Runs one on a gateway.
///
/// # Errors
/// How it ended.
pub(crate) fn measure(
    places: &Places,
    benchmark: &str,
    part: Option<&str>,
    gateway: &Path,
) -> Result<(), String> {
    in_namespace(30)?
        .args([std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())])
        .args(["bench", "--locked", "--offline", "--quiet"])
        .args(["--package", "outgate-envoy", "--bench", benchmark, "--"])
        .args(part)
        .inside(&places.root)
        .env("OUTGATE_BIN", gateway)
        .env("OUTGATE_ENVOY", places.envoy())
        .run()
}
