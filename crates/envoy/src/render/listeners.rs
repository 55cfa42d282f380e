//! The listeners. Guests meet the explicit proxy or the door for captured connections; what is inside a tunnel goes to an
//! internal listener that does with it what was decided when the tunnel was opened. None of them knows a rule.

use std::net::SocketAddr;

use outgate_journey::{gate::TunnelTreatment, policy::Policy};
use serde_json::{Value, json};

use super::{
    RenderOptions, Rendered, cel,
    injection::injectors,
    json::{extension, from_ads, merged, object, socket, span},
    log,
    manager::Manager,
    names::{
        CAPTURED, LISTENER_PROXY, LISTENER_TRANSPARENT, NOWHERE, OPAQUE, ROUTES_BUMPED,
        ROUTES_PLAIN, ROUTES_PROXY, SECRETS, STATE_HOST, STATE_TREATMENT, TUNNEL, UPSTREAM_TCP,
    },
    rendered,
};
use crate::{control::Treatment, leg::Leg};

const PROXY: Manager<'_> = Manager {
    name: LISTENER_PROXY,
    tunnel: Some(Leg::Connect),
    request: Some(Leg::Forward),
    routes: ROUTES_PROXY,
};
/// Tunnels only: what a captured TLS connection is turned into.
const CAPTURED_TUNNELS: Manager<'_> = Manager {
    name: "outgate_captured",
    tunnel: Some(Leg::Transparent),
    request: None,
    routes: ROUTES_PROXY,
};
const CAPTURED_REQUESTS: Manager<'_> = Manager {
    name: "outgate_captured_plain",
    tunnel: None,
    request: Some(Leg::TransparentPlain),
    routes: ROUTES_PLAIN,
};
const BUMPED: Manager<'_> = Manager {
    name: "outgate_bumped",
    tunnel: None,
    request: Some(Leg::Bumped),
    routes: ROUTES_BUMPED,
};
const PLAIN: Manager<'_> = Manager {
    name: "outgate_plain",
    tunnel: None,
    request: Some(Leg::TunnelledPlain),
    routes: ROUTES_PLAIN,
};

/// What a ClientHello may be at most, and more than that.
const EARLY_BYTES: u32 = 64 * 1024;
/// The leaf that is asked for where TLS names nothing; no rule can name it (RFC 6761 section 6.4), so it is refused.
const NO_NAME: &str = "no-server-name.invalid";

/// All listeners.
pub(super) fn listeners(options: &RenderOptions<'_>, policy: &Policy) -> Vec<Rendered> {
    let manager = |manager: Manager<'_>| manager.render(options, policy.token_headers());
    let mut all = Vec::new();
    for (at, address) in options.envoy.proxy.iter().enumerate() {
        all.push((
            format!("{LISTENER_PROXY}_{at}"),
            proxy(*address, manager(PROXY)),
        ));
    }
    for (at, address) in options.envoy.transparent.iter().enumerate() {
        let requests = manager(CAPTURED_REQUESTS);
        all.push((
            format!("{LISTENER_TRANSPARENT}_{at}"),
            transparent(options, *address, requests),
        ));
    }
    if !options.envoy.transparent.is_empty() {
        all.push((
            CAPTURED.to_owned(),
            captured(options, manager(CAPTURED_TUNNELS)),
        ));
    }
    all.push((
        TUNNEL.to_owned(),
        tunnel(options, manager(BUMPED), manager(PLAIN)),
    ));
    all.push((
        OPAQUE.to_owned(),
        internal(vec![chain("opaque", tcp_proxy(options, "opaque", false))]),
    ));
    all.push((SECRETS.to_owned(), secrets(policy)));
    all.into_iter()
        .map(|(name, body)| {
            let body = merged(body, json!({ "name": name }));
            rendered(&name, "envoy.config.listener.v3.Listener", body)
        })
        .collect()
}

fn proxy(address: SocketAddr, manager: Value) -> Value {
    json!({
        "address": socket(address),
        "filter_chains": [chain("proxy", manager)],
    })
}

