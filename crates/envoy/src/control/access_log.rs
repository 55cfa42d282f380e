//! The access-log service: Envoy's own account of what it did, which becomes the audit trail. An entry finds its exchange by
//! the request id; an exchange that no entry tells the end of is recorded without one, so nothing that was let out goes
//! unrecorded. An entry without an exchange is something that Envoy refused by itself, before it asked.

mod ending;
mod entry;
mod service;
#[cfg(test)]
mod tests;
pub(super) mod wire;

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use http::{Method, StatusCode, Version};
use outgate_envoy_proto::envoy::{
    data::accesslog::v3::{AccessLogType, ResponseFlags, http_access_log_entry::HttpVersion},
    service::accesslog::v3::StreamAccessLogsResponse,
};
use outgate_journey::denial::{Denial, DenyCode};
use outgate_plane::trail::Trail;
use tonic::{Request, Response, Status, Streaming};

pub(crate) use self::service::AccessLogService;
use self::{
    ending::{inner_denial, note_end, unnamed_denial},
    entry::{Common, HttpEntry, LogMessage, TcpEntry, socket},
};
use super::{
    ControlPlane, data_plane,
    exchange::{Exchange, State},
};
use crate::{leg::Leg, reasons::reason_of, render::names::STATE_CONNECTION};

/// How much of Envoy's words stands in a record, in bytes.
const MAX_DETAIL: usize = 512;

impl ControlPlane {
    /// Reads a stream of the log to its end.
    async fn read_log(
        &self,
        request: Request<Streaming<LogMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let plane = data_plane(request.extensions());
        let mut messages = request.into_inner();
        let mut log = String::new();
        while let Some(message) = messages.message().await? {
            if let Some(identifier) = message.identifier {
                log = identifier.log_name;
            }
            for entry in message.http_logs.iter().flat_map(|it| &it.log_entry) {
                self.note_http(&plane, &log, entry);
            }
            for entry in message.tcp_logs.iter().flat_map(|it| &it.log_entry) {
                self.note_tcp(&plane, &log, entry);
            }
        }
        Ok(Response::new(StreamAccessLogsResponse::default()))
    }

    fn note_http(&self, plane: &str, log: &str, entry: &HttpEntry) {
        let common = &entry.common;
        let id = common.request_id();
        tracing::debug!(
            log,
            id,
            kind = common.access_log_type,
            flags = ?words(&common.response_flags),
            details = %entry.response.details(),
            "a data plane reports an exchange"
        );
        let Some(id) = id else {
            return self.record_unasked(log, entry);
        };
        // A request that was refused by the journey is recorded already.
        let Some(exchange) = self.exchanges.find(plane, id) else {
            return;
        };
        let is_end = is_end(common);
        let mut state = exchange.state();
        state.heard();
        count(&state, entry);
        let over_budget = state.trail.is_some() && charge(&mut state).is_err();
        if is_end {
            note_end(&exchange, &mut state, entry);
        }
        drop(state);
        if over_budget {
            cut_for_bytes(&exchange, is_end);
        }
        if !is_end {
            return;
        }
        match &exchange.tunnel {
            // What the inside of the tunnel says may come a moment later.
            Some(_) => exchange.settle(),
            None => self.exchanges.forget(id),
        }
    }

    /// What happened inside a tunnel before, or instead of, requests.
    fn note_tcp(&self, plane: &str, log: &str, entry: &TcpEntry) {
        let common = &entry.common;
        let id = common.state(STATE_CONNECTION);
        let Some(exchange) = id.and_then(|id| self.exchanges.find(plane, &id)) else {
            return;
        };
        let mut state = exchange.state();
        let Some(trail) = &mut state.trail else {
            return;
        };
        if matches!(log, "pass" | "opaque")
            && let Some(upstream) = socket(&common.upstream_remote_address)
        {
            trail.note_upstream(upstream);
        }
        if !is_end(common) {
            return;
        }
        let denial = match log {
            "inner" => inner_denial(&exchange, common),
            "unnamed" => Some(unnamed_denial(common)),
            "pass" | "opaque" => inner_denial(&exchange, common).or_else(|| {
                reason_of(&common.upstream_failure(), &words(&common.response_flags))
                    .filter(|code| *code != DenyCode::UpstreamProtocol)
                    .map(Denial::new)
            }),
            _ => None,
        };
        // What was found first says more.
        if let Some(denial) = denial.filter(|_| trail.is_allowed()) {
            let rule = exchange
                .tunnel
                .as_ref()
                .map(|tunnel| tunnel.pass.allowed().rule().id.clone());
            trail.deny(&match &rule {
                Some(rule) => denial.by(rule),
                None => denial,
            });
        }
    }

