//! Keeps operators' own secrets out of what is recorded. Who mixes two variables up and sends a bearer token where an id
//! belongs is refused before anything is written down. Against a slip of the hand, not against a hand: an escaped or a
//! cut token is not seen.

use crate::operator::{code::ErrorCode, identity::Identities, problem::Refusal};

/// Refuses a call whose path, query or body holds an operator's token, or a webhook's secret.
pub(super) fn refuse_secrets(
    identities: &Identities,
    places: &[String],
    query: &[(&'static str, String)],
    body: &[u8],
) -> Result<(), Refusal> {
    let places = places.iter().map(String::as_bytes);
    let values = query.iter().map(|(_, value)| value.as_bytes());
    let mut words = places.chain(values).chain([body]).flat_map(words);
    if words.any(|word| word.starts_with("whsec_") || identities.is_token(word)) {
        let detail = "the call holds an operator's token or a webhook's secret: if it was sent elsewhere too, replace it";
        return Err(Refusal::saying(ErrorCode::TokenInText, detail));
    }
    Ok(())
}

/// What stands between white space and JSON's own signs.
fn words(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let ends = |byte: &u8| {
        !byte.is_ascii_graphic() || matches!(byte, b'"' | b',' | b'[' | b']' | b'{' | b'}')
    };
    let words = bytes.split(ends).filter(|word| !word.is_empty());
    words.filter_map(|word| std::str::from_utf8(word).ok())
}
