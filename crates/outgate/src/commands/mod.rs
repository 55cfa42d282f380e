//! The commands, a file each.

mod audit;
mod ca;
mod capture;
mod check;
mod demo;
mod deny;
mod env;
mod envoy;
mod exec;
mod explain;
mod files;
mod health;
mod install;
mod keys;
mod kill;
mod minter;
mod operator;
mod plane_door;
mod preflight;
mod process;
mod quota;
mod run;
mod serve;
mod session;
mod table;
mod trust;

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use outgate_audit::utc;
use outgate_config::Config;
use outgate_native::state::StatePaths;

use crate::{
    cli::{Cli, Command, ConfigFile},
    style::{say, warn},
};

/// Runs one command.
pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    let state_dir = cli.state_dir;
    match cli.command {
        Command::Demo => demo::run(),
        Command::Run(run) => run::run(run, state_dir),
        Command::Serve(serve) => serve::run(&serve, state_dir),
        Command::Envoy(envoy) => envoy::run(envoy, state_dir),
        Command::Minter(minter) => minter::run(&minter, state_dir),
        Command::Capture(capture) => capture::run(&capture),
        Command::Health(health) => health::run(&health, state_dir),
        Command::Check(file) => check::run(&file),
        Command::Explain(explain) => explain::run(&explain, state_dir),
        Command::Session(session) => session::run(session, state_dir),
        Command::Kill(kill) => kill::run(kill, state_dir),
        Command::Deny(deny) => deny::run(deny, state_dir),
        Command::Keys(keys) => keys::run(keys, state_dir),
        Command::Quota(quota) => quota::run(quota, state_dir),
        Command::Env(env) => env::run(&env, state_dir),
        Command::Ca(ca) => ca::run(ca, state_dir),
        Command::Audit(audit) => audit::run(audit, state_dir),
        Command::Preflight(preflight) => preflight::run(&preflight),
        Command::Install(install) => install::run(&install),
        Command::Trust(trust) => trust::run(&trust),
        Command::Exec(exec) => exec::run(&exec),
        Command::Schema => {
            say!(
                "{}",
                serde_json::to_string_pretty(&outgate_config::schema())?
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Loads a configuration; its problems are the error, its warnings are printed.
fn load(file: &ConfigFile) -> Result<Config> {
    if !file.config.exists() {
        bail!(
            "there is no configuration file {}; give one with --config, or see the README for a first one",
            file.config.display()
        );
    }
    let config = Config::load(&file.config).map_err(anyhow::Error::from)?;
    for warning in &config.warnings {
        warn(&format!(
            "{} (line {}): {}; {}",
            warning.key, warning.line, warning.message, warning.help
        ));
    }
    Ok(config)
}

/// The state folder: the flag or variable, the file's `state_dir`, the platform's place.
fn state(flag: Option<PathBuf>, config: Option<&Config>) -> Result<StatePaths> {
    let folder = match flag.or_else(|| config?.state_dir.clone()) {
        Some(folder) => folder,
        None => platform_state_dir()?,
    };
    let folder = std::path::absolute(&folder)
        .with_context(|| format!("state folder {}", folder.display()))?;
    Ok(StatePaths::new(folder))
}

fn platform_state_dir() -> Result<PathBuf> {
    let from = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let home = || from("HOME").context("HOME is not set; give a state folder with --state-dir");
    if cfg!(target_os = "macos") {
        return Ok(home()?.join("Library/Application Support/outgate"));
    }
    // XDG base directories: a relative path is to be ignored.
    match from("XDG_STATE_HOME").filter(|path| path.is_absolute()) {
        Some(state) => Ok(state.join("outgate")),
        None => Ok(home()?.join(".local/state/outgate")),
    }
}

/// Runs something asynchronous on this thread.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// Reads a whole text file; `-` is standard input.
fn read_text(path: &Path) -> Result<String> {
    let text = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    text.with_context(|| path.display().to_string())
}

/// How many destinations, in words.
fn destinations(count: usize) -> String {
    if count == 1 {
        "1 destination".to_owned()
    } else {
        format!("{count} destinations")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_read_in_utc() {
        assert_eq!(super::utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(super::utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(super::utc(1_767_225_599), "2025-12-31T23:59:59Z");
        assert_eq!(super::utc(4_102_444_800), "2100-01-01T00:00:00Z");
    }
}
