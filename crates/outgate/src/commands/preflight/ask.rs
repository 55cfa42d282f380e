//! Asks the gateway for a destination that nobody allows, with the workload's own token. Its refusal is the proof: it
//! is there, it speaks, and the token is good. Nothing of the token or of a stranger's answer is ever printed.

use std::{fmt, io, net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response,
    header::{HOST, PROXY_AUTHORIZATION},
};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use outgate_journey::denial::DenyCode;
use tokio::{net::TcpStream, time::timeout};
use zeroize::Zeroizing;

use super::super::exec::read_token;

/// A name that cannot exist (RFC 2606): no rule names it.
const NOWHERE: &str = "preflight.invalid:443";
/// For the connection, and for the answer: a follower may have to ask an issuer of tokens first.
const LIMIT: Duration = Duration::from_secs(5);
const LONGEST_ANSWER: usize = 16 * 1024;

/// What came of it.
#[derive(Debug)]
pub(super) enum Contact {
    /// It refused the destination in its own words, so it took the token.
    Outgate,
    /// The token cannot be read; the gateway was not asked.
    NoToken(anyhow::Error),
    /// It refused the token, or something else before it came to the destination.
    Denied(DenyCode),
    /// It refused nothing: the name is let out, or this is another proxy.
    Opened,
    /// Something answers in HTTP that is no gateway of ours.
    Stranger {
        status: u16,
    },
    /// Something answers that is no HTTP, or ends the connection.
    NotHttp,
    Refused,
    /// Nothing answers the connection.
    Unanswered,
    /// The connection is accepted, and then nothing is said.
    Silent,
    Unreachable(io::Error),
}

impl Contact {
    /// For programs.
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::Outgate => "ok",
            Self::NoToken(_) => "token_unreadable",
            Self::Denied(code) => code.as_str(),
            Self::Opened => "tunnel_opened",
            Self::Stranger { .. } => "not_outgate",
            Self::NotHttp => "not_http",
            Self::Refused => "refused",
            Self::Unanswered => "timeout",
            Self::Silent => "silent",
            Self::Unreachable(_) => "unreachable",
        }
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outgate => f.write_str("it answers and takes the token"),
            Self::NoToken(error) => write!(f, "it was not asked: {error:#}"),
            Self::Denied(code) => {
                write!(f, "it answers {code}: {} {}", code.message(), code.remedy())
            }
            Self::Opened => f.write_str(
                "it opens a tunnel to a name that cannot exist: this is no Outgate, or one that lets everything out",
            ),
            Self::Stranger { status } => {
                write!(f, "what answers there ({status}) is no Outgate: is another proxy in the way?")
            }
            Self::NotHttp => f.write_str("what answers there is no HTTP proxy"),
            Self::Refused => {
                f.write_str("connections are refused: it does not run, or on another port")
            }
            Self::Unanswered => {
                f.write_str("nothing answers: its address is wrong, or a policy keeps the workload from it")
            }
            Self::Silent => f.write_str("it accepts connections, and then says nothing"),
            Self::Unreachable(error) => write!(f, "it cannot be reached: {error}"),
        }
    }
}

/// Asks once. The token is read anew, as it may have been renewed.
pub(super) async fn ask(gateway: SocketAddr, token_file: &Path) -> Contact {
    let token = match read_token(token_file) {
        Ok(token) => token,
        Err(error) => return Contact::NoToken(error),
    };
    let stream = match timeout(LIMIT, TcpStream::connect(gateway)).await {
        Err(_) => return Contact::Unanswered,
        Ok(Err(error)) => {
            return match error.kind() {
                io::ErrorKind::ConnectionRefused => Contact::Refused,
                io::ErrorKind::TimedOut => Contact::Unanswered,
                _ => Contact::Unreachable(error),
            };
        }
        Ok(Ok(stream)) => stream,
    };
    match timeout(LIMIT, speak(stream, &token)).await {
        Err(_) => Contact::Silent,
        Ok(Err(_)) => Contact::NotHttp,
        Ok(Ok(response)) => judge(&response),
    }
}

/// Whether the gateway is at the other end of a connection that was meant for somebody else. The token is no
/// stranger's business, so it is asked without: it refuses the destination all the same.
pub(super) async fn is_gateway(stream: TcpStream) -> bool {
    let request = Request::get("/").header(HOST, "preflight.invalid");
    let Ok(request) = request.body(Empty::new()) else {
        return false;
    };
    match timeout(LIMIT, send(stream, request)).await {
        Ok(Ok(response)) => matches!(judge(&response), Contact::Outgate | Contact::Denied(_)),
        _ => false,
    }
}

async fn speak(stream: TcpStream, token: &str) -> anyhow::Result<Response<Incoming>> {
    let field = Zeroizing::new(format!("Bearer {token}"));
    let mut field = HeaderValue::from_str(&field)?;
    field.set_sensitive(true);
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(NOWHERE)
        .header(HOST, NOWHERE)
        .header(PROXY_AUTHORIZATION, field)
        .body(Empty::new())?;
    send(stream, request).await
}

async fn send(
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
) -> anyhow::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(LONGEST_ANSWER)
        .handshake(TokioIo::new(stream))
        .await?;
    // Ends with its sender.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

fn judge<B>(response: &Response<B>) -> Contact {
    let status = response.status();
    if status.is_success() {
        return Contact::Opened;
    }
    let said = response.headers().get("x-deny-reason");
    let known = said.and_then(|said| {
        let mut codes = DenyCode::ALL.iter();
        codes.find(|code| said == code.as_str())
    });
    match known {
        Some(DenyCode::DestinationNotAllowed) if status == 403 => Contact::Outgate,
        Some(DenyCode::DestinationNotAllowed) | None => Contact::Stranger {
            status: status.as_u16(),
        },
        Some(code) => Contact::Denied(*code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(status: u16, reason: Option<&str>) -> &'static str {
        let mut response = Response::builder().status(status);
        if let Some(reason) = reason {
            response = response.header("x-deny-reason", reason);
        }
        judge(&response.body(()).unwrap()).code()
    }

    #[test]
    fn only_the_gateways_own_refusal_is_a_proof() {
        assert_eq!(code(403, Some("destination_not_allowed")), "ok");
        assert_eq!(code(407, Some("token_invalid")), "token_invalid");
        assert_eq!(code(407, Some("token_expired")), "token_expired");
        assert_eq!(code(403, Some("session_revoked")), "session_revoked");
        assert_eq!(code(503, Some("shutting_down")), "shutting_down");
        assert_eq!(code(403, None), "not_outgate");
        assert_eq!(code(407, None), "not_outgate");
        assert_eq!(code(502, Some("destination_not_allowed")), "not_outgate");
        assert_eq!(code(403, Some("something else")), "not_outgate");
        assert_eq!(code(200, Some("destination_not_allowed")), "tunnel_opened");
    }
}
