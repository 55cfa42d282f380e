//! A plane made of plain values, and short ways to write rules, policies and requests.

use std::{
    collections::HashMap,
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use outgate_journey::{
    address::DenySet,
    authorize::{Permit, authorize},
    denial::{Denial, DenyCode},
    destination::{Destination, identify_connect},
    gate::{ConnectionPass, Plane, RequestEvidence, attribute_known, judge_request, still_allowed},
    inject::{AuditGate, CredentialFault, Credentials, InjectionPlan},
    limit::{Exceeded, Limits},
    name::{HostName, HostPattern},
    path::PathPattern,
    policy::{
        AllowedDestination, CredentialName, DestinationLimits, Injection, InjectionForm, Policy,
        Port, Posture, RequestRule, RequestRules, Rule, RuleId, SessionBounds, SessionLimits,
        TokenDemand, TunnelProtocol,
    },
    resolve::Resolver,
    session::{
        Denylist, PolicyName, Session, SessionEnd, SessionId, Terms, TokenClaims, TokenFault,
        TokenOrigin, TokenVerifier, UnixSeconds, presented_to_proxy,
    },
};

/// The tests' present.
pub(crate) const NOW: UnixSeconds = UnixSeconds(1_000);
/// Good tokens of two sessions, and one that was good.
pub(crate) const ONE: &str = "eyJ.one.good";
pub(crate) const ONE_RENEWED: &str = "eyJ.one.renewed";
pub(crate) const TWO: &str = "eyJ.two.good";
pub(crate) const OLD: &str = "eyJ.one.old";

/// Takes `eyJ.<session>.good|renewed` for a token, and `eyJ.<session>.old` for an expired one.
#[derive(Default)]
pub(crate) struct Tokens {
    /// Set: nothing can be verified.
    pub(crate) broken: bool,
}

impl TokenVerifier for Tokens {
    fn verify(&self, token: &str, _: UnixSeconds) -> Result<Arc<TokenClaims>, TokenFault> {
        let parts: Vec<&str> = token.split('.').collect();
        match parts[..] {
            _ if self.broken => Err(TokenFault::Invalid("no key is known")),
            [
                "eyJ",
                id,
                kind @ ("good" | "renewed" | "old" | "confined" | "astray"),
            ] => {
                let is_old = kind == "old";
                let claims = Arc::new(TokenClaims {
                    session: SessionId::parse(id).ok_or(TokenFault::Invalid("no session id"))?,
                    token_id: kind.into(),
                    expires: UnixSeconds(if is_old { NOW.0 } else { NOW.0 + 500 }),
                    terms: Terms {
                        policy: match kind {
                            "confined" => PolicyName::parse("narrow"),
                            "astray" => PolicyName::parse("removed"),
                            _ => None,
                        },
                        ..Terms::default()
                    },
                    origin: TokenOrigin::Own,
                });
                if is_old {
                    Err(TokenFault::Expired(claims))
                } else {
                    Ok(claims)
                }
            }
            _ => Err(TokenFault::Invalid("not a token")),
        }
    }
}

/// The ended sessions.
#[derive(Default)]
pub(crate) struct Ended {
    pub(crate) ended: HashMap<String, SessionEnd>,
    /// What the operator set since.
    pub(crate) limits: Option<Arc<SessionLimits>>,
    /// Set: it has not heard anything for too long.
    pub(crate) stale: bool,
}

impl Ended {
    /// These sessions, ended in this way.
    pub(crate) fn by(sessions: &[&str], end: SessionEnd) -> Self {
        let ended = sessions.iter().map(|id| (id.to_string(), end));
        Self {
            ended: ended.collect(),
            ..Self::default()
        }
    }
}

impl Denylist for Ended {
    fn standing(&self, claims: &TokenClaims) -> Result<Option<Arc<SessionLimits>>, SessionEnd> {
        match self.ended.get(claims.session.as_str()) {
            Some(end) => Err(*end),
            None => Ok(self.limits.clone()),
        }
    }

    fn is_fresh(&self) -> bool {
        !self.stale
    }
}

/// Refuses what it is told to, and writes down what it counted.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) refuse: Option<Exceeded>,
    pub(crate) counted: Mutex<Vec<String>>,
}

impl Counters {
    fn count(&self, what: String) -> Result<(), Exceeded> {
        if let Some(exceeded) = self.refuse {
            return Err(exceeded);
        }
        self.counted.lock().unwrap().push(what);
        Ok(())
    }
}

impl Limits for Counters {
    type Slot = ();

    fn admit_connection(
        &self,
        session: &Session,
        destination: &Destination,
        _: &SessionBounds,
    ) -> Result<(), Exceeded> {
        self.count(format!("{} to {destination}", session.id()))
    }

