//! Coverage-guided fuzzing on the stable toolchain: the fuzz crate's tests, built with the compiler's own coverage
//! pass, run under libFuzzer instead of the default engine.

use std::{
    fs,
    process::{Command, ExitCode},
};

use crate::{
    places::Places,
    run::{Steps, Task, host_triple},
};

/// The tests in `fuzz/tests/targets.rs`.
const TARGETS: [&str; 7] = [
    "connect",
    "absolute_form",
    "client_hello",
    "question",
    "http1_head",
    "config",
    "envoy_log",
];

/// Those of further features, which take minutes more to build. Every test run has them, without the engine.
const DISCOVERY: [&str; 6] = [
    "delta_stream",
    "world_stream",
    "delta_secrets",
    "world_secrets",
    "message",
    "evidence",
];

/// How long each target runs among all tests.
const SMOKE_SECONDS: u32 = 5;

/// Switches bolero over to libFuzzer.
const ENGINE: &str = "--cfg fuzzing --cfg fuzzing_libfuzzer";

/// Coverage counters, for the workspace's own crates: what they call is taken to be tested where it is made.
const COVERAGE: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions=yes",
    "-Coverflow-checks=yes",
];

/// What is worth compiling slowly to run fast: the engine, and what is fuzzed; but not the crate into which the whole
/// public suffix list is compiled.
const OPTIMISED: [&str; 8] = [
    "outgate-xds",
    "bolero",
    "bolero-engine",
    "bolero-libfuzzer",
    "outgate-fuzz",
    "outgate-journey",
    "outgate-wire",
    "saphyr-parser",
];

/// Set where this program stands in for the compiler of the workspace's crates.
const AS_COMPILER: &str = "OUTGATE_XTASK_AS_COMPILER";

/// Runs the compiler that cargo asked for, with coverage counters, if this program was started in its place.
pub(crate) fn stand_in_for_compiler(words: &[&str]) -> Option<ExitCode> {
    std::env::var_os(AS_COMPILER)?;
    let (compiler, arguments) = words.split_first()?;
    let status = Command::new(compiler)
        .args(arguments)
        .args(COVERAGE)
        .status();
    let well = status.is_ok_and(|status| status.success());
    Some(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Which targets, and for how long.
pub(crate) struct Request {
    seconds: u32,
    targets: Vec<&'static str>,
}

impl Request {
    fn with_discovery(&self) -> bool {
        self.targets.iter().any(|it| DISCOVERY.contains(it))
    }

    /// Reads `--smoke`, or `[--seconds N] [TARGET]`.
    ///
    /// # Errors
    /// What is wrong with the words.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let (seconds, rest) = match words {
            ["--smoke"] => {
                return Ok(Self {
                    seconds: SMOKE_SECONDS,
                    targets: TARGETS.to_vec(),
                });
            }
            ["--seconds", number, rest @ ..] => {
                let seconds = number
                    .parse()
                    .ok()
                    .filter(|seconds| (1..=86_400).contains(seconds));
                (
                    seconds.ok_or("--seconds takes a number from 1 to 86400")?,
                    rest,
                )
            }
            rest => (60, rest),
        };
        let mut targets = [&TARGETS[..], &DISCOVERY[..]].concat();
        match rest {
            [] => Ok(Self { seconds, targets }),
            [name] => {
                let unknown = format!("no such fuzz target; there are: {}", targets.join(", "));
                targets.retain(|target| target == name);
                if targets.is_empty() {
                    return Err(unknown);
                }
                Ok(Self { seconds, targets })
            }
            _ => Err("one target at most".to_owned()),
        }
    }
}

/// Fuzzes each target in turn.
pub(crate) fn run(places: &Places, steps: &mut Steps, request: &Request) {
    let host = match host_triple() {
        Ok(host) => host,
        Err(problem) => return steps.fail("fuzz: build", &problem),
    };
    let built = steps.step("fuzz: build", || {
        test_command(places, &host, 20, request)
            .args(["--no-run"])
            .run()
    });
    if built {
        for target in &request.targets {
            let name = format!("fuzz: {target} for {} s", request.seconds);
            steps.step(&name, || fuzz(places, &host, target, request));
        }
    }
}

/// Runs one target. New inputs are kept in `.cache/fuzz/`; one that fails is written to the target's `crashes`
/// folder, from where the ordinary test run replays it.
fn fuzz(places: &Places, host: &str, target: &str, request: &Request) -> Result<(), String> {
    let seconds = request.seconds;
    let grown = places.cache.join("fuzz").join(target);
    let checked_in = places.root.join("fuzz/tests/__fuzz__").join(target);
    let (seeds, crashes) = (checked_in.join("corpus"), checked_in.join("crashes"));
    for folder in [&grown, &crashes] {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let arguments = format!(
        "{} {} -max_total_time={seconds} -artifact_prefix={}/ -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
         -print_final_stats=1 -verbosity=0",
        grown.display(),
        seeds.display(),
        crashes.display(),
    );
    let task = test_command(places, host, u64::from(seconds) / 60 + 3, request)
        .env("BOLERO_LIBFUZZER_ARGS", arguments);
    let outcome = task
        .args(["--", "--exact", target, "--nocapture", "--test-threads=1"])
        .run();
    // An empty folder is no finding.
    let _ = fs::remove_dir(&crashes);
    outcome
}

fn test_command(places: &Places, host: &str, minutes: u64, request: &Request) -> Task {
    let this = std::env::current_exe().unwrap_or_default();
    let task = Task::cargo(minutes).args([
        "test",
        "--locked",
        "--quiet",
        "--package",
        "outgate-fuzz",
        "--test",
        "targets",
    ]);
    let without = (!request.with_discovery()).then_some("--no-default-features");
    // With `--target`, build scripts and procedural macros are left as they are.
    task.args(without)
        .args(["--target", host, "--target-dir"])
        .args([places.target.join("fuzz")])
        .args(OPTIMISED.iter().flat_map(|name| {
            [
                "--config".to_owned(),
                format!("profile.dev.package.{name}.opt-level=2"),
            ]
        }))
        .env("RUSTFLAGS", ENGINE)
        .env("RUSTC_WORKSPACE_WRAPPER", this)
        .env(AS_COMPILER, "1")
        .inside(&places.root)
}
