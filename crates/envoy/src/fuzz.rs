//! How Envoy's questions are read, without a door, for `fuzz/`.

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use prost::Message;

use crate::{
    control::{Evidence, Question},
    leg::Leg,
};

/// A request as the journey is told of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    /// Its method.
    pub method: Method,
    /// `:authority`, as sent.
    pub authority: String,
    /// The target.
    pub target: Uri,
    /// Its fields.
    pub headers: HeaderMap,
    /// The tunnel that it arrived in.
    pub connection: Option<String>,
    /// The SNI; empty: none.
    pub server_name: String,
    /// The sessions that Envoy verified: the proxy's, and the destination's.
    pub sessions: [Option<String>; 2],
}

/// The words that legs are told by.
#[must_use]
pub fn legs() -> [&'static str; 6] {
    Leg::ALL.map(Leg::as_str)
}

/// What an encoded `CheckRequest` says on a leg; `None` where it is refused unjudged.
#[must_use]
pub fn told(leg: &str, question: Bytes) -> Option<Told> {
    let attributes = Question::decode(question).ok()?.attributes?;
    let evidence = Evidence::read(Leg::parse(leg)?, attributes).ok()?;
    Some(Told {
        method: evidence.method,
        authority: evidence.authority,
        target: evidence.target,
        headers: evidence.headers,
        connection: evidence.connection,
        server_name: evidence.server_name,
        sessions: [evidence.verified.to_proxy, evidence.verified.to_destination],
    })
}
