//! Which secret a rule attaches, and how Envoy attaches it.

use std::collections::BTreeMap;

use outgate_journey::policy::{CredentialName, InjectionForm, Policy, Rule};
use serde_json::{Value, json};

use super::{
    filters::injection_matcher,
    json::{extension, from_ads, short_hash, typed},
};

/// How long a configuration waits for a secret that does not come. Without it requests are refused, one by one.
const SECRET_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// The secret's name on SDS whose value is the whole field that a rule attaches: `injections/<credential>-<8 hex>`, one
/// for each form. `None` for a query parameter: Envoy's injector writes header fields only.
#[must_use]
pub fn injection_key(credential: &CredentialName, form: &InjectionForm) -> Option<String> {
    let (name, before, after) = match form {
        InjectionForm::Header {
            name,
            prefix,
            suffix,
        } => (name.as_str(), prefix.as_str(), suffix.as_str()),
        // No header has an upper-case name, so no form is taken for another.
        InjectionForm::Basic { username } => ("Basic", username.as_str(), ""),
        InjectionForm::Query { .. } => return None,
    };
    let text = format!("{name}\0{before}\0{after}");
    Some(format!(
        "injections/{credential}-{}",
        short_hash(text.as_bytes(), 4)
    ))
}

/// The choices of a rule's route: attach what the rule says, attach nothing, and no third.
pub(super) fn choices(rule: &Rule) -> Option<Value> {
    let (key, injector) = injector(rule)?;
    Some(typed(
        "envoy.extensions.common.matching.v3.ExtensionWithMatcherPerRoute",
        json!({ "xds_matcher": injection_matcher([(key, injector)]) }),
    ))
}

/// Every injector of a policy, once, by its secret's name.
pub(super) fn injectors(policy: &Policy) -> BTreeMap<String, Value> {
    policy.rules().filter_map(|rule| injector(rule)).collect()
}

fn injector(rule: &Rule) -> Option<(String, Value)> {
    let injection = rule.injection.as_ref()?;
    let key = injection_key(&injection.credential, &injection.form)?;
    let field = match &injection.form {
        InjectionForm::Header { name, .. } => name.as_str(),
        InjectionForm::Basic { .. } => "authorization",
        InjectionForm::Query { .. } => return None,
    };
    let secret = extension(
        "secret",
        "envoy.extensions.http.injected_credentials.generic.v3.Generic",
        json!({
            "credential": { "name": key, "sds_config": from_ads(SECRET_WAIT) },
            "header": field,
        }),
    );
    let injector = extension(
        "credential",
        "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
        json!({ "overwrite": true, "allow_request_without_credential": false, "credential": secret }),
    );
    Some((key, injector))
}
