//! Measures the gateway beside others, on one machine: a load generator, an upstream and relays that are floors.
//!
//! Nothing of the gateway is linked in, so that every peer meets the same client and the same upstream.

mod certificates;
mod clock;
mod frames;
mod histogram;
mod load;
mod processes;
mod relay;
mod runner;
mod sockets;
#[cfg(test)]
mod tests;
mod tls;
mod upstream;

use std::{future::Future, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "outgate-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends requests through a proxy, or straight to an upstream, and prints one JSON object.
    Load(Box<load::Arguments>),
    /// Answers requests: HTTP/1.1 and HTTP/2 over TLS, HTTP/1.1 in clear, and DNS.
    Upstream(upstream::Arguments),
    /// A CONNECT proxy that does the least that one can: a floor, not a product.
    Relay(relay::Arguments),
    /// Makes the CAs and leaves that a run needs.
    Certificates(certificates::Arguments),
    /// Measures peers, round after round, and adds a line to a file for each run.
    Run(Box<runner::RunArguments>),
    /// Makes a page of what runs wrote.
    Report(runner::ReportArguments),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(problem) => {
            print_problem(&problem);
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Load(arguments) => on_threads(arguments.threads, load::main(*arguments)),
        Command::Upstream(arguments) => {
            on_threads(arguments.threads, upstream::main(arguments))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Relay(arguments) => {
            on_threads(arguments.threads, relay::main(arguments))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Certificates(arguments) => {
            certificates::main(&arguments)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Run(arguments) => {
            // Peers inherit it.
            sockets::raise_open_files();
            runner::run(&arguments)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Report(arguments) => {
            runner::report(&arguments)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs `work` on this many threads; on one, without a second thread to wake.
fn on_threads<T>(
    threads: usize,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    sockets::raise_open_files();
    let mut builder = match threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder
        .worker_threads(threads.max(1))
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(work);
    // A thread of a splice may be waiting on a peer that never ends.
    runtime.shutdown_background();
    outcome
}

#[expect(clippy::print_stderr, reason = "the command's own problems")]
fn print_problem(problem: &anyhow::Error) {
    eprintln!("error: {problem:#}");
}
