//! The terminal that the command and this process share. Job control is the shell's: all of them are one job.

use std::io::{IsTerminal, stdin};

/// The signal of `^C`.
pub(super) const INTERRUPT: i32 = signal_hook::consts::SIGINT;

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

/// Ends this process as `^C` ended the command, so that a shell sees its whole loop interrupted and not one command of it
/// fail.
pub(super) fn end_by_interrupt() {
    // Comes back only where the signal cannot be raised; the exit status says the same then.
    let _ = signal_hook::low_level::emulate_default_handler(INTERRUPT);
}

/// Stops this process, so that the shell sees its job stopped, until it is continued.
pub(super) fn stop_until_continued() {
    let own = rustix::process::getpid();
    let _ = rustix::process::kill_process(own, rustix::process::Signal::STOP);
}
