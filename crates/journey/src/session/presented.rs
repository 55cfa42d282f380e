//! Where tokens are presented (S2): collects the candidates, and judges none of them.

use std::{borrow::Cow, fmt};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{
    HeaderMap, HeaderName,
    header::{AUTHORIZATION, PROXY_AUTHORIZATION},
};

use crate::policy::{InjectionForm, Rule};

/// Where a token was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSlot {
    /// `Proxy-Authorization`: attributes, but draws no credential.
    Proxy,
    /// None that the guest chose: the connection arrived on a socket that was opened for one session. Attributes, but
    /// draws no credential.
    Listener,
    /// A header field of the request itself.
    Header(HeaderName),
    /// A query parameter of the request itself.
    Query,
}

/// A candidate for a session token, as the request carries it.
pub struct PresentedToken<'a> {
    /// Where.
    pub slot: TokenSlot,
    /// The candidate.
    pub text: Cow<'a, str>,
}

impl fmt::Debug for PresentedToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresentedToken({:?}, [redacted])", self.slot)
    }
}

/// Header fields in which clients send API keys. On an injected destination all of them are taken out before the
/// credential goes in, whether they held a session token or not.
pub static CREDENTIAL_HEADERS: [HeaderName; 6] = [
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("private-token"),
];

/// Collects the candidates from `Proxy-Authorization`.
#[must_use]
pub fn presented_to_proxy(headers: &HeaderMap) -> Vec<PresentedToken<'_>> {
    let mut found = Vec::new();
    collect_header(headers, &PROXY_AUTHORIZATION, TokenSlot::Proxy, &mut found);
    found
}

/// Collects the candidates that a request itself carries: the usual credential fields, the fields that the policy
/// names, and the field or parameter into which the rule injects.
#[must_use]
pub fn presented_to_destination<'a>(
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    token_headers: &[HeaderName],
    rule: &Rule,
) -> Vec<PresentedToken<'a>> {
    let mut found = Vec::new();
    let form = rule.injection.as_ref().map(|injection| &injection.form);
    let injected = match form {
        Some(InjectionForm::Header { name, .. }) => Some(name),
        _ => None,
    };
    for name in CREDENTIAL_HEADERS
        .iter()
        .filter(|name| **name != PROXY_AUTHORIZATION)
    {
        collect_header(headers, name, TokenSlot::Header(name.clone()), &mut found);
    }
    for name in token_headers.iter().chain(injected) {
        if !CREDENTIAL_HEADERS.contains(name) {
            collect_header(headers, name, TokenSlot::Header(name.clone()), &mut found);
        }
    }
    if let (Some(InjectionForm::Query { parameter }), Some(query)) = (form, query) {
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            if key == parameter {
                found.push(PresentedToken {
                    slot: TokenSlot::Query,
                    text: Cow::Borrowed(value),
                });
            }
        }
    }
    found
}

fn collect_header<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    slot: TokenSlot,
    found: &mut Vec<PresentedToken<'a>>,
) {
    for value in headers.get_all(name) {
        let text = value.to_str().unwrap_or("");
        if let Some(text) = token_in_field(text) {
            found.push(PresentedToken {
                slot: slot.clone(),
                text,
            });
        }
    }
}

/// The token in a field's value: after `Bearer` or `token`, the password (or, without one, the user name) of
/// `Basic`, else the value itself. Scheme names are case-insensitive (RFC 9110 section 11.1).
fn token_in_field(value: &str) -> Option<Cow<'_, str>> {
    let value = value.trim_matches([' ', '\t']);
    let Some((scheme, rest)) = value.split_once(' ') else {
        return (!value.is_empty()).then_some(Cow::Borrowed(value));
    };
    let rest = rest.trim_start_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token") {
        return Some(Cow::Borrowed(rest));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let text = basic_pair(value)?;
        let (user, password) = text.split_once(':').unwrap_or((&text, ""));
        // `https://TOKEN@host` and GitHub's `TOKEN:x-oauth-basic` put the token in the user name.
        let token = if password.is_empty() || password == "x-oauth-basic" {
            user
        } else {
            password
        };
        return Some(Cow::Owned(token.to_owned()));
    }
    Some(Cow::Borrowed(value))
}

/// `user:password` of a field's value that is `Basic` (RFC 7617).
pub(crate) fn basic_pair(value: &str) -> Option<String> {
    let (scheme, rest) = value.trim_matches([' ', '\t']).split_once([' ', '\t'])?;
    let is_basic = scheme.eq_ignore_ascii_case("basic");
    let decoded = is_basic.then(|| decode_base64(rest.trim_matches([' ', '\t'])))??;
    String::from_utf8(decoded).ok()
}

/// Base64 with the standard alphabet, padding optional (RFC 4648 section 4). As lenient as the most lenient reader: what
/// it would find is found here.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    static LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let text = text.trim_end_matches('=').as_bytes();
    // One character more than whole bytes take says nothing.
    let (whole, _) = text.split_at(text.len() - usize::from(text.len() % 4 == 1));
    LENIENT.decode(whole).ok()
}
