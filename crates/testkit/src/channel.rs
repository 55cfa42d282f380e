//! A connection that carries requests, on either protocol, with one face.

use std::io;

use bytes::Bytes;
use http::HeaderName;

use crate::{
    guest::Outcome,
    h1::{Framing, H1},
    io::BoxIo,
    message::{Headers, Req, ReqBody, Response},
};

/// A connection that carries requests.
pub enum Channel {
    /// HTTP/1.1.
    H1 {
        /// The connection.
        stream: H1,
        /// Whether targets are absolute.
        absolute: bool,
        /// `proxy-authorization`, on each request.
        proxy_field: Option<String>,
    },
    /// HTTP/2.
    H2(h2::client::SendRequest<Bytes>),
}

/// An answer that is read piece by piece.
pub struct Streaming<'a> {
    /// Its head.
    pub response: Response,
    source: Source<'a>,
}

enum Source<'a> {
    H1(&'a mut H1, Framing),
    H2(h2::RecvStream),
}

impl Channel {
    /// HTTP/1.1 over the inside of a tunnel.
    #[must_use]
    pub fn h1_in_tunnel(io: BoxIo) -> Self {
        Self::H1 {
            stream: H1::new(io),
            absolute: false,
            proxy_field: None,
        }
    }

    /// HTTP/2 over the inside of a tunnel.
    ///
    /// # Errors
    /// The connection's.
    pub async fn h2(io: BoxIo) -> io::Result<Self> {
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .handshake::<_, Bytes>(io)
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self::H2(send))
    }

    /// The HTTP/1.1 stream.
    ///
    /// # Panics
    /// On HTTP/2.
    #[must_use]
    pub fn into_h1(self) -> H1 {
        match self {
            Self::H1 { stream, .. } => stream,
            Self::H2(_) => panic!("not HTTP/1.1"),
        }
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&mut self, req: &Req) -> Outcome {
        match self.start(req).await {
            Ok(streaming) => Outcome::Answered(streaming.finish().await),
            Err(error) => Outcome::Closed(error),
        }
    }

    /// Sends a request and reads the answer's head.
    ///
    /// # Errors
    /// The connection's, or the stream's.
    pub async fn start(&mut self, req: &Req) -> io::Result<Streaming<'_>> {
        match self {
            Self::H1 {
                stream,
                absolute,
                proxy_field,
            } => {
                let sent = send_h1(stream, req, *absolute, proxy_field.as_deref()).await;
                // A refusal may arrive before the body was taken, and closes.
                let answer = stream.read_response_head(&req.method).await;
                let (response, framing) = match (answer, sent) {
                    (Ok(answer), _) => answer,
                    (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
                };
                Ok(Streaming {
                    response,
                    source: Source::H1(stream, framing),
                })
            }
            Self::H2(send) => {
                let (response, body) = send_h2(send, req).await?;
                Ok(Streaming {
                    response,
                    source: Source::H2(body),
                })
            }
        }
    }
}

impl Streaming<'_> {
    /// The next piece of the body; `None` at its proper end.
    ///
    /// # Errors
    /// A cut.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match &mut self.source {
            Source::H1(stream, framing) => stream.read_body(framing).await,
            Source::H2(body) => match body.data().await {
                Some(Ok(piece)) => {
                    let _ = body.flow_control().release_capacity(piece.len());
                    Ok(Some(piece))
                }
                Some(Err(error)) => Err(io::Error::other(error)),
                None => Ok(None),
            },
        }
    }

    /// Reads the rest and counts it instead of keeping it.
    ///
    /// # Errors
    /// A cut.
    pub async fn count(mut self) -> io::Result<u64> {
        let mut count = 0;
        while let Some(piece) = self.next().await? {
            count += piece.len() as u64;
        }
        Ok(count)
    }

    /// Reads the rest; a cut leaves `complete` unset.
    pub async fn finish(mut self) -> Response {
        loop {
            match self.next().await {
                Ok(Some(piece)) => self.response.body.extend_from_slice(&piece),
                Ok(None) => break,
                Err(_) => return self.response,
            }
        }
        match &mut self.source {
            Source::H1(stream, _) => {
                self.response.trailers = std::mem::take(&mut stream.trailers);
                self.response.complete = true;
            }
            Source::H2(body) => match body.trailers().await {
                Ok(trailers) => {
                    self.response.complete = true;
                    self.response.trailers = trailers
                        .map(|map| Headers::from_map(&map))
                        .unwrap_or_default();
                }
                Err(_) => return self.response,
            },
        }
        self.response
    }
}

