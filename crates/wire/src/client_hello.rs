//! Decides what the first bytes of a tunnel are, before any of them is acted on: a whole TLS ClientHello with its
//! server name and protocols, something else, or not enough yet (RFC 8446 sections 4.1.2 and 5.1).
//!
//! Refused: a ClientHello whose lengths do not add up, one with two server names, one over [`MAX_HELLO`].

use std::borrow::Cow;

/// The largest ClientHello that is read, record headers included. A post-quantum one with a session ticket is
/// about 4 KiB.
pub const MAX_HELLO: usize = 32 * 1024;

/// What a ClientHello says about where it wants to go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// The `host_name` of the `server_name` extension (RFC 6066 section 3), as sent.
    pub server_name: Option<String>,
    /// Whether ALPN (RFC 7301) offers `h2`.
    pub offers_h2: bool,
    /// Whether ALPN offers `http/1.1`, or there is no ALPN at all.
    pub offers_http1: bool,
    /// Whether there is an `encrypted_client_hello` extension, real or grease (RFC 9849).
    pub encrypted_client_hello: bool,
}

/// The result of looking at the bytes so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// Could still become a ClientHello.
    Incomplete,
    /// Not the beginning of a TLS handshake.
    NotTls,
    /// TLS, but not a ClientHello that can be trusted.
    Malformed,
    /// A whole ClientHello.
    Hello(ClientHello),
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// Looks at the bytes that a client sent first.
#[must_use]
pub fn read_opening(bytes: &[u8]) -> Opening {
    match bytes {
        [] | [HANDSHAKE] | [HANDSHAKE, 3] => return Opening::Incomplete,
        [HANDSHAKE, 3, ..] => {}
        _ => return Opening::NotTls,
    }
    match join_records(bytes) {
        Joined::Message(message) => {
            parse_hello(&message).map_or(Opening::Malformed, Opening::Hello)
        }
        Joined::Incomplete if bytes.len() < MAX_HELLO => Opening::Incomplete,
        Joined::Incomplete | Joined::Malformed => Opening::Malformed,
    }
}

enum Joined<'a> {
    /// The handshake message's body.
    Message(Cow<'a, [u8]>),
    Incomplete,
    Malformed,
}

/// Joins the handshake message out of its records: a client may split it anywhere.
fn join_records(bytes: &[u8]) -> Joined<'_> {
    let mut joined: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut reader = Reader(bytes);
    loop {
        let Some(header) = reader.take(5) else {
            return Joined::Incomplete;
        };
        let [HANDSHAKE, 3, _, high, low] = *header else {
            return Joined::Malformed;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        // RFC 8446 section 5.1: no empty handshake records, at most 2^14 bytes each.
        if length == 0 || length > 1 << 14 {
            return Joined::Malformed;
        }
        let (fragment, whole) = match reader.take(length) {
            Some(fragment) => (fragment, true),
            None => (reader.0, false),
        };
        if joined.is_empty() {
            joined = Cow::Borrowed(fragment);
        } else {
            joined.to_mut().extend_from_slice(fragment);
        }
        if let [kind, a, b, c, ..] = *joined {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if kind != CLIENT_HELLO || length > MAX_HELLO {
                return Joined::Malformed;
            }
            // A ClientHello ends with its record: a record that promises more is refused, however much has come.
            if joined.len() > length + 4 || (joined.len() == length + 4 && !whole) {
                return Joined::Malformed;
            }
            if joined.len() == length + 4 {
                return Joined::Message(match joined {
                    Cow::Borrowed(all) => Cow::Borrowed(all.get(4..).unwrap_or_default()),
                    Cow::Owned(mut all) => Cow::Owned(all.split_off(4)),
                });
            }
        }
        if !whole {
            return Joined::Incomplete;
        }
    }
}

/// Parses the body of a ClientHello; `None` where lengths do not add up.
fn parse_hello(body: &[u8]) -> Option<ClientHello> {
    let mut reader = Reader(body);
    reader.take(2 + 32)?; // legacy_version, random
    reader.vector8()?; // legacy_session_id
    reader.vector16()?; // cipher_suites
    reader.vector8()?; // legacy_compression_methods
    let mut hello = ClientHello {
        offers_http1: true,
        ..ClientHello::default()
    };
    if reader.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(reader.vector16()?);
    if !reader.0.is_empty() {
        return None;
    }
    let (mut seen_name, mut seen_alpn) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let data = extensions.vector16()?;
        match kind {
            SERVER_NAME if std::mem::replace(&mut seen_name, true) => return None,
            SERVER_NAME => hello.server_name = Some(parse_server_name(data)?),
            ALPN if std::mem::replace(&mut seen_alpn, true) => return None,
            ALPN => (hello.offers_h2, hello.offers_http1) = parse_alpn(data)?,
            ENCRYPTED_CLIENT_HELLO => hello.encrypted_client_hello = true,
            _ => {}
        }
    }
    Some(hello)
}

fn parse_server_name(data: &[u8]) -> Option<String> {
    let mut outer = Reader(data);
    let mut list = Reader(outer.vector16()?);
    let kind = list.take(1)?;
    let name = list.vector16()?;
    // One list, one entry, of the one kind there is: a second name is a second opinion.
    let single = outer.0.is_empty() && list.0.is_empty() && kind == [0];
    let text = std::str::from_utf8(name).ok()?;
    (single && !text.is_empty() && text.is_ascii()).then(|| text.to_owned())
}

