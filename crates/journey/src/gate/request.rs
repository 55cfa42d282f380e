//! One request: agree → destination rule → authenticate → denylist → authorize → limit → inject.

use http::{HeaderMap, Method, Uri, header::UPGRADE};

use super::{Plane, attribute, confined, with_session};
use crate::{
    authorize::{Permit, authorize},
    denial::{Denial, DenyCode},
    destination::{Destination, agree_with_destination},
    inject::{Credentials, InjectionPlan, Presentation, plan_injection},
    limit::admit,
    outgoing::reveals_token,
    policy::{Injection, InjectionForm, Policy, Rule, TokenDemand},
    session::{Session, presented_to_destination, recheck_denylist},
};

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

/// A request that passed every stage up to *authorize*; what is left are *limit* and *inject*.
#[derive(Debug)]
pub struct PermittedRequest {
    permit: Permit,
    session: Option<Session>,
    presentation: Presentation,
}

impl PermittedRequest {
    /// The permit.
    #[must_use]
    pub const fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Whose request it is.
    #[must_use]
    pub const fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }
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
    let permitted = permit_request(plane, policy, request).await?;
    admit_request(plane, policy, permitted)
}

/// Judges one request up to *authorize*, for a plane that comes back for the rest with [`resume_request`].
///
/// # Errors
/// Whatever the first failing stage says.
pub async fn permit_request<P: Plane>(
    plane: &P,
    policy: &Policy,
    request: &RequestEvidence<'_>,
) -> Result<PermittedRequest, Denial> {
    agree_with_destination(request.destination, request.target, request.headers)?;
    judge_upgrade(request)?;
    let allowed = policy.allow(request.destination.clone())?;
    let (session, presentation) = identify_session(plane, policy, request, allowed.rule()).await?;
    let permit = confined(policy, session.as_ref(), allowed)
        .and_then(|allowed| {
            authorize(
                allowed,
                request.method,
                request.target.path(),
                request.headers,
            )
        })
        .map_err(|denial| with_session(denial, session.as_ref()))?;
    Ok(PermittedRequest {
        permit,
        session,
        presentation,
    })
}

/// The rest of the journey of a request that was permitted a moment ago: the session is asked again, because it may have
/// been ended since.
///
/// # Errors
/// Whatever the first failing stage says.
pub fn resume_request<P: Plane>(
    plane: &P,
    policy: &Policy,
    permitted: PermittedRequest,
) -> Result<InjectionPlan<<P::Credentials as Credentials>::Lease>, Denial> {
    if let Some(session) = &permitted.session {
        recheck_denylist(plane.denylist(), session)
            .map_err(|denial| denial.by(&permitted.permit.allowed().rule().id))?;
    }
    admit_request(plane, policy, permitted)
}

/// Limit, inject.
fn admit_request<P: Plane>(
    plane: &P,
    policy: &Policy,
    permitted: PermittedRequest,
) -> Result<InjectionPlan<<P::Credentials as Credentials>::Lease>, Denial> {
    let PermittedRequest {
        permit,
        session,
        presentation,
    } = permitted;
    let known = session.clone();
    admit(plane.limits(), policy, permit, session)
        .and_then(|admission| {
            plan_injection(
                plane.credentials(),
                plane.audit(),
                plane.denylist(),
                admission,
                presentation,
            )
        })
        .map_err(|denial| with_session(denial, known.as_ref()))
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
