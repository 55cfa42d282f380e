//! `outgate envoy run`: Envoy as a child of this process.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use outgate_config::Config;
use outgate_envoy::{
    render::names::{LISTENER_PROXY, LISTENER_TRANSPARENT},
    supervise::{EnvoyBinary, Event, Expected, OLDEST, Order, Setup, SuperviseError, supervise},
};
use outgate_plane::upstream_tls::RootsError;
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{rendered::Settings, told::Teller};
use crate::{
    cli::{ConfigFile, EnvoyRun},
    commands::{
        block_on, load,
        process::{LogTarget, set_limits, start_log},
        state,
    },
    style::say,
};

/// Signals so close to each other are one.
const AT_ONCE: Duration = Duration::from_millis(300);

pub(super) fn run(run: &EnvoyRun, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    start_log(LogTarget::StandardError(run.log_format));
    // Envoy inherits them: it holds keys and credentials, and every connection of its is two.
    set_limits();
    match prepare_and_run(run, state_dir) {
        Err(error) if run.file.json => {
            say!(
                "{}",
                json!({ "error": { "code": code(&error), "message": format!("{error:#}") } })
            );
            Ok(ExitCode::FAILURE)
        }
        result => result,
    }
}

fn code(error: &anyhow::Error) -> &'static str {
    let of_envoy = error.downcast_ref().map(SuperviseError::code);
    let of_roots = || error.downcast_ref().map(RootsError::code);
    of_envoy.or_else(of_roots).unwrap_or("failed")
}

fn prepare_and_run(run: &EnvoyRun, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    let file = ConfigFile {
        // What it names beside it is named by whole paths.
        config: std::path::absolute(&run.file.config)?,
        json: run.file.json,
    };
    let config = load(&file)?;
    let settings = Settings::of(&config, &file.config)?;
    let folder = state(state_dir, Some(&config))?.folder().join("envoy");
    // One thread: a runtime for a few signals and lines needs no more.
    block_on(async {
        let binary = EnvoyBinary::find(run.envoy.as_deref()).await?;
        if binary.is_newer_than_known() {
            tracing::warn!(
                code = "envoy_newer_than_known",
                "Envoy {} is newer than {OLDEST}, the newest that was tried with this; it may understand the configuration \
                 in another way",
                binary.version()
            );
        }
        binary
            .validate(&folder, &settings.everything(&config))
            .await?;
        let setup = setup(run, &config, &settings, binary, &folder)?;
        follow(run, &settings, &setup).await
    })
}

fn setup(
    run: &EnvoyRun,
    config: &Config,
    settings: &Settings,
    binary: EnvoyBinary,
    folder: &Path,
) -> Result<Setup> {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let concurrency = match run.concurrency {
        Some(number) => number.get(),
        None => u32::try_from(processors()).unwrap_or(1),
    };
    let expected = |prefix: &str, count| Expected {
        prefix: prefix.to_owned(),
        count,
    };
    Ok(Setup {
        binary,
        helper: std::env::current_exe().context("this program is not found")?,
        folder: folder.to_owned(),
        bootstrap: settings.bootstrap(),
        admin: settings.admin(folder),
        proxy: expected(LISTENER_PROXY, settings.envoy().proxy.len()),
        transparent: expected(LISTENER_TRANSPARENT, settings.envoy().transparent.len()),
        control: Some(settings.control()),
        concurrency,
        grace: config.timeouts.drain,
        further: run.further.clone(),
        log_secrets: run.log_secrets,
    })
}

async fn follow(run: &EnvoyRun, settings: &Settings, setup: &Setup) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (order, mut orders) = mpsc::channel(2);
    let control = settings.control();
    let teller = Teller {
        json: run.file.json,
        version: setup.binary.version(),
        program: setup.binary.path(),
        control: &control,
    };
    let signals = async {
        let mut last: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    tracing::info!("nothing to read again: Envoy's configuration comes from its control plane");
                    continue;
                }
            }
            // Who signals a whole group signals twice; that is one wish.
            if last.is_none_or(|last| last.elapsed() >= AT_ONCE) {
                let _ = order.try_send(Order::Stop);
            }
            last = Some(Instant::now());
        }
    };
    let mut tell = |event: Event| teller.tell(event);
    tokio::select! {
        result = supervise(setup, &mut orders, &mut tell) => result?,
        () = signals => {}
    }
    Ok(ExitCode::SUCCESS)
}
