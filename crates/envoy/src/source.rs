//! What an Envoy asks for over xDS: its configuration as the policy of the moment renders it, leaves for the names that the
//! policy bumps, and upstream credentials, each only for the data planes that may have it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arc_swap::ArcSwap;
use http::{HeaderMap, Uri, header::AUTHORIZATION};
use outgate_credential::CredentialVersion;
use outgate_envoy_proto::RenderError;
use outgate_journey::{
    inject::Credentials,
    policy::{CredentialName, InjectionForm, Policy},
};
use outgate_minter::{LeafSecrets, is_leaf_name};
use outgate_plane::{Core, random_hex};
use outgate_xds::{
    Body, BoxFuture, Change, Client, Lookup, Node, Resource, Sent, Source,
    client::{SecretClient, SecretFault, SecretValue},
    type_urls,
};
use tokio::sync::broadcast;
use zeroize::Zeroizing;

use crate::{
    control::ControlPlane,
    entitled::Entitled,
    nodes::Nodes,
    render::{self, Encoded, RenderOptions, Rendered, injection_key},
};

/// The names of credentials' raw values begin with this.
const CREDENTIALS: &str = "credentials/";
/// How long a leaf from another minter is waited for.
const LEAF_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);
/// How many changes a slow stream may be behind before it asks for everything again.
const CHANGES: usize = 1024;

/// Where leaves come from.
pub enum Leaves {
    /// This process holds the CA's key.
    Own(LeafSecrets),
    /// Another process does.
    Minter(SecretClient),
    /// Nothing is bumped.
    None,
}

/// What is served on the door.
pub struct EnvoySource {
    core: Arc<Core>,
    leaves: ArcSwap<Leaves>,
    entitled: Arc<Entitled>,
    /// What decides for the Envoys that ask here, where it does.
    control: Option<ControlPlane>,
    configuration: ArcSwap<Configuration>,
    changes: broadcast::Sender<Change>,
    /// Tells this process's versions from an earlier one's.
    boot: String,
    nodes: Nodes,
}

/// What a policy makes of Envoy. Made before anything changes, so that putting it in force cannot fail.
#[derive(Default)]
pub struct Configuration {
    listeners: Vec<Resource>,
    clusters: Vec<Resource>,
    routes: Vec<Resource>,
    /// The credentials that Envoy's injectors ask for, by the secrets' names.
    injections: HashMap<String, (CredentialName, InjectionForm)>,
}

impl Configuration {
    /// Renders a policy. `options`: how; `None`: no Envoy is configured, and secrets alone are served.
    ///
    /// # Errors
    /// What cannot be rendered.
    pub fn of(policy: &Policy, options: Option<&RenderOptions<'_>>) -> Result<Self, String> {
        let mut configuration = Self {
            injections: injections(policy),
            ..Self::default()
        };
        if let Some(options) = options {
            let messages = |list: Vec<Rendered>| list.into_iter().map(Encoded::try_from).collect();
            configuration.listeners = resources(messages(render::listeners(options, policy)))?;
            configuration.clusters = resources(messages(render::clusters(options, policy)))?;
            configuration.routes = resources(render::encoded_routes(options, policy))?;
        }
        Ok(configuration)
    }
}

impl EnvoySource {
    /// A source that serves nothing yet.
    ///
    /// # Errors
    /// Where the operating system has no random numbers.
    pub fn new(core: &Arc<Core>) -> Result<Arc<Self>, outgate_plane::RandomFailed> {
        Self::with(core, Arc::default(), None)
    }

