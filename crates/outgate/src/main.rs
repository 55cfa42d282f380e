//! The command line: reads arguments, wires the crates together, prints. Decides nothing about requests.

mod cli;
mod commands;
mod style;

use std::process::ExitCode;

use clap::Parser;

/// Measured against the C library's, and jemalloc's: `docs/decisions/0027-the-door-on-bare-http2.md`.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything else: in the first role, this process closes every descriptor that it finds.
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(role) if role == outgate_sandbox::HELPER => {
            if let Some(role) = arguments.next() {
                return outgate_sandbox::helper(&role);
            }
        }
        Some(role) if role == outgate_envoy::supervise::HELPER => {
            return outgate_envoy::supervise::helper(arguments);
        }
        _ => {}
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
