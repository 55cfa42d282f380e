//! The order (S3), straight down the page, once for every way in:
//! identify → authenticate → denylist → destination rule → resolve and deny-set → bump or pass through, for a
//! connection; then, for each request: agree → destination rule → authenticate → denylist → authorize → limit →
//! inject.
//!
//! A way in gathers the evidence below and calls [`judge_connection`] and [`judge_request`]; it decides nothing.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, Method, Uri, header::UPGRADE};

use crate::{
    authorize::authorize,
    denial::{Denial, DenyCode},
    destination::{Destination, agree_with_destination, agree_with_server_name, identify_name},
    inject::{AuditGate, Credentials, InjectionPlan, Presentation, plan_injection},
    limit::{Limits, admit},
    outgoing::reveals_token,
    policy::{
        AllowedDestination, Injection, InjectionForm, Policy, Port, Posture, Rule, RuleId,
        TokenDemand, TunnelProtocol,
    },
    resolve::{ResolvedDestination, Resolver, resolve},
    session::{
        Denylist, PresentedToken, Session, TokenVerifier, UnixSeconds, authenticate,
        check_denylist, presented_to_destination, recheck_denylist,
    },
};

/// What the journey needs from the plane that runs it.
pub trait Plane {
    /// Verifies tokens.
    type Tokens: TokenVerifier;
    /// Knows ended sessions.
    type Denylist: Denylist;
    /// Counts.
    type Limits: Limits;
    /// Resolves names.
    type Resolver: Resolver + Sync;
    /// Holds credentials.
    type Credentials: Credentials;
    /// Knows whether records can be written.
    type Audit: AuditGate;

    /// The token verifier.
    fn tokens(&self) -> &Self::Tokens;
    /// The denylist.
    fn denylist(&self) -> &Self::Denylist;
    /// The counters.
    fn limits(&self) -> &Self::Limits;
    /// The resolver.
    fn resolver(&self) -> &Self::Resolver;
    /// The credential store.
    fn credentials(&self) -> &Self::Credentials;
    /// The audit store's state.
    fn audit(&self) -> &Self::Audit;
    /// The wall clock, for tokens.
    fn now(&self) -> UnixSeconds;
}

