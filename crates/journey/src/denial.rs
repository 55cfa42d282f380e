//! Decides how the gateway says no. A refusal is a value, not an error: every stage returns
//! `Result<Proof, Denial>`, and one place turns a denial into an answer and an audit record.
//!
//! The codes are a closed vocabulary and a public format: a program, or a model, acts on them.

use std::{borrow::Cow, fmt};

use crate::{policy::RuleId, session::SessionId};

/// Whose fault a denial is: it decides the HTTP status class and who should act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request was malformed or contradicted itself.
    Client,
    /// The request was well-formed and is not allowed.
    Policy,
    /// The upstream could not be reached or misbehaved.
    Upstream,
    /// The gateway could not do its part, so it refused.
    Gateway,
}

macro_rules! deny_codes {
    ($($variant:ident $code:literal $status:literal $fault:ident $message:literal $remedy:literal;)*) => {
        /// The reason of a denial, as sent in `x-deny-reason` and written to the audit trail.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum DenyCode { $(#[doc = $message] $variant,)* }

        impl DenyCode {
            /// Every code, in the order of the journey.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable spelling.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $code,)* } }

            /// The HTTP status of the answer, on a leg that has one.
            #[must_use]
            pub const fn status(self) -> u16 { match self { $(Self::$variant => $status,)* } }

            /// Whose fault it is.
            #[must_use]
            pub const fn fault(self) -> Fault { match self { $(Self::$variant => Fault::$fault,)* } }

            /// One sentence for the client: what happened.
            #[must_use]
            pub const fn message(self) -> &'static str { match self { $(Self::$variant => $message,)* } }

            /// One sentence for the client: what to do about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str { match self { $(Self::$variant => $remedy,)* } }
        }
    };
}