    /// A source for the Envoys that this control plane decides for: which data planes may have a credential holds for both,
    /// and a leaf is stamped for the host of a tunnel that is open.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of(
        core: &Arc<Core>,
        control: &ControlPlane,
    ) -> Result<Arc<Self>, outgate_plane::RandomFailed> {
        Self::with(core, Arc::clone(control.entitled()), Some(control.clone()))
    }

    fn with(
        core: &Arc<Core>,
        entitled: Arc<Entitled>,
        control: Option<ControlPlane>,
    ) -> Result<Arc<Self>, outgate_plane::RandomFailed> {
        Ok(Arc::new(Self {
            core: Arc::clone(core),
            leaves: ArcSwap::from_pointee(Leaves::None),
            entitled,
            control,
            configuration: ArcSwap::default(),
            changes: broadcast::Sender::new(CHANGES),
            boot: random_hex()?.split_off(20),
            nodes: Nodes::default(),
        }))
    }

    /// The channel on which everything that changes is told.
    #[must_use]
    pub const fn changes(&self) -> &broadcast::Sender<Change> {
        &self.changes
    }

    /// The data planes that are or were connected.
    #[must_use]
    pub const fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Takes leaves from here.
    pub fn set_leaves(&self, leaves: Leaves) {
        self.leaves.store(Arc::new(leaves));
        let _ = self.changes.send(Change::Type(type_urls::SECRET));
    }

    /// Makes a policy's configuration and puts it in force; see [`Configuration::of`] and [`Self::put_in_force`].
    ///
    /// # Errors
    /// What cannot be rendered; then the last configuration stays.
    pub fn set_policy(
        &self,
        policy: &Policy,
        options: Option<&RenderOptions<'_>>,
        planes: BTreeMap<CredentialName, Vec<String>>,
    ) -> Result<(), String> {
        self.put_in_force(Configuration::of(policy, options)?, planes);
        Ok(())
    }

    /// Puts a configuration in force, and which data planes may have which credentials; without an entry, all. Tells
    /// everybody to ask for everything again, credentials too.
    pub fn put_in_force(
        &self,
        configuration: Configuration,
        planes: BTreeMap<CredentialName, Vec<String>>,
    ) {
        self.entitled.replace(planes);
        self.configuration.store(Arc::new(configuration));
        let _ = self.changes.send(Change::Everything);
    }

    /// Tells the data planes that a credential has another value, or none any more.
    pub fn credential_changed(&self, name: &CredentialName) {
        let raw = format!("{CREDENTIALS}{name}");
        let _ = self
            .changes
            .send(Change::One(type_urls::SECRET, raw.into()));
        for (key, (credential, _)) in &self.configuration.load().injections {
            if credential == name {
                let _ = self
                    .changes
                    .send(Change::One(type_urls::SECRET, key.as_str().into()));
            }
        }
    }

    fn credential(&self, client: &Client, secret: &str) -> Lookup {
        let configuration = self.configuration.load();
        let raw = secret.strip_prefix(CREDENTIALS);
        let raw = raw.map(|name| (CredentialName::new(name), raw_form()));
        let injected = configuration.injections.get(secret).cloned();
        let Some((name, form)) = injected.or(raw) else {
            return Lookup::Absent;
        };
        if !self.core.plane.credentials.knows(&name) || !self.entitled.may_have(&name, &client.name)
        {
            return Lookup::Absent;
        }
        let value = self
            .core
            .plane
            .credentials
            .lease(&name)
            .ok()
            .and_then(|lease| Some((lease.version(), value(&lease, &form)?)));
        // Envoy goes on using a secret that is removed; an empty one it cannot use.
        let (version, value) = match &value {
            Some((version, value)) => (format!("{}-{version}", self.boot), value.as_slice()),
            None => (format!("{}-none", self.boot), &b""[..]),
        };
        Lookup::Found(Resource::new(
            secret,
            version,
            Body::generic_secret(secret, value),
        ))
    }

    /// Whether an Envoy asks for a leaf that it needs. Which name a guest's TLS asks for is the guest's choice: for as many
    /// names as a wildcard covers, Envoy would keep leaves for ever. Behind a tunnel stand the limits of its session and an
    /// address of its host. Envoy is told of a leaf that nobody needs that it is gone, whenever it is asked for again.
    fn is_needed(&self, name: &str) -> bool {
        let envoys = self
            .control
            .as_ref()
            .filter(|_| !self.configuration.load().listeners.is_empty());
        envoys.is_none_or(|control| control.has_tunnel_to(name))
    }

    async fn leaf(&self, client: &Client, name: &str) -> Lookup {
        if !self.is_needed(name) {
            return Lookup::Absent;
        }
        let leaves = self.leaves.load_full();
        match &*leaves {
            Leaves::Own(leaves) => leaves.secret(client, name).await,
            Leaves::None => Lookup::Absent,
            Leaves::Minter(minter) => match minter.get(name, LEAF_WITHIN).await {
                Ok(secret) => match &secret.value {
                    SecretValue::Certificate { chain_pem, key_pem } => {
                        Lookup::Found(Resource::new(
                            name,
                            Arc::clone(&secret.version),
                            Body::certificate(name, chain_pem, key_pem),
                        ))
                    }
                    SecretValue::Generic(_) => Lookup::Absent,
                },
                Err(SecretFault::Unavailable(_) | SecretFault::Timeout) => Lookup::Later,
                Err(_) => Lookup::Absent,
            },
        }
    }
}

