//! Envoy's questions about requests: what the journey is told is what Envoy said, and no text changes its place.

use http::{HeaderName, HeaderValue, header::HOST};
use outgate_envoy::{
    fuzz::{Told, legs, told},
    render::names::{CLAIMS, CLAIMS_PROXY, CLAIMS_REQUEST, CONNECTION_HEADER},
};
use outgate_envoy_proto::envoy::{
    config::core::v3::Metadata,
    service::auth::v3::{AttributeContext, CheckRequest, attribute_context::HttpRequest},
};
use prost::Message;
use prost_types::value::Kind;

/// What is read of a question with the few fields that are looked at, and of its metadata without decoding them, is what
/// the protocol's whole messages say: method, authority, target, fields, server name, and whose tokens were verified.
pub fn evidence(input: &[u8]) {
    let Some((leg, question)) = input.split_first() else {
        return;
    };
    let leg = legs()[usize::from(*leg) % legs().len()];
    // Nothing is promised of what is no question, but that it is survived.
    let _ = told(leg, question.to_vec().into());
    let Ok(question) = CheckRequest::decode(question) else {
        return;
    };
    // Envoy writes each field once.
    let Some(told) = told(leg, question.encode_to_vec().into()) else {
        return;
    };
    let attributes = question.attributes.unwrap_or_default();
    assert_sessions(&told, attributes.metadata_context.as_ref());
    assert_request(&told, attributes);
}

fn assert_sessions(told: &Told, metadata: Option<&Metadata>) {
    let session = |of: &str| {
        let tokens = metadata?.filter_metadata.get(CLAIMS)?;
        let Kind::StructValue(claims) = tokens.fields.get(of)?.kind.as_ref()? else {
            return None;
        };
        match claims.fields.get("sub")?.kind.as_ref()? {
            Kind::StringValue(session) => Some(session.clone()),
            _ => None,
        }
    };
    assert_eq!(told.sessions, [CLAIMS_PROXY, CLAIMS_REQUEST].map(session));
}

fn assert_request(told: &Told, attributes: AttributeContext) {
    let request = attributes.request.unwrap_or_default();
    let http = request.http.expect("a request was told of");
    assert_eq!(told.method.as_str(), http.method);
    assert_eq!(
        told.server_name,
        attributes.tls_session.unwrap_or_default().sni
    );

    let sent = http.header_map.clone().unwrap_or_default().headers;
    let authority = sent.iter().rev().find(|it| it.key == ":authority");
    let authority = authority.map_or(http.host.as_bytes(), |it| it.raw_value.as_slice());
    assert_eq!(told.authority.as_bytes(), authority);

    let mut fields: Vec<_> = sent
        .iter()
        .filter(|it| !it.key.starts_with(':'))
        .map(|it| (it.key.to_ascii_lowercase(), it.raw_value.clone()))
        .collect();
    let (own, expected): (Vec<_>, Vec<_>) = fields
        .drain(..)
        .partition(|(name, _)| name == CONNECTION_HEADER);
    let own = own.into_iter().next().map(|(_, value)| value);
    let own = own.and_then(|value| HeaderValue::from_bytes(&value).ok());
    let own = own.and_then(|value| value.to_str().map(str::to_owned).ok());
    assert_eq!(told.connection, own);
    assert_fields(told, expected);
    assert_target(told, &http);
}

/// As sent, and `Host` at most once more: where HTTP/1.1 has it and Envoy has not.
fn assert_fields(told: &Told, mut expected: Vec<(String, Vec<u8>)>) {
    let mut fields: Vec<_> = told
        .headers
        .iter()
        .map(|(name, value): (&HeaderName, &HeaderValue)| {
            (name.as_str().to_owned(), value.as_bytes().to_vec())
        })
        .collect();
    if fields.len() > expected.len() {
        expected.push((HOST.as_str().to_owned(), told.authority.clone().into()));
    }
    fields.sort();
    expected.sort();
    assert_eq!(fields, expected);
}

fn assert_target(told: &Told, http: &HttpRequest) {
    if told.method == http::Method::CONNECT {
        return;
    }
    if let Some(authority) = told.target.authority() {
        assert_eq!(authority.as_str(), told.authority);
        let scheme = told.target.scheme_str().unwrap_or_default();
        assert!(http.scheme.is_empty() || scheme.eq_ignore_ascii_case(&http.scheme));
    }
    // A fragment is nobody's to send, and Envoy refuses it.
    let path = http.path.split('#').next().unwrap_or_default();
    let read = told.target.path_and_query().map_or("", |it| it.as_str());
    assert_eq!(read, path);
}