/// Whose connection this is, from `Proxy-Authorization`: the first three stages, before anything is looked up.
///
/// # Errors
/// A presented token that is not good is refused, even where none is needed.
pub async fn attribute<P: Plane>(
    plane: &P,
    presented: &[PresentedToken<'_>],
) -> Result<Option<Session>, Denial> {
    for token in presented {
        plane.tokens().prepare(&token.text, plane.now()).await;
    }
    attribute_known(plane, presented)
}

/// As [`attribute`], for tokens that need nothing fetched to be verified; others are refused.
///
/// # Errors
/// As [`attribute`].
pub fn attribute_known<P: Plane>(
    plane: &P,
    presented: &[PresentedToken<'_>],
) -> Result<Option<Session>, Denial> {
    authenticate(plane.tokens(), presented, plane.now())?
        .map(|authenticated| check_denylist(plane.denylist(), authenticated))
        .transpose()
}

/// A connection that may be opened: which rule serves it and which session it is attributed to.
#[derive(Debug, Clone)]
pub struct ConnectionPass {
    allowed: AllowedDestination,
    session: Option<Session>,
}

impl ConnectionPass {
    /// The destination and its rule.
    #[must_use]
    pub const fn allowed(&self) -> &AllowedDestination {
        &self.allowed
    }

    /// The session that the connection is attributed to.
    #[must_use]
    pub const fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }
}

/// Judges a connection to `destination` that `presented` tokens came with. An opaque or passed-through tunnel shows
/// no request later, so it needs its token here; a bumped one may bring it with each request.
///
/// # Errors
/// Whatever the first failing stage says.
pub async fn judge_connection<P: Plane>(
    plane: &P,
    policy: &Policy,
    destination: Destination,
    presented: &[PresentedToken<'_>],
) -> Result<ConnectionPass, Denial> {
    let session = attribute(plane, presented).await?;
    let allowed = policy
        .allow(destination)
        .and_then(|allowed| confined(policy, session.as_ref(), allowed))
        .map_err(|denial| with_session(denial, session.as_ref()))?;
    let rule = allowed.rule();
    let shows_requests = rule.posture == Posture::Bump || rule.plaintext;
    if session.is_none() && rule.token == TokenDemand::Required && !shows_requests {
        return Err(Denial::new(DenyCode::TokenMissing).by(&rule.id));
    }
    Ok(ConnectionPass { allowed, session })
}

/// Judges a captured connection whose peer may speak first, so that nothing names its host but the address that was
/// dialled: it is taken for the one opaque destination of that port that the gateway itself resolves to this address.
///
/// # Errors
/// [`DenyCode::IpLiteral`] where there is no such destination, or more than one; [`DenyCode::TokenMissing`]; what
/// [`attribute`] gives.
pub async fn judge_dialled_address<P: Plane>(
    plane: &P,
    policy: &Policy,
    dialled: SocketAddr,
    presented: &[PresentedToken<'_>],
) -> Result<ConnectionPass, Denial> {
    let session = attribute(plane, presented).await?;
    let nameless = |why: &'static str| {
        with_session(
            Denial::new(DenyCode::IpLiteral).because(why),
            session.as_ref(),
        )
    };
    let port = Port::new(dialled.port()).ok_or_else(|| nameless("no port"))?;
    let mut found = None;
    for allowed in policy.opaque_on(port) {
        let resolved = resolve(plane.resolver(), policy, allowed.clone()).await;
        let addresses = resolved.as_ref().map_or(&[][..], |it| it.addresses());
        if !addresses.contains(&dialled) {
            continue;
        }
        if found.replace(allowed).is_some() {
            return Err(nameless("several destinations have this address"));
        }
    }
    let allowed = found.ok_or_else(|| nameless("no opaque destination has this address"))?;
    let allowed = confined(policy, session.as_ref(), allowed)
        .map_err(|denial| with_session(denial, session.as_ref()))?;
    if session.is_none() && allowed.rule().token == TokenDemand::Required {
        return Err(Denial::new(DenyCode::TokenMissing).by(&allowed.rule().id));
    }
    Ok(ConnectionPass { allowed, session })
}

/// Leaves a session what the policy has that it is confined to.
fn confined(
    policy: &Policy,
    session: Option<&Session>,
    allowed: AllowedDestination,
) -> Result<AllowedDestination, Denial> {
    if let Some(session) = session {
        policy.confine(session, allowed.rule())?;
    }
    Ok(allowed)
}

/// A name that may be looked up.
#[derive(Debug, Clone)]
pub struct NamePass {
    session: Option<Session>,
    /// A destination of each rule that lets the name out; never empty.
    allowed: Vec<AllowedDestination>,
}

impl NamePass {
    /// Whose question it was.
    #[must_use]
    pub const fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// The rule that lets the name out.
    #[must_use]
    pub fn rule(&self) -> Option<&RuleId> {
        self.allowed.first().map(|allowed| &allowed.rule().id)
    }
}

/// Judges a question about a name: only one that some rule lets out is looked up (P1).
///
/// # Errors
/// What [`attribute`] gives, [`DenyCode::HostInvalid`], [`DenyCode::IpLiteral`] or
/// [`DenyCode::DestinationNotAllowed`].
pub async fn judge_name<P: Plane>(
    plane: &P,
    policy: &Policy,
    name: &str,
    presented: &[PresentedToken<'_>],
) -> Result<NamePass, Denial> {
    let session = attribute(plane, presented).await?;
    let allowed = identify_name(name)
        .and_then(|host| policy.allow_name(&host))
        .and_then(|allowed| {
            let mut refused = None;
            let kept: Vec<_> = allowed
                .into_iter()
                .filter_map(|allowed| {
                    confined(policy, session.as_ref(), allowed)
                        .map_err(|denial| refused = Some(denial))
                        .ok()
                })
                .collect();
            refused.filter(|_| kept.is_empty()).map_or(Ok(kept), Err)
        })
        .map_err(|denial| with_session(denial, session.as_ref()))?;
    Ok(NamePass { session, allowed })
}

/// The addresses of a name that may be dialled, which are the ones that may be told; never empty.
///
/// # Errors
/// As [`resolve`].
pub async fn resolve_name<P: Plane>(
    plane: &P,
    policy: &Policy,
    pass: &NamePass,
) -> Result<Vec<IpAddr>, Denial> {
    let mut addresses = Vec::new();
    let mut refused = Denial::new(DenyCode::NameNotResolved);
    for allowed in &pass.allowed {
        match resolve(plane.resolver(), policy, allowed.clone()).await {
            Ok(resolved) => addresses.extend(resolved.addresses().iter().map(SocketAddr::ip)),
            Err(denial) => refused = denial,
        }
    }
    if addresses.is_empty() {
        return Err(with_session(refused, pass.session()));
    }
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    Ok(addresses)
}

/// Counts a connection for its session: when the session is known, before anything is dialled for it. The slot is
/// held for as long as the connection lives.
///
/// # Errors
/// [`DenyCode::ConnectionLimit`] or [`DenyCode::DestinationsLimit`].
pub fn count_connection<P: Plane>(
    plane: &P,
    policy: &Policy,
    session: &Session,
    allowed: &AllowedDestination,
) -> Result<<P::Limits as Limits>::Slot, Denial> {
    let bounds = policy.bounds_of(session);
    plane
        .limits()
        .admit_connection(session, allowed.destination(), &bounds)
        .map_err(|exceeded| {
            Denial::from(exceeded)
                .by(&allowed.rule().id)
                .of(session.id())
        })
}

/// The stage before any dial, on every way in.
///
/// # Errors
/// As [`resolve`].
pub async fn resolve_destination<P: Plane>(
    plane: &P,
    policy: &Policy,
    allowed: AllowedDestination,
) -> Result<ResolvedDestination, Denial> {
    resolve(plane.resolver(), policy, allowed).await
}

/// What the first bytes inside a tunnel are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelOpening<'a> {
    /// A TLS ClientHello.
    Tls {
        /// Its SNI, as sent.
        server_name: Option<&'a str>,
        /// Whether it has an `encrypted_client_hello` extension.
        encrypted_client_hello: bool,
    },
    /// Anything else.
    NotTls,
}

/// How a tunnel is served after its first bytes were judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelTreatment {
    /// Terminate TLS and judge each request.
    Bump,
    /// Carry the client's own TLS.
    PassThrough,
    /// Read plain HTTP and judge each request.
    PlainHttp,
}

/// Stage *bump or pass through*: the opening must be what the rule carries, and name the tunnel's own host (P3, P5).
/// Not asked for [`TunnelProtocol::Opaque`], whose peer may speak first.
///
/// # Errors
/// [`DenyCode::TlsRequired`], [`DenyCode::TlsNotAllowed`], [`DenyCode::ServerNameMissing`], [`DenyCode::ServerNameMismatch`] or
/// [`DenyCode::EncryptedClientHello`].
pub fn judge_opening(
    pass: &ConnectionPass,
    opening: TunnelOpening<'_>,
) -> Result<TunnelTreatment, Denial> {
    let rule = pass.allowed.rule();
    let deny = |code| Err(Denial::new(code).by(&rule.id));
    let TunnelOpening::Tls {
        server_name,
        encrypted_client_hello,
    } = opening
    else {
        return if rule.plaintext {
            Ok(TunnelTreatment::PlainHttp)
        } else {
            deny(DenyCode::TlsRequired)
        };
    };
    let Some(server_name) = server_name else {
        return deny(DenyCode::ServerNameMissing);
    };
    agree_with_server_name(pass.allowed.destination(), server_name)
        .map_err(|denial| denial.by(&rule.id))?;
    match rule.posture {
        Posture::Bump => Ok(TunnelTreatment::Bump),
        // Rules that only the destination's plain requests can be held against are not stepped around by TLS.
        Posture::PassThrough if !rule.requests.is_unrestricted() => deny(DenyCode::TlsNotAllowed),
        // Only the plain requests of this destination could have brought their token later.
        Posture::PassThrough if pass.session.is_none() && rule.token == TokenDemand::Required => {
            deny(DenyCode::TokenMissing)
        }
        // A terminated handshake reads the outer name only and can do so safely; a carried one would let the
        // inner name go anywhere that the outer name's servers go.
        Posture::PassThrough if encrypted_client_hello && !rule.encrypted_client_hello => {
            deny(DenyCode::EncryptedClientHello)
        }
        Posture::PassThrough => Ok(TunnelTreatment::PassThrough),
        Posture::DenyAll => deny(DenyCode::DestinationNotAllowed),
    }
}

/// Whether a policy that came later still carries this tunnel in this way, to the address that it was dialled to.
///
/// # Errors
/// [`DenyCode::PolicyChanged`].
pub fn still_allowed(
    policy: &Policy,
    allowed: &AllowedDestination,
    session: Option<&Session>,
    upstream: Option<SocketAddr>,
) -> Result<(), Denial> {
    let changed = |why: &'static str| Err(Denial::new(DenyCode::PolicyChanged).because(why));
    match policy.allow(allowed.destination().clone()) {
        Err(_) => changed("no rule covers the destination any more"),
        Ok(now) if confined(policy, session, now.clone()).is_err() => {
            changed("the session's own policy does not have the destination any more")
        }
        Ok(now) if !same_treatment(now.rule(), allowed.rule()) => {
            changed("the destination is served differently now")
        }
        Ok(now) => upstream.map_or(Ok(()), |address| {
            let judged = policy.deny_set().judge(address, &now.rule().addresses);
            judged.or_else(|_| changed("its address is not dialled any more"))
        }),
    }
}

fn same_treatment(now: &Rule, then: &Rule) -> bool {
    now.posture == then.posture
        && now.protocol == then.protocol
        // A tunnel that shows no requests is not carried under rules that judge them.
        && (now.posture == Posture::Bump || now.requests.is_unrestricted() || !then.requests.is_unrestricted())
        && (now.token == then.token || now.token == TokenDemand::Optional)
        && now.addresses == then.addresses
        && (now.encrypted_client_hello || !then.encrypted_client_hello)
}

/// A request as it arrived.
#[derive(Debug)]
pub struct RequestEvidence<'a> {
    /// The destination that the connection (or the absolute-form target) names.
    pub destination: &'a Destination,
    /// The session that the connection, or `Proxy-Authorization`, is attributed to.
    pub attributed: Option<&'a Session>,
    /// The method.
    pub method: &'a Method,
    /// The target as sent.
    pub target: &'a Uri,
    /// The header fields as sent.
    pub headers: &'a HeaderMap,
}

