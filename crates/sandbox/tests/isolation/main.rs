//! The isolation, tried from inside by real programs in real namespaces, as root and as a user without privileges.
//!
//! This program is four things: the tests; the launcher of a sandbox (`launch`), so that one can be started by any
//! user and be killed; and the two hidden roles of the helper. A machine without user namespaces fails these tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::print_stdout, clippy::print_stderr, unreachable_pub)]

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod launch;
#[cfg(target_os = "linux")]
mod life;
#[cfg(target_os = "linux")]
mod network;
#[cfg(target_os = "linux")]
mod support;
#[cfg(target_os = "linux")]
mod terminal;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let mut words = std::env::args_os().skip(1);
    match words.next() {
        Some(word) if word == outgate_sandbox::HELPER => {
            outgate_sandbox::helper(&words.next().unwrap_or_default())
        }
        Some(word) if word == "launch" => launch::run(words),
        _ => {
            let suites = [
                calls::trials(),
                files::trials(),
                life::trials(),
                network::trials(),
                terminal::trials(),
            ];
            let trials = suites.into_iter().flatten().collect();
            let conclusion = libtest_mimic::run(&libtest_mimic::Arguments::from_args(), trials);
            support::clean();
            conclusion.exit_code()
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}
