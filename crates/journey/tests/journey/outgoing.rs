use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use outgate_journey::{
    outgoing::{
        resembles_token, reveals_token, strip_for_guest, strip_for_upstream, strip_hop_by_hop,
        strip_trailers_for_upstream,
    },
    policy::Rule,
};

use crate::support::{
    NOW, OLD, ONE, TWO, Tokens, header_form, headers, injecting, policy, query_form, requests,
    rule, with_form,
};

/// The fields that are left, as `name: value`, in the order of the alphabet.
fn listed(headers: &HeaderMap) -> Vec<String> {
    let line = |(name, value): (_, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    sorted(headers.iter().map(line))
}

fn sorted(fields: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut fields: Vec<String> = fields.into_iter().collect();
    fields.sort();
    fields
}

fn all(fields: &[(&str, &str)]) -> Vec<String> {
    sorted(
        fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}")),
    )
}

fn sent_under(rule: &Rule, fields: &[(&str, &str)]) -> Vec<String> {
    let mut headers = headers(fields);
    let policy = policy(vec![rule.clone()]);
    strip_for_upstream(&mut headers, &policy, rule, &Tokens::default(), NOW);
    listed(&headers)
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

#[test]
fn what_is_meant_for_one_hop_goes_no_further() {
    for (fields, left) in [
        (
            &[
                ("connection", "keep-alive"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("proxy-authorization", "Basic eA=="),
                ("proxy-authenticate", "Basic"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("http2-settings", "AAMAAABk"),
                ("te", "gzip"),
                ("x-kept", "1"),
            ][..],
            &["x-kept: 1"][..],
        ),
        (
            &[
                ("connection", "close, X-Secret ,x-two"),
                ("Connection", "x-three"),
                ("x-secret", "1"),
                ("x-two", "2"),
                ("x-two", "2b"),
                ("x-three", "3"),
                ("x-kept", "1"),
            ],
            &["x-kept: 1"],
        ),
        // Naming what frames or routes a request must not take it out.
        (
            &[
                ("connection", "host, content-length"),
                ("host", "a.test"),
                ("content-length", "3"),
            ],
            &["content-length: 3", "host: a.test"],
        ),
        (
            &[("connection", "\"a b\", ,;"), ("x-kept", "1")],
            &["x-kept: 1"],
        ),
        (
            &[("te", "gzip, Trailers"), ("x-kept", "1")],
            &["te: trailers", "x-kept: 1"],
        ),
        (
            &[("connection", "te"), ("te", "trailers")],
            &["te: trailers"],
        ),
        (&[("te", "trailersx")], &[]),
    ] {
        let mut headers = headers(fields);
        strip_hop_by_hop(&mut headers);
        assert_eq!(listed(&headers), left, "{fields:?}");
    }
}

#[test]
fn the_guests_own_credentials_never_reach_an_injected_destination() {
    let fields = [
        ("authorization", "Bearer mine"),
        ("authorization", "Basic bWluZTptaW5l"),
        ("x-api-key", "mine"),
        ("api-key", "mine"),
        ("x-goog-api-key", "mine"),
        ("private-token", "mine"),
        ("x-token", "mine"),
        ("x-rule-key", "mine"),
        ("range", "bytes=0-3"),
        ("if-range", "\"v1\""),
        ("x-kept", "1"),
    ];
    let into_header = injecting("a.test", with_form(header_form("x-rule-key")));
    assert_eq!(sent_under(&into_header, &fields), ["x-kept: 1"]);
    let into_query = injecting("a.test", with_form(query_form("key")));
    assert_eq!(
        sent_under(&into_query, &fields),
        ["x-kept: 1", "x-rule-key: mine"]
    );
}

#[test]
fn without_a_credential_the_guests_own_are_its_business() {
    let fields = [
        ("authorization", "Bearer mine"),
        ("x-api-key", "mine"),
        ("x-token", "mine"),
        ("range", "bytes=0-3"),
        ("if-range", "\"v1\""),
    ];
    assert_eq!(sent_under(&rule("a.test", |_| {}), &fields), all(&fields));
}

#[test]
fn a_session_token_is_taken_out_of_whatever_field_it_stands_in() {
    let rule = rule("a.test", |_| {});
    for value in [
        ONE.to_owned(),
        TWO.to_owned(),
        OLD.to_owned(),
        format!("Bearer {ONE}"),
        format!("bearer\t{ONE}"),
        format!("a=1; session={ONE}; b=2"),
        format!("\"{ONE}\""),
        format!("https://x.test/?t={ONE}&u=1"),
        format!("eyJ.no.good {ONE}"),
        format!("eyJ-{ONE}"),
        basic(&format!("user:{ONE}")),
        basic(&format!("{ONE}:")),
        basic(&format!("{ONE}:x-oauth-basic")),
        basic(&format!("{ONE}:x")),
        basic(&format!("user:a={ONE}")),
        basic(&format!("user:{ONE}")).replace("Basic ", "basic   "),
        basic(&format!("user:{ONE}")).replace("Basic ", "BASIC\t"),
    ] {
        for name in ["authorization", "cookie", "x-odd", "user-agent", "referer"] {
            let fields = [(name, value.as_str()), ("x-kept", "1")];
            assert_eq!(sent_under(&rule, &fields), ["x-kept: 1"], "{name}: {value}");
        }
    }
}

#[test]
fn a_session_token_is_found_beside_bytes_that_are_not_ascii() {
    let rule = rule("a.test", |_| {});
    let policy = policy(vec![rule.clone()]);
    for value in [
        [b"\xc3\xa4 ", ONE.as_bytes()].concat(),
        [b"\xff", ONE.as_bytes(), b"\xfe"].concat(),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("x-odd", HeaderValue::from_bytes(&value).unwrap());
        strip_for_upstream(&mut headers, &policy, &rule, &Tokens::default(), NOW);
        assert!(headers.is_empty(), "{}", value.escape_ascii());
    }
}

#[test]
fn what_is_no_session_token_is_left_alone() {
    let rule = rule("a.test", |_| {});
    for value in [
        "eyJ.one.forged",
        "eyJ.one",
        "1.2.3",
        "Basic !!!",
        "Basic dXNlcjpwYXNz",
        "basic",
    ] {
        let expected = format!("x-odd: {value}");
        assert_eq!(sent_under(&rule, &[("x-odd", value)]), [expected]);
    }
}

#[test]
fn fields_that_say_another_request_go_only_under_rules_that_judge_requests() {
    let fields = [
        ("x-http-method-override", "DELETE"),
        ("x-http-method", "DELETE"),
        ("x-method-override", "DELETE"),
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
    ];
    assert_eq!(sent_under(&rule("a.test", |_| {}), &fields), all(&fields));
    for change in [
        (|rule| rule.requests.allow.push(requests(&["GET"], &[], &[]))) as fn(&mut Rule),
        |rule| rule.requests.deny.push(requests(&[], &["/admin"], &[])),
    ] {
        assert!(sent_under(&rule("a.test", change), &fields).is_empty());
    }
}

#[test]
fn a_token_is_found_in_a_text_and_a_text_made_to_hide_one_counts_as_one() {
    let found = |text: &str| reveals_token(text, &Tokens::default(), NOW);
    for text in [
        ONE,
        OLD,
        "/x/eyJ.one.good/y",
        "a=eyJ.one.good&b",
        "ä eyJ.one.good",
        "eyJeyJeyJeyJeyJ.one.good",
        "/x/eyJ.one.good.and.more",
        "/x/%65yJ.one.good",
        "/x/%2565yJ%252eone.good",
    ] {
        assert!(found(text), "{text}");
    }
    for text in ["", "eyJ", "eyJ.one", "eyj.one.good", "/v1/messages", "..."] {
        assert!(!found(text), "{text}");
    }
    // What is made to be costly to search, or to be decoded without end, is not searched to its end.
    assert!(found(&"eyJ.".repeat(100_000)));
    assert!(found("%252525252541"));
}

#[test]
fn an_answer_invites_the_guest_nowhere_else() {
    let mut answer = headers(&[
        ("alt-svc", "h3=\":443\""),
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("transfer-encoding", "chunked"),
        ("proxy-authenticate", "Basic"),
        ("set-cookie", "a=1"),
        ("content-length", "3"),
    ]);
    answer.append(
        HeaderName::from_static("alt-svc"),
        HeaderValue::from_static("clear"),
    );
    strip_for_guest(&mut answer);
    assert_eq!(listed(&answer), ["content-length: 3", "set-cookie: a=1"]);
}

#[test]
fn the_underscore_twin_of_a_field_goes_where_the_field_is_judged_or_replaced() {
    let fields = [
        ("x_api_key", "mine"),
        ("x_token", "mine"),
        ("x_rule_key", "mine"),
        ("x_mode", "b"),
        ("x_original-url", "/admin"),
        ("x_kept", "1"),
    ];
    assert_eq!(sent_under(&rule("a.test", |_| {}), &fields), all(&fields));
    let injected = injecting("a.test", with_form(header_form("x-rule-key")));
    let left = ["x_kept: 1", "x_mode: b", "x_original-url: /admin"];
    assert_eq!(sent_under(&injected, &fields), left);
    let judged = rule("a.test", |rule| {
        rule.requests.deny.push(requests(&[], &[], &["x-mode: b"]));
    });
    let left = [
        "x_api_key: mine",
        "x_kept: 1",
        "x_rule_key: mine",
        "x_token: mine",
    ];
    assert_eq!(sent_under(&judged, &fields), left);
}

#[test]
fn a_trailer_section_brings_nothing_that_a_head_may_not() {
    let rule = injecting("a.test", |_| {});
    let mut trailers = headers(&[
        ("host", "x.test"),
        ("content-length", "3"),
        ("content-type", "text/plain"),
        ("cookie", "a=1"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("transfer-encoding", "chunked"),
        ("authorization", "Bearer mine"),
        ("x-odd", ONE),
        ("grpc-status", "0"),
    ]);
    let policy = policy(vec![rule.clone()]);
    strip_trailers_for_upstream(&mut trailers, &policy, &rule, &Tokens::default(), NOW);
    assert_eq!(listed(&trailers), ["grpc-status: 0"]);
}

#[test]
fn what_resembles_a_token_is_not_written_down() {
    let piece = "eyJhbGciOiJFZERTQSIsInR5";
    for text in [piece, &format!("a/{piece}.x"), &format!("{piece}:443")] {
        assert!(resembles_token(text), "{text}");
    }
    for text in ["", "eyJ", "/v1/eyJ/messages", "eyJhbGciOiJF zERTQSIsInR5"] {
        assert!(!resembles_token(text), "{text}");
    }
}
