//! Leaves as secrets of the Secret Discovery Service: the secret of a leaf is called what the handshake's server name
//! says. Names of other families have a `/` in them, which no host name has; they are not answered here.

use std::sync::Arc;

use outgate_journey::denial::DenyCode;
use outgate_xds::{Body, BoxFuture, Change, Client, LOCAL, Lookup, Resource, Source, type_urls};
use tokio::sync::broadcast;

use crate::{Asker, LeafService};

/// Whether a secret of this name can only be a leaf, good or refused.
#[must_use]
pub fn is_leaf_name(name: &str) -> bool {
    !name.contains('/')
}

/// Serves leaves, alone or as a part of a source that serves more.
#[derive(Debug, Clone)]
pub struct LeafSecrets(Arc<LeafService>);

impl LeafSecrets {
    /// Serves what this service mints.
    #[must_use]
    pub const fn new(service: Arc<LeafService>) -> Self {
        Self(service)
    }

    /// The service.
    #[must_use]
    pub const fn service(&self) -> &Arc<LeafService> {
        &self.0
    }

    /// The leaf of this name; absent where it is refused, so that a handshake ends at once, and later where its record
    /// cannot be written, so that a data plane goes on with the leaf that it has.
    pub async fn secret(&self, client: &Client, name: &str) -> Lookup {
        let asker = match &*client.name {
            LOCAL => Asker::local(),
            plane => Asker::plane(plane),
        };
        match self.0.leaf(&asker, name).await {
            Ok(leaf) => {
                let body = Body::certificate(name, leaf.chain_pem(), leaf.key_pem());
                Lookup::Found(Resource::new(name, leaf.serial(), body))
            }
            Err(denial) if denial.code() == DenyCode::AuditUnavailable => Lookup::Later,
            Err(_) => Lookup::Absent,
        }
    }
}

impl Source for LeafSecrets {
    fn all(&self, _: &Client, _: &str) -> Option<Vec<Resource>> {
        None
    }

    fn one<'a>(
        &'a self,
        client: &'a Client,
        type_url: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Lookup> {
        Box::pin(async move {
            if type_url == type_urls::SECRET && is_leaf_name(name) {
                self.secret(client, name).await
            } else {
                Lookup::Absent
            }
        })
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.0.changes()
    }
}
