//! Decides what the policy file says. A file is either a [`Config`], valid as a whole, or a list of [`Problems`]:
//! every one of them at once, each with its place, its key and what to write instead. What could be misread is
//! refused: unknown keys, empty values, two rules for one place, a restriction that could not be enforced.
//!
//! Text → spanned tree (`yaml`, `node`) → the file as written (`read`, `file`, which is also the schema) → `check`.
//!
//! On a gateway that follows a control plane, its file and what the control plane gave make one [`Config`] (`follow`).
//!
//! For `outgate run` a file, flags and known services make one [`Config`] (`compose`, `service`); what was denied or
//! seen under it is turned back into lines of a file (`advice`, `draft`).

mod addition;
mod advice;
mod case;
mod check;
mod compose;
mod draft;
mod file;
mod flag;
mod follow;
mod inbound;
mod listen;
mod node;
mod operator;
mod plane;
mod preamble;
mod problem;
mod read;
mod scalar;
mod secrecy;
mod service;
mod session;
mod shape;
mod trail;
mod unused;
mod url;
mod view;
mod write;
mod yaml;

use std::{
    collections::{BTreeMap, HashMap},
    io::Read as _,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use outgate_journey::{
    address::AddressExceptions,
    name::HostName,
    policy::{CredentialName, CredentialSource, InjectionForm, NamedPolicy, Policy, Posture},
    session::PolicyName,
};

pub use advice::{Advice, Edit, advise};
pub use compose::{AdditionProblem, AdditionProblems, Additions, Composed, CredentialUse};
pub use draft::Draft;
pub use follow::MAX_DOCUMENT_BYTES;
pub use inbound::{CallerIssuer, Exemption, Inbound, InboundTarget};
pub use listen::{ControlListen, ControlPlane, Listen, OperatorListen};
pub use operator::{
    ClaimScopes, OperatorConfig, OperatorOidc, OperatorToken, Quotas, RevocationWebhook, Scope,
    WebhookKey,
};
pub use outgate_journey::policy::{PlaneAddress, SdsSource, TlsFiles};
pub use plane::{DoorPlace, EnvoyAdmin, EnvoyConfig, MinterSource, PlaneDoor};
pub use problem::{Problem, Problems};
pub use service::{FoundService, Service, ServiceDestination, Services, known_services};
pub use session::{
    Algorithm, Introspection, IssuerKeys, IssuerPolicy, SessionView, Sessions, TrustedIssuer,
};
pub use trail::{AuditConfig, Export, ExportTarget, Rotation};
pub use url::WebUrl;

/// Files above this size, in bytes, are refused.
pub const MAX_FILE_BYTES: usize = 4 << 20;

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where guests connect, and where operators, other gateways and data planes do.
    pub listen: Listen,
    /// Where the gateway keeps its state; `None`: the platform's place.
    pub state_dir: Option<PathBuf>,
    /// Where each upstream credential comes from. Paths are resolved against the file's folder.
    pub credentials: BTreeMap<CredentialName, CredentialSource>,
    /// The data planes that may have a credential, by a name in their certificates, where not all may; no list is empty.
    pub credential_planes: BTreeMap<CredentialName, Vec<String>>,
    /// What is let out; nothing, if that comes from a control plane which was not heard yet. Its deny-set knows no listeners yet: see [`Policy::for_listeners`].
    pub policy: Policy,
    /// What sessions can be confined to, which the policy knows too.
    pub policies: BTreeMap<PolicyName, NamedPolicy>,
    /// Session tokens and the sessions that they prove.
    pub sessions: Sessions,
    /// Where names are looked up.
    pub resolver: ResolverConfig,
    /// How upstreams are verified.
    pub upstream: Upstream,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Where the audit trail is written; `None`: below the state directory.
    pub audit_dir: Option<PathBuf>,
    /// How the audit trail is kept, and where its records are sent.
    pub audit: AuditConfig,
    /// Who may operate the gateway over the network, and how many sessions there may be.
    pub operator: OperatorConfig,
    /// The control plane that this gateway follows.
    pub control: Option<ControlPlane>,
    /// The CA that the deployment supplies, which signs the leaves; `None`: one of the gateway's own.
    pub ca: Option<TlsFiles>,
    /// Another process that stamps the leaves; `None`: this gateway does.
    pub minter: Option<MinterSource>,
    /// Listeners in front of a service, for callers whose tokens verify.
    pub inbound: Vec<Inbound>,
    /// What Envoy's configuration says.
    pub envoy: Option<EnvoyConfig>,
    /// The posture of destinations that name none; `None` is `auto`. The rules of the policy have theirs already.
    pub posture: Option<Posture>,
    /// Services whose keys `outgate run` finds in the environment.
    pub services: Services,
    /// What is valid but probably not meant.
    pub warnings: Vec<Problem>,
    /// See [`Config::shared_document`].
    document: Arc<str>,
    /// Files with secrets that the file named and the rest of this does not, see [`Config::secret_files`].
    withheld: Vec<PathBuf>,
}

/// Where names are looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolverConfig {
    /// DNS servers; empty: the system's.
    pub servers: Vec<SocketAddr>,
    /// Names with fixed addresses, which no DNS server is asked for; each has at least one address.
    pub hosts: HashMap<HostName, Vec<IpAddr>>,
    /// Deployment-wide exceptions to the deny-set, which the policy has too.
    pub exceptions: AddressExceptions,
}

/// How upstreams are verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upstream {
    /// The root set to begin with.
    pub roots: Roots,
    /// PEM files with further roots. Paths are resolved against the file's folder; whether they exist is not checked.
    pub extra_roots: Vec<PathBuf>,
    /// The lowest TLS version spoken to an upstream.
    pub min_tls: TlsFloor,
}

