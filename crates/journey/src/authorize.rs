//! Stage *authorize*: decides whether the rule lets this method, path and these headers through.

use http::{HeaderMap, HeaderName, Method};

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
pub const OVERRIDE_HEADERS: [HeaderName; 5] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
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
        .any(|deny| covers(deny, method, path, headers))
    {
        return Err(Denial::new(DenyCode::RequestDenied).by(&rule.id));
    }
    if requests.allow.is_empty()
        || requests
            .allow
            .iter()
            .any(|allow| covers(allow, method, path, headers))
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

fn covers(rule: &RequestRule, method: &Method, path: &str, headers: &HeaderMap) -> bool {
    covers_method(rule, method) && covers_path(rule, path) && covers_headers(rule, headers)
}

fn covers_method(rule: &RequestRule, method: &Method) -> bool {
    rule.methods.is_empty() || rule.methods.contains(method)
}

fn covers_path(rule: &RequestRule, path: &str) -> bool {
    rule.paths.is_empty() || rule.paths.iter().any(|pattern| pattern.covers(path))
}

/// Every named field must be there, and every one of its values must be among the given ones: a second value
/// beside an allowed one is how a check on "the" value is stepped around.
fn covers_headers(rule: &RequestRule, headers: &HeaderMap) -> bool {
    rule.headers.iter().all(|(name, accepted)| {
        let mut values = headers.get_all(name).iter().peekable();
        values.peek().is_some()
            && values.all(|value| {
                accepted.is_empty()
                    || accepted
                        .iter()
                        .any(|text| text.as_bytes() == value.as_bytes())
            })
    })
}
