//! The answer to a refused request: the gateway's own, with the challenge of RFC 6750 section 3 where a token is asked for.

use bytes::Bytes;
use http::{HeaderValue, Response, Version, header::WWW_AUTHENTICATE};
use outgate_journey::denial::{Denial, DenyCode};
use outgate_plane::answer::{Challenge, afterwards, refuse};

/// What the caller is told.
pub(crate) fn refusal(denial: &Denial, request_id: &str, version: Version) -> Response<Bytes> {
    let after = afterwards(denial, version);
    let mut response = refuse(denial, request_id, Challenge::Destination, after);
    response.headers_mut().remove(WWW_AUTHENTICATE);
    if let Some(challenge) = challenge(denial.code()) {
        let challenge = HeaderValue::from_static(challenge);
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

const fn challenge(code: DenyCode) -> Option<&'static str> {
    match code {
        // Who presented nothing is told no error.
        DenyCode::BearerMissing => Some("Bearer realm=\"outgate\""),
        DenyCode::BearerRepeated => Some(
            "Bearer realm=\"outgate\", error=\"invalid_request\", error_description=\"more than one Authorization\"",
        ),
        DenyCode::BearerInvalid => Some("Bearer realm=\"outgate\", error=\"invalid_token\""),
        DenyCode::BearerExpired => Some(
            "Bearer realm=\"outgate\", error=\"invalid_token\", error_description=\"the token has expired\"",
        ),
        _ => None,
    }
}
