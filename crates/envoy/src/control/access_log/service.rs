//! The gRPC service of the access log. As generated, but for the messages that it decodes: [`super::entry`], whose parts
//! stay in the bytes that they came in.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use bytes::Buf;
use outgate_envoy_proto::{
    ProstCodec,
    envoy::service::accesslog::v3::{
        StreamAccessLogsResponse, access_log_service_server::SERVICE_NAME,
    },
};
use prost::Message;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder},
    codegen::{BoxFuture, Service},
    server::{ClientStreamingService, Grpc, NamedService},
};

use super::entry::LogMessage;
use crate::control::{ControlPlane, MAX_MESSAGE};

/// Serves `envoy.service.accesslog.v3.AccessLogService`.
#[derive(Clone)]
pub(crate) struct AccessLogService(pub(crate) ControlPlane);

impl NamedService for AccessLogService {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for AccessLogService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let is_known = request.uri().path().ends_with("/StreamAccessLogs");
        let method = StreamAccessLogs(self.0.clone());
        Box::pin(async move {
            if !is_known {
                return Ok(Status::unimplemented("there is no such method here").into_http());
            }
            let mut grpc = Grpc::new(Wire).max_decoding_message_size(MAX_MESSAGE);
            Ok(grpc.client_streaming(method, request).await)
        })
    }
}

type Generated = ProstCodec<StreamAccessLogsResponse, LogMessage>;

struct Wire;

impl Codec for Wire {
    type Encode = StreamAccessLogsResponse;
    type Decode = LogMessage;
    type Encoder = <Generated as Codec>::Encoder;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        Generated::default().encoder()
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Decoder for Wire {
    type Item = LogMessage;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<LogMessage>, Status> {
        // Taken out whole: to take part after part out of a buffer that grows costs more than to read them.
        let message = message.copy_to_bytes(message.remaining());
        LogMessage::decode(message)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

struct StreamAccessLogs(ControlPlane);

impl ClientStreamingService<LogMessage> for StreamAccessLogs {
    type Response = StreamAccessLogsResponse;
    type Future = BoxFuture<Response<StreamAccessLogsResponse>, Status>;

    fn call(&mut self, request: Request<Streaming<LogMessage>>) -> Self::Future {
        let control = self.0.clone();
        Box::pin(async move { control.read_log(request).await })
    }
}
