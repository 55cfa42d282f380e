//! Decides whether bytes are exactly one HTTP/1 request with exactly one meaning (RFC 9112). The HTTP library
//! behind it repairs some ambiguities in silence; an ambiguity that is repaired here is a request that is smuggled
//! there, so this refuses instead: bare CR or LF, obs-fold, white space around field names, doubled or mixed
//! framing, doubled Host, bad chunk sizes, HTTP/2 in clear.

use memchr::memchr;

/// The largest request head, in bytes, final empty line included.
pub const MAX_HEAD: usize = 64 * 1024;
/// The largest number of header fields: what Envoy takes as well unless told otherwise, and what the HTTP library has room
/// for without a table on the heap for each head.
pub const MAX_FIELDS: usize = 100;
/// The largest chunk-size line or trailer section, in bytes.
const MAX_CHUNK_LINE: usize = 4096;

/// Why bytes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// Not one well-formed request; the text says what.
    #[error("{0}")]
    Malformed(&'static str),
    /// Over [`MAX_HEAD`] or [`MAX_FIELDS`].
    #[error("the request head is too large")]
    TooLarge,
    /// The HTTP/2 connection preface in clear.
    #[error("HTTP/2 without TLS")]
    CleartextHttp2,
    /// The head did not arrive in time. Made by the reader that owns the clock.
    #[error("the request head did not arrive in time")]
    TimedOut,
}

/// What follows a head on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    Empty,
    /// This many bytes, at least 1.
    Length(u64),
    /// Chunks (RFC 9112 section 7.1).
    Chunked,
    /// Whatever the protocol is that follows a `CONNECT` or an `Upgrade`.
    Opaque,
}

/// A complete, well-formed head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its length in bytes, final empty line included.
    pub length: usize,
    /// What follows it.
    pub framing: Framing,
    /// Whether the method is `CONNECT`.
    pub is_connect: bool,
}

/// Reads a head from the front of `bytes`; `None` while it is incomplete.
///
/// # Errors
/// As soon as the bytes so far cannot become a good head.
pub fn read_head(bytes: &[u8]) -> Result<Option<Head>, HeadFault> {
    if let Some(line) = first_bytes_of_preface(bytes) {
        return line;
    }
    let mut fields = Fields::default();
    let mut at = 0;
    let mut request_line = None;
    while let Some(line) = next_line(bytes, &mut at)? {
        match (request_line, line) {
            (None, line) => request_line = Some(read_request_line(line)?),
            (Some(request), b"") => return fields.finish(request, at).map(Some),
            (Some(_), line) => fields.read(line)?,
        }
    }
    if bytes.len() >= MAX_HEAD {
        Err(HeadFault::TooLarge)
    } else {
        Ok(None)
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

fn first_bytes_of_preface(bytes: &[u8]) -> Option<Result<Option<Head>, HeadFault>> {
    if bytes.starts_with(PREFACE) {
        return Some(Err(HeadFault::CleartextHttp2));
    }
    (bytes.len() < PREFACE.len() && PREFACE.starts_with(bytes)).then_some(Ok(None))
}

/// The next line without its CRLF; `None` while it is incomplete.
fn next_line<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, HeadFault> {
    let rest = bytes.get(*at..).unwrap_or_default();
    let Some(end) = memchr(b'\n', rest) else {
        // Control bytes that can never be right are refused before the line is whole.
        return if rest.contains(&0) {
            Err(HeadFault::Malformed("NUL in the head"))
        } else {
            Ok(None)
        };
    };
    let line = rest.get(..end).unwrap_or_default();
    *at += end + 1;
    if *at > MAX_HEAD {
        return Err(HeadFault::TooLarge);
    }
    line.strip_suffix(b"\r")
        .map(Some)
        .ok_or(HeadFault::Malformed("a line ends without CR"))
}

#[derive(Debug, Clone, Copy)]
struct RequestLine {
    is_connect: bool,
    is_http10: bool,
}

fn read_request_line(line: &[u8]) -> Result<RequestLine, HeadFault> {
    let bad = HeadFault::Malformed("the request line is not `method target version`");
    let mut parts = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad);
    };
    let is_http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => {
            return Err(HeadFault::Malformed(
                "the version is not HTTP/1.1 or HTTP/1.0",
            ));
        }
    };
    let is_visible = |byte: u8| (0x21..=0x7e).contains(&byte);
    if method.is_empty() || !all(method, is_token) || target.is_empty() || !all(target, is_visible)
    {
        return Err(bad);
    }
    if target.contains(&b'#') {
        return Err(HeadFault::Malformed("a fragment in the target"));
    }
    // The target of a CONNECT is read, and refused with a better reason, by the journey.
    if method != b"CONNECT" && http::Uri::try_from(target).is_err() {
        return Err(HeadFault::Malformed("the target is not a URI"));
    }
    Ok(RequestLine {
        is_connect: method == b"CONNECT",
        is_http10,
    })
}

