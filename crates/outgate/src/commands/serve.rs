//! `outgate serve`.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use outgate_config::Config;
use outgate_native::{gateway::Gateway, state::StatePaths, watch};
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt,
};

use super::{destinations, load, state};
use crate::{
    cli::{LogFormat, Serve},
    style::say,
};

pub(crate) fn run(serve: &Serve, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    start_log(serve.log_format);
    protect_memory();
    let config = load(&serve.file)?;
    let state = state(state_dir, Some(&config))?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?
        .block_on(serve_until_told(serve, config, state))
}

async fn serve_until_told(serve: &Serve, config: Config, state: StatePaths) -> Result<ExitCode> {
    // Before anything listens, so that a signal is never lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let gateway = Arc::new(Gateway::start(config, state).await?);
    announce(&gateway, serve.file.json);

    let (look, looks) = mpsc::channel(1);
    let path = serve.file.config.clone();
    let stop = async {
        tokio::select! {
            () = watch::follow(&gateway, &path, looks) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = async {
                while hangup.recv().await.is_some() {
                    let _ = look.try_send(());
                }
            } => {}
        }
    };
    stop.await;
    tracing::info!("stopping");
    // A second signal does not wait for the grace period.
    tokio::select! {
        stopped = gateway.stop() => stopped?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn announce(gateway: &Gateway, as_json: bool) {
    let state = gateway.state();
    let ca = gateway.has_ca();
    if as_json {
        say!(
            "{}",
            json!({
                "event": "ready",
                "proxy": gateway.proxy().iter().map(ToString::to_string).collect::<Vec<_>>(),
                "operator": state.operator_socket(),
                "ca": ca.then(|| state.ca_certificate()),
                "bundle": ca.then(|| state.bundle()),
                "pid": std::process::id(),
            })
        );
        return;
    }
    for address in gateway.proxy() {
        say!("proxy     http://{address}");
    }
    say!("state     {}", state.folder().display());
    say!("policy    {}", destinations(gateway.config().policy.len()));
    if ca {
        say!("CA        {}", state.ca_certificate().display());
    } else {
        say!("CA        none: nothing is terminated");
    }
    say!("next      in another terminal, then start the workload there:");
    say!("          eval \"$({} env)\"", command_line(state.folder()));
}

/// How this binary is called for this state folder: it may not be on the PATH.
fn command_line(state: &std::path::Path) -> String {
    let binary = std::env::current_exe()
        .map_or_else(|_| "outgate".to_owned(), |path| path.display().to_string());
    format!("{binary} --state-dir {}", state.display())
}

/// What the libraries log in detail is headers and frames, secrets included: below warnings, only the gateway's own
/// words are let through, whatever `RUST_LOG` says.
fn start_log(format: LogFormat) {
    let wanted = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let own =
        filter_fn(|event| event.target().starts_with("outgate") || *event.level() <= Level::WARN);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let registry = tracing_subscriber::registry().with(wanted);
    match format {
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry
                .with(layer.with_ansi(is_terminal).with_filter(own))
                .init();
        }
        LogFormat::Json => registry.with(layer.json().with_filter(own)).init(),
    }
}

/// Secrets live in this process: no core dump of it, and no other process of the same user reads its memory or its
/// environment. More descriptors, because every connection is two.
fn protect_memory() {
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        tracing::warn!(%error, "core dumps cannot be switched off");
    }
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Core, none) {
        tracing::warn!(%error, "core dumps cannot be limited");
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        tracing::warn!(%error, "the number of open files cannot be raised");
    }
}