deny_codes! {
    // What arrived could not be read as one request with one meaning.
    MalformedRequest "malformed_request" 400 Client "The request is not valid HTTP." "Send a well-formed request; the gateway repairs nothing.";
    HeaderTooLarge "header_too_large" 431 Client "The request head is larger than the gateway accepts." "Send fewer or shorter headers.";
    RequestTimeout "request_timeout" 408 Client "The request did not arrive in time." "Send the whole request head without long pauses.";
    CleartextHttp2 "cleartext_http2" 400 Client "HTTP/2 without TLS is not accepted." "Use HTTP/1.1, or HTTP/2 inside TLS.";
    UpgradeNotSupported "upgrade_not_supported" 400 Client "The requested protocol upgrade is not supported." "Only `Upgrade: websocket` is carried.";
    // identify
    HostInvalid "host_invalid" 400 Client "The host is not a valid name." "Use a plain DNS name.";
    IpLiteral "ip_literal" 403 Policy "Addresses are not accepted as destinations." "Use the host's name; an operator can map a name to an address under resolver.hosts.";
    AuthorityMismatch "authority_mismatch" 421 Client "The request names a different host than its connection." "Send the Host or :authority that the connection was opened for.";
    // authenticate, denylist
    TokenMissing "token_missing" 401 Policy "No session token was presented." "Send the session token where this service expects its API key, or as the proxy's password.";
    TokenInvalid "token_invalid" 401 Policy "The presented token is not a valid session token." "Use the token that this gateway issued for the session.";
    TokenExpired "token_expired" 401 Policy "The session token has expired." "Ask the operator for a fresh token.";
    SessionMismatch "session_mismatch" 403 Policy "Tokens of different sessions were presented." "Use one session's token on a connection.";
    SessionRevoked "session_revoked" 403 Policy "The session was ended." "Nothing can be done from inside the session.";
    SessionIdle "session_idle" 403 Policy "The session did nothing for too long and has ended." "Ask the operator for another session.";
    SessionLifetime "session_lifetime" 403 Policy "The session has lived for as long as a session may." "Ask the operator for another session.";
    KillSwitch "kill_switch" 403 Policy "The operator has stopped all sessions." "Nothing can be done from inside the session.";
    // destination rule
    DestinationNotAllowed "destination_not_allowed" 403 Policy "No rule allows this host." "Ask the operator to add the host under destinations.";
    PortNotAllowed "port_not_allowed" 403 Policy "No rule allows this port of the host." "Use an allowed port, or ask the operator to add it under the destination's ports.";
    PlaintextNotAllowed "plaintext_not_allowed" 403 Policy "The rule of this host does not allow plain HTTP." "Use https.";
    // resolve and deny-set
    NameNotResolved "name_not_resolved" 502 Upstream "The host's name could not be resolved." "Check the name; try again later.";
    AddressDenied "address_denied" 403 Policy "The host resolves to an address that is never dialled." "Private, local and metadata addresses need an explicit exception by the operator.";
    // bump or pass through
    TlsNotAllowed "tls_not_allowed" 403 Policy "The rule of this host judges requests, and inside this TLS they cannot be seen." "Use http, or ask the operator to bump the host.";
    TlsRequired "tls_required" 403 Policy "The tunnel does not carry TLS." "Speak TLS inside the tunnel.";
    ServerNameMissing "server_name_missing" 403 Policy "The TLS client sent no server name." "Send the SNI extension.";
    ServerNameMismatch "server_name_mismatch" 421 Client "The TLS server name differs from the tunnel's host." "Use the same host in CONNECT and in TLS.";
    EncryptedClientHello "encrypted_client_hello" 403 Policy "Encrypted ClientHello hides the server name and is not passed through." "Switch ECH off in the client.";
    TlsHandshakeFailed "tls_handshake_failed" 400 Client "The TLS handshake with the client failed." "Trust the gateway's CA and use TLS 1.2 or later.";
    CaExpired "ca_expired" 503 Gateway "The CA of the gateway has expired, so it cannot terminate TLS." "Ask the operator to renew the CA.";
    // authorize
    MethodNotAllowed "method_not_allowed" 403 Policy "No rule allows this method here." "Use an allowed method, or ask the operator.";
    PathNotAllowed "path_not_allowed" 403 Policy "No rule allows this path." "Use an allowed path, or ask the operator.";
    PathAmbiguous "path_ambiguous" 400 Client "The path can be read in more than one way." "Send it without dot segments, encoded separators, backslashes, `;` or empty segments.";
    HeaderNotAllowed "header_not_allowed" 403 Policy "The request's headers do not satisfy the rule." "Send the headers that the rule asks for, or ask the operator.";
    RequestDenied "request_denied" 403 Policy "A deny rule covers this request." "Ask the operator.";
    TokenInUrl "token_in_url" 400 Client "The session token is in the URL." "Send it in a header.";
    // limit
    RateLimited "rate_limited" 429 Policy "The session's request rate is used up." "Wait for the time in Retry-After.";
    ConnectionLimit "connection_limit" 429 Policy "The session's connections are used up." "Close connections, or wait.";
    BytesLimit "bytes_limit" 429 Policy "The session's upload budget is used up." "Ask the operator.";
    DestinationsLimit "destinations_limit" 429 Policy "The session's number of distinct destinations is used up." "Ask the operator.";
    // inject
    CredentialUnavailable "credential_unavailable" 503 Gateway "The credential of this destination is not available." "Ask the operator to check the credential's source.";
    CredentialOverPlaintext "credential_over_plaintext" 403 Policy "A credential is never sent without TLS." "Use https.";
    AuditUnavailable "audit_unavailable" 503 Gateway "The audit trail cannot be written, so nothing is sent." "Ask the operator to check the audit store.";
    DenylistStale "denylist_stale" 503 Gateway "The gateway cannot tell whether the session was ended, so no credential is attached." "Ask the operator to check the connection to the control plane.";
    // originate
    UpstreamUnreachable "upstream_unreachable" 502 Upstream "The upstream could not be reached." "Try again later.";
    UpstreamTlsFailed "upstream_tls_failed" 502 Upstream "The upstream's certificate or TLS handshake was not accepted." "Ask the operator to check upstream.roots and the upstream's certificate.";
    UpstreamTimeout "upstream_timeout" 504 Upstream "The upstream did not answer in time." "Try again later.";
    UpstreamProtocol "upstream_protocol" 502 Upstream "The upstream broke the connection or the protocol." "Try again later.";
    // scrub
    ResponseUnscrubbable "response_unscrubbable" 502 Upstream "The response is encoded in a way that the gateway cannot check for credentials." "Ask for gzip, br, zstd or no encoding.";
    // in front of a service: who calls
    BearerMissing "bearer_missing" 401 Policy "No bearer token was presented." "Send a token of a trusted issuer: `Authorization: Bearer …`.";
    BearerRepeated "bearer_repeated" 400 Client "More than one Authorization was presented." "Send exactly one Authorization field.";
    BearerInvalid "bearer_invalid" 401 Policy "The bearer token is not a good token for this service." "Get a token of a trusted issuer with this service as its audience.";
    BearerExpired "bearer_expired" 401 Policy "The bearer token has expired." "Get a fresh token.";
    IssuerUnavailable "issuer_unavailable" 503 Gateway "The keys of the token's issuer are not known, so nothing can be verified." "Try again later; the operator can check the issuer's keys.";
    // the gateway's own state
    PolicyChanged "policy_changed" 403 Policy "The policy changed while the connection was open." "Open a new connection.";
    TooManyConnections "too_many_connections" 503 Gateway "The gateway has no room for another connection." "Try again later.";
    ShuttingDown "shutting_down" 503 Gateway "The gateway is stopping." "Try again later.";
    InternalFault "internal_fault" 500 Gateway "The gateway failed while deciding, so it refused." "Tell the operator; the audit trail has the request id.";
}

