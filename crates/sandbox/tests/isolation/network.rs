//! What the namespace's network answers, and what it refuses.

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use libtest_mimic::Trial;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};

use crate::support::{Folder, User, each, errors, expect, probe, run, text};

pub fn trials() -> Vec<Trial> {
    [
        each(
            "there is a loopback interface and nothing else",
            only_loopback,
        ),
        each(
            "every address on a listened port reaches the listener, which learns the address",
            transparent,
        ),
        each("every other port refuses at once", other_ports),
        each("every server of names is the gateway's", names),
        each("what the namespace refused is counted", counted),
        each("the host's own loopback is not there", host_loopback),
        each("no way of making an untypical socket works", sockets),
        each(
            "abstract sockets of the host are not there",
            abstract_sockets,
        ),
        each(
            "the host's path sockets are covered when Unix sockets are allowed",
            path_sockets,
        ),
        each("many ports fit", many_ports),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn only_loopback(user: User) {
    expect(
        &probe(user, &[], "print(socket.if_nameindex())"),
        &["[(1, 'lo')]"],
    );
}

fn transparent(user: User) {
    let script = r#"
for host, port in [('1.2.3.4', 443), ('127.0.0.1', 80), ('10.0.0.1', 8443), ('169.254.169.254', 80),
                   ('2001:db8::5', 443), ('::1', 80), ('127.0.0.1', int(os.environ['PROXY_PORT']))]:
    stream = socket.create_connection((host, port), 5)
    print(stream.makefile().readline().strip().replace(os.environ['PROXY_PORT'], 'PROXY'))
stream = socket.create_connection(('8.8.8.8', 53), 5)
print(stream.makefile().readline().strip())
"#;
    let expected = [
        "port 1.2.3.4:443",
        "port 127.0.0.1:80",
        "port 10.0.0.1:8443",
        "port 169.254.169.254:80",
        "port [2001:db8::5]:443",
        "port [::1]:80",
        "proxy 127.0.0.1:PROXY",
        "dns 8.8.8.8:53",
    ];
    expect(&probe(user, &[], script), &expected);
}

fn other_ports(user: User) {
    let script = r#"
import time
begin = time.monotonic()
for host, port in [('1.2.3.4', 22), ('127.0.0.1', 8080), ('2001:db8::1', 22), ('::1', 8080)]:
    tell('tcp', lambda: socket.create_connection((host, port), 5))
for family, host in [(socket.AF_INET, '1.2.3.4'), (socket.AF_INET6, '2001:db8::1')]:
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(5); s.connect((host, 443))
    def ask(): s.send(b'quic'); s.recv(10)
    tell('udp', ask)
print('at once' if time.monotonic() - begin < 1 else 'late')
"#;
    let tcp = "tcp ECONNREFUSED";
    expect(
        &probe(user, &[], script),
        &[
            tcp,
            tcp,
            tcp,
            tcp,
            "udp ECONNREFUSED",
            "udp ECONNREFUSED",
            "at once",
        ],
    );
}

fn names(user: User) {
    let script = r#"
for family, host in [(socket.AF_INET, '9.9.9.9'), (socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '2001:db8::53')]:
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(5); s.sendto(b'q', (host, 53)); print(s.recv(100).decode())
print(open('/etc/resolv.conf').read().strip())
"#;
    expect(
        &probe(user, &[], script),
        &[
            "dns 9.9.9.9",
            "dns 127.0.0.1",
            "dns 2001:db8::53",
            "nameserver 127.0.0.1",
        ],
    );
}

fn counted(user: User) {
    let script = "import socket\nfor _ in range(3): socket.socket().connect_ex(('1.2.3.4', 22))\n\
                  for _ in range(2): socket.socket(2, 2).sendto(b'', ('1.2.3.4', 443))";
    let output = run(user, &["--events"], &["python3", "-c", script]);
    let told = errors(&output);
    assert!(
        told.contains("Refused(Refusals { tcp_refused: 3, udp_unreachable: 2 })"),
        "{told}"
    );
}

fn host_loopback(user: User) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script =
        format!("tell('host', lambda: socket.create_connection(('127.0.0.1', {port}), 5))");
    expect(&probe(user, &[], &script), &["host ECONNREFUSED"]);
}

fn sockets(user: User) {
    let folder = Folder::new();
    let path = folder.path().join("service.sock");
    let _service = UnixListener::bind(&path).unwrap();
    let packets = folder.path().join("packets.sock");
    let listener = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::empty(),
        None,
    )
    .unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new(&packets).unwrap()).unwrap();
    listen(&listener, Backlog::new(1).unwrap()).unwrap();
    for path in [&path, &packets] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    }
    let script = r#"
