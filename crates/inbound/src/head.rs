//! A request's head as the service gets it. What says who calls, from where and to which host is the gateway's word alone:
//! the caller's own is taken out, in whatever spelling a server would take for it.

use std::net::SocketAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri, Version,
    header::{AUTHORIZATION, CONNECTION, COOKIE, EXPECT, HOST, UPGRADE},
    request::Parts,
    uri::PathAndQuery,
};
use outgate_config::Inbound;
use outgate_issuer::VerifiedClaims;
use outgate_journey::{
    authorize::OVERRIDE_HEADERS,
    denial::{Denial, DenyCode},
    outgoing::{strip_hop_by_hop, twin_of},
};

use crate::verdict::Admitted;

const SUBJECT: HeaderName = HeaderName::from_static("x-outgate-subject");
const ISSUER: HeaderName = HeaderName::from_static("x-outgate-issuer");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names that are the gateway's to say, besides those that begin with one of [`OWN_PREFIXES`].
const OWN: [&str; 6] = [
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "x-request-id",
    "proxy",
];
const OWN_PREFIXES: [&str; 2] = ["x-outgate-", "x-forwarded-"];
/// Names that mean something to a server in their own spelling, and in no other to this one.
const MEANT: [&str; 7] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "host",
    "transfer-encoding",
    "upgrade",
];

/// How the request came in.
pub(crate) struct Arrival<'a> {
    pub(crate) client: SocketAddr,
    pub(crate) is_tls: bool,
    pub(crate) request_id: &'a str,
}

/// Makes the head that is sent.
///
/// # Errors
/// [`DenyCode::InternalFault`] where what the gateway says does not fit a field.
pub(crate) fn prepare(
    parts: &mut Parts,
    rules: &Inbound,
    admitted: &Admitted,
    arrival: &Arrival<'_>,
) -> Result<(), Denial> {
    let headers = &mut parts.headers;
    strip_hop_by_hop(headers);
    // Answered here: the body is on its way.
    headers.remove(EXPECT);
    strip_claims(headers);
    // What was not verified must not look as if it had been.
    if !rules.forward_token || admitted.caller.is_none() {
        headers.remove(AUTHORIZATION);
    }
    if let Some(caller) = &admitted.caller {
        say_who(headers, caller)?;
    }
    let proto = if arrival.is_tls { "https" } else { "http" };
    let client = arrival.client.ip().to_canonical().to_string();
    headers.insert(FORWARDED_FOR, value(&client)?);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
    headers.insert(FORWARDED_HOST, value(admitted.host.as_str())?);
    headers.insert(REQUEST_ID, value(arrival.request_id)?);
    if admitted.is_upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    headers.remove(HOST);
    if rules.to.is_http2 {
        parts.version = Version::HTTP_2;
    } else {
        headers.insert(HOST, value(&rules.to.authority)?);
        join_cookies(headers)?;
        parts.version = Version::HTTP_11;
    }
    parts.uri = target(rules, parts.uri.path_and_query())?;
    Ok(())
}

/// The place is the file's, the path is the caller's, byte for byte.
fn target(rules: &Inbound, path: Option<&PathAndQuery>) -> Result<Uri, Denial> {
    let scheme = if rules.to.is_tls { "https" } else { "http" };
    Uri::builder()
        .scheme(scheme)
        .authority(rules.to.authority.as_str())
        .path_and_query(path.map_or("/", PathAndQuery::as_str))
        .build()
        .map_err(|error| Denial::new(DenyCode::InternalFault).because(error.to_string()))
}

fn say_who(headers: &mut HeaderMap, caller: &VerifiedClaims) -> Result<(), Denial> {
    headers.insert(SUBJECT, value(&encoded(&caller.subject))?);
    headers.insert(ISSUER, value(&encoded(&caller.issuer))?);
    Ok(())
}

fn value(text: &str) -> Result<HeaderValue, Denial> {
    HeaderValue::from_str(text)
        .map_err(|error| Denial::new(DenyCode::InternalFault).because(error.to_string()))
}

/// Visible ASCII as it is; everything else, and `%`, percent-encoded: no server reads it in another way.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Takes out what only the gateway may say, and what asks the service for another method or path than the one judged.
/// In every spelling: see [`twin_of`].
pub(crate) fn strip_claims(headers: &mut HeaderMap) {
    let is_own = |name: &str| {
        OWN.contains(&name)
            || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || OVERRIDE_HEADERS.iter().any(|known| *known == *name)
    };
    let found: Vec<HeaderName> = headers
        .keys()
        .filter(|name| match twin_of(name) {
            Some(meant) => is_own(&meant) || MEANT.contains(&meant.as_str()),
            None => is_own(name.as_str()),
        })
        .cloned()
        .collect();
    for name in found {
        headers.remove(name);
    }
}

/// HTTP/2 may split a cookie field; HTTP/1.1 has one (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> Result<(), Denial> {
    let pieces: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if pieces.len() > 1 {
        let joined = HeaderValue::from_bytes(&pieces.join(&b"; "[..]))
            .map_err(|error| Denial::new(DenyCode::InternalFault).because(error.to_string()))?;
        headers.insert(COOKIE, joined);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_gateway_may_say_is_taken_out_in_every_spelling() {
        let mut headers = HeaderMap::new();
        let taken = [
            "x-outgate-subject",
            "X-Outgate-Issuer",
            "x-outgate-anything",
            "x_outgate_subject",
            "X_Outgate-Subject",
            "X.Outgate.Subject",
            "x!outgate~subject",
            "x.forwarded.for",
            "content_length",
            "Transfer.Encoding",
            "x-forwarded-for",
            "x_forwarded_for",
            "x-forwarded-user",
            "forwarded",
            "x-real-ip",
            "x-original-url",
            "x-http-method-override",
            "x_http_method_override",
            "proxy",
            "x-request-id",
        ];
        let kept = [
            "x-outgat",
            "authorization",
            "cookie",
            "x-mine",
            "traceparent",
        ];
        for name in taken.iter().chain(&kept) {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_static("v"),
            );
        }
        strip_claims(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let mut expected = kept.to_vec();
        expected.sort_unstable();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_name_has_one_spelling_in_a_field() {
        for (name, expected) in [
            ("ann", "ann"),
            ("system:serviceaccount:a:b", "system:serviceaccount:a:b"),
            ("https://idp.test/", "https://idp.test/"),
            ("ann b", "ann%20b"),
            ("100%", "100%25"),
            ("müller", "m%C3%BCller"),
        ] {
            assert_eq!(encoded(name), expected);
        }
    }
}
