//! What is read of an entry is what the whole message says.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::{Debug, Formatter},
    net::SocketAddr,
};

use outgate_envoy_proto::envoy::{
    config::core::v3::{
        Address, EnvoyInternalAddress, Metadata, Node, Pipe, SocketAddress, address,
        socket_address::PortSpecifier,
    },
    data::accesslog::v3::{
        AccessLogCommon, HttpAccessLogEntry, HttpRequestProperties, HttpResponseProperties,
        TcpAccessLogEntry, TlsProperties,
    },
    service::accesslog::v3::{
        StreamAccessLogsMessage,
        stream_access_logs_message::{
            HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries,
        },
    },
};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};
use prost::Message;
use prost_types::{Any, Duration, ListValue, Struct, Timestamp, Value, value::Kind};

use super::{
    entry::{Common, HttpEntry, LogMessage},
    *,
};
use crate::{
    control::metadata,
    render::names::{DECISION, decision},
};

/// Everything that is read of what both kinds of entries have.
#[derive(Debug, PartialEq)]
struct ReadCommon {
    id: Option<String>,
    state: Option<String>,
    server_name: Option<String>,
    /// Why the upstream failed, why the guest's side did, and why the connection was closed.
    failures: [String; 3],
    sockets: [Option<SocketAddr>; 2],
    flags: ResponseFlags,
    duration: Option<Duration>,
    kind: i32,
}

/// And what is read of an HTTP entry besides.
#[derive(Debug, PartialEq)]
struct ReadHttp {
    common: ReadCommon,
    version: i32,
    method: i32,
    texts: [String; 3],
    bytes: [u64; 3],
    status: Option<u32>,
}

/// As the generated messages have it.
fn whole_common(common: Option<&AccessLogCommon>) -> ReadCommon {
    let common = common.cloned().unwrap_or_default();
    let socket = |address: Option<&Address>| -> Option<SocketAddr> {
        let address::Address::SocketAddress(socket) = address?.address.as_ref()? else {
            return None;
        };
        let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else {
            return None;
        };
        let ip = socket.address.parse().ok()?;
        Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
    };
    let state = common.filter_state_objects.get(STATE_CONNECTION);
    let tls = common.tls_properties.as_ref();
    ReadCommon {
        id: common
            .metadata
            .as_ref()
            .and_then(metadata::request_id)
            .map(str::to_owned),
        state: state.and_then(|any| String::decode(any.value.as_slice()).ok()),
        server_name: tls
            .map(|tls| tls.tls_sni_hostname.clone())
            .filter(|name| !name.is_empty()),
        sockets: [
            socket(common.downstream_remote_address.as_ref()),
            socket(common.upstream_remote_address.as_ref()),
        ],
        flags: common.response_flags.unwrap_or_default(),
        duration: common.duration,
        kind: common.access_log_type,
        failures: [
            common.upstream_transport_failure_reason,
            common.downstream_transport_failure_reason,
            common.connection_termination_details,
        ],
    }
}

fn whole_http(entry: &HttpAccessLogEntry) -> ReadHttp {
    let request = entry.request.clone().unwrap_or_default();
    let response = entry.response.clone().unwrap_or_default();
    ReadHttp {
        common: whole_common(entry.common_properties.as_ref()),
        version: entry.protocol_version,
        method: request.request_method,
        texts: [
            request.authority,
            request.path,
            response.response_code_details,
        ],
        bytes: [
            request.request_body_bytes,
            request.upstream_header_bytes_sent,
            response.response_body_bytes,
        ],
        status: response.response_code,
    }
}

/// As it is read here.
fn read_common(common: &Common) -> ReadCommon {
    ReadCommon {
        id: common.request_id().map(str::to_owned),
        state: common.state(STATE_CONNECTION),
        server_name: common.server_name().map(Cow::into_owned),
        failures: [
            common.upstream_failure(),
            common.downstream_failure(),
            common.termination_details(),
        ]
        .map(Cow::into_owned),
        sockets: [
            socket(&common.downstream_remote_address),
            socket(&common.upstream_remote_address),
        ],
        flags: common.response_flags,
        duration: common.duration,
        kind: common.access_log_type,
    }
}

