//! The trusted issuers of the file, as the verifier of their tokens takes them.

use outgate_config::{Algorithm, Config, IssuerKeys, IssuerPolicy, TrustedIssuer};
use outgate_issuer as issuer;

/// All of them.
pub(super) fn issuer_configs(config: &Config) -> Vec<issuer::IssuerConfig> {
    config.sessions.issuers.iter().map(issuer_config).collect()
}

fn issuer_config(trusted: &TrustedIssuer) -> issuer::IssuerConfig {
    issuer::IssuerConfig {
        issuer: trusted.issuer.clone(),
        audiences: trusted.audiences.clone(),
        keys: keys(&trusted.keys),
        algorithms: trusted.algorithms.iter().map(|it| algorithm(*it)).collect(),
        session_claim: trusted.session_claim.clone(),
        max_age: Some(trusted.max_age),
        ca: trusted.ca.clone(),
        introspection: trusted
            .introspection
            .as_ref()
            .map(|it| issuer::IntrospectionConfig {
                url: it.url.as_str().to_owned(),
                client_id: it.client_id.clone(),
                client_secret: it.client_secret.clone(),
                cache_for: it.cache,
                ca: it.ca.clone(),
            }),
        policy: policy(&trusted.policy),
    }
}

/// Where an issuer's keys are.
pub(super) fn keys(keys: &IssuerKeys) -> issuer::KeySource {
    match keys {
        IssuerKeys::Discovery => issuer::KeySource::Discovery,
        IssuerKeys::Url(url) => issuer::KeySource::JwksUrl(url.as_str().to_owned()),
        IssuerKeys::File(path) => issuer::KeySource::JwksFile(path.clone()),
    }
}

fn policy(policy: &IssuerPolicy) -> issuer::SessionPolicy {
    match policy {
        IssuerPolicy::Unconfined => issuer::SessionPolicy::Unconfined,
        IssuerPolicy::One(name) => issuer::SessionPolicy::One(name.clone()),
        IssuerPolicy::ByClaim { claims, map } => issuer::SessionPolicy::ByClaim {
            claims: claims.clone(),
            map: map.clone(),
        },
    }
}

const fn algorithm(algorithm: Algorithm) -> issuer::Algorithm {
    match algorithm {
        Algorithm::Rs256 => issuer::Algorithm::Rs256,
        Algorithm::Rs384 => issuer::Algorithm::Rs384,
        Algorithm::Rs512 => issuer::Algorithm::Rs512,
        Algorithm::Ps256 => issuer::Algorithm::Ps256,
        Algorithm::Ps384 => issuer::Algorithm::Ps384,
        Algorithm::Ps512 => issuer::Algorithm::Ps512,
        Algorithm::Es256 => issuer::Algorithm::Es256,
        Algorithm::Es384 => issuer::Algorithm::Es384,
        Algorithm::EdDsa => issuer::Algorithm::EdDsa,
    }
}
