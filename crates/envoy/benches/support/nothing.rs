//! The same services with nothing behind them: what is left of a call's cost when nobody decides. They read every message
//! whole, as any server has to, and answer what the rendered configuration needs to let a request through.

use std::{
    convert::Infallible,
    future::ready,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::Full;
use outgate_envoy_proto::envoy::service::{
    accesslog::v3::{
        StreamAccessLogsMessage, StreamAccessLogsResponse,
        access_log_service_server::{AccessLogService, AccessLogServiceServer},
    },
    auth::v3::{CheckRequest, CheckResponse},
    ext_proc::v3::{
        HeadersResponse, ProcessingRequest, ProcessingResponse, TrailersResponse,
        external_processor_server::{ExternalProcessor, ExternalProcessorServer},
        processing_request, processing_response,
    },
    ratelimit::v3::{RateLimitRequest, RateLimitResponse},
};
use outgate_xds::{Call, Services};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, Service},
    server::NamedService,
};

use super::{
    caller::unframed,
    messages::{CHECK, LIMIT},
};

/// What it answers.
#[derive(Clone)]
pub(crate) struct Nothing {
    /// To a `CONNECT`.
    pub(crate) tunnel: Arc<CheckResponse>,
    /// To a request.
    pub(crate) request: Arc<CheckResponse>,
    /// To the rate limit's question.
    pub(crate) limit: Arc<RateLimitResponse>,
}

impl Nothing {
    /// What was answered once, message by message as it went over the wire, in three files.
    pub(crate) fn read(folder: &Path) -> Self {
        let read = |name: &str| Bytes::from(std::fs::read(folder.join(name)).unwrap());
        Self {
            tunnel: Arc::new(unframed(&read("tunnel"))),
            request: Arc::new(unframed(&read("request"))),
            limit: Arc::new(unframed(&read("limit"))),
        }
    }

    /// Offers it, and these keys.
    pub(crate) fn offer(&self, services: Services, keys: Bytes) -> Services {
        let (checking, limit) = (self.clone(), Arc::clone(&self.limit));
        services
            .add(KeysService(keys))
            .method(CHECK, move |call| ready(Ok(checking.check(&call))))
            .method(LIMIT, move |_: Call<RateLimitRequest>| {
                ready(Ok(RateLimitResponse::clone(&limit)))
            })
            .add(AccessLogServiceServer::new(self.clone()))
            .add(ExternalProcessorServer::new(self.clone()))
    }
}

/// The key set, which Envoy asks for every other second.
#[derive(Clone)]
struct KeysService(Bytes);

impl NamedService for KeysService {
    const NAME: &'static str = ".well-known";
}

impl Service<http::Request<Body>> for KeysService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let answer = http::Response::new(Body::new(Full::new(self.0.clone())));
        Box::pin(std::future::ready(Ok(answer)))
    }
}

impl Nothing {
    fn check(&self, call: &Call<CheckRequest>) -> CheckResponse {
        let leg = call.metadata.get("leg").and_then(|leg| leg.to_str().ok());
        let answer = match leg {
            Some("connect" | "transparent") => &self.tunnel,
            _ => &self.request,
        };
        CheckResponse::clone(answer)
    }
}

#[tonic::async_trait]
impl AccessLogService for Nothing {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let mut messages = request.into_inner();
        while messages.message().await?.is_some() {}
        Ok(Response::new(StreamAccessLogsResponse::default()))
    }
}

#[tonic::async_trait]
impl ExternalProcessor for Nothing {
    type ProcessStream = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

    /// Lets heads and trailers pass, and keeps the stream for as long as Envoy does.
    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        use processing_request::Request as Asked;
        use processing_response::Response as Answer;
        let mut messages = request.into_inner();
        let (answers, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                let answer = match message.request {
                    Some(Asked::RequestHeaders(_)) => {
                        Answer::RequestHeaders(HeadersResponse::default())
                    }
                    Some(Asked::ResponseHeaders(_)) => {
                        Answer::ResponseHeaders(HeadersResponse::default())
                    }
                    Some(Asked::ResponseTrailers(_)) => {
                        Answer::ResponseTrailers(TrailersResponse::default())
                    }
                    _ => continue,
                };
                let answer = ProcessingResponse {
                    response: Some(answer),
                    ..ProcessingResponse::default()
                };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}
