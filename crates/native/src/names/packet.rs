//! UDP on a socket that is bound to any address: which address a question was sent to, so that the answer leaves from
//! there (RFC 1122 section 4.1.3.5). A client that is connected to its server takes no other.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
};

use nix::{
    cmsg_space, libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
        setsockopt, sockopt,
    },
};
use socket2::SockRef;
use tokio::{io::Interest, net::UdpSocket};

/// One question and where it came from.
pub(super) struct Question {
    pub(super) bytes: Vec<u8>,
    pub(super) peer: SocketAddr,
    /// The address that was asked.
    pub(super) asked: IpAddr,
}

/// Has the kernel say which address each packet was sent to, and lets answers leave from there, although no interface
/// has the address.
pub(super) fn tell_asked_addresses(socket: &UdpSocket) -> io::Result<()> {
    if socket.local_addr()?.is_ipv4() {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
        SockRef::from(socket).set_freebind_v4(true)
    } else {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        SockRef::from(socket).set_freebind_v6(true)
    }
}

/// Waits for a question.
pub(super) async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Question> {
    socket
        .async_io(Interest::READABLE, || receive_now(socket, buffer))
        .await
}

fn receive_now(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Question> {
    let mut control = cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let (length, peer, asked) = {
        let mut parts = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let asked = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let octets = info.ipi_addr.s_addr.to_ne_bytes();
                Some(IpAddr::from(octets))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(info.ipi6_addr.s6_addr.into()),
            _ => None,
        });
        (message.bytes, message.address, asked)
    };
    let incomplete = || io::Error::other("a packet without its addresses");
    Ok(Question {
        bytes: buffer.get(..length).unwrap_or_default().to_vec(),
        peer: peer.and_then(socket_address).ok_or_else(incomplete)?,
        asked: asked.ok_or_else(incomplete)?,
    })
}

fn socket_address(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)));
    v4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6)))
    })
}

/// Sends an answer from the address that was asked.
pub(super) async fn send(
    socket: &UdpSocket,
    answer: &[u8],
    peer: SocketAddr,
    asked: IpAddr,
) -> io::Result<()> {
    let to = SockaddrStorage::from(peer);
    let sending = || {
        let parts = [IoSlice::new(answer)];
        let fd = socket.as_raw_fd();
        match asked {
            IpAddr::V4(v4) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(v4.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(fd, &parts, &control, MsgFlags::empty(), Some(&to))
            }
            IpAddr::V6(v6) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: v6.octets(),
                    },
                    ipi6_ifindex: 0,
                };
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(fd, &parts, &control, MsgFlags::empty(), Some(&to))
            }
        }
        .map_err(io::Error::from)
    };
    socket.async_io(Interest::WRITABLE, sending).await.map(drop)
}
