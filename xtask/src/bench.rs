//! The benchmarks: every `crates/*/benches/*.rs` but those of Envoy, under criterion.

use std::{fs, path::PathBuf};

use crate::{
    bench_envoy,
    places::Places,
    run::{Steps, Task},
};

/// Runs every benchmark; `filter` goes to criterion.
pub(crate) fn run(places: &Places, steps: &mut Steps, filter: Option<&str>) {
    let mut found = benchmarks(places);
    // They have a command of their own, because they need more than a compiler.
    found.retain(|(_, bench)| !bench_envoy::BENCHMARKS.contains(&bench.as_str()));
    found.sort();
    if found.is_empty() {
        return steps.fail("benchmarks", "there is no crates/*/benches/*.rs");
    }
    for (folder, bench) in found {
        let manifest = folder.join("Cargo.toml");
        steps.step(&format!("benchmark: {bench}"), || {
            let task = Task::cargo(40).args([
                "bench",
                "--locked",
                "--quiet",
                "--bench",
                &bench,
                "--manifest-path",
            ]);
            task.args([&manifest])
                .args(["--"])
                .args(filter)
                .inside(&places.root)
                .run()
        });
    }
}

/// The folder of each benchmark's crate, and the benchmark's name.
fn benchmarks(places: &Places) -> Vec<(PathBuf, String)> {
    let crates = fs::read_dir(places.root.join("crates"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    crates
        .flat_map(|folder| {
            let files = fs::read_dir(folder.join("benches"))
                .into_iter()
                .flatten()
                .flatten();
            let names = files.filter_map(|file| {
                Some(file.file_name().to_str()?.strip_suffix(".rs")?.to_owned())
            });
            names
                .map(move |name| (folder.clone(), name))
                .collect::<Vec<_>>()
        })
        .collect()
}
