//! Decides what a session token is, how long a session lives, and what is an anomaly.

use std::{ops::RangeInclusive, path::Path, time::Duration};

use http::HeaderName;
use outgate_journey::{policy::SessionLimits, tripwire::Tripwire};

use super::{
    inject::check_sendable_header,
    issuer::check_issuers,
    limit::{check_at_least_one, check_duration, check_session_limits, check_size},
    report::Report,
};
use crate::{
    OperatorOidc, SessionView, Sessions,
    file::{AnyOneOrMany, FileSessions, FileTripwire, FileView, SizeText},
    node::KeyPath,
};

/// Sessions, the further header fields of their tokens, and what each may use.
pub(super) fn check_sessions(
    sessions: Option<&FileSessions>,
    operators: &[OperatorOidc],
    folder: &Path,
    report: &mut Report<'_>,
) -> (Sessions, Vec<HeaderName>, SessionLimits) {
    let defaults = Sessions::default();
    let base = KeyPath::of("sessions");
    let Some(sessions) = sessions else {
        return (defaults, Vec::new(), SessionLimits::default());
    };
    let up_to = |minutes: u64| Duration::from_secs(1)..=Duration::from_secs(minutes * 60);
    let ttl = sessions.ttl.as_ref();
    let ttl = check_duration(ttl, defaults.ttl, &up_to(60), &base.key("ttl"), report);
    let idle = sessions.idle.as_ref();
    let idle = check_duration(idle, defaults.idle, &up_to(15), &base.key("idle"), report);
    let lifetime = sessions.lifetime.as_ref().map(|text| {
        let (longest, path) = (Duration::from_secs(12 * 3600), base.key("lifetime"));
        check_duration(Some(text), longest, &up_to(12 * 60), &path, report)
    });
    let headers = check_headers(sessions.token_headers.as_ref(), &base, report);
    let limits = sessions
        .limits
        .as_ref()
        .map(|limits| check_session_limits(limits, &base.key("limits"), report))
        .unwrap_or_default();
    let tripwire = sessions
        .tripwire
        .as_ref()
        .and_then(|written| check_tripwire(written, &base.key("tripwire"), report));
    let view = check_view(sessions.view.as_ref(), &base.key("view"), report);
    let issuers = check_issuers(&sessions.issuers, operators, folder, report);
    let sessions = Sessions {
        ttl,
        idle,
        lifetime,
        tripwire,
        view,
        issuers,
    };
    (sessions, headers, limits)
}

const MOST_REQUESTS: u32 = 1000;
const MOST_OF_A_BODY: u64 = 16 << 10;
const MEMORY: RangeInclusive<u64> = 1 << 20..=1 << 30;

fn check_view(written: Option<&FileView>, base: &KeyPath, report: &mut Report<'_>) -> SessionView {
    let defaults = SessionView::default();
    let Some(written) = written else {
        return defaults;
    };
    let requests = written.requests.unwrap_or(defaults.requests);
    let at = base.key("requests");
    if requests > MOST_REQUESTS {
        let message = "more than are kept".to_owned();
        report.error(
            "out_of_range",
            &at,
            message,
            "write a number from 0 to 1000",
        );
    }
    let at = base.key("bodies");
    let help = "write a size of at most 16KiB, or take the key out to keep no bodies";
    let bodies = check_bounded(
        written.bodies.as_ref(),
        &(1..=MOST_OF_A_BODY),
        help,
        &at,
        report,
    );
    if requests == 0 && written.bodies.is_some() {
        report.error(
            "no_such_use",
            &at,
            "of no request, no body is kept".to_owned(),
            "let `requests` be 1 or more, or take `bodies` out",
        );
    }
    let at = base.key("memory");
    let help = "write a size from 1MiB to 1GiB";
    let memory = check_bounded(written.memory.as_ref(), &MEMORY, help, &at, report);
    SessionView {
        requests,
        bodies: bodies.unwrap_or(defaults.bodies),
        memory: memory.unwrap_or(defaults.memory),
    }
}

fn check_bounded(
    written: Option<&SizeText>,
    bounds: &RangeInclusive<u64>,
    help: &str,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<u32> {
    let bytes = check_size(written, path, report)?;
    if !bounds.contains(&bytes) {
        let message = "not a size that is kept".to_owned();
        report.error("out_of_range", path, message, help);
    }
    u32::try_from(bytes).ok()
}

fn check_headers(
    written: Option<&AnyOneOrMany<String>>,
    base: &KeyPath,
    report: &mut Report<'_>,
) -> Vec<HeaderName> {
    let texts = written.map_or(&[][..], |list| &list.0);
    let mut headers = Vec::new();
    for (path, text) in report.places(&base.key("token_headers"), texts) {
        let Some(name) = check_sendable_header(text, &path, report) else {
            continue;
        };
        if headers.contains(&name) {
            report.duplicate(&path, name.as_str());
        } else {
            headers.push(name);
        }
    }
    headers
}

fn check_tripwire(
    written: &FileTripwire,
    base: &KeyPath,
    report: &mut Report<'_>,
) -> Option<Tripwire> {
    let window = check_duration(
        written.window.as_ref(),
        Duration::from_secs(3600),
        &(Duration::from_secs(1)..=Duration::from_secs(24 * 3600)),
        &base.key("window"),
        report,
    );
    let mut count = |number: Option<u32>, key: &str| {
        let number = check_at_least_one(number?, &base.key(key), report)?;
        Some(u64::from(number))
    };
    let requests = count(written.requests, "requests");
    let distinct_destinations = count(written.distinct_destinations, "distinct_destinations");
    let bytes_out = check_size(written.bytes_out.as_ref(), &base.key("bytes_out"), report);
    let is_silent = written.requests.is_none()
        && written.distinct_destinations.is_none()
        && written.bytes_out.is_none();
    if is_silent && !report.touched(base) {
        report.error(
            "tripwire_without_budget",
            base,
            "a tripwire without a budget watches nothing".to_owned(),
            "add `bytes_out`, `requests` or `distinct_destinations`",
        );
        return None;
    }
    Some(Tripwire {
        window,
        bytes_out,
        requests,
        distinct_destinations,
        arm: written.arm,
    })
}
