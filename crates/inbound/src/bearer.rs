//! Finds the token that a request presents (RFC 6750 section 2.1). There is one place for it and one of it: of two, the
//! service could read the other.

use http::{HeaderMap, header::AUTHORIZATION};
use outgate_journey::denial::{Denial, DenyCode};

/// The one bearer token.
///
/// # Errors
/// `bearer_missing`, `bearer_repeated` or `bearer_invalid`.
pub(crate) fn bearer_token(headers: &HeaderMap) -> Result<&str, Denial> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (fields.next(), fields.next());
    let Some(field) = first else {
        return Err(DenyCode::BearerMissing.into());
    };
    if second.is_some() {
        return Err(DenyCode::BearerRepeated.into());
    }
    let invalid = |why| Denial::new(DenyCode::BearerInvalid).because(why);
    let text = field.to_str().map_err(|_| invalid("not text"))?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Denial::new(DenyCode::BearerMissing).because("another scheme"));
    }
    let token = token.trim_start_matches(' ');
    if !is_token(token) {
        return Err(invalid("not a b64token"));
    }
    Ok(token)
}

/// `b64token` of RFC 6750: neither a comma, which would join two fields, nor a space.
fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
    !body.is_empty() && body.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[&str]) -> Result<String, DenyCode> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(AUTHORIZATION, field.parse().unwrap());
        }
        bearer_token(&headers)
            .map(str::to_owned)
            .map_err(|denial| denial.code())
    }

    #[test]
    fn there_is_exactly_one_token_and_exactly_one_place_for_it() {
        for good in [
            "Bearer a.b-c_d~e+f/g==",
            "bearer a.b-c_d~e+f/g==",
            "BEARER   a.b-c_d~e+f/g==",
        ] {
            assert_eq!(read(&[good]).as_deref(), Ok("a.b-c_d~e+f/g=="), "{good}");
        }
        for (fields, code) in [
            (&[][..], DenyCode::BearerMissing),
            (&[""], DenyCode::BearerMissing),
            (&["Basic YTpi"], DenyCode::BearerMissing),
            (&["Bearerx y"], DenyCode::BearerMissing),
            (&["DPoP a"], DenyCode::BearerMissing),
            (&["Bearer"], DenyCode::BearerInvalid),
            (&["Bearer "], DenyCode::BearerInvalid),
            (&["Bearer ="], DenyCode::BearerInvalid),
            (&["Bearer a b"], DenyCode::BearerInvalid),
            (&["Bearer a, Bearer b"], DenyCode::BearerInvalid),
            (&["Bearer a,b"], DenyCode::BearerInvalid),
            (&["Bearer\ta"], DenyCode::BearerMissing),
            (&["Bearer a\"b"], DenyCode::BearerInvalid),
            (&["Bearer a", "Bearer a"], DenyCode::BearerRepeated),
            (&["Basic YTpi", "Bearer a"], DenyCode::BearerRepeated),
        ] {
            assert_eq!(read(fields), Err(code), "{fields:?}");
        }
    }
}
