//! Decides what texts with a form of their own mean: durations, rates, sizes, address ranges. No form has a
//! default unit: a number without one is refused, since `30` could be seconds or minutes.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use ipnet::IpNet;
use outgate_journey::policy::Rate;

/// Splits `120min` into 120 and `min`.
fn number_and_rest(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, rest))
}

/// `500ms`, `10s`, `30m`, `1h`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_rest(text)?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        _ => None,
    }
}

/// The text of a duration, in the largest unit that it has a whole number of.
pub(crate) fn duration_text(duration: Duration) -> String {
    let (seconds, milliseconds) = (duration.as_secs(), duration.as_millis());
    match seconds {
        _ if duration.subsec_millis() > 0 => format!("{milliseconds}ms"),
        0 => format!("{milliseconds}ms"),
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

/// `120/min`.
pub(crate) fn rate(text: &str) -> Option<Rate> {
    let (number, unit) = number_and_rest(text)?;
    let window_seconds = match unit {
        "/s" | "/sec" | "/second" => 1,
        "/min" | "/minute" => 60,
        "/h" | "/hour" => 3600,
        "/d" | "/day" => 86_400,
        _ => return None,
    };
    let events = NonZeroU32::new(u32::try_from(number).ok()?)?;
    Some(Rate {
        events,
        window_seconds,
    })
}

/// `1GiB`, `500MB`, `4096`: bytes, at least 1.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_rest(text)?;
    let each: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1000 * 1000,
        "GB" => 1000 * 1000 * 1000,
        "TB" => 1000 * 1000 * 1000 * 1000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(each).filter(|bytes| *bytes > 0)
}

/// `10.0.0.0/24`, or one address. Host bits beyond the prefix are refused: `10.0.0.7/24` is a slip of the pen.
pub(crate) fn range(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(IpNet::from(address));
    }
    text.parse::<IpNet>()
        .ok()
        .filter(|net| net.addr() == net.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_number_and_a_unit() {
        for (text, milliseconds) in [
            ("500ms", Some(500)),
            ("10s", Some(10_000)),
            ("30m", Some(1_800_000)),
            ("1h", Some(3_600_000)),
            ("0s", Some(0)),
            ("30", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1.5h", None),
            ("1 s", None),
            ("1S", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(
                duration(text),
                milliseconds.map(Duration::from_millis),
                "{text}"
            );
        }
    }

    #[test]
    fn rates_need_events_and_a_window() {
        for (text, expected) in [
            ("120/min", Some((120, 60))),
            ("1/s", Some((1, 1))),
            ("5/hour", Some((5, 3600))),
            ("7/d", Some((7, 86_400))),
            ("0/s", None),
            ("/s", None),
            ("10", None),
            ("10/week", None),
            ("4294967296/s", None),
            ("10 / s", None),
        ] {
            let read = rate(text).map(|r| (r.events.get(), r.window_seconds));
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn sizes_know_decimal_and_binary_units() {
        for (text, bytes) in [
            ("1GiB", Some(1 << 30)),
            ("1GB", Some(1_000_000_000)),
            ("4096", Some(4096)),
            ("3B", Some(3)),
            ("0", None),
            ("1gb", None),
            ("18446744073709551615KiB", None),
        ] {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn a_range_has_no_bits_beyond_its_prefix() {
        for (text, expected) in [
            ("10.0.0.0/24", Some("10.0.0.0/24")),
            ("10.0.0.7", Some("10.0.0.7/32")),
            ("fd00::/8", Some("fd00::/8")),
            ("::1", Some("::1/128")),
            ("10.0.0.7/24", None),
            ("10.0.0", None),
            ("10.0.0.0/33", None),
            ("localhost", None),
        ] {
            assert_eq!(
                range(text).map(|net| net.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }
}
