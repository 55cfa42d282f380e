//! Decides how text that a guest chose becomes JSON: bounded, and without a character that a terminal or a log viewer
//! would obey. Everything is still there, as `\u` escapes.

use std::io;

use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

/// Text of at most `max` bytes; what is cut off is marked with `…`.
pub(crate) struct Text<'a> {
    text: &'a str,
    max: usize,
}

impl<'a> Text<'a> {
    pub(crate) const fn new(text: &'a str, max: usize) -> Self {
        Self { text, max }
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.text.len() <= self.max {
            return serializer.serialize_str(self.text);
        }
        let kept = self
            .text
            .get(..self.text.floor_char_boundary(self.max))
            .unwrap_or_default();
        serializer.collect_str(&format_args!("{kept}…"))
    }
}

/// Whether a character could steer a terminal, hide text or reverse its order.
pub(crate) fn is_unsafe_to_show(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Compact JSON that also escapes what [`is_unsafe_to_show`].
pub(crate) struct Careful;

impl Formatter for Careful {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_unsafe_to_show(*c)) {
            let (safe, tail) = rest.split_at(at);
            writer.write_all(safe.as_bytes())?;
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = tail.get(c.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Appends a value as compact JSON.
pub(crate) fn append_json<T: Serialize>(out: &mut Vec<u8>, value: &T) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, Careful))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str, max: usize) -> String {
        let mut out = Vec::new();
        append_json(&mut out, &Text::new(text, max)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_cut_between_characters_and_the_cut_is_marked() {
        assert_eq!(json("abcdef", 6), r#""abcdef""#);
        assert_eq!(json("abcdefg", 6), r#""abcdef…""#);
        assert_eq!(json("ab€€", 4), r#""ab…""#);
        assert_eq!(json("\u{1b}\u{1b}", 1), r#""\u001b…""#);
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_reads_back_the_same() {
        for text in [
            "\u{1b}[2J",
            "a\nb\r\t\"\\",
            "\u{7f}",
            "\u{9b}31m",
            "\u{202e}txt.exe",
            "\u{2028}",
            "\u{feff}x",
            "zero\u{200b}width",
            "\u{0}",
            "snow ☃ and 🦀",
            "\u{2066}x\u{2069}",
        ] {
            let written = json(text, 255);
            assert!(!written.chars().any(is_unsafe_to_show), "{written:?}");
            assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }
}
