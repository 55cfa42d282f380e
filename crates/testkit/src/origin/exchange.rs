//! One request and its answer on either protocol, with one face, so that every route is written once.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{Seen, Shared, routes};
use crate::{
    h1::{Framing, H1},
    io::BoxIo,
    message::Headers,
};

pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) sni: Option<String>,
    pub(super) shared: Arc<Shared>,
}

impl Connection {
    pub(super) fn plain(number: u64, shared: Arc<Shared>) -> Self {
        Self {
            number,
            sni: None,
            shared,
        }
    }
}

enum Wire<'a> {
    H1 {
        stream: &'a mut H1,
        framing: Framing,
        chunked: bool,
    },
    H2 {
        body: h2::RecvStream,
        respond: h2::server::SendResponse<Bytes>,
        send: Option<h2::SendStream<Bytes>>,
    },
}

pub(super) struct Exchange<'a> {
    pub(super) seen: Seen,
    pub(super) shared: Arc<Shared>,
    index: usize,
    wire: Wire<'a>,
}

/// How the connection goes on after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    KeepAlive,
    Close,
}

pub(super) async fn serve_h1(io: BoxIo, connection: Connection) -> io::Result<()> {
    let mut stream = H1::new(io);
    while let Some((head, framing)) = stream.read_request().await? {
        let seen = Seen {
            connection: connection.number,
            sni: connection.sni.clone(),
            version: "HTTP/1.1",
            authority: head.headers.get("host").unwrap_or("").to_owned(),
            method: head.method,
            target: head.target,
            headers: head.headers,
            ..Seen::default()
        };
        let exchange = Exchange {
            index: connection.shared.begin(seen.clone()),
            seen,
            shared: Arc::clone(&connection.shared),
            wire: Wire::H1 {
                stream: &mut stream,
                framing,
                chunked: false,
            },
        };
        if routes::answer(exchange).await? == After::Close {
            break;
        }
    }
    stream.shutdown().await
}

pub(super) async fn serve_h2(io: BoxIo, connection: Connection) -> io::Result<()> {
    let mut server = h2::server::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .handshake::<_, Bytes>(io)
        .await
        .map_err(io::Error::other)?;
    let mut streams = tokio::task::JoinSet::new();
    while let Some(request) = server.accept().await {
        let (request, respond) = request.map_err(io::Error::other)?;
        let (parts, body) = request.into_parts();
        let target = parts.uri.path_and_query().map_or("", |path| path.as_str());
        let seen = Seen {
            connection: connection.number,
            sni: connection.sni.clone(),
            version: "HTTP/2",
            method: parts.method.to_string(),
            target: target.to_owned(),
            authority: parts
                .uri
                .authority()
                .map_or(String::new(), ToString::to_string),
            headers: Headers::from_map(&parts.headers),
            ..Seen::default()
        };
        let exchange = Exchange {
            index: connection.shared.begin(seen.clone()),
            seen,
            shared: Arc::clone(&connection.shared),
            wire: Wire::H2 {
                body,
                respond,
                send: None,
            },
        };
        streams.spawn(async move {
            let _ = routes::answer(exchange).await;
        });
    }
    Ok(())
}

