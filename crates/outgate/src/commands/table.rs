//! Lists as people read them: aligned columns under a head. Cells may hold what an issuer or an older gateway wrote, so
//! what a terminal would obey is escaped.

use std::{borrow::Cow, fmt::Write as _};

use owo_colors::OwoColorize;

use crate::style::say;

/// Prints rows under their heads; a column with nothing in it is left out.
pub(super) fn print<const COLUMNS: usize>(heads: [&str; COLUMNS], rows: &[[String; COLUMNS]]) {
    let cells: Vec<Vec<Cow<'_, str>>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| shown(cell)).collect())
        .collect();
    let width = |column: usize| {
        cells
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let columns: Vec<(usize, &str, usize)> = heads
        .iter()
        .enumerate()
        .filter_map(|(column, head)| match width(column) {
            None | Some(0) => None,
            Some(width) => Some((column, *head, width.max(head.len()))),
        })
        .collect();
    let line = |cell: &dyn Fn(usize, &str) -> String| {
        let mut line = String::new();
        for (column, head, width) in &columns {
            let _ = write!(line, "{:<width$}  ", cell(*column, head));
        }
        line.trim_end().to_owned()
    };
    say!("{}", line(&|_, head| head.to_owned()).dimmed());
    for row in &cells {
        say!(
            "{}",
            line(&|column, _| row.get(column).map(ToString::to_string).unwrap_or_default())
        );
    }
}

/// Prints what is known of one thing, a line each; what is not known is left out.
pub(super) fn print_pairs(pairs: &[(&str, Option<String>)]) {
    let known: Vec<_> = pairs
        .iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)))
        .collect();
    let width = known
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or_default();
    for (name, value) in known {
        say!("{}  {}", format!("{name:<width$}").dimmed(), shown(value));
    }
}

/// A text with what a terminal would obey, or show in another order, escaped.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    let is_unsafe = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().flat_map(|c| {
        let escaped = is_unsafe(c).then(|| c.escape_unicode());
        let plain = escaped.is_none().then_some(c);
        escaped.into_iter().flatten().chain(plain)
    });
    Cow::Owned(escaped.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(shown("a\u{1b}[2J"), "a\\u{1b}[2J");
        assert_eq!(shown("x\u{202e}y\n"), "x\\u{202e}y\\u{a}");
        assert!(matches!(shown("Größe ≥ 3"), Cow::Borrowed("Größe ≥ 3")));
    }
}
