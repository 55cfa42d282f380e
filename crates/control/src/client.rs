//! The command line's side of the operator's interface: over the gateway's Unix socket, or over TLS with a token from a
//! file. Every call opens a connection of its own, so that a kill waits behind no other.

mod error;
mod transport;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use outgate_journey::limit_text::LimitsText;
use serde::{Serialize, de::DeserializeOwned};

pub use self::error::ClientError;
use crate::operator::{
    About, AuditRecords, CreateSession, CreatedSession, DenyBody, DenyList, DenyRequest,
    DenyTargetBody, Health, KillAll, KillSession, KillState, PolicyText, Problem, Quotas,
    Readiness, RenewSession, RotatedKey, SessionBody, SessionList, SessionRequests, SetQuota,
    TenantQuotaBody,
};

/// Where a gateway's operators call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// The Unix socket in its state folder.
    Socket(PathBuf),
    /// `https://host[:port]`.
    Https {
        /// Without a path.
        url: String,
        /// Holds the operator's token; readable by nobody else.
        bearer_file: PathBuf,
        /// The CA's certificates, in PEM; `None`: those of the system.
        ca_file: Option<PathBuf>,
    },
}

const TIMEOUT: Duration = Duration::from_secs(10);
/// The audit trail may be large.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(3600);

/// A caller.
#[derive(Debug, Clone)]
pub struct OperatorClient {
    endpoint: Endpoint,
}

impl OperatorClient {
    /// A caller of the socket at this path.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self::at(Endpoint::Socket(socket.to_owned()))
    }

    /// A caller of this endpoint.
    #[must_use]
    pub const fn at(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    /// Creates a session.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create(&self, wanted: &CreateSession) -> Result<CreatedSession, ClientError> {
        self.exchange(Method::POST, "/v1/sessions", Some(wanted))
            .await
    }

    /// Gives a session a fresh token.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn renew(
        &self,
        id: &str,
        ttl_seconds: Option<u64>,
    ) -> Result<CreatedSession, ClientError> {
        let path = format!("/v1/sessions/{}/renew", segment(id));
        self.exchange(Method::POST, &path, Some(&RenewSession { ttl_seconds }))
            .await
    }

    /// Lists the sessions.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(&self) -> Result<SessionList, ClientError> {
        self.get("/v1/sessions").await
    }

    /// Shows a session.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn show(&self, id: &str) -> Result<SessionBody, ClientError> {
        self.get(&format!("/v1/sessions/{}", segment(id))).await
    }

    /// Shows what a session asked for, behind `after`; on the Unix socket with bodies, where they are kept.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn requests(
        &self,
        id: &str,
        after: Option<u64>,
        bodies: bool,
    ) -> Result<SessionRequests, ClientError> {
        let after = after.map_or_else(String::new, |after| format!("&after={after}"));
        let path = format!(
            "/v1/sessions/{}/requests?bodies={bodies}{after}",
            segment(id)
        );
        self.get(&path).await
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn end(&self, id: &str) -> Result<(), ClientError> {
        self.order(
            Method::DELETE,
            &format!("/v1/sessions/{}", segment(id)),
            NOTHING,
        )
        .await
    }

    /// Ends a session as a revocation.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn kill(&self, id: &str, reason: Option<&str>) -> Result<(), ClientError> {
        let reason = reason.map(str::to_owned);
        let path = format!("/v1/sessions/{}/kill", segment(id));
        self.order(Method::POST, &path, Some(&KillSession { reason }))
            .await
    }

    /// Sets a session's limits.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn set_limits(
        &self,
        id: &str,
        limits: &LimitsText,
    ) -> Result<SessionBody, ClientError> {
        let path = format!("/v1/sessions/{}/limits", segment(id));
        self.exchange(Method::PUT, &path, Some(limits)).await
    }

    /// Lists what is denied.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn denylist(&self) -> Result<DenyList, ClientError> {
        self.get("/v1/denylist").await
    }

    /// Denies a session, a token or a subject.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn deny(&self, wanted: &DenyRequest) -> Result<DenyBody, ClientError> {
        self.exchange(Method::POST, "/v1/denylist", Some(wanted))
            .await
    }

    /// Takes an entry off the denylist.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn undeny(&self, target: &DenyTargetBody) -> Result<(), ClientError> {
        let parts = [
            ("session", &target.session),
            ("token", &target.token),
            ("issuer", &target.issuer),
            ("subject", &target.subject),
        ];
        let query: Vec<_> = parts
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", segment(value.as_deref()?))))
            .collect();
        let path = format!("/v1/denylist?{}", query.join("&"));
        self.order(Method::DELETE, &path, NOTHING).await
    }

    /// Says whether the kill switch is on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn kill_state(&self) -> Result<KillState, ClientError> {
        self.get("/v1/kill").await
    }

    /// Pulls the kill switch.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn kill_all(&self, reason: &str) -> Result<KillState, ClientError> {
        let reason = reason.to_owned();
        self.exchange(Method::POST, "/v1/kill", Some(&KillAll { reason }))
            .await
    }

    /// Lifts the kill switch.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn lift(&self) -> Result<KillState, ClientError> {
        self.exchange(Method::DELETE, "/v1/kill", NOTHING).await
    }

    /// Shows the quotas.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn quotas(&self) -> Result<Quotas, ClientError> {
        self.get("/v1/quotas").await
    }

    /// Sets a tenant's quota; `None`: back to the configured one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn set_quota(
        &self,
        tenant: &str,
        sessions: Option<u32>,
    ) -> Result<TenantQuotaBody, ClientError> {
        let path = format!("/v1/quotas/{}", segment(tenant));
        self.exchange(Method::PUT, &path, Some(&SetQuota { sessions }))
            .await
    }

    /// Rotates the signing key.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rotate_keys(&self) -> Result<RotatedKey, ClientError> {
        self.exchange(Method::POST, "/v1/keys/rotate", NOTHING)
            .await
    }

    /// The public keys, as a JWK set.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn jwks(&self) -> Result<serde_json::Value, ClientError> {
        self.get("/v1/jwks").await
    }

    /// What a workload needs to know.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn about(&self) -> Result<About, ClientError> {
        self.get("/v1/gateway").await
    }

    /// Whether the gateway answers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.get("/v1/health").await
    }

    /// Whether the gateway can be given work.
    ///
    /// # Errors
    /// [`ClientError::Refused`] says what it waits for; any other [`ClientError`].
    pub async fn ready(&self) -> Result<Readiness, ClientError> {
        self.get("/v1/ready").await
    }

    /// The configuration in force.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn policy(&self) -> Result<PolicyText, ClientError> {
        self.get("/v1/policy").await
    }

    /// Takes the configuration file over.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn reload(&self) -> Result<(), ClientError> {
        self.order(Method::POST, "/v1/policy/reload", NOTHING).await
    }

    /// Verifies the audit trail: the report.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn audit_verify(&self) -> Result<serde_json::Value, ClientError> {
        let call = self.call(Method::GET, "/v1/audit/verify", NOTHING, VERIFY_TIMEOUT);
        read(&call.await?)
    }

    /// Reads records of the audit trail.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn audit_records(
        &self,
        after: Option<u64>,
        limit: usize,
    ) -> Result<AuditRecords, ClientError> {
        let after = after.map(|seq| format!("after={seq}&")).unwrap_or_default();
        self.get(&format!("/v1/audit/records?{after}limit={limit}"))
            .await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.exchange(Method::GET, path, NOTHING).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        read(&self.call(method, path, body, TIMEOUT).await?)
    }

    async fn order(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(), ClientError> {
        self.call(method, path, body, TIMEOUT).await.map(drop)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        within: Duration,
    ) -> Result<Bytes, ClientError> {
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|error| ClientError::Broken(error.to_string()))?;
        let exchange = async {
            for wait in TRY_AGAIN {
                let tried = transport::exchange(&self.endpoint, method.clone(), path, body.clone());
                match tried.await {
                    Err(ClientError::Broken(_) | ClientError::Unreachable { .. })
                        if revokes(&method, path) =>
                    {
                        tokio::time::sleep(wait).await;
                    }
                    other => return other,
                }
            }
            transport::exchange(&self.endpoint, method.clone(), path, body.clone()).await
        };
        let seconds = within.as_secs();
        let (status, body): (StatusCode, Bytes) =
            tokio::time::timeout(within, exchange)
                .await
                .map_err(|_| ClientError::Broken(format!("none within {seconds} s")))??;
        if status.is_success() {
            return Ok(body);
        }
        let problem: Problem = read(&body).map_err(|_| ClientError::Broken(status.to_string()))?;
        Err(ClientError::Refused {
            code: problem.code,
            detail: problem.detail,
            status: status.as_u16(),
            in_effect: problem.in_effect,
            request_id: problem.request_id,
        })
    }
}

