//! The operator's door: HTTP/JSON on a Unix socket that only the gateway's own user can open. Two locks: the socket
//! file is 0600 in a 0700 folder, and every connection's peer must have the gateway's user id. Small on purpose:
//! sessions, the public keys, and what a workload needs to know.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use outgate_journey::session::{SessionId, UnixSeconds};
use outgate_session::{KeyRing, new_session_id};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};

use crate::sessions::{SessionView, Sessions};

/// The largest request body, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// How long a client may take to send a head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_LABELS: usize = 32;
const MAX_LABEL_LENGTH: usize = 256;

/// `POST /v1/sessions`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    /// Life of the token, in seconds; at most and by default the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// Free-form labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The answer: the one time that the token is shown.
#[derive(Serialize, Deserialize)]
pub struct CreatedSession {
    /// The session.
    pub id: String,
    /// Its token.
    pub token: String,
    /// When the token ends, seconds since 1970.
    pub expires: u64,
}

/// `GET /v1/sessions`.
#[derive(Debug, Serialize, Deserialize)]
pub struct SessionList {
    /// The newest first.
    pub sessions: Vec<SessionView>,
}

/// `GET /v1/gateway`: what a workload's environment is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct About {
    /// The sockets of the explicit proxy.
    pub proxy: Vec<std::net::SocketAddr>,
    /// The CA's certificate, where something is bumped.
    pub ca: Option<PathBuf>,
    /// The system's roots and the CA.
    pub bundle: Option<PathBuf>,
    /// The variables in which workloads look for their keys: where the gateway's own credentials come from.
    pub token_variables: Vec<String>,
}

/// An answer that is no success (RFC 9457).
#[derive(Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Stable.
    pub code: String,
    /// For people.
    pub detail: String,
}

/// What the door opens to.
pub struct Operator {
    /// The sessions.
    pub sessions: Arc<Sessions>,
    /// The signing keys.
    pub keys: Arc<KeyRing>,
    /// The longest life of a token; may change with the configuration.
    pub ttl: Box<dyn Fn() -> Duration + Send + Sync>,
    /// What workloads need to know.
    pub about: Box<dyn Fn() -> About + Send + Sync>,
    /// The clock.
    pub now: fn() -> UnixSeconds,
}

/// Binds the socket. A socket file that nobody listens on is replaced; the caller holds the state folder's lock.
///
/// # Errors
/// The path and why.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let explain =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(explain(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(explain)?;
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o600))
        .map_err(|e| explain(e.into()))?;
    Ok(listener)
}

