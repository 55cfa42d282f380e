//! What a call may carry: a JSON body of at most 64 KiB, whole within five seconds, where its route takes one.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{code::ErrorCode, problem::Refusal, route::Takes};

/// The largest body, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// How much of a body is read, to answer that it is too large.
const MAX_DRAINED: usize = 1024 * 1024;
/// How long a body may take.
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// Reads a body, as far as the route takes one.
pub(crate) async fn read_body(
    takes: Takes,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Bytes, Refusal> {
    let incomplete = |why: &'static str| Refusal::from(ErrorCode::BodyIncomplete).because(why);
    let read = tokio::time::timeout(BODY_WITHIN, collect(body)).await;
    let body = match read.map_err(|_| incomplete("too slow"))? {
        Ok(Some(body)) => body,
        Ok(None) => return Err(ErrorCode::BodyTooLarge.into()),
        Err(_) => return Err(incomplete("broken off")),
    };
    if body.is_empty() {
        return match takes {
            Takes::Always(_) => Err(Refusal::saying(
                ErrorCode::InvalidBody,
                "the route asks for a body",
            )),
            Takes::Optionally(_) | Takes::Nothing => Ok(body),
        };
    }
    if matches!(takes, Takes::Nothing) {
        return Err(Refusal::saying(
            ErrorCode::InvalidBody,
            "the route takes no body",
        ));
    }
    let is_json = headers.get_all(CONTENT_TYPE).iter().all(|value| {
        let text = value.to_str().unwrap_or_default();
        let essence = text.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    });
    if !is_json {
        return Err(ErrorCode::UnsupportedMediaType.into());
    }
    Ok(body)
}

/// The body; `None` if it is too large. What is beyond is read and dropped for a while: to close on a caller who is
/// still sending would take the answer away from it.
async fn collect(mut body: Incoming) -> Result<Option<Bytes>, hyper::Error> {
    let (mut kept, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        length += data.len();
        if length > MAX_DRAINED {
            break;
        }
        if length <= MAX_BODY {
            kept.extend_from_slice(&data);
        }
    }
    Ok((length <= MAX_BODY).then(|| kept.into()))
}
