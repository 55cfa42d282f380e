//! The benchmark of a real Envoy: it needs an Envoy, a release build of the gateway, and a network of its own, in which
//! there is nothing but the loopback interface.

use crate::{
    clients::in_namespace,
    places::Places,
    run::{Steps, Task},
    setup,
};

const PACKAGE: [&str; 4] = ["--package", "outgate-envoy", "--bench", "envoy"];

/// Runs it; `part` is `share` or `memory`, else both.
pub(crate) fn run(places: &Places, steps: &mut Steps, part: Option<&str>) {
    let cargo = |words: &[&str]| Task::cargo(60).args(words).inside(&places.root);
    let ready = steps.step("set up: Envoy", || setup::envoy(places))
        && steps.step("release build", || {
            cargo(&["build", "--locked", "--release", "--package", "outgate"]).run()
        })
        && steps.step("build of the benchmark", || {
            cargo(&["bench", "--locked", "--no-run"])
                .args(PACKAGE)
                .run()
        });
    if !ready {
        return;
    }
    steps.step("benchmark: envoy", || {
        in_namespace(30)?
            .args([std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())])
            .args(["bench", "--locked", "--offline", "--quiet"])
            .args(PACKAGE)
            .args(["--"])
            .args(part)
            .inside(&places.root)
            .env("OUTGATE_BIN", places.target.join("release/outgate"))
            .env("OUTGATE_ENVOY", places.envoy())
            .run()
    });
}