/// Judges one request, by the policy of this moment.
///
/// # Errors
/// Whatever the first failing stage says.
pub async fn judge_request<P: Plane>(
    plane: &P,
    policy: &Policy,
    request: &RequestEvidence<'_>,
) -> Result<InjectionPlan<<P::Credentials as Credentials>::Lease>, Denial> {
    agree_with_destination(request.destination, request.target, request.headers)?;
    judge_upgrade(request)?;
    let allowed = policy.allow(request.destination.clone())?;
    let (session, presentation) = identify_session(plane, policy, request, allowed.rule()).await?;
    let known = session.clone();
    admit_request(plane, policy, request, allowed, session, presentation)
        .map_err(|denial| with_session(denial, known.as_ref()))
}

fn with_session(denial: Denial, session: Option<&Session>) -> Denial {
    match session {
        Some(session) => denial.of(session.id()),
        None => denial,
    }
}

/// Authorize, limit, inject.
fn admit_request<P: Plane>(
    plane: &P,
    policy: &Policy,
    request: &RequestEvidence<'_>,
    allowed: AllowedDestination,
    session: Option<Session>,
    presentation: Presentation,
) -> Result<InjectionPlan<<P::Credentials as Credentials>::Lease>, Denial> {
    let permit = authorize(
        confined(policy, session.as_ref(), allowed)?,
        request.method,
        request.target.path(),
        request.headers,
    )?;
    let admission = admit(plane.limits(), policy, permit, session)?;
    plan_injection(
        plane.credentials(),
        plane.audit(),
        plane.denylist(),
        admission,
        presentation,
    )
}

