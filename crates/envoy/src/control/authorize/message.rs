//! ext_authz's messages with only those of their fields that are read and written here. Each has the numbers of the source
//! that it names (`envoy-proto/proto`); what has no field here is skipped. What was sent stays as it came, beside the bytes
//! that it came in, until it is known what it has to be.

use bytes::Bytes;
use outgate_envoy_proto::{
    envoy::service::auth::v3::{DeniedHttpResponse, OkHttpResponse},
    google::rpc,
};
use prost::Message;

/// `CheckRequest` of `envoy/service/auth/v3/external_auth.proto`.
#[derive(Message)]
#[prost(skip_debug)]
pub(crate) struct Question {
    #[prost(message, optional, tag = "1")]
    pub(crate) attributes: Option<Attributes>,
}

/// `AttributeContext` of `envoy/service/auth/v3/attribute_context.proto`, as those that follow.
#[derive(Message)]
#[prost(skip_debug)]
pub(crate) struct Attributes {
    #[prost(message, optional, tag = "1")]
    pub(crate) source: Option<Peer>,
    #[prost(message, optional, tag = "2")]
    pub(crate) destination: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    pub(crate) request: Option<Request>,
    /// A message `Metadata`.
    #[prost(bytes = "bytes", tag = "11")]
    pub(crate) metadata_context: Bytes,
    #[prost(message, optional, tag = "12")]
    pub(crate) tls_session: Option<TlsSession>,
}

/// `AttributeContext.Peer`.
#[derive(Message)]
pub(crate) struct Peer {
    #[prost(message, optional, tag = "1")]
    pub(crate) address: Option<Address>,
}

/// `AttributeContext.Request`.
#[derive(Message)]
#[prost(skip_debug)]
pub(crate) struct Request {
    #[prost(message, optional, tag = "2")]
    pub(crate) http: Option<HttpRequest>,
}

/// `AttributeContext.HttpRequest`.
#[derive(Message)]
#[prost(skip_debug)]
pub(crate) struct HttpRequest {
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) method: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) path: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) host: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) scheme: Bytes,
    #[prost(bytes = "bytes", tag = "10")]
    pub(crate) protocol: Bytes,
    #[prost(message, optional, tag = "13")]
    pub(crate) header_map: Option<Fields>,
}

/// `AttributeContext.TLSSession`.
#[derive(Message)]
pub(crate) struct TlsSession {
    #[prost(string, tag = "1")]
    pub(crate) sni: String,
}

/// `HeaderMap` of `envoy/config/core/v3/base.proto`.
#[derive(Message)]
#[prost(skip_debug)]
pub(crate) struct Fields {
    #[prost(message, repeated, tag = "1")]
    pub(crate) headers: Vec<Field>,
}

/// `HeaderValue` of the same.
#[derive(Message)]
#[prost(skip_debug)]
pub(crate) struct Field {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) raw_value: Bytes,
}

/// `Address` of `envoy/config/core/v3/address.proto`: of the `oneof address` only what a guest has.
#[derive(Message)]
pub(crate) struct Address {
    #[prost(message, optional, tag = "1")]
    pub(crate) socket_address: Option<SocketAddress>,
}

/// `SocketAddress` of the same; a port that has a name counts as none.
#[derive(Message)]
pub(crate) struct SocketAddress {
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) address: Bytes,
    #[prost(uint32, tag = "3")]
    pub(crate) port_value: u32,
}

/// `CheckResponse`. Of `denied` and `ok`, which are a `oneof`, one is there.
#[derive(Message)]
#[prost(skip_debug)]
pub(crate) struct Answer {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<rpc::Status>,
    #[prost(message, optional, tag = "2")]
    pub(crate) denied: Option<DeniedHttpResponse>,
    #[prost(message, optional, tag = "3")]
    pub(crate) ok: Option<OkHttpResponse>,
    #[prost(message, optional, tag = "4")]
    pub(crate) dynamic_metadata: Option<Texts>,
}

/// `google.protobuf.Struct`, whose map is a list of its entries on the wire; of texts alone.
#[derive(Message)]
#[prost(skip_debug)]
pub(crate) struct Texts {
    #[prost(message, repeated, tag = "1")]
    fields: Vec<Entry>,
}

#[derive(Message)]
#[prost(skip_debug)]
struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(message, required, tag = "2")]
    value: Text,
}

/// `google.protobuf.Value`. In its `oneof` an empty text has to be said as well.
#[derive(Message)]
#[prost(skip_debug)]
struct Text {
    #[prost(string, optional, tag = "3")]
    string_value: Option<String>,
}

