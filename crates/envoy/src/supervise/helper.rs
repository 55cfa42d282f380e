//! The hidden role: asks the kernel to be killed at its parent's end, then becomes Envoy.

use std::{
    ffi::OsString,
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

/// The hidden subcommand's name: the supervisor starts its helper program as `program HELPER PARENT ENVOY FLAG…`, and the
/// program hands what comes after the name to [`helper()`].
pub const HELPER: &str = "envoy-helper";

/// What a program that cannot become another ends with, as in a shell.
const CANNOT_EXECUTE: u8 = 126;

/// Becomes Envoy; comes back only where that failed.
pub fn helper(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let parent = arguments
        .next()
        .and_then(|it| it.into_string().ok()?.parse().ok());
    let (Some(parent), Some(program)) = (parent, arguments.next()) else {
        return ExitCode::from(2);
    };
    if let Err(error) = die_with(parent) {
        complain(&format!("cannot be tied to its supervisor: {error}"));
        return ExitCode::from(CANNOT_EXECUTE);
    }
    // The signal stays asked for across this, unless the file has privileges; those are refused before.
    let error = Command::new(&program).args(arguments).exec();
    complain(&format!("{}: {error}", program.display()));
    ExitCode::from(CANNOT_EXECUTE)
}

#[cfg(target_os = "linux")]
fn die_with(parent: u32) -> std::io::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before the kernel was asked; then somebody else is the parent.
    let found = getppid().map(|pid| pid.as_raw_nonzero().get());
    if found.and_then(|pid| u32::try_from(pid).ok()) == Some(parent) {
        Ok(())
    } else {
        Err(std::io::Error::other("it has ended"))
    }
}

/// No other system has such a signal: there Envoy outlives a supervisor that was killed.
#[cfg(not(target_os = "linux"))]
fn die_with(_parent: u32) -> std::io::Result<()> {
    Ok(())
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
