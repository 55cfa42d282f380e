//! A source, a door and clients of it, on real sockets with real certificates.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a harness that cannot do its part fails the test it serves"
)]

pub mod pki;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::Uri;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outgate_envoy_proto::{
    envoy::{
        config::core::v3::Node as NodeMessage,
        service::{
            discovery::v3::{
                DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
                aggregated_discovery_service_client::AggregatedDiscoveryServiceClient as Ads,
            },
            secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient as Sds,
        },
    },
    google::rpc,
};
use outgate_xds::{
    Body, BoxFuture, Change, Client, Door, Lookup, Node, Resource, Sent, Services, Source,
    XdsService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    sync::{Notify, broadcast, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, codegen::Service};

pub use outgate_xds::type_urls::{CLUSTER, LISTENER, ROUTE, SECRET};

/// How long a test waits for what is to come; generous, since the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long a test waits for what is not to come.
pub const QUIET: Duration = Duration::from_millis(250);

/// Knows what it was told.
pub struct TestSource {
    whole: Mutex<BTreeMap<&'static str, BTreeMap<String, String>>>,
    named: Mutex<HashMap<String, String>>,
    changes: broadcast::Sender<Change>,
    events: Mutex<Vec<String>>,
    /// Look-ups: since the start, at this moment, and the most at once.
    pub lookups: AtomicUsize,
    now: AtomicUsize,
    pub most: AtomicUsize,
    pub held: AtomicBool,
    pub let_go: Notify,
    pub later: AtomicBool,
    pub body_bytes: AtomicUsize,
    pub ttl: Mutex<Option<Duration>>,
}

impl TestSource {
    pub fn new() -> Arc<Self> {
        let whole = [CLUSTER, LISTENER, ROUTE].map(|kind| (kind, BTreeMap::new()));
        Arc::new(Self {
            whole: Mutex::new(whole.into()),
            named: Mutex::default(),
            changes: broadcast::Sender::new(4096),
            events: Mutex::default(),
            lookups: AtomicUsize::new(0),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            held: AtomicBool::new(false),
            let_go: Notify::new(),
            later: AtomicBool::new(false),
            body_bytes: AtomicUsize::new(0),
            ttl: Mutex::new(None),
        })
    }

    /// Without a word to those who are subscribed.
    pub fn put(&self, type_url: &'static str, name: &str, version: &str) {
        let (name, version) = (name.to_owned(), version.to_owned());
        match type_url {
            SECRET => self.named.lock().unwrap().insert(name, version),
            _ => self
                .whole
                .lock()
                .unwrap()
                .get_mut(type_url)
                .unwrap()
                .insert(name, version),
        };
    }

    pub fn take(&self, type_url: &'static str, name: &str) {
        match type_url {
            SECRET => self.named.lock().unwrap().remove(name),
            _ => self
                .whole
                .lock()
                .unwrap()
                .get_mut(type_url)
                .unwrap()
                .remove(name),
        };
    }

    pub fn say(&self, change: Change) {
        let _ = self.changes.send(change);
    }

    pub fn set(&self, type_url: &'static str, name: &str, version: &str) {
        self.put(type_url, name, version);
        self.say(Change::One(type_url, name.into()));
    }

    pub fn remove(&self, type_url: &'static str, name: &str) {
        self.take(type_url, name);
        self.say(Change::One(type_url, name.into()));
    }

    pub fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    pub fn let_go(&self) {
        self.held.store(false, Ordering::SeqCst);
        self.let_go.notify_waiters();
    }

    pub fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }

    pub fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }

    fn event(&self, event: String) {
        self.events.lock().unwrap().push(event);
    }

    fn resource(&self, name: &str, version: &str) -> Resource {
        let bytes = self.body_bytes.load(Ordering::SeqCst);
        let value = format!("{name}@{version}");
        // Empty where the version says so: revoked.
        let body = match (version, bytes) {
            ("empty", _) => Body::generic_secret(name, b""),
            ("malformed", _) => Body::from_encoded(vec![0xff; 3]),
            ("certificate", _) => Body::certificate(name, "chain", "key"),
            (_, bytes) if bytes > value.len() => Body::generic_secret(name, &vec![b'x'; bytes]),
            _ => Body::generic_secret(name, value.as_bytes()),
        };
        let resource = Resource::new(name, version, body);
        match *self.ttl.lock().unwrap() {
            Some(ttl) => resource.with_ttl(ttl),
            None => resource,
        }
    }
}

impl Source for TestSource {
    fn all(&self, _client: &Client, type_url: &str) -> Option<Vec<Resource>> {
        let whole = self.whole.lock().unwrap();
        let all = whole.get(type_url)?.iter();
        Some(
            all.map(|(name, version)| self.resource(name, version))
                .collect(),
        )
    }

