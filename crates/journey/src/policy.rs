//! What the owner allowed, in the form the journey reads: validated, canonical, indexed. A policy is immutable;
//! a reload builds another one and swaps it.

mod bounds;
mod credential;

use std::{collections::HashMap, fmt, sync::Arc};

use http::{HeaderName, Method};

use crate::{
    address::{AddressExceptions, DenySet},
    denial::{Denial, DenyCode},
    destination::{Destination, Transport, of_rule},
    name::{HostName, HostPattern, parent_of},
    path::PathPattern,
    session::{PolicyName, Session},
    tripwire::Tripwire,
};

pub use bounds::{DestinationLimits, Rate, SessionBounds, SessionLimits};
pub use credential::{
    CredentialName, CredentialSource, Injection, InjectionForm, PlaneAddress, SdsSource, TlsFiles,
};

/// A TCP port, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(std::num::NonZeroU16);

impl Port {
    /// HTTPS.
    pub const HTTPS: Self = Self(std::num::NonZeroU16::new(443).unwrap());
    /// Plain HTTP.
    pub const HTTP: Self = Self(std::num::NonZeroU16::new(80).unwrap());

    /// A port, unless it is 0.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        match std::num::NonZeroU16::new(number) {
            Some(port) => Some(Self(port)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a rule in answers and records: the key's place in the file and its host pattern,
/// `destinations[2] api.example.org`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleId(Arc<str>);

impl RuleId {
    /// A rule's name.
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The rung of the posture ladder on which one destination is served, after `auto` was resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posture {
    /// Nothing goes out.
    DenyAll,
    /// The TLS session is the client's own; only its server name is read.
    PassThrough,
    /// TLS is terminated with a minted leaf and re-originated.
    Bump,
}

impl Posture {
    /// The word used in files, answers and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DenyAll => "deny-all",
            Self::PassThrough => "pass-through",
            Self::Bump => "bump",
        }
    }
}

/// What a tunnel to a destination carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TunnelProtocol {
    /// TLS whose server name equals the tunnel's host.
    #[default]
    Tls,
    /// Anything. Only the host and port are judged; only with [`Posture::PassThrough`].
    Opaque,
}

/// Whether a request must present a session token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenDemand {
    /// Without one the request is refused.
    #[default]
    Required,
    /// Without one the request is forwarded with nothing attached.
    Optional,
}

/// Which requests a rule lets through. Deny wins; an empty `allow` allows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestRules {
    /// At least one must cover the request, unless there is none.
    pub allow: Vec<RequestRule>,
    /// None may cover the request.
    pub deny: Vec<RequestRule>,
}

impl RequestRules {
    /// Whether every request is allowed.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Whether any rule judges paths.
    #[must_use]
    pub fn judge_paths(&self) -> bool {
        self.allow
            .iter()
            .chain(&self.deny)
            .any(|rule| !rule.paths.is_empty())
    }
}

/// A set of requests. An empty list covers everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestRule {
    /// Methods, exactly as spelled (RFC 9110 section 9.1: case-sensitive).
    pub methods: Vec<Method>,
    /// Patterns over the raw path.
    pub paths: Vec<PathPattern>,
    /// Header fields that must all be present with one of the given values; no values: must be present.
    pub headers: Vec<(HeaderName, Vec<String>)>,
}

/// One of the file's `policies`: which of the destinations a session may use that is confined to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedPolicy {
    /// The hosts, as the rules name them.
    pub hosts: Vec<HostPattern>,
    /// What such a session may use.
    pub limits: SessionLimits,
}

/// What the owner said about one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name in answers and records.
    pub id: RuleId,
    /// Which hosts.
    pub host: HostPattern,
    /// Which ports; never empty.
    pub ports: Vec<Port>,
    /// How it is served.
    pub posture: Posture,
    /// What a tunnel carries.
    pub protocol: TunnelProtocol,
    /// Whether plain HTTP is served besides TLS.
    pub plaintext: bool,
    /// Whether a real Encrypted ClientHello may pass through.
    pub encrypted_client_hello: bool,
    /// Whether a token is needed.
    pub token: TokenDemand,
    /// Which requests.
    pub requests: RequestRules,
    /// Which credential is attached, and how.
    pub injection: Option<Injection>,
    /// How much.
    pub limits: DestinationLimits,
    /// Which addresses.
    pub addresses: AddressExceptions,
}

/// Passing the destination rule: this destination is covered by exactly this rule.
#[derive(Debug, Clone)]
pub struct AllowedDestination {
    destination: Destination,
    rule: Arc<Rule>,
}

