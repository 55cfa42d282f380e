//! One request has one meaning and one path, and what was judged is what is sent.

use std::time::Duration;

use outgate_conformance::{
    Alpn, Req, Setup, Way, World, add_destination, eventually, frames, raw, record, websocket,
    within,
};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

outgate_conformance::scenarios! {
    ambiguous_framing_and_syntax_is_refused_and_the_connection_closed: [P7 S3], Envoy: Differs(
        "Envoy reads two `Host` fields as one that names no host: the request is refused, and the connection goes on",
        "two Host: the connection stayed open"
    );
    what_a_lenient_parser_would_mend_is_refused: [P7 S3], Envoy: Differs(
        "Envoy's codec mends bare line ends, folded lines and white space in the first line (RFC 9112, 2.2, 3 and 5.2 \
         let it), and of an absolute-form request it drops every `Host`; what is judged is the head as it is written \
         anew",
        "bare LF: the connection stayed open"
    );
    what_a_lenient_parser_mends_is_sent_as_one_plain_request: [P7 S3];
    a_bad_chunk_ends_the_connection_and_nothing_behind_it_is_a_request: [P7 S3];
    a_chunk_with_more_than_its_bytes_is_refused: [P7 S3], Envoy: Differs(
        "Envoy's codec skips what stands between a chunk's bytes and the next line, and white space behind its size; \
         every body is framed anew, so that none of it is passed on",
        "stayed open"
    );
    of_a_chunk_with_more_than_its_bytes_only_its_bytes_are_sent: [P7 S3];
    http2_in_clear_is_refused: [S3];
    an_upgrade_to_http2_in_clear_is_refused: [S3], Envoy: Differs(
        "Envoy takes an offer of h2c out of the request (RFC 9110, 7.8: whoever is asked may ignore it), and what is \
         left is judged and served over HTTP/1.1",
        "HTTP/1.1 200"
    );
    an_upgrade_to_http2_in_clear_is_neither_made_nor_passed_on: [S3];
    http2_in_clear_is_refused_by_its_name: [S3], Envoy: Differs(
        "to Envoy's codec the preface of HTTP/2 is a bad HTTP/1.1 request: it is refused and recorded as \
         malformed_request",
        "no audit record of cleartext_http2"
    );
    pipelined_requests_are_judged_one_by_one: [S3];
    bytes_behind_an_upgrade_that_was_not_accepted_are_judged_as_requests: [S3];
    a_path_is_sent_exactly_as_it_was_judged_or_not_at_all: [P7];
    methods_and_headers_narrow_a_rule_and_cannot_be_overridden: [P7];
    a_method_in_another_case_is_another_method: [P7], Envoy: Differs(
        "Envoy's codec knows methods in upper case only: another spelling is refused as malformed_request",
        "malformed_request"
    );
    a_method_in_another_case_goes_nowhere: [P7];
    fields_that_frame_http1_cannot_be_smuggled_through_http2: [P7 S3];
    hop_by_hop_fields_stay_on_their_hop: [P11];
    a_body_arrives_whole_and_alone: [P11];
    a_second_value_does_not_hide_a_denied_one: [P7];
    what_the_gateway_answers_itself_is_not_asked_again: [P8];
    http_1_0_asks_for_no_upgrade: [S3];
}

/// The ways in over HTTP/1.1, with a head's request target and `Host` for `rules.test`.
const H1_WAYS: [Way; 2] = [Way::AbsoluteForm, Way::TunnelH1];

fn target(world: &World, way: Way, path: &str) -> String {
    if way == Way::AbsoluteForm {
        format!("http://rules.test:{}{path}", world.port(way))
    } else {
        path.to_owned()
    }
}

/// Sends `bytes` as they are and reads every answer until the gateway closes.
async fn send_raw(world: &World, way: Way, bytes: &[u8]) -> (String, bool) {
    send_raw_for(world, way, bytes, Duration::from_secs(4)).await
}

async fn send_raw_for(world: &World, way: Way, bytes: &[u8], limit: Duration) -> (String, bool) {
    let req = world.get(way, "rules.test", "/");
    let (answer, closed) = if way == Way::AbsoluteForm {
        let mut stream = world.guest().dial().await.unwrap();
        raw::send_and_drain(&mut stream, bytes, limit).await
    } else {
        let mut tls = world.guest().tunnel(way, &req).await.expect("a tunnel");
        raw::send_and_drain(&mut tls.io, bytes, limit).await
    };
    (String::from_utf8_lossy(&answer).into_owned(), closed)
}

