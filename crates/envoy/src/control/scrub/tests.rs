//! The state machine with the native plane's scrubbing cases, as Envoy sends them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose as b64};
use bytes::Bytes;
use futures_util::stream;
use http::HeaderName;
use outgate_credential::{BodyFault, CredentialStore, CredentialVersion};
use outgate_envoy_proto::envoy::{
    config::core::v3::{HeaderMap as Sent, HeaderValue},
    service::ext_proc::v3::{
        HeaderMutation, HttpBody, HttpHeaders, HttpTrailers, ProcessingRequest, ProcessingResponse,
        body_mutation::Mutation, processing_request::Request,
        processing_response::Response as Answer,
    },
};
use outgate_journey::{
    denial::DenyCode,
    inject::Credentials,
    policy::{CredentialName, CredentialSource, InjectionForm},
};
use tokio::sync::mpsc;
use tonic::Status;

use super::{
    answer::{Fault, Known, Scrubbing},
    carry::{Over, carry},
    covering, fields,
};
use crate::control::{metadata::texts, refusal::processed};

const KEY: &[u8] = b"sk-live-0123456789abcdef";
const CODINGS: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

fn lease(form: &InjectionForm) -> Arc<CredentialVersion> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret");
    fs::write(&path, KEY).expect("a file");
    let name = CredentialName::new("api");
    let wanted = BTreeMap::from([(name.clone(), CredentialSource::File(path))]);
    let (store, _) = CredentialStore::open(&wanted, &[(name.clone(), form.clone())]);
    store.lease(&name).expect("a lease")
}

fn bearer() -> InjectionForm {
    InjectionForm::Header {
        name: HeaderName::from_static("authorization"),
        prefix: "Bearer ".into(),
        suffix: String::new(),
    }
}

fn query() -> InjectionForm {
    InjectionForm::Query {
        parameter: "key".into(),
    }
}

fn counted(hits: &Arc<AtomicU64>) -> Scrubbing {
    let lease = lease(&bearer());
    Scrubbing::new(Some(Known {
        scrub: Some(Box::new(move || Arc::clone(&lease))),
        query: None,
        hits: Arc::clone(hits),
    }))
}

fn scrubbing() -> Scrubbing {
    counted(&Arc::default())
}

fn untouched() -> Scrubbing {
    Scrubbing::new(Some(Known {
        scrub: None,
        query: None,
        hits: Arc::default(),
    }))
}

type Fields = Vec<(String, Vec<u8>)>;

fn sent<V: AsRef<[u8]>>(fields: &[(&str, V)]) -> Option<Sent> {
    let headers = fields.iter().map(|(name, value)| HeaderValue {
        key: (*name).to_owned(),
        raw_value: value.as_ref().to_vec(),
        ..HeaderValue::default()
    });
    Some(Sent {
        headers: headers.collect(),
    })
}

fn head<V: AsRef<[u8]>>(fields: &[(&str, V)], end_of_stream: bool) -> Request {
    Request::ResponseHeaders(HttpHeaders {
        headers: sent(fields),
        end_of_stream,
        ..HttpHeaders::default()
    })
}

fn ok(fields: &[(&str, &str)]) -> Request {
    let status = [(":status", "200")];
    head(&[&status[..], fields].concat(), false)
}

fn chunk(bytes: &[u8]) -> Request {
    Request::ResponseBody(HttpBody {
        body: Bytes::copy_from_slice(bytes),
        ..HttpBody::default()
    })
}

fn last(bytes: &[u8]) -> Request {
    Request::ResponseBody(HttpBody {
        body: Bytes::copy_from_slice(bytes),
        end_of_stream: true,
        ..HttpBody::default()
    })
}

fn trailers<V: AsRef<[u8]>>(fields: &[(&str, V)]) -> Request {
    Request::ResponseTrailers(HttpTrailers {
        trailers: sent(fields),
    })
}

/// What Envoy is told, as far as tests ask.
#[derive(Debug, PartialEq)]
enum Told {
    RequestHead(Fields, Vec<String>),
    Head(Fields, Vec<String>),
    Body(Vec<u8>),
    End,
    Trailers(Fields, Vec<String>),
}