impl fmt::Display for DenyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: what the client may know and what only the audit trail may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    code: DenyCode,
    detail: Cow<'static, str>,
    rule: Option<RuleId>,
    session: Option<SessionId>,
    retry_after_seconds: Option<u64>,
}

impl Denial {
    /// A denial with nothing to add to its code.
    #[must_use]
    pub const fn new(code: DenyCode) -> Self {
        Self {
            code,
            detail: Cow::Borrowed(""),
            rule: None,
            session: None,
            retry_after_seconds: None,
        }
    }

    /// Adds what only the audit trail is told. Never a secret or a token.
    #[must_use]
    pub fn because(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Names the rule that decided.
    #[must_use]
    pub fn by(mut self, rule: &RuleId) -> Self {
        self.rule = Some(rule.clone());
        self
    }

    /// Names the session whose request it was, where that was known before the refusal.
    #[must_use]
    pub fn of(mut self, session: &SessionId) -> Self {
        self.session = Some(session.clone());
        self
    }

    /// Says when a retry can succeed, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// The reason.
    #[must_use]
    pub const fn code(&self) -> DenyCode {
        self.code
    }

    /// Private detail, for the audit trail alone; empty if there is none.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The rule that decided, if one did.
    #[must_use]
    pub const fn rule(&self) -> Option<&RuleId> {
        self.rule.as_ref()
    }

    /// The session whose request it was, if that was known.
    #[must_use]
    pub const fn session(&self) -> Option<&SessionId> {
        self.session.as_ref()
    }

    /// Seconds after which a retry can succeed, if that is known.
    #[must_use]
    pub const fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after_seconds
    }
}

impl From<DenyCode> for Denial {
    fn from(code: DenyCode) -> Self {
        Self::new(code)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_distinct_snake_case_with_a_client_or_server_status() {
        let mut seen = HashSet::new();
        for code in DenyCode::ALL {
            assert!(seen.insert(code.as_str()), "{code} twice");
            assert!(
                code.as_str()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
            let expected = match code.fault() {
                Fault::Client | Fault::Policy => 400..500,
                Fault::Upstream | Fault::Gateway => 500..600,
            };
            assert!(expected.contains(&code.status()), "{code}");
            assert!(
                code.message().ends_with('.') && code.remedy().ends_with('.'),
                "{code}"
            );
        }
    }
}
