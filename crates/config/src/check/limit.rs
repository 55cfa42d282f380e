//! Decides how long things may take and how much of them there may be. 0 is refused everywhere: it could be read as
//! "none" or as "no limit".

use std::{ops::RangeInclusive, time::Duration};

use outgate_journey::policy::{Rate, SessionLimits};

use super::report::Report;
use crate::{
    Timeouts,
    file::{DurationText, FileSessionLimits, FileTimeouts, RateText, SizeText},
    node::KeyPath,
    scalar,
};

pub(super) fn check_session_limits(
    limits: &FileSessionLimits,
    base: &KeyPath,
    report: &mut Report<'_>,
) -> SessionLimits {
    let count = |number: Option<u32>, key: &str, report: &mut Report<'_>| {
        number.and_then(|number| check_at_least_one(number, &base.key(key), report))
    };
    SessionLimits {
        requests: check_rate(limits.requests.as_ref(), &base.key("requests"), report),
        connections: check_rate(
            limits.connections.as_ref(),
            &base.key("connections"),
            report,
        ),
        concurrent_connections: count(
            limits.concurrent_connections,
            "concurrent_connections",
            report,
        ),
        bytes_out: check_size(limits.bytes_out.as_ref(), &base.key("bytes_out"), report),
        distinct_destinations: count(
            limits.distinct_destinations,
            "distinct_destinations",
            report,
        ),
    }
}

pub(super) fn check_at_least_one(
    number: u32,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<u32> {
    if number == 0 {
        report.error(
            "out_of_range",
            path,
            "0 would let nothing through".to_owned(),
            "write at least 1, or take the key out",
        );
        return None;
    }
    Some(number)
}

/// Reads `120/min`.
pub(super) fn check_rate(
    text: Option<&RateText>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<Rate> {
    let rate = scalar::rate(&text?.0);
    if rate.is_none() {
        report.error(
            "invalid_rate",
            path,
            "not a rate".to_owned(),
            "write a number from 1 and a window (s, min, h or d), as in `120/min`",
        );
    }
    rate
}

/// Reads `1GiB`.
pub(super) fn check_size(
    text: Option<&SizeText>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<u64> {
    let bytes = scalar::size(&text?.0);
    if bytes.is_none() {
        report.error(
            "invalid_size",
            path,
            "not a number of bytes, at least 1".to_owned(),
            "write a number and a unit, as in `500MB` or `1GiB`",
        );
    }
    bytes
}

/// Reads `30m`, and checks it against its bounds.
pub(super) fn check_duration(
    text: Option<&DurationText>,
    default: Duration,
    bounds: &RangeInclusive<Duration>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Duration {
    let Some(DurationText(text)) = text else {
        return default;
    };
    match scalar::duration(text) {
        Some(duration) if bounds.contains(&duration) => return duration,
        Some(_) => report.error(
            "out_of_range",
            path,
            "outside the allowed range".to_owned(),
            &format!(
                "write a duration from {} to {}",
                scalar::duration_text(*bounds.start()),
                scalar::duration_text(*bounds.end())
            ),
        ),
        None => report.error(
            "invalid_duration",
            path,
            "not a duration".to_owned(),
            "write a whole number and a unit (ms, s, m or h), as in `30m`",
        ),
    }
    default
}

pub(super) fn check_timeouts(timeouts: Option<&FileTimeouts>, report: &mut Report<'_>) -> Timeouts {
    // A day is more than any of them needs, and far from where clock arithmetic could overflow.
    let bounds = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);
    let base = KeyPath::of("timeouts");
    let defaults = Timeouts::default();
    let mut read = |text: Option<&DurationText>, key: &str, default: Duration| {
        check_duration(text, default, &bounds, &base.key(key), report)
    };
    let written = |pick: fn(&FileTimeouts) -> Option<&DurationText>| timeouts.and_then(pick);
    Timeouts {
        head: read(written(|t| t.head.as_ref()), "head", defaults.head),
        handshake: read(
            written(|t| t.handshake.as_ref()),
            "handshake",
            defaults.handshake,
        ),
        connect: read(written(|t| t.connect.as_ref()), "connect", defaults.connect),
        response: read(
            written(|t| t.response.as_ref()),
            "response",
            defaults.response,
        ),
        idle: read(written(|t| t.idle.as_ref()), "idle", defaults.idle),
        drain: read(written(|t| t.drain.as_ref()), "drain", defaults.drain),
    }
}
