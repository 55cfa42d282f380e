//! Stage *authorize*: decides whether the rule lets this method, path and these headers through.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::{
    denial::{Denial, DenyCode},
    path::is_ambiguous,
    policy::{AllowedDestination, RequestRule},
};

/// Proof of *authorize*: the rule covers this request, and this is the path that was judged and must be sent.
#[derive(Debug, Clone)]
pub struct Permit {
    allowed: AllowedDestination,
}

impl Permit {
    /// The destination and its rule.
    #[must_use]
    pub const fn allowed(&self) -> &AllowedDestination {
        &self.allowed
    }
}

/// Fields by which some servers let a request say another method or path than its request line. Where a rule
/// judges requests they are taken out, or the judged request would not be the one that is carried out.
pub static OVERRIDE_HEADERS: [HeaderName; 11] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-original-uri"),
    HeaderName::from_static("x-original-method"),
    HeaderName::from_static("x-forwarded-uri"),
    HeaderName::from_static("x-forwarded-path"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-method"),
];

/// Judges a request against its rule. `path` is raw, without the query.
///
/// # Errors
/// [`DenyCode::PathAmbiguous`], [`DenyCode::RequestDenied`], or the narrowest of [`DenyCode::MethodNotAllowed`],
/// [`DenyCode::HeaderNotAllowed`] and [`DenyCode::PathNotAllowed`].
pub fn authorize(
    allowed: AllowedDestination,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<Permit, Denial> {
    let rule = allowed.rule();
    let requests = &rule.requests;
    if requests.is_unrestricted() {
        return Ok(Permit { allowed });
    }
    // `OPTIONS *` has no path to judge, so it matches only rules that judge none.
    if requests.judge_paths() && is_ambiguous(path) {
        return Err(Denial::new(DenyCode::PathAmbiguous).by(&rule.id));
    }
    if requests
        .deny
        .iter()
        .any(|deny| covers(deny, method, path, headers, Values::Any))
    {
        return Err(Denial::new(DenyCode::RequestDenied).by(&rule.id));
    }
    if requests.allow.is_empty()
        || requests
            .allow
            .iter()
            .any(|allow| covers(allow, method, path, headers, Values::All))
    {
        return Ok(Permit { allowed });
    }
    let by_path = |allow: &&RequestRule| covers_path(allow, path);
    let code = if !requests.allow.iter().any(|allow| by_path(&allow)) {
        DenyCode::PathNotAllowed
    } else if !requests
        .allow
        .iter()
        .filter(by_path)
        .any(|allow| covers_method(allow, method))
    {
        DenyCode::MethodNotAllowed
    } else {
        DenyCode::HeaderNotAllowed
    };
    Err(Denial::new(code).by(&rule.id))
}

/// Whether a field with several values is covered when one of them is, or only when all are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    /// For what is denied: no second value takes a request out of reach.
    Any,
    /// For what is allowed: no second value rides along.
    All,
}

fn covers(
    rule: &RequestRule,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    values: Values,
) -> bool {
    covers_method(rule, method) && covers_path(rule, path) && covers_headers(rule, headers, values)
}

fn covers_method(rule: &RequestRule, method: &Method) -> bool {
    rule.methods.is_empty() || rule.methods.contains(method)
}

fn covers_path(rule: &RequestRule, path: &str) -> bool {
    rule.paths.is_empty() || rule.paths.iter().any(|pattern| pattern.covers(path))
}

/// Every named field must be there, with the accepted values: which of its values count is the caller's to say.
fn covers_headers(rule: &RequestRule, headers: &HeaderMap, values: Values) -> bool {
    rule.headers.iter().all(|(name, accepted)| {
        let is_accepted = |value: &HeaderValue| {
            accepted.is_empty()
                || accepted
                    .iter()
                    .any(|text| text.as_bytes() == value.as_bytes())
        };
        let mut found = headers.get_all(name).iter();
        match values {
            Values::Any => found.any(is_accepted),
            Values::All => headers.contains_key(name) && found.all(is_accepted),
        }
    })
}
