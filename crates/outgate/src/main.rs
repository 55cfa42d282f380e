//! The command line: reads arguments, wires the crates together, prints. Decides nothing about requests.

mod cli;
mod commands;
mod style;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // Before anything else: this process closes every descriptor that it finds.
    let mut arguments = std::env::args_os().skip(1);
    if let (Some(first), Some(role)) = (arguments.next(), arguments.next())
        && first == outgate_sandbox::HELPER
    {
        return outgate_sandbox::helper(&role);
    }
    let cli = cli::Cli::parse();
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            style::error(&error);
            ExitCode::FAILURE
        }
    }
}
