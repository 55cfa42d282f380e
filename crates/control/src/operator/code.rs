//! The codes with which the operator's door says no: a closed vocabulary and a public format. The OpenAPI document, the
//! answers, the records and the page that lists them all read this one table.

use std::fmt;

macro_rules! codes {
    ($($variant:ident $code:literal $status:literal $title:literal $remedy:literal;)*) => {
        /// Why an operator's call was refused, as sent in `code` and written to the audit trail.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode { $(#[doc = $title] $variant,)* }

        impl ErrorCode {
            /// Every code, in the order in which a call meets them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable spelling.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $code,)* } }

            /// The HTTP status of the answer.
            #[must_use]
            pub const fn status(self) -> u16 { match self { $(Self::$variant => $status,)* } }

            /// One sentence: what happened.
            #[must_use]
            pub const fn title(self) -> &'static str { match self { $(Self::$variant => $title,)* } }

            /// One sentence: what to do about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str { match self { $(Self::$variant => $remedy,)* } }
        }
    };
}

codes! {
    // the door
    MalformedRequest "malformed_request" 400 "The request is not one valid HTTP/1.1 request, or took too long." "Send a whole one with one Host and one length, without long pauses.";
    PeerNotAllowed "peer_not_allowed" 403 "The socket's peer is another user." "Run the command as the gateway's own user.";
    // who asks
    CredentialMissing "credential_missing" 401 "The call carries no credential." "Send `Authorization: Bearer` with an operator's token.";
    CredentialInvalid "credential_invalid" 401 "The credential is not one of an operator." "Use a token that the gateway's configuration names, or one of a configured identity provider.";
    WebhookUnverified "webhook_unverified" 401 "The webhook's signature does not verify." "Sign with the configured secret or key, as Standard Webhooks says.";
    WebhookOutdated "webhook_outdated" 401 "The webhook's timestamp is not of this moment." "Set the sender's clock; send with a timestamp within five minutes and after the gateway's start.";
    // what is asked
    UnknownRoute "unknown_route" 404 "There is no such route." "See /v1/openapi.json.";
    MethodNotAllowed "method_not_allowed" 405 "The route does not have this method." "Use one of those in `Allow`.";
    ScopeMissing "scope_missing" 403 "The identity lacks the scope." "Ask for one of the scopes that the route names.";
    TenantBound "tenant_bound" 403 "The identity is bound to a tenant, and this is for more than that tenant to say." "Use an identity that is not bound to a tenant.";
    TooBusy "too_busy" 429 "There are too many calls at once." "Try again after the time in Retry-After; calls that end or deny sessions are served all the same.";
    BodiesStayLocal "bodies_stay_local" 403 "Bodies are shown on the gateway's own machine alone." "Ask on the Unix socket, as the gateway's own user; everything else is shown here too.";
    AuditUnavailable "audit_unavailable" 503 "The audit trail cannot be written." "Check the audit store; `in_effect` says whether the call had its effect.";
    BodyTooLarge "body_too_large" 413 "The body is larger than 64 KiB." "Send a smaller one.";
    BodyIncomplete "body_incomplete" 400 "The body did not arrive as announced, or in time." "Send it whole, within five seconds.";
    UnsupportedMediaType "unsupported_media_type" 415 "The body is not JSON." "Send it as application/json.";
    InvalidBody "invalid_body" 400 "The body does not have the form that the route asks for." "See the route's schema in /v1/openapi.json.";
    InvalidQuery "invalid_query" 400 "The query does not have the form that the route asks for." "See the route's parameters in /v1/openapi.json.";
    InvalidId "invalid_id" 400 "The id in the path is not one." "Ids are 1 to 64 letters, digits, `_` and `-`; tenants may have `.`, `:` and `@` as well.";
    InvalidTtl "invalid_ttl" 400 "A token cannot live that long." "Ask for 1 second up to what `sessions.ttl` says.";
    InvalidLimits "invalid_limits" 400 "A limit cannot be read." "Write rates as `120/min` and numbers from 1.";
    TokenInText "token_in_text" 400 "A text holds what looks like a token." "Texts are recorded: give ids and reasons, never a token.";
    UnknownPolicy "unknown_policy" 400 "The configuration has no policy of this name." "Use a name under `policies`.";
    UntilPassed "until_passed" 400 "The entry's end has passed." "Give a time to come, in seconds since 1970.";
    // what there is
    FollowsControlPlane "follows_control_plane" 409 "This gateway follows a control plane, which issues the sessions." "Ask the control plane.";
    UnknownSession "unknown_session" 404 "There is no such session." "See the list of sessions.";
    SessionOver "session_over" 409 "The session is over." "Create another one.";
    ExternalSession "external_session" 409 "The session's tokens come from another issuer." "Ask that issuer for a fresh token.";
    NotDenied "not_denied" 404 "The denylist has no such entry." "See the denylist.";
    KillSwitchOn "kill_switch" 409 "The kill switch is on." "Lift it first.";
    QuotaExceeded "quota_exceeded" 429 "The number of live sessions is used up." "End sessions, or ask for a higher quota.";
    CreationsLimited "creations_limited" 429 "Sessions are created faster than the configuration allows." "Try again after the time in Retry-After.";
    // what the gateway cannot do
    NotReady "not_ready" 503 "The gateway should be given no new work." "The detail says what it waits for.";
    ReloadRefused "reload_refused" 422 "The configuration cannot be taken over; the one before stays in force." "Mend what the detail names.";
    PolicyUnreadable "policy_unreadable" 503 "The policy in force cannot be shown." "See the gateway's log.";
    AuditUnreadable "audit_unreadable" 503 "The audit trail cannot be read." "Check the audit store.";
    KeysUnavailable "keys_unavailable" 503 "A signing key or token could not be made." "See the gateway's log.";
    StoreUnavailable "store_unavailable" 503 "The session store cannot be written." "Check the disk of the state folder; `in_effect` says whether the call had its effect.";
    InternalFault "internal_fault" 500 "The gateway failed, so it refused." "See the gateway's log; the record has the request id.";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The codes as a table for people, in Markdown.
#[must_use]
pub fn codes_table() -> String {
    let rows = ErrorCode::ALL.iter().map(|code| {
        let (status, title, remedy) = (code.status(), code.title(), code.remedy());
        format!("| `{code}` | {status} | {title} | {remedy} |\n")
    });
    let head = "| code | status | what happened | what to do |\n|---|---|---|---|\n";
    head.to_owned() + &rows.collect::<String>()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_distinct_snake_case_with_an_error_status_and_sentences() {
        let mut seen = HashSet::new();
        for code in ErrorCode::ALL {
            assert!(seen.insert(code.as_str()), "{code} twice");
            let snake = |b: u8| b.is_ascii_lowercase() || b == b'_';
            assert!(code.as_str().bytes().all(snake), "{code}");
            assert!((400..600).contains(&code.status()), "{code}");
            assert!(
                code.title().ends_with('.') && code.remedy().ends_with('.'),
                "{code}"
            );
        }
    }
}
