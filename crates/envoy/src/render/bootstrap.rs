//! What an Envoy is started with: who it is, how it reaches us, how much it takes on. Configuration is waited for without
//! end: an Envoy without its policy opens no listener, rather than one that knows nothing.

use std::time::Duration;

use outgate_journey::policy::{PlaneAddress, Policy, TlsFiles};
use serde_json::{Value, json};

use super::{
    RenderOptions, Rendered,
    clusters::wide_open,
    json::{admin, extension, from_ads, merged, pipe, typed, xds_service},
    names::{CONTROL, XDS},
};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Configuration by xDS.
pub(super) fn dynamic(options: &RenderOptions<'_>) -> Value {
    let clusters = [control(options, CONTROL), control(options, XDS)];
    let asked =
        json!({ "lds_config": from_ads(Duration::ZERO), "cds_config": from_ads(Duration::ZERO) });
    common(options, asked, json!({ "clusters": clusters }))
}

/// Configuration in the file.
pub(super) fn all_in_one(options: &RenderOptions<'_>, policy: &Policy) -> Value {
    let routes = super::routes(options, policy);
    let bodies = |resources: Vec<Rendered>| resources.into_iter().map(|it| without_type(it.body));
    let mut clusters = vec![control(options, CONTROL), control(options, XDS)];
    clusters.extend(bodies(super::clusters(options, policy)));
    let mut listeners: Vec<_> = bodies(super::listeners(options, policy)).collect();
    listeners
        .iter_mut()
        .for_each(|listener| put_routes(listener, &routes));
    common(
        options,
        json!({}),
        json!({ "clusters": clusters, "listeners": listeners }),
    )
}

fn without_type(mut body: Value) -> Value {
    if let Value::Object(map) = &mut body {
        map.remove("@type");
    }
    body
}

/// Puts the tables where they are asked for by name.
fn put_routes(value: &mut Value, routes: &[Rendered]) {
    match value {
        Value::Object(map) => {
            let asked = map
                .get("rds")
                .and_then(|rds| rds["route_config_name"].as_str());
            let table = asked.and_then(|name| routes.iter().find(|it| it.name == name));
            if let Some(table) = table {
                let body = without_type(table.body.clone());
                map.remove("rds");
                map.insert("route_config".to_owned(), body);
            }
            map.values_mut().for_each(|value| put_routes(value, routes));
        }
        Value::Array(values) => values
            .iter_mut()
            .for_each(|value| put_routes(value, routes)),
        _ => {}
    }
}

fn common(options: &RenderOptions<'_>, asked: Value, static_resources: Value) -> Value {
    let stream = json!({ "ads_config": {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": true,
        "grpc_services": [xds_service()],
    } });
    let whole = json!({
        "node": { "id": options.node.id, "cluster": options.node.cluster },
        "bootstrap_extensions": [extension(
            "envoy.bootstrap.internal_listener",
            "envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
            json!({}),
        )],
        "dynamic_resources": merged(stream, asked),
        "static_resources": static_resources,
        "layered_runtime": { "layers": [{ "name": "outgate", "static_layer": {
            // A rule's patterns in one expression are longer than Envoy's caution allows; they are the operator's.
            "re2.max_program_size.error_level": 1_000_000,
        } }] },
        "overload_manager": { "resource_monitors": [extension(
            "envoy.resource_monitors.global_downstream_max_connections",
            "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            json!({ "max_active_downstream_connections": options.max_connections }),
        )] },
    });
    match &options.envoy.admin {
        Some(place) => merged(whole, json!({ "admin": admin(place) })),
        None => whole,
    }
}

/// To this gateway's door.
fn control(options: &RenderOptions<'_>, name: &str) -> Value {
    let (kind, address, secured) = match options.control {
        PlaneAddress::Socket(path) => ("STATIC", pipe(path), json!({})),
        PlaneAddress::Tcp {
            host,
            port,
            ca,
            identity,
            server_name,
        } => {
            let server_name = server_name.as_deref().unwrap_or(host);
            // The one name that Envoy looks up itself: whose address it is, mutual TLS proves.
            let kind = if host.parse::<std::net::IpAddr>().is_ok() {
                "STATIC"
            } else {
                "STRICT_DNS"
            };
            let address = json!({ "socket_address": { "address": host, "port_value": port } });
            (
                kind,
                address,
                json!({ "transport_socket": mutual(ca, identity, server_name) }),
            )
        }
    };
    let own = json!({
        "name": name,
        "type": kind,
        "connect_timeout": "1s",
        "typed_extension_protocol_options": { HTTP_OPTIONS: typed(HTTP_OPTIONS, json!({
            "explicit_http_config": { "http2_protocol_options": {
                "connection_keepalive": { "interval": "5s", "timeout": "2s" },
                // Each tunnel has a stream of its own beside it.
                "max_concurrent_streams": 100_000,
                "initial_stream_window_size": 256 * 1024,
                "initial_connection_window_size": 4 * 1024 * 1024,
            } },
        })) },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
    });
    merged(merged(own, wide_open()), secured)
}

fn mutual(ca: &std::path::Path, identity: &TlsFiles, server_name: &str) -> Value {
    let kind = if server_name.parse::<std::net::IpAddr>().is_ok() {
        "IP_ADDRESS"
    } else {
        "DNS"
    };
    let tls = json!({
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
            "tls_certificates": [{
                "certificate_chain": { "filename": identity.certificate.to_string_lossy() },
                "private_key": { "filename": identity.key.to_string_lossy() },
            }],
            "validation_context": {
                "trusted_ca": { "filename": ca.to_string_lossy() },
                "match_typed_subject_alt_names": [{ "san_type": kind, "matcher": { "exact": server_name } }],
            },
        },
    });
    // No address is sent as a server name (RFC 6066 section 3).
    let tls = if kind == "DNS" {
        merged(tls, json!({ "sni": server_name }))
    } else {
        tls
    };
    extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        tls,
    )
}
