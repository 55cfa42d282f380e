//! The isolation on Linux. Each process has a file: `launcher`, `helper`, `init`.

mod channel;
mod devices;
mod group;
mod helper;
mod init;
mod launcher;
mod mountinfo;
mod mounts;
mod netlink;
mod network;
mod privileges;
mod program;
mod protocol;
mod reasons;
mod seccomp;
mod streams;

use std::ffi::OsStr;
use std::process::ExitCode;

pub use launcher::{Events, Prepared, Running, prepare};

/// The helper's role.
const NAMESPACE: &str = "namespace";
/// Init's role.
const INIT: &str = "init";
/// The step that containers with a masked `/proc` refuse.
const FRESH_PROC: &str = "mount a fresh /proc";

/// Plays a hidden role: what the hidden subcommand [`crate::HELPER`] calls with its only argument, before anything
/// else in the process opens a file or starts a thread.
pub fn helper(role: &OsStr) -> ExitCode {
    let end = match role.to_str() {
        Some(NAMESPACE) => helper::run(),
        Some(INIT) => init::run(),
        _ => return ExitCode::FAILURE,
    };
    // Whatever could be said was said on the channel.
    if end.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
