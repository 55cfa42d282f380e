//! What a request head looks like after a credential was attached.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod support;

use http::{HeaderMap, HeaderValue, Uri, header::AUTHORIZATION};
use outgate_journey::inject::CredentialFault;
use support::{basic, bearer, credential, header, query};

fn attached_to(uri: &str, secret: &[u8]) -> String {
    let mut uri: Uri = uri.parse().unwrap();
    credential(secret, query())
        .attach(&query(), &mut HeaderMap::new(), &mut uri)
        .unwrap();
    uri.to_string()
}

#[test]
fn a_header_form_replaces_all_values_of_the_guest() {
    let mut headers = HeaderMap::new();
    headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer mine"));
    headers.append(AUTHORIZATION, HeaderValue::from_static("Basic bWluZQ=="));
    let mut uri = Uri::from_static("https://api.test/v1?x=1");
    credential(b"real-key-123", bearer())
        .attach(&bearer(), &mut headers, &mut uri)
        .unwrap();
    let values: Vec<_> = headers.get_all(AUTHORIZATION).iter().collect();
    assert_eq!(values, ["Bearer real-key-123"]);
    assert!(values[0].is_sensitive());
    assert_eq!(uri, "https://api.test/v1?x=1");
}

#[test]
fn a_basic_form_encodes_user_and_secret() {
    let (mut headers, mut uri) = (HeaderMap::new(), Uri::from_static("/"));
    credential("pä:ss".as_bytes(), basic())
        .attach(&basic(), &mut headers, &mut uri)
        .unwrap();
    assert_eq!(headers[AUTHORIZATION], "Basic dXNlcjpww6Q6c3M=");
    assert!(headers[AUTHORIZATION].is_sensitive());
}

#[test]
fn a_query_form_replaces_the_parameter_and_keeps_everything_else() {
    let cases = [
        ("https://a.test/p", "https://a.test/p?key=s%26cret%2F1"),
        ("https://a.test/p?", "https://a.test/p?key=s%26cret%2F1"),
        (
            "/a//b/%2e%2E/%7E;x?y=1",
            "/a//b/%2e%2E/%7E;x?y=1&key=s%26cret%2F1",
        ),
        ("/p?key=mine&z=%20+", "/p?key=s%26cret%2F1&z=%20+"),
        (
            "/p?a=1&key=mine&b=2&key=mine2&k%65y=mine3",
            "/p?a=1&key=s%26cret%2F1&b=2",
        ),
        ("/p?key", "/p?key=s%26cret%2F1"),
        ("/p?%6B%65%79=mine", "/p?key=s%26cret%2F1"),
        ("/p?keys=1&Key=2&&x", "/p?keys=1&Key=2&&x&key=s%26cret%2F1"),
    ];
    for (before, after) in cases {
        assert_eq!(attached_to(before, b"s&cret/1"), after);
    }
}

#[test]
fn a_secret_that_the_form_cannot_carry_is_refused_and_nothing_changes() {
    let cases = [
        (&b"line\nbreak-in-it"[..], bearer()),
        (b"nul\0in-the-middle", header("x-api-key", "")),
        (b"trailing-space ", bearer()),
        (b" leading-space", header("x-api-key", "")),
        (b"control\x01character", basic()),
    ];
    for (secret, form) in cases {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("mine"));
        let mut uri = Uri::from_static("/");
        let credential = credential(secret, form.clone());
        assert_eq!(
            credential.attach(&form, &mut headers, &mut uri),
            Err(CredentialFault::Unfit),
            "{secret:?}"
        );
        assert_eq!(
            (headers.len(), &headers[AUTHORIZATION]),
            (1, &HeaderValue::from_static("mine"))
        );
    }
    let mut uri = Uri::from_static("/p?x");
    let long = credential(&[b'x'; 65_530], query());
    assert_eq!(
        long.attach(&query(), &mut HeaderMap::new(), &mut uri),
        Err(CredentialFault::Unfit)
    );
    assert_eq!(uri, "/p?x");
}

#[test]
fn what_is_attached_is_known_to_the_scrubber() {
    for form in [bearer(), basic(), header("x-api-key", ""), query()] {
        let credential = credential(b"s3cr&t/value+\"<>", form.clone());
        let (mut headers, mut uri) = (HeaderMap::new(), Uri::from_static("/p"));
        credential.attach(&form, &mut headers, &mut uri).unwrap();
        let sent: Vec<u8> = headers
            .values()
            .flat_map(|value| value.as_bytes().to_vec())
            .chain(uri.to_string().bytes())
            .collect();
        assert!(credential.scrubber().contains(&sent), "{form:?}");
    }
}
