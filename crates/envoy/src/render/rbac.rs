//! Envoy's own gate behind the journey's decision. It is made of the same tables and knows nothing of the decision but
//! what it can compare: a fault in either is caught by the other. Deny rules first; behind each DENY stands an ALLOW
//! that says the opposite, because a condition that cannot be evaluated matches nothing.

use outgate_journey::{
    gate::{TunnelTreatment, opening_is_judged},
    policy::{Posture, RequestRule, Rule},
};
use serde_json::{Value, json};

use super::{
    cel,
    json::{extension, object, typed},
    names::{DECISION, STATE_HOST, STATE_TARGET, decision, filter},
    regex,
};
use crate::{control::Treatment, leg::Leg};

const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
const PER_ROUTE: &str = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute";

// The names of policies that refuse: they show in the response code's details, where [`crate::reasons`] finds them.
const MISMATCH: &str = "authority_mismatch";
const NAME_MISMATCH: &str = "server_name_mismatch";
const AMBIGUOUS: &str = "path_ambiguous";
pub(super) const UNDECIDED: &str = "no_decision";
pub(super) const ADDRESS: &str = "address_denied";

pub(super) fn anything() -> Value {
    json!({ "any": true })
}

fn all(rules: Vec<Value>) -> Value {
    match rules.len() {
        0 => anything(),
        _ => json!({ "and_rules": { "rules": rules } }),
    }
}

fn any(rules: Vec<Value>) -> Value {
    json!({ "or_rules": { "rules": rules } })
}

fn not(rule: Value) -> Value {
    json!({ "not_rule": rule })
}

/// A policy of permissions alone.
pub(super) fn policy(permission: Value) -> Value {
    json!({ "permissions": [permission], "principals": [anything()] })
}

/// A filter's rules, as a filter's settings or as a route's.
fn rules(action: &str, policies: Value) -> Value {
    json!({ "rules": { "action": action, "policies": policies } })
}

/// A filter that denies what `policies` match.
pub(super) fn denying(name: &str, policies: Value) -> Value {
    extension(name, RBAC, rules("DENY", policies))
}

/// The same, for a route.
pub(super) fn denying_on_route(policies: Value) -> Value {
    typed(PER_ROUTE, json!({ "rbac": rules("DENY", policies) }))
}

/// The decision must be about this very request: what was decided is what the request names, and what its tunnel was
/// opened for (P5).
pub(super) fn decided(tunnel: Option<Leg>, request: Option<Leg>) -> [Value; 2] {
    // A connection manager with both has requests of one kind and tunnels of the other.
    let legs: Vec<Leg> = tunnel.into_iter().chain(request).collect();
    let was_decided = decided_as(
        decision::REQUEST,
        &json!({ "safe_regex": { "regex": ".+" } }),
    );
    let (mut mismatch, mut allow) = (Vec::new(), Vec::new());
    for leg in &legs {
        let kind = cel::is_connect(leg.opens_tunnel());
        mismatch.push(cel::all(kind.clone(), cel::not(agreement(*leg))));
        allow.push((
            leg.as_str().to_owned(),
            conditional(was_decided.clone(), cel::all(kind, whole_agreement(*leg))),
        ));
    }
    let mut deny = vec![(UNDECIDED.to_owned(), policy(not(was_decided)))];
    if let Some(mismatch) = mismatch.into_iter().reduce(cel::any) {
        deny.push((MISMATCH.to_owned(), conditional(anything(), mismatch)));
    }
    if request == Some(Leg::Bumped) {
        let other_name = cel::not(server_name_agrees());
        deny.push((
            NAME_MISMATCH.to_owned(),
            conditional(anything(), other_name),
        ));
    }
    [
        denying(filter::DECIDED_DENY, object(deny)),
        extension(filter::DECIDED, RBAC, rules("ALLOW", object(allow))),
    ]
}

/// Whether a value of the decision matches.
fn decided_as(key: &str, matcher: &Value) -> Value {
    json!({ "sourced_metadata": {
        "metadata_source": "DYNAMIC",
        "metadata_matcher": {
            "filter": DECISION,
            "path": [{ "key": key }],
            "value": { "string_match": matcher },
        },
    } })
}

/// Whether a tunnel under a rule may become this.
fn fits(rule: &Rule, treatment: Treatment) -> bool {
    match treatment {
        Treatment::Opaque => !opening_is_judged(rule),
        Treatment::Judged { tls, plain } => {
            let as_ruled = match tls {
                Some(TunnelTreatment::Bump) => rule.posture == Posture::Bump,
                Some(TunnelTreatment::PassThrough) => rule.posture == Posture::PassThrough,
                Some(TunnelTreatment::PlainHttp) => false,
                None => true,
            };
            opening_is_judged(rule) && as_ruled && (rule.plaintext || !plain)
        }
    }
}

fn conditional(permission: Value, condition: Value) -> Value {
    json!({
        "permissions": [permission],
        "principals": [anything()],
        "condition": condition,
        "cel_config": cel::config(),
    })
}

fn agreement(leg: Leg) -> Value {
    let target = cel::decision(decision::TARGET);
    let mut agrees = cel::authority_is(&target, leg.default_port());
    if leg.is_inner() {
        agrees = cel::all(agrees, cel::equal(target, cel::state(STATE_TARGET)));
        agrees = cel::all(
            agrees,
            cel::equal(cel::decision(decision::HOST), cel::state(STATE_HOST)),
        );
    }
    agrees
}