/// Only WebSocket is carried behind an `Upgrade` (RFC 6455 section 4.1). `h2c` would hide every later request.
fn judge_upgrade(request: &RequestEvidence<'_>) -> Result<(), Denial> {
    let mut values = request.headers.get_all(UPGRADE).iter();
    let is_websocket =
        |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    match (values.next(), values.next()) {
        (None, _) => Ok(()),
        (Some(value), None) if is_websocket(value) && request.method == Method::GET => Ok(()),
        _ => Err(DenyCode::UpgradeNotSupported.into()),
    }
}

/// Authenticate and denylist for one request: its own token first, else the connection's.
async fn identify_session<P: Plane>(
    plane: &P,
    policy: &Policy,
    request: &RequestEvidence<'_>,
    rule: &Rule,
) -> Result<(Option<Session>, Presentation), Denial> {
    let by_rule = |denial: Denial| denial.by(&rule.id);
    let presented = presented_to_destination(
        request.headers,
        request.target.query(),
        policy.token_headers(),
        rule,
    );
    if url_reveals_token(plane, request.target, rule) {
        return Err(by_rule(DenyCode::TokenInUrl.into()));
    }
    let own = match attribute(plane, &presented).await {
        // Where nothing is injected, an Authorization that is no session token is the guest's own and its business.
        Err(denial) if denial.code() == DenyCode::TokenInvalid && rule.injection.is_none() => None,
        // What a fresh token of the same session says of the connection, the guest could say with that token itself:
        // its older one still says that this request asks for the credential.
        Err(denial) if is_renewed(plane, request.attributed, &denial) => {
            request.attributed.cloned()
        }
        other => other.map_err(by_rule)?,
    };
    // The connection's session is asked again: it may have been ended since.
    let attributed = request
        .attributed
        .map(|session| recheck_denylist(plane.denylist(), session))
        .transpose()
        .map_err(by_rule)?;
    // A tunnel outlives its token's lifetime at most until its next request.
    if let Some(session) = &attributed
        && own.is_none()
        && session.claims().expires <= plane.now()
    {
        return Err(by_rule(
            Denial::new(DenyCode::TokenExpired).of(session.id()),
        ));
    }
    if let (Some(own), Some(attributed)) = (&own, &attributed)
        && own.id() != attributed.id()
    {
        return Err(by_rule(
            Denial::new(DenyCode::SessionMismatch).of(attributed.id()),
        ));
    }
    match (own, attributed) {
        (Some(own), _) => Ok((Some(own), Presentation::ByRequest)),
        (None, Some(attributed)) => Ok((Some(attributed), Presentation::NotByRequest)),
        (None, None) if rule.token == TokenDemand::Optional => {
            Ok((None, Presentation::NotByRequest))
        }
        (None, None) => Err(by_rule(DenyCode::TokenMissing.into())),
    }
}

