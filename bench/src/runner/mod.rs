//! The benchmark beside other gateways: rounds of runs, peer after peer, so that a machine's drift meets all alike.
//!
//! It refuses to measure what does not do its job: each peer is started anew for each run, and asked first for what the
//! origin sees. Everything is on the loopback interface and ends with the runner.

mod goal;
mod ground;
mod machine;
mod measure;
mod others;
mod outgate;
mod peers;
mod process;
mod report;
mod results;
mod workload;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValuesParser;

use self::{
    ground::{Ground, Ports},
    measure::Order,
    peers::{Peer, Programs},
    process::Interrupt,
    results::{Line, Results, append, is_quiet, number},
    workload::{WORKLOADS, Workload},
};

/// For everything that is quick.
const MINUTE: Duration = Duration::from_secs(60);
/// A disturbed run is repeated so often.
const REPEATS: u32 = 2;
/// How often a half second without theft is waited for before a run.
const CALM: u32 = 10;

#[derive(Debug, clap::Args)]
pub(crate) struct RunArguments {
    /// Whom to measure
    #[arg(long, value_delimiter = ',', default_values = ["direct", "outgate", "envoy", "hudsucker"])]
    peers: Vec<Peer>,

    /// Under which load [default: all]
    #[arg(long, value_delimiter = ',', value_parser = names())]
    workloads: Vec<String>,

    /// How often each peer runs under each
    #[arg(long, default_value_t = 5)]
    rounds: u32,

    /// How long a run is measured, where its load has no end of its own
    #[arg(long, default_value_t = 4)]
    seconds: u32,

    /// The file that lines are added to
    #[arg(long, value_name = "FILE", default_value = "bench.jsonl")]
    out: PathBuf,

    /// The lowest of a hundred ports on 127.0.0.1
    #[arg(long, default_value_t = 19_500)]
    base_port: u16,

    /// A release build of this program, which makes the load [default: this program]
    #[arg(long, value_name = "PROGRAM")]
    kit: Option<PathBuf>,

    #[command(flatten)]
    programs: Programs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReportArguments {
    /// Files that `run` wrote
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(WORKLOADS.iter().map(|workload| workload.name))
}

/// Measures, and adds a line to the file for each run.
///
/// # Errors
/// The machine or a program cannot be used, or Ctrl-C. A peer that fails a run is told about and does not end the rest,
/// but the whole fails for it.
pub(crate) fn run(arguments: &RunArguments) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let kit = arguments
        .kit
        .clone()
        .map_or_else(std::env::current_exe, Ok)?;
    // squid gives up root, and has to reach its own folder in it.
    let passable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    let folder = tempfile::Builder::new().permissions(passable).tempdir()?;
    let ports = Ports::from(arguments.base_port)?;
    let workloads: Vec<&'static Workload> = WORKLOADS
        .iter()
        .filter(|each| {
            arguments.workloads.is_empty()
                || arguments.workloads.iter().any(|name| name == each.name)
        })
        .collect();
    for peer in &arguments.peers {
        arguments.programs.of(*peer)?;
    }
    let machine = machine::describe(&arguments.peers, &arguments.programs, &interrupt);
    for (key, value) in &machine {
        say(&format!("{key}: {}", value.as_str().unwrap_or_default()));
    }
    append(&arguments.out, &machine)?;
    let ground = Ground::prepare(folder.path(), &kit, ports, interrupt)?;
    let mut failed = 0;
    for round in 1..=arguments.rounds {
        for workload in &workloads {
            for peer in workload.peers(&arguments.peers) {
                let program = arguments.programs.of(peer)?;
                let order = Order {
                    workload,
                    peer,
                    program,
                    round,
                    seconds: arguments.seconds,
                };
                if let Err(problem) = until_quiet(&order, &ground, &arguments.out) {
                    ground.interrupt.check()?;
                    failed += 1;
                    say(&format!(
                        "{} {}: FAILED: {problem:#}",
                        workload.name,
                        peer.name()
                    ));
                }
            }
        }
    }
    ensure!(failed == 0, "{failed} runs failed");
    Ok(())
}

/// Prints the report.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn report(arguments: &ReportArguments) -> Result<()> {
    let results = Results::read(&arguments.files)?;
    say(report::write(&results).trim_end());
    Ok(())
}

/// Runs once, and again if the hypervisor disturbed it. Every run is kept: the report leaves the disturbed ones out.
fn until_quiet(order: &Order<'_>, ground: &Ground, out: &std::path::Path) -> Result<()> {
    for _ in 0..=REPEATS {
        for _ in 0..CALM {
            if measure::stolen_now(ground)? < results::MOST_STOLEN / 2.0 {
                break;
            }
        }
        let line = order.run(ground)?;
        append(out, &line).context("the results")?;
        say(&progress(&line, order.round));
        if is_quiet(&line) {
            break;
        }
    }
    Ok(())
}

/// What a run's line says, for whoever watches.
fn progress(line: &Line, round: u32) -> String {
    const SHOWN: [(&str, &str); 11] = [
        ("rps", "requests/s"),
        ("mbps", "MB/s"),
        ("px_cpu_us_per_req", "CPU µs"),
        ("px_cpu_s_per_gib", "CPU s/GiB"),
        ("lat_p50_us", "p50 µs"),
        ("lat_p99_us", "p99 µs"),
        ("px_kib_per_conn", "KiB each"),
        ("lat_max_us", "longest µs"),
        ("ready_ms", "start ms"),
        ("err_all", "errors"),
        ("steal_cores", "stolen cores"),
    ];
    let fields = SHOWN
        .iter()
        .filter_map(|(key, title)| Some(format!("{title} {}", number(line, key)?)));
    let head = format!(
        "{} {} {round}",
        results::text(line, "workload"),
        results::text(line, "peer")
    );
    format!("{head}: {}", fields.collect::<Vec<_>>().join(", "))
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn say(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArguments,
    }

    fn parse(words: &str) -> Result<RunArguments, clap::Error> {
        let words = std::iter::once("run").chain(words.split_whitespace());
        Line::try_parse_from(words).map(|line| line.run)
    }

    #[test]
    fn peers_and_workloads_are_lists() {
        let run = parse("--peers envoy,outgate --workloads W1,W2r --rounds 2 --seconds 1").unwrap();
        assert_eq!(run.peers, [Peer::Envoy, Peer::Outgate]);
        assert_eq!(run.workloads, ["W1", "W2r"]);
        assert_eq!((run.rounds, run.seconds), (2, 1));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(parse("--peers nginx").is_err());
        assert!(parse("--workloads W99").is_err());
        assert!(parse("--rounds many").is_err());
    }

    #[test]
    fn every_peer_goes_by_its_name() {
        for peer in <Peer as clap::ValueEnum>::value_variants() {
            assert_eq!(
                parse(&format!("--peers {}", peer.name())).unwrap().peers,
                [*peer]
            );
        }
    }

    #[test]
    fn a_peer_without_a_program_is_an_error() {
        let problem = run(&parse("--peers envoy --out /dev/null").unwrap()).unwrap_err();
        assert!(problem.to_string().contains("--envoy"), "{problem}");
    }
}