/// The fields that are set, `+` standing before those that are appended, and the removed.
fn mutation(mutation: Option<HeaderMutation>) -> (Fields, Vec<String>) {
    let mutation = mutation.unwrap_or_default();
    let set = mutation.set_headers.into_iter().map(|option| {
        let field = option.header.unwrap();
        let append = if option.append.unwrap() { "+" } else { "" };
        (format!("{append}{}", field.key), field.raw_value)
    });
    (set.collect(), mutation.remove_headers)
}

fn told(answer: ProcessingResponse) -> Told {
    match answer.response.unwrap() {
        Answer::RequestHeaders(head) => {
            let (set, removed) = mutation(head.response.unwrap().header_mutation);
            Told::RequestHead(set, removed)
        }
        Answer::ResponseHeaders(head) => {
            let (set, removed) = mutation(head.response.unwrap().header_mutation);
            Told::Head(set, removed)
        }
        Answer::ResponseBody(body) => {
            let body = body.response.unwrap().body_mutation.unwrap().mutation;
            let Some(Mutation::StreamedResponse(piece)) = body else {
                panic!("not a streamed answer");
            };
            if piece.end_of_stream {
                assert!(piece.body.is_empty());
                return Told::End;
            }
            assert!(!piece.body.is_empty());
            Told::Body(piece.body.to_vec())
        }
        Answer::ResponseTrailers(trailers) => {
            let (set, removed) = mutation(trailers.header_mutation);
            Told::Trailers(set, removed)
        }
        _ => panic!("an answer that a state machine never gives"),
    }
}

/// Everything that is told about one message.
fn say(scrubbing: &mut Scrubbing, message: Request) -> Result<Vec<Told>, Fault> {
    scrubbing.take(message, false)?;
    let mut all = Vec::new();
    while let Some(answer) = scrubbing.next()? {
        all.push(told(answer));
    }
    Ok(all)
}

/// A body in chunks of a size, after a head; what of it was let on.
fn body_of(fields: &[(&str, &str)], body: &[u8], size: usize) -> Result<Vec<u8>, Fault> {
    let mut scrubbing = scrubbing();
    say(&mut scrubbing, ok(fields))?;
    let mut out = Vec::new();
    let mut ended = 0;
    let chunks = body.chunks(size).map(chunk);
    for message in chunks.chain([last(b"")]) {
        for piece in say(&mut scrubbing, message)? {
            match piece {
                Told::Body(bytes) => out.extend(bytes),
                Told::End => ended += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(ended, 1);
    Ok(out)
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn encode(coding: &str, text: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    match coding {
        "gzip" => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), level);
            writer.write_all(text).unwrap();
            writer.finish().unwrap()
        }
        "deflate" => {
            let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), level);
            writer.write_all(text).unwrap();
            writer.finish().unwrap()
        }
        "br" => {
            let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
            writer.write_all(text).unwrap();
            writer.into_inner()
        }
        _ => zstd::encode_all(text, 3).unwrap(),
    }
}

fn text() -> Vec<u8> {
    let noise = b"before ".repeat(3000);
    [&noise[..], KEY, b" between ", KEY, &b" after".repeat(3000)].concat()
}

