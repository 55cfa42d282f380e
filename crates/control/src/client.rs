//! The command line's side of the operator socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::operator::{About, CreateSession, CreatedSession, Problem, SessionList};

/// Why a call to the operator socket failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error(
        "no gateway answers on {path} ({source}); start `outgate serve`, or give its state folder with --state-dir"
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The gateway said no.
    #[error("{detail} [{code}]")]
    Refused {
        /// Stable.
        code: String,
        /// For people.
        detail: String,
    },
    /// The gateway did not answer as it should.
    #[error("the gateway's answer could not be read: {0}")]
    Broken(String),
}

const TIMEOUT: Duration = Duration::from_secs(10);

/// A gateway's operator socket.
#[derive(Debug, Clone)]
pub struct OperatorClient {
    socket: PathBuf,
}

impl OperatorClient {
    /// A client for the socket at this path.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Creates a session.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create(&self, wanted: &CreateSession) -> Result<CreatedSession, ClientError> {
        let body =
            serde_json::to_vec(wanted).map_err(|error| ClientError::Broken(error.to_string()))?;
        read(&self.call(Method::POST, "/v1/sessions", body).await?)
    }

    /// Lists the sessions.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list(&self) -> Result<SessionList, ClientError> {
        read(&self.call(Method::GET, "/v1/sessions", Vec::new()).await?)
    }

    /// What a workload needs to know.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn about(&self) -> Result<About, ClientError> {
        read(&self.call(Method::GET, "/v1/gateway", Vec::new()).await?)
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn end(&self, id: &str) -> Result<(), ClientError> {
        self.call(Method::DELETE, &format!("/v1/sessions/{id}"), Vec::new())
            .await
            .map(drop)
    }

    async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, ClientError> {
        let exchange = self.exchange(method, path, body);
        let (status, body) = tokio::time::timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| ClientError::Broken(format!("none within {} s", TIMEOUT.as_secs())))??;
        if status.is_success() {
            return Ok(body);
        }
        let problem: Problem = read(&body)?;
        Err(ClientError::Refused {
            code: problem.code,
            detail: problem.detail,
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|source| ClientError::NotRunning {
                    path: self.socket.clone(),
                    source,
                })?;
        let broken = |error: &dyn std::fmt::Display| ClientError::Broken(error.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken(&e))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "operator")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| broken(&e))?;
        let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|e| broken(&e))?;
        Ok((status, body.to_bytes()))
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| ClientError::Broken(error.to_string()))
}