/// Removes the socket file when the gateway ends.
pub struct SocketFile(pub PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Operator {
    /// Serves until the future is dropped.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(Arc::clone(&self).serve_connection(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "operator socket: accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn serve_connection(self: Arc<Self>, stream: UnixStream) {
        let own = rustix::process::geteuid().as_raw();
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == own => {}
            peer => {
                tracing::warn!(?peer, "operator socket: refused another user");
                return;
            }
        }
        let service = service_fn(move |request| {
            let operator = Arc::clone(&self);
            async move { Ok::<_, Infallible>(operator.answer(request).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "operator socket: connection ended");
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let segments: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
        let result = match (&parts.method, segments.as_slice()) {
            (&Method::POST, ["v1", "sessions"]) => self.create(body).await,
            (&Method::GET, ["v1", "sessions"]) => Ok(json(
                StatusCode::OK,
                &SessionList {
                    sessions: self.sessions.list((self.now)()),
                },
            )),
            (&Method::DELETE, ["v1", "sessions", id]) => self.end(id).await,
            (&Method::GET, ["v1", "gateway"]) => Ok(json(StatusCode::OK, &(self.about)())),
            (&Method::GET, ["v1", "jwks"]) => Ok(json(StatusCode::OK, &self.keys.jwks())),
            _ => Err(problem(StatusCode::NOT_FOUND, "not_found", "no such route")),
        };
        result.unwrap_or_else(|response| *response)
    }

    async fn create(self: &Arc<Self>, body: Incoming) -> Result<Response<Full<Bytes>>, Refused> {
        let body = read_body(body).await?;
        let wanted: CreateSession = if body.is_empty() {
            CreateSession::default()
        } else {
            serde_json::from_slice(&body).map_err(|error| {
                problem(StatusCode::BAD_REQUEST, "invalid_body", &error.to_string())
            })?
        };
        let ttl = self.check(&wanted)?;
        let operator = Arc::clone(self);
        let created = tokio::task::spawn_blocking(move || {
            let (id, now) = (new_session_id(), (operator.now)());
            let minted = operator
                .keys
                .mint(&id, ttl, now)
                .map_err(|error| error.to_string())?;
            let created = operator
                .sessions
                .create(&id, wanted.labels, minted.expires, now);
            created.map_err(|error| error.to_string())?;
            Ok::<_, String>(CreatedSession {
                id: id.as_str().to_owned(),
                token: minted.token.expose().to_owned(),
                expires: minted.expires.0,
            })
        });
        match flatten(created.await) {
            Ok(created) => Ok(json(StatusCode::CREATED, &created)),
            Err(detail) => Err(problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "not_stored",
                &detail,
            )),
        }
    }

    fn check(&self, wanted: &CreateSession) -> Result<Duration, Refused> {
        let bad = |detail: &str| Err(problem(StatusCode::BAD_REQUEST, "invalid_body", detail));
        let longest = (self.ttl)();
        let ttl = wanted.ttl_seconds.map_or(longest, Duration::from_secs);
        if ttl.is_zero() || ttl > longest {
            return bad(&format!(
                "ttl_seconds: 1 to {} (sessions.ttl)",
                longest.as_secs()
            ));
        }
        let too_long = |text: &String| text.len() > MAX_LABEL_LENGTH;
        if wanted.labels.len() > MAX_LABELS
            || wanted
                .labels
                .iter()
                .any(|(k, v)| too_long(k) || too_long(v))
        {
            return bad(&format!(
                "labels: at most {MAX_LABELS}, of at most {MAX_LABEL_LENGTH} bytes"
            ));
        }
        Ok(ttl)
    }

    async fn end(self: &Arc<Self>, id: &str) -> Result<Response<Full<Bytes>>, Refused> {
        let Some(id) = SessionId::parse(id).filter(|id| self.sessions.is_known(id)) else {
            return Err(problem(
                StatusCode::NOT_FOUND,
                "unknown_session",
                "no session of this gateway has this id",
            ));
        };
        let operator = Arc::clone(self);
        let ended = tokio::task::spawn_blocking(move || {
            operator
                .sessions
                .end(&id, (operator.now)())
                .map_err(|error| error.to_string())
        });
        match flatten(ended.await) {
            Ok(()) => Ok(Response::builder()
                .status(StatusCode::NO_CONTENT)
                .body(Full::default())
                .unwrap_or_default()),
            Err(detail) => {
                let detail = format!(
                    "the session is cut, but would be valid again after a restart: {detail}"
                );
                Err(problem(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "not_stored",
                    &detail,
                ))
            }
        }
    }
}

type Refused = Box<Response<Full<Bytes>>>;

fn flatten<T>(result: Result<Result<T, String>, tokio::task::JoinError>) -> Result<T, String> {
    result.unwrap_or_else(|error| Err(error.to_string()))
}

async fn read_body(body: Incoming) -> Result<Bytes, Refused> {
    match tokio::time::timeout(HEAD_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "at most 64 KiB",
        )),
        Err(_) => Err(problem(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "the body did not arrive in time",
        )),
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Refused {
    Box::new(json(
        status,
        &Problem {
            code: code.to_owned(),
            detail: detail.to_owned(),
        },
    ))
}
