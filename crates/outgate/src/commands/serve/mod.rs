//! `outgate serve`: the gateway in its state folder, with everything around it.

mod core;
mod export;
mod fleet;
mod follow;
mod home;
mod inbound;
mod issuers;
mod metrics;
mod operator;
mod planes;
mod ready;
mod record;
mod tls;
mod watch;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context, Result, bail};
use outgate_config::Config;
use outgate_native::state::StatePaths;
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use self::home::Home;
use super::{
    destinations, load,
    process::{LogTarget, hide_memory, set_limits, start_log},
    state,
};
use crate::{
    cli::{ConfigFile, Serve},
    style::say,
};

pub(crate) fn run(serve: &Serve, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    start_log(LogTarget::StandardError(serve.log_format));
    hide_memory();
    set_limits();
    let file = ConfigFile {
        // As it is read again later: a path that is written in another way would count as changed.
        config: std::path::absolute(&serve.file.config)?,
        json: serve.file.json,
    };
    let config = load(&file)?;
    if !config.listen.serves_guests() && config.listen.control.is_none() {
        bail!(
            "{}: there is none of listen.proxy, listen.transparent, listen.xds and listen.control, so nobody would be served; add `listen: {{ proxy: 127.0.0.1:8080 }}`",
            file.config.display()
        );
    }
    let state = state(state_dir, Some(&config))?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?
        .block_on(serve_until_told(file, config, state))
}

async fn serve_until_told(file: ConfigFile, config: Config, state: StatePaths) -> Result<ExitCode> {
    // Before anything listens, so that a signal is never lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let home = Arc::new(Home::open(config, file.config, state.clone()).await?);
    announce(&home, &state, file.json);

    let (look, looks) = mpsc::channel(1);
    let stop = async {
        tokio::select! {
            () = watch::follow(&home, looks) => {}
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
        stopped = home.stop() => stopped?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn announce(home: &Home, state: &StatePaths, as_json: bool) {
    let gateway = home.gateway();
    let ca = gateway.has_ca();
    let operator = home.operator_address();
    if as_json {
        say!(
            "{}",
            json!({
                "event": "ready",
                "proxy": gateway.proxy().iter().map(ToString::to_string).collect::<Vec<_>>(),
                "transparent": gateway.transparent().iter().map(ToString::to_string).collect::<Vec<_>>(),
                "operator": state.operator_socket(),
                "operator_https": operator.map(|address| format!("https://{address}")),
                "metrics": home.metrics().iter().map(|address| format!("http://{address}/metrics")).collect::<Vec<_>>(),
                "control": home.control_address().map(|address| format!("https://{address}")),
                "xds": home.planes_place(),
                "inbound": home.inbound_addresses().map(|it| it.to_string()).collect::<Vec<_>>(),
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
    for address in gateway.transparent() {
        say!("captured  {address}");
    }
    if let Some(address) = operator {
        say!("operators https://{address}");
    }
    if let Some(address) = home.control_address() {
        say!("gateways  https://{address}");
    }
    for address in home.inbound_addresses() {
        say!("inbound   {address}");
    }
    if let Some(place) = home.planes_place() {
        say!("planes    {place}");
    }
    for address in home.metrics() {
        say!("metrics   http://{address}/metrics");
    }
    say!("state     {}", state.folder().display());
    say!("policy    {}", destinations(gateway.config().policy.len()));
    if ca {
        say!("CA        {}", state.ca_certificate().display());
    } else {
        say!("CA        none: nothing is terminated");
    }
    if !gateway.config().listen.serves_guests() {
        return;
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