/// RFC 9110 section 5.6.2.
const fn is_token(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    ) || byte.is_ascii_alphanumeric()
}

/// RFC 9110 section 5.5: visible characters, spaces, tabs and obs-text.
const fn is_value(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)
}

/// Whether all bytes are of a kind. It does not stop at the first that is not: without that way out, the compiler looks at
/// many at a time, and good heads are the rule.
fn all(bytes: &[u8], is_good: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |good, byte| good & is_good(*byte))
}

#[derive(Default)]
struct Fields {
    count: usize,
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Fields {
    fn read(&mut self, line: &[u8]) -> Result<(), HeadFault> {
        self.count += 1;
        if self.count > MAX_FIELDS {
            return Err(HeadFault::TooLarge);
        }
        let (name, value) = split_field(line)?;
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.is_some() {
                return Err(HeadFault::Malformed("more than one Content-Length"));
            }
            self.length = Some(read_length(value)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadFault::Malformed(
                    "Transfer-Encoding is not exactly `chunked`",
                ));
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        }
        Ok(())
    }

    fn finish(self, request: RequestLine, length: usize) -> Result<Head, HeadFault> {
        let malformed = |what| Err(HeadFault::Malformed(what));
        if self.hosts > 1 || (self.hosts == 0 && !request.is_http10) {
            return malformed("not exactly one Host");
        }
        if self.chunked && (self.length.is_some() || request.is_http10) {
            return malformed("Transfer-Encoding beside Content-Length or in HTTP/1.0");
        }
        if self.upgrade && request.is_http10 {
            return malformed("Upgrade in HTTP/1.0");
        }
        let has_body = self.chunked || self.length.is_some_and(|length| length > 0);
        let framing = match (request.is_connect || self.upgrade, has_body) {
            // Whose body would it be, the request's or the next protocol's?
            (true, true) => return malformed("a body with CONNECT or Upgrade"),
            (true, false) => Framing::Opaque,
            (false, false) => Framing::Empty,
            (false, true) => self.length.map_or(Framing::Chunked, Framing::Length),
        };
        Ok(Head {
            length,
            framing,
            is_connect: request.is_connect,
        })
    }
}

fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), HeadFault> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(HeadFault::Malformed("a folded header line"));
    }
    let colon = memchr(b':', line).ok_or(HeadFault::Malformed("a header line without a colon"))?;
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default();
    if name.is_empty() || !all(name, is_token) {
        return Err(HeadFault::Malformed(
            "a header name with a character that names do not have",
        ));
    }
    if !all(value, is_value) {
        return Err(HeadFault::Malformed(
            "a control character in a header value",
        ));
    }
    Ok((name, value.trim_ascii()))
}

fn read_length(value: &[u8]) -> Result<u64, HeadFault> {
    let bad = HeadFault::Malformed("Content-Length is not a number");
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad);
    }
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(bad)
}

/// Follows a connection's requests one after another, so that each head is judged before a byte of it is let on.
#[derive(Debug)]
pub struct RequestStream {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Opaque,
}

/// What may be let on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// This many bytes from the front, at least 1.
    Bytes(usize),
    /// Nothing before more has arrived.
    NeedMore,
}

impl Default for RequestStream {
    fn default() -> Self {
        Self { state: State::Head }
    }
}

impl RequestStream {
    /// Whether the next byte begins a head.
    #[must_use]
    pub fn is_between_requests(&self) -> bool {
        self.state == State::Head
    }