/// A listener that nothing connects to, with every injector of the policy. Envoy asks for a secret when what names it is
/// initialised, and once it has started it does so for listeners and clusters, and not for routes: a secret that a new route
/// alone names would never be asked for. What this listener has asked for, the routes share. Changing it drains nobody.
fn secrets(policy: &Policy) -> Value {
    let router = extension(
        "envoy.filters.http.router",
        "envoy.extensions.filters.http.router.v3.Router",
        json!({}),
    );
    let injectors = injectors(policy).into_iter().map(|(key, injector)| {
        // Two filters of one name are no configuration.
        merged(injector, json!({ "name": key }))
    });
    let filters: Vec<Value> = injectors.chain([router]).collect();
    let manager = extension(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": SECRETS,
            "http_filters": filters,
            "route_config": { "name": SECRETS, "virtual_hosts": [] },
        }),
    );
    internal(vec![chain("secrets", manager)])
}

fn internal(chains: Vec<Value>) -> Value {
    json!({ "internal_listener": {}, "filter_chains": chains })
}

fn chain(name: &str, filter: Value) -> Value {
    json!({ "name": name, "filters": [filter] })
}

fn tls_inspector() -> Value {
    extension(
        "envoy.filters.listener.tls_inspector",
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        json!({}),
    )
}

/// A captured TLS connection becomes a tunnel to what its server name says, and takes the road of all tunnels. One that
/// names nothing asks for a tunnel to `-`, which the journey refuses and records.
fn transparent(options: &RenderOptions<'_>, address: SocketAddr, requests: Value) -> Value {
    let original = extension(
        "envoy.filters.listener.original_dst",
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
        json!({}),
    );
    let into_tunnel = extension(
        "envoy.filters.network.tcp_proxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        json!({
            "stat_prefix": LISTENER_TRANSPARENT,
            "cluster": CAPTURED,
            "idle_timeout": span(options.timeouts.idle),
            "tunneling_config": { "hostname": "%REQUESTED_SERVER_NAME%:%DOWNSTREAM_LOCAL_PORT%" },
        }),
    );
    let of = |transport: &str, chain: Value| {
        merged(
            chain,
            json!({ "filter_chain_match": { "transport_protocol": transport } }),
        )
    };
    let tls = of("tls", chain("tls", into_tunnel));
    let plain = of("raw_buffer", chain("plain", requests));
    json!({
        "address": socket(address),
        "listener_filters": [original, tls_inspector()],
        "listener_filters_timeout": span(options.timeouts.head),
        "filter_chains": [tls, plain],
        "access_log": [log::tcp("transparent")],
    })
}

/// The tunnels that captured TLS connections became. Envoy made the connection itself, and says before its `CONNECT` whose
/// it was: records would have no client otherwise.
fn captured(options: &RenderOptions<'_>, manager: Value) -> Value {
    let client = extension(
        "envoy.filters.listener.proxy_protocol",
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        json!({}),
    );
    merged(
        internal(vec![chain("captured", manager)]),
        json!({
            "listener_filters": [client],
            "listener_filters_timeout": span(options.timeouts.head),
        }),
    )
}

fn network_rbac(name: &str, policy: &Value) -> Value {
    extension(
        "envoy.filters.network.rbac",
        "envoy.extensions.filters.network.rbac.v3.RBAC",
        json!({ "stat_prefix": name, "rules": { "action": "ALLOW", "policies": { name: policy } } }),
    )
}

/// What is inside a tunnel.
fn tunnel(options: &RenderOptions<'_>, bumped: Value, plain: Value) -> Value {
    let bump = merged(
        chain("bump", bumped),
        json!({
            "transport_socket": leaf(options),
            "transport_socket_connect_timeout": span(options.timeouts.handshake),
        }),
    );
    let pass = json!({
        "name": "pass",
        "filters": [same_name(), tcp_proxy(options, "pass", true)],
    });
    let body = internal(vec![
        bump,
        pass,
        chain("plain", plain),
        chain("unnamed", unnamed()),
    ]);
    merged(
        body,
        json!({
            "listener_filters": [tls_inspector()],
            "listener_filters_timeout": span(options.timeouts.head),
            "filter_chain_matcher": by_treatment(),
            "access_log": [log::tcp("inner")],
        }),
    )
}