const NOTHING: Option<&()> = None;

/// A flooded door may have given the connection up: what revokes is asked again after these times. To revoke twice is to
/// revoke.
const TRY_AGAIN: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
];

fn revokes(method: &Method, path: &str) -> bool {
    match *method {
        Method::POST => path.ends_with("/kill") || path == "/v1/denylist",
        Method::DELETE => path.starts_with("/v1/sessions/"),
        _ => false,
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Broken(error.to_string()))
}

/// Percent-encodes all but unreserved characters (RFC 3986 section 2.3), so that no text leads to another route.
fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b':' | b'@') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_revokes_is_asked_again() {
        for (method, path, again) in [
            (Method::DELETE, "/v1/sessions/s_1", true),
            (Method::POST, "/v1/sessions/s_1/kill", true),
            (Method::POST, "/v1/kill", true),
            (Method::POST, "/v1/denylist", true),
            (Method::DELETE, "/v1/kill", false),
            (Method::DELETE, "/v1/denylist?session=s_1", false),
            (Method::POST, "/v1/sessions", false),
            (Method::POST, "/v1/sessions/s_1/renew", false),
        ] {
            assert_eq!(revokes(&method, path), again, "{method} {path}");
        }
    }

    #[test]
    fn an_id_cannot_lead_to_another_route() {
        assert_eq!(segment("s_1-a"), "s_1-a");
        assert_eq!(segment("../kill?x=1#é"), "..%2Fkill%3Fx%3D1%23%C3%A9");
    }
}
