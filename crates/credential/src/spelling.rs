//! The spellings in which a secret may come back: as it is, base64 (standard and URL alphabet, every alignment, and
//! the combined values that are really sent), percent, hex, JSON and HTML. Closed list; two encodings on top of each
//! other are not in it.
//!
//! A spelling other than the plain one is left out if it is shorter than [`SHORTEST_ENCODED`]: of a secret of one to
//! four bytes, hex or base64 text would be found in ordinary bodies by chance. What the plain spelling of such a
//! secret hits by chance is the operator's choice of secret; the source warns about it.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use outgate_journey::policy::InjectionForm;
use zeroize::Zeroizing;

use crate::escaping;

/// Text that is wiped on drop.
pub(crate) type Text = Zeroizing<Vec<u8>>;

/// The shortest encoded spelling that is looked for: 36 bits of base64 are one chance hit in 64 GB.
const SHORTEST_ENCODED: usize = 6;

/// Bytes that percent-encoding leaves alone, besides letters and digits.
pub(crate) const RFC3986: &[u8] = b"-._~";
/// `encodeURIComponent` (ECMA-262).
const URI_COMPONENT: &[u8] = b"-_.!~*'()";
/// `encodeURI`, and what most clients do to a path or query that they were given whole.
const WHOLE_URI: &[u8] = b"-_.!~*'();/?:@&=+$,#";
/// `application/x-www-form-urlencoded` (WHATWG URL); a space becomes `+`.
const FORM: &[u8] = b"*-._";

/// Case of hexadecimal digits.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hex {
    Lower,
    Upper,
}

impl Hex {
    pub(crate) fn digits(self, byte: u8) -> [u8; 2] {
        let digit = |value: u8| match (value, self) {
            (0..=9, _) => b'0' + value,
            (_, Self::Lower) => b'a' + value - 10,
            (_, Self::Upper) => b'A' + value - 10,
        };
        [digit(byte >> 4), digit(byte & 15)]
    }
}

/// All spellings of a secret that is used in these forms, sorted, none twice.
pub(crate) fn spellings(secret: &[u8], forms: &[InjectionForm]) -> Vec<Text> {
    let mut encoded = Vec::new();
    base64_spellings(secret, &mut encoded);
    forms
        .iter()
        .for_each(|form| combined(secret, form, &mut encoded));
    for case in [Hex::Lower, Hex::Upper] {
        encoded.push(each(secret, 2, |byte, out| {
            out.extend_from_slice(&case.digits(byte))
        }));
        for kept in [RFC3986, URI_COMPONENT, WHOLE_URI] {
            encoded.push(percent(secret, kept, case));
        }
        encoded.push(form_encoded(secret, case));
        encoded.push(each(secret, 3, |byte, out| escape(byte, case, out)));
        encoded.extend(escaping::json(secret, case));
    }
    encoded.extend(escaping::html(secret));
    encoded.retain(|text| text.len() >= SHORTEST_ENCODED);
    encoded.push(each(secret, 1, |byte, out| out.push(byte)));
    encoded.sort_by(|left, right| left.as_slice().cmp(right));
    encoded.dedup();
    encoded
}

/// `user:password` (RFC 7617).
pub(crate) fn basic_pair(username: &str, secret: &[u8]) -> Text {
    let mut pair = Zeroizing::new(Vec::with_capacity(username.len() + 1 + secret.len()));
    pair.extend_from_slice(username.as_bytes());
    pair.push(b':');
    pair.extend_from_slice(secret);
    pair
}

/// Standard base64 with padding.
pub(crate) fn base64_standard(bytes: &[u8]) -> Text {
    let mut text = base64(&STANDARD_NO_PAD, bytes);
    let padding = (4 - text.len() % 4) % 4;
    text.extend(std::iter::repeat_n(b'=', padding));
    text
}

/// Percent-encoding that leaves letters, digits and `kept` alone.
pub(crate) fn percent(secret: &[u8], kept: &[u8], case: Hex) -> Text {
    each(secret, 3, |byte, out| {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            out.push(byte)
        } else {
            escape(byte, case, out)
        }
    })
}

fn form_encoded(secret: &[u8], case: Hex) -> Text {
    each(secret, 3, |byte, out| match byte {
        b' ' => out.push(b'+'),
        _ if byte.is_ascii_alphanumeric() || FORM.contains(&byte) => out.push(byte),
        _ => escape(byte, case, out),
    })
}

fn escape(byte: u8, case: Hex, out: &mut Vec<u8>) {
    out.push(b'%');
    out.extend_from_slice(&case.digits(byte));
}

/// Room for the longest outcome from the start: a buffer that grows leaves an unwiped copy behind.
pub(crate) fn each(secret: &[u8], most: usize, mut spell: impl FnMut(u8, &mut Vec<u8>)) -> Text {
    let mut out = Zeroizing::new(Vec::with_capacity(secret.len() * most));
    secret.iter().for_each(|byte| spell(*byte, &mut out));
    out
}

fn base64(engine: &impl Engine, bytes: &[u8]) -> Text {
    // Four characters for each group, so that padding fits without growing.
    let mut text = Zeroizing::new(vec![0; bytes.len().div_ceil(3) * 4]);
    let length = engine.encode_slice(bytes, &mut text).unwrap_or(0);
    text.truncate(length);
    text
}

/// The secret inside a longer encoded text, at each of the three alignments: without the characters at its ends that
/// also encode a neighbour (up to four bits of the first and of the last byte stay), and with the last character as
/// it is if nothing follows.
fn base64_spellings(secret: &[u8], out: &mut Vec<Text>) {
    for offset in 0..3 {
        let mut shifted = Zeroizing::new(vec![0; offset]);
        shifted.reserve_exact(secret.len());
        shifted.extend_from_slice(secret);
        let first_own = (offset * 8).div_ceil(6);
        let own_until = shifted.len() * 8 / 6;
        for text in both_alphabets(&shifted) {
            out.extend(
                text.get(first_own..own_until)
                    .map(|core| Zeroizing::new(core.to_vec())),
            );
            out.extend(
                text.get(first_own..)
                    .map(|core| Zeroizing::new(core.to_vec())),
            );
        }
    }
}

fn both_alphabets(bytes: &[u8]) -> [Text; 2] {
    [
        base64(&STANDARD_NO_PAD, bytes),
        base64(&URL_SAFE_NO_PAD, bytes),
    ]
}

/// The value that is sent as a whole, in base64. In every other spelling it contains the secret's own.
fn combined(secret: &[u8], form: &InjectionForm, out: &mut Vec<Text>) {
    let whole = match form {
        InjectionForm::Header { prefix, suffix, .. }
            if !(prefix.is_empty() && suffix.is_empty()) =>
        {
            let mut whole = Zeroizing::new(Vec::with_capacity(
                prefix.len() + secret.len() + suffix.len(),
            ));
            whole.extend_from_slice(prefix.as_bytes());
            whole.extend_from_slice(secret);
            whole.extend_from_slice(suffix.as_bytes());
            whole
        }
        InjectionForm::Basic { username } => basic_pair(username, secret),
        InjectionForm::Header { .. } | InjectionForm::Query { .. } => return,
    };
    out.extend(both_alphabets(&whole));
}
