//! The clusters: internal roads, and upstreams. An upstream's address is what the decision says and nothing else; no name
//! is looked up here. Its certificate must have the name that was decided.

use std::time::Duration;

use outgate_config::TlsFloor;
use outgate_journey::policy::Policy;
use serde_json::{Value, json};

use super::{
    RenderOptions, Rendered, TrustRoots, address,
    json::{decided_key, extension, merged, span, typed},
    names::{
        CAPTURED, NOWHERE, OPAQUE, TUNNEL, UPSTREAM_PLAIN, UPSTREAM_TCP, UPSTREAM_TLS,
        UPSTREAM_TLS_HTTP1, decision, filter,
    },
    rendered,
};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// How long a connection to an upstream is kept that nobody uses, at most.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// All clusters but those that lead to us, which the bootstrap has.
pub(super) fn clusters(options: &RenderOptions<'_>, policy: &Policy) -> Vec<Rendered> {
    let exceptions = policy.deny_set().exceptions();
    let upstream_filters = json!([
        address::filter(exceptions),
        extension(
            filter::CODEC,
            "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
            json!({}),
        ),
    ]);
    let http = |protocol: Value| {
        let own = json!({
            "http_filters": upstream_filters,
            "common_http_protocol_options": { "idle_timeout": span(options.timeouts.idle.min(KEPT_FOR)) },
        });
        json!({ "typed_extension_protocol_options": { HTTP_OPTIONS: typed(HTTP_OPTIONS, merged(own, protocol)) } })
    };
    let named = json!({ "upstream_http_protocol_options": { "auto_sni": true, "auto_san_validation": true } });
    let either = merged(
        json!({ "auto_config": { "http_protocol_options": { "enable_trailers": true }, "http2_protocol_options": {} } }),
        named.clone(),
    );
    let http1 =
        json!({ "explicit_http_config": { "http_protocol_options": { "enable_trailers": true } } });
    let all = [
        (
            UPSTREAM_TLS,
            upstream(
                options,
                [
                    http(either),
                    tls(options, &["h2", "http/1.1"]),
                    per_request(),
                ],
            ),
        ),
        (
            UPSTREAM_TLS_HTTP1,
            upstream(
                options,
                [
                    http(merged(http1.clone(), named)),
                    tls(options, &["http/1.1"]),
                    per_request(),
                ],
            ),
        ),
        (
            UPSTREAM_PLAIN,
            upstream(options, [http(http1), json!({}), per_request()]),
        ),
        (
            UPSTREAM_TCP,
            upstream(options, [json!({}), json!({}), json!({})]),
        ),
        (TUNNEL, internal(TUNNEL, raw())),
        (OPAQUE, internal(OPAQUE, raw())),
        (NOWHERE, nowhere()),
    ];
    let captured = (!options.envoy.transparent.is_empty()).then(|| (CAPTURED, captured()));
    all.into_iter()
        .chain(captured)
        .map(|(name, body)| {
            let body = merged(body, json!({ "name": name }));
            rendered(name, "envoy.config.cluster.v3.Cluster", body)
        })
        .collect()
}

/// How much may go through a cluster at once: whoever is over a limit was told so before.
pub(super) fn wide_open() -> Value {
    let most = 1_000_000;
    let all = |priority: &str| {
        json!({
            "priority": priority,
            "max_connections": most,
            "max_pending_requests": most,
            "max_requests": most,
            "max_retries": 3,
        })
    };
    json!({ "circuit_breakers": { "thresholds": [all("DEFAULT")] } })
}

fn upstream(options: &RenderOptions<'_>, parts: [Value; 3]) -> Value {
    let own = json!({
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        // Of the transport too: Envoy's bound covers the upstream's TLS handshake.
        "connect_timeout": span(options.timeouts.connect),
        // One host is made for each address that is dialled, and forgotten when it was not used for so long.
        "cleanup_interval": "60s",
    });
    parts.into_iter().fold(merged(own, wide_open()), merged)
}

/// The address of this very request's decision.
fn per_request() -> Value {
    json!({ "original_dst_lb_config": { "metadata_key": decided_key(decision::ADDRESS) } })
}

fn tls(options: &RenderOptions<'_>, alpn: &[&str]) -> Value {
    let floor = match options.min_tls {
        TlsFloor::Tls12 => "TLSv1_2",
        TlsFloor::Tls13 => "TLSv1_3",
    };
    let roots = match options.roots {
        TrustRoots::File(path) => json!({ "filename": path.to_string_lossy() }),
        TrustRoots::Inline(text) => json!({ "inline_string": text }),
    };
    json!({ "transport_socket": extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        json!({ "common_tls_context": {
            "alpn_protocols": alpn,
            "tls_params": { "tls_minimum_protocol_version": floor, "tls_maximum_protocol_version": "TLSv1_3" },
            "validation_context": { "trusted_ca": roots },
        } }),
    ) })
}

fn raw() -> Value {
    extension(
        "envoy.transport_sockets.raw_buffer",
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
        json!({}),
    )
}

/// To the listener that makes tunnels of captured connections, which is told whose they are.
fn captured() -> Value {
    let with_client = extension(
        "envoy.transport_sockets.upstream_proxy_protocol",
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        json!({ "config": { "version": "V2" }, "transport_socket": raw() }),
    );
    internal(CAPTURED, with_client)
}

/// To an internal listener, with the filter state that is shared.
fn internal(listener: &str, transport: Value) -> Value {
    let own = json!({
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": listener,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": {
                "address": { "envoy_internal_address": { "server_listener_name": listener } },
            } }] }],
        },
        "transport_socket": extension(
            "envoy.transport_sockets.internal_upstream",
            "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
            json!({ "transport_socket": transport }),
        ),
    });
    merged(own, wide_open())
}

fn nowhere() -> Value {
    json!({
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": { "cluster_name": NOWHERE },
    })
}
