//! The connection managers: how HTTP is read and written. What is judged is what is sent, so nothing is normalised, merged
//! or repaired; what is malformed is refused.

use http::HeaderName;
use outgate_wire::http1::{MAX_FIELDS, MAX_HEAD};
use serde_json::{Value, json};

use super::{
    RenderOptions,
    filters::chain,
    json::{extension, from_ads, merged, span},
    log, reply,
};
use crate::leg::Leg;

/// How many streams one HTTP/2 connection has open at once, as on the native plane.
const MAX_STREAMS: u32 = 256;

/// One connection manager.
pub(super) struct Manager<'a> {
    /// Its name in logs and statistics.
    pub(super) name: &'a str,
    /// Which leg its CONNECTs are; `None`: it has none.
    pub(super) tunnel: Option<Leg>,
    /// Which leg its other requests are; `None`: it has none.
    pub(super) request: Option<Leg>,
    /// Its table of routes.
    pub(super) routes: &'a str,
}

impl Manager<'_> {
    pub(super) fn render(
        &self,
        options: &RenderOptions<'_>,
        token_headers: &[HeaderName],
    ) -> Value {
        let basics = json!({
            "stat_prefix": self.name,
            "http_filters": chain(options, token_headers, self.tunnel, self.request),
            "rds": {
                "route_config_name": self.routes,
                // Without routes nothing could be answered; the listener opens when they are there.
                "config_source": from_ads(std::time::Duration::ZERO),
            },
            "access_log": self.logs(),
            // An entry a second tells how many bytes are through, for the session's budget.
            "access_log_options": { "access_log_flush_interval": "1s" },
            "local_reply_config": reply::local_replies(),
        });
        let all = [basics, self.reading(), identity(), bounds(options)];
        extension(
            "envoy.filters.network.http_connection_manager",
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            all.into_iter().fold(json!({}), merged),
        )
    }

    fn logs(&self) -> Vec<Value> {
        let shared = self.tunnel.is_some() && self.request.is_some();
        let legs = self.tunnel.into_iter().chain(self.request);
        legs.map(|leg| log::http(leg, shared)).collect()
    }

    fn reading(&self) -> Value {
        // HTTP/2 is spoken inside TLS only: on a connection in clear its preface is a malformed request.
        let codec = if self.request == Some(Leg::Bumped) {
            "AUTO"
        } else {
            "HTTP1"
        };
        let upgrades = self.request.map(|_| json!({ "upgrade_type": "websocket" }));
        json!({
            "codec_type": codec,
            "upgrade_configs": upgrades.into_iter().collect::<Vec<_>>(),
            "http_protocol_options": {
                // HTTP/1.0 and a length beside chunks stay refused, which is Envoy's default.
                "enable_trailers": true,
            },
            "http2_protocol_options": {
                "allow_connect": true,
                "max_concurrent_streams": MAX_STREAMS,
                "initial_stream_window_size": 256 * 1024,
                "initial_connection_window_size": 1024 * 1024,
                "connection_keepalive": { "interval": "30s", "timeout": "20s" },
            },
            // The path that is judged is the path that is sent (P7).
            "normalize_path": false,
            "merge_slashes": false,
            "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
            // `Expect: 100-continue` is answered here: the field is not the upstream's.
            "proxy_100_continue": false,
        })
    }
}

/// Nothing of Envoy's own is added to what passes.
fn identity() -> Value {
    json!({
        "use_remote_address": true,
        "skip_xff_append": true,
        "generate_request_id": false,
        "preserve_external_request_id": true,
        "server_header_transformation": "PASS_THROUGH",
    })
}

fn bounds(options: &RenderOptions<'_>) -> Value {
    let timeouts = options.timeouts;
    json!({
        "max_request_headers_kb": MAX_HEAD / 1024,
        "common_http_protocol_options": {
            "max_headers_count": MAX_FIELDS,
            "idle_timeout": span(timeouts.idle),
            "headers_with_underscores_action": "ALLOW",
        },
        "request_headers_timeout": span(timeouts.head),
        // Routes say it; this is for what has none yet.
        "stream_idle_timeout": span(timeouts.idle),
        "drain_timeout": span(timeouts.drain),
        "delayed_close_timeout": "0.1s",
    })
}
