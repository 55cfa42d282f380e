//! Envoy's questions, as a test writes them, and the answers, as it reads them.

use std::{collections::BTreeMap, net::SocketAddr};

use outgate_envoy_proto::envoy::{
    config::core::v3::{
        Address, HeaderMap, HeaderValue, HeaderValueOption, Metadata, SocketAddress, address,
        header_value_option::HeaderAppendAction, socket_address::PortSpecifier,
    },
    data::accesslog::v3::{
        AccessLogCommon, AccessLogType, HttpAccessLogEntry, HttpRequestProperties,
        HttpResponseProperties, TcpAccessLogEntry,
    },
    extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor},
    service::{
        accesslog::v3::{
            StreamAccessLogsMessage,
            access_log_service_client::AccessLogServiceClient,
            stream_access_logs_message::{
                HttpAccessLogEntries, Identifier, LogEntries, TcpAccessLogEntries,
            },
        },
        auth::v3::{
            AttributeContext, CheckRequest, CheckResponse,
            attribute_context::{HttpRequest, Peer, Request, TlsSession},
            authorization_client::AuthorizationClient,
            check_response::HttpResponse,
        },
        ext_proc::v3::{
            HttpHeaders, ProcessingRequest, ProcessingResponse,
            external_processor_client::ExternalProcessorClient, processing_request,
            processing_response,
        },
        ratelimit::v3::{
            RateLimitRequest, rate_limit_response::Code,
            rate_limit_service_client::RateLimitServiceClient,
        },
    },
};
use outgate_journey::denial::DenyCode;
use prost_types::{Struct, Value as ProtoValue, value::Kind};
use serde_json::Value;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::world::{Guest, Link, PATIENCE, World};

const NAMESPACE: &str = "envoy.filters.http.ext_authz";
pub(crate) const CLIENT: &str = "198.51.100.7:40123";

/// One question to ext_authz.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) leg: Option<&'static str>,
    pub(crate) method: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) server_name: String,
    pub(crate) dialled: SocketAddr,
    pub(crate) protocol: &'static str,
    /// The sessions of the tokens that Envoy verified, by where they were presented.
    pub(crate) verified: Vec<(&'static str, String)>,
}

impl Ask {
    pub(crate) fn of(leg: &'static str, method: &str, authority: &str, path: &str) -> Self {
        Self {
            leg: Some(leg),
            method: method.to_owned(),
            authority: authority.to_owned(),
            path: path.to_owned(),
            fields: Vec::new(),
            server_name: String::new(),
            dialled: "192.0.2.1:80".parse().expect("an address"),
            protocol: "HTTP/1.1",
            verified: Vec::new(),
        }
    }

    pub(crate) fn connect(target: &str) -> Self {
        Self::of("connect", "CONNECT", target, "")
    }

    /// In a bumped tunnel.
    pub(crate) fn bumped(tunnel: &str, host: &str, path: &str) -> Self {
        let mut ask = Self::of("bumped", "GET", host, path).field("x-outgate-connection", tunnel);
        ask.server_name = host.to_owned();
        ask
    }

    pub(crate) fn tunnelled_plain(tunnel: &str, host: &str, path: &str) -> Self {
        Self::of("tunnelled-plain", "GET", host, path).field("x-outgate-connection", tunnel)
    }

    pub(crate) fn forward(host: &str, path: &str) -> Self {
        Self::of("forward", "GET", host, path)
    }

    pub(crate) fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn fields(self, fields: &[(&str, &str)]) -> Self {
        fields
            .iter()
            .fold(self, |ask, (name, value)| ask.field(name, value))
    }

    /// As the proxy's password.
    pub(crate) fn proxied_by(self, guest: &Guest) -> Self {
        self.field("proxy-authorization", basic("session", &guest.token))
    }

    pub(crate) fn by(self, guest: &Guest) -> Self {
        self.field("authorization", format!("Bearer {}", guest.token))
    }