    /// Envoy refused this by itself, before it asked.
    fn record_unasked(&self, log: &str, entry: &HttpEntry) {
        let (common, flags) = (&entry.common, &entry.common.response_flags);
        let details = entry.response.details();
        // The journey's own refusals are recorded where they are made. And what the guest took back before anything was
        // decided, or while it was, is recorded as what was decided.
        if !is_end(common) || details.starts_with("ext_authz_denied") || went_away(flags) {
            return;
        }
        let leg = Leg::parse(log).unwrap_or(Leg::Connect);
        let client = socket(&common.downstream_remote_address)
            .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        let mut trail = Trail::begin(&self.core, leg.entry(), client);
        let request = &entry.request;
        trail.note_request(
            &method_of(request.request_method),
            Some(&*request.authority()).filter(|host| !host.is_empty()),
            request.path().split('?').next().unwrap_or_default(),
            version_of(entry.protocol_version),
        );
        let code = reason_of(&details, &words(flags)).unwrap_or(DenyCode::InternalFault);
        trail.deny(&Denial::new(code).because(cut_text(&details)));
        if let Some(status) = status_of(entry.response.response_code) {
            trail.answer(status);
        }
        trail.complete();
    }
}

/// Ends what has used its session's bytes up.
fn cut_for_bytes(exchange: &Exchange, is_end: bool) {
    if let Some(tunnel) = &exchange.inside {
        tunnel.cut(DenyCode::BytesLimit);
    }
    // What ends with its tunnel ends for the tunnel's reason, unless it was over before.
    if !is_end || exchange.inside.is_none() {
        exchange.cut(DenyCode::BytesLimit);
    }
}

/// Whether the guest was gone before the end.
const fn went_away(flags: &ResponseFlags) -> bool {
    flags.downstream_connection_termination || flags.downstream_remote_reset
}

/// Takes over what was carried so far.
fn count(state: &State, entry: &HttpEntry) {
    let Some(trail) = &state.trail else {
        return;
    };
    let (out, back) = carried(entry);
    let meter = trail.meter();
    let is_more = meter.bytes_out.fetch_max(out, Ordering::Relaxed) < out;
    let is_more = meter.bytes_in.fetch_max(back, Ordering::Relaxed) < back || is_more;
    if is_more && let Some(activity) = trail.activity() {
        activity.note();
    }
}

/// Bytes towards the upstream, and back.
const fn carried(entry: &HttpEntry) -> (u64, u64) {
    let request = &entry.request;
    let out = request
        .upstream_header_bytes_sent
        .saturating_add(request.request_body_bytes);
    (out, entry.response.response_body_bytes)
}

/// Charges what was not charged before.
fn charge(state: &mut State) -> Result<(), DenyCode> {
    let Some(trail) = &state.trail else {
        return Ok(());
    };
    let out = trail.meter().bytes_out.load(Ordering::Relaxed);
    let fresh = out.saturating_sub(state.charged);
    state.charged = state.charged.max(out);
    match &state.budget {
        Some(budget) if fresh > 0 => budget.charge(usize::try_from(fresh).unwrap_or(usize::MAX)),
        _ => Ok(()),
    }
}

/// Whether an entry is the last of its stream or connection.
fn is_end(common: &Common) -> bool {
    !matches!(
        AccessLogType::try_from(common.access_log_type),
        Ok(AccessLogType::DownstreamPeriodic
            | AccessLogType::TcpPeriodic
            | AccessLogType::TcpUpstreamConnected
            | AccessLogType::DownstreamStart
            | AccessLogType::UpstreamPoolReady
            | AccessLogType::UpstreamPeriodic
            | AccessLogType::DownstreamTunnelSuccessfullyEstablished)
    )
}

fn duration_of(common: &Common) -> Option<Duration> {
    let it = common.duration?;
    let nanos = u32::try_from(it.nanos)
        .ok()
        .filter(|n| *n < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(it.seconds).ok()?, nanos))
}

fn status_of(code: Option<u32>) -> Option<StatusCode> {
    StatusCode::from_u16(u16::try_from(code?).ok()?).ok()
}

/// The flags that the table of reasons knows, as Envoy writes them.
fn words(flags: &ResponseFlags) -> Vec<&'static str> {
    [
        ("DPE", flags.downstream_protocol_error),
        ("OM", flags.overload_manager),
        ("UT", flags.upstream_request_timeout),
        ("UF", flags.upstream_connection_failure),
        ("UH", flags.no_healthy_upstream),
        ("UO", flags.upstream_overflow),
        ("UC", flags.upstream_connection_termination),
        ("UR", flags.upstream_remote_reset),
        ("UPE", flags.upstream_protocol_error),
        ("NC", flags.no_cluster_found),
        ("NR", flags.no_route_found),
        ("SI", flags.stream_idle_timeout),
    ]
    .into_iter()
    .filter_map(|(word, is_set)| is_set.then_some(word))
    .collect()
}

fn method_of(number: i32) -> Method {
    use outgate_envoy_proto::envoy::config::core::v3::RequestMethod;
    RequestMethod::try_from(number)
        .ok()
        .filter(|method| *method != RequestMethod::MethodUnspecified)
        .and_then(|method| Method::from_bytes(method.as_str_name().as_bytes()).ok())
        .unwrap_or(Method::GET)
}

const fn version_of(number: i32) -> Version {
    match number {
        n if n == HttpVersion::Http10 as i32 => Version::HTTP_10,
        n if n == HttpVersion::Http2 as i32 => Version::HTTP_2,
        _ => Version::HTTP_11,
    }
}

/// Envoy's words, as they stand in a record.
fn cut_text(text: &str) -> String {
    let mut end = MAX_DETAIL.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = text.get(..end).unwrap_or_default();
    text.chars().filter(|it| !it.is_control()).collect()
}