/// What stands behind a head, to be taken for a request of its own if the head is misread. It names another port than
/// the rule's.
const SMUGGLED: &str = "GET /v1/smuggled HTTP/1.1\r\nhost: rules.test\r\n\r\n";

/// The lines of a valid head for `rules.test`.
struct Lines {
    line: String,
    host: String,
    auth: String,
}

impl Lines {
    fn of(world: &World, way: Way, token: &str) -> Self {
        Self {
            line: format!("POST {} HTTP/1.1\r\n", target(world, way, "/v1/x")),
            host: format!("host: rules.test:{}\r\n", world.port(way)),
            auth: format!("authorization: Bearer {token}\r\n"),
        }
    }

    /// Heads with two readings or none.
    fn ambiguous(&self) -> Vec<(&'static str, String)> {
        let Self { line, host, auth } = self;
        let good = format!("{line}{host}{auth}");
        vec![
            (
                "CL and TE",
                format!(
                    "{good}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
                ),
            ),
            (
                "TE and CL",
                format!(
                    "{good}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n{SMUGGLED}"
                ),
            ),
            (
                "two CL",
                format!("{good}content-length: 0\r\ncontent-length: 48\r\n\r\n{SMUGGLED}"),
            ),
            (
                "two equal CL",
                format!("{good}content-length: 0\r\ncontent-length: 0\r\n\r\n{SMUGGLED}"),
            ),
            (
                "CL list",
                format!("{good}content-length: 0, 0\r\n\r\n{SMUGGLED}"),
            ),
            (
                "CL with sign",
                format!("{good}content-length: +0\r\n\r\n{SMUGGLED}"),
            ),
            (
                "CL hex",
                format!("{good}content-length: 0x0\r\n\r\n{SMUGGLED}"),
            ),
            (
                "CL empty",
                format!("{good}content-length:\r\n\r\n{SMUGGLED}"),
            ),
            (
                "two TE",
                format!(
                    "{good}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
                ),
            ),
            (
                "TE not final",
                format!("{good}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{SMUGGLED}"),
            ),
            (
                "TE unknown",
                format!("{good}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
            ),
            (
                "TE with VT",
                format!("{good}transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
            ),
            (
                "fold first",
                format!("{line} x: y\r\n{host}{auth}\r\n{SMUGGLED}"),
            ),
            (
                "space before colon",
                format!("{good}content-length : 0\r\n\r\n{SMUGGLED}"),
            ),
            ("no colon", format!("{good}nonsense\r\n\r\n{SMUGGLED}")),
            ("empty name", format!("{good}: y\r\n\r\n{SMUGGLED}")),
            ("NUL in value", format!("{good}x: y\0z\r\n\r\n{SMUGGLED}")),
            (
                "HTTP/1.0 and TE",
                good.replace("HTTP/1.1", "HTTP/1.0")
                    + "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"
                    + SMUGGLED,
            ),
            (
                "HTTP/1.2",
                good.replace("HTTP/1.1", "HTTP/1.2") + "\r\n" + SMUGGLED,
            ),
            (
                "no version",
                format!(
                    "{}{host}{auth}\r\n{SMUGGLED}",
                    line.replace(" HTTP/1.1", "")
                ),
            ),
            (
                "bad method",
                format!(
                    "{}{host}{auth}\r\n{SMUGGLED}",
                    line.replacen("POST", "PO(ST", 1)
                ),
            ),
        ]
    }

    /// Heads that a lenient parser reads as if they were well spelt.
    fn mendable(&self, way: Way) -> Vec<(&'static str, String)> {
        let Self { line, host, auth } = self;
        let good = format!("{line}{host}{auth}");
        let mut heads = vec![
            ("bare LF", format!("{good}x: y\n\r\n{SMUGGLED}")),
            ("bare LF end", format!("{good}\n{SMUGGLED}")),
            ("bare CR", format!("{good}x: y\rz: w\r\n\r\n{SMUGGLED}")),
            ("obs-fold", format!("{good}x: y\r\n z\r\n\r\n{SMUGGLED}")),
            (
                "tab in line",
                format!("{}{host}{auth}\r\n{SMUGGLED}", line.replacen(' ', "\t", 1)),
            ),
            (
                "two spaces",
                format!("{}{host}{auth}\r\n{SMUGGLED}", line.replacen(' ', "  ", 1)),
            ),
        ];
        if way == Way::AbsoluteForm {
            heads.push(self.two_hosts());
        }
        heads
    }

    fn two_hosts(&self) -> (&'static str, String) {
        let Self { line, host, auth } = self;
        let head = format!("{line}{host}{auth}{host}\r\n{SMUGGLED}");
        ("two Host", head)
    }
}

/// It is answered once, the connection closes, nothing of it is sent, and a record says so.
async fn assert_malformed(world: &World, way: Way, what: &str, head: &str) {
    let mark = world.mark();
    let context = format!("{way:?}: {what}");
    let (answer, closed) = send_raw(world, way, head.as_bytes()).await;
    assert!(closed, "{context}: the connection stayed open: {answer}");
    assert!(answer.starts_with("HTTP/1.1 400"), "{context}: {answer}");
    assert_eq!(
        answer.matches("HTTP/1.1 ").count(),
        1,
        "{context}: {answer}"
    );
    assert!(answer.contains("malformed_request"), "{context}: {answer}");
    world.assert_audited(mark, "malformed_request", &context);
    world.assert_nothing_sent(mark, &context);
}

async fn ambiguous_framing_and_syntax_is_refused_and_the_connection_closed() {
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in H1_WAYS {
        let lines = Lines::of(&world, way, &token);
        for (what, head) in lines.ambiguous() {
            assert_malformed(&world, way, what, &head).await;
        }
        if way == Way::TunnelH1 {
            let (what, head) = lines.two_hosts();
            assert_malformed(&world, way, what, &head).await;
        }
    }
}

async fn what_a_lenient_parser_would_mend_is_refused() {
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in H1_WAYS {
        for (what, head) in Lines::of(&world, way, &token).mendable(way) {
            assert_malformed(&world, way, what, &head).await;
        }
    }
}

async fn what_a_lenient_parser_mends_is_sent_as_one_plain_request() {
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in H1_WAYS {
        for (what, head) in Lines::of(&world, way, &token).mendable(way) {
            let before = world.seen();
            let limit = Duration::from_secs(1);
            let (answer, _) = send_raw_for(&world, way, head.as_bytes(), limit).await;
            let context = format!("{way:?}: {what}: {answer}");
            let served = answer.starts_with("HTTP/1.1 200");
            assert!(served || answer.starts_with("HTTP/1.1 400"), "{context}");
            assert_eq!(answer.matches("HTTP/1.1 200").count(), usize::from(served));
            assert_eq!(world.seen(), before + usize::from(served), "{context}");
            if served {
                let seen = world.origin(way).last();
                let authority = format!("rules.test:{}", world.port(way));
                assert_eq!(seen.method, "POST", "{context}");
                assert_eq!(seen.target, "/v1/x", "{context}");
                assert_eq!(seen.authority, authority, "{context}");
                assert!(seen.body.is_empty(), "{context}: {seen:?}");
                assert_eq!(seen.headers.get("z"), None, "{context}: {seen:?}");
                let hosts = seen.headers.all("host").count();
                assert!(hosts <= 1, "{context}: {seen:?}");
            }
        }
    }
}

/// A request whose body is this chunked text, with another request behind it.
fn chunked(world: &World, way: Way, token: &str, body: &str) -> String {
    format!(
        "POST {} HTTP/1.1\r\nhost: rules.test:{}\r\nauthorization: Bearer {token}\r\ntransfer-encoding: chunked\r\n\r\n{body}{SMUGGLED}",
        target(world, way, "/v1/x"),
        world.port(way),
    )
}

const BAD_CHUNKS: &[&str] = &[
    "zz\r\nabc\r\n0\r\n\r\n",
    "-1\r\na\r\n0\r\n\r\n",
    "0x3\r\nabc\r\n0\r\n\r\n",
    "3\nabc\r\n0\r\n\r\n",
    "ffffffffffffffff0\r\nabc\r\n0\r\n\r\n",
    "3;a\nb\r\nabc\r\n0\r\n\r\n",
    "\r\n0\r\n\r\n",
];

/// Chunks of `abc` with more than their bytes and their lines.
const MENDABLE_CHUNKS: &[&str] = &[
    "3\r\nabcd\r\n0\r\n\r\n",
    "3\r\nabc\n0\r\n\r\n",
    "3 \r\nabc\r\n0\r\n\r\n",
];

async fn a_bad_chunk_ends_the_connection_and_nothing_behind_it_is_a_request() {
    assert_bad_chunks(BAD_CHUNKS).await;
}

async fn a_chunk_with_more_than_its_bytes_is_refused() {
    assert_bad_chunks(MENDABLE_CHUNKS).await;
}

async fn assert_bad_chunks(chunks: &[&str]) {
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in H1_WAYS {
        for chunk in chunks {
            let bytes = chunked(&world, way, &token, chunk);
            let (answer, closed) = send_raw(&world, way, bytes.as_bytes()).await;
            let context = format!("{way:?}: {chunk:?}");
            assert!(closed, "{context}: stayed open: {answer}");
            assert!(!answer.contains("HTTP/1.1 200"), "{context}: {answer}");
            let complete = world.origin(way).seen().iter().any(|seen| {
                seen.target.contains("smuggled") || (seen.body_complete && seen.method == "POST")
            });
            assert!(!complete, "{context}: {:?}", world.origin(way).seen());
        }
    }
}

async fn of_a_chunk_with_more_than_its_bytes_only_its_bytes_are_sent() {
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in H1_WAYS {
        for chunk in MENDABLE_CHUNKS {
            let before = world.origin(way).count();
            let bytes = chunked(&world, way, &token, chunk);
            let limit = Duration::from_secs(1);
            let (answer, _) = send_raw_for(&world, way, bytes.as_bytes(), limit).await;
            let context = format!("{way:?}: {chunk:?}: {answer}");
            let seen = world.origin(way).seen().split_off(before);
            assert!(seen.len() <= 1, "{context}: {seen:?}");
            let whole = seen.iter().any(|seen| seen.body_complete);
            assert_eq!(answer.matches("HTTP/1.1 200").count(), usize::from(whole));
            for seen in seen {
                assert_eq!(seen.target, "/v1/x", "{context}: {seen:?}");
                assert!(b"abc".starts_with(&seen.body), "{context}: {seen:?}");
                assert!(!whole || seen.body == b"abc", "{context}: {seen:?}");
            }
        }
    }
}

async fn http2_in_clear_is_refused() {
    let world = World::hurried().await;
    let mark = world.mark();
    let mut stream = world.guest().dial().await.unwrap();
    let limit = Duration::from_secs(4);
    let (_, closed) = raw::send_and_drain(&mut stream, &frames::preface(), limit).await;
    assert!(closed);
    world.until_recorded(mark, "a preface at the proxy", refuses_http2);
    // In clear inside a tunnel, and as HTTP/2 bytes in a TLS session that agreed on HTTP/1.1.
    let port = world.plain.port();
    let mark = world.mark();
    let mut tunnel = world
        .guest()
        .connect(&format!("rules.test:{port}"))
        .await
        .expect("a tunnel");
    let (_, closed) = raw::send_and_drain(&mut tunnel, &frames::preface(), limit).await;
    assert!(closed);
    world.until_recorded(mark, "a preface in a tunnel", refuses_http2);
    let (_, closed) = send_raw(&world, Way::TunnelH1, &frames::preface()).await;
    assert!(closed);
    world.assert_nothing_sent(mark, "preface in TLS");
}

/// A request that offers to go on as HTTP/2.
fn h2c(world: &World, way: Way, token: &str) -> String {
    format!(
        "GET {} HTTP/1.1\r\nhost: rules.test:{}\r\nauthorization: Bearer {token}\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n",
        target(world, way, "/v1/x"),
        world.port(way),
    )
}

async fn an_upgrade_to_http2_in_clear_is_refused() {
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in H1_WAYS {
        let mark = world.mark();
        let (answer, _) = send_raw(&world, way, h2c(&world, way, &token).as_bytes()).await;
        assert!(
            answer.contains("upgrade_not_supported"),
            "{way:?}: {answer}"
        );
        world.assert_audited(mark, "upgrade_not_supported", &format!("{way:?}"));
        world.assert_nothing_sent(mark, &format!("{way:?}"));
    }
}

async fn an_upgrade_to_http2_in_clear_is_neither_made_nor_passed_on() {
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in H1_WAYS {
        let before = world.seen();
        let mut bytes = h2c(&world, way, &token).into_bytes();
        // Were it made, these would be the first of it.
        bytes.extend(frames::preface());
        let (answer, _) = send_raw(&world, way, &bytes).await;
        let context = format!("{way:?}: {answer}");
        assert!(!answer.contains(" 101 "), "{context}");
        if answer.contains("upgrade_not_supported") {
            assert_eq!(world.seen(), before, "{context}");
            continue;
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{context}");
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{context}");
        assert_eq!(world.seen(), before + 1, "{context}");
        let seen = world.origin(way).last();
        for name in ["upgrade", "http2-settings"] {
            assert_eq!(seen.headers.get(name), None, "{context}: {seen:?}");
        }
    }
}

fn refuses_http2(record: &Value) -> bool {
    ["cleartext_http2", "malformed_request"].contains(&record::reason(record).unwrap_or(""))
}

async fn http2_in_clear_is_refused_by_its_name() {
    let world = World::hurried().await;
    let limit = Duration::from_secs(4);
    let mark = world.mark();
    let mut stream = world.guest().dial().await.unwrap();
    raw::send_and_drain(&mut stream, &frames::preface(), limit).await;
    world.assert_audited(mark, "cleartext_http2", "preface at the proxy");
    let mark = world.mark();
    let inside = format!("rules.test:{}", world.plain.port());
    let mut tunnel = world.guest().connect(&inside).await.expect("a tunnel");
    raw::send_and_drain(&mut tunnel, &frames::preface(), limit).await;
    world.assert_audited(mark, "cleartext_http2", "preface in a tunnel");
}

async fn pipelined_requests_are_judged_one_by_one() {
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in H1_WAYS {
        let request = |path: &str| {
            format!(
                "GET {} HTTP/1.1\r\nhost: rules.test:{}\r\nauthorization: Bearer {token}\r\n\r\n",
                target(&world, way, path),
                world.port(way),
            )
        };
        let before = world.seen();
        let bytes = request("/v1/one") + &request("/v2/two") + &request("/v1/three");
        let stream = world.guest();
        let answers = match way {
            Way::AbsoluteForm => {
                let mut stream = stream.dial().await.unwrap();
                stream.write_all(bytes.as_bytes()).await.unwrap();
                raw::all_responses(stream, Duration::from_millis(1500)).await
            }
            _ => {
                let req = world.get(way, "rules.test", "/");
                let mut h1 = stream.open(way, &req).await.expect("a tunnel").into_h1();
                h1.write(bytes.as_bytes()).await.unwrap();
                let mut all = Vec::new();
                let limit = Duration::from_millis(1500);
                while let Ok(Ok(answer)) =
                    tokio::time::timeout(limit, h1.read_response("GET")).await
                {
                    all.push(answer);
                }
                all
            }
        };
        assert_eq!(answers[0].status, 200, "{way:?}: {answers:?}");
        assert_eq!(answers[1].reason(), Some("path_not_allowed"), "{way:?}");
        let targets: Vec<String> = world
            .origin(way)
            .seen()
            .into_iter()
            .map(|seen| seen.target)
            .collect();
        assert!(
            !targets.iter().any(|target| target.contains("/v2")),
            "{way:?}: {targets:?}"
        );
        assert!((1..=2).contains(&(world.seen() - before)), "{way:?}");
    }
}

async fn bytes_behind_an_upgrade_that_was_not_accepted_are_judged_as_requests() {
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in H1_WAYS {
        // The upstream answers 200 to this upgrade: no tunnel exists, whatever the client hopes.
        let bytes = format!(
            "GET {} HTTP/1.1\r\nhost: rules.test:{}\r\nauthorization: Bearer {token}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {}\r\n\r\nGET /v2/smuggled HTTP/1.1\r\nhost: rules.test\r\n\r\n",
            target(&world, way, "/v1/x"),
            world.port(way),
            websocket::KEY,
        );
        let (answer, _) = send_raw(&world, way, bytes.as_bytes()).await;
        let seen = world.origin(way).seen();
        assert!(
            !seen.iter().any(|seen| seen.target.contains("smuggled")),
            "{way:?}: {answer}; {seen:?}"
        );
        assert!(
            !seen.iter().any(|seen| seen.body_length > 0),
            "{way:?}: {seen:?}"
        );
    }
}

/// Path, whether it is let through, and the code otherwise.
const PATHS: &[(&str, Option<&str>)] = &[
    ("/v1/x", None),
    ("/v1/x/y?q=../../admin&r=%2e%2e", None),
    ("/v1/a%20b", None),
    ("/v1/~user/-._", None),
    ("/v1/x/", None),
    ("/", Some("path_not_allowed")),
    ("/v2/x", Some("path_not_allowed")),
    ("/V1/x", Some("path_not_allowed")),
    ("/v1", None),
    ("/v10/x", Some("path_not_allowed")),
    ("/v1/admin/x", Some("request_denied")),
    ("/v1/admin", Some("request_denied")),
    ("/v1/../v2/x", Some("path_ambiguous")),
    ("/v1/./x", Some("path_ambiguous")),
    ("/v1/%2e%2e/v2", Some("path_ambiguous")),
    ("/v1/%2E./v2", Some("path_ambiguous")),
    ("/v1%2f..%2fv2", Some("path_ambiguous")),
    ("/v1/x%2Fadmin", Some("path_ambiguous")),
    ("/v1//admin/x", Some("path_ambiguous")),
    ("//v1/x", Some("path_ambiguous")),
    ("/v1/x;p=1", Some("path_ambiguous")),
    ("/v1/..;/admin/x", Some("path_ambiguous")),
    ("/v1/%5c..%5cadmin", Some("path_ambiguous")),
    ("/v1/%252e%252e/v2", Some("path_ambiguous")),
    ("/v1/%61dmin/x", Some("path_ambiguous")),
    ("/v1/%zz", Some("path_ambiguous")),
    // Never valid UTF-8; some servers read a slash and dots.
    ("/v1/..%c0%afadmin", Some("path_ambiguous")),
    ("/v1/%C0%AE%C0%AE/v2", Some("path_ambiguous")),
    ("/v1/%c1%9cadmin", Some("path_ambiguous")),
    ("/v1/%f5%80%80%af", Some("path_ambiguous")),
    ("/v1/%c3%a9", None),
    ("/v1/x%00", Some("path_ambiguous")),
];

async fn a_path_is_sent_exactly_as_it_was_judged_or_not_at_all() {
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        for (path, code) in PATHS {
            let mark = world.mark();
            let context = format!("{way:?} {path}");
            let req = world.get(way, "rules.test", path).bearer(&token);
            let outcome = world.guest().send(way, &req).await;
            match code {
                None => {
                    assert_eq!(outcome.answered().status, 200, "{context}");
                    assert_eq!(world.origin(way).last().target, *path, "{context}");
                }
                Some(code) => world.assert_denied(mark, &outcome, code, &context),
            }
        }
    }
    // What no client library sends.
    for way in H1_WAYS {
        for path in ["/v1\\..\\v2", "/v1/x#/../v2", "/v1/\u{ff0e}\u{ff0e}/v2"] {
            let mark = world.mark();
            let bytes = format!(
                "GET {} HTTP/1.1\r\nhost: rules.test:{}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n",
                target(&world, way, path),
                world.port(way),
            );
            let (answer, _) = send_raw(&world, way, bytes.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 4"), "{way:?} {path}: {answer}");
            assert!(answer.contains("x-deny-reason"), "{way:?} {path}: {answer}");
            world.assert_nothing_sent(mark, path);
        }
    }
}

async fn methods_and_headers_narrow_a_rule_and_cannot_be_overridden() {
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        for (method, path, code) in [
            ("PUT", "/v1/files/a", None),
            ("PUT", "/v1/files/a/b", Some("method_not_allowed")),
            ("DELETE", "/v1/x", Some("method_not_allowed")),
            ("PATCH", "/v2", Some("path_not_allowed")),
        ] {
            let mark = world.mark();
            let req = world
                .get(way, "rules.test", path)
                .method(method)
                .bearer(&token);
            let outcome = world.guest().send(way, &req).await;
            let context = format!("{way:?} {method} {path}");
            match code {
                None => assert_eq!(outcome.answered().status, 200, "{context}"),
                Some(code) => world.assert_denied(mark, &outcome, code, &context),
            }
        }
        let req = world
            .get(way, "rules.test", "/v1/x")
            .bearer(&token)
            .header("x-http-method-override", "DELETE")
            .header("x-original-url", "/v1/admin/x");
        assert_eq!(world.guest().send(way, &req).await.answered().status, 200);
        let seen = world.origin(way).last();
        assert_eq!(seen.headers.get("x-http-method-override"), None, "{way:?}");
        assert_eq!(seen.headers.get("x-original-url"), None, "{way:?}");
        for (values, code) in [
            (&["a"][..], None),
            (&["b"], None),
            (&[], Some("header_not_allowed")),
            (&["c"], Some("header_not_allowed")),
            (&["a", "c"], Some("header_not_allowed")),
            (&["a, c"], Some("header_not_allowed")),
        ] {
            let mark = world.mark();
            let mut req = world.get(way, "headers.test", "/").bearer(&token);
            for value in values {
                req = req.header("x-mode", value);
            }
            let outcome = world.guest().send(way, &req).await;
            let context = format!("{way:?} x-mode {values:?}");
            match code {
                None => assert_eq!(outcome.answered().status, 200, "{context}"),
                Some(code) => world.assert_denied(mark, &outcome, code, &context),
            }
        }
    }
}

async fn a_method_in_another_case_is_another_method() {
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let mark = world.mark();
        let req = world.get(way, "rules.test", "/v1/x").method("get");
        let outcome = world.guest().send(way, &req.bearer(&token)).await;
        world.assert_denied(mark, &outcome, "method_not_allowed", &format!("{way:?}"));
    }
}

async fn a_method_in_another_case_goes_nowhere() {
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        for method in ["get", "gET", "Post"] {
            let mark = world.mark();
            let req = world.get(way, "rules.test", "/v1/x").method(method);
            let outcome = world.guest().send(way, &req.bearer(&token)).await;
            let context = format!("{way:?} {method}: {outcome:?}");
            let reason = outcome.reason().unwrap_or("").to_owned();
            assert!(
                ["method_not_allowed", "malformed_request"].contains(&reason.as_str()),
                "{context}"
            );
            world.assert_audited(mark, &reason, &context);
            world.assert_nothing_sent(mark, &context);
        }
    }
}

