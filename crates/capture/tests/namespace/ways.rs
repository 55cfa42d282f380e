//! The ways out that are tried, and what answers at their other ends.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::world::Network;

/// Where everything answers.
pub const PORT: u16 = 4430;
const WAIT: Duration = Duration::from_millis(700);

/// A way to another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayOut {
    Tcp,
    Udp,
    /// Through a socket that needs no right.
    Ping,
    /// Through a raw socket.
    RawPing,
}

pub const EVERY_WAY: [WayOut; 4] = [WayOut::Tcp, WayOut::Udp, WayOut::Ping, WayOut::RawPing];

impl WayOut {
    /// Whether something comes back from there.
    pub fn is_open(self, to: IpAddr) -> bool {
        match self {
            Self::Tcp => connect(SocketAddr::new(to, PORT)).is_some(),
            Self::Udp => asks(SocketAddr::new(to, PORT)),
            Self::Ping => pings(to, Type::DGRAM),
            Self::RawPing => pings(to, Type::RAW),
        }
    }
}

/// Every way that is open, for a user.
pub fn open_ways(network: &Network, user: u32, to: IpAddr) -> Vec<WayOut> {
    network.run_as(user, move || {
        let open = EVERY_WAY.into_iter().filter(|way| way.is_open(to));
        open.collect()
    })
}

pub fn connect(to: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, WAIT).ok()?;
    stream.set_read_timeout(Some(WAIT)).unwrap();
    Some(stream)
}

/// Whether a datagram is answered.
pub fn asks(to: SocketAddr) -> bool {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket.send_to(b"?", to).is_ok() && socket.recv_from(&mut [0; 16]).is_ok()
}

fn pings(to: IpAddr, kind: Type) -> bool {
    let (domain, protocol, request, reply) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let socket = UdpSocket::from(Socket::new(domain, kind, Some(protocol)).unwrap());
    socket.set_read_timeout(Some(WAIT)).unwrap();
    let mut echo = [request, 0, 0, 0, 0, 1, 0, 1];
    if to.is_ipv4() {
        // The kernel sums up for IPv6, and for sockets that need no right.
        let sum = !(u16::from_be_bytes([request, 0]) + 2);
        echo[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    if socket.send_to(&echo, (to, 0)).is_err() {
        return false;
    }
    let has_header = to.is_ipv4() && kind == Type::RAW;
    let mut buffer = [0; 128];
    while let Ok((_, from)) = socket.recv_from(&mut buffer) {
        if from.ip() == to && buffer[if has_header { 20 } else { 0 }] == reply {
            return true;
        }
    }
    false
}

/// Answers on every way but pings, which the kernel answers: what is sent over TCP and UDP comes back.
pub fn answer_everything(network: &Network) {
    network.run(|| {
        let any: SocketAddr = (Ipv6Addr::UNSPECIFIED, PORT).into();
        let listener = TcpListener::bind(any).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || echo(stream));
            }
        });
        let socket = UdpSocket::bind(any).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
    });
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
