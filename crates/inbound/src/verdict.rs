//! Decides whether a request is let in: the one place that does. What it is must be beyond doubt first, because the
//! service will read it again; then it is exempt, or its one token verifies. Whatever fails denies.

use std::sync::Arc;

use http::{
    HeaderMap, Method, Uri, Version,
    header::{HOST, UPGRADE},
    uri::Authority,
};
use outgate_config::{Exemption, Inbound};
use outgate_issuer::{ClaimsFault, OperatorTokens, VerifiedClaims};
use outgate_journey::{
    denial::{Denial, DenyCode},
    name::HostName,
    path::is_ambiguous,
    session::UnixSeconds,
};

use crate::bearer::bearer_token;

/// What a request says of itself, and how it came in.
pub(crate) struct Evidence<'a> {
    pub(crate) method: &'a Method,
    pub(crate) target: &'a Uri,
    pub(crate) version: Version,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) is_tls: bool,
}

/// A request that is let in.
pub(crate) struct Admitted {
    /// Whose it is; `None`: it needs no token, and whatever it presents was not looked at.
    pub(crate) caller: Option<Arc<VerifiedClaims>>,
    /// The host that it named, as written.
    pub(crate) host: Authority,
    /// Whether WebSocket is asked for.
    pub(crate) is_upgrade: bool,
}

/// Judges one request. Waits, within bounds, for keys that the token needs and that are not known yet.
///
/// # Errors
/// Why it is refused.
pub(crate) async fn judge(
    rules: &Inbound,
    tokens: &OperatorTokens,
    evidence: &Evidence<'_>,
    now: impl Fn() -> UnixSeconds,
) -> Result<Admitted, Denial> {
    judge_form(evidence)?;
    let host = judge_host(&rules.hosts, evidence)?;
    let is_upgrade = judge_upgrade(evidence, rules.to.is_http2)?;
    if !is_upgrade && is_exempt(&rules.exempt, evidence) {
        let caller = None;
        return Ok(Admitted {
            caller,
            host,
            is_upgrade,
        });
    }
    let token = bearer_token(evidence.headers)?;
    tokens.prepare(token, now()).await;
    let caller = tokens.verify_claims(token, now()).map_err(refused)?;
    Ok(Admitted {
        caller: Some(caller),
        host,
        is_upgrade,
    })
}

/// A token is not refused for what its issuer did not say; the request is.
fn refused(fault: ClaimsFault) -> Denial {
    let code = match fault {
        ClaimsFault::Expired => DenyCode::BearerExpired,
        _ if fault.is_for_want_of_keys() => DenyCode::IssuerUnavailable,
        ClaimsFault::Invalid(_) => DenyCode::BearerInvalid,
    };
    Denial::new(code).because(fault.to_string())
}

/// The target is a path at this service and nothing else: no other host's URL, no tunnel, no `*`.
fn judge_form(evidence: &Evidence<'_>) -> Result<(), Denial> {
    let malformed = |why| Err(Denial::new(DenyCode::MalformedRequest).because(why));
    if *evidence.method == Method::CONNECT {
        return malformed("CONNECT");
    }
    let target = evidence.target;
    if !target.path().starts_with('/') {
        return malformed("the target is not a path");
    }
    let scheme = if evidence.is_tls { "https" } else { "http" };
    match evidence.version {
        Version::HTTP_2 if target.scheme_str().is_some_and(|it| it != scheme) => {
            malformed("another :scheme than that of the connection")
        }
        Version::HTTP_2 => Ok(()),
        _ if target.scheme().is_some() || target.authority().is_some() => {
            malformed("absolute form is for proxies")
        }
        _ => Ok(()),
    }
}

/// One host, said once, and one of those that the file names.
fn judge_host(known: &[HostName], evidence: &Evidence<'_>) -> Result<Authority, Denial> {
    let invalid = |why| Denial::new(DenyCode::HostInvalid).because(why);
    let mut fields = evidence.headers.get_all(HOST).iter();
    let (field, second) = (fields.next(), fields.next());
    let field = field
        .map(|value| Authority::try_from(value.as_bytes()))
        .transpose()
        .map_err(|_| invalid("Host"))?;
    let pseudo = evidence.target.authority();
    let mismatch = match (&field, pseudo) {
        (Some(field), Some(pseudo)) => !field.as_str().eq_ignore_ascii_case(pseudo.as_str()),
        _ => false,
    };
    if mismatch || second.is_some() {
        return Err(DenyCode::AuthorityMismatch.into());
    }
    let host = field
        .or_else(|| pseudo.cloned())
        .ok_or_else(|| invalid("none"))?;
    if host.as_str().contains('@') {
        return Err(invalid("a user name"));
    }
    let is_known = || HostName::parse(host.host()).is_ok_and(|name| known.contains(&name));
    if !known.is_empty() && !is_known() {
        return Err(Denial::new(DenyCode::AuthorityMismatch).because("not one of `hosts`"));
    }
    Ok(host)
}

/// Only WebSocket is carried behind an `Upgrade` (RFC 6455 section 4.1), and only to a service that can be asked for it.
fn judge_upgrade(evidence: &Evidence<'_>, is_http2: bool) -> Result<bool, Denial> {
    let mut values = evidence.headers.get_all(UPGRADE).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(value), None)
            if value.as_bytes().eq_ignore_ascii_case(b"websocket")
                && *evidence.method == Method::GET
                && evidence.version == Version::HTTP_11
                && !is_http2 =>
        {
            Ok(true)
        }
        _ => Err(DenyCode::UpgradeNotSupported.into()),
    }
}

/// Whether no token is needed. A path that the service could read as another one is never exempt.
fn is_exempt(exemptions: &[Exemption], evidence: &Evidence<'_>) -> bool {
    let path = evidence.target.path();
    let covers = |it: &Exemption| {
        it.methods.contains(evidence.method) && it.paths.iter().any(|pattern| pattern.covers(path))
    };
    !is_ambiguous(path) && exemptions.iter().any(covers)
}