async fn send_h1(
    stream: &mut H1,
    req: &Req,
    absolute: bool,
    proxy_field: Option<&str>,
) -> io::Result<()> {
    let target = if absolute {
        format!("http://{}:{}{}", req.host, req.port, req.path)
    } else {
        req.path.clone()
    };
    let mut head = format!(
        "{} {target} HTTP/1.1\r\nhost: {}\r\n",
        req.method,
        req.host_field()
    );
    if let Some(value) = proxy_field {
        head.push_str(&format!("proxy-authorization: {value}\r\n"));
    }
    for (name, value) in &req.headers.0 {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match &req.body {
        ReqBody::None => {}
        ReqBody::Bytes(bytes) => head.push_str(&format!("content-length: {}\r\n", bytes.len())),
        ReqBody::Zeros(count) => head.push_str(&format!("content-length: {count}\r\n")),
        ReqBody::Chunked(_) => head.push_str("transfer-encoding: chunked\r\n"),
        ReqBody::WithTrailers(_, trailers) => {
            head.push_str("transfer-encoding: chunked\r\n");
            for (name, _) in &trailers.0 {
                head.push_str(&format!("trailer: {name}\r\n"));
            }
        }
    }
    head.push_str("\r\n");
    stream.write(head.as_bytes()).await?;
    match &req.body {
        ReqBody::None => {}
        ReqBody::Bytes(bytes) => stream.write(bytes).await?,
        ReqBody::Chunked(pieces) => {
            for piece in pieces {
                let mut framed = format!("{:x}\r\n", piece.len()).into_bytes();
                framed.extend_from_slice(piece);
                framed.extend_from_slice(b"\r\n");
                stream.write(&framed).await?;
            }
            stream.write(b"0\r\n\r\n").await?;
        }
        ReqBody::WithTrailers(bytes, trailers) => {
            let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
            framed.extend_from_slice(bytes);
            framed.extend_from_slice(b"\r\n0\r\n");
            for (name, value) in &trailers.0 {
                framed.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            framed.extend_from_slice(b"\r\n");
            stream.write(&framed).await?;
        }
        ReqBody::Zeros(count) => {
            let piece = [0; 65_536];
            let mut left = *count;
            while left > 0 {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
                stream.write(&piece[..take]).await?;
                left -= take as u64;
            }
        }
    }
    Ok(())
}

async fn send_h2(
    send: &mut h2::client::SendRequest<Bytes>,
    req: &Req,
) -> io::Result<(Response, h2::RecvStream)> {
    let mut request = http::Request::builder()
        .method(req.method.as_str())
        .uri(format!("https://{}{}", req.host_field(), req.path))
        .version(http::Version::HTTP_2)
        .body(())
        .map_err(io::Error::other)?;
    for (name, value) in &req.headers.0 {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
        let value = http::HeaderValue::from_str(value).map_err(io::Error::other)?;
        request.headers_mut().append(name, value);
    }
    let mut ready = send.clone().ready().await.map_err(io::Error::other)?;
    let ends = matches!(req.body, ReqBody::None);
    let (answer, mut stream) = ready
        .send_request(request, ends)
        .map_err(io::Error::other)?;
    // A refusal may come before the body was taken; then sending stops and the answer counts.
    let _ = send_h2_body(&mut stream, &req.body).await;
    let (parts, body) = answer.await.map_err(io::Error::other)?.into_parts();
    let response = Response {
        status: parts.status.as_u16(),
        headers: Headers::from_map(&parts.headers),
        ..Response::default()
    };
    Ok((response, body))
}

async fn send_h2_body(stream: &mut h2::SendStream<Bytes>, body: &ReqBody) -> io::Result<()> {
    match body {
        ReqBody::None => return Ok(()),
        ReqBody::Bytes(bytes) => send_piece(stream, Bytes::copy_from_slice(bytes)).await?,
        ReqBody::WithTrailers(bytes, trailers) => {
            send_piece(stream, Bytes::copy_from_slice(bytes)).await?;
            let mut map = http::HeaderMap::new();
            for (name, value) in &trailers.0 {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
                map.append(name, value.parse().map_err(io::Error::other)?);
            }
            return stream.send_trailers(map).map_err(io::Error::other);
        }
        ReqBody::Chunked(pieces) => {
            for piece in pieces {
                send_piece(stream, Bytes::copy_from_slice(piece)).await?;
            }
        }
        ReqBody::Zeros(count) => {
            let zeros = Bytes::from_static(&[0; 65_536]);
            let mut left = *count;
            while left > 0 {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
                send_piece(stream, zeros.slice(..take)).await?;
                left -= take as u64;
            }
        }
    }
    stream
        .send_data(Bytes::new(), true)
        .map_err(io::Error::other)
}

async fn send_piece(stream: &mut h2::SendStream<Bytes>, mut rest: Bytes) -> io::Result<()> {
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx))
            .await
            .ok_or_else(|| io::Error::other("the stream was reset"))?
            .map_err(io::Error::other)?;
        let piece = rest.split_to(room.min(rest.len()));
        stream.send_data(piece, false).map_err(io::Error::other)?;
    }
    Ok(())
}