    fn one<'a>(
        &'a self,
        _client: &'a Client,
        type_url: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Lookup> {
        Box::pin(async move {
            self.lookups.fetch_add(1, Ordering::SeqCst);
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            let let_go = self.let_go.notified();
            if self.held.load(Ordering::SeqCst) {
                let_go.await;
            }
            self.now.fetch_sub(1, Ordering::SeqCst);
            if self.later.load(Ordering::SeqCst) {
                return Lookup::Later;
            }
            let version = self.named.lock().unwrap().get(name).cloned();
            match version {
                Some(version) if type_url == SECRET => Lookup::Found(self.resource(name, &version)),
                _ => Lookup::Absent,
            }
        })
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    fn connected(&self, node: &Node<'_>) {
        self.event(format!("connected {} {}", node.client.name, node.id));
    }

    fn gone(&self, node: &Node<'_>) {
        self.event(format!("gone {} {}", node.client.name, node.id));
    }

    fn acked(&self, _node: &Node<'_>, type_url: &str, sent: &[Sent]) {
        self.event(format!("ack {} {}", short(type_url), list(sent)));
    }

    fn nacked(&self, node: &Node<'_>, type_url: &str, sent: &[Sent], text: &str) {
        let (kind, sent) = (short(type_url), list(sent));
        self.event(format!("nack {} {kind} {sent}: {text}", node.id));
    }
}

pub fn short(type_url: &str) -> &str {
    type_url.rsplit('.').next().unwrap()
}

fn list(sent: &[Sent]) -> String {
    let mut sent: Vec<String> = sent
        .iter()
        .map(|sent| match &sent.version {
            Some(version) => format!("{}@{version}", sent.name),
            None => format!("-{}", sent.name),
        })
        .collect();
    sent.sort();
    sent.join(",")
}

/// A door on a Unix socket.
pub struct Served {
    pub source: Arc<TestSource>,
    pub service: XdsService,
    pub path: PathBuf,
    pub stop: CancellationToken,
    pub task: JoinHandle<()>,
    folder: tempfile::TempDir,
}

pub fn serve() -> Served {
    let source = TestSource::new();
    let service = XdsService::new(source.clone());
    serve_this(source, service)
}

pub fn serve_this(source: Arc<TestSource>, service: XdsService) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("xds.sock");
    let (stop, task) = open(&path, &service);
    Served {
        source,
        service,
        path,
        stop,
        task,
        folder,
    }
}

fn open(path: &Path, service: &XdsService) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let door = Door::unix(path).unwrap();
    let task = tokio::spawn(door.serve(Services::new().xds(service), stop.clone()));
    (stop, task)
}

impl Served {
    pub async fn close(&mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap();
    }

    pub fn reopen(&mut self) {
        (self.stop, self.task) = open(&self.path, &self.service);
    }

    pub async fn link(&self) -> Link {
        Link::over(UnixStream::connect(&self.path).await.unwrap()).await
    }

    pub async fn ads(&self) -> DeltaStream {
        DeltaStream::ads(self.link().await).await
    }

    pub async fn sds(&self) -> DeltaStream {
        DeltaStream::sds(self.link().await).await
    }

    pub async fn world(&self) -> WorldStream {
        WorldStream::ads(self.link().await).await
    }
}

pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[derive(Clone)]
pub struct Link(http2::SendRequest<tonic::body::Body>);

impl Link {
    pub async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        Self::try_over(stream).await.unwrap()
    }

    pub async fn try_over<S>(stream: S) -> Result<Self, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        Ok(Self(requests))
    }
}

impl Service<http::Request<tonic::body::Body>> for Link {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

pub fn origin() -> Uri {
    Uri::from_static("http://localhost")
}

pub fn queue<T: Send + 'static>() -> (
    mpsc::Sender<T>,
    impl futures_util::Stream<Item = T> + Send + 'static,
) {
    let (sender, receiver) = mpsc::channel(64);
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
        Some((receiver.recv().await?, receiver))
    });
    (sender, stream)
}

/// One side of a stream, as a test speaks it.
pub struct Speaking<Request, Response> {
    pub requests: mpsc::Sender<Request>,
    pub responses: Streaming<Response>,
}

pub type DeltaStream = Speaking<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;
pub type WorldStream = Speaking<DiscoveryRequest, DiscoveryResponse>;

impl<Request, Response> Speaking<Request, Response> {
    pub async fn send(&self, request: Request) {
        self.requests.send(request).await.ok().unwrap();
    }

    pub async fn next(&mut self) -> Response {
        self.outcome()
            .await
            .ok()
            .unwrap()
            .expect("the stream has ended")
    }

    pub async fn outcome(&mut self) -> Result<Option<Response>, Status> {
        tokio::time::timeout(PATIENCE, self.responses.message())
            .await
            .expect("nothing came")
    }

    pub async fn fault(&mut self) -> Status {
        self.outcome().await.err().expect("it is not refused")
    }

