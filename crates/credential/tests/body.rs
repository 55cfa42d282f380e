//! Bodies as upstreams send them: coded, in one-byte chunks, cut short, endless.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::Write,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Response, response::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use outgate_credential::{
    BodyFault, ScrubBody, Scrubber, Unscrubbable, request_accept_encoding, scrub_response,
};
use support::{bearer, credential, holds, scrub};

const KEY: &[u8] = b"sk-live-0123456789abcdef";
const CODINGS: [&str; 5] = ["gzip", "deflate", "bare deflate", "br", "zstd"];

fn scrubber() -> Arc<Scrubber> {
    Arc::clone(credential(KEY, bearer()).scrubber())
}

/// A body whose frames are given, `None` meaning that it is waiting for the network.
#[derive(Default)]
struct Script(VecDeque<Option<Frame<Bytes>>>);

impl Script {
    fn of(bytes: &[u8], size: usize) -> Self {
        Self(
            bytes
                .chunks(size)
                .map(|chunk| Some(Frame::data(Bytes::copy_from_slice(chunk))))
                .collect(),
        )
    }

    fn wait(&mut self) {
        self.0.push_back(None);
    }

    fn data(&mut self, bytes: &[u8]) {
        self.0
            .push_back(Some(Frame::data(Bytes::copy_from_slice(bytes))));
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.pop_front() {
            None => Poll::Ready(None),
            Some(None) => Poll::Pending,
            Some(Some(frame)) => Poll::Ready(Some(Ok(frame))),
        }
    }
}

fn encode(coding: &str, text: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(coding);
    let mut out = encoder.event(text);
    out.extend(encoder.end());
    out
}

/// Real encoders, flushed after each event as a server of events does.
enum Encoder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Zlib(flate2::write::ZlibEncoder<Vec<u8>>),
    Deflate(flate2::write::DeflateEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(coding: &str) -> Self {
        let level = flate2::Compression::default();
        match coding {
            "gzip" => Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), level)),
            "deflate" => Self::Zlib(flate2::write::ZlibEncoder::new(Vec::new(), level)),
            "bare deflate" => Self::Deflate(flate2::write::DeflateEncoder::new(Vec::new(), level)),
            "br" => Self::Brotli(Box::new(brotli::CompressorWriter::new(
                Vec::new(),
                4096,
                5,
                20,
            ))),
            _ => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap()),
        }
    }

    fn event(&mut self, text: &[u8]) -> Vec<u8> {
        let writer: &mut dyn Write = match self {
            Self::Gzip(encoder) => encoder,
            Self::Zlib(encoder) => encoder,
            Self::Deflate(encoder) => encoder,
            Self::Brotli(encoder) => encoder.as_mut(),
            Self::Zstd(encoder) => encoder,
        };
        writer.write_all(text).unwrap();
        writer.flush().unwrap();
        std::mem::take(match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Zlib(encoder) => encoder.get_mut(),
            Self::Deflate(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => return std::mem::take(brotli_output(encoder)),
            Self::Zstd(encoder) => encoder.get_mut(),
        })
    }

    fn end(self) -> Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.finish().unwrap(),
            Self::Zlib(encoder) => encoder.finish().unwrap(),
            Self::Deflate(encoder) => encoder.finish().unwrap(),
            Self::Brotli(encoder) => encoder.into_inner(),
            Self::Zstd(encoder) => encoder.finish().unwrap(),
        }
    }
}

fn brotli_output(encoder: &mut brotli::CompressorWriter<Vec<u8>>) -> &mut Vec<u8> {
    encoder.get_mut()
}