async fn fields_that_frame_http1_cannot_be_smuggled_through_http2() {
    // The upstream speaks only HTTP/1.1, so that anything carried over would frame a request there.
    let world = World::with(Setup {
        alpn: Alpn::H1,
        ..Setup::default()
    })
    .await;
    let (_, token) = world.session();
    let port = world.tls.port().to_string();
    let authority = format!("rules.test:{port}");
    let bearer = format!("Bearer {token}");
    let good = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", authority.as_str()),
        (":path", "/v1/x"),
    ];
    let host_line = format!("/v1/x HTTP/1.1\r\nhost: rules.test:{port}\r\n\r\nGET /v1/smuggled");
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("nothing", good.to_vec()),
        (
            "transfer-encoding",
            [&good[..], &[("transfer-encoding", "chunked")]].concat(),
        ),
        (
            "connection",
            [&good[..], &[("connection", "keep-alive")]].concat(),
        ),
        ("te", [&good[..], &[("te", "chunked")]].concat()),
        (
            "CRLF in a value",
            [&good[..], &[("x", "y\r\nsmuggled: 1")]].concat(),
        ),
        (
            "LF in a value",
            [&good[..], &[("x", "y\nsmuggled: 1")]].concat(),
        ),
        (
            "CRLF in a name",
            [&good[..], &[("x\r\nsmuggled", "1")]].concat(),
        ),
        ("upper-case name", [&good[..], &[("X-Upper", "1")]].concat()),
        (
            "CRLF in the path",
            [&good[..3], &[(":path", host_line.as_str())]].concat(),
        ),
        (
            "space in the path",
            [&good[..3], &[(":path", "/v1/x HTTP/1.1")]].concat(),
        ),
        (
            "space in the method",
            [&[(":method", "GET /v1/smuggled HTTP/1.1")], &good[1..]].concat(),
        ),
        (
            "two paths",
            [&good[..], &[(":path", "/v1/smuggled")]].concat(),
        ),
        ("no path", good[..3].to_vec()),
        ("pseudo after field", [&[("x", "y")], &good[..]].concat()),
        (
            "two authorities",
            [&good[..], &[(":authority", "x.test")]].concat(),
        ),
        (
            "content-length lies",
            [&good[..], &[("content-length", "10")]].concat(),
        ),
    ];
    let offers_h2 = {
        let req = world.get(Way::TunnelH2, "rules.test", "/");
        world.guest().tunnel(Way::TunnelH2, &req).await.is_ok()
    };
    // A plane that mirrors the upstream's ALPN has nothing to translate and nothing to smuggle.
    if !offers_h2 {
        return;
    }
    for (what, fields) in cases {
        let req = world.get(Way::TunnelH2, "rules.test", "/");
        let mut tls = world
            .guest()
            .tunnel(Way::TunnelH2, &req)
            .await
            .expect("a tunnel");
        let mut bytes = frames::preface();
        let fields = [&fields[..], &[("authorization", bearer.as_str())]].concat();
        let block = frames::header_block(&fields);
        bytes.extend(frames::frame(1, 0x5, 1, &block));
        let _ = raw::send_and_drain(&mut tls.io, &bytes, Duration::from_millis(400)).await;
        // The first case has nothing wrong with it: the method works.
        assert!(
            world.tls.count() > 0,
            "{what}: the good request did not arrive"
        );
        for seen in world.tls.seen() {
            let text = format!("{seen:?}");
            assert!(!text.contains("smuggled"), "{what}: {text}");
            assert!(
                seen.headers.get("transfer-encoding").is_none(),
                "{what}: {text}"
            );
        }
    }
}