/// Whether the token that ran out is of the session that a token of this moment attributes the connection to.
fn is_renewed<P: Plane>(plane: &P, attributed: Option<&Session>, denial: &Denial) -> bool {
    denial.code() == DenyCode::TokenExpired
        && attributed.is_some_and(|session| {
            denial.session() == Some(session.id()) && session.claims().expires > plane.now()
        })
}

/// Whether a token stands in the URL, other than in the parameter that the credential takes the place of.
fn url_reveals_token<P: Plane>(plane: &P, target: &Uri, rule: &Rule) -> bool {
    let reveals = |text: &str| reveals_token(text, plane.tokens(), plane.now());
    let is_replaced = |pair: &str| match &rule.injection {
        Some(Injection {
            form: InjectionForm::Query { parameter },
            ..
        }) => pair
            .split_once('=')
            .is_some_and(|(key, _)| key == parameter),
        _ => false,
    };
    let query = target.query().unwrap_or_default();
    reveals(target.path())
        || query
            .split('&')
            .any(|pair| !is_replaced(pair) && reveals(pair))
}

/// Whether a tunnel's first bytes are looked at before it is carried.
#[must_use]
pub fn opening_is_judged(rule: &Rule) -> bool {
    rule.protocol == TunnelProtocol::Tls
}
