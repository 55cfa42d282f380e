//! `outgate envoy`: the same policy, with Envoy as the data plane.

mod leaves;
mod rendered;
mod run;
mod status;
mod told;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};

pub(super) use self::rendered::Settings;
use super::{load, operator::told};
use crate::{
    cli::{ConfigFile, Envoy, EnvoyAction, EnvoyBootstrap},
    style::{say, warn},
};

pub(crate) fn run(envoy: Envoy, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    match envoy.action {
        EnvoyAction::Bootstrap(bootstrap) => print(&bootstrap),
        EnvoyAction::Run(run) => run::run(&run, state_dir),
        EnvoyAction::Status(status) => status::run(&status, state_dir),
        EnvoyAction::Leaves(leaves) => {
            let json = leaves.file.json;
            told(json, leaves::run(&leaves, state_dir))
        }
    }
}

fn print(wanted: &EnvoyBootstrap) -> Result<ExitCode> {
    let file = ConfigFile {
        // What it names beside it is named by whole paths: Envoy starts wherever it is started.
        config: std::path::absolute(&wanted.config)?,
        json: false,
    };
    let config = load(&file)?;
    let settings = Settings::of(&config, &file.config)?;
    let bootstrap = if wanted.everything {
        settings.everything(&config)
    } else {
        settings.bootstrap()
    };
    let text = format!("{bootstrap:#}\n");
    match &wanted.out {
        Some(path) => {
            std::fs::write(path, text).with_context(|| path.display().to_string())?;
            if settings.by_socket() {
                warn(
                    "it names a Unix socket: Envoy must run on this machine, as the gateway's own user",
                );
            }
        }
        None => say!("{}", text.trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}