    /// How many bytes may be let on unseen: the rest of a body, or everything behind an upgrade.
    #[must_use]
    pub fn unseen(&self) -> u64 {
        match self.state {
            State::Body(left) | State::ChunkData(left) => left,
            State::Opaque => u64::MAX,
            _ => 0,
        }
    }

    /// Notes that `count` bytes, at most [`unseen`](Self::unseen), went by.
    pub fn skip(&mut self, count: u64) {
        self.state = match self.state {
            State::Body(left) if count >= left => State::Head,
            State::Body(left) => State::Body(left - count),
            State::ChunkData(left) if count >= left => State::ChunkEnd,
            State::ChunkData(left) => State::ChunkData(left - count),
            other => other,
        };
    }

    /// Judges the front of what has arrived and was not let on yet.
    ///
    /// # Errors
    /// [`HeadFault`]; nothing after it can be trusted.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Release, HeadFault> {
        if bytes.is_empty() {
            return Ok(Release::NeedMore);
        }
        match self.state {
            State::Head => {
                let Some(head) = read_head(bytes)? else {
                    return Ok(Release::NeedMore);
                };
                if head.is_connect {
                    return Err(HeadFault::Malformed(
                        "CONNECT must be the first request of its connection",
                    ));
                }
                self.state = match head.framing {
                    Framing::Empty => State::Head,
                    Framing::Length(length) => State::Body(length),
                    Framing::Chunked => State::ChunkSize,
                    Framing::Opaque => State::Opaque,
                };
                Ok(Release::Bytes(head.length))
            }
            State::Body(_) | State::ChunkData(_) | State::Opaque => {
                let count = usize::try_from(self.unseen())
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                self.skip(count as u64);
                Ok(Release::Bytes(count))
            }
            State::ChunkSize => self.chunk_line(bytes, |line| match read_chunk_size(line)? {
                0 => Ok(State::Trailers),
                size => Ok(State::ChunkData(size)),
            }),
            State::ChunkEnd => self.chunk_line(bytes, |line| match line {
                b"" => Ok(State::ChunkSize),
                _ => Err(HeadFault::Malformed("a chunk is longer than its size")),
            }),
            State::Trailers => self.chunk_line(bytes, |line| match line {
                b"" => Ok(State::Head),
                line => split_field(line).map(|_| State::Trailers),
            }),
        }
    }

    fn chunk_line(
        &mut self,
        bytes: &[u8],
        next: impl FnOnce(&[u8]) -> Result<State, HeadFault>,
    ) -> Result<Release, HeadFault> {
        let mut at = 0;
        let window = bytes.get(..MAX_CHUNK_LINE).unwrap_or(bytes);
        match next_line(window, &mut at)? {
            Some(line) => {
                self.state = next(line)?;
                Ok(Release::Bytes(at))
            }
            None if window.len() == MAX_CHUNK_LINE => {
                Err(HeadFault::Malformed("a chunk line is too long"))
            }
            None if self.state == State::ChunkEnd && bytes.len() >= 2 => {
                Err(HeadFault::Malformed("a chunk is longer than its size"))
            }
            None => Ok(Release::NeedMore),
        }
    }
}

