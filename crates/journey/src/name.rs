//! Decides what a host name is. Every name, whoever wrote it, becomes one canonical spelling here or is
//! refused, so that no two parts of the gateway can disagree about which host a request means.
//!
//! Canonical: ASCII A-labels (RFC 5890), lower case, no trailing dot. Refused: address literals in any
//! spelling, percent-encoding, empty labels, anything a resolver and a TLS stack could read differently.

use std::{borrow::Borrow, fmt, sync::Arc};

/// A canonical DNS name of at most 253 octets. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

/// Why some text is not a [`HostName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, over-long, or with a character that no host name has.
    #[error("not a host name")]
    Malformed,
    /// An IPv4 or IPv6 address in any spelling, the short, hexadecimal and octal ones included.
    #[error("an address, not a host name")]
    Address,
}

impl HostName {
    /// Parses a name as it arrives on the wire: ASCII only. One trailing dot is dropped.
    ///
    /// # Errors
    /// [`NameError::Address`] for any spelling of an address, [`NameError::Malformed`] otherwise.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.starts_with('[') || text.contains(':') {
            return Err(NameError::Address);
        }
        if text.is_empty() || text.len() > 253 {
            return Err(NameError::Malformed);
        }
        let mut punycode = false;
        for label in text.split('.') {
            check_label(label)?;
            punycode |= label
                .as_bytes()
                .get(..4)
                .is_some_and(|head| head.eq_ignore_ascii_case(b"xn--"));
        }
        if ends_in_number(text) {
            return Err(NameError::Address);
        }
        let canonical: Arc<str> = if text.bytes().any(|b| b.is_ascii_uppercase()) {
            text.to_ascii_lowercase().into()
        } else {
            text.into()
        };
        if punycode {
            // An A-label that does not decode, or decodes to something else's spelling, has no canonical form.
            match idna::domain_to_ascii_strict(&canonical) {
                Ok(ascii) if *ascii == *canonical => {}
                _ => return Err(NameError::Malformed),
            }
        }
        Ok(Self(canonical))
    }

    /// Parses a name as a person writes it in a file: U-labels become A-labels (UTS #46).
    ///
    /// # Errors
    /// As [`HostName::parse`].
    pub fn parse_written(text: &str) -> Result<Self, NameError> {
        if text.is_ascii() {
            return Self::parse(text);
        }
        let ascii = idna::domain_to_ascii(text).map_err(|_| NameError::Malformed)?;
        Self::parse(&ascii)
    }

    /// The canonical spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_label(label: &str) -> Result<(), NameError> {
    let bytes = label.as_bytes();
    let ldh = bytes
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return Err(NameError::Malformed);
    };
    if !ldh || bytes.len() > 63 || *first == b'-' || *last == b'-' {
        return Err(NameError::Malformed);
    }
    Ok(())
}

/// The WHATWG "ends in a number" test: what a lenient `inet_aton` would take for an address.
fn ends_in_number(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or(text);
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return true;
    }
    matches!(last.as_bytes(), [b'0', b'x' | b'X', rest @ ..] if rest.iter().all(u8::is_ascii_hexdigit))
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Which names a rule covers: one name, or one label in front of a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this name.
    Exact(HostName),
    /// `*.parent`: exactly one label in front of `parent`. Not `parent` itself, not two labels:
    /// the shape that a TLS certificate's wildcard covers (RFC 9525 section 6.3).
    Wildcard(HostName),
}

impl HostPattern {
    /// Parses a pattern as a person writes it: a name, or `*.` and a name.
    ///
    /// # Errors
    /// As [`HostName::parse`]; a `*` anywhere else is [`NameError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("*.") {
            Some(parent) => HostName::parse_written(parent).map(Self::Wildcard),
            None => HostName::parse_written(text).map(Self::Exact),
        }
    }

    /// Whether the pattern covers `name`.
    #[must_use]
    pub fn covers(&self, name: &HostName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Wildcard(parent) => parent_of(name) == Some(parent.as_str()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// The name without its first label, if it has more than one.
#[must_use]
pub fn parent_of(name: &HostName) -> Option<&str> {
    name.0.split_once('.').map(|(_, parent)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<String, NameError> {
        HostName::parse(text).map(|n| n.to_string())
    }

    #[test]
    fn spellings_of_one_name_become_one_name() {
        for text in [
            "api.example.org",
            "API.Example.ORG",
            "api.example.org.",
            "Api.example.org.",
        ] {
            assert_eq!(parsed(text).unwrap(), "api.example.org");
        }
        assert_eq!(
            HostName::parse_written("bücher.example").unwrap().as_str(),
            "xn--bcher-kva.example"
        );
        assert_eq!(
            HostName::parse_written("api。example．org")
                .unwrap()
                .as_str(),
            "api.example.org"
        );
    }

    #[test]
    fn every_spelling_of_an_address_is_refused_as_an_address() {
        for text in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "1.2.3.4.",
            "[::1]",
            "::1",
            "::ffff:127.0.0.1",
            "a.0x10",
            "foo.1",
            "0x",
        ] {
            assert_eq!(parsed(text), Err(NameError::Address), "{text}");
        }
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        let long = "a".repeat(64);
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a.test",
            "a.test..",
            "ex%61mple.org",
            "a b",
            "a\0b",
            "a/b",
            "a@b",
            "a\\b",
            "*.a",
            "-a.test",
            "a-.test",
            &long,
            "xn--\u{e4}",
            "bücher.example",
            "xn--a.test",
            "a,b",
            "a\u{ff0e}b",
            "a\tb",
        ] {
            assert_eq!(parsed(text), Err(NameError::Malformed), "{text:?}");
        }
        assert_eq!(
            parsed(&"a.".repeat(127)),
            Ok("a.".repeat(127)[..253].to_owned())
        );
        assert_eq!(parsed(&"a.".repeat(128)), Err(NameError::Malformed));
    }

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        let wildcard = HostPattern::parse("*.a.test").unwrap();
        for (name, covered) in [
            ("x.a.test", true),
            ("a.test", false),
            ("xa.test", false),
            ("y.x.a.test", false),
        ] {
            assert_eq!(
                wildcard.covers(&HostName::parse(name).unwrap()),
                covered,
                "{name}"
            );
        }
        for text in ["*", "*.", "a.*.test", "**.a.test", "*a.test", "*.*.test"] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_idempotent_and_never_panics(text in "\\PC{0,80}") {
            if let Ok(name) = HostName::parse(&text) {
                prop_assert_eq!(HostName::parse(name.as_str()).unwrap(), name);
            }
        }

        #[test]
        fn case_and_one_trailing_dot_do_not_matter(text in "[a-z][a-z0-9]{0,8}(\\.[a-z][a-z0-9]{0,8}){0,4}") {
            let name = HostName::parse(&text).unwrap();
            prop_assert_eq!(&HostName::parse(&text.to_uppercase()).unwrap(), &name);
            prop_assert_eq!(&HostName::parse(&format!("{text}.")).unwrap(), &name);
        }
    }
}
