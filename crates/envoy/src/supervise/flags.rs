//! Envoy's flags: those that the supervisor needs, and which of the operator's go with them.

use std::{ffi::OsString, path::Path, time::Duration};

use super::SuperviseError;

/// Every line of the log is one JSON object.
pub(super) const LOG_FORMAT: &str = r#"{"level":"%l","component":"%n","message":"%j"}"#;

const OWN: &str = "it belongs to the supervisor";
/// Those that would take Envoy out of the supervisor's hands, and why.
const REFUSED: &[(&str, &str)] = &[
    ("-c", OWN),
    ("--config-path", OWN),
    (
        "--config-yaml",
        "it would change what the gateway rendered; change the configuration file instead",
    ),
    ("--mode", "it would not serve; run `envoy` itself for that"),
    ("--admin-address-path", OWN),
    ("--disable-hot-restart", OWN),
    (
        "--restart-epoch",
        "hot restart is off, because Envoy would then end with a thread of its parent",
    ),
    ("--base-id", "hot restart is off"),
    ("--use-dynamic-base-id", "hot restart is off"),
    ("--base-id-path", "hot restart is off"),
    ("--log-format", OWN),
    ("--log-format-escaped", OWN),
    (
        "--log-path",
        "the supervisor reads the log; send its own standard error to a file instead",
    ),
    (
        "--enable-core-dump",
        "Envoy's memory holds credentials and keys",
    ),
    (
        "--disable-extensions",
        "the configuration needs what it needs",
    ),
    (
        "--allow-unknown-fields",
        "an Envoy that skips what it does not know skips a check",
    ),
    (
        "--allow-unknown-static-fields",
        "an Envoy that skips what it does not know skips a check",
    ),
    (
        "--ignore-unknown-dynamic-fields",
        "an Envoy that skips what it does not know skips a check",
    ),
    ("--version", "it would not serve"),
    ("-h", "it would not serve"),
    ("--help", "it would not serve"),
    ("--", "nothing after it would be read as a flag"),
    ("--ignore_rest", "nothing after it would be read as a flag"),
];

/// The whole list; the operator's own take the place of those that are only defaults.
pub(super) fn flags(
    bootstrap: &Path,
    admin_address: Option<&Path>,
    concurrency: u32,
    grace: Duration,
    further: &[OsString],
) -> Result<Vec<OsString>, SuperviseError> {
    check(further)?;
    let mut flags: Vec<OsString> = vec!["-c".into(), bootstrap.into()];
    if let Some(file) = admin_address {
        flags.extend(["--admin-address-path".into(), file.into()]);
    }
    flags.push("--disable-hot-restart".into());
    // What the control plane sends and this Envoy does not know is refused, not skipped.
    flags.push("--reject-unknown-dynamic-fields".into());
    flags.extend(["--log-format".into(), LOG_FORMAT.into()]);
    // Half of the grace period asks clients to leave; the other half has closed sockets.
    let drain = (grace.as_secs() / 2).max(1);
    let defaults = [
        (["--log-level", "-l"], "warning".to_owned()),
        (["--concurrency"; 2], concurrency.to_string()),
        (["--drain-time-s"; 2], drain.to_string()),
        (["--drain-strategy"; 2], "immediate".to_owned()),
        (["--file-flush-interval-msec"; 2], "200".to_owned()),
    ];
    for ([name, other], value) in defaults {
        if !further.iter().any(|it| is(it, name) || is(it, other)) {
            flags.extend([name.into(), value.into()]);
        }
    }
    // Envoy refuses a switch that is there twice.
    let own = |it: &&OsString| !is(it, "--reject-unknown-dynamic-fields");
    flags.extend(further.iter().filter(own).cloned());
    Ok(flags)
}

/// Whether the operator's own flags have Envoy log below `info`, where it writes header fields.
pub(super) fn log_everything(further: &[OsString]) -> bool {
    let words = || further.iter().map(|word| word.to_string_lossy());
    let sets_level = words().any(|word| {
        word.starts_with("--log-level")
            || word.starts_with("--component-log-level")
            || (word.starts_with("-l") && !word.starts_with("--"))
    });
    sets_level && words().any(|word| word.contains("debug") || word.contains("trace"))
}

fn check(further: &[OsString]) -> Result<(), SuperviseError> {
    for flag in further {
        // `-cFILE` is a short flag with its value.
        let short = flag.to_string_lossy();
        let attached = short.starts_with("-c") && !short.starts_with("--");
        let refused = REFUSED.iter().find(|(name, _)| is(flag, name));
        let refused = refused.or_else(|| REFUSED.first().filter(|_| attached));
        if let Some((_, why)) = refused {
            return Err(SuperviseError::Flag {
                flag: short.into_owned(),
                why,
            });
        }
    }
    Ok(())
}

/// Whether a word is this flag, with its value attached or not.
fn is(word: &OsString, flag: &str) -> bool {
    let word = word.to_string_lossy();
    match word.strip_prefix(flag) {
        Some(rest) => rest.is_empty() || rest.starts_with('='),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(further: &[&str]) -> Result<String, SuperviseError> {
        let further: Vec<OsString> = further.iter().map(OsString::from).collect();
        let flags = flags(
            Path::new("/s/b.json"),
            None,
            2,
            Duration::from_secs(10),
            &further,
        )?;
        let words: Vec<_> = flags.iter().map(|it| it.to_string_lossy()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn the_defaults_give_way_to_the_operators_own() {
        let plain = shown(&[]).unwrap();
        for part in [
            "-c /s/b.json",
            "--disable-hot-restart",
            "--concurrency 2",
            "--log-level warning",
            "--drain-time-s 5",
        ] {
            assert!(plain.contains(part), "{plain}");
        }
        let own = shown(&["-l", "debug", "--concurrency=8"]).unwrap();
        assert!(own.ends_with("-l debug --concurrency=8"), "{own}");
        assert!(!own.contains("warning") && !own.contains("--concurrency 2"));
    }

    #[test]
    fn a_level_below_info_is_seen_however_it_is_written() {
        for (further, expected) in [
            (&["-l", "debug"][..], true),
            (&["-ltrace"], true),
            (&["--log-level=debug"], true),
            (&["--component-log-level", "upstream:info,http:trace"], true),
            (&["-l", "info"], false),
            (&["--component-log-level", "http:warning"], false),
            (&["--service-zone", "debug"], false),
            (&[], false),
        ] {
            let further: Vec<OsString> = further.iter().map(OsString::from).collect();
            assert_eq!(log_everything(&further), expected, "{further:?}");
        }
    }

    #[test]
    fn flags_that_take_envoy_out_of_its_hands_are_refused() {
        for flag in [
            "-c",
            "-c/tmp/x.json",
            "--config-yaml",
            "--config-yaml={}",
            "--mode",
            "--base-id=1",
            "--log-format",
            "--enable-core-dump",
            "--allow-unknown-fields",
            "--",
        ] {
            let refused = shown(&[flag]);
            assert!(
                matches!(refused, Err(SuperviseError::Flag { .. })),
                "{flag}"
            );
        }
        for flag in ["--component-log-level", "--concurrency", "--cpuset-threads"] {
            assert!(shown(&[flag, "1"]).is_ok(), "{flag}");
        }
    }
}
