//! Decides which paths a rule covers. The path that is judged is, byte for byte, the path that is sent, so a
//! path that an upstream could read differently from its spelling is refused where a rule judges paths.

use std::{fmt, sync::Arc};

/// A pattern over the raw path: `*` stands for one whole segment or, within a segment, for any run of characters
/// other than `/`; `**` as a whole segment stands for any number of segments, none included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    written: Arc<str>,
    segments: Arc<[Segment]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    /// Text with `*` in it: the parts between the stars.
    Glob(Box<[Box<str>]>),
    AnyDepth,
}

/// Why some text is not a [`PathPattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathPatternError {
    /// It does not begin with `/`.
    #[error("a path pattern begins with `/`")]
    NotAbsolute,
    /// It has `**` beside other characters in one segment.
    #[error("`**` stands alone between slashes")]
    DoubleStarInSegment,
    /// It could never cover a path, because such paths are refused as ambiguous.
    #[error(
        "a pattern with dot segments, empty segments, `;`, `\\`, `?`, `#` or encoded separators can never match"
    )]
    Ambiguous,
}

impl PathPattern {
    /// Parses a pattern as a person writes it.
    ///
    /// # Errors
    /// See [`PathPatternError`].
    pub fn parse(text: &str) -> Result<Self, PathPatternError> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(PathPatternError::NotAbsolute);
        };
        if is_ambiguous(text) {
            return Err(PathPatternError::Ambiguous);
        }
        let segments = rest
            .split('/')
            .map(|segment| match segment {
                "**" => Ok(Segment::AnyDepth),
                s if s.contains("**") => Err(PathPatternError::DoubleStarInSegment),
                s if s.contains('*') => Ok(Segment::Glob(s.split('*').map(Into::into).collect())),
                s => Ok(Segment::Literal(s.into())),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            written: text.into(),
            segments,
        })
    }

    /// Whether the pattern covers `path` (raw, without the query).
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        path.strip_prefix('/')
            .is_some_and(|rest| covers_segments(&self.segments, Some(rest)))
    }
}

/// `rest` is what follows a `/`; `None` when the path has ended.
fn covers_segments(mut pattern: &[Segment], mut rest: Option<&str>) -> bool {
    // Where the last `**` stood and what it has left to try. Going back to the last one alone is enough, as in
    // any glob, and keeps the work at pattern × path even for a hostile path.
    let mut retry: Option<(&[Segment], Option<&str>)> = None;
    loop {
        match (pattern, rest) {
            ([Segment::AnyDepth, after @ ..], _) => {
                if after.is_empty() {
                    return true;
                }
                retry = Some((after, rest));
                pattern = after;
                continue;
            }
            ([first, after @ ..], Some(text)) => {
                let (segment, next) = split_segment(text);
                if covers_segment(first, segment) {
                    (pattern, rest) = (after, next);
                    continue;
                }
            }
            ([], None) => return true,
            _ => {}
        }
        let Some((after, Some(text))) = retry else {
            return false;
        };
        let (_, next) = split_segment(text);
        retry = Some((after, next));
        (pattern, rest) = (after, next);
    }
}

fn split_segment(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (text, None),
    }
}

fn covers_segment(pattern: &Segment, segment: &str) -> bool {
    match pattern {
        Segment::Literal(literal) => **literal == *segment,
        Segment::Glob(parts) => covers_glob(parts, segment),
        Segment::AnyDepth => true,
    }
}

fn covers_glob(parts: &[Box<str>], segment: &str) -> bool {
    let [first, middle @ .., last] = parts else {
        return false;
    };
    let Some(mut rest) = segment.strip_prefix(&**first) else {
        return false;
    };
    for part in middle {
        match rest.find(&**part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or(""),
            None => return false,
        }
    }
    // A lone `*` stands for a segment, and a segment is never empty.
    rest.ends_with(&**last) && !segment.is_empty()
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// Whether a raw path could mean another path to some server: dot segments and empty segments, plain or
/// encoded; encoded `/`, `\` and `%`; encodings of characters that need none; path parameters; backslashes;
/// control characters; malformed percent-encoding.
#[must_use]
pub fn is_ambiguous(path: &str) -> bool {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return true;
    }
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' | b';' | b'?' | b'#' | 0..=0x20 | 0x7f.. => return true,
            b'/' => {
                let rest = bytes.get(at + 1..).unwrap_or_default();
                let segment = rest.split(|b| *b == b'/').next().unwrap_or_default();
                let is_last = segment.len() == rest.len();
                if matches!(segment, b"." | b"..") || (segment.is_empty() && !is_last) {
                    return true;
                }
            }
            b'%' => {
                let Some(decoded) = decode_pair(bytes.get(at + 1..at + 3)) else {
                    return true;
                };
                let needless =
                    decoded.is_ascii_alphanumeric() || matches!(decoded, b'-' | b'.' | b'_' | b'~');
                if needless
                    || matches!(decoded, 0xc0 | 0xc1 | 0xf5..)
                    || matches!(
                        decoded,
                        b'/' | b'\\' | b'%' | b';' | b'?' | b'#' | 0..=0x1f | 0x7f
                    )
                {
                    return true;
                }
            }
            _ => {}
        }
        at += 1;
    }
    false
}