/// The decision names the chain; where it allows two, the first bytes do. What matches nothing is closed.
fn by_treatment() -> Value {
    let chains = Treatment::ALL.iter().filter_map(|treatment| {
        let Treatment::Judged { tls, plain } = treatment else {
            return None;
        };
        let tls = tls.map(|tls| {
            let name = match tls {
                TunnelTreatment::Bump => "bump",
                TunnelTreatment::PassThrough => "pass",
                TunnelTreatment::PlainHttp => "plain",
            };
            let chain = to_chain(name);
            ("tls".to_owned(), only_host_names(&chain))
        });
        let plain = plain.then(|| ("raw_buffer".to_owned(), to_chain("plain")));
        let by_transport = matcher(
            "envoy.extensions.matching.common_inputs.network.v3.TransportProtocolInput",
            json!({}),
            object(tls.into_iter().chain(plain)),
        );
        Some((
            treatment.as_str().to_owned(),
            json!({ "matcher": by_transport }),
        ))
    });
    matcher(
        "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput",
        json!({ "key": STATE_TREATMENT }),
        object(chains),
    )
}

fn matcher(input: &str, settings: Value, map: Value) -> Value {
    json!({ "matcher_tree": {
        "input": extension("input", input, settings),
        "exact_match_map": { "map": map },
    } })
}

/// A leaf is asked for by the name that the guest's TLS sends, as it is sent, on the stream on which credentials are asked
/// for by theirs. A name that could be a credential's would have Envoy take the credential for a certificate, and refuse
/// what comes with it from then on.
fn only_host_names(chain: &Value) -> Value {
    let input = extension(
        "server_name",
        "envoy.extensions.matching.common_inputs.network.v3.ServerNameInput",
        json!({}),
    );
    let is_host_name = json!({ "single_predicate": {
        "input": input,
        "value_match": { "safe_regex": { "google_re2": {}, "regex": "[a-z0-9_.-]+" } },
    } });
    json!({ "matcher": { "matcher_list": { "matchers": [
        { "predicate": is_host_name, "on_match": chain },
    ] }, "on_no_match": to_chain("unnamed") } })
}

/// The end of TLS that names no host: nothing is dialled, and the log says why.
fn unnamed() -> Value {
    extension(
        "envoy.filters.network.tcp_proxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        json!({
            "stat_prefix": "unnamed",
            "cluster": NOWHERE,
            "access_log": [log::tcp("unnamed")],
        }),
    )
}

fn to_chain(name: &str) -> Value {
    json!({ "action": extension(name, "google.protobuf.StringValue", json!({ "value": name })) })
}

/// The leaf of the name that the guest's TLS asks for: it comes from us in mid-handshake, by that name. A name that is
/// refused ends the handshake. Envoy takes the selector only with resumption off.
fn leaf(options: &RenderOptions<'_>) -> Value {
    let by_server_name = extension(
        "sni",
        "envoy.extensions.transport_sockets.tls.cert_mappers.sni.v3.SNI",
        json!({ "default_value": NO_NAME }),
    );
    let selector = extension(
        "on_demand_secret",
        "envoy.extensions.transport_sockets.tls.cert_selectors.on_demand_secret.v3.Config",
        json!({
            "config_source": from_ads(options.timeouts.handshake),
            "certificate_mapper": by_server_name,
        }),
    );
    extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        json!({
            "disable_stateless_session_resumption": true,
            "disable_stateful_session_resumption": true,
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": { "tls_minimum_protocol_version": "TLSv1_2" },
                "custom_tls_certificate_selector": selector,
            },
        }),
    )
}

/// The name that the guest's TLS asks for must be the tunnel's (P5): ALLOW, so that a fault denies.
fn same_name() -> Value {
    network_rbac(
        "outgate_same_name",
        &json!({
            "permissions": [{ "any": true }],
            "principals": [{ "any": true }],
            "condition": cel::equal(cel::server_name(), cel::state(STATE_HOST)),
            "cel_config": cel::config(),
        }),
    )
}

/// Bytes as they are. `waits`: nothing is dialled before the guest's first bytes passed the filters in front.
fn tcp_proxy(options: &RenderOptions<'_>, name: &str, waits: bool) -> Value {
    let settings = json!({
        "stat_prefix": name,
        "cluster": UPSTREAM_TCP,
        "idle_timeout": span(options.timeouts.idle),
        "access_log": [log::tcp(name)],
        "access_log_options": { "access_log_flush_interval": "1s" },
    });
    let after_first_bytes = json!({
        "upstream_connect_mode": "ON_DOWNSTREAM_DATA",
        "max_early_data_bytes": EARLY_BYTES,
    });
    extension(
        "envoy.filters.network.tcp_proxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        if waits {
            merged(settings, after_first_bytes)
        } else {
            settings
        },
    )
}
