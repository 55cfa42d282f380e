//! What is known of the data planes that ask for configuration.

use outgate_envoy::nodes::DataPlane;
use outgate_envoy_proto::{
    envoy::{
        config::core::v3::Node,
        service::{
            discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
            secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
        },
    },
    google::rpc,
};
use outgate_testkit::eventually;
use outgate_xds::type_urls::SECRET;
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::world::{Link, PATIENCE, World};

/// A stream on which secrets are asked for.
pub(crate) struct Stream {
    node: String,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Stream {
    pub(crate) async fn open(link: Link, node: &str) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut client = SecretDiscoveryServiceClient::with_origin(link, Link::origin());
        let responses = client.delta_secrets(stream).await.expect("a stream");
        Self {
            node: node.to_owned(),
            requests,
            responses: responses.into_inner(),
        }
    }

    pub(crate) async fn subscribe(&self, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned());
        self.say(|request| request.resource_names_subscribe = names.collect())
            .await;
    }

    async fn say(&self, change: impl FnOnce(&mut DeltaDiscoveryRequest)) {
        let mut request = DeltaDiscoveryRequest {
            node: Some(Node {
                id: self.node.clone(),
                ..Node::default()
            }),
            type_url: SECRET.to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        change(&mut request);
        self.requests.send(request).await.expect("a stream");
    }

    /// What comes next, taken over.
    pub(crate) async fn next(&mut self) -> DeltaDiscoveryResponse {
        let response = self.untouched().await;
        self.say(|request| request.response_nonce.clone_from(&response.nonce))
            .await;
        response
    }

    async fn untouched(&mut self) -> DeltaDiscoveryResponse {
        let message = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        let message = message.expect("nothing came");
        message.expect("a stream").expect("the stream has ended")
    }

    async fn refuse(&self, response: &DeltaDiscoveryResponse, why: &str) {
        self.say(|request| {
            request.response_nonce.clone_from(&response.nonce);
            request.error_detail = Some(rpc::Status {
                code: 3,
                message: why.to_owned(),
                ..rpc::Status::default()
            });
        })
        .await;
    }
}

/// The data planes, once they are as wanted.
async fn planes(world: &World, wanted: impl Fn(&[DataPlane]) -> bool) -> Vec<DataPlane> {
    let found = eventually(PATIENCE, || {
        let planes = world.source.nodes().list();
        wanted(&planes).then_some(planes)
    });
    match found.await {
        Some(planes) => planes,
        None => panic!("{:#?}", world.source.nodes().list()),
    }
}

#[tokio::test]
async fn a_data_plane_is_known_from_its_first_word_until_it_is_gone_and_then_as_gone() {
    let world = World::new().await;
    assert!(world.source.nodes().list().is_empty());
    let stream = Stream::open(world.another_link().await, "envoy-1").await;
    stream.subscribe(&["credentials/k1"]).await;
    let found = planes(&world, |planes| planes.len() == 1).await;
    assert_eq!(found[0].client, "local");
    assert_eq!(found[0].node, "envoy-1");
    assert_eq!(found[0].streams, 1);
    assert!(found[0].accepted_unix_ms.is_none(), "it took nothing over");
    let second = Stream::open(world.another_link().await, "envoy-1").await;
    second.subscribe(&["credentials/k1"]).await;
    let other = Stream::open(world.another_link().await, "envoy-2").await;
    other.subscribe(&["credentials/k1"]).await;
    planes(&world, |planes| {
        planes.len() == 2 && planes[0].streams == 2 && planes[1].streams == 1
    })
    .await;
    drop((stream, second));
    let left = planes(&world, |planes| planes[0].streams == 0).await;
    assert_eq!(left[1].node, "envoy-2");
    assert_eq!(left[1].streams, 1);
}

#[tokio::test]
async fn what_a_data_plane_refuses_is_known_until_it_takes_another_version_over() {
    let world = World::new().await;
    let mut stream = Stream::open(world.another_link().await, "envoy-1").await;
    stream.subscribe(&["credentials/k1"]).await;
    stream.next().await;
    let taken = planes(&world, |planes| {
        planes.len() == 1 && planes[0].accepted_unix_ms.is_some()
    })
    .await;
    assert!(taken[0].refused.is_empty());
    stream.subscribe(&["credentials/k2"]).await;
    let response = stream.untouched().await;
    stream.refuse(&response, "no good\nat all").await;
    let refused = planes(&world, |planes| !planes[0].refused.is_empty()).await;
    let text = &refused[0].refused[SECRET];
    assert!(
        text.starts_with("no good") && !text.contains('\n'),
        "{text:?}"
    );
    assert_eq!(refused[0].accepted_unix_ms, taken[0].accepted_unix_ms);
    stream.subscribe(&["credentials/k3"]).await;
    stream.next().await;
    planes(&world, |planes| planes[0].refused.is_empty()).await;
}