    pub async fn is_quiet(&mut self) {
        let came = tokio::time::timeout(QUIET, self.responses.message()).await;
        assert!(came.is_err(), "something came");
    }
}

impl DeltaStream {
    pub async fn ads(link: Link) -> Self {
        let (requests, stream) = queue();
        let responses = Ads::with_origin(link, origin())
            .delta_aggregated_resources(stream)
            .await;
        Self {
            requests,
            responses: responses.unwrap().into_inner(),
        }
    }

    pub async fn sds(link: Link) -> Self {
        let (requests, stream) = queue();
        let responses = Sds::with_origin(link, origin()).delta_secrets(stream).await;
        Self {
            requests,
            responses: responses.unwrap().into_inner(),
        }
    }

    pub async fn subscribe(&self, type_url: &str, names: &[&str]) {
        self.send(delta(type_url, names)).await;
    }

    pub async fn unsubscribe(&self, type_url: &str, names: &[&str]) {
        self.send(DeltaDiscoveryRequest {
            resource_names_unsubscribe: owned(names),
            ..delta(type_url, &[])
        })
        .await;
    }

    pub async fn ack(&self, response: &DeltaDiscoveryResponse) {
        self.send(DeltaDiscoveryRequest {
            response_nonce: response.nonce.clone(),
            ..delta(&response.type_url, &[])
        })
        .await;
    }

    pub async fn nack(&self, response: &DeltaDiscoveryResponse, text: &str) {
        self.send(DeltaDiscoveryRequest {
            response_nonce: response.nonce.clone(),
            error_detail: Some(because(text)),
            ..delta(&response.type_url, &[])
        })
        .await;
    }

    /// All that was said has been read: what was said last is answered.
    pub async fn is_caught_up_with(&mut self) {
        self.subscribe(SECRET, &["no such secret"]).await;
        assert_eq!(self.told().await, "Secret -no such secret");
    }

    /// The next response, accepted; as `Type a@1 b@2 -c`.
    pub async fn told(&mut self) -> String {
        let response = self.next().await;
        self.ack(&response).await;
        text(&response)
    }
}

impl WorldStream {
    pub async fn ads(link: Link) -> Self {
        let (requests, stream) = queue();
        let responses = Ads::with_origin(link, origin())
            .stream_aggregated_resources(stream)
            .await;
        Self {
            requests,
            responses: responses.unwrap().into_inner(),
        }
    }

    pub async fn ack(&self, response: &DiscoveryResponse, names: &[&str]) {
        self.send(DiscoveryRequest {
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            ..world(&response.type_url, names)
        })
        .await;
    }

    pub async fn nack(&self, response: &DiscoveryResponse, names: &[&str], text: &str) {
        self.send(DiscoveryRequest {
            response_nonce: response.nonce.clone(),
            error_detail: Some(because(text)),
            ..world(&response.type_url, names)
        })
        .await;
    }
}

pub fn delta(type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(node()),
        type_url: type_url.to_owned(),
        resource_names_subscribe: owned(names),
        ..DeltaDiscoveryRequest::default()
    }
}

pub fn world(type_url: &str, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(node()),
        type_url: type_url.to_owned(),
        resource_names: owned(names),
        ..DiscoveryRequest::default()
    }
}

fn node() -> NodeMessage {
    NodeMessage {
        id: "envoy-1".to_owned(),
        ..NodeMessage::default()
    }
}

fn because(text: &str) -> rpc::Status {
    rpc::Status {
        code: 3,
        message: text.to_owned(),
        ..rpc::Status::default()
    }
}

pub fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub fn text(response: &DeltaDiscoveryResponse) -> String {
    let there = response
        .resources
        .iter()
        .map(|r| format!("{}@{}", r.name, r.version));
    let gone = response
        .removed_resources
        .iter()
        .map(|name| format!("-{name}"));
    let mut all: Vec<String> = there.chain(gone).collect();
    all.sort();
    all.insert(0, short(&response.type_url).to_owned());
    all.join(" ")
}

/// The bodies in a response, as `Type a@1 b@2`.
pub fn world_text(response: &DiscoveryResponse) -> String {
    use outgate_envoy_proto::envoy::{
        config::core::v3::data_source::Specifier,
        extensions::transport_sockets::tls::v3::{Secret, secret::Type},
    };
    use prost::Message;
    let bodies = response.resources.iter().map(|any| {
        let secret = Secret::decode(any.value.as_slice()).unwrap();
        let Some(Type::GenericSecret(generic)) = secret.r#type else {
            panic!("no generic secret");
        };
        match generic.secret.unwrap().specifier {
            Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes).unwrap(),
            _ => panic!("not in place"),
        }
    });
    let mut all: Vec<String> = bodies.collect();
    all.insert(0, short(&response.type_url).to_owned());
    all.join(" ")
}
