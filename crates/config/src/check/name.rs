//! Decides what names, tenants, claims, audiences and names in certificates may look like, and that no name is given twice: two operators
//! of one name would be one in every record.

use std::collections::HashMap;

use super::{credential::is_simple_name, report::Report};
use crate::{
    file::{ClaimText, NameText, OneOrMany, TenantText},
    node::KeyPath,
};

/// Names that were given, and the line of each.
#[derive(Default)]
pub(super) struct Names<'f>(HashMap<&'f str, usize>);

impl<'f> Names<'f> {
    /// Takes a name of 1 to 64 of `[A-Za-z0-9_-]`. `path` is that of its key.
    pub(super) fn take(&mut self, name: &'f NameText, path: &KeyPath, report: &mut Report<'_>) {
        let line = report.line(path);
        if !is_name(&name.0) {
            report.error(
                "invalid_name",
                path,
                "not a name".to_owned(),
                "use 1 to 64 letters, digits, `_` and `-`",
            );
        } else if let Some(first) = self.0.insert(&name.0, line) {
            report.error(
                "duplicate_name",
                path,
                format!(
                    "`{}` is already the name of the one in line {first}",
                    name.0
                ),
                "give each its own name",
            );
        }
    }
}

/// 1 to 64 of `[A-Za-z0-9_-]`.
pub(super) fn is_name(text: &str) -> bool {
    is_simple_name(text) && !text.contains('.')
}

pub(super) fn check_tenant(
    tenant: Option<&TenantText>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<String> {
    let TenantText(text) = tenant?;
    if !is_simple_name(text) {
        report.error(
            "invalid_tenant",
            path,
            "not the name of a tenant".to_owned(),
            "use 1 to 64 letters, digits, `.`, `_` and `-`",
        );
    }
    Some(text.clone())
}

/// The way to a claim, `sub` where nothing is said.
pub(super) fn check_claim(
    claim: Option<&ClaimText>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> String {
    let Some(ClaimText(text)) = claim else {
        return "sub".to_owned();
    };
    let is_step = |step: &str| !step.is_empty() && !step.contains(is_odd);
    if text.len() > 256 || !text.split('.').all(is_step) {
        report.error(
            "invalid_claim",
            path,
            "not the way to a claim".to_owned(),
            "write names with dots between them, as in `sub` or `kubernetes.io.namespace`",
        );
    }
    text.clone()
}

/// Names that stand in certificates, each once; none if the list is not there. What is written is not repeated: under
/// `credentials` it may be the secret.
pub(super) fn check_certificate_names(
    code: &'static str,
    names: Option<&OneOrMany<String>>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Vec<String> {
    let Some(OneOrMany(names)) = names else {
        return Vec::new();
    };
    report.refuse_empty(names, path);
    let mut checked = Vec::new();
    for (path, name) in report.places(path, names) {
        if !is_exact_text(name) {
            report.error(
                code,
                &path,
                "no certificate has this name".to_owned(),
                "write a name exactly as it stands in the certificate (subject alternative name), without spaces",
            );
        } else if checked.contains(name) {
            report.error(
                "duplicate_value",
                &path,
                "this name is already in the list".to_owned(),
                "keep one of them",
            );
        } else {
            checked.push(name.clone());
        }
    }
    checked
}

/// A text that stands in a token: an issuer, an audience, a client's name.
pub(super) fn check_token_text(
    code: &'static str,
    text: &str,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<String> {
    if !is_exact_text(text) {
        report.error(
            code,
            path,
            "no token has this text".to_owned(),
            "write it exactly as it stands in the tokens: 1 to 512 characters, without spaces",
        );
        return None;
    }
    Some(text.to_owned())
}

/// 1 to 512 bytes without spaces and control characters.
pub(super) fn is_exact_text(text: &str) -> bool {
    !text.is_empty() && text.len() <= 512 && !text.contains(is_odd)
}

fn is_odd(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}