SOCK = socket.socket
tell('raw', lambda: SOCK(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
tell('raw6', lambda: SOCK(socket.AF_INET6, socket.SOCK_RAW, 58))
tell('ping', lambda: SOCK(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP))
tell('packet', lambda: SOCK(socket.AF_PACKET, socket.SOCK_RAW, 3))
tell('vsock', lambda: SOCK(socket.AF_VSOCK, socket.SOCK_STREAM))
tell('unix', lambda: SOCK(socket.AF_UNIX, socket.SOCK_STREAM))
tell('unix, high half set', lambda: call(41 if os.uname().machine == 'x86_64' else 198, 0x100000001, 1, 0))
tell('netfilter', lambda: SOCK(socket.AF_NETLINK, socket.SOCK_RAW, 12))
tell('vsock pair', lambda: socket.socketpair(socket.AF_VSOCK, socket.SOCK_STREAM))
tell('datagram pair', lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC))
tell('raw pair', lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_RAW))
for kind, service in (socket.SOCK_STREAM, SERVICE), (socket.SOCK_SEQPACKET, PACKETS):
    pair = socket.socketpair(socket.AF_UNIX, kind)
    tell('pair', lambda: pair[0].send(b'123'))
    tell('pair to a path', lambda: pair[0].connect(service))
tell('routes', lambda: str(len(socket.if_nameindex())))
def raise_loopback():
    import fcntl, struct
    fcntl.ioctl(SOCK(), 0x8914, struct.pack('16sH14x', b'lo', 0))
tell('take lo down', raise_loopback)
tell('low port', lambda: SOCK().bind(('127.0.0.1', 81)))
def serve():
    s = SOCK(); s.bind(('127.0.0.1', 0)); s.listen(); socket.create_connection(s.getsockname())
tell('own server', serve)
"#;
    let expected = [
        "raw EPERM",
        "raw6 EPERM",
        "ping EACCES",
        "packet EAFNOSUPPORT",
        "vsock EAFNOSUPPORT",
        "unix EPERM",
        "unix, high half set EPERM",
        "netfilter EPERM",
        "vsock pair EAFNOSUPPORT",
        "datagram pair EPERM",
        "raw pair EPERM",
        "pair 3",
        "pair to a path EISCONN",
        "pair 3",
        "pair to a path EISCONN",
        "routes 1",
        "take lo down EPERM",
        "low port EACCES",
        "own server ok",
    ];
    expect(
        &probe(
            user,
            &[],
            &format!("SERVICE, PACKETS = {path:?}, {packets:?}\n{script}"),
        ),
        &expected,
    );
}

fn abstract_sockets(user: User) {
    let name = format!("outgate-isolation-{}-{user:?}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _service = UnixListener::bind_addr(&address).unwrap();
    let script =
        format!("tell('abstract', lambda: socket.socket(socket.AF_UNIX).connect('\\0{name}'))");
    expect(
        &probe(user, &["--unix-sockets"], &script),
        &["abstract ECONNREFUSED"],
    );
}

fn path_sockets(user: User) {
    let folder = Folder::new();
    let path = folder.path().join("with a space.sock");
    let _service = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
    let script = format!(
        r#"
path = {path:?}
tell('reachable', lambda: socket.socket(socket.AF_UNIX).connect(path))
s = socket.socket(socket.AF_UNIX); s.bind(path + '.own'); s.listen()
tell('own', lambda: socket.socket(socket.AF_UNIX).connect(path + '.own'))
"#
    );
    expect(
        &probe(user, &["--unix-sockets"], &script),
        &["reachable ECONNREFUSED", "own ok"],
    );
}

fn many_ports(user: User) {
    let ports: Vec<_> = (20_000..20_200).map(|port: u16| port.to_string()).collect();
    let options: Vec<_> = ports
        .iter()
        .flat_map(|port| ["--port", port.as_str()])
        .collect();
    let script =
        "print(socket.create_connection(('4.3.2.1', 20199), 5).makefile().readline().strip())";
    expect(&probe(user, &options, script), &["port 4.3.2.1:20199"]);
    let output = run(user, &["--port", "65536"], &["true"]);
    assert_ne!(output.status.code(), Some(0), "{}", text(&output));
}
