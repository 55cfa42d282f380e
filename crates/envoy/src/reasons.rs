//! What Envoy says when it refuses or gives up by itself, as reasons of our vocabulary: one table for the answers that it
//! renders and for the records of its access log. The first that matches counts.

use outgate_journey::denial::DenyCode;

/// Where a reason is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// `%RESPONSE_CODE_DETAILS%` is this.
    DetailsAre(&'static str),
    /// It starts with this.
    DetailsStart(&'static str),
    /// It has this in it.
    DetailsHave(&'static str),
    /// This is among `%RESPONSE_FLAGS%`.
    Flag(&'static str),
}

/// One reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// Where it is found.
    pub found: Found,
    /// What it is to us.
    pub code: DenyCode,
}

const fn reason(found: Found, code: DenyCode) -> Reason {
    Reason { found, code }
}

/// Every reason.
pub const REASONS: &[Reason] = &[
    // The static gates behind the journey's verdict.
    reason(
        Found::DetailsHave("matched_policy[server_name_mismatch]"),
        DenyCode::ServerNameMismatch,
    ),
    reason(
        Found::DetailsHave("matched_policy[authority_mismatch]"),
        DenyCode::AuthorityMismatch,
    ),
    reason(
        Found::DetailsHave("matched_policy[path_ambiguous]"),
        DenyCode::PathAmbiguous,
    ),
    reason(
        Found::DetailsHave("matched_policy[no_decision]"),
        DenyCode::InternalFault,
    ),
    reason(
        Found::DetailsHave("matched_policy[address_denied]"),
        DenyCode::AddressDenied,
    ),
    reason(
        Found::DetailsStart("rbac_access_denied"),
        DenyCode::RequestDenied,
    ),
    reason(
        Found::DetailsStart("route_not_found"),
        DenyCode::DestinationNotAllowed,
    ),
    reason(
        Found::DetailsStart("direct_response"),
        DenyCode::DestinationNotAllowed,
    ),
    reason(
        Found::DetailsAre("upgrade_failed"),
        DenyCode::UpgradeNotSupported,
    ),
    // The control plane did not answer.
    reason(
        Found::DetailsStart("ext_authz_error"),
        DenyCode::InternalFault,
    ),
    reason(
        Found::DetailsStart("rate_limiter_error"),
        DenyCode::InternalFault,
    ),
    reason(
        Found::DetailsStart("ext_proc_error"),
        DenyCode::InternalFault,
    ),
    reason(
        Found::DetailsHave("failed_to_inject_credential"),
        DenyCode::CredentialUnavailable,
    ),
    // What arrived is no request.
    reason(
        Found::DetailsAre("request_headers_too_large"),
        DenyCode::HeaderTooLarge,
    ),
    reason(
        Found::DetailsStart("http1.headers_too_large"),
        DenyCode::HeaderTooLarge,
    ),
    reason(
        Found::DetailsStart("http2.too_many_headers"),
        DenyCode::HeaderTooLarge,
    ),
    reason(
        Found::DetailsStart("http1.too_many_headers"),
        DenyCode::HeaderTooLarge,
    ),
    reason(
        Found::DetailsStart("request_header_timeout"),
        DenyCode::RequestTimeout,
    ),
    reason(
        Found::DetailsStart("request_overall_timeout"),
        DenyCode::RequestTimeout,
    ),
    reason(Found::DetailsStart("http1."), DenyCode::MalformedRequest),
    reason(Found::DetailsStart("http2."), DenyCode::MalformedRequest),
    reason(Found::Flag("DPE"), DenyCode::MalformedRequest),
    reason(
        Found::DetailsStart("missing_host_header"),
        DenyCode::MalformedRequest,
    ),
    reason(
        Found::DetailsStart("absolute_path_rejected"),
        DenyCode::MalformedRequest,
    ),
    reason(
        Found::DetailsStart("path_normalization_failed"),
        DenyCode::PathAmbiguous,
    ),
    reason(
        Found::DetailsStart("low_version"),
        DenyCode::MalformedRequest,
    ),
    reason(Found::DetailsStart("invalid"), DenyCode::MalformedRequest),
    reason(
        Found::DetailsStart("overload"),
        DenyCode::TooManyConnections,
    ),
    reason(Found::Flag("OM"), DenyCode::TooManyConnections),
    // The upstream.
    reason(Found::DetailsHave("TLS_error"), DenyCode::UpstreamTlsFailed),
    reason(
        Found::DetailsHave("CERTIFICATE_VERIFY_FAILED"),
        DenyCode::UpstreamTlsFailed,
    ),
    reason(
        Found::DetailsStart("response_timeout"),
        DenyCode::UpstreamTimeout,
    ),
    reason(
        Found::DetailsStart("upstream_response_timeout"),
        DenyCode::UpstreamTimeout,
    ),
    reason(
        Found::DetailsStart("stream_idle_timeout"),
        DenyCode::UpstreamTimeout,
    ),
    reason(Found::Flag("UT"), DenyCode::UpstreamTimeout),
    reason(
        Found::DetailsHave("connection_timeout"),
        DenyCode::UpstreamUnreachable,
    ),
    reason(Found::Flag("UF"), DenyCode::UpstreamUnreachable),
    reason(Found::Flag("UH"), DenyCode::UpstreamUnreachable),
    reason(Found::Flag("UO"), DenyCode::TooManyConnections),
    reason(Found::Flag("UC"), DenyCode::UpstreamProtocol),
    reason(Found::Flag("UR"), DenyCode::UpstreamProtocol),
    reason(Found::Flag("UPE"), DenyCode::UpstreamProtocol),
    reason(Found::Flag("NC"), DenyCode::InternalFault),
    reason(Found::Flag("NR"), DenyCode::DestinationNotAllowed),
    reason(Found::Flag("SI"), DenyCode::RequestTimeout),
];

/// What Envoy's words mean, if they mean a refusal.
pub fn reason_of(details: &str, flags: &[&str]) -> Option<DenyCode> {
    let matches = |found: Found| match found {
        Found::DetailsAre(text) => details == text,
        Found::DetailsStart(text) => details.starts_with(text),
        Found::DetailsHave(text) => details.contains(text),
        Found::Flag(flag) => flags.contains(&flag),
    };
    REASONS
        .iter()
        .find(|reason| matches(reason.found))
        .map(|reason| reason.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_telling_reason_comes_first() {
        let found = |details: &str, flags: &[&str]| reason_of(details, flags);
        assert_eq!(
            found("rbac_access_denied_matched_policy[authority_mismatch]", &[]),
            Some(DenyCode::AuthorityMismatch)
        );
        assert_eq!(
            found("rbac_access_denied_matched_policy[destinations_0_]", &[]),
            Some(DenyCode::RequestDenied)
        );
        assert_eq!(
            found(
                "upstream_reset_before_response_started{remote_connection_failure|TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:TLS_error_end}",
                &["UF"]
            ),
            Some(DenyCode::UpstreamTlsFailed)
        );
        assert_eq!(found("via_upstream", &[]), None);
    }
}
