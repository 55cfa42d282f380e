//! Decides who may operate the gateway over the network. Nobody is anonymous and no two share a secret; a right that
//! its holder could never use is refused, because somebody counts on it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{
    check_optional_path, check_path,
    control::follows,
    issuer::check_discovery,
    limit::{check_at_least_one, check_rate},
    name::{Names, check_claim, check_tenant, check_token_text},
    report::Report,
    url::check_url,
};
use crate::{
    ClaimScopes, OperatorConfig, OperatorOidc, OperatorToken, Quotas, RevocationWebhook, Scope,
    WebhookKey,
    file::{
        FileClaimScopes, FileConfig, FileOidc, FileOperator, FileOperatorToken, FileQuotas,
        FileScope, FileWebhook, OneOrMany,
    },
    node::KeyPath,
    url::Clear,
};

pub(super) fn check_operator(
    file: &FileConfig,
    folder: &Path,
    report: &mut Report<'_>,
) -> OperatorConfig {
    check_door(report);
    let Some(operator) = &file.operator else {
        return OperatorConfig::default();
    };
    let base = KeyPath::of("operator");
    OperatorConfig {
        tokens: check_tokens(operator, &base.key("tokens"), folder, report),
        oidc: check_providers(&operator.oidc, &base.key("oidc"), folder, report),
        webhooks: check_webhooks(operator, &base.key("webhooks"), folder, report),
        quotas: check_quotas(operator.quotas.as_ref(), &base.key("quotas"), report),
    }
}

/// Who is named needs a door, and a door somebody who may come in. Judged by the file as written.
fn check_door(report: &mut Report<'_>) {
    let root = report.root();
    let listener = root
        .entry("listen")
        .and_then(|it| it.value.entry("operator"));
    let base = KeyPath::of("operator");
    let named = root.entry("operator").and_then(|entry| {
        let keys = ["tokens", "oidc", "webhooks"];
        keys.into_iter()
            .find(|key| entry.value.entry(key).is_some())
    });
    match (listener, named) {
        (None, Some(key)) => report.error_at_key(
            "operator_without_listener",
            &base.key(key),
            "there is no listener on which they could come in".to_owned(),
            "add `listen: { operator: { address: 127.0.0.1:9443, certificate: tls.crt, key: tls.key } }`; the socket in \
             the state directory needs none of this",
        ),
        (Some(_), None) => report.warn(
            "nobody_may_operate",
            &KeyPath::of("listen").key("operator"),
            "nobody may do anything there but read the public keys".to_owned(),
            "add `operator: { tokens: […] }` or `operator: { oidc: […] }`",
        ),
        _ => {}
    }
}