/// RFC 9112 section 7.1: 1 to 16 hexadecimal digits, then nothing or an extension.
fn read_chunk_size(line: &[u8]) -> Result<u64, HeadFault> {
    let bad = HeadFault::Malformed("a bad chunk size");
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    let extension_is_good = match extension {
        [] => true,
        [b';', rest @ ..] => all(rest, is_value),
        _ => false,
    };
    if digits == 0 || digits > 16 || !extension_is_good {
        return Err(bad);
    }
    std::str::from_utf8(size)
        .ok()
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or(bad)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(text: &str) -> Option<HeadFault> {
        read_head(text.as_bytes()).err()
    }

    #[test]
    fn good_heads_have_one_framing() {
        for (text, framing) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Empty),
            ("GET / HTTP/1.0\r\n\r\n", Framing::Empty),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
                Framing::Empty,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\ncontent-length:12\r\n\r\n",
                Framing::Length(12),
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
                Framing::Chunked,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
                Framing::Opaque,
            ),
            (
                "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
                Framing::Opaque,
            ),
        ] {
            let head = read_head(text.as_bytes()).unwrap().unwrap();
            assert_eq!(
                (head.framing, head.length),
                (framing, text.len()),
                "{text:?}"
            );
        }
    }

    #[test]
    fn every_ambiguous_head_is_refused() {
        for text in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHo st: a\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET /\r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
            "G\u{e9}T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert!(
                matches!(fault(text), Some(HeadFault::Malformed(_))),
                "{text:?}: {:?}",
                fault(text)
            );
        }
        assert_eq!(
            fault("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            Some(HeadFault::CleartextHttp2)
        );
    }

    #[test]
    fn sizes_are_bounded() {
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(MAX_HEAD));
        assert_eq!(fault(&long), Some(HeadFault::TooLarge));
        let many = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: y\r\n".repeat(MAX_FIELDS)
        );
        assert_eq!(fault(&many), Some(HeadFault::TooLarge));
    }

    /// Feeds everything at once and collects what is let on, request by request.
    fn run(mut bytes: &[u8]) -> Result<(Vec<usize>, usize), HeadFault> {
        let (mut stream, mut released) = (RequestStream::default(), Vec::new());
        while let Release::Bytes(count) = stream.advance(bytes)? {
            released.push(count);
            bytes = &bytes[count..];
        }
        Ok((released, bytes.len()))
    }

    #[test]
    fn a_pipelined_request_is_judged_after_the_body_before_it() {
        let first = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
        let second = "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
        let bytes = format!("{first}abc{second}GET");
        assert_eq!(
            run(bytes.as_bytes()),
            Ok((vec![first.len(), 3, second.len()], 3))
        );
        assert!(run(format!("{first}abcGET / HTTP/1.1\nHost: a\r\n\r\n").as_bytes()).is_err());
    }

    #[test]
    fn chunked_bodies_are_followed_to_their_end() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let good = format!("{head}5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n{head}");
        assert_eq!(run(good.as_bytes()).unwrap().1, 0);
        for bad in [
            "5\nhello\r\n",
            "5\r\nhello!\r\n",
            "5\r\nhello\n",
            "g\r\n",
            "-1\r\n",
            "\r\n",
            "0x5\r\n",
            " 5\r\n",
            "5 \r\n",
            "11111111111111111\r\n",
            "0\r\nX y\r\n\r\n",
            "0\r\n X: y\r\n\r\n",
            "5\r\nhelloGET / HTTP/1.1\r\n",
        ] {
            assert!(run(format!("{head}{bad}").as_bytes()).is_err(), "{bad:?}");
        }
        let endless = format!("{head}5;{}", "x".repeat(MAX_CHUNK_LINE));
        assert!(run(endless.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_accepted_by_another_parser(
            text in "(GET|POST|X) /[a-z]{0,3} HTTP/1\\.[01]\r\n(Host|X|Content-Length|Transfer-Encoding|Y ?):[ \t]?([a-z]{0,3}|[0-9]{1,3}|chunked)\r?\n((Host|Z): ?[a-z]\r\n){0,3}\r\n"
        ) {
            if let Ok(Some(head)) = read_head(text.as_bytes()) {
                let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
                let mut request = httparse::Request::new(&mut fields);
                prop_assert_eq!(request.parse(text.as_bytes()), Ok(httparse::Status::Complete(head.length)));
            }
        }

        #[test]
        fn arrival_in_pieces_changes_nothing(cuts in prop::collection::vec(1usize..20, 1..40)) {
            let head = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            let bytes = format!("{head}5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let (mut stream, mut held, mut out) = (RequestStream::default(), Vec::new(), Vec::new());
            let mut rest = bytes.as_bytes();
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                held.extend_from_slice(piece);
                rest = tail;
                while let Release::Bytes(count) = stream.advance(&held).unwrap() {
                    out.extend(held.drain(..count));
                }
            }
            prop_assert_eq!(out, bytes.as_bytes());
            prop_assert!(stream.is_between_requests());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = run(&bytes);
            let _ = run(&[&b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"[..], &bytes].concat());
        }
    }
}