fn whole_agreement(leg: Leg) -> Value {
    match leg {
        Leg::Bumped => cel::all(agreement(leg), server_name_agrees()),
        _ => agreement(leg),
    }
}

fn server_name_agrees() -> Value {
    cel::equal(cel::server_name(), cel::state(STATE_HOST))
}

/// The two filters of the path. One expression for all rules: it is the longest thing that could stand in a route.
pub(super) fn by_path() -> [Value; 2] {
    let clear = || at_path(&regex::unambiguous_path());
    [
        denying(
            filter::PATH_DENY,
            json!({ AMBIGUOUS: policy(not(clear())) }),
        ),
        extension(
            filter::PATH,
            RBAC,
            rules("ALLOW", json!({ "path_clear": policy(clear()) })),
        ),
    ]
}

/// The two filters whose rules stand in routes. A route that has none lets nothing through.
pub(super) fn by_rule() -> [Value; 2] {
    [
        denying(filter::RULE_DENY, json!({})),
        extension(filter::RULE, RBAC, rules("ALLOW", json!({}))),
    ]
}

/// A tunnel's opening under a rule, as settings of [`filter::RULE`].
pub(super) fn of_opening(rule: &Rule) -> (String, Value) {
    let words = Treatment::ALL
        .iter()
        .filter(|it| fits(rule, **it))
        .map(|it| it.as_str());
    let as_ruled = words.map(|word| decided_as(decision::TREATMENT, &json!({ "exact": word })));
    let policies = [(rule_name(rule), policy(any(as_ruled.collect())))];
    (filter::RULE.to_owned(), allowing(object(policies)))
}

/// What may be done on a rule's route, as settings of the filters.
pub(super) fn of_requests(rule: &Rule) -> Vec<(String, Value)> {
    let (name, requests) = (rule_name(rule), &rule.requests);
    let denials = requests.deny.iter().enumerate().map(|(at, deny)| {
        (
            format!("{name}.deny{at}"),
            policy(covers(deny, Values::Any)),
        )
    });
    let denials: Vec<_> = denials.collect();
    // Whatever the DENY says, said again the other way round.
    let backstop = || requests.deny.iter().map(|it| not(covers(it, Values::Any)));
    let mut allowed: Vec<_> = requests
        .allow
        .iter()
        .enumerate()
        .map(|(at, allow)| {
            let all_of = backstop().chain([covers(allow, Values::All)]);
            (format!("{name}.allow{at}"), policy(all(all_of.collect())))
        })
        .collect();
    if allowed.is_empty() {
        allowed.push((name, policy(all(backstop().collect()))));
    }
    let mut settings = vec![(filter::RULE.to_owned(), allowing(object(allowed)))];
    if !denials.is_empty() {
        let denials = denying_on_route(object(denials));
        settings.push((filter::RULE_DENY.to_owned(), denials));
    }
    settings
}

/// Lets nothing through, whatever the virtual host says.
pub(super) fn of_nothing() -> (String, Value) {
    (filter::RULE.to_owned(), allowing(json!({})))
}

fn allowing(policies: Value) -> Value {
    typed(PER_ROUTE, json!({ "rbac": rules("ALLOW", policies) }))
}

/// Envoy joins a field's values with commas before it looks at them, so which of several is accepted cannot be said as
/// exactly as the journey says it. It is said more strictly on both sides.
#[derive(Clone, Copy)]
enum Values {
    /// For what is denied: the value may stand among others.
    Any,
    /// For what is allowed: one value, and nothing beside it.
    All,
}

fn covers(rule: &RequestRule, values: Values) -> Value {
    let mut parts = Vec::new();
    if !rule.methods.is_empty() {
        let method = |name: &str| json!({ "header": { "name": ":method", "string_match": { "exact": name } } });
        parts.push(any(rule
            .methods
            .iter()
            .map(|it| method(it.as_str()))
            .collect()));
    }
    if !rule.paths.is_empty() {
        let paths: Vec<_> = rule.paths.iter().map(regex::path).collect();
        parts.push(at_path(&paths.join("|")));
    }
    for (name, accepted) in &rule.headers {
        parts.push(has_field(name.as_str(), accepted, values));
    }
    all(parts)
}

fn has_field(name: &str, accepted: &[String], values: Values) -> Value {
    if accepted.is_empty() {
        return json!({ "header": { "name": name, "present_match": true } });
    }
    let matcher = |text: &String| match values {
        Values::All => json!({ "exact": text }),
        Values::Any => {
            json!({ "safe_regex": { "regex": format!("(?s:(?:.*,)?\\s*{}\\s*(?:,.*)?)", regex::literal(text)) } })
        }
    };
    any(accepted
        .iter()
        .map(|text| json!({ "header": { "name": name, "string_match": matcher(text) } }))
        .collect())
}

/// Envoy takes the query off before it compares.
fn at_path(expression: &str) -> Value {
    json!({ "url_path": { "path": { "safe_regex": { "regex": expression } } } })
}

fn rule_name(rule: &Rule) -> String {
    safe_name(rule.id.as_str())
}

/// A rule's id as a policy's name: it shows in the response code's details, between brackets.
pub(super) fn safe_name(id: &str) -> String {
    id.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') {
                c
            } else {
                '_'
            }
        })
        .collect()
}
