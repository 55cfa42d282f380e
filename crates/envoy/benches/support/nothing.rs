//! The same services with nothing behind them: what is left of a call's cost when nobody decides. They read every message
//! whole, as any server has to, and answer what the rendered configuration needs to let a request through.

use std::{
    convert::Infallible,
    future::ready,
    path::{Path, PathBuf},
    pin::Pin,
    process::Command,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
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
use outgate_xds::{Call, Door, Services};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{BoxFuture, Service},
    server::NamedService,
};

use super::{
    caller::{Caller, framed, unframed},
    edge::Running,
    messages::{self, CHECK, KEYS, LIMIT},
};

/// The word that makes a benchmark's own program this server.
const ROLE: &str = "decide-nothing";
/// Where it is reached, in its folder.
const SOCKET: &str = "nothing.sock";
const START: Duration = Duration::from_secs(10);

/// Whether this process was started by [`start`].
pub(crate) fn is_asked_for() -> bool {
    std::env::args().nth(1).is_some_and(|word| word == ROLE)
}

/// Serves until it is killed, on one thread.
pub(crate) fn decide() {
    let folder = PathBuf::from(std::env::args_os().nth(2).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let services = Nothing::read(&folder).offer(Services::new());
        let door = Door::unix(&folder.join(SOCKET)).unwrap();
        door.serve(services, CancellationToken::new()).await;
    });
}

/// Starts a process that answers on one processor what was recorded in a folder; where it is reached.
pub(crate) fn start(folder: &Path, core: usize) -> (Running, PathBuf) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(ROLE).arg(folder);
    let running = Running::start(command, core);
    let socket = folder.join(SOCKET);
    let begun = Instant::now();
    while !socket.exists() {
        assert!(begun.elapsed() < START, "it does not serve");
        std::thread::sleep(Duration::from_millis(10));
    }
    (running, socket)
}

/// Asks a gateway once, and keeps its answers in a folder.
pub(crate) async fn record(socket: &Path, token: &str, port: u16, folder: &Path) {
    let caller = Caller::connect(socket).await;
    let question = framed(&messages::connect(token, port));
    let tunnel = caller.call(CHECK, "connect", question).await;
    let connection = &messages::decision(&unframed(&tunnel))["connection"];
    let question = framed(&messages::bumped(token, connection, port));
    let request = caller.call(CHECK, "bumped", question).await;
    let question = framed(&messages::limit(&messages::decision(&unframed(&request))));
    let limit = caller.call(LIMIT, "", question).await;
    let keys = caller.get(KEYS).await;
    for (name, answer) in [
        ("tunnel", tunnel),
        ("request", request),
        ("limit", limit),
        ("keys", keys),
    ] {
        std::fs::write(folder.join(name), answer).unwrap();
    }
}

/// What it answers.
#[derive(Clone)]
struct Nothing {
    /// To a `CONNECT`.
    tunnel: Arc<CheckResponse>,
    /// To a request.
    request: Arc<CheckResponse>,
    /// To the rate limit's question.
    limit: Arc<RateLimitResponse>,
    keys: Bytes,
}

impl Nothing {
    /// What was answered once, message by message as it went over the wire, a file each.
    fn read(folder: &Path) -> Self {
        let read = |name: &str| Bytes::from(std::fs::read(folder.join(name)).unwrap());
        Self {
            tunnel: Arc::new(unframed(&read("tunnel"))),
            request: Arc::new(unframed(&read("request"))),
            limit: Arc::new(unframed(&read("limit"))),
            keys: read("keys"),
        }
    }

    /// Offers it.
    fn offer(&self, services: Services) -> Services {
        let (checking, limit) = (self.clone(), Arc::clone(&self.limit));
        services
            .add(KeysService(self.keys.clone()))
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