impl Exchange<'_> {
    /// The next piece of the request's body; counted and, up to 64 KiB, kept.
    pub(super) async fn read(&mut self) -> io::Result<Option<Bytes>> {
        let piece = match &mut self.wire {
            Wire::H1 {
                stream, framing, ..
            } => stream.read_body(framing).await?,
            Wire::H2 { body, .. } => match body.data().await {
                Some(piece) => {
                    let piece = piece.map_err(io::Error::other)?;
                    let _ = body.flow_control().release_capacity(piece.len());
                    Some(piece)
                }
                None => None,
            },
        };
        let trailers = match (&piece, &mut self.wire) {
            (Some(_), _) => Headers::default(),
            (None, Wire::H1 { stream, .. }) => std::mem::take(&mut stream.trailers),
            (None, Wire::H2 { body, .. }) => match body.trailers().await {
                Ok(Some(map)) => Headers::from_map(&map),
                _ => Headers::default(),
            },
        };
        self.shared.update(self.index, |seen| match &piece {
            Some(piece) => {
                seen.body_length += piece.len() as u64;
                let room = 65_536usize.saturating_sub(seen.body.len());
                seen.body.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            None => {
                seen.body_complete = true;
                // A body can be read to its end twice; its trailers come once.
                seen.trailers.0.extend(trailers.0);
            }
        });
        Ok(piece)
    }

    /// Reads the body to its end.
    pub(super) async fn drain(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(piece) = self.read().await? {
            let room = 65_536usize.saturating_sub(all.len());
            all.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        Ok(all)
    }

    /// Sends a 1xx answer.
    pub(super) async fn informational(
        &mut self,
        status: u16,
        fields: &[(&str, &str)],
    ) -> io::Result<()> {
        match &mut self.wire {
            Wire::H1 { stream, .. } => stream.write(&head(status, fields)).await,
            Wire::H2 { respond, .. } => respond
                .send_informational(response(status, fields)?)
                .map_err(io::Error::other),
        }
    }

    /// Sends the head. Without a content-length the body is chunked on HTTP/1.1.
    pub(super) async fn head(&mut self, status: u16, fields: &[(&str, &str)]) -> io::Result<()> {
        match &mut self.wire {
            Wire::H1 {
                stream, chunked, ..
            } => {
                let mut fields = fields.to_vec();
                let sized = fields.iter().any(|(name, _)| *name == "content-length");
                *chunked = !sized && status != 101 && status != 204;
                let coded = fields.iter().any(|(name, _)| *name == "transfer-encoding");
                if *chunked && !coded {
                    fields.push(("transfer-encoding", "chunked"));
                }
                stream.write(&head(status, &fields)).await
            }
            Wire::H2 { respond, send, .. } => {
                let response = response(status, fields)?;
                *send = Some(
                    respond
                        .send_response(response, false)
                        .map_err(io::Error::other)?,
                );
                Ok(())
            }
        }
    }

    /// Sends a piece of the body.
    pub(super) async fn send(&mut self, piece: &[u8]) -> io::Result<()> {
        match &mut self.wire {
            Wire::H1 {
                stream, chunked, ..
            } if *chunked => {
                let mut framed = format!("{:x}\r\n", piece.len()).into_bytes();
                framed.extend_from_slice(piece);
                framed.extend_from_slice(b"\r\n");
                stream.write(&framed).await
            }
            Wire::H1 { stream, .. } => stream.write(piece).await,
            Wire::H2 { send, .. } => {
                let send = send.as_mut().ok_or_else(|| io::Error::other("no head"))?;
                let mut rest = Bytes::copy_from_slice(piece);
                while !rest.is_empty() {
                    send.reserve_capacity(rest.len());
                    let room = std::future::poll_fn(|cx| send.poll_capacity(cx))
                        .await
                        .ok_or_else(|| io::Error::other("the stream was reset"))?
                        .map_err(io::Error::other)?;
                    let piece = rest.split_to(room.min(rest.len()));
                    send.send_data(piece, false).map_err(io::Error::other)?;
                }
                Ok(())
            }
        }
    }

    /// Ends the body, with trailers if there are any.
    pub(super) async fn finish(&mut self, trailers: &[(&str, &str)]) -> io::Result<After> {
        match &mut self.wire {
            Wire::H1 {
                stream, chunked, ..
            } => {
                if *chunked {
                    let mut end = b"0\r\n".to_vec();
                    for (name, value) in trailers {
                        end.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
                    }
                    end.extend_from_slice(b"\r\n");
                    stream.write(&end).await?;
                }
            }
            Wire::H2 { send, .. } => {
                let send = send.as_mut().ok_or_else(|| io::Error::other("no head"))?;
                if trailers.is_empty() {
                    send.send_data(Bytes::new(), true)
                        .map_err(io::Error::other)?;
                } else {
                    let map = response(200, trailers)?.headers().clone();
                    send.send_trailers(map).map_err(io::Error::other)?;
                }
            }
        }
        Ok(After::KeepAlive)
    }

    /// A whole answer with its length.
    pub(super) async fn reply(
        &mut self,
        status: u16,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<After> {
        self.drain().await?;
        let length = body.len().to_string();
        let mut fields = fields.to_vec();
        fields.push(("content-length", &length));
        self.head(status, &fields).await?;
        if self.seen.method != "HEAD" {
            self.send(body).await?;
        }
        self.finish(&[]).await
    }

    /// Breaks off: RST_STREAM, or a closed connection.
    pub(super) fn abort(&mut self) -> After {
        if let Wire::H2 { respond, send, .. } = &mut self.wire {
            match send {
                Some(send) => send.send_reset(h2::Reason::INTERNAL_ERROR),
                None => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            }
        }
        After::Close
    }

    /// Bytes that are no HTTP, on HTTP/1.1; a reset on HTTP/2.
    pub(super) async fn garbage(&mut self, bytes: &[u8]) -> io::Result<After> {
        if let Wire::H1 { stream, .. } = &mut self.wire {
            stream.write(bytes).await?;
        }
        Ok(self.abort())
    }

    /// The raw stream after a 101.
    pub(super) fn upgraded(&mut self) -> Option<&mut H1> {
        match &mut self.wire {
            Wire::H1 { stream, .. } => Some(stream),
            Wire::H2 { .. } => None,
        }
    }

    /// Waits until the client goes away, an hour at most.
    pub(super) async fn hang(&mut self) -> After {
        match &mut self.wire {
            Wire::H1 { stream, .. } => {
                let _ = stream.read_any().await;
            }
            Wire::H2 { respond, .. } => {
                let gone = std::future::poll_fn(|cx| respond.poll_reset(cx));
                let _ = tokio::time::timeout(Duration::from_secs(3600), gone).await;
            }
        }
        After::Close
    }
}

fn head(status: u16, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} Status\r\n");
    for (name, value) in fields {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    out.into_bytes()
}

fn response(status: u16, fields: &[(&str, &str)]) -> io::Result<http::Response<()>> {
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(status).map_err(io::Error::other)?;
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
        let value = HeaderValue::from_str(value).map_err(io::Error::other)?;
        response.headers_mut().append(name, value);
    }
    Ok(response)
}
