//! Where connections of the others go.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use rustix::net::sockopt::{ip_original_dst, ipv6_original_dst};
use socket2::{Domain, Socket, Type};

use crate::{
    ways::{EVERY_WAY, PORT, WayOut, answer_everything, connect, open_ways},
    world::{AGENT, GATEWAY, Network, OUTSIDE, addresses, pod},
};

const TRANSPARENT: u16 = 15001;

/// A pod with a listener, in a network that answers: the captured connections of both families.
fn captured() -> (Network, Network, [TcpListener; 2]) {
    let (pod, outside) = pod();
    answer_everything(&outside);
    let listeners = addresses(["127.0.0.1", "::1"]).map(|to| {
        pod.run_as(GATEWAY, move || TcpListener::bind((to, TRANSPARENT)))
            .unwrap()
    });
    pod.capture(Some(TRANSPARENT));
    (pod, outside, listeners)
}

/// Which address the kernel says was dialled, of the next connection.
fn dialled(listener: &TcpListener) -> SocketAddr {
    let (stream, _) = listener.accept().unwrap();
    match stream.local_addr().unwrap().ip().to_canonical() {
        IpAddr::V4(_) => ip_original_dst(&stream).unwrap().into(),
        IpAddr::V6(_) => ipv6_original_dst(&stream).unwrap().into(),
    }
}

#[test]
fn an_agents_connections_arrive_with_the_address_that_it_dialled() {
    let (pod, _outside, listeners) = captured();
    // One that is there, and one that is nowhere.
    for to in [OUTSIDE, ["192.0.2.1", "2001:db8:1::1"]] {
        for (to, listener) in addresses(to).into_iter().zip(&listeners) {
            let to = SocketAddr::new(to, 443);
            let stream = pod.run_as(AGENT, move || connect(to));
            assert!(stream.is_some(), "{to}");
            assert_eq!(dialled(listener), to);
        }
    }
}

#[test]
fn one_socket_of_both_families_tells_the_address_of_each() {
    let (pod, _outside, listeners) = captured();
    drop(listeners);
    let both = pod.run_as(GATEWAY, || TcpListener::bind(("::", TRANSPARENT)));
    let both = both.unwrap();
    for to in addresses(OUTSIDE) {
        let to = SocketAddr::new(to, 443);
        assert!(pod.run_as(AGENT, move || connect(to)).is_some(), "{to}");
        assert_eq!(dialled(&both), to);
    }
}

#[test]
fn the_gateways_own_connections_and_those_to_the_pod_itself_are_not_redirected() {
    let (pod, _outside, listeners) = captured();
    for (to, listener) in addresses(OUTSIDE).into_iter().zip(&listeners) {
        assert_eq!(open_ways(&pod, GATEWAY, to), EVERY_WAY, "{to}");
        let own = listener.local_addr().unwrap();
        assert!(pod.run_as(AGENT, move || connect(own)).is_some());
        assert_eq!(dialled(listener), own);
    }
}

#[test]
fn everything_but_tcp_stays_closed() {
    let (pod, _outside, _listeners) = captured();
    for to in addresses(OUTSIDE) {
        // To the listener.
        assert_eq!(open_ways(&pod, AGENT, to), [WayOut::Tcp], "{to}");
    }
}

#[test]
fn what_is_redirected_goes_nowhere_when_nobody_listens() {
    let (pod, _outside, listeners) = captured();
    drop(listeners);
    for to in addresses(OUTSIDE) {
        assert_eq!(open_ways(&pod, AGENT, to), [], "{to}");
    }
}

/// What is sent to loopback through another interface would reach the node's own loopback where the node routes it.
#[test]
fn a_socket_that_is_bound_to_an_interface_does_not_carry_loopback_out() {
    let (pod, outside, _listeners) = captured();
    for network in [&pod, &outside] {
        network.run(|| {
            for name in ["all", "eth0"] {
                let file = format!("/proc/sys/net/ipv4/conf/{name}/route_localnet");
                std::fs::write(file, "1").unwrap();
            }
        });
    }
    outside.program("nft", "add table inet seen");
    let chain = "add chain inet seen arriving { type filter hook prerouting priority -300; }";
    outside.program("nft", chain);
    for loopback in ["ip daddr 127.0.0.0/8", "ip6 daddr ::1"] {
        let counted = format!("add rule inet seen arriving {loopback} counter");
        outside.program("nft", &counted);
    }
    let ways = [
        OUTSIDE,
        ["127.0.0.1", "::1"],
        ["192.0.2.1", "2001:db8:1::1"],
    ];
    for to in ways.into_iter().flat_map(addresses) {
        for port in [PORT, TRANSPARENT] {
            let to = SocketAddr::new(to, port);
            pod.run_as(AGENT, move || bound_to_interface(to));
            let rules = outside.rules();
            let silent = rules.matches("counter packets 0 bytes 0").count();
            assert_eq!(silent, 2, "{to}: {rules}");
        }
    }
}

fn bound_to_interface(to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind_device(Some(b"eth0")).unwrap();
    let wait = Duration::from_millis(300);
    socket.connect_timeout(&to.into(), wait).ok()?;
    Some(socket.into())
}
