//! Turns a denial into an answer: the one place that does. The same body, headers and status for every way in; a
//! program, or a model, can act on them.

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode, Version,
    header::{
        CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, PROXY_AUTHENTICATE, RETRY_AFTER,
        WWW_AUTHENTICATE,
    },
};
use outgate_journey::denial::{Denial, DenyCode, Fault};
use outgate_wire::http1::HeadFault;

const DENY_REASON: HeaderName = HeaderName::from_static("x-deny-reason");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Who asks for the token that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// The proxy: 407.
    Proxy,
    /// The destination, as far as the client knows: 401.
    Destination,
}

/// Whether the connection is good for another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// It is.
    KeepAlive,
    /// It is not.
    Close,
}

/// A connection whose input cannot be trusted is not used again. HTTP/2 tells its streams apart by itself.
pub fn afterwards(denial: &Denial, version: Version) -> Afterwards {
    let untrusted = matches!(
        denial.code(),
        DenyCode::MalformedRequest
            | DenyCode::HeaderTooLarge
            | DenyCode::RequestTimeout
            | DenyCode::CleartextHttp2
            | DenyCode::AuthorityMismatch
            | DenyCode::PolicyChanged
    );
    let close = untrusted || denial.code().fault() == Fault::Gateway;
    if close && version < Version::HTTP_2 {
        Afterwards::Close
    } else {
        Afterwards::KeepAlive
    }
}

/// Makes the answer to a refused request.
pub fn refuse(
    denial: &Denial,
    request_id: &str,
    challenge: Challenge,
    after: Afterwards,
) -> Response<Bytes> {
    let code = denial.code();
    let mut response = Response::new(Bytes::from(body(denial, request_id)));
    *response.status_mut() = status(code, challenge);
    let is_unauthorized = code.status() == 401;
    let length = response.body().len();
    let headers = response.headers_mut();
    headers.insert(DENY_REASON, HeaderValue::from_static(code.as_str()));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    // A denial speaks of this moment only.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    if is_unauthorized {
        // git sends nothing before it is asked, and then only Basic.
        let name = match challenge {
            Challenge::Proxy => PROXY_AUTHENTICATE,
            Challenge::Destination => WWW_AUTHENTICATE,
        };
        headers.append(
            name.clone(),
            HeaderValue::from_static("Basic realm=\"outgate\", charset=\"UTF-8\""),
        );
        headers.append(name, HeaderValue::from_static("Bearer realm=\"outgate\""));
    }
    if let Some(seconds) = denial.retry_after_seconds() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if after == Afterwards::Close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn status(code: DenyCode, challenge: Challenge) -> StatusCode {
    match (code.status(), challenge) {
        (401, Challenge::Proxy) => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        (number, _) => StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn body(denial: &Denial, request_id: &str) -> Vec<u8> {
    let code = denial.code();
    let value = serde_json::json!({ "error": {
        "code": code.as_str(),
        "message": code.message(),
        "remedy": code.remedy(),
        "rule": denial.rule().map(outgate_journey::policy::RuleId::as_str),
        "request_id": request_id,
    }});
    let mut bytes = serde_json::to_vec(&value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// An answer as bytes, for the leg that is not served by the HTTP library.
pub fn to_wire(response: &Response<Bytes>) -> Vec<u8> {
    let status = response.status();
    let mut out = format!(
        "HTTP/1.1 {} {}\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or("")
    )
    .into_bytes();
    for (name, value) in response.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(response.body());
    out
}

/// What a fault of the wire is as a denial.
pub fn denial_of(fault: HeadFault) -> Denial {
    match fault {
        HeadFault::Malformed(what) => Denial::new(DenyCode::MalformedRequest).because(what),
        HeadFault::TooLarge => DenyCode::HeaderTooLarge.into(),
        HeadFault::CleartextHttp2 => DenyCode::CleartextHttp2.into(),
        HeadFault::TimedOut => DenyCode::RequestTimeout.into(),
    }
}

#[cfg(test)]
mod tests {
    use outgate_journey::policy::RuleId;

    use super::*;

    #[test]
    fn a_denial_names_its_code_rule_and_remedy_but_not_its_private_detail() {
        let denial = Denial::new(DenyCode::PathNotAllowed)
            .by(&RuleId::new("destinations[0] a.test"))
            .because("private");
        let response = refuse(&denial, "r1", Challenge::Destination, Afterwards::KeepAlive);
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()["x-deny-reason"], "path_not_allowed");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["error"]["rule"], "destinations[0] a.test");
        assert_eq!(body["error"]["request_id"], "r1");
        assert!(!String::from_utf8_lossy(response.body()).contains("private"));
    }

    #[test]
    fn a_missing_token_is_asked_for_by_the_leg_that_wants_it() {
        let denial = DenyCode::TokenMissing.into();
        let proxy = refuse(&denial, "r", Challenge::Proxy, Afterwards::KeepAlive);
        assert_eq!(
            (
                proxy.status().as_u16(),
                proxy.headers().get_all("proxy-authenticate").iter().count()
            ),
            (407, 2)
        );
        let origin = refuse(&denial, "r", Challenge::Destination, Afterwards::KeepAlive);
        assert_eq!(
            (
                origin.status().as_u16(),
                origin.headers().get_all("www-authenticate").iter().count()
            ),
            (401, 2)
        );
    }

    #[test]
    fn every_code_has_an_answer() {
        for code in DenyCode::ALL {
            let response = refuse(
                &(*code).into(),
                "r",
                Challenge::Destination,
                Afterwards::Close,
            );
            assert_eq!(response.status().as_u16(), code.status());
            assert!(to_wire(&response).starts_with(b"HTTP/1.1 "));
        }
    }
}
