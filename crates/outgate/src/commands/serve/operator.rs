//! What the operator's interface needs of the gateway, and the file's `operator` section as it takes it.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;
use outgate_audit::{AuditLog, Follow, FollowError, VerifyOptions};
use outgate_config::{Config, OperatorListen, OperatorOidc, RevocationWebhook, Scope, WebhookKey};
use outgate_control::operator as control;
use outgate_issuer::{IssuerConfig, KeySource, OperatorTokens};
use outgate_journey::{
    inject::AuditGate,
    policy::CredentialSource,
    record::{AuditEvent, AuditSink},
    session::PolicyName,
};
use outgate_native::{gateway::ISSUER, state::StatePaths};
use outgate_plane::clock;
use serde_json::json;

use super::{core::Core, planes::Planes, ready::waits_for, tls::server_config};

/// How long an operator's answer waits for its record.
const RECORD_WITHIN: Duration = Duration::from_secs(5);

/// The audit trail's folder.
pub(super) fn audit_folder(config: &Config, state: &StatePaths) -> PathBuf {
    config.audit_dir.clone().unwrap_or_else(|| state.audit())
}

/// The HTTPS door.
pub(super) fn tls_door(listen: &OperatorListen) -> Result<control::TlsDoor> {
    let listener = TcpListener::bind(listen.address)
        .with_context(|| format!("listen.operator {}", listen.address))?;
    listener.set_nonblocking(true)?;
    Ok(control::TlsDoor {
        listener,
        config: server_config(&listen.tls)?,
    })
}

/// Who may operate, by the file. Reads no secret.
pub(super) fn settings(config: &Config) -> Result<control::OperatorSettings> {
    let operator = &config.operator;
    let tokens = operator.tokens.iter().map(|token| control::TokenSettings {
        name: token.name.clone(),
        file: token.file.clone(),
        scopes: token.scopes.iter().map(|it| scope(*it)).collect(),
        tenant: token.tenant.clone(),
    });
    let oidc: Result<Vec<_>> = operator.oidc.iter().map(oidc_settings).collect();
    let door = config.listen.operator.as_ref();
    Ok(control::OperatorSettings {
        tokens: tokens.collect(),
        oidc: oidc?,
        webhooks: operator.webhooks.iter().map(webhook_settings).collect(),
        creations: operator.quotas.creations,
        public_url: door.map(|door| format!("https://{}", door.address)),
        issuer: ISSUER.to_owned(),
    })
}

const fn scope(scope: Scope) -> control::Scope {
    match scope {
        Scope::SessionCreate => control::Scope::SessionCreate,
        Scope::SessionRead => control::Scope::SessionRead,
        Scope::Revoke => control::Scope::Revoke,
        Scope::Policy => control::Scope::Policy,
        Scope::AuditRead => control::Scope::AuditRead,
    }
}

fn oidc_settings(oidc: &OperatorOidc) -> Result<control::OidcSettings> {
    let mut config = IssuerConfig::new(&oidc.issuer, &oidc.audience);
    config.ca.clone_from(&oidc.ca);
    if let Some(jwks) = &oidc.jwks {
        config.keys = KeySource::JwksUrl(jwks.as_str().to_owned());
    }
    let tokens = OperatorTokens::new(vec![config], clock::machine())?;
    let mapped = oidc.scopes.map.iter();
    Ok(control::OidcSettings {
        name: oidc.issuer.clone(),
        verifier: Arc::new(Verifier(tokens)),
        name_claim: oidc.name_claim.clone(),
        scopes_claim: oidc.scopes.claim.clone(),
        scopes: mapped
            .map(|(value, scopes)| {
                let scopes = scopes.iter().map(|it| scope(*it)).collect();
                (value.clone(), scopes)
            })
            .collect(),
        tenant_claim: oidc.tenant_claim.clone(),
    })
}

fn webhook_settings(webhook: &RevocationWebhook) -> control::WebhookSettings {
    control::WebhookSettings {
        name: webhook.name.clone(),
        key: match &webhook.key {
            WebhookKey::Hmac(path) => control::WebhookKeyFile::Secret(path.clone()),
            WebhookKey::Ed25519(path) => control::WebhookKeyFile::Public(path.clone()),
        },
        tenant: webhook.tenant.clone(),
    }
}

/// An identity provider's tokens.
struct Verifier(OperatorTokens);