fn head(fields: &[(&'static str, &str)]) -> Parts {
    let mut response = Response::new(());
    for (name, value) in fields {
        response
            .headers_mut()
            .append(*name, HeaderValue::from_str(value).unwrap());
    }
    response.into_parts().0
}

fn coded(coding: &str) -> Parts {
    head(&[("content-encoding", coding.trim_start_matches("bare "))])
}

fn scrubbed(mut parts: Parts, body: Script) -> ScrubBody<Script> {
    scrub_response(&mut parts, body, &scrubber(), Arc::default()).unwrap()
}

fn collect(body: ScrubBody<Script>) -> Result<Vec<u8>, BodyFault> {
    let collected = body
        .collect()
        .now_or_never()
        .expect("the script never waits");
    collected
        .map(|whole| whole.to_bytes().to_vec())
        .map_err(|fault| *fault.downcast::<BodyFault>().unwrap())
}

fn text() -> Vec<u8> {
    [
        &b"before ".repeat(3000)[..],
        KEY,
        b" between ",
        KEY,
        &b" after".repeat(3000),
    ]
    .concat()
}

fn masked(text: &[u8]) -> Vec<u8> {
    scrub(&mut scrubber().stream(), text, &[usize::MAX])
}

#[test]
fn every_coding_is_decoded_and_scrubbed_whatever_the_chunks() {
    for coding in CODINGS {
        let body = encode(coding, &text());
        for size in [1, 7, 1000, usize::MAX] {
            let out = collect(scrubbed(coded(coding), Script::of(&body, size))).unwrap();
            assert_eq!(out.len(), text().len(), "{coding} in chunks of {size}");
            assert!(!holds(&out, KEY), "{coding} in chunks of {size}");
            if size == usize::MAX {
                assert!(out == masked(&text()), "{coding}");
            }
        }
    }
}

#[test]
fn two_codings_on_top_of_each_other_are_undone_in_order() {
    let pairs = [
        ("gzip", "br"),
        ("br", "zstd"),
        ("zstd", "gzip"),
        ("deflate", "gzip"),
    ];
    for (first, second) in pairs {
        let body = encode(second, &encode(first, &text()));
        for size in [1, usize::MAX] {
            let parts = head(&[("content-encoding", first), ("content-encoding", second)]);
            let out = collect(scrubbed(parts, Script::of(&body, size))).unwrap();
            assert_eq!(out.len(), text().len(), "{first}, {second}");
            assert!(!holds(&out, KEY), "{first}, {second}");
        }
    }
}

#[test]
fn a_cut_body_is_an_error_and_not_an_end() {
    for coding in CODINGS {
        let body = encode(coding, &text());
        for kept in [1, body.len() / 2, body.len() - 1] {
            let out = collect(scrubbed(coded(coding), Script::of(&body[..kept], 100)));
            assert_eq!(
                out,
                Err(BodyFault::Truncated),
                "{coding}, {kept} of {}",
                body.len()
            );
        }
    }
}

#[test]
fn a_damaged_body_is_an_error() {
    // The checksum of gzip and of zlib, a reserved bit of zstd's frame header.
    for (coding, place, bit) in [
        ("gzip", Err(6), 1),
        ("deflate", Err(3), 1),
        ("zstd", Ok(4), 8),
    ] {
        let mut body = encode(coding, &text());
        let place = place.unwrap_or_else(|from_end: usize| body.len() - from_end);
        body[place] ^= bit;
        assert_eq!(
            collect(scrubbed(coded(coding), Script::of(&body, 100))),
            Err(BodyFault::Corrupt),
            "{coding}"
        );
    }
    for coding in ["gzip", "zstd"] {
        let out = collect(scrubbed(
            coded(coding),
            Script::of(b"not compressed at all", 5),
        ));
        assert_eq!(out, Err(BodyFault::Corrupt), "{coding}");
    }
}

#[test]
fn what_follows_a_complete_stream_is_dropped_and_another_member_is_read() {
    for coding in CODINGS {
        for size in [1, usize::MAX] {
            let body = [encode(coding, b"text"), [b"\0\0", KEY].concat()].concat();
            let out = collect(scrubbed(coded(coding), Script::of(&body, size)));
            assert_eq!(out.as_deref(), Ok(&b"text"[..]), "{coding}");
        }
    }
    for coding in ["gzip", "zstd"] {
        for size in [1, usize::MAX] {
            let body = [
                encode(coding, b"one, sk-live-01234"),
                encode(coding, b"56789abcdef, two"),
            ]
            .concat();
            let out = collect(scrubbed(coded(coding), Script::of(&body, size))).unwrap();
            assert!(
                out.starts_with(b"one, ") && out.ends_with(b", two") && !holds(&out, KEY),
                "{coding}"
            );
        }
    }
}

#[test]
fn an_empty_body_is_complete_in_any_coding() {
    for coding in CODINGS {
        let mut waits = Script::default();
        waits.data(b"");
        assert_eq!(
            collect(scrubbed(coded(coding), waits)),
            Ok(Vec::new()),
            "{coding}"
        );
    }
}

#[test]
fn a_compressed_event_comes_out_when_it_arrives() {
    let stacked = ("br, gzip", vec!["br", "gzip"]);
    let single = CODINGS.map(|coding| (coding, vec![coding]));
    for (field, codings) in single.into_iter().chain([stacked]) {
        let mut encoders: Vec<Encoder> =
            codings.iter().map(|coding| Encoder::new(coding)).collect();
        let mut script = Script::default();
        for number in 0..20 {
            let event = format!("data: {number} {}\n\n", "x".repeat(number * 50)).into_bytes();
            let bytes = encoders
                .iter_mut()
                .fold(event, |bytes, encoder| encoder.event(&bytes));
            bytes.iter().for_each(|byte| script.data(&[*byte]));
            script.wait();
        }
        let mut body = scrubbed(coded(field), script);
        for number in 0..20 {
            let mut got = Vec::new();
            let mut context = Context::from_waker(Waker::noop());
            while let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(&mut context) {
                got.extend_from_slice(frame.unwrap().unwrap().data_ref().unwrap());
            }
            let event = format!("data: {number} {}\n\n", "x".repeat(number * 50));
            assert_eq!(String::from_utf8(got).unwrap(), event, "{field}");
        }
    }
}

#[test]
fn a_bomb_comes_out_in_small_pieces() {
    let bomb = encode("gzip", &vec![0; 4_000_000]);
    let mut body = scrubbed(coded("gzip"), Script::of(&bomb, usize::MAX));
    let (mut total, mut largest) = (0, 0);
    while let Some(frame) = body.frame().now_or_never().unwrap() {
        let length = frame.unwrap().into_data().unwrap().len();
        (total, largest) = (total + length, largest.max(length));
    }
    assert_eq!(total, 4_000_000);
    assert!(largest <= 16 * 1024, "{largest}");
}

#[test]
fn a_zstd_window_over_eight_mebibytes_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder
        .set_parameter(zstd::zstd_safe::CParameter::WindowLog(27))
        .unwrap();
    encoder.write_all(&vec![7; 100_000]).unwrap();
    let body = encoder.finish().unwrap();
    assert_eq!(
        collect(scrubbed(coded("zstd"), Script::of(&body, 1000))),
        Err(BodyFault::Corrupt)
    );
}

#[test]
fn trailers_survive_and_are_scrubbed() {
    for coding in ["identity", "gzip"] {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("grpc-message", HeaderValue::from_bytes(KEY).unwrap());
        let body = if coding == "gzip" {
            encode("gzip", b"sk-live")
        } else {
            b"sk-live".to_vec()
        };
        let mut script = Script::of(&body, 3);
        script.0.push_back(Some(Frame::trailers(trailers)));
        let whole = scrubbed(coded(coding), script)
            .collect()
            .now_or_never()
            .unwrap()
            .unwrap();
        let trailers = whole.trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert!(
            trailers["grpc-message"]
                .as_bytes()
                .starts_with(b"[scrubbed]")
        );
        assert_eq!(
            whole.to_bytes(),
            "sk-live",
            "what was held back comes before the trailers"
        );
    }
}

#[test]
fn the_length_stays_exact_without_a_coding() {
    let hits = Arc::new(AtomicU64::new(0));
    let length = text().len() as u64;
    let mut parts = head(&[
        ("content-length", &length.to_string()),
        ("etag", "\"a\""),
        ("x-echo", "sk-live-0123456789abcdef"),
    ]);
    let body = scrub_response(
        &mut parts,
        Full::new(Bytes::from(text())),
        &scrubber(),
        Arc::clone(&hits),
    )
    .unwrap();
    assert_eq!(body.size_hint().exact(), Some(length));
    assert!(!body.is_end_stream());
    assert_eq!(parts.headers["content-length"], length.to_string());
    assert_eq!(parts.headers["etag"], "\"a\"");
    assert!(
        parts.headers["x-echo"]
            .as_bytes()
            .starts_with(b"[scrubbed]")
    );
    let out = body.collect().now_or_never().unwrap().unwrap().to_bytes();
    assert_eq!(out.len() as u64, length);
    assert_eq!(hits.load(Ordering::Relaxed), 3);
}

#[test]
fn the_length_counts_what_is_held_back() {
    struct Sized(Script, u64);
    impl Body for Sized {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            c: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let polled = Pin::new(&mut self.0).poll_frame(c);
            if let Poll::Ready(Some(Ok(frame))) = &polled {
                self.1 -= frame.data_ref().unwrap().len() as u64;
            }
            polled
        }
        fn is_end_stream(&self) -> bool {
            self.1 == 0
        }
        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.1)
        }
    }
    let inner = Sized(Script::of(b"abcdefsk-live-01", 12), 16);
    let mut body = scrub_response(&mut head(&[]), inner, &scrubber(), Arc::default()).unwrap();
    let mut left = 16;
    while let Some(frame) = body.frame().now_or_never().unwrap() {
        left -= frame.unwrap().into_data().unwrap().len() as u64;
        assert_eq!(body.size_hint().exact(), Some(left));
        assert_eq!(body.is_end_stream(), left == 0);
    }
    assert_eq!(left, 0);
}

