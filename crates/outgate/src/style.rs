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
    let said = error.to_string();
    // Many messages hold their cause already.
    let causes = error.chain().skip(1).map(ToString::to_string);
    for cause in causes.filter(|cause| !said.contains(cause)) {
        anstream::eprintln!("  {} {cause}", "because:".dimmed());
    }
}

/// Prints a line to standard error.
pub(crate) fn tell(text: &str) {
    anstream::eprintln!("{text}");
}

/// Prints a remark to standard error.
pub(crate) fn warn(text: &str) {
    anstream::eprintln!("{} {text}", "warning:".yellow().bold());
}
