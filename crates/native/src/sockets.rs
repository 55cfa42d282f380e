//! Opens the sockets of a list of addresses. The kernel would have `[::]:P` take IPv4 as well, and refuse it beside an IPv4
//! socket of the same port; whoever writes both means one for each family.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted, where the system allows as many.
const BACKLOG: i32 = 1024;

/// A listener that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {source}")]
pub struct NotOpened {
    /// Which.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// Opens a listener for each address; none blocks. `[::]:P` takes IPv4 as well, unless the list has an IPv4 address with the
/// same port.
///
/// # Errors
/// [`NotOpened`] of the first that cannot be opened; then none is.
pub fn open(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, NotOpened> {
    let opened = addresses.iter().map(|address| {
        let has_ipv4 = addresses
            .iter()
            .any(|other| other.is_ipv4() && other.port() == address.port());
        listener(*address, has_ipv4).map_err(|source| NotOpened {
            address: *address,
            source,
        })
    });
    opened.collect()
}

fn listener(address: SocketAddr, has_ipv4: bool) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(has_ipv4 || !address.ip().is_unspecified())?;
    }
    // A gateway that is started anew must not wait for the connections of the one before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use outgate_testkit::free_port;

    use super::*;

    fn answers(address: &str, port: u16) -> bool {
        TcpStream::connect(format!("{address}:{port}")).is_ok()
    }

    #[test]
    fn a_list_has_both_families_and_the_unspecified_ipv6_address_alone_takes_both() {
        let port = free_port();
        let at = |address: &str| format!("{address}:{port}").parse().unwrap();
        for (list, ipv4, ipv6) in [
            (vec![at("0.0.0.0"), at("[::]")], true, true),
            (vec![at("[::]"), at("127.0.0.1")], true, true),
            (vec![at("[::]")], true, true),
            (vec![at("0.0.0.0")], true, false),
            (vec![at("[::1]")], false, true),
        ] {
            let open = open(&list).unwrap();
            assert_eq!(open.len(), list.len());
            assert_eq!(
                (answers("127.0.0.1", port), answers("[::1]", port)),
                (ipv4, ipv6),
                "{list:?}"
            );
        }
    }

    #[test]
    fn a_socket_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let failed = open(&[address]).unwrap_err();
        assert_eq!(failed.address, address);
        assert_eq!(failed.source.kind(), io::ErrorKind::AddrInUse);
    }
}
