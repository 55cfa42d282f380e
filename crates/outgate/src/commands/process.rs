//! What a process that holds secrets does to itself, whichever command started it: its log and its memory.

use std::fs::File;

use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::cli::LogFormat;

/// Where the log goes.
pub(super) enum LogTarget {
    StandardError(LogFormat),
    File(File),
}

/// What the libraries log in detail is headers and frames, secrets included: below warnings, only the gateway's own
/// words are let through, whatever `RUST_LOG` says.
pub(super) fn start_log(target: LogTarget) {
    let wanted = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let own =
        filter_fn(|event| event.target().starts_with("outgate") || *event.level() <= Level::WARN);
    let registry = tracing_subscriber::registry().with(wanted);
    let layer = tracing_subscriber::fmt::layer().with_target(false);
    match target {
        LogTarget::StandardError(LogFormat::Text) => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let layer = layer.with_writer(std::io::stderr).with_ansi(is_terminal);
            registry.with(layer.with_filter(own)).init();
        }
        LogTarget::StandardError(LogFormat::Json) => {
            let layer = layer.with_writer(std::io::stderr).json();
            registry.with(layer.with_filter(own)).init();
        }
        LogTarget::File(file) => {
            let layer = layer
                .with_writer(std::sync::Mutex::new(file))
                .with_ansi(false);
            registry.with(layer.with_filter(own)).init();
        }
    }
}

/// Secrets live in this process: no core dump of it, and no other process of the same user reads its memory or its
/// environment.
pub(super) fn hide_memory() {
    #[cfg(target_os = "linux")]
    if let Err(error) =
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        tracing::warn!(%error, "core dumps cannot be switched off");
    }
}

/// Limits that every process inherits which is started after this: no core dumps, and more descriptors, because every
/// connection is two.
pub(super) fn set_limits() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps cannot be limited");
    }
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the number of open files cannot be raised");
    }
}
