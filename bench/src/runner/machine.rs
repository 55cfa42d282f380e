//! What was measured, and on what: a line that stands before a run's results.

use std::{fs, path::Path, process::Command};

use super::{
    MINUTE,
    peers::{Peer, Programs},
    process::{Interrupt, output},
    results::Line,
};

const HUDSUCKER_LOCK: &str = include_str!("../../peers/hudsucker/Cargo.lock");

/// Processor, cores, kernel; date; commit; versions of the peers' programs. What cannot be found out is `unknown`.
pub(crate) fn describe(peers: &[Peer], programs: &Programs, interrupt: &Interrupt) -> Line {
    let first_line = |program: &Path, words: &[&str]| -> Option<String> {
        let text = output(Command::new(program).args(words), MINUTE, interrupt).ok()?;
        let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
        // Envoy begins with its own path.
        let version = line
            .split_once(" version: ")
            .map_or(line, |(_, version)| version);
        Some(version.to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let machine = format!("{}, {cores} cores, Linux {}", processor(), kernel.trim());
    let date = first_line(Path::new("date"), &["-u", "+%Y-%m-%d %H:%M UTC"]);
    let commit = first_line(
        Path::new("git"),
        &["describe", "--always", "--dirty", "--abbrev=12"],
    );
    let versions: Vec<String> = peers
        .iter()
        .filter_map(|peer| {
            let version = match (peer, programs.of(*peer).ok()??) {
                (Peer::Hudsucker, _) => locked("hudsucker"),
                (Peer::Squid, program) => first_line(program, &["-v"]),
                (_, program) => first_line(program, &["--version"]),
            };
            Some(format!(
                "{} ({})",
                peer.name(),
                version.unwrap_or_else(|| "unknown".to_owned())
            ))
        })
        .collect();
    let unknown = || "unknown".to_owned();
    [
        ("machine", machine),
        ("date", date.unwrap_or_else(unknown)),
        ("commit", commit.unwrap_or_else(unknown)),
        ("versions", versions.join("; ")),
    ]
    .map(|(key, value)| (key.to_owned(), value.into()))
    .into_iter()
    .collect()
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(
        || std::env::consts::ARCH.to_owned(),
        |(_, model)| model.to_owned(),
    )
}

/// The version of a package in hudsucker's lock file.
fn locked(package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let (_, after) = HUDSUCKER_LOCK.split_once(&name)?;
    let version = after
        .lines()
        .find_map(|line| line.strip_prefix("version = "))?;
    Some(version.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_hudsucker_is_the_locked_one() {
        assert_eq!(locked("hudsucker").unwrap(), "0.25.0");
    }

    #[test]
    fn a_peer_without_a_program_has_no_version() {
        let line = describe(&[Peer::Direct], &Programs::default(), &Interrupt::default());
        assert_eq!(line.get("versions").unwrap(), "");
        assert!(
            line.get("machine")
                .unwrap()
                .as_str()
                .unwrap()
                .contains("Linux")
        );
    }
}
