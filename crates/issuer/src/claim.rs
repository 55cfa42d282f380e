//! Finding a claim by a dotted name.

use serde_json::{Map, Value};

/// The claim at a path: `sub`, `realm_access.roles`, `kubernetes.io.pod.uid`, `https://example.org/session`.
///
/// A dot leads into an object. Names may hold dots themselves, so at each object the longest name is tried first; the
/// first that leads to a value counts.
#[must_use]
pub fn claim<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(found) = claims.get(path) {
        return Some(found);
    }
    path.rmatch_indices('.').find_map(|(dot, _)| {
        let (name, rest) = (path.get(..dot)?, path.get(dot + 1..)?);
        claim(claims.get(name)?.as_object()?, rest)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_leads_to_the_claim_whether_or_not_its_names_hold_dots() {
        let claims = json!({
            "sub": "s",
            "kubernetes.io": { "pod": { "uid": "u" }, "namespace": "n" },
            "https://example.org/session": "w",
            "a.b": "whole",
            "a": { "b": "parts", "c": { "d": 1 } },
            "x.y": { "z": "longest" },
            "x": { "y.z": "shortest", "y": { "w": "only" } },
        });
        let claims = claims.as_object().unwrap();
        for (path, expected) in [
            ("sub", Some(json!("s"))),
            ("kubernetes.io.pod.uid", Some(json!("u"))),
            ("kubernetes.io.namespace", Some(json!("n"))),
            ("https://example.org/session", Some(json!("w"))),
            ("a.b", Some(json!("whole"))),
            ("a.c.d", Some(json!(1))),
            ("x.y.z", Some(json!("longest"))),
            ("x.y.w", Some(json!("only"))),
            ("", None),
            (".", None),
            ("sub.", None),
            ("sub.x", None),
            (".sub", None),
            ("kubernetes.io.pod.name", None),
        ] {
            assert_eq!(claim(claims, path), expected.as_ref(), "{path}");
        }
    }
}