#[test]
fn fields_of_the_coded_bytes_are_removed_when_decoding() {
    let mut parts = head(&[
        ("content-encoding", "X-GZip, identity"),
        ("content-length", "9"),
        ("content-md5", "x"),
        ("digest", "x"),
        ("content-digest", "x"),
        ("repr-digest", "x"),
        ("accept-ranges", "bytes"),
        ("etag", "\"a\""),
        ("content-type", "text/plain"),
    ]);
    let body =
        scrub_response(&mut parts, Script::of(b"x", 1), &scrubber(), Arc::default()).unwrap();
    assert_eq!(body.size_hint().exact(), None);
    let left: Vec<_> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(parts.headers["etag"], "W/\"a\"");
    assert_eq!(parts.headers["content-type"], "text/plain");
}

#[test]
fn an_answer_without_a_body_keeps_its_fields() {
    let mut parts = head(&[("content-encoding", "gzip"), ("content-length", "9")]);
    let body = scrub_response(
        &mut parts,
        Empty::<Bytes>::new(),
        &scrubber(),
        Arc::default(),
    )
    .unwrap();
    assert_eq!(parts.headers.len(), 2);
    assert!(body.is_end_stream());
}

#[test]
fn what_cannot_be_looked_into_is_refused() {
    let cases = [
        (
            vec![("content-encoding", "compress")],
            200,
            Unscrubbable::UnknownCoding,
        ),
        (
            vec![("content-encoding", "dcz")],
            200,
            Unscrubbable::UnknownCoding,
        ),
        (
            vec![("content-encoding", "gzip, aes128gcm")],
            200,
            Unscrubbable::UnknownCoding,
        ),
        (
            vec![
                ("content-encoding", "gzip,br"),
                ("content-encoding", "zstd"),
            ],
            200,
            Unscrubbable::TooManyCodings,
        ),
        (
            vec![("content-encoding", "gzip")],
            206,
            Unscrubbable::CodedPart,
        ),
        (
            vec![("transfer-encoding", "gzip, chunked")],
            200,
            Unscrubbable::TransferCoding,
        ),
        (
            vec![("grpc-encoding", "gzip")],
            200,
            Unscrubbable::UnknownCoding,
        ),
    ];
    for (fields, status, fault) in cases {
        let mut parts = head(&fields);
        parts.status = status.try_into().unwrap();
        let out = scrub_response(&mut parts, Script::of(b"x", 1), &scrubber(), Arc::default());
        assert_eq!(out.err(), Some(fault), "{fields:?}");
    }
    let mut parts = head(&[
        ("transfer-encoding", "Chunked"),
        ("grpc-encoding", "identity"),
        ("content-encoding", ""),
    ]);
    assert!(scrub_response(&mut parts, Script::of(b"x", 1), &scrubber(), Arc::default()).is_ok());
}

