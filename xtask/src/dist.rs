//! The program as it is shipped: built for speed, by a profile of what it does under load
//! (<https://doc.rust-lang.org/rustc/profile-guided-optimization.html>). The profile is checked in, so that whoever builds
//! the same commit by the same compiler gets the same program; what changed since it was taken is built as without.

use std::{fs, path::PathBuf};

use crate::{
    bench_envoy,
    places::Places,
    run::{Steps, Task, host_triple},
};

const PROFILE: &str = "bench/outgate.profdata";
/// What it is trained by, besides Envoy's questions: everything that guests do often.
const WORKLOADS: &str = "W1,W1h,W2,W2r,W2p,W3,W4,W5,SSE,WS";

/// Of each load, what stands in the names of functions that only it calls often.
const TRAINED: [&str; 2] = ["outgate_native7forward", "outgate_envoy7control"];

/// Builds it.
///
/// # Errors
/// How the build ended.
pub(crate) fn build(places: &Places) -> Result<(), String> {
    let profile = places.root.join(PROFILE);
    // The compiler would warn and go on without.
    if !profile.is_file() {
        return Err(format!("{} is missing", profile.display()));
    }
    let flags = format!("-Cprofile-use={}", profile.display());
    compile(places, &places.target, &flags)?;
    println!("{}", program(places)?.display());
    Ok(())
}

/// Where [`build`] leaves it.
///
/// # Errors
/// Why the compiler cannot be asked.
pub(crate) fn program(places: &Places) -> Result<PathBuf, String> {
    let host = host_triple()?;
    Ok(places.target.join(host).join("dist/outgate"))
}

/// Takes the profile anew: builds a gateway that counts, puts it under load, and keeps what it counted.
pub(crate) fn train(places: &Places, steps: &mut Steps) {
    let folder = places.target.join("profile");
    let counts = folder.join("counts");
    let built = steps.step("build: a gateway that counts", || {
        if counts.exists() {
            fs::remove_dir_all(&counts).map_err(|error| error.to_string())?;
        }
        let flags = format!("-Cprofile-generate={}", counts.display());
        compile(places, &folder, &flags)
    });
    let counting = || Ok::<_, String>(folder.join(host_triple()?).join("dist/outgate"));
    let loaded = built
        && steps.step("build: the runner", || runner(places))
        && steps.step("load", || {
            let run = Task::new(places.target.join("release/outgate-bench"), 15);
            run.inside(&places.root)
                .args(["run", "--peers", "outgate", "--workloads", WORKLOADS])
                .args(["--rounds", "1", "--seconds", "2", "--out"])
                .args([folder.join("load.jsonl"), "--outgate".into(), counting()?])
                .run()
        })
        && bench_envoy::prepare(places, steps)
        && steps.step("load: Envoy's questions", || {
            bench_envoy::measure(places, "envoy", Some("share"), &counting()?)
        });
    if loaded {
        steps.step(PROFILE, || {
            let merge = Task::new(llvm_profdata()?, 5).args(["merge", "--sparse", "--output"]);
            let merged = folder.join("merged.profdata");
            merge.args([&merged, &counts]).run()?;
            let names = fs::read(&merged).map_err(|error| error.to_string())?;
            // Whoever is killed leaves no counts, and nothing else would tell.
            for part in TRAINED {
                if !names.windows(part.len()).any(|at| at == part.as_bytes()) {
                    return Err(format!("nothing was counted of {part}: it is not replaced"));
                }
            }
            fs::copy(&merged, places.root.join(PROFILE)).map_err(|error| error.to_string())?;
            Ok(())
        });
    }
}

/// Builds what puts load on gateways.
///
/// # Errors
/// How the build ended.
pub(crate) fn runner(places: &Places) -> Result<(), String> {
    let build = Task::cargo(60).args(["build", "--locked", "--release"]);
    build
        .args(["--package", "outgate-bench"])
        .inside(&places.root)
        .run()
}

/// With a target, the flags are for the program alone, and its functions have the same names with either of them.
fn compile(places: &Places, folder: &PathBuf, flags: &str) -> Result<(), String> {
    let build = Task::cargo(60).args(["build", "--locked", "--profile", "dist"]);
    build
        .args(["--package", "outgate", "--bin", "outgate"])
        .args(["--target", &host_triple()?, "--target-dir"])
        .args([folder])
        .env("RUSTFLAGS", flags)
        .inside(&places.root)
        .run()
}

/// The one that reads what this compiler writes; `rustup` has it.
fn llvm_profdata() -> Result<PathBuf, String> {
    let folder = Task::new("rustc", 1)
        .args(["--print", "target-libdir"])
        .output()?;
    let folder = PathBuf::from(String::from_utf8_lossy(&folder).trim());
    let program = folder.with_file_name("bin").join("llvm-profdata");
    if !program.is_file() {
        Task::new("rustup", 5)
            .args(["component", "add", "llvm-tools"])
            .run()
            .map_err(|problem| format!("rustup component add llvm-tools: {problem}"))?;
    }
    Ok(program)
}
