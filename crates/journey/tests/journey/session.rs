use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderName;
use outgate_journey::{
    denial::DenyCode,
    policy::InjectionForm,
    session::{
        PresentedToken, SessionEnd, SessionId, TokenSlot, authenticate, check_denylist,
        presented_to_destination, presented_to_proxy,
    },
};

use crate::support::{
    Ended, NOW, OLD, ONE, ONE_RENEWED, TWO, Tokens, code, header_form, headers, injecting,
    query_form, with_form,
};

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

/// What is presented under a form, as `slot=text`.
fn presented(form: InjectionForm, fields: &[(&str, &str)], query: Option<&str>) -> Vec<String> {
    let rule = injecting("a.test", with_form(form));
    let token_headers = [HeaderName::from_static("x-token")];
    presented_to_destination(&headers(fields), query, &token_headers, &rule)
        .iter()
        .map(|token| match &token.slot {
            TokenSlot::Header(name) => format!("{name}={}", token.text),
            TokenSlot::Query => format!("?={}", token.text),
            TokenSlot::Proxy => format!("proxy={}", token.text),
            TokenSlot::Listener => format!("listener={}", token.text),
        })
        .collect()
}

#[test]
fn a_token_is_read_in_every_spelling_of_authorization() {
    for (value, expected) in [
        ("Bearer T".to_owned(), Some("T")),
        ("bearer T".to_owned(), Some("T")),
        ("BEARER   T".to_owned(), Some("T")),
        (" Bearer T\t".to_owned(), Some("T")),
        ("token T".to_owned(), Some("T")),
        ("T".to_owned(), Some("T")),
        (basic("user:T"), Some("T")),
        (basic("user:T:with:colons"), Some("T:with:colons")),
        (basic("T:"), Some("T")),
        (basic("T"), Some("T")),
        (basic("T:x-oauth-basic"), Some("T")),
        (basic("user:T").replace("Basic", "bASIC"), Some("T")),
        (basic("us:T").trim_end_matches('=').to_owned(), Some("T")),
        ("Basic !!!".to_owned(), None),
        (format!("Basic {}", STANDARD.encode(b"u:\xff")), None),
        ("Digest T".to_owned(), Some("Digest T")),
        (String::new(), None),
        (" \t".to_owned(), None),
    ] {
        let expected: Vec<String> = expected
            .map(|text| format!("authorization={text}"))
            .into_iter()
            .collect();
        let found = presented(
            header_form("x-other-key"),
            &[("authorization", &value)],
            None,
        );
        assert_eq!(found, expected, "{value:?}");
    }
}

#[test]
fn a_token_is_read_in_the_fields_where_clients_put_keys_and_in_no_other() {
    for (fields, expected) in [
        (&[("x-api-key", "T")][..], &["x-api-key=T"][..]),
        (&[("X-Api-Key", "T")], &["x-api-key=T"]),
        (&[("api-key", "T")], &["api-key=T"]),
        (&[("x-goog-api-key", "T")], &["x-goog-api-key=T"]),
        (&[("private-token", "T")], &["private-token=T"]),
        (&[("x-token", "T")], &["x-token=T"]),
        (&[("x-rule-key", "T")], &["x-rule-key=T"]),
        (&[("x-rule-key", "Bearer T")], &["x-rule-key=T"]),
        (
            &[("authorization", "Bearer T"), ("authorization", "Bearer U")],
            &["authorization=T", "authorization=U"],
        ),
        (
            &[("x-api-key", "T"), ("authorization", "Bearer U")],
            &["authorization=U", "x-api-key=T"],
        ),
        (&[("proxy-authorization", "Bearer T")], &[]),
        (&[("x-session", "T")], &[]),
        (&[("cookie", "T")], &[]),
        (&[], &[]),
    ] {
        assert_eq!(
            presented(header_form("x-rule-key"), fields, Some("key=Q")),
            expected,
            "{fields:?}"
        );
    }
    assert!(presented(header_form("authorization"), &[("x-rule-key", "T")], None).is_empty());
}

#[test]
fn a_field_that_is_named_twice_by_the_policy_and_the_rule_is_read_once_each() {
    let found = presented(header_form("x-api-key"), &[("x-api-key", "T")], None);
    assert_eq!(found, ["x-api-key=T"]);
}

#[test]
fn a_query_parameter_is_read_only_where_the_rule_injects_into_it() {
    for (query, expected) in [
        (Some("key=T"), &["?=T"][..]),
        (Some("a=1&key=T&b=2"), &["?=T"]),
        (Some("key=T&key=U"), &["?=T", "?=U"]),
        (Some("Key=T"), &[]),
        (Some("xkey=T"), &[]),
        (Some("key"), &[]),
        (Some(""), &[]),
        (None, &[]),
    ] {
        assert_eq!(
            presented(query_form("key"), &[], query),
            expected,
            "{query:?}"
        );
    }
}