    fn admit_request(
        &self,
        session: &Session,
        rule: &Rule,
        _: &SessionBounds,
    ) -> Result<(), Exceeded> {
        self.count(format!("{} under {}", session.id(), rule.id))
    }
}

/// Answers every name with the same addresses, and writes down what it was asked.
pub(crate) struct Names {
    pub(crate) answer: Result<Vec<IpAddr>, String>,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Names {
    pub(crate) fn answering(addresses: &[&str]) -> Self {
        Self {
            answer: Ok(addresses.iter().map(|ip| ip.parse().unwrap()).collect()),
            asked: Mutex::default(),
        }
    }

    pub(crate) fn failing(why: &str) -> Self {
        Self {
            answer: Err(why.to_owned()),
            asked: Mutex::default(),
        }
    }
}

impl Resolver for Names {
    async fn resolve(&self, host: &HostName) -> Result<Vec<IpAddr>, String> {
        self.asked.lock().unwrap().push(host.to_string());
        self.answer.clone()
    }
}

/// Leases a credential's name in place of its bytes.
#[derive(Default)]
pub(crate) struct Vault {
    pub(crate) fault: Option<CredentialFault>,
    pub(crate) leased: Mutex<Vec<String>>,
}

impl Credentials for Vault {
    type Lease = String;

    fn lease(&self, name: &CredentialName) -> Result<String, CredentialFault> {
        match &self.fault {
            Some(fault) => Err(fault.clone()),
            None => {
                self.leased.lock().unwrap().push(name.to_string());
                Ok(name.to_string())
            }
        }
    }
}

/// Whether records can be written.
pub(crate) struct Store(pub(crate) bool);

impl AuditGate for Store {
    fn is_writable(&self) -> bool {
        self.0
    }
}

/// All of it.
pub(crate) struct FakePlane {
    pub(crate) tokens: Tokens,
    pub(crate) ended: Ended,
    pub(crate) counters: Counters,
    pub(crate) names: Names,
    pub(crate) vault: Vault,
    pub(crate) store: Store,
    pub(crate) now: UnixSeconds,
}

impl Default for FakePlane {
    fn default() -> Self {
        Self {
            tokens: Tokens::default(),
            ended: Ended::default(),
            counters: Counters::default(),
            names: Names::answering(&["93.184.216.34"]),
            vault: Vault::default(),
            store: Store(true),
            now: NOW,
        }
    }
}

impl FakePlane {
    /// A plane on which these sessions were ended.
    pub(crate) fn without(sessions: &[&str]) -> Self {
        Self {
            ended: Ended::by(sessions, SessionEnd::Ended),
            ..Self::default()
        }
    }

    /// What was leased.
    pub(crate) fn leased(&self) -> Vec<String> {
        self.vault.leased.lock().unwrap().clone()
    }

    /// What was counted.
    pub(crate) fn counted(&self) -> Vec<String> {
        self.counters.counted.lock().unwrap().clone()
    }
}

impl Plane for FakePlane {
    type Tokens = Tokens;
    type Denylist = Ended;
    type Limits = Counters;
    type Resolver = Names;
    type Credentials = Vault;
    type Audit = Store;