async fn hop_by_hop_fields_stay_on_their_hop() {
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in H1_WAYS {
        let req = world
            .get(way, "n.test", "/echo")
            .bearer(&token)
            .header("connection", "x-hop, keep-alive")
            .header("x-hop", "1")
            .header("keep-alive", "timeout=5")
            .header("te", "trailers")
            .header("proxy-connection", "keep-alive")
            .header("x-end-to-end", "1");
        assert_eq!(world.guest().send(way, &req).await.answered().status, 200);
        let seen = world.origin(way).last();
        for name in [
            "x-hop",
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
        ] {
            assert_eq!(seen.headers.get(name), None, "{way:?} {name}");
        }
        assert_eq!(seen.headers.get("x-end-to-end"), Some("1"), "{way:?}");
    }
}

async fn a_body_arrives_whole_and_alone() {
    use outgate_conformance::ReqBody;
    let world = World::hurried().await;
    let (_, token) = world.session();
    let smuggled = b"GET /v1/smuggled HTTP/1.1\r\nhost: rules.test\r\n\r\n".to_vec();
    for way in Way::ALL {
        for body in [
            ReqBody::Bytes(smuggled.clone()),
            ReqBody::Chunked(vec![smuggled[..7].to_vec(), smuggled[7..].to_vec()]),
        ] {
            let req = Req {
                body,
                ..world.get(way, "rules.test", "/v1/x").method("POST")
            };
            let outcome =
                within(5, "an answer", world.guest().send(way, &req.bearer(&token))).await;
            assert_eq!(outcome.answered().status, 200, "{way:?}");
            let whole = eventually(Duration::from_secs(2), || {
                let seen = world.origin(way).last();
                (seen.body == smuggled && seen.body_complete).then_some(())
            });
            assert!(
                whole.await.is_some(),
                "{way:?}: {:?}",
                world.origin(way).last()
            );
        }
    }
}

