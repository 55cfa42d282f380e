//! What Envoy 1.40 sends by the rendered configuration: a `CONNECT`, a request of a common SDK inside its tunnel, the rate
//! limit's question, and the entry of the access log.

use std::collections::BTreeMap;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use outgate_envoy_proto::envoy::{
    config::core::v3::{
        Address, HeaderMap, HeaderValue, Metadata, RequestMethod, SocketAddress, address,
        socket_address::PortSpecifier,
    },
    data::accesslog::v3::{
        AccessLogCommon, AccessLogType, HttpAccessLogEntry, HttpRequestProperties,
        HttpResponseProperties, TlsProperties, http_access_log_entry::HttpVersion,
    },
    extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry},
    service::{
        auth::v3::{
            AttributeContext, CheckRequest, CheckResponse,
            attribute_context::{HttpRequest, Peer, Request, TlsSession},
        },
        ratelimit::v3::RateLimitRequest,
    },
};
use prost_types::{Duration, Struct, Timestamp, Value, value::Kind};

pub(crate) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
pub(crate) const LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
pub(crate) const KEYS: &str = outgate_envoy::control::KEYS_PATH;
pub(crate) const LOG: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// The destination of every request.
pub(crate) const HOST: &str = "api.example.org";

const AUTHZ: &str = "envoy.filters.http.ext_authz";
const JWT: &str = "envoy.filters.http.jwt_authn";

/// A question about a `CONNECT`.
pub(crate) fn connect(token: &str, port: u16) -> CheckRequest {
    let target = format!("{HOST}:{port}");
    let basic = STANDARD.encode(format!("session:{token}"));
    let fields = [
        (":authority", target.as_str()),
        (":method", "CONNECT"),
        ("user-agent", "python-httpx/0.28.1"),
        ("proxy-authorization", &format!("Basic {basic}")),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "0b0e1e0c-3ad5-4a0b-9a55-6f5f0f2c7a11"),
    ];
    check(&fields, "CONNECT", "", "", None)
}

/// A question about a request of an SDK in a tunnel.
pub(crate) fn bumped(token: &str, connection: &str, port: u16) -> CheckRequest {
    let authority = match port {
        443 => HOST.to_owned(),
        _ => format!("{HOST}:{port}"),
    };
    let fields = [
        (":authority", authority.as_str()),
        (":path", "/v1/messages?beta=true"),
        (":method", "POST"),
        (":scheme", "https"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("user-agent", "Example/Python 0.75.0"),
        ("x-stainless-lang", "python"),
        ("x-stainless-package-version", "0.75.0"),
        ("x-stainless-os", "Linux"),
        ("x-stainless-arch", "x64"),
        ("x-stainless-runtime", "CPython"),
        ("x-stainless-runtime-version", "3.12.11"),
        ("x-stainless-retry-count", "0"),
        ("x-stainless-read-timeout", "600"),
        ("x-api-key", token),
        ("api-version", "2023-06-01"),
        ("content-length", "4096"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "5a0f3a6e-0d2e-4f0e-8d0a-1c5a8a4be0aa"),
        ("x-outgate-connection", connection),
    ];
    let metadata = Metadata {
        filter_metadata: [(JWT.to_owned(), claims(&session_of(token)))].into(),
        ..Metadata::default()
    };
    check(
        &fields,
        "POST",
        "/v1/messages?beta=true",
        "https",
        Some(metadata),
    )
}

fn check(
    fields: &[(&str, &str)],
    method: &str,
    path: &str,
    scheme: &str,
    metadata: Option<Metadata>,
) -> CheckRequest {
    let host = fields[0].1.to_owned();
    let field = |(key, value): &(&str, &str)| HeaderValue {
        key: (*key).to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    };
    let tls_session = metadata.as_ref().map(|_| TlsSession {
        sni: HOST.to_owned(),
    });
    CheckRequest {
        attributes: Some(AttributeContext {
            source: peer(49_152),
            destination: peer(8080),
            request: Some(Request {
                time: Some(Timestamp {
                    seconds: 1_790_000_000,
                    nanos: 123_456_000,
                }),
                http: Some(HttpRequest {
                    id: "8124375924763214872".to_owned(),
                    method: method.to_owned(),
                    header_map: Some(HeaderMap {
                        headers: fields.iter().map(field).collect(),
                    }),
                    path: path.to_owned(),
                    host,
                    scheme: scheme.to_owned(),
                    protocol: "HTTP/1.1".to_owned(),
                    size: -1,
                    ..HttpRequest::default()
                }),
            }),
            metadata_context: Some(metadata.unwrap_or_default()),
            route_metadata_context: Some(Metadata::default()),
            tls_session,
            ..AttributeContext::default()
        }),
    }
}

fn peer(port: u32) -> Option<Peer> {
    Some(Peer {
        address: Some(address(port)),
        ..Peer::default()
    })
}

fn address(port: u32) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: "127.0.0.1".to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..SocketAddress::default()
        })),
    }
}

/// The session that a token names.
fn session_of(token: &str) -> String {
    let payload = token.split('.').nth(1).unwrap();
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
    let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    payload["sub"].as_str().unwrap().to_owned()
}

