//! Reads a query by the route's table: other parameters, repeated ones and broken encodings are refused, because a
//! misspelt filter that is ignored shows, or takes off the denylist, something else than was meant.

use super::{code::ErrorCode, problem::Refusal};

/// A parameter of a route's query.
pub(crate) struct Parameter {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Of its JSON Schema: `integer`, `boolean` or `string`.
    pub(crate) kind: &'static str,
}

/// The parameters that are there.
pub(crate) fn parse(
    known: &'static [Parameter],
    query: Option<&str>,
) -> Result<Vec<(&'static str, String)>, Refusal> {
    let bad = |detail: String| Err(Refusal::saying(ErrorCode::InvalidQuery, detail));
    let mut found: Vec<(&'static str, String)> = Vec::new();
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(parameter) = known.iter().find(|parameter| parameter.name == name) else {
            let names: Vec<_> = known.iter().map(|parameter| parameter.name).collect();
            let names = if names.is_empty() {
                "no parameters".to_owned()
            } else {
                names.join(", ")
            };
            return bad(format!("not a parameter of this route, which has {names}"));
        };
        let Some(value) = decode(value) else {
            return bad(format!("{name}: not percent-encoded UTF-8"));
        };
        if found.iter().any(|(known, _)| *known == name) {
            return bad(format!("{name}: twice"));
        }
        found.push((parameter.name, value));
    }
    Ok(found)
}

/// Percent-decodes a value (RFC 3986 section 2.1); `+` is itself.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, behind @ ..] = behind else {
            return None;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    static KNOWN: &[Parameter] = &[
        Parameter {
            name: "after",
            about: "",
            kind: "integer",
        },
        Parameter {
            name: "limit",
            about: "",
            kind: "integer",
        },
    ];

    #[test]
    fn a_value_is_decoded_strictly() {
        assert_eq!(decode("a%2Fb+%c3%BC").as_deref(), Some("a/b+ü"));
        for bad in ["%", "%2", "%zz", "%ff", "%+1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_the_route_does_not_have_is_refused() {
        let good = parse(KNOWN, Some("limit=5&after=1")).unwrap();
        assert_eq!(good, [("limit", "5".to_owned()), ("after", "1".to_owned())]);
        assert_eq!(parse(KNOWN, None).unwrap(), []);
        for bad in ["x=1", "after=1&after=1", "After=1", "after=%", "%61fter=1"] {
            let refusal = parse(KNOWN, Some(bad)).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::InvalidQuery, "{bad}");
        }
        assert!(parse(&[], Some("a=b")).is_err());
    }
}
