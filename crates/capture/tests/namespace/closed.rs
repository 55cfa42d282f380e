//! What is closed, for whom, and what has to stay open.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::mpsc::channel,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    ways::{EVERY_WAY, PORT, answer_everything, asks, connect, open_ways},
    world::{AGENT, GATEWAY, INSIDE, Network, OUTSIDE, addresses, pod},
};

#[test]
fn every_way_out_is_open_without_rules() {
    let (pod, outside) = pod();
    answer_everything(&outside);
    for to in addresses(OUTSIDE) {
        assert_eq!(open_ways(&pod, AGENT, to), EVERY_WAY, "{to}");
    }
}

#[test]
fn every_way_out_is_closed_to_all_users_but_the_gateways() {
    let (pod, outside) = pod();
    answer_everything(&outside);
    pod.capture(None);
    for to in addresses(OUTSIDE) {
        for user in [AGENT, 0, GATEWAY - 1, GATEWAY + 1] {
            assert_eq!(open_ways(&pod, user, to), [], "{to} for {user}");
        }
        assert_eq!(open_ways(&pod, GATEWAY, to), EVERY_WAY, "{to}");
    }
}

#[test]
fn what_stays_in_the_pod_is_open_to_everybody() {
    let (pod, _outside) = pod();
    answer_everything(&pod);
    pod.capture(None);
    for to in [INSIDE, ["127.0.0.1", "::1"]]
        .into_iter()
        .flat_map(addresses)
    {
        assert_eq!(open_ways(&pod, AGENT, to), EVERY_WAY, "{to}");
    }
}

#[test]
fn an_agent_answers_who_connects_from_outside_but_no_datagram() {
    let (pod, outside) = pod();
    pod.run_as(AGENT, || {
        let any: SocketAddr = ([0; 8], PORT).into();
        let listener = TcpListener::bind(any).unwrap();
        let socket = UdpSocket::bind(any).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = (&stream).write_all(b"hello");
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
    });
    let answered = |outside: &Network| {
        addresses(INSIDE).map(|to| {
            outside.run(move || {
                let to = SocketAddr::new(to, PORT);
                let mut said = [0; 5];
                let by_tcp = connect(to).is_some_and(|mut it| it.read_exact(&mut said).is_ok());
                (by_tcp, asks(to))
            })
        })
    };
    assert_eq!(answered(&outside), [(true, true); 2]);
    pod.capture(None);
    assert_eq!(answered(&outside), [(true, false); 2]);
}

#[test]
fn a_connection_that_was_open_before_is_cut() {
    let (pod, outside) = pod();
    answer_everything(&outside);
    // Whoever has rules about connections has the kernel know those that are open.
    pod.program("nft", "add table inet other");
    let chain = "add chain inet other sent { type filter hook output priority 10; }";
    pod.program("nft", chain);
    pod.program(
        "nft",
        "add rule inet other sent ct state established counter",
    );
    let open = addresses(OUTSIDE).map(|to| {
        let mut stream = pod
            .run_as(AGENT, move || connect(SocketAddr::new(to, PORT)))
            .unwrap();
        assert!(is_echoed(&mut stream));
        stream
    });
    pod.capture(None);
    for mut stream in open {
        assert!(!is_echoed(&mut stream));
    }
}

/// IPv6 lets everybody bind an address that is not this machine's. What answers on the machine would answer to outside.
#[test]
fn who_sends_from_an_address_outside_gets_no_answer_out() {
    let (pod, outside) = pod();
    let [_, inside] = addresses(INSIDE);
    let [_, elsewhere] = addresses(OUTSIDE);
    let heard = outside.run(move || Heard::new(elsewhere));
    let tries = move |pod: &Network| {
        pod.run_as(AGENT, move || {
            let _listener = TcpListener::bind(SocketAddr::new(inside, PORT)).unwrap();
            for kind in [Type::STREAM, Type::DGRAM] {
                let socket = Socket::new(Domain::IPV6, kind, None).unwrap();
                socket.set_freebind_v6(true).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket.bind(&SocketAddr::new(elsewhere, 0).into()).unwrap();
                // Nobody has the second one's port: the kernel says so, with what was sent.
                let port = if kind == Type::STREAM { PORT } else { PORT + 1 };
                let _ = socket.connect(&SocketAddr::new(inside, port).into());
                let _ = socket.send(b"hello");
                std::thread::sleep(Duration::from_millis(100));
            }
        });
    };
    tries(&pod);
    assert!(heard.packets() >= 2, "without rules it is heard");
    for redirect in [None, Some(15001)] {
        pod.capture(redirect);
        heard.packets();
        tries(&pod);
        assert_eq!(heard.packets(), 0, "{redirect:?}");
    }
}

/// What comes of TCP, and of errors, to an address.
struct Heard([Socket; 2]);

impl Heard {
    fn new(at: IpAddr) -> Self {
        Self([Protocol::TCP, Protocol::ICMPV6].map(|protocol| {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(protocol)).unwrap();
            socket.bind(&SocketAddr::new(at, 0).into()).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        }))
    }

    /// How many came since it was last asked; neighbour discovery is none of them.
    fn packets(&self) -> usize {
        let mut count = 0;
        for (mut socket, is_icmp) in self.0.iter().zip([false, true]) {
            let mut packet = [0; 2048];
            while socket.read(&mut packet).is_ok() {
                count += usize::from(!is_icmp || packet[0] < 128);
            }
        }
        count
    }
}

fn is_echoed(stream: &mut TcpStream) -> bool {
    let mut back = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut back).is_ok()
}

/// The rest of what was written leaves after the socket is closed, when it is nobody's any more.
#[test]
fn what_the_gateway_wrote_last_arrives_after_its_socket_is_closed() {
    const SIZE: usize = 8 << 20;
    let (pod, outside) = pod();
    pod.capture(None);
    for to in addresses(OUTSIDE) {
        let to = SocketAddr::new(to, PORT);
        let listener = outside.run(move || TcpListener::bind(to)).unwrap();
        let (tell, told) = channel();
        outside.begin(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            // Nothing fits into the window until the other end is gone.
            std::thread::sleep(Duration::from_millis(500));
            let mut all = Vec::new();
            tell.send(stream.read_to_end(&mut all).map(|_| all.len()))
                .unwrap();
        });
        let written = pod.run_as(GATEWAY, move || {
            let stream = connect(to).unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut written = 0;
            while let Ok(length) = (&stream).write(&[7; 65536]) {
                written += length;
                if written >= SIZE {
                    break;
                }
            }
            written
        });
        assert_eq!(told.recv().unwrap().unwrap(), written);
    }
}

#[test]
fn neighbours_are_found_after_they_were_forgotten() {
    let (pod, outside) = pod();
    answer_everything(&outside);
    pod.capture(None);
    for to in addresses(OUTSIDE) {
        for network in [&pod, &outside] {
            network.ip("neigh flush dev eth0");
            network.ip("-6 neigh flush dev eth0");
        }
        assert_eq!(open_ways(&pod, GATEWAY, to), EVERY_WAY, "{to}");
    }
}