    pub(crate) fn message(&self) -> CheckRequest {
        let pseudo = [
            (":method", self.method.as_bytes()),
            (":authority", self.authority.as_bytes()),
            (":path", self.path.as_bytes()),
        ];
        let fields = self.fields.iter().map(|(name, value)| (&**name, &**value));
        let headers = pseudo.into_iter().filter(|(_, value)| !value.is_empty());
        let headers = headers.chain(fields).map(|(name, value)| HeaderValue {
            key: name.to_owned(),
            raw_value: value.to_vec(),
            ..HeaderValue::default()
        });
        let http = HttpRequest {
            method: self.method.clone(),
            host: self.authority.clone(),
            path: self.path.clone(),
            protocol: self.protocol.to_owned(),
            header_map: Some(HeaderMap {
                headers: headers.collect(),
            }),
            ..HttpRequest::default()
        };
        CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(peer(CLIENT.parse().expect("an address"))),
                destination: Some(peer(self.dialled)),
                request: Some(Request {
                    http: Some(http),
                    ..Request::default()
                }),
                tls_session: Some(TlsSession {
                    sni: self.server_name.clone(),
                }),
                metadata_context: Some(self.claims()),
                ..AttributeContext::default()
            }),
        }
    }

    /// What jwt_authn leaves.
    fn claims(&self) -> Metadata {
        let structure = |fields: BTreeMap<String, ProtoValue>| Struct { fields };
        let value = |kind| ProtoValue { kind: Some(kind) };
        let tokens = self.verified.iter().map(|(place, session)| {
            let claims = [
                (
                    "iss".to_owned(),
                    value(Kind::StringValue("outgate".to_owned())),
                ),
                ("sub".to_owned(), value(Kind::StringValue(session.clone()))),
            ];
            let token = value(Kind::StructValue(structure(claims.into())));
            ((*place).to_owned(), token)
        });
        let namespace = "envoy.filters.http.jwt_authn".to_owned();
        Metadata {
            filter_metadata: [(namespace, structure(tokens.collect()))].into(),
            ..Metadata::default()
        }
    }
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

pub(crate) fn address(socket: SocketAddr) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: socket.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(socket.port().into())),
            ..SocketAddress::default()
        })),
    }
}

fn peer(socket: SocketAddr) -> Peer {
    Peer {
        address: Some(address(socket)),
        ..Peer::default()
    }
}

/// The metadata that ext_authz left of this request.
pub(crate) fn metadata(id: &str) -> Metadata {
    let value = ProtoValue {
        kind: Some(Kind::StringValue(id.to_owned())),
    };
    let fields = Struct {
        fields: [("request".to_owned(), value)].into(),
    };
    Metadata {
        filter_metadata: [(NAMESPACE.to_owned(), fields)].into(),
        ..Metadata::default()
    }
}

/// What is allowed.
#[derive(Debug, Default)]
pub(crate) struct Allowed {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) removed: Vec<String>,
    /// `name: value`, behind `+` where it is appended.
    pub(crate) set: Vec<String>,
}

impl Allowed {
    pub(crate) fn id(&self) -> &str {
        &self.metadata["request"]
    }
}

/// The request ids of what was let through, by the ids that Envoy carries.
static RECORDED: std::sync::Mutex<BTreeMap<String, String>> =
    std::sync::Mutex::new(BTreeMap::new());

/// The id that the record of this exchange has: what Envoy carries is another one, and no guest is shown it.
pub(crate) fn recorded(id: &str) -> String {
    let known = RECORDED.lock().expect("no panic holds it");
    known.get(id).map_or_else(|| id.to_owned(), Clone::clone)
}