fn refused(result: Result<Vec<Told>, Fault>) -> DenyCode {
    match result {
        Err(Fault::Refused(denial)) => denial.code(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_spelling_is_masked_however_the_chunks_are_cut() {
    let hex: String = KEY.iter().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = KEY.iter().map(|byte| format!("%{byte:02X}")).collect();
    let spellings = [
        KEY.to_vec(),
        b64::STANDARD.encode(KEY).into_bytes(),
        b64::URL_SAFE_NO_PAD.encode(KEY).into_bytes(),
        b64::STANDARD
            .encode([b"Bearer ", KEY].concat())
            .into_bytes(),
        hex.clone().into_bytes(),
        hex.to_uppercase().into_bytes(),
        percent.into_bytes(),
    ];
    for spelling in spellings {
        let whole = [b"{\"echo\":\"", &spelling[..], b"\"}"].concat();
        for size in 1..=whole.len() {
            let out = body_of(&[], &whole, size).unwrap();
            assert_eq!(out.len(), whole.len(), "chunks of {size}");
            assert!(out.starts_with(b"{\"echo\":\"") && out.ends_with(b"\"}"));
            assert!(!holds(&out, &spelling), "chunks of {size}");
        }
    }
}

#[test]
fn every_coding_is_decoded_and_scrubbed_whatever_the_chunks() {
    for coding in CODINGS {
        let body = encode(coding, &text());
        for size in [1, 7, 1000, usize::MAX] {
            let out = body_of(&[("content-encoding", coding)], &body, size).unwrap();
            assert_eq!(out.len(), text().len(), "{coding} in chunks of {size}");
            assert!(!holds(&out, KEY), "{coding} in chunks of {size}");
        }
    }
    let twice = encode("br", &encode("gzip", &text()));
    let out = body_of(&[("content-encoding", "gzip, br")], &twice, 100).unwrap();
    assert!(out.len() == text().len() && !holds(&out, KEY));
}

#[test]
fn a_damaged_or_cut_body_breaks_off() {
    for coding in CODINGS {
        let body = encode(coding, &text());
        let field = [("content-encoding", coding)];
        let cut = body_of(&field, &body[..body.len() / 2], 100);
        assert!(
            matches!(cut, Err(Fault::Broken(BodyFault::Truncated))),
            "{coding}"
        );
    }
    for coding in ["gzip", "zstd"] {
        let out = body_of(&[("content-encoding", coding)], b"not compressed at all", 5);
        assert!(
            matches!(out, Err(Fault::Broken(BodyFault::Corrupt))),
            "{coding}"
        );
    }
}

#[test]
fn a_head_that_hides_its_body_is_refused() {
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[("content-encoding", "compress")], "200"),
        (&[("content-encoding", "dcz")], "200"),
        (&[("content-encoding", "gzip, x-unknown")], "200"),
        (&[("content-encoding", "gzip,br,zstd")], "200"),
        (&[("content-encoding", "gzip")], "206"),
        (&[("transfer-encoding", "gzip, chunked")], "200"),
        (&[("grpc-encoding", "gzip")], "200"),
        // `Connection` does not hide it.
        (
            &[
                ("connection", "content-encoding"),
                ("content-encoding", "compress"),
            ],
            "200",
        ),
    ];
    for (fields, status) in cases {
        let status = [(":status", status)];
        let message = head(&[&status[..], fields].concat(), false);
        let code = refused(say(&mut scrubbing(), message));
        assert_eq!(code, DenyCode::ResponseUnscrubbable, "{fields:?}");
        // An answer without a body hides nothing.
        let message = head(&[&status[..], fields].concat(), true);
        assert!(say(&mut scrubbing(), message).is_ok(), "{fields:?}");
        // Where nothing is looked for, nothing is hidden.
        let message = head(&[&status[..], fields].concat(), false);
        assert!(say(&mut untouched(), message).is_ok(), "{fields:?}");
    }
}

#[test]
fn a_head_that_cannot_be_read_is_refused() {
    let cases: [&[(&str, &[u8])]; 4] = [
        &[("x-a", b"no status")],
        &[(":status", b"abc")],
        &[(":status", b"200"), ("x a", b"1")],
        &[(":status", b"200"), ("x-a", b"a\x01b")],
    ];
    for fields in cases {
        let code = refused(say(&mut scrubbing(), head(fields, false)));
        assert_eq!(code, DenyCode::UpstreamProtocol);
    }
}

#[test]
fn a_head_loses_the_credential_and_what_is_not_for_the_guest() {
    let hits = Arc::new(AtomicU64::new(0));
    let key = std::str::from_utf8(KEY).unwrap();
    let encoded = b64::STANDARD.encode(KEY);
    let named = format!("x-{key}");
    let message = ok(&[
        ("content-length", "5"),
        ("set-cookie", "a=1"),
        ("set-cookie", key),
        ("set-cookie", &encoded),
        ("x-envoy-echo", key),
        ("etag", "\"a\""),
        ("alt-svc", "h3=\":443\""),
        ("connection", "x-hop, keep-alive"),
        ("keep-alive", "timeout=5"),
        ("x-hop", "1"),
        ("proxy-authenticate", "Basic"),
        ("transfer-encoding", "chunked"),
        (&named, "1"),
        ("x-plain", "stays"),
    ]);
    let answers = say(&mut counted(&hits), message).unwrap();
    let [Told::Head(set, removed)] = &answers[..] else {
        panic!("{answers:?}");
    };
    let removed: BTreeSet<_> = removed.iter().map(String::as_str).collect();
    let wanted = [
        "alt-svc",
        "keep-alive",
        "proxy-authenticate",
        "x-hop",
        &named,
    ];
    assert_eq!(removed, BTreeSet::from(wanted));
    let names: Vec<_> = set.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["set-cookie", "+set-cookie", "+set-cookie", "x-envoy-echo"]
    );
    assert_eq!(set[0].1, b"a=1");
    for (name, value) in &set[1..] {
        assert!(value.starts_with(b"[scrubbed]"), "{name}");
    }
    assert_eq!(hits.load(Ordering::Relaxed), 4);
}

