//! The discovery services, as gRPC methods: aggregated discovery and discovery of secrets, each in both protocols.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesOrdered};
use http::Response;
use tokio::sync::mpsc;
use tonic::{
    Request, Status, Streaming,
    body::Body,
    codegen::BoxFuture,
    server::{Grpc, StreamingService, UnaryService},
};

use crate::{
    Client,
    clean::clean,
    codec::{Wire, WorldResponse},
    delta::Delta,
    drive::{Drive, Responses},
    pb,
    source::{Lookup, Source, type_urls},
    talk::{Host, Limits, NODE_BYTES, Talk, checked_name, too_many_names},
    world::{World, version_of},
};

/// The longest request: as many names as a stream may have, and their versions.
const REQUEST_BYTES: usize = 16 * 1024 * 1024;
/// Names in a request that is answered at once.
const FETCHED: usize = 64;

const ADS: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
const SDS: &str = "envoy.service.secret.v3.SecretDiscoveryService";

/// Serves what a [`Source`] knows.
#[derive(Clone)]
pub struct XdsService(Arc<Shared>);

struct Shared {
    source: Arc<dyn Source>,
    limits: Limits,
    streams: AtomicUsize,
}

impl XdsService {
    pub(crate) const NAMES: [&str; 2] = [ADS, SDS];

    /// A service of this source.
    #[must_use]
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self::with(source, Limits::default())
    }

    /// The same with other bounds: so many subscriptions on a stream, and so long until a client that does not read, and
    /// one that does not answer, are waited for no more.
    #[must_use]
    pub fn bounded(
        source: Arc<dyn Source>,
        subscriptions: usize,
        reading: Duration,
        answering: Duration,
    ) -> Self {
        let limits = Limits {
            subscriptions,
            reading,
            answering,
            ..Limits::default()
        };
        Self::with(source, limits)
    }

    fn with(source: Arc<dyn Source>, limits: Limits) -> Self {
        Self(Arc::new(Shared {
            source,
            limits,
            streams: AtomicUsize::new(0),
        }))
    }

    /// Streams that are open.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.0.streams.load(Ordering::Relaxed)
    }

    pub(crate) fn answer(
        &self,
        request: http::Request<Body>,
    ) -> BoxFuture<Response<Body>, Infallible> {
        let service = self.clone();
        let path = request.uri().path();
        let method = path.rsplit_once('/').map_or("", |(_, method)| method);
        let is_secrets = path.get(1..).is_some_and(|path| path.starts_with(SDS));
        match (is_secrets, method) {
            (false, "DeltaAggregatedResources") => Open::<Delta>::answer(service, None, request),
            (false, "StreamAggregatedResources") => Open::<World>::answer(service, None, request),
            (true, "DeltaSecrets") => {
                Open::<Delta>::answer(service, Some(type_urls::SECRET), request)
            }
            (true, "StreamSecrets") => {
                Open::<World>::answer(service, Some(type_urls::SECRET), request)
            }
            (true, "FetchSecrets") => {
                Box::pin(async move { Ok(grpc::<World>().unary(Fetch(service), request).await) })
            }
            _ => Box::pin(ready(Ok(Status::unimplemented(
                "there is no such method here",
            )
            .into_http()))),
        }
    }

    fn host(&self, client: Client, only: Option<&'static str>) -> Host {
        Host {
            source: Arc::clone(&self.0.source),
            client,
            node: None,
            limits: self.0.limits,
            only,
        }
    }
}

impl std::fmt::Debug for XdsService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "XdsService({} streams)", self.streams())
    }
}

fn grpc<T: Talk>() -> Grpc<Wire<T::Request, T::Response>> {
    Grpc::new(Wire::default()).max_decoding_message_size(REQUEST_BYTES)
}

/// Opens a stream.
struct Open<T> {
    service: XdsService,
    only: Option<&'static str>,
    talk: PhantomData<fn() -> T>,
}

impl<T: Talk> Open<T> {
    fn answer(
        service: XdsService,
        only: Option<&'static str>,
        request: http::Request<Body>,
    ) -> BoxFuture<Response<Body>, Infallible> {
        let open = Self {
            service,
            only,
            talk: PhantomData,
        };
        Box::pin(async move { Ok(grpc::<T>().streaming(open, request).await) })
    }

    fn open(
        &self,
        request: Request<Streaming<T::Request>>,
    ) -> Result<tonic::Response<Responses<T::Response>>, Status> {
        let client = client(&request)?;
        let room = client
            .room_for_a_stream()
            .ok_or_else(|| Status::resource_exhausted("the connection has too many streams"))?;
        let (out, responses) = mpsc::channel(1);
        let drive = Drive {
            talk: T::default(),
            // Before anything is read: no change is missed.
            changes: self.service.0.source.changes(),
            host: Arc::new(self.service.host(client, self.only)),
            inbound: request.into_inner(),
            out,
        };
        let counted = Counted::new(&self.service.0);
        tokio::spawn(async move {
            let _counted = (counted, room);
            drive.run().await;
        });
        Ok(tonic::Response::new(Responses(responses)))
    }
}

impl<T: Talk> StreamingService<T::Request> for Open<T> {
    type Response = T::Response;
    type ResponseStream = Responses<T::Response>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<T::Request>>) -> Self::Future {
        ready(self.open(request))
    }
}

/// Answers once.
struct Fetch(XdsService);

impl UnaryService<pb::DiscoveryRequest> for Fetch {
    type Response = WorldResponse;
    type Future = std::pin::Pin<
        Box<dyn Future<Output = Result<tonic::Response<WorldResponse>, Status>> + Send>,
    >;

    fn call(&mut self, request: Request<pb::DiscoveryRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let mut host = service.host(client(&request)?, Some(type_urls::SECRET));
            let request = request.into_inner();
            let node = request.node.as_ref().map_or("", |node| &node.id);
            host.node = Some(clean(node, NODE_BYTES));
            fetch(&host, &request).await.map(tonic::Response::new)
        })
    }
}

async fn fetch(host: &Host, request: &pb::DiscoveryRequest) -> Result<WorldResponse, Status> {
    let type_url = host.type_of(&request.type_url)?;
    let mut names = request.resource_names.clone();
    names.sort_unstable();
    names.dedup();
    if names.len() > FETCHED {
        let limits = Limits {
            subscriptions: FETCHED,
            ..host.limits
        };
        return Err(too_many_names(&limits));
    }
    for name in &names {
        checked_name(name)?;
    }
    let found: FuturesOrdered<_> = names
        .iter()
        .map(|name| host.source.one(&host.client, type_url, name))
        .collect();
    let found: Vec<Lookup> = found.collect().await;
    let mut resources = Vec::new();
    for lookup in found {
        match lookup {
            Lookup::Found(resource) => resources.push(resource),
            Lookup::Absent => {}
            Lookup::Later => return Err(Status::unavailable("a secret cannot be looked up")),
        }
    }
    Ok(WorldResponse {
        type_url: type_url.into(),
        nonce: "1".into(),
        version: version_of(&resources),
        resources,
    })
}

fn client<T>(request: &Request<T>) -> Result<Client, Status> {
    let client = request.extensions().get::<Client>().cloned();
    client.ok_or_else(|| Status::unauthenticated("this came through no door"))
}

/// Counts a stream for as long as it is there.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
