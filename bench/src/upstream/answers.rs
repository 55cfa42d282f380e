//! What is answered.
//!
//! | path | answer |
//! |---|---|
//! | `/b/N` | N bytes |
//! | `/echo` | the request's line and headers, as they arrived |
//! | `/up` | takes a body of any length, says how long it was |
//! | `/sse?n=N&ms=M` | N server-sent events, M ms apart, each with the moment it was sent |
//! | `/ws` | a WebSocket that sends every message back |
//! | `/stats` | what has been counted, as JSON; not counted itself |

use std::{convert::Infallible, fmt::Write, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode, Version,
    body::{Body, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
};

use super::{
    bodies::{Events, Repeated},
    counters::Counters,
    echo,
};

pub(super) type Answer = Response<BoxBody<Bytes, Infallible>>;

pub(super) async fn answer(
    request: Request<Incoming>,
    counters: Arc<Counters>,
) -> Result<Answer, Infallible> {
    let path = request.uri().path();
    if path == "/stats" {
        return Ok(typed("application/json", text(counters.json().to_string())));
    }
    if request.version() == Version::HTTP_2 {
        counters.h2.add();
    } else {
        counters.h1.add();
    }
    let length = path.strip_prefix("/b/").map(str::parse);
    Ok(match (path, length) {
        (_, Some(Ok(length))) => typed("application/octet-stream", Repeated::new(length)),
        ("/echo", _) => typed("text/plain", text(as_it_arrived(&request))),
        ("/up", _) => typed("text/plain", text(measured(request.into_body()).await)),
        ("/sse", _) => typed("text/event-stream", events(request.uri().query())),
        ("/ws", _) => echo::upgrade(request, counters),
        _ => status(StatusCode::NOT_FOUND),
    })
}

/// An answer without a body.
pub(super) fn status(status: StatusCode) -> Answer {
    let mut answer = Response::new(text(String::new()).boxed());
    *answer.status_mut() = status;
    answer
}

fn typed<B>(kind: &'static str, body: B) -> Answer
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Sync + 'static,
{
    let mut answer = Response::new(body.boxed());
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn text(text: String) -> Full<Bytes> {
    Full::new(Bytes::from(text))
}

fn as_it_arrived(request: &Request<Incoming>) -> String {
    let (method, uri, version) = (request.method(), request.uri(), request.version());
    let mut out = format!("{method} {uri} {version:?}\n");
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name}: {value}");
    }
    out
}

async fn measured(mut body: Incoming) -> String {
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    format!("{length}\n")
}

fn events(query: Option<&str>) -> Events {
    let asked = |name: &str| {
        let pairs = query.unwrap_or_default().split('&');
        let mut pairs = pairs.filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(key, _)| *key == name)?;
        value.parse::<u64>().ok()
    };
    let every = Duration::from_millis(asked("ms").unwrap_or(50));
    Events::new(asked("n").unwrap_or(10), every)
}