/// How a request is refused, at whichever question.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: Option<i32>,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Refused {
    pub(crate) fn field(&self, name: &str) -> Vec<&str> {
        let found = self.fields.iter().filter(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn reason(&self) -> &str {
        let reasons = self.field("x-deny-reason");
        assert_eq!(reasons.len(), 1, "{self:?}");
        assert_eq!(self.body["error"]["code"], reasons[0], "{self:?}");
        reasons[0]
    }

    pub(crate) fn id(&self) -> &str {
        let ids = self.field("x-request-id");
        assert_eq!(ids.len(), 1, "{self:?}");
        assert_eq!(self.body["error"]["request_id"], ids[0], "{self:?}");
        ids[0]
    }

    /// Everything that a guest is told of a refusal.
    #[track_caller]
    pub(crate) fn is(&self, code: DenyCode, status: i32, context: &str) {
        assert_eq!(self.reason(), code.as_str(), "{context}: {self:?}");
        if let Some(known) = self.status {
            assert_eq!(known, status, "{context}: {self:?}");
        }
        assert_eq!(self.body["error"]["message"], code.message(), "{context}");
        assert_eq!(self.body["error"]["remedy"], code.remedy(), "{context}");
        assert_eq!(
            self.field("content-type"),
            ["application/json"],
            "{context}"
        );
        assert_eq!(self.field("cache-control"), ["no-store"], "{context}");
        // Envoy's own.
        for own in ["content-length", "connection", "transfer-encoding"] {
            assert!(self.field(own).is_empty(), "{context}: {own}");
        }
    }
}

impl World {
    /// Asks ext_authz.
    pub(crate) async fn ask(&self, ask: &Ask) -> Result<Allowed, Refused> {
        read_check(self.try_ask(ask).await.expect("a verdict"))
    }

    pub(crate) async fn try_ask(&self, ask: &Ask) -> Result<CheckResponse, Status> {
        let mut request = tonic::Request::new(ask.message());
        if let Some(leg) = ask.leg {
            request
                .metadata_mut()
                .insert("leg", leg.parse().expect("a word"));
        }
        let mut client = AuthorizationClient::with_origin(self.link.clone(), Link::origin());
        client.check(request).await.map(|it| it.into_inner())
    }

    /// Opens a tunnel, and gives its id.
    pub(crate) async fn tunnel(&self, target: &str, guest: Option<&Guest>) -> String {
        let ask = Ask::connect(target);
        let ask = match guest {
            Some(guest) => ask.proxied_by(guest),
            None => ask,
        };
        self.ask(&ask).await.expect("a tunnel").id().to_owned()
    }

    /// Asks the rate-limit service: gives what is attached.
    pub(crate) async fn limit(&self, id: &str) -> Result<String, Refused> {
        self.limit_of(&[("request", id)]).await
    }

    pub(crate) async fn limit_of(&self, entries: &[(&str, &str)]) -> Result<String, Refused> {
        let entries = entries
            .iter()
            .map(|(key, value)| rate_limit_descriptor::Entry {
                key: (*key).to_owned(),
                value: (*value).to_owned(),
            });
        let request = RateLimitRequest {
            domain: "outgate".to_owned(),
            descriptors: vec![RateLimitDescriptor {
                entries: entries.collect(),
                ..RateLimitDescriptor::default()
            }],
            ..RateLimitRequest::default()
        };
        let mut client = RateLimitServiceClient::with_origin(self.link.clone(), Link::origin());
        let answer = client.should_rate_limit(request).await.expect("a verdict");
        let answer = answer.into_inner();
        let pairs = |fields: &[HeaderValue]| -> Vec<(String, String)> {
            let pairs = fields.iter().map(|it| (it.key.clone(), it.value.clone()));
            pairs.collect()
        };
        if answer.overall_code == i32::from(Code::Ok) {
            assert!(answer.response_headers_to_add.is_empty() && answer.raw_body.is_empty());
            let mut added = pairs(&answer.request_headers_to_add);
            assert_eq!(added.len(), 1, "{added:?}");
            let (name, value) = added.remove(0);
            assert_eq!(name, "x-outgate-inject");
            return Ok(value);
        }
        assert_eq!(answer.overall_code, i32::from(Code::OverLimit));
        assert!(
            answer.request_headers_to_add.is_empty(),
            "something is added"
        );
        Err(Refused {
            status: None,
            fields: pairs(&answer.response_headers_to_add),
            body: serde_json::from_slice(&answer.raw_body).expect("JSON"),
        })
    }

    /// Takes a request through both questions.
    pub(crate) async fn admit(&self, ask: &Ask) -> (String, String) {
        let allowed = self.ask(ask).await.expect("allowed");
        let attached = self.limit(allowed.id()).await.expect("admitted");
        (allowed.id().to_owned(), attached)
    }

    /// Opens a stream of the external processor, on which nothing was said yet.
    pub(crate) async fn process(&self, role: Option<&'static str>) -> Result<Process, Status> {
        let (sender, receiver) = mpsc::channel(16);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut request = tonic::Request::new(stream);
        if let Some(role) = role {
            request
                .metadata_mut()
                .insert("role", role.parse().expect("a word"));
        }
        let mut client = ExternalProcessorClient::with_origin(self.link.clone(), Link::origin());
        let answers = client.process(request).await?.into_inner();
        Ok(Process {
            sender,
            answers,
            cut_for: None,
        })
    }

    /// Holds an exchange, and waits until it is held.
    pub(crate) async fn hold(&self, id: &str) -> Process {
        let mut hold = self.process(Some("hold")).await.expect("a stream");
        hold.say(Some(id), head()).await;
        let answer = hold.next().await.expect("an answer");
        assert!(matches!(
            answer,
            processing_response::Response::RequestHeaders(_)
        ));
        hold
    }

    /// Writes to the access log, and waits until it is read.
    pub(crate) async fn log(&self, name: &str, entries: Vec<HttpAccessLogEntry>) {
        let entries = LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: entries });
        self.log_messages(vec![log_message(name, Some(entries))])
            .await;
    }

    pub(crate) async fn log_tcp(&self, name: &str, entries: Vec<TcpAccessLogEntry>) {
        let entries = LogEntries::TcpLogs(TcpAccessLogEntries { log_entry: entries });
        self.log_messages(vec![log_message(name, Some(entries))])
            .await;
    }

    pub(crate) async fn log_messages(&self, messages: Vec<StreamAccessLogsMessage>) {
        let mut client = AccessLogServiceClient::with_origin(self.link.clone(), Link::origin());
        let stream = tokio_stream::iter(messages);
        client.stream_access_logs(stream).await.expect("it is read");
    }
}