fn parse_alpn(data: &[u8]) -> Option<(bool, bool)> {
    let mut outer = Reader(data);
    let mut list = Reader(outer.vector16()?);
    let (mut h2, mut http1) = (false, false);
    while !list.0.is_empty() {
        match list.vector8()? {
            b"h2" => h2 = true,
            b"http/1.1" => http1 = true,
            _ => {}
        }
    }
    outer.0.is_empty().then_some((h2, http1))
}

/// Reads length-prefixed vectors from the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number16(&mut self) -> Option<u16> {
        let [high, low] = *self.take(2)? else {
            return None;
        };
        Some(u16::from_be_bytes([high, low]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let [length] = *self.take(1)? else {
            return None;
        };
        self.take(length.into())
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.number16()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector16(data: &[u8]) -> Vec<u8> {
        let mut out = u16::try_from(data.len()).unwrap().to_be_bytes().to_vec();
        out.extend_from_slice(data);
        out
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [kind.to_be_bytes().to_vec(), vector16(data)].concat()
    }

    fn server_name(name: &str) -> Vec<u8> {
        extension(
            SERVER_NAME,
            &vector16(&[&[0], &*vector16(name.as_bytes())].concat()),
        )
    }

    fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        body.extend(vector16(&extensions.concat()));
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[CLIENT_HELLO], &length[1..], &body].concat()
    }

    fn record(fragment: &[u8]) -> Vec<u8> {
        [&[HANDSHAKE, 3, 1], &*vector16(fragment)].concat()
    }

    fn hello(extensions: &[Vec<u8>]) -> Opening {
        read_opening(&record(&message(extensions)))
    }

    #[test]
    fn name_protocols_and_ech_are_read() {
        let alpn = extension(ALPN, &vector16(b"\x02h2\x08http/1.1"));
        let ech = extension(ENCRYPTED_CLIENT_HELLO, b"anything");
        let expected = ClientHello {
            server_name: Some("a.test".to_owned()),
            offers_h2: true,
            offers_http1: true,
            encrypted_client_hello: true,
        };
        assert_eq!(
            hello(&[server_name("a.test"), alpn, ech]),
            Opening::Hello(expected)
        );
        let bare = ClientHello {
            offers_http1: true,
            ..ClientHello::default()
        };
        assert_eq!(hello(&[]), Opening::Hello(bare));
    }

    #[test]
    fn two_names_and_broken_lengths_are_refused() {
        let two = server_name("a.test")
            .into_iter()
            .chain(server_name("b.test"))
            .collect::<Vec<_>>();
        let list_of_two = extension(
            SERVER_NAME,
            &vector16(&[&[0], &*vector16(b"a.test"), &[0], &*vector16(b"b.test")].concat()),
        );
        for broken in [
            two,
            list_of_two,
            extension(SERVER_NAME, &[]),
            extension(ALPN, &[9]),
            vec![0, 0, 0, 9, 1],
        ] {
            assert_eq!(
                hello(std::slice::from_ref(&broken)),
                Opening::Malformed,
                "{broken:?}"
            );
        }
        assert_eq!(hello(&[server_name("")]), Opening::Malformed);
        assert_eq!(hello(&[server_name("bücher.test")]), Opening::Malformed);
    }

    #[test]
    fn what_is_not_tls_is_told_from_its_first_byte() {
        for bytes in [
            &b"GET / HTTP/1.1"[..],
            b"SSH-2.0",
            b"\x16\x02",
            b"\x17\x03\x03",
            b"\0",
        ] {
            assert_eq!(read_opening(bytes), Opening::NotTls, "{bytes:?}");
        }
        let mut server_hello = record(&message(&[]));
        server_hello[5] = 2;
        assert_eq!(read_opening(&server_hello), Opening::Malformed);
        assert_eq!(read_opening(&[HANDSHAKE, 3, 1, 0, 0]), Opening::Malformed);
    }

    #[test]
    fn an_endless_hello_is_refused_at_the_limit() {
        let mut bytes = Vec::new();
        let length = u32::try_from(MAX_HELLO).unwrap().to_be_bytes();
        bytes.extend(record(&[&[CLIENT_HELLO], &length[1..]].concat()));
        while bytes.len() < MAX_HELLO {
            assert_eq!(read_opening(&bytes), Opening::Incomplete);
            bytes.extend(record(&[0; 1000]));
        }
        assert_eq!(read_opening(&bytes), Opening::Malformed);
    }

    proptest! {
        #[test]
        fn every_split_into_records_reads_the_same(cuts in prop::collection::vec(1usize..60, 0..6)) {
            let whole = message(&[server_name("api.example.org")]);
            let (mut bytes, mut rest) = (Vec::new(), &whole[..]);
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                if !head.is_empty() {
                    bytes.extend(record(head));
                }
                rest = tail;
            }
            if !rest.is_empty() {
                bytes.extend(record(rest));
            }
            prop_assert_eq!(read_opening(&bytes), read_opening(&record(&whole)));
            for end in 0..bytes.len() {
                prop_assert_eq!(read_opening(&bytes[..end]), Opening::Incomplete);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(tail in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_opening(&[&[HANDSHAKE, 3, 1][..], &tail].concat());
            let _ = read_opening(&tail);
        }
    }
}
