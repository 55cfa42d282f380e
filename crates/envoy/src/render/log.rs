//! What Envoy tells us about what it did: one stream of HTTP entries, one of TCP entries. Decisions are in the audit trail
//! before Envoy hears of them; these entries say how it ended, and what Envoy refused by itself.

use serde_json::{Value, json};

use super::{
    json::{extension, grpc, merged},
    names::{
        STATE_CONNECTION, STATE_HOST, STATE_REQUEST, STATE_SESSION, STATE_TARGET, STATE_TREATMENT,
    },
};
use crate::leg::Leg;

/// What is logged of HTTP on this leg, under the leg's own word. No header field of the guest's is asked for: they hold
/// tokens.
pub(super) fn http(leg: Leg, shared: bool) -> Value {
    let log = extension(
        "envoy.access_loggers.http_grpc",
        "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        json!({ "common_config": common(leg.as_str(), &[]) }),
    );
    if !shared {
        return log;
    }
    // Tunnels and requests come by one connection manager.
    let of_leg = json!({ "header_filter": { "header": {
        "name": ":method",
        "string_match": { "exact": "CONNECT" },
        "invert_match": !leg.opens_tunnel(),
        // What never became a request has no method, and is logged all the same.
        "treat_missing_header_as_empty": true,
    } } });
    merged(log, json!({ "filter": of_leg }))
}

/// What is logged of connections. They have no metadata of a decision: the filter state says which tunnel's they are.
pub(super) fn tcp(name: &str) -> Value {
    let states = [
        STATE_CONNECTION,
        STATE_SESSION,
        STATE_REQUEST,
        STATE_HOST,
        STATE_TARGET,
        STATE_TREATMENT,
    ];
    extension(
        "envoy.access_loggers.tcp_grpc",
        "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig",
        json!({ "common_config": common(name, &states) }),
    )
}

/// The settings of both kinds; `states`: which filter state objects an entry has in it.
fn common(name: &str, states: &[&str]) -> Value {
    let common = json!({
        "log_name": name,
        "transport_api_version": "V3",
        "grpc_service": grpc(std::time::Duration::from_secs(1), &[]),
        "buffer_flush_interval": "0.2s",
    });
    if states.is_empty() {
        return common;
    }
    merged(common, json!({ "filter_state_objects_to_log": states }))
}
