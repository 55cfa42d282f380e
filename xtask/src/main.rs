//! The project's own commands, run as `cargo xtask COMMAND`. What a developer runs before a commit is what CI runs.
//! Every step is bounded in time, named before it starts, and counted in the summary; none is skipped in silence.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks on both"
)]

mod bench;
mod bench_envoy;
mod bench_peers;
mod check;
mod clients;
mod conformance;
mod deploy;
mod dist;
mod fuzz;
mod instructions;
mod places;
mod run;
mod setup;
mod test;

use std::process::ExitCode;

use crate::{places::Places, run::Steps};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  check                        formatting, lints, dependency rules
  test                         set-up, then every test: workspace, conformance, clients, deployment, fuzz smoke run
  setup                        install what the tests and checks need, nothing else
  conformance [PLANE] [NAME]   the conformance suite on native, envoy or both; scenarios whose name contains NAME
  planes                       the suite on both planes, then docs/planes.md from what came of it
  envoy                        install the Envoy that the tests start, and print its path
  clients [ARGUMENT]...        the real-client tests alone; arguments go to pytest
  deploy [ARGUMENT]...         the deployment tests alone; arguments go to pytest
  fuzz [--seconds N] [TARGET]  coverage-guided fuzzing, 60 seconds a target unless told
  fuzz --smoke                 the targets that are soon built, for seconds, as a part of `test`
  dist                         the program as it is shipped, by the profile in bench/outgate.profdata
  profile                      takes that profile anew
  bench [FILTER]               the benchmarks that need nothing else
  bench envoy [answers|share|memory]   the benchmarks of a real Envoy and its control plane
  bench peers [FLAG]...        the gateway beside others; the flags are in bench/README.md
  instructions [--bless]       instructions and allocations of a request, against the baseline, or as the new one
  startup                      what `outgate run` adds to a command's start and first request, in a release build
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let Some(ended) = fuzz::stand_in_for_compiler(&words) {
        return ended;
    }
    let places = match Places::find() {
        Ok(places) => places,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let mut steps = Steps::default();
    match words.as_slice() {
        ["check"] => check::run(&places, &mut steps),
        ["test"] => test::run(&places, &mut steps),
        ["setup"] => setup::everything(&places, &mut steps),
        ["conformance", rest @ ..] => match conformance::Request::parse(rest) {
            Ok(request) => conformance::alone(&places, &mut steps, request),
            Err(problem) => return misuse(problem),
        },
        ["planes"] => conformance::write_planes(&places, &mut steps),
        ["envoy"] => return print_envoy(&places),
        ["clients", rest @ ..] => clients::alone(&places, &mut steps, rest),
        ["deploy", rest @ ..] => deploy::alone(&places, &mut steps, rest),
        ["fuzz", rest @ ..] => match fuzz::Request::parse(rest) {
            Ok(request) => fuzz::run(&places, &mut steps, &request),
            Err(problem) => return misuse(&problem),
        },
        ["dist"] => {
            steps.step("build", || dist::build(&places));
        }
        ["profile"] => dist::train(&places, &mut steps),
        ["bench", "envoy", rest @ ..] if rest.len() <= 1 => {
            bench_envoy::run(&places, &mut steps, rest.first().copied());
        }
        ["bench", "peers", rest @ ..] => match bench_peers::Request::parse(rest) {
            Ok(request) => bench_peers::run(&places, &mut steps, &request),
            Err(problem) => return misuse(&problem),
        },
        ["bench", rest @ ..] if rest.len() <= 1 => {
            bench::run(&places, &mut steps, rest.first().copied())
        }
        ["instructions"] => instructions::alone(&places, &mut steps, false),
        ["instructions", "--bless"] => instructions::alone(&places, &mut steps, true),
        ["startup"] => clients::startup(&places, &mut steps),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => return misuse("unknown command"),
    }
    steps.summarize()
}

/// Only the path goes to standard output, for `$(cargo xtask envoy)`.
fn print_envoy(places: &Places) -> ExitCode {
    match setup::envoy(places) {
        Ok(()) => {
            println!("{}", places.envoy().display());
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn misuse(problem: &str) -> ExitCode {
    eprint!("xtask: {problem}\n\n{USAGE}");
    ExitCode::from(2)
}
