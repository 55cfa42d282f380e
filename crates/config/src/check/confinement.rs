//! Decides what the sessions of an issuer are confined to: all to one policy, or each to the policy of what its token
//! claims. An entry that no token could ever ask for is refused: it would be believed to be in force.

use std::collections::BTreeMap;

use outgate_journey::session::PolicyName;

use super::{
    name::{check_claim, is_exact_text},
    policy::check_policy_name,
    report::Report,
};
use crate::{
    IssuerPolicy,
    file::{FileClaimPolicies, FileIssuer},
    node::KeyPath,
};

pub(super) fn check_confinement(
    written: &FileIssuer,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> IssuerPolicy {
    let at = path.key("policy");
    let one = check_policy_name(written.policy.as_ref(), &at, report);
    let Some(policies) = &written.policies else {
        return one.map_or(IssuerPolicy::Unconfined, IssuerPolicy::One);
    };
    if written.policy.is_some() {
        report.error(
            "one_confinement",
            &at,
            "an issuer's sessions have one policy, or one each".to_owned(),
            "write one of `policy` and `policies`",
        );
    }
    check_by_claim(policies, &path.key("policies"), report)
}

fn check_by_claim(
    written: &FileClaimPolicies,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> IssuerPolicy {
    let at = path.key("claim");
    report.refuse_empty(&written.claim.0, &at);
    let mut claims = Vec::new();
    for (path, text) in report.places(&at, &written.claim.0) {
        let claim = check_claim(Some(text), &path, report);
        if claims.contains(&claim) {
            report.duplicate(&path, &claim);
        } else {
            claims.push(claim);
        }
    }
    let map = check_map(written, &path.key("map"), report);
    IssuerPolicy::ByClaim { claims, map }
}

fn check_map(
    written: &FileClaimPolicies,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> BTreeMap<String, PolicyName> {
    if written.map.is_empty() && !report.touched(path) {
        report.error(
            "empty_list",
            path,
            "every token of this issuer would be refused".to_owned(),
            "add a value of the claim and its policy, as in `team-a/agent: read-only`",
        );
    }
    let mut map = BTreeMap::new();
    for (key, name) in &written.map {
        let at = path.key(key);
        check_key(key, written.claim.0.len(), &at, report);
        if let Some(policy) = check_policy_name(Some(name), &at, report) {
            map.insert(key.clone(), policy);
        }
    }
    map
}

/// With several claims a value has no `/`, so that a key can be read in one way only.
fn check_key(key: &str, claims: usize, path: &KeyPath, report: &mut Report<'_>) {
    let is_whole =
        claims < 2 || (key.split('/').count() == claims && key.split('/').all(|it| !it.is_empty()));
    if !is_exact_text(key) || !is_whole {
        report.error_at_key(
            "invalid_claim_value",
            path,
            "no token claims this".to_owned(),
            "write the claim's value exactly, or one value for each of the claims with `/` between them, as in `team-a/agent`",
        );
    }
}