#[test]
fn fields_of_the_coded_bytes_go_only_where_a_body_is_decoded() {
    let fields = [
        ("content-encoding", "gzip"),
        ("content-length", "9"),
        ("digest", "x"),
        ("accept-ranges", "bytes"),
        ("etag", "\"a\""),
    ];
    let answers = say(&mut scrubbing(), ok(&fields)).unwrap();
    let [Told::Head(set, removed)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(set[..], [("etag".to_owned(), b"W/\"a\"".to_vec())]);
    assert_eq!(removed.len(), 4, "{removed:?}");
    // The answer to HEAD describes a body that is not there.
    let status = [(":status", "200")];
    let message = head(&[&status[..], &fields[..]].concat(), true);
    let answers = say(&mut scrubbing(), message).unwrap();
    assert_eq!(answers, [Told::Head(vec![], vec![])]);
    // A body that is not decoded keeps its length.
    let answers = say(&mut scrubbing(), ok(&[("content-length", "9")])).unwrap();
    assert_eq!(answers, [Told::Head(vec![], vec![])]);
}

#[test]
fn trailers_are_scrubbed_and_come_after_what_was_held_back() {
    let hits = Arc::new(AtomicU64::new(0));
    let mut scrubbing = counted(&hits);
    say(&mut scrubbing, ok(&[])).unwrap();
    let begun = say(&mut scrubbing, chunk(b"text sk-live-0")).unwrap();
    assert_eq!(begun, [Told::Body(b"text ".to_vec())]);
    let fields = [("grpc-status", &b"0"[..]), ("grpc-message", KEY)];
    let answers = say(&mut scrubbing, trailers(&fields)).unwrap();
    let [Told::Body(rest), Told::Trailers(set, removed)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(rest, b"sk-live-0");
    assert!(removed.is_empty());
    let [(name, value)] = &set[..] else {
        panic!("{set:?}");
    };
    assert!(name == "grpc-message" && value.starts_with(b"[scrubbed]"));
    assert_eq!(hits.load(Ordering::Relaxed), 1);
}

#[test]
fn an_event_is_let_on_when_it_arrives() {
    let mut plain = scrubbing();
    say(&mut plain, ok(&[("content-type", "text/event-stream")])).unwrap();
    let mut gzip = scrubbing();
    say(&mut gzip, ok(&[("content-encoding", "gzip")])).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    for number in 0..20 {
        // Ends like the beginning of the credential.
        let event = format!("data: {number} s\n\nsk-").into_bytes();
        let answers = say(&mut plain, chunk(&event)).unwrap();
        assert_eq!(answers, [Told::Body(event.clone())]);
        encoder.write_all(&event).unwrap();
        encoder.flush().unwrap();
        let coded = std::mem::take(encoder.get_mut());
        let answers = say(&mut gzip, chunk(&coded)).unwrap();
        assert_eq!(answers, [Told::Body(event)]);
    }
}

#[test]
fn the_bytes_after_a_101_are_scrubbed_as_they_stand() {
    let mut scrubbing = scrubbing();
    let fields = [
        (":status", "101"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("content-length", "5"),
        // Said of no body.
        ("content-encoding", "gzip"),
        ("alt-svc", "h3"),
    ];
    let answers = say(&mut scrubbing, head(&fields, false)).unwrap();
    let [Told::Head(set, removed)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert!(set.is_empty(), "{set:?}");
    let mut removed = removed.clone();
    removed.sort_unstable();
    assert_eq!(removed, ["alt-svc", "content-length"]);
    let frame = [b"\x81\x18", KEY].concat();
    let (first, second) = frame.split_at(10);
    let mut out = Vec::new();
    for bytes in [first, second, b"\x81\x02ok"] {
        for piece in say(&mut scrubbing, chunk(bytes)).unwrap() {
            let Told::Body(bytes) = piece else {
                panic!("{piece:?}");
            };
            out.extend(bytes);
        }
    }
    assert!(out.starts_with(b"\x81\x18") && out.ends_with(b"\x81\x02ok"));
    assert_eq!(out.len(), frame.len() + 4);
    assert!(!holds(&out, KEY) && !holds(&out, &KEY[8..]));
}

#[test]
fn where_nothing_is_looked_for_bytes_pass_untouched_and_fields_are_stripped_all_the_same() {
    let mut scrubbing = untouched();
    let message = ok(&[("content-encoding", "x-unknown"), ("alt-svc", "h3")]);
    let answers = say(&mut scrubbing, message).unwrap();
    assert_eq!(answers, [Told::Head(vec![], vec!["alt-svc".to_owned()])]);
    let answers = say(&mut scrubbing, chunk(KEY)).unwrap();
    assert_eq!(answers, [Told::Body(KEY.to_vec())]);
    assert_eq!(say(&mut scrubbing, chunk(b"")).unwrap(), []);
    let answers = say(&mut scrubbing, last(b"x")).unwrap();
    assert_eq!(answers, [Told::Body(b"x".to_vec()), Told::End]);
}

#[test]
fn of_an_exchange_that_was_not_admitted_only_envoys_own_answer_passes() {
    let mut unknown = Scrubbing::new(None);
    let code = refused(say(&mut unknown, ok(&[("x-deny-reason", "rate_limited")])));
    assert_eq!(code, DenyCode::InternalFault);
    let code = refused(say(&mut unknown, chunk(b"x")));
    assert_eq!(code, DenyCode::InternalFault);
    let request = Request::RequestHeaders(HttpHeaders::default());
    let code = refused(say(&mut Scrubbing::new(None), request));
    assert_eq!(code, DenyCode::InternalFault);

    let mut local = Scrubbing::new(None);
    let fields = [(":status", "403"), ("x-deny-reason", "path_not_allowed")];
    local.take(head(&fields, false), true).unwrap();
    assert_eq!(
        told(local.next().unwrap().unwrap()),
        Told::Head(vec![], vec![])
    );
    assert!(local.next().unwrap().is_none());
    let answers = say(&mut local, last(b"{}")).unwrap();
    assert_eq!(answers, [Told::Body(b"{}".to_vec()), Told::End]);
}

#[test]
fn an_answer_is_local_only_where_envoy_says_so() {
    let said = |namespace: &str, key: &str, details: &str| {
        let sent = texts([(key, details.to_owned())]);
        fields::is_local(&BTreeMap::from([(namespace.to_owned(), sent)]))
    };
    let filter = "envoy.filters.http.ext_proc";
    assert!(said(filter, "response.code_details", "ext_authz_denied"));
    assert!(!said(filter, "response.code_details", "via_upstream"));
    assert!(!said(filter, "response.code_details", ""));
    assert!(!said(filter, "response.code", "ext_authz_denied"));
    assert!(!said("x", "response.code_details", "ext_authz_denied"));
    assert!(!fields::is_local(&BTreeMap::new()));
}

#[test]
fn a_rotation_between_the_admission_and_the_answer_shows_neither_value() {
    const NEXT: &[u8] = b"sk-live-after-the-rotation";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let name = CredentialName::new("api");
    fs::write(&path, KEY).unwrap();
    let wanted = BTreeMap::from([(name.clone(), CredentialSource::File(path.clone()))]);
    let (store, _) = CredentialStore::open(&wanted, &[(name.clone(), bearer())]);
    let store = Arc::new(store);
    let rotate = |value: &[u8]| {
        fs::write(&path, value).unwrap();
        assert_eq!(store.refresh().len(), 1);
    };
    let admitted = store.lease(&name).unwrap();
    let (from, lease) = (Arc::clone(&store), Arc::clone(&admitted));
    let mut scrubbing = Scrubbing::new(Some(Known {
        scrub: Some(Box::new(move || covering(&from, &lease))),
        query: None,
        hits: Arc::default(),
    }));
    // The stream is there, for its request's head, before the rotation.
    rotate(NEXT);
    let both = [KEY, b" and ", NEXT].concat();
    let head = say(
        &mut scrubbing,
        head(&[(":status", &b"200"[..]), ("x-echo", &both)], false),
    );
    let body = say(&mut scrubbing, last(&both));
    let said = [head.unwrap(), body.unwrap()];
    let [Told::Head(set, _)] = &said[0][..] else {
        panic!("{said:?}");
    };
    let [Told::Body(body), Told::End] = &said[1][..] else {
        panic!("{said:?}");
    };
    for text in [&set[0].1, body] {
        assert_eq!(text.len(), both.len());
        assert!(holds(text, b" and ") && !holds(text, &KEY[3..]) && !holds(text, &NEXT[3..]));
    }
    // What was admitted is looked for, however often it was replaced since, and when there is nothing any more.
    for value in [b"third-value-of-it", b"fourth-value-of-i"] {
        rotate(value);
    }
    assert!(covering(&store, &admitted).scrubber().contains(KEY));
    fs::remove_file(&path).unwrap();
    assert_eq!(store.refresh().len(), 1);
    assert!(covering(&store, &admitted).scrubber().contains(KEY));
}

#[test]
fn a_query_form_is_put_into_the_target() {
    let with_query = || {
        Scrubbing::new(Some(Known {
            scrub: None,
            query: Some((lease(&query()), query())),
            hits: Arc::default(),
        }))
    };
    let request = |path: &str| {
        Request::RequestHeaders(HttpHeaders {
            headers: sent(&[(":method", "GET"), (":path", path), ("x-a", "1")]),
            end_of_stream: true,
            ..HttpHeaders::default()
        })
    };
    for (path, wanted) in [
        ("/a", "/a?key=sk-live-0123456789abcdef"),
        ("/a?b=1&c", "/a?b=1&c&key=sk-live-0123456789abcdef"),
        (
            "/a?key=guest&b=1&key=x",
            "/a?key=sk-live-0123456789abcdef&b=1",
        ),
    ] {
        let answers = say(&mut with_query(), request(path)).unwrap();
        let set = vec![(":path".to_owned(), wanted.as_bytes().to_vec())];
        assert_eq!(answers, [Told::RequestHead(set, vec![])]);
    }
    let code = refused(say(&mut with_query(), request("")));
    assert_eq!(code, DenyCode::MalformedRequest);
    // What another filter attached is left alone.
    let answers = say(&mut scrubbing(), request("/a")).unwrap();
    assert_eq!(answers, [Told::RequestHead(vec![], vec![])]);
}

#[test]
fn what_is_out_of_turn_or_was_not_asked_for_is_refused() {
    let over = || {
        let mut scrubbing = scrubbing();
        say(&mut scrubbing, ok(&[])).unwrap();
        say(&mut scrubbing, last(b"x")).unwrap();
        scrubbing
    };
    let all = || {
        let mut scrubbing = scrubbing();
        say(&mut scrubbing, head(&[(":status", "204")], true)).unwrap();
        scrubbing
    };
    let field = [("x-a", "1")];
    for (mut scrubbing, message) in [
        (scrubbing(), chunk(b"x")),
        (scrubbing(), trailers(&field)),
        (over(), chunk(b"x")),
        (over(), trailers(&field)),
        (all(), chunk(b"x")),
        (scrubbing(), Request::RequestBody(HttpBody::default())),
        (
            scrubbing(),
            Request::RequestTrailers(HttpTrailers::default()),
        ),
    ] {
        let code = refused(say(&mut scrubbing, message));
        assert_eq!(code, DenyCode::InternalFault);
    }
}

fn message(request: Request) -> ProcessingRequest {
    ProcessingRequest {
        request: Some(request),
        ..ProcessingRequest::default()
    }
}

#[tokio::test]
async fn a_bomb_waits_for_the_guest_in_small_pieces() {
    let bomb = encode("gzip", &vec![0; 4_000_000]);
    let first = message(ok(&[("content-encoding", "gzip")]));
    let rest = [Ok(message(chunk(&bomb))), Ok(message(last(b"")))];
    let (answers, mut taken) = mpsc::channel(4);
    let carried = tokio::spawn(async move {
        let mut messages = stream::iter(rest);
        carry(&mut scrubbing(), first, &mut messages, &answers).await
    });
    // Nothing is taken: nothing more is unpacked than the channel has places for.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!carried.is_finished());
    assert_eq!(taken.len(), 4);
    let (mut total, mut ended) = (0, false);
    while let Some(answer) = taken.recv().await {
        match told(answer.unwrap()) {
            Told::Body(piece) => {
                assert!(piece.len() < (64 + 16) * 1024, "{}", piece.len());
                total += piece.len();
            }
            Told::End => ended = true,
            other => assert_eq!(
                other,
                Told::Head(vec![], vec!["content-encoding".to_owned()])
            ),
        }
    }
    assert!(ended);
    assert_eq!(total, 4_000_000);
    assert_eq!(carried.await.unwrap().unwrap(), Over::Complete);
}

#[tokio::test]
async fn only_envoys_own_end_is_a_good_one() {
    type Messages = Vec<Result<ProcessingRequest, Status>>;
    let (answers, _taken) = mpsc::channel(9);
    let (closed, _) = mpsc::channel(9);
    let cases: [(Messages, _, Over); 3] = [
        (vec![Ok(message(chunk(b"x")))], &answers, Over::Complete),
        (vec![Err(Status::cancelled("gone"))], &answers, Over::Broken),
        (vec![], &closed, Over::Broken),
    ];
    for (rest, answers, wanted) in cases {
        let first = message(ok(&[]));
        let mut messages = stream::iter(rest);
        let over = carry(&mut scrubbing(), first, &mut messages, answers).await;
        assert_eq!(over.unwrap(), wanted);
    }
}

#[test]
fn a_refusal_is_answered_with_its_fields_and_without_a_length() {
    let mut answer = http::Response::new(Bytes::from_static(b"{}\n"));
    *answer.status_mut() = http::StatusCode::BAD_GATEWAY;
    for (name, value) in [
        ("content-length", "3"),
        ("x-deny-reason", "response_unscrubbable"),
    ] {
        answer.headers_mut().insert(name, value.parse().unwrap());
    }
    let Some(Answer::ImmediateResponse(immediate)) = processed(&answer, "outgate_x").response
    else {
        panic!("not an immediate response");
    };
    assert_eq!(immediate.status.unwrap().code, 502);
    assert_eq!(immediate.body, "{}\n");
    assert_eq!(immediate.details, "outgate_x");
    let (set, removed) = mutation(immediate.headers);
    let reason = b"response_unscrubbable".to_vec();
    assert_eq!(set, [("x-deny-reason".to_owned(), reason)]);
    assert!(removed.is_empty());
}