impl AllowedDestination {
    /// What the request is for.
    #[must_use]
    pub const fn destination(&self) -> &Destination {
        &self.destination
    }

    /// The rule that allowed it.
    #[must_use]
    pub const fn rule(&self) -> &Arc<Rule> {
        &self.rule
    }
}

/// The compiled policy. Lookup is two hash probes, whatever the number of rules.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    exact: HashMap<HostName, Vec<Arc<Rule>>>,
    wildcard: HashMap<HostName, Vec<Arc<Rule>>>,
    deny_set: DenySet,
    session_limits: SessionLimits,
    named: HashMap<PolicyName, NamedPolicy>,
    tripwire: Option<Tripwire>,
    token_headers: Vec<HeaderName>,
    rules: usize,
    /// What every host is served by that no rule covers.
    open: Option<Arc<Rule>>,
}

impl Policy {
    /// Compiles rules. Two rules for one host pattern must differ in their ports; the configuration refuses others,
    /// and here the first one would win.
    #[must_use]
    pub fn new(
        rules: Vec<Rule>,
        deny_set: DenySet,
        session_limits: SessionLimits,
        token_headers: Vec<HeaderName>,
    ) -> Self {
        let policy = Self {
            deny_set,
            session_limits,
            token_headers,
            ..Self::default()
        };
        policy.with_rules(rules)
    }

    /// The same policy with these rules in place of its own.
    #[must_use]
    pub fn with_rules(mut self, rules: Vec<Rule>) -> Self {
        self.rules = rules.len();
        self.exact = HashMap::new();
        self.wildcard = HashMap::new();
        for rule in rules {
            let table = match &rule.host {
                HostPattern::Exact(_) => &mut self.exact,
                HostPattern::Wildcard(_) => &mut self.wildcard,
            };
            let (HostPattern::Exact(key) | HostPattern::Wildcard(key)) = &rule.host;
            table.entry(key.clone()).or_default().push(Arc::new(rule));
        }
        self
    }

    /// The same policy, open: up to `most` hosts that no rule covers are served as `rule` says, each as if the rule
    /// named it. For learning only; no file can say this.
    #[must_use]
    pub fn open_to_all(mut self, rule: Rule, most: u32) -> Self {
        self.open = Some(Arc::new(rule));
        let bound = &mut self.session_limits.distinct_destinations;
        *bound = Some(bound.map_or(most, |bound| bound.min(most)));
        self
    }

    /// The same policy with what sessions can be confined to.
    #[must_use]
    pub fn with_named(mut self, named: HashMap<PolicyName, NamedPolicy>) -> Self {
        self.named = named;
        self
    }

    /// The same policy with a tripwire.
    #[must_use]
    pub const fn with_tripwire(mut self, tripwire: Option<Tripwire>) -> Self {
        self.tripwire = tripwire;
        self
    }

    /// The deny-set for resolved addresses.
    #[must_use]
    pub const fn deny_set(&self) -> &DenySet {
        &self.deny_set
    }

    /// The same policy for a gateway that listens on these sockets.
    #[must_use]
    pub fn for_listeners(mut self, listeners: Arc<[std::net::SocketAddr]>) -> Self {
        self.deny_set = self.deny_set.with_listeners(listeners);
        self
    }

    /// What every session may use at most.
    #[must_use]
    pub const fn session_limits(&self) -> &SessionLimits {
        &self.session_limits
    }

    /// What a session may use.
    #[must_use]
    pub fn bounds_of(&self, session: &Session) -> SessionBounds {
        let terms = &session.claims().terms;
        let confined = terms.policy.as_ref().and_then(|name| self.named.get(name));
        SessionBounds::of([
            Some(&self.session_limits),
            confined.map(|policy| &policy.limits),
            Some(&terms.limits),
            session.limits(),
        ])
    }

    /// What is an anomaly, if anything is.
    #[must_use]
    pub const fn tripwire(&self) -> Option<&Tripwire> {
        self.tripwire.as_ref()
    }

    /// The policies that a session can be confined to, in no particular order.
    pub fn named(&self) -> impl Iterator<Item = &PolicyName> {
        self.named.keys()
    }

    /// Judges whether a session may use a rule: one that is confined to a named policy has only what that policy names.
    ///
    /// # Errors
    /// [`DenyCode::DestinationNotAllowed`], also where the file has no policy of that name.
    pub fn confine(&self, session: &Session, rule: &Rule) -> Result<(), Denial> {
        let name = session.claims().terms.policy.as_ref();
        name.map_or(Ok(()), |name| self.confine_to(name, rule))
    }

