//! The command line: reads arguments, wires the crates together, prints. Decides nothing about requests.

mod cli;
mod commands;
mod style;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            style::error(&error);
            ExitCode::FAILURE
        }
    }
}