    fn tokens(&self) -> &Tokens {
        &self.tokens
    }
    fn denylist(&self) -> &Ended {
        &self.ended
    }
    fn limits(&self) -> &Counters {
        &self.counters
    }
    fn resolver(&self) -> &Names {
        &self.names
    }
    fn credentials(&self) -> &Vault {
        &self.vault
    }
    fn audit(&self) -> &Store {
        &self.store
    }
    fn now(&self) -> UnixSeconds {
        self.now
    }
}

/// A bumped rule without a credential, changed by `change`.
pub(crate) fn rule(host: &str, change: impl FnOnce(&mut Rule)) -> Rule {
    let mut rule = Rule {
        id: RuleId::new(format!("rule {host}")),
        host: HostPattern::parse(host).unwrap(),
        ports: vec![Port::HTTPS],
        posture: Posture::Bump,
        protocol: TunnelProtocol::Tls,
        plaintext: false,
        encrypted_client_hello: false,
        token: TokenDemand::Required,
        requests: RequestRules::default(),
        injection: None,
        limits: DestinationLimits::default(),
        addresses: Default::default(),
    };
    change(&mut rule);
    rule
}

/// A bumped rule that injects the credential `<host>-key` into `Authorization`, changed by `change`.
pub(crate) fn injecting(host: &str, change: impl FnOnce(&mut Rule)) -> Rule {
    rule(host, |rule| {
        rule.injection = Some(Injection {
            credential: CredentialName::new(format!("{host}-key")),
            form: header_form("authorization"),
            over_plaintext: false,
        });
        change(rule);
    })
}

pub(crate) fn header_form(name: &str) -> InjectionForm {
    InjectionForm::Header {
        name: HeaderName::from_bytes(name.as_bytes()).unwrap(),
        prefix: String::new(),
        suffix: String::new(),
    }
}

pub(crate) fn query_form(parameter: &str) -> InjectionForm {
    InjectionForm::Query {
        parameter: parameter.to_owned(),
    }
}

/// A rule's form in its place.
pub(crate) fn with_form(form: InjectionForm) -> impl FnOnce(&mut Rule) {
    |rule| rule.injection.as_mut().unwrap().form = form
}

pub(crate) fn policy(rules: Vec<Rule>) -> Policy {
    Policy::new(
        rules,
        DenySet::default(),
        SessionLimits::default(),
        vec![HeaderName::from_static("x-token")],
    )
}

/// Methods, paths and headers (`name: a|b`, or `name` alone) that a rule covers.
pub(crate) fn requests(methods: &[&str], paths: &[&str], headers: &[&str]) -> RequestRule {
    RequestRule {
        methods: methods.iter().map(|m| m.parse().unwrap()).collect(),
        paths: paths
            .iter()
            .map(|p| PathPattern::parse(p).unwrap())
            .collect(),
        headers: headers
            .iter()
            .map(|text| match text.split_once(": ") {
                Some((name, values)) => (
                    name.parse().unwrap(),
                    values.split('|').map(str::to_owned).collect(),
                ),
                None => (text.parse().unwrap(), Vec::new()),
            })
            .collect(),
    }
}

pub(crate) fn to(target: &str) -> Destination {
    identify_connect(target).unwrap()
}

pub(crate) fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    map
}

pub(crate) fn allowed(policy: &Policy, target: &str) -> AllowedDestination {
    policy.allow(to(target)).unwrap()
}

pub(crate) fn permit(policy: &Policy, destination: Destination) -> Permit {
    let allowed = policy.allow(destination).unwrap();
    authorize(allowed, &Method::GET, "/", &HeaderMap::new()).unwrap()
}

/// The session that a token proves.
pub(crate) fn session(token: &str) -> Session {
    let headers = headers(&[("proxy-authorization", &format!("Bearer {token}"))]);
    attribute_known(&FakePlane::default(), &presented_to_proxy(&headers))
        .unwrap()
        .unwrap()
}

/// A request as a test writes it.
pub(crate) struct Asked<'a> {
    pub(crate) to: Destination,
    pub(crate) attributed: Option<Session>,
    pub(crate) method: Method,
    pub(crate) target: &'a str,
    pub(crate) headers: Vec<(&'a str, &'a str)>,
}

/// `GET` of a target on `host:443`, with its `Host` and these further fields.
pub(crate) fn get<'a>(host: &'a str, target: &'a str, more: &[(&'a str, &'a str)]) -> Asked<'a> {
    let mut headers = vec![("host", host)];
    headers.extend(more);
    Asked {
        to: to(&format!("{host}:443")),
        attributed: None,
        method: Method::GET,
        target,
        headers,
    }
}

impl Asked<'_> {
    pub(crate) fn attributed_to(mut self, token: &str) -> Self {
        self.attributed = Some(session(token));
        self
    }

    pub(crate) fn in_clear(mut self) -> Self {
        self.to = to(&format!("{}:80", self.to.host())).in_clear();
        self
    }

    pub(crate) fn judge(
        &self,
        plane: &FakePlane,
        policy: &Policy,
    ) -> Result<InjectionPlan<String>, Denial> {
        let target: Uri = self.target.parse().unwrap();
        finished(judge_request(
            plane,
            policy,
            &RequestEvidence {
                destination: &self.to,
                attributed: self.attributed.as_ref(),
                method: &self.method,
                target: &target,
                headers: &headers(&self.headers),
            },
        ))
    }
}

/// Whether a later policy carries on what was passed.
pub(crate) fn carried_on(
    policy: &Policy,
    pass: &ConnectionPass,
    upstream: Option<SocketAddr>,
) -> Result<(), Denial> {
    still_allowed(policy, pass.allowed(), pass.session(), upstream)
}

pub(crate) fn code<T>(result: Result<T, Denial>) -> Option<DenyCode> {
    result.err().map(|denial| denial.code())
}

/// Runs a future that never waits.
pub(crate) fn finished<F: Future>(future: F) -> F::Output {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("nothing in the journey waits by itself"),
    }
}