/// A root set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Roots {
    /// The operating system's.
    #[default]
    System,
    /// The one built into the binary (Mozilla's).
    Bundled,
    /// None but `extra_roots`.
    None,
}

/// The lowest TLS version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsFloor {
    /// TLS 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// How long things may take. None is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A request's head, from its first byte to its last.
    pub head: Duration,
    /// A TLS handshake, on either leg.
    pub handshake: Duration,
    /// Resolving and connecting to an upstream.
    pub connect: Duration,
    /// From the end of a request to the head of its response.
    pub response: Duration,
    /// A connection on which nothing moves.
    pub idle: Duration,
    /// Open streams, after the gateway was told to stop.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let (short, long) = (Duration::from_secs(10), Duration::from_secs(600));
        Self {
            head: short,
            handshake: short,
            connect: short,
            response: long,
            idle: long,
            drain: short,
        }
    }
}

impl Config {
    /// Reads and checks the file at `path`. Relative paths in it are resolved against its folder.
    ///
    /// # Errors
    /// All problems of the file; one with the code `unreadable` if it cannot be read.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let (name, text) = read_file(path)?;
        // A relative path with no parent has "" as its folder, which joins to the working directory.
        Self::parse(&name, &text, path.parent().unwrap_or(Path::new("")))
    }

    /// Checks a file's text. `name` is what problems call the file; relative paths are resolved against `folder`.
    /// No I/O.
    ///
    /// # Errors
    /// All problems of the file.
    pub fn parse(name: &str, text: &str, folder: &Path) -> Result<Self, Problems> {
        check::parse(name, text, folder)
    }

    /// What holds without a file: nothing is let out, and every key has its default.
    #[must_use]
    pub fn without_file() -> Self {
        Self {
            listen: Listen::nowhere(),
            state_dir: None,
            credentials: BTreeMap::new(),
            credential_planes: BTreeMap::new(),
            policy: Policy::default(),
            policies: BTreeMap::new(),
            sessions: Sessions::default(),
            resolver: ResolverConfig::default(),
            upstream: Upstream::default(),
            timeouts: Timeouts::default(),
            audit_dir: None,
            audit: AuditConfig::default(),
            operator: OperatorConfig::default(),
            control: None,
            ca: None,
            minter: None,
            inbound: Vec::new(),
            envoy: None,
            posture: None,
            services: Services {
                known: true,
                extra: Vec::new(),
            },
            warnings: Vec::new(),
            document: file::nothing_shared().into(),
            withheld: Vec::new(),
        }
    }

    /// Whether some destination is served by terminating TLS, so that a CA is needed. Without one none is created.
    #[must_use]
    pub fn needs_ca(&self) -> bool {
        self.policy
            .rules()
            .any(|rule| rule.posture == Posture::Bump)
    }

    /// Every use of a credential: its name and the form in which some rule attaches it.
    pub fn injections(&self) -> impl Iterator<Item = (&CredentialName, &InjectionForm)> {
        self.policy.rules().filter_map(|rule| {
            let injection = rule.injection.as_ref()?;
            Some((&injection.credential, &injection.form))
        })
    }

    /// The keys, by their names in the file, that differ in `next` and take effect only after a restart.
    #[must_use]
    pub fn restart_needed(&self, next: &Self) -> Vec<&'static str> {
        [
            ("listen.proxy", self.listen.proxy != next.listen.proxy),
            (
                "listen.transparent",
                self.listen.transparent != next.listen.transparent,
            ),
            ("listen.metrics", self.listen.metrics != next.listen.metrics),
            (
                "listen.max_connections",
                self.listen.max_connections != next.listen.max_connections,
            ),
            (
                "listen.operator",
                self.listen.operator != next.listen.operator,
            ),
            ("listen.control", {
                let door = |config: &Self| {
                    let door = config.listen.control.clone()?;
                    // Who is let in is no matter of the door's.
                    Some((door.address, door.tls, door.client_ca))
                };
                door(self) != door(next)
            }),
            (
                "listen.xds",
                place(&self.listen.xds) != place(&next.listen.xds),
            ),
            (
                "listen.minter",
                place(&self.listen.minter) != place(&next.listen.minter),
            ),
            ("control", self.control != next.control),
            ("ca", self.ca != next.ca),
            ("minter", self.minter != next.minter),
            ("inbound", {
                let places = |config: &Self| -> Vec<_> {
                    config.inbound.iter().map(Inbound::place).collect()
                };
                places(self) != places(next)
            }),
            ("state_dir", self.state_dir != next.state_dir),
            ("audit.dir", self.audit_dir != next.audit_dir),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}

/// What of a door is opened once. Who is let in is no matter of the door's.
fn place(door: &Option<PlaneDoor>) -> Option<&DoorPlace> {
    door.as_ref().map(|door| &door.place)
}

/// The name of a file, for problems, and its text.
fn read_file(path: &Path) -> Result<(String, String), Problems> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
    std::fs::File::open(path)
        // One byte over the limit is enough to see that the file is too large.
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|error| Problems::unreadable(&name, &error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        if error.as_bytes().len() > MAX_FILE_BYTES {
            Problems::too_large(&name, MAX_FILE_BYTES)
        } else {
            Problems::unreadable(&name, &format!("byte {at} is not UTF-8"))
        }
    })?;
    Ok((name, text))
}

/// The JSON Schema (2020-12) of the file, made from the structs that parse it.
#[must_use]
pub fn schema() -> serde_json::Value {
    file::schema()
}