/// The claims of what was presented to the destination, which Envoy verified, as it hands them on.
fn claims(session: &str) -> Struct {
    let text = |text: &str| Some(Kind::StringValue(text.to_owned()));
    let number = |number: f64| Some(Kind::NumberValue(number));
    let claims = [
        ("iss", text("outgate")),
        ("aud", text("outgate")),
        ("sub", text(session)),
        ("jti", text("0123456789abcdef0123456789abcdef")),
        ("iat", number(1_790_000_000.0)),
        ("nbf", number(1_790_000_000.0)),
        ("exp", number(1_790_001_800.0)),
    ];
    let payload = structure(claims.map(|(key, kind)| (key, Value { kind })));
    structure([(
        "request",
        Value {
            kind: Some(Kind::StructValue(payload)),
        },
    )])
}

fn structure<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Struct {
    let fields = fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value));
    Struct {
        fields: fields.collect(),
    }
}

/// What the decision says of itself.
pub(crate) fn decision(answer: &CheckResponse) -> BTreeMap<String, String> {
    let fields = answer.dynamic_metadata.iter().flat_map(|it| &it.fields);
    fields
        .filter_map(|(key, value)| match &value.kind {
            Some(Kind::StringValue(text)) => Some((key.clone(), text.clone())),
            _ => None,
        })
        .collect()
}

/// The rate limit's question about a request that was decided.
pub(crate) fn limit(decision: &BTreeMap<String, String>) -> RateLimitRequest {
    let entry = |key: &str| {
        let value = decision.get(key)?.clone();
        Some(Entry {
            key: key.to_owned(),
            value,
        })
    };
    RateLimitRequest {
        domain: "outgate".to_owned(),
        descriptors: vec![RateLimitDescriptor {
            entries: ["request", "host", "session"]
                .into_iter()
                .filter_map(entry)
                .collect(),
            ..RateLimitDescriptor::default()
        }],
        hits_addend: 0,
    }
}

/// What the access log says of its end.
pub(crate) fn ended(decision: &BTreeMap<String, String>) -> HttpAccessLogEntry {
    let text = |text: &String| Value {
        kind: Some(Kind::StringValue(text.clone())),
    };
    let decided = structure(
        decision
            .iter()
            .map(|(key, value)| (key.as_str(), text(value))),
    );
    let micros = |micros: i32| {
        Some(Duration {
            seconds: 0,
            nanos: micros * 1000,
        })
    };
    HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            downstream_remote_address: Some(address(49_152)),
            downstream_local_address: Some(address(8080)),
            downstream_direct_remote_address: Some(address(49_152)),
            upstream_remote_address: Some(address(443)),
            upstream_local_address: Some(address(50_000)),
            tls_properties: Some(TlsProperties {
                tls_version: 4,
                tls_sni_hostname: HOST.to_owned(),
                ..TlsProperties::default()
            }),
            start_time: Some(Timestamp {
                seconds: 1_790_000_000,
                nanos: 123_456_000,
            }),
            time_to_last_rx_byte: micros(300),
            time_to_first_upstream_tx_byte: micros(900),
            time_to_last_upstream_tx_byte: micros(950),
            time_to_first_upstream_rx_byte: micros(1500),
            time_to_last_upstream_rx_byte: micros(1600),
            time_to_first_downstream_tx_byte: micros(1650),
            time_to_last_downstream_tx_byte: micros(1700),
            duration: micros(1700),
            upstream_cluster: "outgate_vetted".to_owned(),
            route_name: "api.example.org".to_owned(),
            metadata: Some(Metadata {
                filter_metadata: [
                    (AUTHZ.to_owned(), decided),
                    (JWT.to_owned(), claims(&decision["session"])),
                ]
                .into(),
                ..Metadata::default()
            }),
            upstream_request_attempt_count: 1,
            downstream_wire_bytes_sent: 1400,
            downstream_wire_bytes_received: 5200,
            upstream_wire_bytes_sent: 5100,
            upstream_wire_bytes_received: 1300,
            access_log_type: AccessLogType::DownstreamEnd.into(),
            ..AccessLogCommon::default()
        }),
        protocol_version: HttpVersion::Http11.into(),
        request: Some(HttpRequestProperties {
            request_method: RequestMethod::Post.into(),
            scheme: "https".to_owned(),
            authority: HOST.to_owned(),
            path: "/v1/messages?beta=true".to_owned(),
            user_agent: "Example/Python 0.75.0".to_owned(),
            request_id: "5a0f3a6e-0d2e-4f0e-8d0a-1c5a8a4be0aa".to_owned(),
            request_headers_bytes: 900,
            request_body_bytes: 4096,
            upstream_header_bytes_sent: 800,
            downstream_header_bytes_received: 900,
            ..HttpRequestProperties::default()
        }),
        response: Some(HttpResponseProperties {
            response_code: Some(200),
            response_headers_bytes: 300,
            response_body_bytes: 1024,
            response_code_details: "via_upstream".to_owned(),
            ..HttpResponseProperties::default()
        }),
    }
}
