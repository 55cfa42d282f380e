//! A server of secrets on a Unix socket: what it has, it can change, lose, and be away with.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use outgate_xds::{
    Body, BoxFuture, Change, Client, Door, Lookup, Node, Resource, Services, Source, XdsService,
    type_urls,
};
use tokio::{sync::broadcast, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub(crate) struct Vault {
    shelf: Arc<Shelf>,
    socket: PathBuf,
    open: Option<(CancellationToken, JoinHandle<()>)>,
}

struct Shelf {
    /// `None`: it cannot be told now.
    secrets: Mutex<HashMap<String, Option<(u64, Body)>>>,
    changes: broadcast::Sender<Change>,
    versions: Mutex<u64>,
    streams: AtomicUsize,
}

impl Vault {
    /// Not open yet.
    pub(crate) fn at(socket: &Path) -> Self {
        let shelf = Shelf {
            secrets: Mutex::default(),
            changes: broadcast::Sender::new(64),
            versions: Mutex::default(),
            streams: AtomicUsize::default(),
        };
        Self {
            shelf: Arc::new(shelf),
            socket: socket.to_owned(),
            open: None,
        }
    }

    pub(crate) fn open(&mut self) {
        let door = Door::unix(&self.socket).expect("a socket");
        let stop = CancellationToken::new();
        let service = XdsService::new(Arc::clone(&self.shelf) as Arc<dyn Source>);
        let services = Services::new().xds(&service);
        let serving = tokio::spawn(door.serve(services, stop.clone()));
        self.open = Some((stop, serving));
    }

    pub(crate) async fn close(&mut self) {
        if let Some((stop, serving)) = self.open.take() {
            stop.cancel();
            serving.await.expect("it ends");
        }
    }

    pub(crate) fn put(&self, name: &str, value: &str) {
        self.place(name, Some(Body::generic_secret(name, value.as_bytes())));
    }

    pub(crate) fn put_certificate(&self, name: &str, chain: &str, key: &str) {
        self.place(name, Some(Body::certificate(name, chain, key)));
    }

    /// From here on it is neither there nor not.
    pub(crate) fn withhold(&self, name: &str) {
        self.place(name, None);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.shelf.secrets.lock().unwrap().remove(name);
        self.tell(name);
    }

    /// Who is connected.
    pub(crate) fn streams(&self) -> usize {
        self.shelf.streams.load(Ordering::Relaxed)
    }

    fn place(&self, name: &str, body: Option<Body>) {
        let version = {
            let mut versions = self.shelf.versions.lock().unwrap();
            *versions += 1;
            *versions
        };
        let body = body.map(|body| (version, body));
        self.shelf
            .secrets
            .lock()
            .unwrap()
            .insert(name.to_owned(), body);
        self.tell(name);
    }

    fn tell(&self, name: &str) {
        let _ = self
            .shelf
            .changes
            .send(Change::One(type_urls::SECRET, name.into()));
    }
}

impl Source for Shelf {
    fn all(&self, _: &Client, _: &str) -> Option<Vec<Resource>> {
        None
    }

    fn one<'a>(&'a self, _: &'a Client, _: &'a str, name: &'a str) -> BoxFuture<'a, Lookup> {
        let lookup = match self.secrets.lock().unwrap().get(name) {
            Some(Some((version, body))) => {
                Lookup::Found(Resource::new(name, version.to_string(), body.clone()))
            }
            Some(None) => Lookup::Later,
            None => Lookup::Absent,
        };
        Box::pin(std::future::ready(lookup))
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    fn connected(&self, _: &Node<'_>) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    fn gone(&self, _: &Node<'_>) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