fn read_http(entry: &HttpEntry) -> ReadHttp {
    let (request, response) = (&entry.request, &entry.response);
    ReadHttp {
        common: read_common(&entry.common),
        version: entry.protocol_version,
        method: request.request_method,
        texts: [request.authority(), request.path(), response.details()].map(Cow::into_owned),
        bytes: [
            request.request_body_bytes,
            request.upstream_header_bytes_sent,
            response.response_body_bytes,
        ],
        status: response.response_code,
    }
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

/// One of these, or something else.
fn one_of(known: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![3 => select(known).prop_map(str::to_owned), 1 => text()]
}

fn an_address() -> impl Strategy<Value = Option<Address>> {
    let port = prop_oneof![
        4 => any::<u16>().prop_map(|port| Some(PortSpecifier::PortValue(port.into()))),
        1 => any::<u32>().prop_map(|port| Some(PortSpecifier::PortValue(port))),
        1 => text().prop_map(|name| Some(PortSpecifier::NamedPort(name))),
        1 => Just(None),
    ];
    let socket = (
        one_of(&["192.0.2.7", "2001:db8::7", "0.0.0.0", ""]),
        port,
        text(),
    );
    let socket = socket.prop_map(|(address, port_specifier, resolver_name)| {
        address::Address::SocketAddress(SocketAddress {
            address,
            port_specifier,
            resolver_name,
            ..SocketAddress::default()
        })
    });
    let address = prop_oneof![
        4 => socket.prop_map(Some),
        1 => text().prop_map(|path| Some(address::Address::Pipe(Pipe { path, mode: 0 }))),
        1 => Just(Some(address::Address::EnvoyInternalAddress(EnvoyInternalAddress::default()))),
        1 => Just(None),
    ];
    option::of(address.prop_map(|address| Address { address }))
}

fn a_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        6 => text().prop_map(|text| Some(Kind::StringValue(text))),
        1 => any::<f64>().prop_map(|number| Some(Kind::NumberValue(number))),
        1 => any::<bool>().prop_map(|it| Some(Kind::BoolValue(it))),
        1 => Just(Some(Kind::NullValue(0))),
        1 => Just(None),
    ];
    let leaf = leaf.prop_map(|kind| Value { kind });
    leaf.prop_recursive(2, 6, 3, |inner| {
        let list = vec(inner.clone(), 0..3).prop_map(|values| Value {
            kind: Some(Kind::ListValue(ListValue { values })),
        });
        let fields =
            btree_map(one_of(&[decision::REQUEST]), inner, 0..3).prop_map(|fields| Value {
                kind: Some(Kind::StructValue(Struct { fields })),
            });
        prop_oneof![list, fields]
    })
}

fn a_metadata() -> impl Strategy<Value = Metadata> {
    let fields = btree_map(
        one_of(&[decision::REQUEST, "host", "session"]),
        a_value(),
        0..5,
    );
    let one = fields.prop_map(|fields| Struct { fields });
    let names = one_of(&[DECISION, "envoy.filters.http.jwt_authn"]);
    (btree_map(names, one, 0..4), states()).prop_map(|(filter_metadata, typed)| Metadata {
        filter_metadata,
        typed_filter_metadata: typed,
    })
}

fn states() -> impl Strategy<Value = BTreeMap<String, Any>> {
    let value = prop_oneof![
        3 => text().prop_map(|text| text.encode_to_vec()),
        1 => vec(any::<u8>(), 0..12),
    ];
    let any = (text(), value).prop_map(|(type_url, value)| Any { type_url, value });
    btree_map(one_of(&[STATE_CONNECTION, "outgate.host"]), any, 0..4)
}

