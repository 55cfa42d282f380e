//! How JSON and HTML writers escape a secret. No two agree on what to escape beyond what they must; the styles here
//! are those of widespread writers, and a secret of letters and digits is the same in all of them.

use zeroize::Zeroizing;

use crate::spelling::{Hex, Text, each};

/// The secret inside a JSON string, in each style.
pub(crate) fn json(secret: &[u8], case: Hex) -> impl Iterator<Item = Text> {
    JSON_STYLES
        .iter()
        .map(move |style| as_json(secret, style, case))
}

/// The secret inside HTML text or an attribute, in each style.
pub(crate) fn html(secret: &[u8]) -> impl Iterator<Item = Text> {
    HTML_STYLES.iter().map(|style| as_html(secret, style))
}

/// What a JSON writer escapes beyond what RFC 8259 section 7 demands.
struct JsonStyle {
    /// ASCII characters written as `\uXXXX`.
    as_code: &'static [u8],
    /// Whether `/` is written as `\/`.
    slash: bool,
    /// Whether everything outside ASCII is written as `\uXXXX`.
    ascii_only: bool,
}

const JSON_STYLES: [JsonStyle; 7] = [
    JsonStyle {
        as_code: b"",
        slash: false,
        ascii_only: false,
    },
    JsonStyle {
        as_code: b"",
        slash: true,
        ascii_only: false,
    },
    JsonStyle {
        as_code: b"",
        slash: false,
        ascii_only: true,
    },
    JsonStyle {
        as_code: b"",
        slash: true,
        ascii_only: true,
    },
    // Go's encoding/json.
    JsonStyle {
        as_code: b"<>&",
        slash: false,
        ascii_only: false,
    },
    // Gson; Rails escapes a subset of these.
    JsonStyle {
        as_code: b"<>&='",
        slash: false,
        ascii_only: false,
    },
    // System.Text.Json.
    JsonStyle {
        as_code: b"<>&'\"+`\x7f",
        slash: false,
        ascii_only: true,
    },
];

fn as_json(secret: &[u8], style: &JsonStyle, case: Hex) -> Text {
    let mut out = Zeroizing::new(Vec::with_capacity(secret.len() * 6));
    for chunk in secret.utf8_chunks() {
        chunk
            .valid()
            .chars()
            .for_each(|character| json_character(character, style, case, &mut out));
        out.extend_from_slice(chunk.invalid());
    }
    out
}

fn json_character(character: char, style: &JsonStyle, case: Hex, out: &mut Vec<u8>) {
    let ascii = u8::try_from(character).ok().filter(u8::is_ascii);
    let as_code = ascii.map_or(style.ascii_only, |byte| style.as_code.contains(&byte));
    let short = match ascii {
        Some(b'"') => Some(b'"'),
        Some(b'\\') => Some(b'\\'),
        Some(b'/') if style.slash => Some(b'/'),
        Some(8) => Some(b'b'),
        Some(b'\t') => Some(b't'),
        Some(b'\n') => Some(b'n'),
        Some(12) => Some(b'f'),
        Some(b'\r') => Some(b'r'),
        _ => None,
    };
    match short {
        Some(letter) if !as_code => out.extend_from_slice(&[b'\\', letter]),
        _ if as_code || ascii.is_some_and(|byte| byte < b' ') => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let [high, low] = unit.to_be_bytes();
                out.extend_from_slice(b"\\u");
                out.extend_from_slice(&case.digits(high));
                out.extend_from_slice(&case.digits(low));
            }
        }
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// What an HTML writer puts for characters that it escapes.
type HtmlStyle = &'static [(u8, &'static str)];

const HTML_STYLES: [HtmlStyle; 7] = [
    &[(b'&', "&amp;"), (b'<', "&lt;"), (b'>', "&gt;")],
    &[
        (b'&', "&amp;"),
        (b'<', "&lt;"),
        (b'>', "&gt;"),
        (b'"', "&quot;"),
    ],
    // Python, Rust templates.
    &[
        (b'&', "&amp;"),
        (b'<', "&lt;"),
        (b'>', "&gt;"),
        (b'"', "&quot;"),
        (b'\'', "&#x27;"),
    ],
    // Ruby, lodash, Django.
    &[
        (b'&', "&amp;"),
        (b'<', "&lt;"),
        (b'>', "&gt;"),
        (b'"', "&quot;"),
        (b'\'', "&#39;"),
    ],
    // PHP.
    &[
        (b'&', "&amp;"),
        (b'<', "&lt;"),
        (b'>', "&gt;"),
        (b'"', "&quot;"),
        (b'\'', "&#039;"),
    ],
    // Go.
    &[
        (b'&', "&amp;"),
        (b'<', "&lt;"),
        (b'>', "&gt;"),
        (b'"', "&#34;"),
        (b'\'', "&#39;"),
        (b'+', "&#43;"),
    ],
    // Mustache.
    &[
        (b'&', "&amp;"),
        (b'<', "&lt;"),
        (b'>', "&gt;"),
        (b'"', "&quot;"),
        (b'\'', "&#39;"),
        (b'/', "&#x2F;"),
        (b'`', "&#x60;"),
        (b'=', "&#x3D;"),
    ],
];

fn as_html(secret: &[u8], style: HtmlStyle) -> Text {
    each(secret, "&quot;".len(), |byte, out| {
        match style.iter().find(|(escaped, _)| *escaped == byte) {
            Some((_, entity)) => out.extend_from_slice(entity.as_bytes()),
            None => out.push(byte),
        }
    })
}