pub(crate) fn log_message(name: &str, entries: Option<LogEntries>) -> StreamAccessLogsMessage {
    StreamAccessLogsMessage {
        identifier: Some(Identifier {
            log_name: name.to_owned(),
            ..Identifier::default()
        }),
        log_entries: entries,
    }
}

/// A request's head, of which the control plane needs nothing.
pub(crate) fn head() -> processing_request::Request {
    processing_request::Request::RequestHeaders(HttpHeaders::default())
}

/// The head of an upstream's answer.
pub(crate) fn answer_head(fields: &[(&str, &str)]) -> HttpHeaders {
    let fields = fields.iter().map(|(name, value)| HeaderValue {
        key: (*name).to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    });
    HttpHeaders {
        headers: Some(HeaderMap {
            headers: fields.collect(),
        }),
        ..HttpHeaders::default()
    }
}

/// One stream of the external processor.
pub(crate) struct Process {
    sender: mpsc::Sender<ProcessingRequest>,
    answers: Streaming<ProcessingResponse>,
    /// The reason that it was cut for.
    pub(crate) cut_for: Option<String>,
}

impl Process {
    pub(crate) async fn say(&self, id: Option<&str>, what: processing_request::Request) {
        let request = ProcessingRequest {
            metadata_context: id.map(metadata),
            request: Some(what),
            ..ProcessingRequest::default()
        };
        assert!(self.sender.send(request).await.is_ok(), "a stream");
    }

    /// The next answer; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<processing_response::Response> {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await;
        let answer = answer.expect("nothing came").ok()??;
        answer.response
    }

    /// How it is cut, and how soon.
    pub(crate) async fn cut(&mut self) -> (String, std::time::Duration) {
        let since = std::time::Instant::now();
        let Some(processing_response::Response::ImmediateResponse(cut)) = self.next().await else {
            panic!("it is not cut");
        };
        let body: Value = serde_json::from_slice(&cut.body).expect("JSON");
        let code = body["error"]["code"].as_str().expect("a code");
        let known = DenyCode::ALL.iter().find(|known| known.as_str() == code);
        let status = known.map(|known| i32::from(known.status()));
        assert_eq!(cut.status.map(|status| status.code), status, "{code}");
        self.cut_for = Some(code.to_owned());
        (cut.details, since.elapsed())
    }

    /// Nothing is said for a while.
    pub(crate) async fn is_quiet(&mut self) {
        let quiet = std::time::Duration::from_millis(200);
        let came = tokio::time::timeout(quiet, self.answers.message()).await;
        assert!(came.is_err(), "something came");
    }

    /// Envoy is done with it: waits until the other side is too.
    pub(crate) async fn finish(self) {
        let Self {
            sender,
            mut answers,
            ..
        } = self;
        drop(sender);
        while let Ok(Some(_)) = answers.message().await {}
    }
}