#[test]
fn a_field_named_like_the_secret_is_removed() {
    let mut parts = head(&[]);
    parts.headers.insert(
        http::HeaderName::from_bytes(&[b"x-", KEY].concat()).unwrap(),
        HeaderValue::from_static("1"),
    );
    let hits = Arc::new(AtomicU64::new(0));
    scrub_response(
        &mut parts,
        Script::default(),
        &scrubber(),
        Arc::clone(&hits),
    )
    .unwrap();
    assert!(parts.headers.is_empty());
    assert_eq!(hits.load(Ordering::Relaxed), 1);
}

#[test]
fn upstreams_are_asked_not_to_compress() {
    let mut headers = HeaderMap::new();
    headers.append("accept-encoding", HeaderValue::from_static("gzip"));
    headers.append("accept-encoding", HeaderValue::from_static("br"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("gzip"));
    headers.insert(
        "sec-websocket-extensions",
        HeaderValue::from_static("permessage-deflate"),
    );
    request_accept_encoding(&mut headers);
    assert_eq!(
        headers
            .get_all("accept-encoding")
            .iter()
            .collect::<Vec<_>>(),
        ["identity"]
    );
    assert_eq!(headers["grpc-accept-encoding"], "identity");
    assert_eq!(headers.len(), 2);
}

#[test]
fn a_body_can_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&scrubbed(coded("br"), Script::default()));
}
