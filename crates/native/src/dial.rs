//! Stage *originate*, its first half: opens the connection to an upstream. It takes a
//! [`ResolvedDestination`] and nothing less, so no address is dialled that was not vetted, and none is looked up
//! again.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use outgate_journey::{
    denial::{Denial, DenyCode},
    policy::Policy,
    resolve::ResolvedDestination,
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::ahead::ReadAhead;

/// Opens a TCP connection to the first address that answers.
///
/// # Errors
/// [`DenyCode::UpstreamUnreachable`], [`DenyCode::UpstreamTimeout`], or [`DenyCode::AddressDenied`] where the
/// connection turned out to reach the gateway itself.
pub(crate) async fn dial(
    resolved: &ResolvedDestination,
    policy: &Policy,
    timeout: Duration,
) -> Result<(TcpStream, SocketAddr), Denial> {
    let by_rule = |denial: Denial| denial.by(&resolved.allowed().rule().id);
    let mut last = Denial::new(DenyCode::UpstreamUnreachable);
    let attempts = async {
        for address in resolved.addresses() {
            match TcpStream::connect(address).await {
                Ok(stream) => return check_peer(stream, *address, policy),
                Err(error) => {
                    last = Denial::new(DenyCode::UpstreamUnreachable)
                        .because(format!("{address}: {error}"));
                }
            }
        }
        Err(last)
    };
    match tokio::time::timeout(timeout, attempts).await {
        Ok(result) => result.map_err(by_rule),
        Err(_) => Err(by_rule(
            Denial::new(DenyCode::UpstreamTimeout).because("connecting"),
        )),
    }
}

fn check_peer(
    stream: TcpStream,
    address: SocketAddr,
    policy: &Policy,
) -> Result<(TcpStream, SocketAddr), Denial> {
    let local = stream.local_addr();
    if local
        .as_ref()
        .is_ok_and(|local| policy.deny_set().reaches_gateway(*local, address))
    {
        return Err(Denial::new(DenyCode::AddressDenied).because("the gateway's own listener"));
    }
    if let Err(error) = stream.set_nodelay(true) {
        return Err(Denial::new(DenyCode::UpstreamUnreachable).because(error.to_string()));
    }
    Ok((stream, address))
}

/// Opens TLS on a dialled connection and verifies the upstream's certificate for the destination's name.
///
/// # Errors
/// [`DenyCode::UpstreamTlsFailed`], [`DenyCode::UpstreamTimeout`] or [`DenyCode::UpstreamProtocol`].
pub(crate) async fn start_tls(
    stream: TcpStream,
    resolved: &ResolvedDestination,
    config: &Arc<ClientConfig>,
    timeout: Duration,
) -> Result<TlsStream<ReadAhead<TcpStream>>, Denial> {
    let rule = &resolved.allowed().rule().id;
    let host = resolved.allowed().destination().host();
    let name = ServerName::try_from(host.as_str().to_owned()).map_err(|_| {
        Denial::new(DenyCode::UpstreamTlsFailed)
            .because("not a TLS name")
            .by(rule)
    })?;
    let handshake = TlsConnector::from(Arc::clone(config))
        .connect(name, ReadAhead::new(stream, BytesMut::new()));
    match tokio::time::timeout(timeout, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Denial::new(tls_code(&error))
            .because(error.to_string())
            .by(rule)),
        Err(_) => Err(Denial::new(DenyCode::UpstreamTimeout)
            .because("TLS handshake")
            .by(rule)),
    }
}

fn tls_code(error: &io::Error) -> DenyCode {
    let is_tls = error
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>());
    if is_tls {
        DenyCode::UpstreamTlsFailed
    } else {
        DenyCode::UpstreamProtocol
    }
}