fn read_check(answer: CheckResponse) -> Result<Allowed, Refused> {
    let status = answer.status.expect("a status").code;
    let text = |field: &HeaderValueOption| {
        let header = field.header.as_ref().expect("a field");
        (header.key.clone(), header.value.clone())
    };
    match answer.http_response.expect("a verdict") {
        HttpResponse::OkResponse(ok) => {
            assert_eq!(status, 0);
            let fields = answer.dynamic_metadata.expect("metadata").fields;
            let metadata = fields.into_iter().map(|(key, value)| match value.kind {
                Some(Kind::StringValue(text)) => (key, text),
                _ => panic!("{key} is no text"),
            });
            let set = ok.headers.iter().map(|field| {
                let (name, value) = text(field);
                let appends =
                    field.append_action == i32::from(HeaderAppendAction::AppendIfExistsOrAdd);
                format!("{}{name}: {value}", if appends { "+" } else { "" })
            });
            let set = set.collect();
            let mut removed = ok.headers_to_remove;
            removed.sort();
            let metadata: BTreeMap<String, String> = metadata.collect();
            RECORDED
                .lock()
                .expect("no panic holds it")
                .insert(metadata["request"].clone(), metadata["record"].clone());
            Ok(Allowed {
                metadata,
                removed,
                set,
            })
        }
        HttpResponse::DeniedResponse(denied) => {
            assert_eq!(status, 7, "a refusal with an OK status is let through");
            assert!(answer.dynamic_metadata.is_none());
            Err(Refused {
                status: denied.status.map(|status| status.code),
                fields: denied.headers.iter().map(text).collect(),
                body: serde_json::from_str(&denied.body).expect("JSON"),
            })
        }
        HttpResponse::ErrorResponse(_) => panic!("an error is no verdict"),
    }
}

/// An entry of the access log of a request that has ended well.
pub(crate) fn entry(id: Option<&str>) -> HttpAccessLogEntry {
    HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            access_log_type: AccessLogType::DownstreamEnd.into(),
            metadata: id.map(metadata),
            duration: Some(prost_types::Duration {
                seconds: 1,
                nanos: 500_000_000,
            }),
            ..AccessLogCommon::default()
        }),
        request: Some(HttpRequestProperties {
            authority: "as.written".to_owned(),
            path: "/p?q=secret".to_owned(),
            request_method: 1,
            request_body_bytes: 100,
            upstream_header_bytes_sent: 20,
            ..HttpRequestProperties::default()
        }),
        response: Some(HttpResponseProperties {
            response_code: Some(200),
            response_body_bytes: 3000,
            response_code_details: "via_upstream".to_owned(),
            ..HttpResponseProperties::default()
        }),
        ..HttpAccessLogEntry::default()
    }
}

/// The same, changed in what is common to all entries and in what is said of the answer.
pub(crate) fn entry_with(
    id: Option<&str>,
    change: impl FnOnce(&mut AccessLogCommon, &mut HttpResponseProperties),
) -> HttpAccessLogEntry {
    let mut entry = entry(id);
    change(
        entry.common_properties.as_mut().expect("there"),
        entry.response.as_mut().expect("there"),
    );
    entry
}

/// An entry of a connection inside a tunnel that has ended.
pub(crate) fn tcp_entry(
    tunnel: &str,
    change: impl FnOnce(&mut AccessLogCommon),
) -> TcpAccessLogEntry {
    #[derive(prost::Message)]
    struct Wrapped {
        #[prost(string, tag = "1")]
        value: String,
    }
    let state = prost_types::Any {
        type_url: "type.googleapis.com/google.protobuf.StringValue".to_owned(),
        value: prost::Message::encode_to_vec(&Wrapped {
            value: tunnel.to_owned(),
        }),
    };
    let mut common = AccessLogCommon {
        access_log_type: AccessLogType::TcpConnectionEnd.into(),
        filter_state_objects: [("outgate.connection".to_owned(), state)].into(),
        ..AccessLogCommon::default()
    };
    change(&mut common);
    TcpAccessLogEntry {
        common_properties: Some(common),
        ..TcpAccessLogEntry::default()
    }
}
