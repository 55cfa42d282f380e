//! Patterns as RE2 reads them, which Envoy matches against the whole text.

use std::{collections::BTreeMap, fmt::Write as _};

use outgate_journey::{
    path::{PathPattern, is_ambiguous},
    policy::Port,
};

/// A text that stands for itself.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii_alphanumeric()
            && !matches!(
                c,
                '_' | '-'
                    | '/'
                    | '%'
                    | ':'
                    | '@'
                    | ','
                    | '='
                    | '~'
                    | '!'
                    | '\''
                    | '"'
                    | '<'
                    | '>'
                    | '&'
                    | '#'
                    | ';'
                    | ' '
            )
            && c.is_ascii()
        {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// What a path pattern covers: [`PathPattern::covers`], in one expression.
pub(super) fn path(pattern: &PathPattern) -> String {
    let written = pattern.to_string();
    let mut out = String::new();
    let mut segments = written.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "**" if segments.peek().is_none() => out.push_str("(?:/.*)?"),
            "**" => out.push_str("(?:/[^/]*)*"),
            "*" => out.push_str("/[^/]+"),
            _ => {
                let parts: Vec<_> = segment.split('*').map(literal).collect();
                let _ = write!(out, "/{}", parts.join("[^/]*"));
            }
        }
    }
    out
}

/// Every path that is not ambiguous: the opposite of [`is_ambiguous`], of which it is made.
pub(super) fn unambiguous_path() -> String {
    let class = ranges(
        (0x21_u8..0x7f)
            .filter(|c| !matches!(c, b'.' | b'/' | b'%'))
            .filter(|c| !is_ambiguous(&format!("/{}", char::from(*c)))),
    );
    // Octets by their second digits, and those by the first digits that they may follow.
    let mut octets: BTreeMap<String, String> = BTreeMap::new();
    for high in 0_u8..16 {
        let low: String = (0_u8..16)
            .filter(|low| !is_ambiguous(&format!("/%{high:x}{low:x}")))
            .map(either_case)
            .collect();
        octets.entry(low).or_default().push_str(&either_case(high));
    }
    octets.remove("");
    let octets: Vec<_> = octets
        .iter()
        .map(|(low, high)| format!("[{high}][{low}]"))
        .collect();
    let piece = format!("(?:[{class}]|%(?:{}))", octets.join("|"));
    // A segment of one or two dots is none; three are.
    let segment = format!("(?:\\.{{0,2}}{piece}(?:{piece}|\\.)*|\\.{{3}}(?:{piece}|\\.)*)");
    format!("/(?:{segment}(?:/{segment})*/?)?")
}

/// Ascending characters as the inside of a class.
fn ranges(characters: impl Iterator<Item = u8>) -> String {
    let mut runs: Vec<(u8, u8)> = Vec::new();
    for c in characters {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == c => *last = c,
            _ => runs.push((c, c)),
        }
    }
    let mut out = String::new();
    for (first, last) in runs {
        let _ = write!(out, "\\x{first:02x}");
        if last > first {
            let _ = write!(out, "-\\x{last:02x}");
        }
    }
    out
}

fn either_case(digit: u8) -> String {
    let lower = format!("{digit:x}");
    let upper = lower.to_uppercase();
    if lower == upper {
        lower
    } else {
        lower + &upper
    }
}

/// `host[:port]` with one of these ports; without a port if the `default` one is among them. `host` is an expression.
pub(super) fn authority(host: &str, ports: &[Port], default: Option<u16>) -> String {
    let list: Vec<_> = ports.iter().map(ToString::to_string).collect();
    let optional = default.is_some_and(|default| ports.iter().any(|port| port.get() == default));
    let mark = if optional { "?" } else { "" };
    format!("(?i:{host})\\.?(?::(?:{})){mark}", list.join("|"))
}

#[cfg(test)]
mod tests {
    use outgate_journey::{path::is_ambiguous, policy::Port};
    use proptest::prelude::*;

    use super::*;

    /// Matches as Envoy does: the whole text. RE2's syntax is what this crate's is made after.
    fn matches(expression: &str, text: &str) -> bool {
        regex::Regex::new(&format!("^(?:{expression})$"))
            .unwrap()
            .is_match(text)
    }

    #[test]
    fn a_pattern_covers_in_envoy_what_it_covers_in_the_journey() {
        let patterns = [
            "/",
            "/**",
            "/v1/**",
            "/v1",
            "/v1/",
            "/repos/*/issues",
            "/**/info/refs",
            "/a/**/b/**/c",
            "/f/*.json",
            "/f/a*b*c",
            "/f/a*a",
            "/a.b",
            "/a+b(c)",
            "/%C3%A4/*",
            "/a/*/",
            "/**/*",
        ];
        let paths = [
            "/",
            "/v1",
            "/v1/",
            "/v1/a",
            "/v1/a/b",
            "/v10",
            "/repos/a/issues",
            "/repos/a/b/issues",
            "/info/refs",
            "/o/r.git/info/refs",
            "/o/info/refs/x",
            "/a/x/b/y/b/z/c",
            "/a/b/c",
            "/a/x/c",
            "/f/x.json",
            "/f/.json",
            "/f/xjson",
            "/f/aXbYc",
            "/f/acb",
            "/f/a",
            "/f/aa",
            "/a.b",
            "/aXb",
            "/a+b(c)",
            "/aab(c)",
            "/%C3%A4/x",
            "/a/x/",
            "/a/x",
        ];
        for pattern in patterns.map(|it| PathPattern::parse(it).unwrap()) {
            for text in paths {
                assert_eq!(
                    matches(&path(&pattern), text),
                    pattern.covers(text),
                    "{pattern} {text}"
                );
            }
        }
    }

    #[test]
    fn an_authority_has_the_rules_name_and_one_of_its_ports() {
        let ports = [443, 8443].map(|port| Port::new(port).unwrap());
        let expression = authority(&literal("api.example.org"), &ports, Some(443));
        for (text, listed) in [
            ("api.example.org", true),
            ("API.example.org.:8443", true),
            ("api.example.org:443", true),
            ("api.example.org:444", false),
            ("apiXexample.org", false),
            ("a.api.example.org", false),
            ("api.example.org:4438443", false),
            ("api.example.org@evil.example", false),
        ] {
            assert_eq!(matches(&expression, text), listed, "{text}");
        }
        assert!(!matches(&authority("a", &ports[1..], Some(443)), "a"));
        assert!(!matches(&authority("a", &ports, None), "a"));
    }

    proptest! {
        #[test]
        fn a_path_is_unambiguous_in_envoy_where_it_is_in_the_journey(
            path in "(/(\\.{0,3}|[a-z.]{0,4}|[a-z%;2eEfF5cC]{1,4}|%[0-9a-fA-F]{2}|[ -~]{0,3})){1,4}/?",
        ) {
            prop_assert_eq!(matches(&unambiguous_path(), &path), !is_ambiguous(&path), "{}", path);
        }

        #[test]
        fn a_literal_stands_for_itself(text in "[ -~]{0,12}", other in "[ -~]{0,12}") {
            prop_assert!(matches(&literal(&text), &text));
            prop_assert_eq!(matches(&literal(&text), &other), text == other);
        }
    }
}