    /// As [`Self::confine`], for whoever is confined to the policy of this name.
    ///
    /// # Errors
    /// As [`Self::confine`].
    pub fn confine_to(&self, name: &PolicyName, rule: &Rule) -> Result<(), Denial> {
        let named = self.named.get(name);
        if named.is_some_and(|named| named.hosts.contains(&rule.host)) {
            return Ok(());
        }
        let by = RuleId::new(format!("policies.{name}"));
        let denial = Denial::new(DenyCode::DestinationNotAllowed).by(&by);
        Err(match named {
            Some(_) => denial,
            None => denial.because("the file has no policy of that name"),
        })
    }

    /// Further header fields in which a session token may be presented.
    #[must_use]
    pub fn token_headers(&self) -> &[HeaderName] {
        &self.token_headers
    }

    /// The number of rules.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rules
    }

    /// Whether there is no rule at all: nothing is let out.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rules == 0
    }

    /// Every rule, in no particular order.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        let named = self.exact.values().chain(self.wildcard.values());
        named.flatten().chain(&self.open)
    }

    /// The rules that cover a host, on whatever port: those of its exact name, else those of its wildcard.
    fn covering(&self, host: &HostName) -> &[Arc<Rule>] {
        self.exact
            .get(host)
            .or_else(|| parent_of(host).and_then(|parent| self.wildcard.get(parent)))
            .map(Vec::as_slice)
            .or(self.open.as_ref().map(std::slice::from_ref))
            .unwrap_or_default()
    }

    /// What a name may be looked up for: a destination of each rule that covers it and lets something out.
    ///
    /// # Errors
    /// [`DenyCode::DestinationNotAllowed`].
    pub fn allow_name(&self, host: &HostName) -> Result<Vec<AllowedDestination>, Denial> {
        let covering = self.covering(host).iter();
        let allowed: Vec<_> = covering
            .filter(|rule| rule.posture != Posture::DenyAll)
            .filter_map(|rule| {
                Some(AllowedDestination {
                    destination: of_rule(host.clone(), *rule.ports.first()?),
                    rule: Arc::clone(rule),
                })
            })
            .collect();
        if allowed.is_empty() {
            return Err(DenyCode::DestinationNotAllowed.into());
        }
        Ok(allowed)
    }

    /// The hosts of one name that have an opaque rule for this port: what a captured connection can be for whose peer
    /// may speak first.
    pub fn opaque_on(&self, port: Port) -> impl Iterator<Item = AllowedDestination> {
        let exact = self.exact.iter();
        exact.flat_map(move |(host, rules)| {
            let opaque = rules.iter().filter(move |rule| {
                rule.protocol == TunnelProtocol::Opaque
                    && rule.posture != Posture::DenyAll
                    && rule.ports.contains(&port)
            });
            opaque.map(move |rule| AllowedDestination {
                destination: of_rule(host.clone(), port),
                rule: Arc::clone(rule),
            })
        })
    }

    /// Every port that some rule lets out, sorted.
    #[must_use]
    pub fn ports(&self) -> Vec<Port> {
        let ports: std::collections::BTreeSet<_> = self
            .rules()
            .filter(|rule| rule.posture != Posture::DenyAll)
            .flat_map(|rule| rule.ports.iter().copied())
            .collect();
        ports.into_iter().collect()
    }

    /// Finds the one rule that covers a destination: an exact name before a wildcard, and no falling through from
    /// one to the other, so that the set of injected hosts is never wider than the set of allowed ones.
    ///
    /// # Errors
    /// [`DenyCode::DestinationNotAllowed`], [`DenyCode::PortNotAllowed`] or [`DenyCode::PlaintextNotAllowed`].
    pub fn allow(&self, destination: Destination) -> Result<AllowedDestination, Denial> {
        let rules = self.covering(destination.host());
        if rules.is_empty() {
            return Err(DenyCode::DestinationNotAllowed.into());
        }
        let Some(rule) = rules
            .iter()
            .find(|rule| rule.ports.contains(&destination.port()))
        else {
            return Err(DenyCode::PortNotAllowed.into());
        };
        if rule.posture == Posture::DenyAll {
            return Err(Denial::new(DenyCode::DestinationNotAllowed).by(&rule.id));
        }
        if destination.transport() == Transport::Plain && !rule.plaintext {
            return Err(Denial::new(DenyCode::PlaintextNotAllowed).by(&rule.id));
        }
        Ok(AllowedDestination {
            rule: Arc::clone(rule),
            destination,
        })
    }
}
