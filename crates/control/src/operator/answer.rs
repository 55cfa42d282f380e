//! Answers as HTTP.

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body_util::Full;

use super::problem::Refusal;

/// An answer. None of them is for a cache: they hold tokens, or what was true for a moment.
pub(crate) fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
) -> Response<Full<Bytes>> {
    let has_body = !body.is_empty();
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// A refusal's answer. Who has not said who it is has to open another connection.
pub(crate) fn refuse(refusal: &Refusal, request_id: &str, is_known: bool) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(&refusal.problem(request_id)).unwrap_or_default();
    let mut response = respond(refusal.status(), "application/problem+json", body.into());
    let headers = response.headers_mut();
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if let Some(allow) = refusal.allow.as_deref().and_then(|text| text.parse().ok()) {
        headers.insert(ALLOW, allow);
    }
    if refusal.status() == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"outgate operator\"");
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
    if !is_known {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
