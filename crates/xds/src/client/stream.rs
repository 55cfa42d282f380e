//! One stream, from the client's side, in either protocol: what is wanted goes out, and what is given comes in.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::stream::unfold;
use http::{Uri, uri::PathAndQuery};
use prost::Message;
use tokio::sync::mpsc;
use tonic::{Streaming, client::Grpc};
use tonic_prost::ProstCodec;

use super::{
    Shared,
    follow::Ended,
    link::Link,
    secret::{Secret, SecretValue},
};
use crate::pb;

/// The longest response.
const RESPONSE_BYTES: usize = 16 * 1024 * 1024;
/// Requests that wait to be sent.
const QUEUE: usize = 16;
/// How long they may.
const SENDING: Duration = Duration::from_secs(10);
/// Names that a refusal lists.
const NAMED: usize = 8;

const ENDED: &str = "it has ended the stream";

/// One stream's side of a protocol: it reads and writes messages, and does no I/O.
pub(super) trait Talk: Default {
    const PATH: &'static str;
    type Request: Message + 'static;
    type Response: Message + Default + 'static;

    /// Who we are, and all that is wanted.
    fn first(&mut self, shared: &Shared) -> Self::Request;
    /// Another name is wanted, one is no more, or time has passed: what is to be said of that.
    fn tell(&mut self, shared: &Shared) -> Option<Self::Request>;
    /// Takes in what was given; what is said to that.
    fn take(&mut self, shared: &Shared, response: Self::Response) -> Self::Request;
}

/// Until the stream ends.
pub(super) async fn run<T: Talk>(shared: &Shared, link: Link, origin: Uri) -> Ended {
    let (requests, queue) = mpsc::channel(QUEUE);
    let mut talk = T::default();
    if let Err(ended) = send(&requests, talk.first(shared)).await {
        return ended;
    }
    let mut grpc = Grpc::with_origin(link, origin).max_decoding_message_size(RESPONSE_BYTES);
    let mut call = pin!(async move {
        let outbound = unfold(queue, |mut queue| async {
            Some((queue.recv().await?, queue))
        });
        grpc.ready()
            .await
            .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::default();
        let path = PathAndQuery::from_static(T::PATH);
        grpc.streaming(tonic::Request::new(outbound), path, codec)
            .await
    });
    let mut inbound: Option<Streaming<T::Response>> = None;
    loop {
        // A server may keep quiet until it has something to say; what is wanted meanwhile is said all the same.
        let went = tokio::select! {
            answer = call.as_mut(), if inbound.is_none() => match answer {
                Ok(answer) => {
                    shared.connected();
                    inbound = Some(answer.into_inner());
                    Ok(())
                }
                Err(status) => Err(status.into()),
            },
            message = next(&mut inbound) => match message {
                Ok(Some(response)) => send(&requests, talk.take(shared, response)).await,
                Ok(None) => Err(Ended::Problem(ENDED.to_owned())),
                Err(status) => Err(status.into()),
            },
            () = shared.wanted.notified() => match talk.tell(shared) {
                Some(request) => send(&requests, request).await,
                None => Ok(()),
            },
        };
        if let Err(ended) = went {
            return ended;
        }
    }
}

/// The next message; never, where the answer has not begun.
async fn next<T>(inbound: &mut Option<Streaming<T>>) -> Result<Option<T>, tonic::Status> {
    match inbound {
        Some(inbound) => inbound.message().await,
        None => std::future::pending().await,
    }
}

async fn send<T>(requests: &mpsc::Sender<T>, request: T) -> Result<(), Ended> {
    match requests.send_timeout(request, SENDING).await {
        Ok(()) => Ok(()),
        Err(_) => Err(Ended::Problem(
            "it does not read what it is sent".to_owned(),
        )),
    }
}

/// Takes a secret in.
pub(super) fn give(
    shared: &Shared,
    name: &str,
    version: Arc<str>,
    value: Option<SecretValue>,
    expires: Option<Instant>,
) {
    let secret = value.map(|value| Secret {
        name: name.into(),
        version: Arc::clone(&version),
        value,
    });
    shared.cache().given(name, version, secret, expires);
}

/// What a server is told that sent what cannot be used.
pub(super) fn refusal(refused: &[(String, &'static str)]) -> Option<pb::Status> {
    if refused.is_empty() {
        return None;
    }
    let named = refused.iter().take(NAMED);
    let named: Vec<String> = named.map(|(name, why)| format!("{name}: {why}")).collect();
    Some(pb::Status {
        code: tonic::Code::InvalidArgument.into(),
        message: format!("{} unusable: {}", refused.len(), named.join("; ")),
        ..pb::Status::default()
    })
}
