//! A WebSocket that sends every message back.

use std::{io, sync::Arc};

use bytes::BytesMut;
use hyper::{
    Request, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    answers::{Answer, status},
    counters::Counters,
};
use crate::frames;

/// Switches protocols, or says that the request cannot.
pub(super) fn upgrade(mut request: Request<Incoming>, counters: Arc<Counters>) -> Answer {
    let key = request.headers().get(SEC_WEBSOCKET_KEY);
    let key = key.and_then(|key| key.to_str().ok());
    let accept = key.map(frames::accept_for);
    let Some(Ok(accept)) = accept.map(HeaderValue::try_from) else {
        return status(StatusCode::UPGRADE_REQUIRED);
    };
    let upgrade = hyper::upgrade::on(&mut request);
    // Ends with its connection; what went wrong is the client's to report.
    tokio::spawn(async move {
        if let Ok(stream) = upgrade.await {
            let _ = echo(stream, &counters).await;
        }
    });
    let mut answer = status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer
}

async fn echo(stream: Upgraded, counters: &Counters) -> io::Result<()> {
    let mut stream = TokioIo::new(stream);
    let mut arrived = BytesMut::with_capacity(8192);
    let mut out = BytesMut::new();
    loop {
        while let Some((opcode, payload)) = frames::read(&mut arrived)? {
            frames::write(&mut out, opcode, &payload, None);
            stream.write_all(&out).await?;
            stream.flush().await?;
            out.clear();
            if opcode == frames::CLOSE {
                return stream.shutdown().await;
            }
            counters.ws.add();
        }
        if stream.read_buf(&mut arrived).await? == 0 {
            return Ok(());
        }
    }
}