#[test]
fn only_proxy_authorization_speaks_for_a_connection() {
    let pair = basic(&format!("session:{ONE}"));
    for (fields, expected) in [
        (&[("proxy-authorization", pair.as_str())][..], &[ONE][..]),
        (&[("proxy-authorization", "Bearer T")], &["T"]),
        (
            &[
                ("authorization", "Bearer T"),
                ("x-api-key", "T"),
                ("x-token", "T"),
            ],
            &[],
        ),
    ] {
        let headers = headers(fields);
        let found = presented_to_proxy(&headers);
        assert!(found.iter().all(|token| token.slot == TokenSlot::Proxy));
        let texts: Vec<&str> = found.iter().map(|token| &*token.text).collect();
        assert_eq!(texts, expected, "{fields:?}");
    }
}

#[test]
fn a_presented_token_is_not_printed() {
    let headers = headers(&[("proxy-authorization", ONE)]);
    let shown = format!("{:?}", presented_to_proxy(&headers));
    assert!(
        shown.contains("[redacted]") && !shown.contains("eyJ"),
        "{shown}"
    );
}

fn candidates<'a>(texts: &[&'a str]) -> Vec<PresentedToken<'a>> {
    texts
        .iter()
        .map(|text| PresentedToken {
            slot: TokenSlot::Query,
            text: (*text).into(),
        })
        .collect()
}

#[test]
fn one_good_token_is_enough_and_two_sessions_are_too_many() {
    use DenyCode::{SessionMismatch, TokenExpired, TokenInvalid};
    for (texts, expected) in [
        (&[][..], Ok(None)),
        (&[ONE], Ok(Some("one"))),
        (&[TWO], Ok(Some("two"))),
        (&[ONE, ONE], Ok(Some("one"))),
        (&[ONE, ONE_RENEWED], Ok(Some("one"))),
        (&[ONE, "sk-own-key"], Ok(Some("one"))),
        (&["sk-own-key", ONE], Ok(Some("one"))),
        (&[OLD, ONE], Ok(Some("one"))),
        (&[ONE, TWO], Err(SessionMismatch)),
        (&[ONE, "sk-own-key", TWO], Err(SessionMismatch)),
        (&["sk-own-key"], Err(TokenInvalid)),
        (&["eyJ.one.forged"], Err(TokenInvalid)),
        (&["eyJ.a b.good"], Err(TokenInvalid)),
        (&[""], Err(TokenInvalid)),
        (&[OLD], Err(TokenExpired)),
        (&[OLD, "sk-own-key"], Err(TokenExpired)),
        (&["sk-own-key", OLD], Err(TokenExpired)),
    ] {
        let result = authenticate(&Tokens::default(), &candidates(texts), NOW);
        let session = result.and_then(|authenticated| {
            authenticated
                .map(|proof| check_denylist(&Ended::default(), proof))
                .transpose()
        });
        let seen = match &session {
            Ok(session) => Ok(session.as_ref().map(|session| session.id().as_str())),
            Err(denial) => Err(denial.code()),
        };
        assert_eq!(seen, expected, "{texts:?}");
    }
}

#[test]
fn a_verifier_that_knows_no_key_lets_no_token_in() {
    let result = authenticate(&Tokens { broken: true }, &candidates(&[ONE]), NOW);
    let denial = result.unwrap_err();
    assert_eq!(denial.code(), DenyCode::TokenInvalid);
    assert_eq!(denial.detail(), "no key is known");
}

#[test]
fn an_ended_session_stays_out_with_whichever_of_its_tokens() {
    let ended = Ended::by(&["one"], SessionEnd::Ended);
    for (token, expected) in [
        (ONE, Some(DenyCode::SessionRevoked)),
        (ONE_RENEWED, Some(DenyCode::SessionRevoked)),
        (TWO, None),
    ] {
        let proof = authenticate(&Tokens::default(), &candidates(&[token]), NOW);
        let proof = proof.unwrap().unwrap();
        assert_eq!(code(check_denylist(&ended, proof)), expected, "{token}");
    }
}

#[test]
fn a_guest_is_told_what_ended_its_session_and_not_who() {
    for (end, expected) in [
        (SessionEnd::Ended, DenyCode::SessionRevoked),
        (SessionEnd::Denied, DenyCode::SessionRevoked),
        (SessionEnd::Tripwire, DenyCode::SessionRevoked),
        (SessionEnd::KillSwitch, DenyCode::KillSwitch),
        (SessionEnd::Idle, DenyCode::SessionIdle),
        (SessionEnd::LifetimeOver, DenyCode::SessionLifetime),
    ] {
        let proof = authenticate(&Tokens::default(), &candidates(&[ONE]), NOW);
        let proof = proof.unwrap().unwrap();
        let denial = check_denylist(&Ended::by(&["one"], end), proof).unwrap_err();
        assert_eq!(denial.code(), expected);
        assert_eq!(denial.detail(), end.as_str());
        assert_eq!(denial.session().unwrap().as_str(), "one");
    }
}

#[test]
fn session_ids_have_one_small_alphabet() {
    let (longest, too_long) = ("a".repeat(64), "a".repeat(65));
    for (text, good) in [
        ("s_1-A", true),
        (longest.as_str(), true),
        (too_long.as_str(), false),
        ("", false),
        ("a b", false),
        ("a/b", false),
        ("a\n", false),
        ("ä", false),
    ] {
        let parsed = SessionId::parse(text);
        assert_eq!(parsed.is_some(), good, "{text:?}");
        assert!(parsed.is_none_or(|id| id.as_str() == text));
    }
}