fn decode_pair(pair: Option<&[u8]>) -> Option<u8> {
    let [high, low] = pair? else { return None };
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    Some(digit(*high)? << 4 | digit(*low)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_cover_what_their_shape_says() {
        for (pattern, path, covered) in [
            ("/v1/**", "/v1/messages", true),
            ("/v1/**", "/v1/a/b/c", true),
            ("/v1/**", "/v1/", true),
            ("/v1/**", "/v1", true),
            ("/v1/**", "/v10", false),
            ("/v1/**", "/V1/x", false),
            ("/**", "/", true),
            ("/", "/", true),
            ("/", "/x", false),
            ("/repos/*/issues", "/repos/a/issues", true),
            ("/repos/*/issues", "/repos/a/b/issues", false),
            ("/repos/*/issues", "/repos//issues", false),
            ("/**/info/refs", "/org/repo.git/info/refs", true),
            ("/**/info/refs", "/info/refs", true),
            ("/**/info/refs", "/org/info/refs/x", false),
            ("/a/**/b/**/c", "/a/x/b/y/b/z/c", true),
            ("/a/**/b/**/c", "/a/x/y/z/c", false),
            ("/f/*.json", "/f/x.json", true),
            ("/f/*.json", "/f/.json", true),
            ("/f/a*b*c", "/f/aXbYc", true),
            ("/f/a*b*c", "/f/acb", false),
            ("/f/a*a", "/f/a", false),
        ] {
            assert_eq!(
                PathPattern::parse(pattern).unwrap().covers(path),
                covered,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn patterns_that_can_never_match_are_refused() {
        for text in [
            "v1", "", "/a//b", "/a/../b", "/a;b", "/a%2fb", "/a\\b", "/a?b", "/a**",
        ] {
            assert!(PathPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ambiguous_paths_are_recognised() {
        for path in [
            "",
            "v1",
            "*",
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/%2e%2e/a",
            "/a/%2E",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "//a",
            "/a//b",
            "/a;p=1",
            "/a\\b",
            "/%252e",
            "/%",
            "/%4",
            "/%zz",
            "/a%00",
            "/%61",
            "/a b",
            "/a\tb",
            "/ä",
            "/a%7e",
        ] {
            assert!(is_ambiguous(path), "{path}");
        }
        for path in [
            "/",
            "/a",
            "/a/",
            "/a/b.c",
            "/a/..b",
            "/.well-known/x",
            "/a%20b",
            "/a:b@c",
            "/%C3%A4",
            "/a,b",
            "/a+b",
        ] {
            assert!(!is_ambiguous(path), "{path}");
        }
    }

    proptest! {
        #[test]
        fn an_unambiguous_path_survives_a_normaliser(path in "(/(\\.{0,3}|[a-z.]{0,4}|[a-z%;2eE]{1,4})){1,6}") {
            if is_ambiguous(&path) {
                return Ok(());
            }
            let mut kept: Vec<&str> = Vec::new();
            for segment in path[1..].split('/') {
                match segment { "." => {}, ".." => { kept.pop(); }, s => kept.push(s) }
            }
            prop_assert_eq!(format!("/{}", kept.join("/")), path);
        }

        #[test]
        fn a_double_star_prefix_covers_exactly_the_paths_below_it(tail in "(/[a-z.]{1,4}){0,5}") {
            let pattern = PathPattern::parse("/v1/**").unwrap();
            let below = format!("/v1{tail}");
            let beside = format!("/v1x{tail}");
            prop_assert!(pattern.covers(&below));
            prop_assert!(!pattern.covers(&beside));
        }

        #[test]
        fn hostile_patterns_and_paths_end_quickly(path in "(/a){0,200}") {
            let pattern = PathPattern::parse("/**/a/**/a/**/a/**/b").unwrap();
            prop_assert!(!pattern.covers(&path));
        }
    }
}
