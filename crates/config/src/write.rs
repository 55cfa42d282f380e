//! Decides how words are written into a policy file: plainly where they cannot be misread, else in quotes.

use std::{borrow::Cow, fmt::Display};

use outgate_journey::path::is_ambiguous;

/// A scalar that reads back as `text`.
pub(crate) fn scalar(text: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/');
    // Words that YAML reads as something else than text, in one reader or another.
    let is_word = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word));
    let is_number = text.starts_with(|c: char| c.is_ascii_digit());
    if begins && !is_word && !is_number && text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.extend(format!("\\u{:04x}", u32::from(c)).chars()),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    Cow::Owned(quoted)
}

/// `[a, b]`.
pub(crate) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items
        .into_iter()
        .map(|item| scalar_or_number(&item.to_string()).into_owned())
        .collect();
    format!("[{}]", items.join(", "))
}

fn scalar_or_number(text: &str) -> Cow<'_, str> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        Cow::Borrowed(text)
    } else {
        scalar(text)
    }
}

/// The narrowest pattern that covers a raw path. A segment with `*` in it cannot be written literally and becomes `*`.
/// `None` for paths that no pattern covers.
pub(crate) fn pattern(path: &str) -> Option<String> {
    if is_ambiguous(path) {
        return None;
    }
    let literal = |segment| if is_starred(segment) { "*" } else { segment };
    Some(path.split('/').map(literal).collect::<Vec<_>>().join("/"))
}

pub(crate) fn is_starred(segment: &str) -> bool {
    segment.contains('*')
}

/// A method that a file can name: the words that a file takes for a mistake are left out.
pub(crate) fn is_method(text: &str) -> bool {
    const KNOWN: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT",
    ];
    let upper = text.to_ascii_uppercase();
    let misspelt = upper != text && KNOWN.contains(&upper.as_str());
    !misspelt && text != "*" && http::Method::from_bytes(text.as_bytes()).is_ok()
}
