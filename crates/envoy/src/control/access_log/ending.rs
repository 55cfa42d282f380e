//! How an exchange ended, in the record's words: what Envoy's last entry of it says, after what is known of it already.

use std::{borrow::Cow, sync::atomic::Ordering};

use http::StatusCode;
use outgate_envoy_proto::envoy::data::accesslog::v3::ResponseFlags;
use outgate_journey::{
    denial::{Denial, DenyCode},
    gate::{TunnelOpening, judge_opening},
};
use outgate_plane::trail::Trail;

use super::{
    cut_text, duration_of,
    entry::{Common, HttpEntry, socket},
    status_of, went_away, words,
};
use crate::{
    control::{
        exchange::{Exchange, State},
        process::CUT,
    },
    reasons::reason_of,
};

/// What the last entry of an exchange means.
enum End {
    /// The gateway cut it.
    Cut(DenyCode),
    /// The record says it already, or others will: a filter of ours that refused the answer, or what is inside a tunnel.
    Told,
    /// Envoy refused it or gave up, in these words.
    Refused(DenyCode, String),
    /// One side went away early, in these words.
    Aborted(String),
    Completed,
}

/// Takes an exchange's last entry over into its record.
pub(super) fn note_end(exchange: &Exchange, state: &mut State, entry: &HttpEntry) {
    let Some(is_allowed) = state.trail.as_ref().map(Trail::is_allowed) else {
        return;
    };
    let end = ending(exchange, state, is_allowed, entry);
    let Some(trail) = &mut state.trail else {
        return;
    };
    if let Some(duration) = duration_of(&entry.common) {
        trail.lasted(duration);
    }
    if let Some(status) = status_of(entry.response.response_code) {
        trail.answer(status);
    }
    if exchange.tunnel.is_none()
        && let Some(upstream) = socket(&entry.common.upstream_remote_address)
    {
        trail.note_upstream(upstream);
    }
    match end {
        End::Cut(code) => trail.cut(code),
        End::Refused(code, why) => trail.deny(&Denial::new(code).because(why)),
        End::Aborted(why) => trail.aborted(why),
        End::Told | End::Completed => {}
    }
    trail.ended();
}

/// What an entry means; the first that is so counts.
fn ending(exchange: &Exchange, state: &State, is_allowed: bool, entry: &HttpEntry) -> End {
    let is_tunnel = exchange.tunnel.is_some();
    let details = entry.response.details();
    let is_cut = details.contains(CUT);
    if let Some(code) = state.cut {
        return End::Cut(code);
    }
    // A filter of ours refused the answer, and said why in the record.
    let is_refused_answer = details.starts_with("outgate_") && !is_cut;
    // The tunnel was opened; what became of its inside is told by others.
    let is_opened = is_tunnel && status_of(entry.response.response_code) == Some(StatusCode::OK);
    if is_refused_answer || is_opened {
        return End::Told;
    }
    if is_cut {
        return End::Cut(DenyCode::SessionRevoked);
    }
    // What was admitted is not allowed any more only where somebody said why: what looked into the tunnel, or at the answer.
    if !is_allowed && (is_tunnel || state.admitted.is_some()) {
        return End::Told;
    }
    by_envoy(is_tunnel, is_allowed, &details, &entry.common)
}

/// What Envoy's own words and flags mean.
fn by_envoy(is_tunnel: bool, is_allowed: bool, details: &str, common: &Common) -> End {
    let flags = &common.response_flags;
    let words_of = || -> Cow<'_, str> {
        match common.upstream_failure() {
            failure if failure.is_empty() => details.into(),
            failure => format!("{details}{failure}").into(),
        }
    };
    // Once the upstream's answer has begun, or the guest is gone, nothing is refused any more.
    if !details.starts_with("via_upstream") && !went_away(flags) {
        let text = words_of();
        if let Some(code) = reason_of(&text, &words(flags)) {
            return End::Refused(code, cut_text(&text));
        }
    }
    if !is_allowed {
        return End::Refused(DenyCode::InternalFault, cut_text(&words_of()));
    }
    if !is_tunnel && broke_off(flags) {
        return End::Aborted(cut_text(&words_of()));
    }
    End::Completed
}

/// Whether one of the two sides was gone before the end.
const fn broke_off(flags: &ResponseFlags) -> bool {
    went_away(flags) || flags.upstream_connection_termination || flags.upstream_remote_reset
}

/// Why nothing came of a tunnel's inside: what the journey says of its first bytes, or a handshake that failed.
pub(super) fn inner_denial(exchange: &Exchange, common: &Common) -> Option<Denial> {
    let tunnel = exchange.tunnel.as_ref()?;
    // Whoever sent a request has had an answer.
    if tunnel.carried.load(Ordering::Relaxed) {
        return None;
    }
    let (failure, closed) = (common.downstream_failure(), common.termination_details());
    let was_closed =
        common.response_flags.no_route_found || closed.starts_with("rbac_access_denied");
    let server_name = common.server_name();
    let opening = match &server_name {
        Some(name) => TunnelOpening::Tls {
            server_name: Some(name),
            encrypted_client_hello: false,
        },
        None => TunnelOpening::NotTls,
    };
    match judge_opening(&tunnel.pass, opening) {
        // A tunnel that carries bytes is told of by what carried them.
        Err(denial) if server_name.is_some() || was_closed => Some(denial),
        // Who goes away after a good handshake leaves a failure behind, too.
        _ if !failure.is_empty()
            && !failure.contains("EOF")
            && !failure.contains("system_library") =>
        {
            Some(Denial::new(DenyCode::TlsHandshakeFailed).because(cut_text(&failure)))
        }
        _ if was_closed => Some(Denial::new(DenyCode::InternalFault).because(cut_text(&closed))),
        _ => None,
    }
}

/// TLS that names no host, or none that could be one.
pub(super) fn unnamed_denial(common: &Common) -> Denial {
    Denial::new(match common.server_name() {
        Some(_) => DenyCode::ServerNameMismatch,
        None => DenyCode::ServerNameMissing,
    })
}
