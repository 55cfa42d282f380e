//! A connection: whether it may be opened, what its first bytes make of it, and whether a policy that came later still
//! carries it.

use std::net::SocketAddr;

use super::{Plane, attribute, confined, with_session};
use crate::{
    denial::{Denial, DenyCode},
    destination::{Destination, agree_with_server_name},
    limit::Limits,
    policy::{AllowedDestination, Policy, Port, Posture, Rule, TokenDemand, TunnelProtocol},
    resolve::{ResolvedDestination, resolve},
    session::{PresentedToken, Session},
};

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

/// Whether a tunnel's first bytes are looked at before it is carried.
#[must_use]
pub fn opening_is_judged(rule: &Rule) -> bool {
    rule.protocol == TunnelProtocol::Tls
}
