//! The terminal that the command and this process share. Job control is the shell's: all of them are one job.

use std::io::{IsTerminal, stdin};

/// Whether this process is in the foreground of a terminal, whose keys then signal the command as well.
pub(super) fn is_in_foreground() -> bool {
    let front = rustix::termios::tcgetpgrp(stdin());
    stdin().is_terminal() && front == Ok(rustix::process::getpgrp())
}

/// Stops this process, so that the shell sees its job stopped, until it is continued.
pub(super) fn stop_until_continued() {
    let own = rustix::process::getpid();
    let _ = rustix::process::kill_process(own, rustix::process::Signal::STOP);
}