impl FromIterator<(&'static str, String)> for Texts {
    fn from_iter<T: IntoIterator<Item = (&'static str, String)>>(texts: T) -> Self {
        let entry = |(key, text): (&'static str, String)| Entry {
            key: Bytes::from_static(key.as_bytes()),
            value: Text {
                string_value: Some(text),
            },
        };
        Self {
            fields: texts.into_iter().map(entry).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use outgate_envoy_proto::envoy::{
        config::core::v3::{self as core, address, socket_address::PortSpecifier},
        service::auth::v3::{self as auth, attribute_context as context, check_response},
    };
    use prost_types::value::Kind;

    use super::*;

    fn peer(port: PortSpecifier) -> Option<context::Peer> {
        let socket = core::SocketAddress {
            address: "192.0.2.7".to_owned(),
            port_specifier: Some(port),
            ..core::SocketAddress::default()
        };
        Some(context::Peer {
            address: Some(core::Address {
                address: Some(address::Address::SocketAddress(socket)),
            }),
            service: "skipped".to_owned(),
            ..context::Peer::default()
        })
    }

    #[test]
    fn a_question_reads_as_what_envoy_wrote() {
        let field = core::HeaderValue {
            key: "x-a".to_owned(),
            raw_value: vec![0xe9, b'b'],
            ..core::HeaderValue::default()
        };
        let metadata = core::Metadata {
            filter_metadata: [("filter".to_owned(), prost_types::Struct::default())].into(),
            ..core::Metadata::default()
        };
        let written = auth::CheckRequest {
            attributes: Some(auth::AttributeContext {
                source: peer(PortSpecifier::PortValue(4711)),
                destination: peer(PortSpecifier::NamedPort("https".to_owned())),
                request: Some(context::Request {
                    time: Some(prost_types::Timestamp::default()),
                    http: Some(context::HttpRequest {
                        id: "skipped".to_owned(),
                        method: "POST".to_owned(),
                        path: "/p?q".to_owned(),
                        host: "h".to_owned(),
                        scheme: "https".to_owned(),
                        protocol: "HTTP/2".to_owned(),
                        size: -1,
                        header_map: Some(core::HeaderMap {
                            headers: vec![field.clone(), field],
                        }),
                        ..context::HttpRequest::default()
                    }),
                }),
                metadata_context: Some(metadata.clone()),
                tls_session: Some(context::TlsSession {
                    sni: "name".to_owned(),
                }),
                ..auth::AttributeContext::default()
            }),
        };
        let read = Question::decode(Bytes::from(written.encode_to_vec())).unwrap();
        let read = read.attributes.unwrap();
        let socket = |peer: &Option<Peer>| {
            let address = peer.as_ref().unwrap().address.as_ref().unwrap();
            let socket = address.socket_address.as_ref().unwrap();
            (socket.address.clone(), socket.port_value)
        };
        let ip = Bytes::from_static(b"192.0.2.7");
        assert_eq!(socket(&read.source), (ip.clone(), 4711));
        assert_eq!(socket(&read.destination), (ip, 0));
        assert_eq!(read.tls_session.unwrap().sni, "name");
        assert_eq!(read.metadata_context, metadata.encode_to_vec());
        let http = read.request.unwrap().http.unwrap();
        let texts = [&http.method, &http.path, &http.host, &http.scheme];
        assert_eq!(texts, ["POST", "/p?q", "h", "https"]);
        assert_eq!(http.protocol, "HTTP/2");
        let fields = http.header_map.unwrap().headers;
        assert_eq!(fields.len(), 2);
        assert_eq!(
            (&*fields[1].key, &*fields[1].raw_value),
            (&b"x-a"[..], &b"\xe9b"[..])
        );
    }

    #[test]
    fn envoy_reads_an_answer_as_what_was_written() {
        let texts = [("a", "1".to_owned()), ("b", String::new())];
        let answer = Answer {
            status: Some(rpc::Status::default()),
            denied: None,
            ok: Some(OkHttpResponse {
                headers_to_remove: vec!["x".to_owned()],
                ..OkHttpResponse::default()
            }),
            dynamic_metadata: Some(texts.into_iter().collect()),
        };
        let read = auth::CheckResponse::decode(answer.encode_to_vec().as_slice()).unwrap();
        assert_eq!(read.status.unwrap().code, 0);
        let Some(check_response::HttpResponse::OkResponse(ok)) = read.http_response else {
            panic!("not let through");
        };
        assert_eq!(ok.headers_to_remove, ["x"]);
        let fields = read.dynamic_metadata.unwrap().fields;
        let text = |key: &str| fields[key].kind.clone();
        assert_eq!(text("a"), Some(Kind::StringValue("1".to_owned())));
        assert_eq!(text("b"), Some(Kind::StringValue(String::new())));

        let answer = Answer {
            status: Some(rpc::Status::default()),
            denied: Some(DeniedHttpResponse {
                body: "no".to_owned(),
                ..DeniedHttpResponse::default()
            }),
            ..Answer::default()
        };
        let read = auth::CheckResponse::decode(answer.encode_to_vec().as_slice()).unwrap();
        let Some(check_response::HttpResponse::DeniedResponse(denied)) = read.http_response else {
            panic!("let through");
        };
        assert_eq!(denied.body, "no");
    }
}
