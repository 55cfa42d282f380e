//! How the commands look. Colour only on a terminal (`anstream` sees to it).

use owo_colors::OwoColorize;

/// Prints a line to standard output.
macro_rules! say {
    ($($text:tt)*) => { anstream::println!($($text)*) };
}
pub(crate) use say;

/// Prints an error and what led to it.
pub(crate) fn error(error: &anyhow::Error) {
    anstream::eprintln!("{} {error}", "error:".red().bold());
    for cause in error.chain().skip(1) {
        anstream::eprintln!("  {} {cause}", "because:".dimmed());
    }
}

/// Prints a remark to standard error.
pub(crate) fn warn(text: &str) {
    anstream::eprintln!("{} {text}", "warning:".yellow().bold());
}
