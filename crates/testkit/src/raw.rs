//! Exact bytes to a socket, and whatever comes back.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{h1::H1, message::Response};

/// Sends `bytes` on a new connection and reads one answer, or nothing if the peer closes or `limit` passes.
pub async fn exchange(to: SocketAddr, bytes: &[u8], limit: Duration) -> Option<Response> {
    let mut stream = TcpStream::connect(to).await.ok()?;
    // The peer may refuse before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut h1 = H1::new(Box::new(stream));
    timeout(limit, h1.read_response("GET")).await.ok()?.ok()
}

/// Sends `bytes` and reads until the peer closes or `limit` passes: everything read, and whether it closed.
pub async fn send_and_drain(
    stream: &mut (impl crate::io::Io + ?Sized),
    bytes: &[u8],
    limit: Duration,
) -> (Vec<u8>, bool) {
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    drain(stream, limit).await
}

/// Reads until the peer closes or `limit` passes: everything read, and whether it closed.
pub async fn drain(stream: &mut (impl crate::io::Io + ?Sized), limit: Duration) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let closed = timeout(limit, async {
        let mut buffer = [0; 16_384];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => out.extend_from_slice(&buffer[..count]),
            }
        }
    })
    .await
    .is_ok();
    (out, closed)
}

/// Writes `bytes` one at a time with `pause` between them, until the peer refuses.
///
/// # Errors
/// The stream's, with how far it got lost.
pub async fn dribble(stream: &mut TcpStream, bytes: &[u8], pause: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    for byte in bytes {
        stream.write_all(std::slice::from_ref(byte)).await?;
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

/// Every HTTP/1.1 answer on a connection until it closes or `limit` passes.
pub async fn all_responses(stream: TcpStream, limit: Duration) -> Vec<Response> {
    let mut h1 = H1::new(Box::new(stream));
    let mut found = Vec::new();
    while let Ok(Ok(response)) = timeout(limit, h1.read_response("GET")).await {
        found.push(response);
    }
    found
}
