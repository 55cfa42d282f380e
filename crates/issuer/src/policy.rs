//! Decides which policy an identity is confined to. Who has none where each has one is nobody: the token is refused.

use std::collections::BTreeMap;

use outgate_journey::session::PolicyName;
use serde_json::{Map, Value};

use crate::claim::claim;

/// What an issuer's sessions are confined to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SessionPolicy {
    /// Nothing less than the gateway lets out.
    #[default]
    Unconfined,
    /// The same policy for all of them.
    One(PolicyName),
    /// A policy for each key.
    ByClaim {
        /// The ways to the claims that make the key, with `/` between their values; see [`crate::claim()`].
        claims: Vec<String>,
        /// What each key is confined to.
        map: BTreeMap<String, PolicyName>,
    },
}

/// What one identity is confined to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Confined {
    pub(crate) policy: Option<PolicyName>,
    /// What it was chosen by. Two keys are two sessions, whatever else their tokens share.
    pub(crate) key: Option<String>,
}

impl SessionPolicy {
    pub(crate) fn judge(&self, claims: &Map<String, Value>) -> Result<Confined, &'static str> {
        let (ways, map) = match self {
            Self::Unconfined => return Ok(Confined::without_key(None)),
            Self::One(policy) => return Ok(Confined::without_key(Some(policy.clone()))),
            Self::ByClaim { claims, map } => (claims, map),
        };
        let key = key(ways, claims).ok_or("a claim that its policy is chosen by is missing")?;
        let policy = map.get(&key).ok_or("no policy is for what it claims")?;
        Ok(Confined {
            policy: Some(policy.clone()),
            key: Some(key),
        })
    }
}

impl Confined {
    const fn without_key(policy: Option<PolicyName>) -> Self {
        Self { policy, key: None }
    }
}

/// The values with `/` between them. Of several none has one in it: `a/b` and `c` would be `a` and `b/c`.
fn key(ways: &[String], claims: &Map<String, Value>) -> Option<String> {
    let values: Option<Vec<&str>> = ways
        .iter()
        .map(|way| claim(claims, way)?.as_str().filter(|it| !it.is_empty()))
        .collect();
    let values = values.filter(|it| !it.is_empty())?;
    let is_one = values.len() == 1;
    values
        .iter()
        .all(|value| is_one || !value.contains('/'))
        .then(|| values.join("/"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(name: &str) -> PolicyName {
        PolicyName::parse(name).unwrap()
    }

    fn by(ways: &[&str]) -> SessionPolicy {
        let entries = [
            ("team-a/agent", "a"),
            ("team-b/agent", "b"),
            ("agent", "one"),
            ("a/b/c", "deep"),
        ];
        SessionPolicy::ByClaim {
            claims: ways.iter().map(ToString::to_string).collect(),
            map: entries
                .map(|(key, name)| (key.to_owned(), policy(name)))
                .into(),
        }
    }

    fn pod(namespace: &Value, account: &Value) -> Map<String, Value> {
        let claims = json!({ "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": account } } });
        claims.as_object().unwrap().clone()
    }

    #[test]
    fn an_identity_has_the_policy_of_all_its_claims_and_no_other() {
        let both = by(&[
            "kubernetes.io.namespace",
            "kubernetes.io.serviceaccount.name",
        ]);
        let given = |namespace: Value, account: Value| {
            let confined = both.judge(&pod(&namespace, &account)).ok()?;
            Some((confined.key.unwrap(), confined.policy.unwrap()))
        };
        for (name, expected) in [("team-a", "a"), ("team-b", "b")] {
            let found = given(json!(name), json!("agent"));
            assert_eq!(found, Some((format!("{name}/agent"), policy(expected))));
        }
        for (namespace, account) in [
            (json!("team-c"), json!("agent")),
            (json!("team-a"), json!("other")),
            (json!("team-a"), json!("Agent")),
            (json!("team-a"), json!("")),
            (json!(""), json!("team-a/agent")),
            (json!("team-a/agent"), json!("")),
            // Neither one of the two says more than itself.
            (json!("a/b"), json!("c")),
            (json!("a"), json!("b/c")),
            (json!(["team-a"]), json!("agent")),
            (json!("team-a"), json!(null)),
            (json!("team-a"), json!(true)),
        ] {
            assert_eq!(
                given(namespace.clone(), account.clone()),
                None,
                "{namespace} {account}"
            );
        }
        assert!(both.judge(&Map::new()).is_err());
    }

    #[test]
    fn one_claim_may_have_a_slash_in_it() {
        let claims = pod(&json!("a/b/c"), &json!("agent"));
        let one = by(&["kubernetes.io.namespace"]).judge(&claims).unwrap();
        assert_eq!(one.policy, Some(policy("deep")));
        let other = by(&["kubernetes.io.serviceaccount.name"]);
        assert_eq!(other.judge(&claims).unwrap().policy, Some(policy("one")));
    }

    #[test]
    fn no_claim_is_nobodys_key() {
        let nobody = SessionPolicy::ByClaim {
            claims: Vec::new(),
            map: [(String::new(), policy("a"))].into(),
        };
        assert!(nobody.judge(&Map::new()).is_err());
    }
}
