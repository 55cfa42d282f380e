//! Prints `docs/planes.md` from the folder of outcomes that the suite's runs left.

use std::{path::PathBuf, process::ExitCode};

use outgate_conformance::{page, scenario};

fn main() -> ExitCode {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or_default());
    match scenario::outcomes(&folder).and_then(|outcomes| page::write(&outcomes)) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprint!("{problems}");
            ExitCode::FAILURE
        }
    }
}
