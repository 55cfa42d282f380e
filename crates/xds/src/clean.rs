//! What a peer says of itself, made fit for a record: bounded, and of one line.

/// At most `most` bytes of it, with `?` for what is not to be printed.
pub(crate) fn clean(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most));
    for c in text.chars() {
        let c = if is_plain(c) { c } else { '?' };
        if out.len() + c.len_utf8() > most {
            break;
        }
        out.push(c);
    }
    out
}

/// Neither a control character nor one that changes how the rest of a line is read.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_has_no_control_characters() {
        for (text, most, cleaned) in [
            ("plain", 10, "plain"),
            ("a\nb\u{1b}[31m\0", 20, "a?b?[31m?"),
            ("\u{202e}evil", 20, "?evil"),
            ("äää", 5, "ää"),
            ("x", 0, ""),
        ] {
            assert_eq!(clean(text, most), cleaned);
        }
    }
}
