//! Envoy's administration interface, as far as a supervisor needs it: is it up, where does it listen, is the control
//! plane there, what is open; and the orders to end.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

/// The kernel's bound on the path of a Unix socket.
pub(super) const LONGEST_SOCKET_PATH: usize = 107;
/// An answer is a list of this Envoy's own sockets or counters.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the interface listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminPlace {
    /// A Unix socket, at most 107 bytes, for this user alone.
    Socket(PathBuf),
    /// TCP, in clear and without any identity; port 0 lets the kernel choose.
    Tcp(SocketAddr),
}

impl AdminPlace {
    /// As the bootstrap has it.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Socket(path) => json!({ "address": { "pipe": { "path": path, "mode": 0o600 } } }),
            Self::Tcp(address) => json!({ "address": { "socket_address": {
                "address": address.ip().to_string(), "port_value": address.port(),
            } } }),
        }
    }
}

impl fmt::Display for AdminPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// Reads the address that Envoy wrote when it had bound it.
pub(super) fn read_address(file: &Path) -> Option<SocketAddr> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Nobody answers there, or not as Envoy does.
#[derive(Debug)]
pub(super) struct Silent;

impl<E: std::error::Error> From<E> for Silent {
    fn from(_: E) -> Self {
        Self
    }
}

/// One listener of Envoy's.
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) addresses: Vec<SocketAddr>,
}

/// A client of it; a connection for each question.
#[derive(Debug, Clone)]
pub(super) struct Admin(pub(super) AdminPlace);

impl Admin {
    /// Whether it has everything that it waits for at the start.
    pub(super) async fn is_live(&self) -> Result<bool, Silent> {
        let (status, _) = self.ask(Method::GET, "/ready").await?;
        Ok(status == StatusCode::OK)
    }

    pub(super) async fn listeners(&self) -> Result<Vec<Listener>, Silent> {
        let (_, body) = self.ask(Method::GET, "/listeners?format=json").await?;
        Ok(listeners(&serde_json::from_slice(&body)?))
    }

    /// Whether a stream to the control plane is open; `None`: this Envoy has none.
    pub(super) async fn has_control(&self) -> Result<Option<bool>, Silent> {
        let path = "/stats?format=json&filter=%5Econtrol_plane.connected_state%24";
        let values = self.values(path).await?;
        Ok(values.first().map(|(_, value)| *value > 0))
    }

    /// Connections of guests that are open.
    pub(super) async fn open(&self) -> Result<u64, Silent> {
        let path = "/stats?format=json&filter=%5Elistener%5C..*%5C.downstream_cx_active%24";
        let values = self.values(path).await?.into_iter();
        Ok(values
            .filter(|(name, _)| !name.starts_with("listener.admin."))
            .map(|(_, value)| value)
            .sum())
    }

    /// Asks clients to leave, and closes the listeners in the end.
    pub(super) async fn drain(&self) -> Result<(), Silent> {
        // The first tells clients that are connected to leave; the second closes the sockets at once.
        self.ask(Method::POST, "/drain_listeners?graceful").await?;
        self.ask(Method::POST, "/drain_listeners").await?;
        Ok(())
    }

    pub(super) async fn quit(&self) -> Result<(), Silent> {
        self.ask(Method::POST, "/quitquitquit").await?;
        Ok(())
    }

    async fn values(&self, path: &str) -> Result<Vec<(String, u64)>, Silent> {
        let (_, body) = self.ask(Method::GET, path).await?;
        let body: Value = serde_json::from_slice(&body)?;
        let stats = body.get("stats").and_then(Value::as_array);
        Ok(stats
            .into_iter()
            .flatten()
            .filter_map(|stat| {
                let name = stat.get("name")?.as_str()?;
                Some((name.to_owned(), stat.get("value")?.as_u64()?))
            })
            .collect())
    }

    async fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), Silent> {
        let asked = async {
            match &self.0 {
                AdminPlace::Socket(socket) => {
                    exchange(UnixStream::connect(socket).await?, method, path).await
                }
                AdminPlace::Tcp(address) => {
                    exchange(TcpStream::connect(address).await?, method, path).await
                }
            }
        };
        tokio::time::timeout(PATIENCE, asked).await?
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    method: Method,
    path: &str,
) -> Result<(StatusCode, Bytes), Silent> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "envoy")
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER)
            .collect()
            .await;
        Ok((status, body.map_err(|_| Silent)?.to_bytes()))
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The connection may end before its last bytes are read.
        _ = connection => answer.await,
    }
}

fn listeners(answer: &Value) -> Vec<Listener> {
    let address = |value: &Value| {
        let socket = value.get("socket_address")?;
        let ip = socket.get("address")?.as_str()?.parse().ok()?;
        let port = u16::try_from(socket.get("port_value")?.as_u64()?).ok()?;
        Some(SocketAddr::new(ip, port))
    };
    let statuses = answer.get("listener_statuses").and_then(Value::as_array);
    let statuses = statuses.into_iter().flatten();
    statuses
        .filter_map(|status| {
            let additional = status
                .get("additional_local_addresses")
                .and_then(Value::as_array);
            let all = status
                .get("local_address")
                .into_iter()
                .chain(additional.into_iter().flatten());
            Some(Listener {
                name: status.get("name")?.as_str()?.to_owned(),
                addresses: all.filter_map(address).collect(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read_with_all_their_sockets() {
        let answer = json!({ "listener_statuses": [
            { "name": "outgate_proxy", "local_address": { "socket_address": { "address": "127.0.0.1", "port_value": 4001 } },
              "additional_local_addresses": [{ "socket_address": { "address": "::1", "port_value": 4002 } }] },
            { "name": "inner", "local_address": { "envoy_internal_address": { "server_listener_name": "inner" } } },
        ] });
        let listeners = listeners(&answer);
        assert_eq!(listeners[0].addresses.len(), 2);
        assert_eq!(listeners[0].addresses[1], "[::1]:4002".parse().unwrap());
        assert_eq!(listeners[1].name, "inner");
        assert!(listeners[1].addresses.is_empty());
    }
}