async fn a_second_value_does_not_hide_a_denied_one() {
    let world = World::configured(|config, places| {
        let rule = json!({ "host": "xwild.test", "ports": [places.tls, places.plain],
            "plaintext": true, "posture": "bump", "deny": [{ "headers": { "x-mode": ["admin"] } }] });
        add_destination(config, rule);
    })
    .await;
    let (_, token) = world.session();
    for way in Way::ALL {
        for (values, code) in [
            (&[][..], None),
            (&["zzz"], None),
            (&["admin"], Some("request_denied")),
            (&["admin", "zzz"], Some("request_denied")),
            (&["zzz", "admin"], Some("request_denied")),
        ] {
            let mark = world.mark();
            let mut req = world.get(way, "xwild.test", "/").bearer(&token);
            for value in values {
                req = req.header("x-mode", value);
            }
            let outcome = world.guest().send(way, &req).await;
            let context = format!("{way:?} x-mode {values:?}");
            match code {
                None => assert_eq!(outcome.answered().status, 200, "{context}"),
                Some(code) => world.assert_denied(mark, &outcome, code, &context),
            }
        }
    }
}

async fn what_the_gateway_answers_itself_is_not_asked_again() {
    use outgate_conformance::ReqBody;
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let req = world
            .get(way, "rules.test", "/v1/x")
            .method("POST")
            .bearer(&token)
            .header("expect", "100-continue")
            .body(ReqBody::Bytes(b"hello".to_vec()));
        let outcome = within(5, "an answer", world.guest().send(way, &req)).await;
        assert_eq!(outcome.answered().status, 200, "{way:?}");
        let seen = world.origin(way).last();
        assert_eq!(seen.headers.get("expect"), None, "{way:?}");
        assert_eq!(seen.body, b"hello", "{way:?}");
    }
}

async fn http_1_0_asks_for_no_upgrade() {
    let world = World::hurried().await;
    let (_, token) = world.session();
    for way in H1_WAYS {
        for (version, status) in [("1.0", "400"), ("1.1", "101")] {
            let mark = world.mark();
            let bytes = format!(
                "GET {} HTTP/{version}\r\nhost: a.test:{}\r\nauthorization: Bearer {token}\r\n\
                 connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                 sec-websocket-key: {}\r\n\r\n",
                target(&world, way, "/ws").replace("rules.test", "a.test"),
                world.port(way),
                websocket::KEY,
            );
            let req = world.get(way, "a.test", "/ws");
            let mut stream = world
                .guest()
                .open(way, &req)
                .await
                .expect("a way in")
                .into_h1();
            stream.write(bytes.as_bytes()).await.unwrap();
            let answer = within(5, "an answer", stream.read_head())
                .await
                .unwrap()
                .unwrap();
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let context = format!("{way:?} {version}: {answer}");
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{context}"
            );
            if status == "400" {
                assert!(
                    answer.contains("x-deny-reason: malformed_request"),
                    "{context}"
                );
                world.assert_audited(mark, "malformed_request", &context);
                world.assert_nothing_sent(mark, &context);
            }
        }
    }
}