impl Source for EnvoySource {
    fn all(&self, _: &Client, type_url: &str) -> Option<Vec<Resource>> {
        let configuration = self.configuration.load();
        match type_url {
            type_urls::LISTENER => Some(configuration.listeners.clone()),
            type_urls::CLUSTER => Some(configuration.clusters.clone()),
            type_urls::ROUTE => Some(configuration.routes.clone()),
            _ => None,
        }
    }

    fn one<'a>(
        &'a self,
        client: &'a Client,
        type_url: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Lookup> {
        Box::pin(async move {
            if type_url == type_urls::SECRET {
                return if is_leaf_name(name) {
                    self.leaf(client, name).await
                } else {
                    self.credential(client, name)
                };
            }
            self.all(client, type_url)
                .and_then(|all| all.into_iter().find(|it| *it.name == *name))
                .map_or(Lookup::Absent, Lookup::Found)
        })
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    fn connected(&self, node: &Node<'_>) {
        self.nodes.connected(node);
    }

    fn gone(&self, node: &Node<'_>) {
        self.nodes.gone(node);
    }

    fn acked(&self, node: &Node<'_>, type_url: &str, _: &[Sent]) {
        self.nodes.acked(node, type_url);
    }

    fn nacked(&self, node: &Node<'_>, type_url: &str, sent: &[Sent], text: &str) {
        let names: Vec<&str> = sent.iter().map(|sent| &*sent.name).collect();
        tracing::error!(
            code = "envoy_refused_configuration",
            node = node.id,
            client = %node.client.name,
            resources = ?names,
            r#type = type_url,
            why = text,
            "an Envoy refused what it was sent and goes on with what it had"
        );
        self.nodes.nacked(node, type_url, text);
    }
}

fn injections(policy: &Policy) -> HashMap<String, (CredentialName, InjectionForm)> {
    let injections = policy.rules().filter_map(|rule| rule.injection.as_ref());
    injections
        .filter_map(|injection| {
            let key = injection_key(&injection.credential, &injection.form)?;
            Some((key, (injection.credential.clone(), injection.form.clone())))
        })
        .collect()
}

fn resources(made: Result<Vec<Encoded>, RenderError>) -> Result<Vec<Resource>, String> {
    let made = made.map_err(|error| error.to_string())?.into_iter();
    Ok(made
        .map(|it| Resource::new(it.name, it.version, Body::from_any(it.message)))
        .collect())
}

/// The value alone.
fn raw_form() -> InjectionForm {
    InjectionForm::Header {
        name: AUTHORIZATION,
        prefix: String::new(),
        suffix: String::new(),
    }
}

/// The whole value of the field that the form attaches.
fn value(lease: &CredentialVersion, form: &InjectionForm) -> Option<Zeroizing<Vec<u8>>> {
    let mut headers = HeaderMap::new();
    lease
        .attach(form, &mut headers, &mut Uri::from_static("/"))
        .ok()?;
    let value = headers.values().next()?;
    Some(Zeroizing::new(value.as_bytes().to_vec()))
}
