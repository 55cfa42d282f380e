//! One exchange on a connection of its own.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::{ClientError, Endpoint};
use crate::operator::read_secret_file;

const DEFAULT_PORT: u16 = 443;

/// Sends a request; its answer's status and body.
pub(super) async fn exchange(
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    body: Option<Vec<u8>>,
) -> Result<(StatusCode, Bytes), ClientError> {
    match endpoint {
        Endpoint::Socket(socket) => {
            let stream = UnixStream::connect(socket).await.map_err(|source| {
                let path = socket.clone();
                ClientError::NotRunning { path, source }
            })?;
            let request = request(method, path, "operator", None, body)?;
            send(stream, request).await
        }
        Endpoint::Https {
            url,
            bearer_file,
            ca_file,
        } => {
            let unusable = |why: String| ClientError::Unusable(why);
            let (host, port, authority) = place(url).ok_or_else(|| {
                unusable(format!(
                    "{url}: write `https://host` or `https://host:port`"
                ))
            })?;
            let token = read_secret_file(bearer_file).map_err(unusable)?;
            let tls = trusting(ca_file.as_deref()).map_err(unusable)?;
            let unreachable = |why: &dyn std::fmt::Display| ClientError::Unreachable {
                url: url.clone(),
                why: why.to_string(),
            };
            let name = ServerName::try_from(host.clone()).map_err(|e| unreachable(&e))?;
            let stream = TcpStream::connect((host.as_str(), port))
                .await
                .map_err(|e| unreachable(&e))?;
            let _ = stream.set_nodelay(true);
            let connector = TlsConnector::from(Arc::new(tls));
            let stream = connector
                .connect(name, stream)
                .await
                .map_err(|e| unreachable(&e))?;
            let request = request(method, path, &authority, Some(&token), body)?;
            send(stream, request).await
        }
    }
}

/// Host, port and authority of `https://host[:port]`.
fn place(url: &str) -> Option<(String, u16, String)> {
    let uri: Uri = url.parse().ok()?;
    let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    let authority = uri.authority()?.as_str();
    if uri.scheme_str() != Some("https") || !is_bare || authority.contains('@') {
        return None;
    }
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
    Some((host.to_owned(), port, authority.to_owned()))
}

/// Trusts the CAs of a file, or those of the system.
fn trusting(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let explain = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| explain(&e))? {
            let certificate = certificate.map_err(|e| explain(&e))?;
            roots.add(certificate).map_err(|e| explain(&e))?;
        }
        if roots.is_empty() {
            return Err(explain(&"holds no certificate"));
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn request(
    method: Method,
    path: &str,
    host: &str,
    token: Option<&Zeroizing<String>>,
    body: Option<Vec<u8>>,
) -> Result<Request<Full<Bytes>>, ClientError> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host);
    if let Some(token) = token {
        let field = Zeroizing::new(format!("Bearer {}", token.as_str()));
        let mut value = HeaderValue::from_str(&field).map_err(|_| {
            ClientError::Unusable("the token does not fit into a header".to_owned())
        })?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let body = Full::new(Bytes::from(body.unwrap_or_default()));
    request
        .body(body)
        .map_err(|error| ClientError::Broken(error.to_string()))
}

async fn send<I>(
    stream: I,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), ClientError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: &dyn std::fmt::Display| ClientError::Broken(error.to_string());
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|e| broken(&e))?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|e| broken(&e))?;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|e| broken(&e))?;
    driver.abort();
    Ok((status, body.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_https_and_a_place_and_nothing_more() {
        let found = place("https://gw.example.org:9443/").unwrap();
        assert_eq!(
            found,
            (
                "gw.example.org".to_owned(),
                9443,
                "gw.example.org:9443".to_owned()
            )
        );
        assert_eq!(place("https://[::1]").unwrap().0, "::1");
        for bad in [
            "http://gw.example.org",
            "gw.example.org",
            "https://u@gw",
            "https://gw/v1",
            "https://gw?x",
            "",
        ] {
            assert_eq!(place(bad), None, "{bad}");
        }
    }
}
