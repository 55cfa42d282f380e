//! The terminal that the command and this process share. Job control is the shell's: all of them are one job.

use std::io::{IsTerminal, stdin};

/// Whether this process is in the foreground of a terminal, whose keys then signal the command as well.
pub(super) fn is_in_foreground() -> bool {
    let front = rustix::termios::tcgetpgrp(stdin());
    stdin().is_terminal() && front == Ok(rustix::process::getpgrp())
}

/// Whether this process is a job of a shell, which notices that it stopped and can continue it. Without a terminal
/// nobody would.
pub(super) fn is_a_job() -> bool {
    let own = rustix::process::getpid();
    let leads = rustix::process::getsid(None).is_ok_and(|leader| leader == own);
    !leads && std::fs::File::open("/dev/tty").is_ok()
}

/// Stops this process, so that the shell sees its job stopped, until it is continued.
pub(super) fn stop_until_continued() {
    let own = rustix::process::getpid();
    let _ = rustix::process::kill_process(own, rustix::process::Signal::STOP);
}