/// Flags by their numbers, but the one that is a message.
fn some_flags() -> impl Strategy<Value = ResponseFlags> {
    any::<u32>().prop_map(|bits| {
        let set = (1_u8..29).filter(|number| *number != 13 && bits & (1 << number) != 0);
        let encoded: Vec<u8> = set
            .flat_map(|number| match number {
                0..16 => vec![number << 3, 1],
                _ => vec![(number << 3) | 0x80, number >> 4, 1],
            })
            .collect();
        ResponseFlags::decode(encoded.as_slice()).unwrap()
    })
}

fn a_duration() -> impl Strategy<Value = Option<Duration>> {
    option::of(
        (any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| Duration { seconds, nanos }),
    )
}

fn a_common() -> impl Strategy<Value = Option<AccessLogCommon>> {
    let addresses = (an_address(), an_address(), an_address());
    let sources = (
        option::of(a_metadata()),
        states(),
        option::of(some_flags()),
        a_duration(),
    );
    let texts = [text(), text(), text(), text(), text()];
    let rest = (any::<i32>(), any::<u64>(), option::of((text(), text())));
    let common = (addresses, sources, texts, rest).prop_map(|(addresses, sources, texts, rest)| {
        let [failure, closed, inner, cluster, route] = texts;
        AccessLogCommon {
            sample_rate: 0.5,
            downstream_remote_address: addresses.0,
            downstream_local_address: addresses.2.clone(),
            downstream_direct_remote_address: addresses.2,
            upstream_remote_address: addresses.1,
            tls_properties: rest.2.map(|(sni, session)| TlsProperties {
                tls_version: 4,
                tls_sni_hostname: sni,
                tls_session_id: session,
                ..TlsProperties::default()
            }),
            start_time: Some(Timestamp {
                seconds: 1_790_000_000,
                nanos: 7,
            }),
            time_to_last_rx_byte: sources.3,
            duration: sources.3,
            metadata: sources.0,
            filter_state_objects: sources.1,
            response_flags: sources.2,
            upstream_transport_failure_reason: failure,
            connection_termination_details: closed,
            downstream_transport_failure_reason: inner,
            custom_tags: [(route.clone(), cluster.clone())].into(),
            upstream_cluster: cluster,
            route_name: route,
            downstream_wire_bytes_sent: rest.1,
            access_log_type: rest.0,
            ..AccessLogCommon::default()
        }
    });
    option::of(common)
}

/// A message that says nothing of itself, because a guest's token may be in it.
struct Unprinted<T>(T);

impl<T> Debug for Unprinted<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("a message")
    }
}

fn a_request() -> impl Strategy<Value = Unprinted<Option<HttpRequestProperties>>> {
    let parts = (
        any::<i32>(),
        [text(), text(), text()],
        any::<[u64; 3]>(),
        option::of(any::<u32>()),
    );
    option::of(parts).prop_map(|parts| {
        Unprinted(parts.map(|(request_method, texts, bytes, port)| {
            let [authority, path, other] = texts;
            HttpRequestProperties {
                request_method,
                scheme: other.clone(),
                authority,
                port,
                path,
                user_agent: other.clone(),
                original_path: other.clone(),
                request_headers_bytes: bytes[2],
                request_body_bytes: bytes[0],
                request_headers: [("x".to_owned(), other)].into(),
                upstream_header_bytes_sent: bytes[1],
                downstream_header_bytes_received: bytes[2],
                ..HttpRequestProperties::default()
            }
        }))
    })
}