impl control::ClaimsVerifier for Verifier {
    fn verify_claims<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<serde_json::Value, String>> {
        Box::pin(async move {
            let now = clock::unix_now();
            self.0.prepare(token, now).await;
            let verified = self.0.verify_claims(token, now);
            let verified = verified.map_err(|fault| fault.to_string())?;
            Ok(serde_json::Value::Object(verified.claims.clone()))
        })
    }
}

/// The audit trail, as operators' actions are written to it.
pub(super) struct Trail(pub(super) AuditLog);

impl control::AuditTrail for Trail {
    fn is_writable(&self) -> bool {
        self.0.is_writable()
    }

    fn commit(&self, event: AuditEvent) -> BoxFuture<'_, Result<(), control::AuditUnavailable>> {
        let committed = self.0.commit(event, RECORD_WITHIN);
        Box::pin(async move {
            committed.await.map_err(|error| {
                tracing::error!(%error, "an operator's action is not recorded yet");
                control::AuditUnavailable
            })
        })
    }

    fn note(&self, event: AuditEvent) {
        self.0.record(event);
    }
}

/// The audit trail, as operators read it.
pub(super) struct Reader(pub(super) PathBuf);

impl control::AuditReader for Reader {
    fn verify(&self) -> Result<serde_json::Value, String> {
        let report = outgate_audit::verify(&self.0, &VerifyOptions::default(), |_| {});
        Ok(crate::commands::audit::report_as_json(&report))
    }

    fn records(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, String)>, String> {
        let found = match Follow::from(&self.0, after) {
            // Earlier files were moved away: what is left is read from its beginning.
            Err(FollowError::Missing { oldest, .. }) => {
                Follow::from(&self.0, oldest.checked_sub(1))
            }
            other => other,
        };
        let mut records = Vec::new();
        let mut follow = match found {
            // Nothing is behind the end yet.
            Err(FollowError::Ahead { .. }) => return Ok(records),
            other => other.map_err(|error| error.to_string())?,
        };
        while records.len() < limit {
            match follow.next().map_err(|error| error.to_string())? {
                Some(found) => {
                    let line = String::from_utf8_lossy(&found.line).into_owned();
                    records.push((found.seq, line));
                }
                None => break,
            }
        }
        Ok(records)
    }
}

/// The gateway, as its operators see it.
pub(super) struct Host(pub(super) Arc<Core>);

impl control::GatewayHost for Host {
    fn about(&self) -> control::About {
        let (core, config) = (&self.0, self.0.gateway.config());
        let has_ca = core.gateway.has_ca();
        let variables = config
            .credentials
            .values()
            .filter_map(|source| match source {
                CredentialSource::Env(name) => Some(name.clone()),
                CredentialSource::File(_) | CredentialSource::Sds(_) => None,
            });
        control::About {
            proxy: proxies(core, &config),
            ca: has_ca.then(|| core.state.ca_certificate()),
            bundle: has_ca.then(|| core.state.bundle()),
            token_variables: variables.collect(),
            data_planes: core.planes.get().map(data_planes).unwrap_or_default(),
        }
    }

    fn policy_text(&self) -> Result<String, String> {
        let text = json!({
            "document": self.0.gateway.config().shared_document(),
            "file": read_lossy(&self.0.config_file),
        });
        Ok(text.to_string())
    }

    fn has_policy(&self, name: &PolicyName) -> bool {
        self.0.gateway.config().policies.contains_key(name)
    }

    fn reload(&self) -> Result<(), String> {
        self.0.reload().map_err(|error| format!("{error:#}"))
    }

    fn ttl(&self) -> Duration {
        self.0.gateway.config().sessions.ttl
    }

    fn issues_sessions(&self) -> bool {
        self.0.gateway.config().control.is_none()
    }

    fn waits_for(&self) -> Vec<control::WaitsFor> {
        waits_for(&self.0)
    }
}

/// Where guests connect: to this process, and to the Envoys that it configures.
fn proxies(core: &Core, config: &Config) -> Vec<SocketAddr> {
    let envoys = config.envoy.iter().flat_map(|envoy| &envoy.proxy);
    core.gateway.proxy().iter().chain(envoys).copied().collect()
}

fn data_planes(planes: &Arc<Planes>) -> Vec<control::DataPlane> {
    let nodes = planes.nodes().into_iter();
    nodes
        .map(|node| control::DataPlane {
            client: node.client,
            node: node.node,
            streams: node.streams,
            accepted_unix_ms: node.accepted_unix_ms,
            refused: node.refused,
        })
        .collect()
}

fn read_lossy(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