fn check_tokens(
    operator: &FileOperator,
    base: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Vec<OperatorToken> {
    let mut names = Names::default();
    let mut files = HashMap::new();
    let mut tokens = Vec::new();
    for (path, written) in report.places(base, &operator.tokens) {
        names.take(&written.name, &path.key("name"), report);
        let at = path.key("file");
        let file = check_path(&written.file, &at, folder, report);
        if let Some(first) = file
            .clone()
            .and_then(|file| files.insert(file, report.line(&at)))
        {
            report.error(
                "shared_secret",
                &at,
                format!("the operator of line {first} has the same secret"),
                "give each its own file: no record could tell the two apart",
            );
        }
        let Some(file) = file else { continue };
        tokens.push(check_token(written, file, &path, report));
    }
    tokens
}

fn check_token(
    written: &FileOperatorToken,
    file: PathBuf,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> OperatorToken {
    let at = path.key("scopes");
    let scopes = check_scopes(&written.scopes, &at, report);
    let tenant = check_tenant(written.tenant.as_ref(), &path.key("tenant"), report);
    let beyond = scopes
        .iter()
        .find(|it| matches!(it, Scope::Policy | Scope::AuditRead));
    if let (Some(_), Some(scope)) = (&tenant, beyond) {
        report.error(
            "scope_beyond_tenant",
            &at,
            format!(
                "`{}` is about all tenants, and this operator is confined to one",
                scope.as_str()
            ),
            "take the scope out, or `tenant`",
        );
    }
    OperatorToken {
        name: written.name.0.clone(),
        file,
        scopes,
        tenant,
    }
}

fn check_scopes(
    written: &OneOrMany<FileScope>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Vec<Scope> {
    report.refuse_empty(&written.0, path);
    let mut scopes = Vec::new();
    for (path, written) in report.places(path, &written.0) {
        let scope = match written {
            FileScope::SessionCreate => Scope::SessionCreate,
            FileScope::SessionRead => Scope::SessionRead,
            FileScope::Revoke => Scope::Revoke,
            FileScope::Policy => Scope::Policy,
            FileScope::AuditRead => Scope::AuditRead,
        };
        if scope == Scope::SessionCreate && follows(report) {
            report.warn(
                "no_effect",
                &path,
                "a gateway that follows a control plane creates no sessions".to_owned(),
                "take the scope out: sessions are created at the control plane",
            );
        }
        if scopes.contains(&scope) {
            report.duplicate(&path, scope.as_str());
        } else {
            scopes.push(scope);
        }
    }
    scopes
}

fn check_providers(
    written: &[FileOidc],
    base: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Vec<OperatorOidc> {
    let mut lines = HashMap::new();
    let mut providers = Vec::new();
    for (path, written) in report.places(base, written) {
        let at = path.key("issuer");
        let line = report.line(&at);
        if let Some(first) = lines.insert(written.issuer.0.as_str(), line) {
            report.error(
                "duplicate_issuer",
                &at,
                format!("the issuer of line {first} is the same"),
                "merge the two",
            );
        }
        providers.extend(check_provider(written, &path, folder, report));
    }
    providers
}

fn check_provider(
    written: &FileOidc,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<OperatorOidc> {
    let at = path.key("issuer");
    let issuer = check_url(&written.issuer.0, Clear::Never, &at, report).map(|_| &written.issuer.0);
    if let (Some(issuer), None) = (issuer, &written.jwks) {
        check_discovery(issuer, &at, report);
    }
    let at = path.key("audience");
    let audience = check_token_text("invalid_audience", &written.audience, &at, report);
    let jwks = written
        .jwks
        .as_ref()
        .map(|url| check_url(&url.0, Clear::Never, &path.key("jwks"), report));
    let ca = check_optional_path(written.ca.as_ref(), &path.key("ca"), folder, report);
    let name_claim = check_claim(written.name_claim.as_ref(), &path.key("name_claim"), report);
    let scopes = check_claim_scopes(&written.scopes, &path.key("scopes"), report);
    let at = path.key("tenant_claim");
    let tenant_claim = written
        .tenant_claim
        .as_ref()
        .map(|claim| check_claim(Some(claim), &at, report));
    Some(OperatorOidc {
        issuer: issuer?.clone(),
        audience: audience?,
        jwks: jwks.flatten(),
        ca,
        name_claim,
        scopes,
        tenant_claim,
    })
}

fn check_claim_scopes(
    written: &FileClaimScopes,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> ClaimScopes {
    let at = path.key("map");
    if written.map.is_empty() && !report.touched(&at) {
        report.error(
            "empty_list",
            &at,
            "no value of the claim may do anything".to_owned(),
            "add a value of the claim and its scopes, as in `secops: [revoke]`",
        );
    }
    let scopes = written
        .map
        .iter()
        .map(|(value, scopes)| (value.clone(), check_scopes(scopes, &at.key(value), report)));
    let map = scopes.collect();
    ClaimScopes {
        claim: check_claim(Some(&written.claim), &path.key("claim"), report),
        map,
    }
}

fn check_webhooks(
    operator: &FileOperator,
    base: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Vec<RevocationWebhook> {
    let mut names = Names::default();
    let mut files = HashMap::new();
    let mut webhooks = Vec::new();
    for (path, written) in report.places(base, &operator.webhooks) {
        names.take(&written.name, &path.key("name"), report);
        let tenant = check_tenant(written.tenant.as_ref(), &path.key("tenant"), report);
        if let Some(key) = check_webhook_key(written, &path, folder, report) {
            let (WebhookKey::Hmac(file) | WebhookKey::Ed25519(file)) = &key;
            if let Some(first) = files.insert(file.clone(), report.line(&path)) {
                report.error(
                    "shared_secret",
                    &path,
                    format!("the webhook of line {first} has the same key"),
                    "give each its own: a signature does not cover the name, so one could act as the other",
                );
            }
            let name = written.name.0.clone();
            webhooks.push(RevocationWebhook { name, key, tenant });
        }
    }
    webhooks
}

fn check_webhook_key(
    written: &FileWebhook,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<WebhookKey> {
    match (&written.secret_file, &written.public_key_file) {
        (Some(file), None) => {
            check_path(file, &path.key("secret_file"), folder, report).map(WebhookKey::Hmac)
        }
        (None, Some(file)) => {
            check_path(file, &path.key("public_key_file"), folder, report).map(WebhookKey::Ed25519)
        }
        (None, None) if report.touched(path) => None,
        _ => {
            report.error(
                "one_signature",
                path,
                "a webhook's calls are signed in exactly one way".to_owned(),
                "write one of `secret_file` (HMAC-SHA-256) and `public_key_file` (Ed25519)",
            );
            None
        }
    }
}

fn check_quotas(written: Option<&FileQuotas>, path: &KeyPath, report: &mut Report<'_>) -> Quotas {
    let defaults = Quotas::default();
    let Some(written) = written else {
        return defaults;
    };
    let mut count = |number: Option<u32>, key: &str| {
        number.and_then(|number| check_at_least_one(number, &path.key(key), report))
    };
    Quotas {
        sessions: count(written.sessions, "sessions").unwrap_or(defaults.sessions),
        sessions_per_tenant: count(written.sessions_per_tenant, "sessions_per_tenant"),
        creations: check_rate(written.creations.as_ref(), &path.key("creations"), report),
    }
}
