//! Tries one way out, and decides whether it is open. Closed is only what the kernel or the network is known to say of
//! a closed way, or silence; whatever else goes wrong is a way that was not tried.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with},
};
use tokio::{
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::ask::is_gateway;
use crate::cli::{Way, WayKind};

/// What a probe found.
#[derive(Debug)]
pub(super) enum Finding {
    Closed,
    Open,
    /// This machine could not even send it.
    NotTried(io::Error),
}

/// Whether connections may lead to the gateway wherever they are meant to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Capture {
    None,
    ByGateway,
}

/// Tries a way, for so long at most; longer only for what was answered.
pub(super) async fn attempt(way: Way, limit: Duration, capture: Capture) -> Finding {
    let mut connected = None;
    match timeout(limit, reach(way, limit, &mut connected)).await {
        Err(_) => return Finding::Closed,
        Ok(Ok(())) => {}
        Ok(Err(error)) if is_closed(&error) => return Finding::Closed,
        Ok(Err(error)) => return Finding::NotTried(error),
    }
    let captured = match (connected, capture) {
        (Some(stream), Capture::ByGateway) => is_gateway(stream).await,
        _ => false,
    };
    if captured {
        Finding::Closed
    } else {
        Finding::Open
    }
}

/// Ends well if the way is open; a connection is left in `connected`.
async fn reach(way: Way, limit: Duration, connected: &mut Option<TcpStream>) -> io::Result<()> {
    let address = way.address;
    match way.kind {
        WayKind::Tcp => {
            *connected = Some(TcpStream::connect(address).await?);
            Ok(())
        }
        WayKind::Dns => answered(datagrams(address).await?, &name_question(), limit).await,
        WayKind::Quic => answered(datagrams(address).await?, &quic_greeting(), limit).await,
        WayKind::Icmp => {
            let socket = ping_socket(address)?;
            socket.connect(address).await?;
            answered(socket, &echo_request(address), limit).await
        }
    }
}

/// What a closed way says: ICMP's errors (icmp(7), `icmpv6_err_convert`), routes that lead nowhere (`blackhole` is
/// EINVAL), packet filters (EPERM), a machine without IPv6 or without the right to send echo requests.
fn is_closed(error: &io::Error) -> bool {
    const CLOSED: [Errno; 12] = [
        Errno::CONNREFUSED,
        Errno::TIMEDOUT,
        Errno::NETUNREACH,
        Errno::HOSTUNREACH,
        Errno::HOSTDOWN,
        Errno::NETDOWN,
        Errno::NOPROTOOPT,
        Errno::ADDRNOTAVAIL,
        Errno::AFNOSUPPORT,
        Errno::PERM,
        Errno::ACCESS,
        Errno::INVAL,
    ];
    Errno::from_io_error(error).is_some_and(|errno| CLOSED.contains(&errno))
}

/// Sends a question twice, because one packet may get lost, and waits for any answer of that address.
async fn answered(socket: UdpSocket, question: &[u8], limit: Duration) -> io::Result<()> {
    let mut answer = [0; 2048];
    socket.send(question).await?;
    match timeout(limit / 2, socket.recv(&mut answer)).await {
        Ok(read) => read.map(drop),
        Err(_) => {
            socket.send(question).await?;
            socket.recv(&mut answer).await.map(drop)
        }
    }
}

async fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

/// A socket for echo requests that needs no privilege where `net.ipv4.ping_group_range` allows it.
fn ping_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let (family, protocol) = match address {
        SocketAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        SocketAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, Some(protocol))?;
    UdpSocket::from_std(socket.into())
}

/// Type, code, checksum and identifier, both of which the kernel fills in, and sequence number (RFC 792, RFC 4443).
fn echo_request(address: SocketAddr) -> [u8; 8] {
    let kind = if address.is_ipv4() { 8 } else { 128 };
    [kind, 0, 0, 0, 0, 0, 0, 1]
}

/// Asks for the address of `preflight.invalid`, a name that cannot exist (RFC 1035, RFC 2606).
fn name_question() -> Vec<u8> {
    let mut question = vec![0x6f, 0x67];
    // Recursion desired; one question, no records.
    question.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in ["preflight", "invalid"] {
        question.extend(u8::try_from(label.len()));
        question.extend(label.as_bytes());
    }
    question.push(0);
    // An address, of the internet.
    question.extend([0, 1, 0, 1]);
    question
}

/// A long header with a version that is reserved for this: every server answers with those that it has (RFC 9000, 6.1,
/// 15, 17.2.1), if the packet is as long as a first one has to be.
fn quic_greeting() -> Vec<u8> {
    let mut packet = vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4a];
    // Two connection ids of eight bytes.
    packet.extend([8, 1, 2, 3, 4, 5, 6, 7, 8]);
    packet.extend([8, 8, 7, 6, 5, 4, 3, 2, 1]);
    packet.resize(1200, 0);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_cannot_do_is_not_a_closed_way() {
        for errno in [Errno::MFILE, Errno::NOBUFS, Errno::NOMEM, Errno::MSGSIZE] {
            assert!(!is_closed(&errno.into()), "{errno}");
        }
        for errno in [Errno::CONNREFUSED, Errno::NETUNREACH, Errno::PERM] {
            assert!(is_closed(&errno.into()), "{errno}");
        }
        assert!(!is_closed(&io::ErrorKind::InvalidData.into()));
    }

    #[test]
    fn a_question_is_a_whole_message() {
        let question = name_question();
        assert_eq!(question.len(), 12 + 10 + 8 + 1 + 4);
        assert!(question.windows(10).any(|it| it == b"\x09preflight"));
        assert_eq!(quic_greeting().len(), 1200);
    }
}
