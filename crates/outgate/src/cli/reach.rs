//! Which gateway a command is about, and what its arguments mean.

use std::path::PathBuf;

use clap::Args;
use outgate_journey::{limit_text::LimitsText, policy::SessionLimits};

/// The gateway on this machine whose folder a command reads.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// A gateway's configuration file, to find its state folder and audit trail
    #[arg(
        long,
        short,
        global = true,
        env = "OUTGATE_CONFIG",
        value_name = "FILE"
    )]
    pub(crate) config: Option<PathBuf>,
}

/// The running gateway that a command speaks to.
#[derive(Debug, Args)]
pub(crate) struct Reach {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The gateway's operator interface, as in https://gateway.example.org:9443 [default: the socket in the state folder]
    #[arg(
        long,
        global = true,
        env = "OUTGATE_OPERATOR",
        value_name = "URL",
        help_heading = "Over the network"
    )]
    pub(crate) operator: Option<String>,
    /// The file with the operator's token for it
    #[arg(
        long,
        global = true,
        env = "OUTGATE_OPERATOR_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Over the network"
    )]
    pub(crate) operator_token: Option<PathBuf>,
    /// Roots for its certificate, in PEM [default: the system's]
    #[arg(
        long,
        global = true,
        env = "OUTGATE_OPERATOR_CA",
        value_name = "FILE",
        help_heading = "Over the network"
    )]
    pub(crate) operator_ca: Option<PathBuf>,
}

/// How a command answers.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Print JSON, errors as well
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// `90`, `90s`, `30m`, `2h` or `7d`, in seconds.
pub(super) fn parse_duration(text: &str) -> Result<u64, String> {
    let form = || "a number and s, m, h or d, as in 30m".to_owned();
    let (number, unit) = number_and_unit(text).ok_or_else(form)?;
    let scale = match unit {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(form()),
    };
    number
        .checked_mul(scale)
        .ok_or_else(|| "too long".to_owned())
}

pub(super) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE".to_owned()),
    }
}

/// One limit, as in `requests=120/min` or `bytes_out=1GiB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limit {
    key: &'static str,
    text: LimitsText,
}

pub(super) fn parse_limit(written: &str) -> Result<Limit, String> {
    const KEYS: &str = "one of requests, connections, concurrent_connections, bytes_out, \
                        distinct_destinations, with its value, as in requests=120/min";
    let (key, value) = written.split_once('=').ok_or(KEYS)?;
    let mut text = LimitsText::default();
    let count = || {
        value
            .parse()
            .map_err(|_| format!("{key}: a number, as in {key}=20"))
    };
    let key = match key {
        "requests" => {
            text.requests = Some(value.to_owned());
            "requests"
        }
        "connections" => {
            text.connections = Some(value.to_owned());
            "connections"
        }
        "concurrent_connections" => {
            text.concurrent_connections = Some(count()?);
            "concurrent_connections"
        }
        "bytes_out" => {
            text.bytes_out = Some(parse_size(value)?);
            "bytes_out"
        }
        "distinct_destinations" => {
            text.distinct_destinations = Some(count()?);
            "distinct_destinations"
        }
        _ => return Err(KEYS.to_owned()),
    };
    SessionLimits::try_from(&text).map_err(|fault| fault.to_string())?;
    Ok(Limit { key, text })
}

/// Bytes: `4096`, `500MB`, `1GiB`.
fn parse_size(text: &str) -> Result<u64, String> {
    let form = || "bytes_out: a number of bytes, as in 500MB or 1GiB".to_owned();
    let (number, unit) = number_and_unit(text).ok_or_else(form)?;
    let scale: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(form()),
    };
    number.checked_mul(scale).ok_or_else(form)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

/// All limits of a command line together.
pub(crate) fn limits(given: Vec<Limit>) -> Result<LimitsText, String> {
    let mut all = LimitsText::default();
    let mut seen = Vec::new();
    for Limit { key, text } in given {
        if seen.contains(&key) {
            return Err(format!("{key} is given twice"));
        }
        seen.push(key);
        all = LimitsText {
            requests: text.requests.or(all.requests),
            connections: text.connections.or(all.connections),
            concurrent_connections: text.concurrent_connections.or(all.concurrent_connections),
            bytes_out: text.bytes_out.or(all.bytes_out),
            distinct_destinations: text.distinct_destinations.or(all.distinct_destinations),
        };
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("30m", 1800),
            ("30min", 1800),
            ("2h", 7200),
            ("7d", 604_800),
        ] {
            assert_eq!(parse_duration(text), Ok(seconds), "{text}");
        }
        for bad in ["", "m", "-5m", "1.5h", "5 m", "5M", "18446744073709551615d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_are_written_as_in_the_configuration() {
        let given = [
            "requests=120/min",
            "bytes_out=1GiB",
            "concurrent_connections=3",
        ];
        let given = given.map(|text| parse_limit(text).unwrap());
        let all = limits(given.to_vec()).unwrap();
        assert_eq!(all.requests.as_deref(), Some("120/min"));
        assert_eq!(all.bytes_out, Some(1 << 30));
        assert_eq!(all.concurrent_connections, Some(3));
        assert_eq!(all.distinct_destinations, None);
    }

    #[test]
    fn a_limit_that_would_not_be_understood_is_refused_here() {
        for bad in [
            "requests",
            "requests=",
            "requests=120",
            "requests=0/min",
            "requests=-1/min",
            "request=1/s",
            "bytes_out=1gb",
            "bytes_out=0",
            "bytes_out=x",
            "concurrent_connections=0",
            "distinct_destinations=1.5",
            "=5",
        ] {
            assert!(parse_limit(bad).is_err(), "{bad}");
        }
        let twice = vec![
            parse_limit("requests=1/s").unwrap(),
            parse_limit("requests=2/s").unwrap(),
        ];
        assert!(limits(twice).is_err());
    }
}
