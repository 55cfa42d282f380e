//! The head of a response to a credentialed request: scrubs its fields and decides how its body is read. Refuses
//! codings that it cannot look inside: an answer that cannot be scrubbed is not delivered.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG,
        SEC_WEBSOCKET_EXTENSIONS, TRANSFER_ENCODING,
    },
    response::Parts,
};
use http_body::Body;

use crate::{
    body::{BoxError, ScrubBody},
    decode::{Chain, Coding},
    flow::{ScrubFlow, scrub_fields},
    scrub::Scrubber,
};

/// Why a response cannot be scrubbed. The caller answers 502.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unscrubbable {
    /// Its content coding, or its messages' coding, is not known.
    #[error("the upstream's answer uses a content coding that cannot be scrubbed")]
    UnknownCoding,
    /// It has more than two content codings.
    #[error("the upstream's answer has too many content codings")]
    TooManyCodings,
    /// It is a part of a coded representation, which cannot be decoded on its own.
    #[error("the upstream's answer is a part of a compressed representation")]
    CodedPart,
    /// Its transfer coding is more than chunking.
    #[error("the upstream's answer uses a transfer coding that cannot be scrubbed")]
    TransferCoding,
}

/// Fields that are true of the coded bytes only.
const CODED_FIELDS: [HeaderName; 7] = [
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// Fields by which protocols compress single messages, out of sight of the content coding.
const MESSAGE_CODINGS: [HeaderName; 2] = [
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("connect-content-encoding"),
];
const ACCEPTED_MESSAGE_CODINGS: [HeaderName; 2] = [
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("connect-accept-encoding"),
];
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Takes the credential out of a response: out of its fields at once, out of its body and trailers as they pass.
/// A coded body is delivered decoded, and the fields that described the coded bytes are removed. `hits` counts what
/// was masked. The reason phrase of HTTP/1, an extension, is the caller's to drop.
///
/// # Errors
/// [`Unscrubbable`]; then nothing of the response may be delivered.
pub fn scrub_response<B>(
    parts: &mut Parts,
    body: B,
    scrubber: &Arc<Scrubber>,
    hits: Arc<AtomicU64>,
) -> Result<ScrubBody<B>, Unscrubbable>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let flow = scrub_head(parts, !body.is_end_stream(), scrubber, hits)?;
    Ok(ScrubBody::new(body, flow))
}

/// The same for whoever is handed the body in chunks: scrubs the fields at once, and gives what the chunks are pushed
/// through. Whether there `is_body` at all counts, because an answer without one (to HEAD, 204, 304) describes one that
/// is not there; what is pushed nevertheless (the bytes of a protocol that was switched to) is read as it stands.
///
/// # Errors
/// [`Unscrubbable`]; then nothing of the response may be delivered.
pub fn scrub_head(
    parts: &mut Parts,
    is_body: bool,
    scrubber: &Arc<Scrubber>,
    hits: Arc<AtomicU64>,
) -> Result<ScrubFlow, Unscrubbable> {
    let chain = if is_body { chain(parts)? } else { None };
    if chain.is_some() {
        CODED_FIELDS
            .iter()
            .for_each(|name| drop(parts.headers.remove(name)));
        weaken_etag(&mut parts.headers);
    }
    hits.fetch_add(
        scrub_fields(&mut parts.headers, scrubber),
        Ordering::Relaxed,
    );
    Ok(ScrubFlow::new(scrubber, chain, hits))
}

/// Asks the upstream not to compress what is going to be scrubbed: bodies, gRPC and Connect messages, WebSocket
/// frames (RFC 7692). Compressed messages could not be read at all; compressed bodies would have to be decoded.
pub fn request_accept_encoding(headers: &mut HeaderMap) {
    headers.insert(ACCEPT_ENCODING, IDENTITY);
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    for name in ACCEPTED_MESSAGE_CODINGS {
        if headers.contains_key(&name) {
            headers.insert(name, IDENTITY);
        }
    }
}

fn chain(parts: &Parts) -> Result<Option<Chain>, Unscrubbable> {
    let headers = &parts.headers;
    if tokens(headers, &TRANSFER_ENCODING)
        .any(|coding| !matches!(coding.as_str(), "chunked" | "identity"))
    {
        return Err(Unscrubbable::TransferCoding);
    }
    if MESSAGE_CODINGS
        .iter()
        .flat_map(|name| tokens(headers, name))
        .any(|coding| coding != "identity")
    {
        return Err(Unscrubbable::UnknownCoding);
    }
    let mut codings = tokens(headers, &CONTENT_ENCODING)
        .filter(|coding| coding != "identity")
        .map(|coding| match coding.as_str() {
            "gzip" | "x-gzip" => Ok(Coding::Gzip),
            "deflate" => Ok(Coding::Deflate),
            "br" => Ok(Coding::Brotli),
            "zstd" => Ok(Coding::Zstd),
            _ => Err(Unscrubbable::UnknownCoding),
        });
    let Some(first) = codings.next().transpose()? else {
        return Ok(None);
    };
    let second = codings.next().transpose()?;
    if codings.next().is_some() {
        return Err(Unscrubbable::TooManyCodings);
    }
    if parts.status == StatusCode::PARTIAL_CONTENT {
        return Err(Unscrubbable::CodedPart);
    }
    // Listed in the order in which they were applied (RFC 9110 section 8.4).
    Ok(Some(second.map_or_else(
        || Chain::new(first, None),
        |second| Chain::new(second, Some(first)),
    )))
}

/// The members of a list field, in lower case. Text outside ASCII becomes something that no coding is called.
fn tokens(headers: &HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| {
            String::from_utf8_lossy(value.as_bytes())
                .split(',')
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .map(|token| token.trim().to_ascii_lowercase())
        .filter(|token| !token.is_empty())
}

/// The decoded body is not the one that a strong validator names (RFC 9110 section 8.8.1).
fn weaken_etag(headers: &mut HeaderMap) {
    let Some(strong) = headers
        .get(ETAG)
        .filter(|value| !value.as_bytes().starts_with(b"W/"))
    else {
        return;
    };
    let weak = HeaderValue::from_bytes(&[b"W/", strong.as_bytes()].concat());
    match weak {
        Ok(weak) => drop(headers.insert(ETAG, weak)),
        Err(_) => drop(headers.remove(ETAG)),
    }
}