fn a_response() -> impl Strategy<Value = Unprinted<Option<HttpResponseProperties>>> {
    let parts = (option::of(any::<u32>()), text(), text(), any::<[u64; 2]>());
    option::of(parts).prop_map(|parts| {
        Unprinted(parts.map(
            |(response_code, details, other, bytes)| HttpResponseProperties {
                response_code,
                response_headers_bytes: bytes[1],
                response_body_bytes: bytes[0],
                response_headers: [(other.clone(), other)].into(),
                response_code_details: details,
                upstream_header_bytes_received: bytes[1],
                ..HttpResponseProperties::default()
            },
        ))
    })
}

fn an_http_entry() -> impl Strategy<Value = Unprinted<HttpAccessLogEntry>> {
    let parts = (a_common(), any::<i32>(), a_request(), a_response());
    parts.prop_map(|(common_properties, protocol_version, request, response)| {
        Unprinted(HttpAccessLogEntry {
            common_properties,
            protocol_version,
            request: request.0,
            response: response.0,
        })
    })
}

fn message(name: String, entries: Option<LogEntries>) -> Vec<u8> {
    let node = Node {
        id: "envoy-1".to_owned(),
        ..Node::default()
    };
    StreamAccessLogsMessage {
        identifier: Some(Identifier {
            node: Some(node),
            log_name: name,
        }),
        log_entries: entries,
    }
    .encode_to_vec()
}

proptest! {
    #[test]
    fn an_http_entry_says_what_the_whole_message_says(
        name in text(),
        entries in vec(an_http_entry(), 0..3),
    ) {
        let entries = entries.into_iter().map(|it| it.0).collect::<Vec<_>>();
        let expected: Vec<ReadHttp> = entries.iter().map(whole_http).collect();
        let logs = LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: entries });
        let read = LogMessage::decode(message(name.clone(), Some(logs)).as_slice()).unwrap();
        prop_assert_eq!(read.identifier.unwrap().log_name, name);
        prop_assert!(read.tcp_logs.is_none());
        let read: Vec<ReadHttp> = read.http_logs.unwrap().log_entry.iter().map(read_http).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn a_tcp_entry_says_what_the_whole_message_says(all in vec(a_common(), 0..3)) {
        let expected: Vec<ReadCommon> = all.iter().map(|it| whole_common(it.as_ref())).collect();
        let entries = all.into_iter().map(|common_properties| TcpAccessLogEntry {
            common_properties,
            ..TcpAccessLogEntry::default()
        });
        let logs = LogEntries::TcpLogs(TcpAccessLogEntries { log_entry: entries.collect() });
        let read = LogMessage::decode(message(String::new(), Some(logs)).as_slice()).unwrap();
        prop_assert!(read.http_logs.is_none());
        let read = read.tcp_logs.unwrap();
        let read: Vec<ReadCommon> = read.log_entry.iter().map(|it| read_common(&it.common)).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn whatever_comes_is_read_without_a_panic(
        bytes in vec(any::<u8>(), 0..64),
        entry in an_http_entry(),
        cut in any::<usize>(),
        flip in any::<(usize, u8)>(),
    ) {
        let _ = LogMessage::decode(bytes.as_slice());
        let mut encoded = entry.0.encode_to_vec();
        if !encoded.is_empty() {
            let place = flip.0 % encoded.len();
            encoded[place] = flip.1;
            encoded.truncate(cut % (encoded.len() + 1));
        }
        if let Ok(entry) = HttpEntry::decode(encoded.as_slice()) {
            read_http(&entry);
        }
    }
}

#[test]
fn a_text_that_is_none_costs_nothing_but_itself() {
    // common_properties { upstream_transport_failure_reason = 0xff }, response { response_code_details = "x" }
    let encoded = [0x0a, 4, 0x92, 0x01, 1, 0xff, 0x22, 3, 0x32, 1, b'x'];
    assert!(HttpAccessLogEntry::decode(encoded.as_slice()).is_err());
    let entry = HttpEntry::decode(encoded.as_slice()).unwrap();
    assert_eq!(entry.common.upstream_failure(), "\u{fffd}");
    assert_eq!(entry.response.details(), "x");
}
