//! HTTP/1.1 as a client speaks it, with as little work for each request as there can be.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::upstream::Repeated;

/// A connection, whatever it is wrapped in.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Where the bytes of a body go.
pub(super) type Sink<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

/// A head or a line that is longer is not of a peer that we know.
const LONGEST_HEAD: usize = 64 * 1024;
const HEADERS: usize = 64;

pub(super) struct H1 {
    stream: Box<dyn Io>,
    /// What has arrived and was not yet looked at.
    buffer: BytesMut,
    /// Bytes to read at a time.
    size: usize,
    /// Whether another request may follow.
    pub keep: bool,
}

/// An answer's status and how its body is told from what follows.
#[derive(Debug)]
pub(super) struct Head {
    pub status: u16,
    pub body: Framing,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Bytes left.
    Length(u64),
    /// Bytes left of this chunk; none before the first and between two.
    Chunked(u64),
    UntilClose,
    Ended,
}

impl H1 {
    pub(super) fn new(stream: Box<dyn Io>, size: usize) -> Self {
        let buffer = BytesMut::new();
        Self {
            stream,
            buffer,
            size,
            keep: true,
        }
    }

    /// Sends a whole head, and a body.
    pub(super) async fn send(&mut self, head: &[u8], mut body: Repeated) -> io::Result<()> {
        self.stream.write_all(head).await?;
        while let Some(piece) = body.take() {
            self.stream.write_all(&piece).await?;
        }
        self.stream.flush().await
    }

    /// The head of the final answer.
    pub(super) async fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some((length, head, keep)) = parse(&self.buffer)? {
                self.buffer.advance(length);
                self.keep &= keep;
                if head.status >= 200 || head.status == 101 {
                    return Ok(head);
                }
            } else {
                self.fill().await?;
            }
        }
    }

    /// Hands on what is there of a body, after waiting for some; `false` at its end.
    pub(super) async fn piece(&mut self, body: &mut Framing, sink: Sink<'_>) -> io::Result<bool> {
        match body {
            Framing::Length(0) => *body = Framing::Ended,
            Framing::Length(left) => self.take(left, sink).await?,
            Framing::Chunked(0) => match self.chunk_size().await? {
                0 => {
                    while !self.line().await?.is_empty() {}
                    *body = Framing::Ended;
                }
                size => *body = Framing::Chunked(size),
            },
            Framing::Chunked(left) => {
                self.take(left, sink).await?;
                if *left == 0 {
                    self.line().await?;
                }
            }
            Framing::UntilClose => {
                sink(&self.buffer);
                self.buffer.clear();
                match self.fill().await {
                    Ok(()) => {}
                    Err(problem) if problem.kind() == io::ErrorKind::UnexpectedEof => {
                        *body = Framing::Ended;
                    }
                    Err(problem) => return Err(problem),
                }
            }
            Framing::Ended => return Ok(false),
        }
        Ok(true)
    }

    /// Sends a message of another protocol.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// What has arrived, to take messages of another protocol from.
    pub(super) const fn arrived(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Waits for more to arrive.
    ///
    /// # Errors
    /// The stream's; `UnexpectedEof` at its end.
    pub(super) async fn fill(&mut self) -> io::Result<()> {
        let room = if self.buffer.is_empty() {
            self.size
        } else {
            4096
        };
        self.buffer.reserve(room);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            let problem = "the connection was closed";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
        }
        Ok(())
    }

    /// The connection under a tunnel that was just granted.
    pub(super) fn into_stream(self) -> io::Result<Box<dyn Io>> {
        if self.buffer.is_empty() {
            return Ok(self.stream);
        }
        Err(io::Error::other("bytes before the tunnel was used"))
    }

    /// Ends the connection in good order, as far as the other end takes part.
    pub(super) async fn close(mut self) {
        let _ = self.stream.shutdown().await;
    }

    async fn take(&mut self, left: &mut u64, sink: Sink<'_>) -> io::Result<()> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        let most = usize::try_from(*left).unwrap_or(usize::MAX);
        let length = most.min(self.buffer.len());
        if let Some(piece) = self.buffer.get(..length) {
            sink(piece);
        }
        self.buffer.advance(length);
        *left -= length as u64;
        Ok(())
    }

    async fn chunk_size(&mut self) -> io::Result<u64> {
        let line = self.line().await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        u64::from_str_radix(size, 16).map_err(io::Error::other)
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line = self.buffer.split_to(end + 1);
                return Ok(String::from_utf8_lossy(&line).trim().to_owned());
            }
            if self.buffer.len() > LONGEST_HEAD {
                return Err(io::Error::other("a line is too long"));
            }
            self.fill().await?;
        }
    }
}

/// The length of a whole head, what it says, and whether another request may follow.
fn parse(buffer: &[u8]) -> io::Result<Option<(usize, Head, bool)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let length = match answer.parse(buffer).map_err(io::Error::other)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial if buffer.len() > LONGEST_HEAD => {
            return Err(io::Error::other("a head is too long"));
        }
        httparse::Status::Partial => return Ok(None),
    };
    let status = answer.code.unwrap_or(0);
    let mut body = match status {
        100..200 | 204 | 304 => Framing::Ended,
        _ => Framing::UntilClose,
    };
    let mut keep = answer.version == Some(1);
    for header in answer.headers.iter() {
        let value = String::from_utf8_lossy(header.value).to_ascii_lowercase();
        match header.name.to_ascii_lowercase().as_str() {
            "connection" if value.contains("close") => keep = false,
            "transfer-encoding" if value.contains("chunked") && body != Framing::Ended => {
                body = Framing::Chunked(0);
            }
            "content-length" if body == Framing::UntilClose => {
                body = Framing::Length(value.trim().parse().map_err(io::Error::other)?);
            }
            _ => {}
        }
    }
    keep &= body != Framing::UntilClose;
    Ok(Some((length, Head { status, body }, keep)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that a client makes of these bytes, which arrive a few at a time.
    async fn body_of(answer: &'static str) -> io::Result<(u16, String, bool)> {
        let stream = tokio_test_stream(answer);
        let mut wire = H1::new(Box::new(stream), 3);
        let mut head = wire.head().await?;
        let mut out = Vec::new();
        while wire
            .piece(&mut head.body, &mut |piece| out.extend_from_slice(piece))
            .await?
        {}
        Ok((head.status, String::from_utf8(out).unwrap(), wire.keep))
    }

    fn tokio_test_stream(answer: &'static str) -> tokio::io::DuplexStream {
        let (near, mut far) = tokio::io::duplex(5);
        tokio::spawn(async move { far.write_all(answer.as_bytes()).await });
        near
    }

    #[tokio::test]
    async fn bodies_end_where_they_say() {
        for (answer, body, keep) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                "hello",
                true,
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\n",
                "hello",
                true,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nhello", "hello", false),
            (
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                "",
                false,
            ),
        ] {
            assert_eq!(body_of(answer).await.unwrap(), (200, body.to_owned(), keep));
        }
    }

    #[tokio::test]
    async fn a_body_that_is_cut_short_is_an_error() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\n",
        ] {
            assert!(body_of(answer).await.is_err(), "{answer}");
        }
    }
}
