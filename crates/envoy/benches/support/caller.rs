//! A gRPC client that costs little: one HTTP/2 connection to a Unix socket, as each of Envoy's workers has one.

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use h2::{SendStream, client::SendRequest};
use http::{Request, Uri};
use prost::Message;
use tokio::net::UnixStream;

/// A connection; clones share it.
#[derive(Clone)]
pub(crate) struct Caller(SendRequest<Bytes>);

impl Caller {
    pub(crate) async fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.unwrap();
        // As the rendered cluster has them.
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024)
            .max_concurrent_streams(100_000)
            .handshake(stream)
            .await
            .unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Self(sender)
    }

    /// One call, with its message as it goes over the wire.
    pub(crate) async fn call(
        &self,
        method: &'static str,
        leg: &'static str,
        message: Bytes,
    ) -> Bytes {
        let mut sender = self.0.clone().ready().await.unwrap();
        let (answer, mut body) = sender.send_request(head(method, leg), false).unwrap();
        body.send_data(message, true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut incoming = answer.into_body();
        let mut whole = BytesMut::new();
        while let Some(piece) = incoming.data().await {
            let piece = piece.unwrap();
            incoming
                .flow_control()
                .release_capacity(piece.len())
                .unwrap();
            whole.extend_from_slice(&piece);
        }
        let trailers = incoming.trailers().await.unwrap();
        let status = trailers.as_ref().and_then(|it| it.get("grpc-status"));
        assert!(status.is_some_and(|it| it == "0"), "{method}: {trailers:?}");
        whole.freeze()
    }

    /// What is at a path.
    pub(crate) async fn get(&self, path: &str) -> Bytes {
        let mut sender = self.0.clone().ready().await.unwrap();
        let uri = Uri::builder().scheme("http").authority("outgate");
        let request = Request::get(uri.path_and_query(path).build().unwrap());
        let (answer, _) = sender
            .send_request(request.body(()).unwrap(), true)
            .unwrap();
        let mut body = answer.await.unwrap().into_body();
        let mut whole = BytesMut::new();
        while let Some(piece) = body.data().await {
            whole.extend_from_slice(&piece.unwrap());
        }
        whole.freeze()
    }

    /// A stream of messages whose answer nobody waits for.
    pub(crate) async fn stream(&self, method: &'static str) -> SendStream<Bytes> {
        let mut sender = self.0.clone().ready().await.unwrap();
        let (answer, body) = sender.send_request(head(method, ""), false).unwrap();
        tokio::spawn(answer);
        body
    }
}

fn head(method: &'static str, leg: &'static str) -> Request<()> {
    let uri = Uri::builder().scheme("http").authority("outgate");
    let request = Request::post(uri.path_and_query(method).build().unwrap())
        .version(http::Version::HTTP_2)
        .header("te", "trailers")
        .header("grpc-timeout", "6000m")
        .header("content-type", "application/grpc")
        .header("x-envoy-internal", "true")
        .header("x-envoy-expected-rq-timeout-ms", "6000")
        .header("x-forwarded-for", "127.0.0.1");
    let request = if leg.is_empty() {
        request
    } else {
        request.header("leg", leg)
    };
    request.body(()).unwrap()
}

/// A message behind its length, as gRPC frames it.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    with_length(&message.encode_to_vec())
}

/// The same of one that is encoded.
pub(crate) fn with_length(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + message.len());
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap());
    out.put_slice(message);
    out.freeze()
}

/// The message of an answer.
pub(crate) fn unframed<M: Message + Default>(answer: &Bytes) -> M {
    M::decode(&answer[5..]).unwrap()
}
