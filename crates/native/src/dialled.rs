//! Which address a captured connection was on its way to.

use std::{borrow::Cow, io, net::SocketAddr};

use outgate_journey::denial::{Denial, DenyCode};
use tokio::net::TcpStream;

/// How connections are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capturing {
    /// Every address is this machine's: a connection's own address is the one that was dialled.
    ByRoute,
    /// The packet filter put the listener's address in its place, and knows the one before.
    ByRedirect,
}

impl Capturing {
    /// The address that was dialled.
    ///
    /// # Errors
    /// [`DenyCode::AddressDenied`] for a connection that nothing redirected: it was made to the listener itself, and there
    /// is no address to serve it for.
    pub(crate) fn dialled(self, stream: &TcpStream) -> Result<SocketAddr, Denial> {
        let own = stream.local_addr().map_err(|error| unknown(&error))?;
        if self == Self::ByRoute {
            return Ok(canonical(own));
        }
        match original(stream, own) {
            Ok(dialled) if canonical(dialled) != canonical(own) => Ok(canonical(dialled)),
            // Without a redirect the kernel tells the address that the connection has, or that it knows of none.
            Ok(_) => Err(refused(ITSELF)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(refused(ITSELF)),
            Err(error) => Err(unknown(&error)),
        }
    }
}

const ITSELF: &str = "not redirected: the listener for captured connections was dialled itself";

/// IPv4 as such, where a socket of IPv6 serves it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn unknown(error: &io::Error) -> Denial {
    refused(format!(
        "the kernel does not tell which address was dialled: {error}"
    ))
}

fn refused(why: impl Into<Cow<'static, str>>) -> Denial {
    Denial::new(DenyCode::AddressDenied).because(why)
}

/// `SO_ORIGINAL_DST`, of the family that the connection has: a socket of IPv6 may serve IPv4.
#[cfg(target_os = "linux")]
fn original(stream: &TcpStream, own: SocketAddr) -> io::Result<SocketAddr> {
    let socket = socket2::SockRef::from(stream);
    let original = match own.ip().to_canonical() {
        std::net::IpAddr::V4(_) => socket.original_dst_v4()?,
        std::net::IpAddr::V6(_) => socket.original_dst_v6()?,
    };
    Ok(original.as_socket().ok_or(io::ErrorKind::InvalidData)?)
}

#[cfg(not(target_os = "linux"))]
fn original(_: &TcpStream, _: SocketAddr) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_was_not_redirected_was_made_to_the_listener_itself() {
        for (listen, dial) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "[::1]"),
            ("[::]:0", "127.0.0.1"),
        ] {
            let listener = TcpListener::bind(listen).await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let dialled: SocketAddr = format!("{dial}:{port}").parse().unwrap();
            let _guest = TcpStream::connect(dialled).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            assert_eq!(Capturing::ByRoute.dialled(&stream).unwrap(), dialled);
            let denial = Capturing::ByRedirect.dialled(&stream).unwrap_err();
            assert_eq!(denial.code(), DenyCode::AddressDenied, "{listen}");
        }
    }
}
