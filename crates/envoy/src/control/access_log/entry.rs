//! The access log's messages with only those of their fields that are read here: an entry of Envoy's has some hundred, most
//! of them never looked at, and to decode them all was the dearest part of an answer. Each message has the numbers of the
//! source that it names (`envoy-proto/proto`); what has no field here is skipped. Texts stay as they came, so that one that
//! is no UTF-8 does not cost the whole batch.

use std::{borrow::Cow, net::SocketAddr};

use bytes::Bytes;
use outgate_envoy_proto::envoy::data::accesslog::v3::ResponseFlags;
use prost::Message;

use super::wire::{field, in_map, value_of};
use crate::render::names::{DECISION, decision};

/// `StreamAccessLogsMessage` of `envoy/service/accesslog/v3/als.proto`.
#[derive(Message)]
#[prost(skip_debug)]
pub(super) struct LogMessage {
    #[prost(message, optional, tag = "1")]
    pub(super) identifier: Option<Identifier>,
    /// Of the `oneof log_entries`, as is `tcp_logs`.
    #[prost(message, optional, tag = "2")]
    pub(super) http_logs: Option<HttpEntries>,
    #[prost(message, optional, tag = "3")]
    pub(super) tcp_logs: Option<TcpEntries>,
}

/// `StreamAccessLogsMessage.Identifier`.
#[derive(Message)]
#[prost(skip_debug)]
pub(super) struct Identifier {
    #[prost(string, tag = "2")]
    pub(super) log_name: String,
}

/// `StreamAccessLogsMessage.HTTPAccessLogEntries`.
#[derive(Message)]
#[prost(skip_debug)]
pub(super) struct HttpEntries {
    #[prost(message, repeated, tag = "1")]
    pub(super) log_entry: Vec<HttpEntry>,
}

/// `StreamAccessLogsMessage.TCPAccessLogEntries`.
#[derive(Message)]
#[prost(skip_debug)]
pub(super) struct TcpEntries {
    #[prost(message, repeated, tag = "1")]
    pub(super) log_entry: Vec<TcpEntry>,
}

/// `HTTPAccessLogEntry` of `envoy/data/accesslog/v3/accesslog.proto`, as all that follow.
#[derive(Message)]
#[prost(skip_debug)]
pub(super) struct HttpEntry {
    #[prost(message, required, tag = "1")]
    pub(super) common: Common,
    #[prost(int32, tag = "2")]
    pub(super) protocol_version: i32,
    #[prost(message, required, tag = "3")]
    pub(super) request: Request,
    #[prost(message, required, tag = "4")]
    pub(super) response: Response,
}

/// `TCPAccessLogEntry`.
#[derive(Message)]
#[prost(skip_debug)]
pub(super) struct TcpEntry {
    #[prost(message, required, tag = "1")]
    pub(super) common: Common,
}

/// `AccessLogCommon`.
#[derive(Message)]
#[prost(skip_debug)]
pub(super) struct Common {
    /// A message `Address`: [`socket`].
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) downstream_remote_address: Bytes,
    #[prost(message, required, tag = "4")]
    pub(super) tls_properties: Tls,
    /// A message `Address`: [`socket`].
    #[prost(bytes = "bytes", tag = "13")]
    pub(super) upstream_remote_address: Bytes,
    #[prost(message, required, tag = "16")]
    pub(super) response_flags: ResponseFlags,
    /// A message `Metadata`: [`Common::request_id`].
    #[prost(bytes = "bytes", tag = "17")]
    metadata: Bytes,
    #[prost(bytes = "bytes", tag = "18")]
    upstream_transport_failure_reason: Bytes,
    /// Entries of a map of `google.protobuf.Any`: [`Common::state`].
    #[prost(bytes = "bytes", repeated, tag = "21")]
    filter_state_objects: Vec<Bytes>,
    #[prost(message, optional, tag = "23")]
    pub(super) duration: Option<prost_types::Duration>,
    #[prost(bytes = "bytes", tag = "25")]
    connection_termination_details: Bytes,
    #[prost(bytes = "bytes", tag = "28")]
    downstream_transport_failure_reason: Bytes,
    #[prost(int32, tag = "33")]
    pub(super) access_log_type: i32,
}

