//! The namespace's network, and the sockets that are the only way out of it.

use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use nix::sys::socket::{setsockopt, sockopt};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt as option,
};

use super::netlink::{Family, Routing};
use super::protocol::{Failure, Stage};
use crate::Refusals;

const DNS: u16 = 53;
const BACKLOG: i32 = 1024;

/// The opened sockets: first the proxy's, then for each family DNS over UDP and over TCP, then the ports'.
/// The launcher tells them apart by their type and address, so the order is no promise.
pub(super) fn open(ports: &[u16], proxy_port: u16) -> Result<Vec<OwnedFd>, Failure> {
    let routing = Routing::open().map_err(|error| failure("open a routing socket", &error))?;
    routing
        .loopback_up()
        .map_err(|error| failure("bring the loopback interface up", &error))?;
    routing
        .every_address_is_local(Family::V4)
        .map_err(|error| failure("route every IPv4 address", &error))?;
    // A kernel without IPv6, or with it switched off: an address of it then has no route, which is a refusal too.
    let v6 = routing.every_address_is_local(Family::V6).is_ok();
    let mut ports = ports.to_vec();
    ports.retain(|port| *port != 0 && *port != DNS);
    ports.sort_unstable();
    ports.dedup();
    let mut sockets = vec![];
    for any in any_addresses(v6) {
        sockets.push(datagrams(SocketAddr::new(any, DNS))?);
        sockets.push(listener(SocketAddr::new(any, DNS))?);
        for port in &ports {
            sockets.push(listener(SocketAddr::new(any, *port))?);
        }
    }
    // After the wildcards, so that port 0 cannot choose one of theirs.
    sockets.insert(
        0,
        listener(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), proxy_port))?,
    );
    Ok(sockets)
}

fn any_addresses(v6: bool) -> impl Iterator<Item = std::net::IpAddr> {
    [Ipv4Addr::UNSPECIFIED.into()]
        .into_iter()
        .chain(v6.then_some(Ipv6Addr::UNSPECIFIED.into()))
}

fn listener(address: SocketAddr) -> Result<OwnedFd, Failure> {
    let open = || -> io::Result<OwnedFd> {
        let socket = bound(address, SocketType::STREAM)?;
        listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    open().map_err(|error| failure(&format!("listen on {address} in the sandbox"), &error))
}

fn datagrams(address: SocketAddr) -> Result<OwnedFd, Failure> {
    let open = || -> io::Result<OwnedFd> {
        let socket = bound(address, SocketType::DGRAM)?;
        // The asked server's address, to answer from: a resolver drops what comes from another.
        match address {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
        Ok(socket)
    };
    open().map_err(|error| failure(&format!("open UDP {address} in the sandbox"), &error))
}

fn bound(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let (family, protocol) = match address {
        SocketAddr::V4(_) => (AddressFamily::INET, None),
        SocketAddr::V6(_) => (AddressFamily::INET6, None),
    };
    let protocol = if kind == SocketType::STREAM {
        Some(ipproto::TCP)
    } else {
        protocol
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
    if address.is_ipv6() {
        // A socket for each family: an IPv4 address is never seen as a mapped one.
        option::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}

fn failure(step: &str, error: &io::Error) -> Failure {
    // The first use of the new namespace's privileges: where a security module empties them, it shows here.
    let denied = [Errno::PERM.raw_os_error(), Errno::ACCESS.raw_os_error()];
    let stage = if error
        .raw_os_error()
        .is_some_and(|errno| denied.contains(&errno))
    {
        Stage::Namespace
    } else {
        Stage::Network
    };
    Failure::new(stage, step, error)
}

/// The kernel's own counters of the namespace in which it was opened. The files are opened early: once `/proc` is
/// the sandbox's the helper is not in it.
#[derive(Debug)]
pub(super) struct Counters(Vec<File>);

impl Counters {
    pub(super) fn open() -> Self {
        // Without IPv6 there is no `snmp6`; without either the counts are 0.
        Self(
            ["/proc/self/net/snmp", "/proc/self/net/snmp6"]
                .iter()
                .flat_map(File::open)
                .collect(),
        )
    }

    pub(super) fn read(mut self) -> Refusals {
        let mut text = String::new();
        for file in &mut self.0 {
            let _ = file.read_to_string(&mut text);
        }
        parse(&text)
    }
}

/// `snmp` has a line of names and a line of values for each protocol, `snmp6` a line for each name.
fn parse(text: &str) -> Refusals {
    let mut refusals = Refusals::default();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Udp6NoPorts") => {
                refusals.udp_unreachable += words.next().and_then(|n| n.parse().ok()).unwrap_or(0)
            }
            Some(protocol @ ("Tcp:" | "Udp:")) => {
                let Some(values) = lines.next_if(|values| values.starts_with(protocol)) else {
                    continue;
                };
                let value = |wanted: &str| {
                    let position = line.split_whitespace().position(|name| name == wanted)?;
                    values.split_whitespace().nth(position)?.parse::<u64>().ok()
                };
                refusals.tcp_refused += value("AttemptFails").unwrap_or(0);
                refusals.udp_unreachable += value("NoPorts").unwrap_or(0);
            }
            _ => {}
        }
    }
    refusals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters_are_read() {
        let text = "Tcp: ActiveOpens InErrs AttemptFails OutRsts\nTcp: 3 0 7 9\n\
                    Udp: InDatagrams NoPorts\nUdp: 9 2\nUdp6InDatagrams\t1\nUdp6NoPorts  \t40\n";
        assert_eq!(
            parse(text),
            Refusals {
                tcp_refused: 7,
                udp_unreachable: 42
            }
        );
        assert_eq!(parse("Tcp: AttemptFails\n"), Refusals::default());
        assert_eq!(parse("Tcp: AttemptFails\nTcp: many\n"), Refusals::default());
    }
}
