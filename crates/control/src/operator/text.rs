//! Texts that operators choose and records, lists and terminals show: bounded, printable, and never a token. A token in
//! a reason or a label would be in the audit trail for good.

use super::{code::ErrorCode, problem::Refusal};

/// The longest reason, label, container name, in characters.
const MAX_TEXT: usize = 256;
/// The longest name of an issuer or a subject: what an issuer's tokens may name must be possible to deny.
const MAX_IDENTITY: usize = 1024;
const MAX_TENANT: usize = 64;

/// As regular expressions, for the document: a text, one that says something, an id, a tenant's name.
pub(crate) const TEXT: &str =
    r"^[^\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]{0,256}$";
pub(crate) const SAYING: &str = r"^[^\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]*\S[^\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]*$";
pub(crate) const ID: &str = "^[A-Za-z0-9_-]{1,64}$";
pub(crate) const TENANT: &str = "^[A-Za-z0-9_.:@-]{1,64}$";

/// A text of at most 256 characters that can be shown on a terminal.
pub(crate) fn plain(key: &'static str, text: &str) -> Result<(), Refusal> {
    printable(key, text, MAX_TEXT)
}

fn printable(key: &'static str, text: &str, most: usize) -> Result<(), Refusal> {
    if text.chars().count() > most || text.chars().any(is_unprintable) {
        let detail = format!("{key}: at most {most} characters, none of them for control");
        return Err(Refusal::saying(ErrorCode::InvalidBody, detail));
    }
    if holds_token(text) {
        let detail = format!("{key} holds what looks like a token; texts are recorded");
        return Err(Refusal::saying(ErrorCode::TokenInText, detail));
    }
    Ok(())
}

/// A text as [`plain`], and not empty.
pub(crate) fn required(key: &'static str, text: &str) -> Result<(), Refusal> {
    if says_nothing(text) {
        let detail = format!("{key}: say something");
        return Err(Refusal::saying(ErrorCode::InvalidBody, detail));
    }
    plain(key, text)
}

/// Whether this can name a token, by its id.
pub(crate) fn is_token_id(text: &str) -> bool {
    required("token", text).is_ok()
}

/// Whether this can name an issuer, or what one calls a session.
pub(crate) fn is_identity(text: &str) -> bool {
    !says_nothing(text) && printable("", text, MAX_IDENTITY).is_ok()
}

fn says_nothing(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || c == '\u{feff}')
}

/// Whether this is a tenant's name: 1 to 64 of `[A-Za-z0-9_.:@-]`.
pub(crate) fn is_tenant(text: &str) -> bool {
    (1..=MAX_TENANT).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':' | b'@'))
}

/// Whether this can name an operator: 1 to 128 bytes, printable.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len()) && !text.chars().any(is_unprintable) && !holds_token(text)
}

/// Control characters, and those that turn the reading direction round.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a JWT begins somewhere in the text: `eyJ` is how base64url writes `{"`.
pub(crate) fn holds_token(text: &str) -> bool {
    text.match_indices("eyJ").any(|(at, _)| {
        let rest = text.get(at..).unwrap_or_default();
        let jwt = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        let run: Vec<u8> = rest.bytes().take_while(jwt).collect();
        run.iter().filter(|b| **b == b'.').count() >= 2
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_deceive_a_reader_or_hold_a_token_is_refused() {
        let long = "x".repeat(MAX_TEXT + 1);
        for bad in [
            "a\nb",
            "\u{1b}[2J",
            "abc\u{202e}def",
            &long,
            "eyJhbGciOi.eyJzdWIi.c2ln",
            "because eyJhbGciOi.eyJzdWIi. ",
        ] {
            assert!(plain("reason", bad).is_err(), "{bad:?}");
        }
        for good in ["", "leaked key, ticket 12", "Größe ≥ 3", "eyJ", "v1.2.3"] {
            assert!(plain("reason", good).is_ok(), "{good:?}");
        }
        assert!(required("reason", " ").is_err());
    }

    #[test]
    fn a_tenant_is_a_short_word() {
        for good in ["a", "team-a", "org:12", "a@b.example"] {
            assert!(is_tenant(good), "{good}");
        }
        let long = "x".repeat(65);
        for bad in ["", "a b", "a/b", "ü", "a\n", &long] {
            assert!(!is_tenant(bad), "{bad}");
        }
    }
}
