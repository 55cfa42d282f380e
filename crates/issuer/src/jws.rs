//! The shape of a token. What a header asks for beyond an algorithm and a key's name is either ignored, because it
//! only describes (`x5t`, `jku`: never followed), or refused, because it changes what is verified (`crit`, `b64`) or
//! brings a key along (`jwk`).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::{config::Algorithm, json};

/// Longer than tokens get that name many groups, and a bound on the work that a guest can ask for.
pub(crate) const LONGEST: usize = 16 * 1024;
/// RFC 6750 leaves the length open; nothing shorter is unguessable, nothing longer is meant to be looked up.
const OPAQUE: std::ops::RangeInclusive<usize> = 8..=4096;
const LONGEST_KID: usize = 256;
/// Nobody who writes these means the token to be a key for anything: they say what kind of token it is not.
const REFUSED_HEADERS: [&str; 5] = ["crit", "b64", "jwk", "zip", "enc"];

/// What a text looks like.
pub(crate) enum Shape<'a> {
    /// A JWT.
    Signed(Box<Signed<'a>>),
    /// A token that says nothing itself.
    Opaque,
    /// Neither.
    Malformed(&'static str),
}

/// A JWT in JWS compact form (RFC 7515 section 3.1) whose signature nobody has looked at.
pub(crate) struct Signed<'a> {
    /// What is signed.
    pub(crate) message: &'a [u8],
    pub(crate) signature: Vec<u8>,
    /// `None`: not one that can ever be taken.
    pub(crate) algorithm: Option<Algorithm>,
    pub(crate) kid: Option<String>,
    pub(crate) claims: Map<String, Value>,
}

impl Signed<'_> {
    /// What the token says about whose it is: good for nothing but to choose whose keys must have signed it.
    pub(crate) fn claimed_issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }
}

/// Tells what a text is.
pub(crate) fn read(token: &str) -> Shape<'_> {
    if token.len() > LONGEST {
        return Shape::Malformed("too long");
    }
    // A text whose first part is an encoded object is meant as a JWT or JWE, and is never shown to anybody else.
    let head = token.split_once('.').map(|(head, _)| decode(head));
    match head {
        Some(Some(header)) if header.trim_ascii_start().first() == Some(&b'{') => {
            match signed(token, &header) {
                Ok(signed) => Shape::Signed(Box::new(signed)),
                Err(why) => Shape::Malformed(why),
            }
        }
        _ if is_opaque(token) => Shape::Opaque,
        _ => Shape::Malformed("not a token"),
    }
}

fn signed<'a>(token: &'a str, header: &[u8]) -> Result<Signed<'a>, &'static str> {
    let (message, signature) = token.rsplit_once('.').ok_or("not a JWT")?;
    let (_, claims) = message.split_once('.').ok_or("not a JWT")?;
    let header = json::object(header).ok_or("unacceptable header")?;
    if REFUSED_HEADERS
        .iter()
        .any(|name| header.contains_key(*name))
    {
        return Err("unacceptable header");
    }
    let text = |name: &str| match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("unacceptable header"),
    };
    if !text("typ")?.is_none_or(|typ| is_token_type(typ)) {
        return Err("not the type of an identity or access token");
    }
    let kid = text("kid")?;
    if kid.is_some_and(|kid| kid.len() > LONGEST_KID) {
        return Err("unacceptable header");
    }
    let claims = decode(claims).ok_or("not base64url")?;
    Ok(Signed {
        message: message.as_bytes(),
        signature: decode(signature).ok_or("not base64url")?,
        algorithm: text("alg")?.and_then(|alg| Algorithm::parse(alg)),
        kid: kid.cloned(),
        claims: json::object(&claims).ok_or("unacceptable claims")?,
    })
}

/// RFC 8725 section 3.11: a logout token, a proof of possession or an event is signed by the same keys, and is no
/// proof of who presents it. RFC 9068 and the SPIFFE JWT-SVID document name the others.
fn is_token_type(typ: &str) -> bool {
    let short = typ
        .get(..12)
        .filter(|prefix| prefix.eq_ignore_ascii_case("application/"))
        .and_then(|_| typ.get(12..))
        .unwrap_or(typ);
    ["jwt", "at+jwt", "jose"]
        .iter()
        .any(|known| short.eq_ignore_ascii_case(known))
}

/// `b64token` of RFC 6750 section 2.1.
fn is_opaque(token: &str) -> bool {
    let body = token.trim_end_matches('=');
    OPAQUE.contains(&token.len())
        && !body.is_empty()
        && body
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b))
}

/// Base64url as RFC 7515 writes it: no padding, no white space, no stray bits at the end. One text, one meaning.
fn decode(segment: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(segment).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(header: &str) -> String {
        URL_SAFE_NO_PAD.encode(header)
    }

    #[test]
    fn a_text_that_begins_like_a_jwt_is_never_taken_for_an_opaque_token() {
        for token in [
            format!(
                "{}.e30.AAAA.AAAA.AAAA",
                encoded(r#"{"alg":"dir","enc":"A256GCM"}"#)
            ),
            format!("{}.e30", encoded(r#"{"alg":"RS256"}"#)),
            format!("{}.", encoded(r#"{"alg":"RS256"}"#)),
            format!("{}.e30.", encoded("{")),
            format!("{}.e30.AAAA", encoded(" \n{\"alg\":1}")),
            format!("{}.!!.AAAA", encoded(r#"{"alg":"RS256"}"#)),
        ] {
            assert!(matches!(read(&token), Shape::Malformed(_)), "{token}");
        }
    }

    #[test]
    fn opaque_tokens_are_of_the_characters_that_a_bearer_token_may_have() {
        for (token, opaque) in [
            ("2YotnFZFEjr1zCsicMWpAA", true),
            ("ya29.a0AfH6SMBx-_~+/==", true),
            ("hvs.CAESIJ", true),
            ("short", false),
            ("========", false),
            ("with space", false),
            ("new\nline!", false),
            ("quote\"quote", false),
            ("a&token=b", false),
            ("umlautü12", false),
            ("=2YotnFZ", false),
        ] {
            assert_eq!(matches!(read(token), Shape::Opaque), opaque, "{token}");
        }
        assert!(matches!(read(&"a".repeat(4096)), Shape::Opaque));
        assert!(matches!(read(&"a".repeat(4097)), Shape::Malformed(_)));
    }

    #[test]
    fn only_types_that_say_who_somebody_is_are_taken() {
        for (typ, taken) in [
            ("JWT", true),
            ("jwt", true),
            ("JOSE", true),
            ("at+jwt", true),
            ("application/at+jwt", true),
            ("APPLICATION/AT+JWT", true),
            ("logout+jwt", false),
            ("dpop+jwt", false),
            ("secevent+jwt", false),
            ("token-introspection+jwt", false),
            ("", false),
            ("application/", false),
        ] {
            assert_eq!(is_token_type(typ), taken, "{typ}");
        }
    }
}