/// `TLSProperties`.
#[derive(Message)]
#[prost(skip_debug)]
pub(super) struct Tls {
    #[prost(bytes = "bytes", tag = "3")]
    sni_hostname: Bytes,
}

/// `HTTPRequestProperties`.
#[derive(Message)]
#[prost(skip_debug)]
pub(super) struct Request {
    #[prost(int32, tag = "1")]
    pub(super) request_method: i32,
    #[prost(bytes = "bytes", tag = "3")]
    authority: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    path: Bytes,
    #[prost(uint64, tag = "12")]
    pub(super) request_body_bytes: u64,
    #[prost(uint64, tag = "14")]
    pub(super) upstream_header_bytes_sent: u64,
}

/// `HTTPResponseProperties`.
#[derive(Message)]
#[prost(skip_debug)]
pub(super) struct Response {
    /// A message `google.protobuf.UInt32Value`.
    #[prost(message, optional, tag = "1")]
    pub(super) response_code: Option<u32>,
    #[prost(uint64, tag = "3")]
    pub(super) response_body_bytes: u64,
    #[prost(bytes = "bytes", tag = "6")]
    response_code_details: Bytes,
}

impl Common {
    /// The exchange's id, which ext_authz left in its metadata: `Metadata.filter_metadata` (1), `Struct.fields` (1),
    /// `Value.string_value` (3).
    pub(super) fn request_id(&self) -> Option<&str> {
        let decided = in_map(&self.metadata, 1, DECISION)?;
        let value = in_map(decided, 1, decision::REQUEST)?;
        std::str::from_utf8(field(value, 3)?).ok()
    }

    /// A text of the filter state: in `Any.value` (2) a `google.protobuf.StringValue`.
    pub(super) fn state(&self, key: &str) -> Option<String> {
        let mut entries = self.filter_state_objects.iter().rev();
        let any = entries.find_map(|entry| value_of(entry, key))?;
        String::decode(field(any, 2).unwrap_or_default()).ok()
    }

    /// What the guest's TLS named.
    pub(super) fn server_name(&self) -> Option<Cow<'_, str>> {
        let name = &self.tls_properties.sni_hostname;
        (!name.is_empty()).then(|| text(name))
    }

    pub(super) fn upstream_failure(&self) -> Cow<'_, str> {
        text(&self.upstream_transport_failure_reason)
    }

    pub(super) fn downstream_failure(&self) -> Cow<'_, str> {
        text(&self.downstream_transport_failure_reason)
    }

    pub(super) fn termination_details(&self) -> Cow<'_, str> {
        text(&self.connection_termination_details)
    }
}

impl Request {
    pub(super) fn authority(&self) -> Cow<'_, str> {
        text(&self.authority)
    }

    pub(super) fn path(&self) -> Cow<'_, str> {
        text(&self.path)
    }
}

impl Response {
    pub(super) fn details(&self) -> Cow<'_, str> {
        text(&self.response_code_details)
    }
}

fn text(bytes: &Bytes) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The socket of an encoded `Address` (`envoy/config/core/v3/address.proto`); `None`: none, or something else than a socket.
pub(super) fn socket(address: &Bytes) -> Option<SocketAddr> {
    let socket = Address::decode(address.clone()).ok()?.socket_address?;
    let ip = std::str::from_utf8(&socket.address).ok()?.parse().ok()?;
    Some(SocketAddr::new(ip, u16::try_from(socket.port_value?).ok()?))
}

/// Of the `oneof address` only what a guest or an upstream has.
#[derive(Message)]
struct Address {
    #[prost(message, optional, tag = "1")]
    socket_address: Option<SocketAddress>,
}

#[derive(Message)]
struct SocketAddress {
    #[prost(bytes = "bytes", tag = "2")]
    address: Bytes,
    /// Of the `oneof port_specifier`.
    #[prost(uint32, optional, tag = "3")]
    port_value: Option<u32>,
}
