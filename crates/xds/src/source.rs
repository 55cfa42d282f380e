//! What is served, and to whom: the side that knows resources implements [`Source`]; streams, versions and nonces are
//! not its business.

use std::{pin::Pin, sync::Arc, time::Duration};

use prost::Message;
use tokio::sync::broadcast;
use zeroize::Zeroizing;

use crate::Client;

/// A future that is sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The types of resources that are served in an order of their own.
pub mod type_urls {
    /// CDS.
    pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    /// EDS.
    pub const ENDPOINTS: &str =
        "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    /// LDS.
    pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
    /// RDS.
    pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    /// SDS.
    pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
}

/// One resource, in one version.
#[derive(Debug, Clone)]
pub struct Resource {
    /// At most 512 bytes.
    pub name: Arc<str>,
    /// Another one for every other content; never empty.
    pub version: Arc<str>,
    /// What it is.
    pub body: Body,
    /// How long the client may use it without hearing more; it hears more for as long as its stream is there. Said on
    /// incremental streams only.
    pub ttl: Option<Duration>,
}

impl Resource {
    /// A resource that stays until it is changed.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, version: impl Into<Arc<str>>, body: Body) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            body,
            ttl: None,
        }
    }

    /// The same, to be forgotten by the client that hears no more of it for this long.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

/// A resource's message: encoded once, shared by all who are sent it, wiped when the last has it.
#[derive(Clone)]
pub struct Body(Arc<Zeroizing<Vec<u8>>>);

impl Body {
    /// Encodes the message.
    #[must_use]
    pub fn of(message: &impl Message) -> Self {
        Self::from_encoded(message.encode_to_vec())
    }

    /// Takes the message out; its type is what it is asked for by.
    #[must_use]
    pub fn from_any(any: prost_types::Any) -> Self {
        Self::from_encoded(any.value)
    }

    /// Takes a message that is encoded.
    #[must_use]
    pub fn from_encoded(message: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(message)))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

/// What there is under a name.
#[derive(Debug)]
pub enum Lookup {
    /// This.
    Found(Resource),
    /// Nothing, and the client is told so at once.
    Absent,
    /// It cannot be told at this moment. The client is told nothing and goes on with what it has; it is looked up
    /// again in a second, and when it changes.
    Later,
}

/// What changed. To be said once the new state is in place: who hears it asks for it.
#[derive(Debug, Clone)]
pub enum Change {
    /// A new policy: all types, which reach each client in an order that leaves no gap between them.
    Everything,
    /// Anything of a type.
    Type(&'static str),
    /// One resource of a type. Of a name that nobody asked for, it costs nothing.
    One(&'static str, Arc<str>),
}

/// Who has a stream.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    /// The connection's identity, which is proven.
    pub client: &'a Client,
    /// What it calls itself, which is not. At most 256 printable bytes.
    pub id: &'a str,
}

/// What one response said of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its name.
    pub name: Arc<str>,
    /// Which version was sent; `None`: that there is none.
    pub version: Option<Arc<str>>,
}

/// Knows the resources.
pub trait Source: Send + Sync + 'static {
    /// All that this client is to have of a type it takes whole (LDS, CDS), each name once. `None`: the type has to be
    /// asked for by name. Must not block.
    fn all(&self, client: &Client, type_url: &str) -> Option<Vec<Resource>>;

    /// The resource of a name. May take a moment, at most ten seconds; at most 64 are asked for at once by one stream.
    fn one<'a>(
        &'a self,
        client: &'a Client,
        type_url: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Lookup>;

    /// What changes from here on. Whoever falls behind asks again for all that its client has.
    fn changes(&self) -> broadcast::Receiver<Change>;

    /// A stream has said who it is.
    fn connected(&self, node: &Node<'_>) {
        let _ = node;
    }

    /// A stream that was [`Self::connected`] has ended.
    fn gone(&self, node: &Node<'_>) {
        let _ = node;
    }

    /// The client uses what a response said.
    fn acked(&self, node: &Node<'_>, type_url: &str, sent: &[Sent]) {
        let _ = (node, type_url, sent);
    }

    /// The client refuses a response, in its own words: at most 1024 printable bytes. It is sent none of these versions
    /// again of its own accord.
    fn nacked(&self, node: &Node<'_>, type_url: &str, sent: &[Sent], text: &str) {
        let _ = (node, type_url, sent, text);
    }
}
