//! HTTP/1.1 by hand, for both ends: what was received is kept byte for byte, and what is sent is exactly what was
//! asked for, wrong or right.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    io::BoxIo,
    message::{Headers, Response},
};

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// It has ended.
    Done,
    /// After this many bytes.
    Length(u64),
    /// With a chunk of size 0; so many bytes of the current chunk are left.
    Chunked(u64),
    /// With the connection.
    UntilClose,
}

/// One connection.
pub struct H1 {
    io: BoxIo,
    buffer: BytesMut,
    /// Trailer fields of the last chunked body.
    pub trailers: Headers,
}

/// A parsed request head.
pub struct RequestHead {
    /// Method.
    pub method: String,
    /// Target as sent.
    pub target: String,
    /// Fields.
    pub headers: Headers,
    /// The head's bytes.
    pub raw: Bytes,
}

impl H1 {
    /// Speaks over `io`.
    #[must_use]
    pub fn new(io: BoxIo) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
            trailers: Headers::default(),
        }
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The stream's.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// Ends the sending side.
    ///
    /// # Errors
    /// The stream's.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }

    /// Reads more into the buffer; 0 at the end.
    async fn fill(&mut self) -> io::Result<usize> {
        self.io.read_buf(&mut self.buffer).await
    }

    /// Whatever comes next, as it comes; `None` at the end.
    ///
    /// # Errors
    /// The stream's.
    pub async fn read_any(&mut self) -> io::Result<Option<Bytes>> {
        if self.buffer.is_empty() && self.fill().await? == 0 {
            return Ok(None);
        }
        Ok(Some(self.buffer.split().freeze()))
    }

    /// Exactly `count` bytes.
    ///
    /// # Errors
    /// The stream's, or an early end.
    pub async fn read_exact(&mut self, count: usize) -> io::Result<Bytes> {
        while self.buffer.len() < count {
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.split_to(count).freeze())
    }

    /// A head up to its empty line; `None` where the stream ends before its first byte.
    ///
    /// # Errors
    /// The stream's, or an end within the head.
    pub async fn read_head(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                return Ok(Some(self.buffer.split_to(at + 4).freeze()));
            }
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// A request head and how its body ends.
    ///
    /// # Errors
    /// The stream's, or a head that is no request.
    pub async fn read_request(&mut self) -> io::Result<Option<(RequestHead, Framing)>> {
        let Some(raw) = self.read_head().await? else {
            return Ok(None);
        };
        let mut fields = [httparse::EMPTY_HEADER; 256];
        let mut request = httparse::Request::new(&mut fields);
        request.parse(&raw).map_err(io::Error::other)?;
        let headers = collect(request.headers);
        let framing = match (
            headers.get("transfer-encoding"),
            headers.get("content-length"),
        ) {
            (Some(_), _) => Framing::Chunked(0),
            (None, Some(length)) => Framing::Length(length.parse().map_err(io::Error::other)?),
            (None, None) => Framing::Done,
        };
        let head = RequestHead {
            method: request.method.unwrap_or("").to_owned(),
            target: request.path.unwrap_or("").to_owned(),
            headers,
            raw: raw.clone(),
        };
        Ok(Some((head, framing)))
    }

    /// A response head, 1xx ones before it included (except 101), and how its body ends.
    ///
    /// # Errors
    /// The stream's, or a head that is no response.
    pub async fn read_response_head(&mut self, method: &str) -> io::Result<(Response, Framing)> {
        let mut informational = Vec::new();
        loop {
            let raw = self
                .read_head()
                .await?
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            let mut fields = [httparse::EMPTY_HEADER; 256];
            let mut response = httparse::Response::new(&mut fields);
            response.parse(&raw).map_err(io::Error::other)?;
            let status = response.code.unwrap_or(0);
            let headers = collect(response.headers);
            if (100..200).contains(&status) && status != 101 {
                informational.push((status, headers));
                continue;
            }
            let no_body = method == "HEAD"
                || matches!(status, 101 | 204 | 304)
                || (method == "CONNECT" && status < 300);
            let framing = if no_body {
                Framing::Done
            } else if headers.get("transfer-encoding").is_some() {
                Framing::Chunked(0)
            } else if let Some(length) = headers.get("content-length") {
                Framing::Length(length.parse().map_err(io::Error::other)?)
            } else {
                Framing::UntilClose
            };
            let response = Response {
                status,
                headers,
                informational,
                ..Response::default()
            };
            return Ok((response, framing));
        }
    }

    /// The next piece of a body; `None` once it has ended as its framing says.
    ///
    /// # Errors
    /// The stream's, or an early end.
    pub async fn read_body(&mut self, framing: &mut Framing) -> io::Result<Option<Bytes>> {
        loop {
            match *framing {
                Framing::Done => return Ok(None),
                Framing::Length(0) => *framing = Framing::Done,
                Framing::Length(left) => {
                    let piece = self.take_some(left).await?;
                    *framing = Framing::Length(left - piece.len() as u64);
                    return Ok(Some(piece));
                }
                Framing::UntilClose => {
                    let piece = self.read_any().await?;
                    if piece.is_none() {
                        *framing = Framing::Done;
                    }
                    return Ok(piece);
                }
                Framing::Chunked(0) => {
                    let line = self.read_line().await?;
                    let digits = line.split(';').next().unwrap_or("").trim().to_owned();
                    let size = u64::from_str_radix(&digits, 16).map_err(io::Error::other)?;
                    if size == 0 {
                        self.read_trailers().await?;
                        *framing = Framing::Done;
                    } else {
                        *framing = Framing::Chunked(size);
                    }
                }
                Framing::Chunked(left) => {
                    let piece = self.take_some(left).await?;
                    let left = left - piece.len() as u64;
                    if left == 0 {
                        self.read_line().await?;
                    }
                    *framing = Framing::Chunked(left);
                    return Ok(Some(piece));
                }
            }
        }
    }

    /// Reads a whole answer to a request with this method; a broken body leaves `complete` unset.
    ///
    /// # Errors
    /// The stream's, before the head was whole.
    pub async fn read_response(&mut self, method: &str) -> io::Result<Response> {
        let (mut response, mut framing) = self.read_response_head(method).await?;
        loop {
            match self.read_body(&mut framing).await {
                Ok(Some(piece)) => response.body.extend_from_slice(&piece),
                Ok(None) => {
                    response.complete = true;
                    response.trailers = std::mem::take(&mut self.trailers);
                    return Ok(response);
                }
                Err(_) => return Ok(response),
            }
        }
    }

    async fn take_some(&mut self, limit: u64) -> io::Result<Bytes> {
        if self.buffer.is_empty() && self.fill().await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let take = self
            .buffer
            .len()
            .min(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(self.buffer.split_to(take).freeze())
    }

    async fn read_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line = self.buffer.split_to(at);
                self.buffer.advance(2);
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn read_trailers(&mut self) -> io::Result<()> {
        self.trailers = Headers::default();
        loop {
            let line = self.read_line().await?;
            let Some((name, value)) = line.split_once(':') else {
                return Ok(());
            };
            self.trailers
                .0
                .push((name.trim().into(), value.trim().into()));
        }
    }
}

fn collect(fields: &[httparse::Header<'_>]) -> Headers {
    Headers(
        fields
            .iter()
            .map(|field| {
                let value = String::from_utf8_lossy(field.value).into_owned();
                (field.name.to_owned(), value)
            })
            .collect(),
    )
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
