"""Tries to get out, every way it knows, and prints what came of each attempt as JSON.

Argument: what there is on the host, as JSON: `udp`, `tcp` (lists of [address, port]), `abstract` (a name), `paths`.
"""

import errno
import json
import os
import select
import socket
import ssl
import struct
import sys
import time

host = json.loads(sys.argv[1])
attempts = {}
LIMIT = 3


def attempt(name, action, *arguments):
    start = time.monotonic()
    try:
        result = action(*arguments)
    except ssl.SSLError as error:
        result = f"TLS: {error.reason}"
    except OSError as error:
        # `timed out` has no number: that is what must not happen.
        result = errno.errorcode.get(error.errno, str(error))
    attempts[name] = {"result": result, "seconds": time.monotonic() - start}


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def tcp(address, port):
    with socket.socket(family(address), socket.SOCK_STREAM) as it:
        it.settimeout(LIMIT)
        it.connect((address, port))
        return "connected"


def said(address, port, data):
    """What answers to these bytes."""
    with socket.create_connection((address, port), LIMIT) as it:
        it.sendall(data)
        answer = b""
        while part := it.recv(65536):
            answer += part
        return answer.decode(errors="replace")


def get(address, port, name, path):
    return said(address, port, f"GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n".encode())


def tls(address, port, name):
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    with context.wrap_socket(socket.create_connection((address, port), LIMIT), server_hostname=name) as it:
        it.sendall(f"GET /from-escape HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n".encode())
        return it.recv(65536).decode(errors="replace").split("\r\n")[0]


def udp(address, port, data=b"hello"):
    with socket.socket(family(address), socket.SOCK_DGRAM) as it:
        it.settimeout(LIMIT)
        it.connect((address, port))
        it.send(data)
        return f"{len(it.recv(65536))} bytes"


def question(name, kind):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">6H", 0x4F47, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", kind, 1)


def outcome(answer):
    _, flags, _, answers, _, _ = struct.unpack(">6H", answer[:12])
    return f"code {flags & 15}, {answers} answers"


def dns_udp(address, name, kind):
    with socket.socket(family(address), socket.SOCK_DGRAM) as it:
        it.settimeout(LIMIT)
        it.connect((address, 53))
        it.send(question(name, kind))
        return outcome(it.recv(65536))


def dns_tcp(address, name, kind):
    asked = question(name, kind)
    with socket.create_connection((address, 53), LIMIT) as it:
        it.sendall(struct.pack(">H", len(asked)) + asked)
        answer = b""
        while len(answer) < 2 or len(answer) < 2 + int.from_bytes(answer[:2], "big"):
            part = it.recv(65536)
            if not part:
                return "closed"
            answer += part
        return outcome(answer[2:])


def made(*arguments):
    socket.socket(*arguments).close()
    return "made"


def unix(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as it:
        it.connect(path)
        return "connected"


def ping(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as it:
        it.settimeout(LIMIT)
        it.connect((address, 0))
        it.send(struct.pack(">BBHHH", 8, 0, 0, 1, 1))
        return f"{len(it.recv(1024))} bytes"


def netlink_adds_an_address():
    """RTM_NEWADDR for 10.9.8.7 on lo: needs CAP_NET_ADMIN over the namespace."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as it:
        it.settimeout(LIMIT)
        payload = struct.pack("=BBBBI", 2, 8, 0, 0, 1) + struct.pack("=HH4s", 8, 2, bytes([10, 9, 8, 7]))
        it.send(struct.pack("=IHHII", 16 + len(payload), 20, 0x0605, 1, 0) + payload)
        number = struct.unpack("=i", it.recv(4096)[16:20])[0]
        return errno.errorcode.get(-number, "done")


def in_the_background(address, port):
    """A connect that would take for ever shows as one that is still on its way."""
    with socket.socket(family(address), socket.SOCK_STREAM) as it:
        it.setblocking(False)
        number = it.connect_ex((address, port))
        if number == errno.EINPROGRESS:
            if not select.select([], [it], [], LIMIT)[1]:
                return "hangs"
            number = it.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return errno.errorcode.get(number, "connected")


ALLOWED, CLOSED = "public.example.org", "closed.example.net"
for address in ("8.8.8.8", "10.0.0.1", "2001:db8::1", "127.0.0.1", "::1", "169.254.169.254"):
    for port in (22, 25, 8080, 65535):
        attempt(f"tcp {address} {port}", tcp, address, port)
for address, port in host["tcp"]:
    attempt(f"host tcp {address} {port}", in_the_background, address, port)
for address in ("8.8.8.8", "2001:db8::1", "127.0.0.1"):
    for port in (443, 123, 80):
        attempt(f"udp {address} {port}", udp, address, port)
for address, port in host["udp"]:
    attempt(f"host udp {address} {port}", udp, address, port)
for address in ("8.8.8.8", "127.0.0.53", "2001:db8::1"):
    for name, kind in ((ALLOWED, 1), (ALLOWED, 65), (ALLOWED, 16), (CLOSED, 1), (f"secret-data.{CLOSED}", 16)):
        attempt(f"dns udp {address} {name} {kind}", dns_udp, address, name, kind)
        attempt(f"dns tcp {address} {name} {kind}", dns_tcp, address, name, kind)

for address in ("8.8.8.8", "2001:db8::1", "127.0.0.11"):
    attempt(f"tls {address} {ALLOWED}", tls, address, 443, ALLOWED)
    attempt(f"tls {address} {CLOSED}", tls, address, 443, CLOSED)
attempt("tls without a name", tls, "8.8.8.8", 443, None)
attempt("no tls on 443", said, "8.8.8.8", 443, b"SSH-2.0-escape\r\n")
attempt("metadata", get, "169.254.169.254", 80, "169.254.169.254", "/latest/meta-data/")
attempt("http closed", get, "8.8.8.8", 80, CLOSED, "/?secret")

proxy_host, proxy_port = os.environ["HTTPS_PROXY"].rsplit("@")[1].split(":")
for name in (f"{proxy_host}:{proxy_port}", "127.0.0.1:22", "169.254.169.254:80", "localhost:443", f"{CLOSED}:443"):
    head = f"CONNECT {name} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n"
    attempt(f"connect {name}", said, proxy_host, int(proxy_port), head.encode())
attempt("operator side", get, proxy_host, int(proxy_port), "outgate", "/v1/sessions")

attempt("raw icmp", made, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
attempt("raw tcp", made, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
attempt("raw ipv6", made, socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
attempt("packet", made, socket.AF_PACKET, socket.SOCK_RAW, 0x0300)
attempt("vsock", made, getattr(socket, "AF_VSOCK", 40), socket.SOCK_STREAM)
attempt("ping", ping, "8.8.8.8")
attempt("netlink", netlink_adds_an_address)
attempt("unix", made, socket.AF_UNIX, socket.SOCK_STREAM)
attempt("abstract", unix, "\0" + host["abstract"])
for path in host["paths"]:
    attempt(f"path {path}", unix, path)
with socket.socketpair()[0]:
    attempts["socketpair"] = {"result": "made", "seconds": 0}
attempt("a listener for children", lambda: socket.create_server(("127.0.0.1", 0)).close() or "made")
print(json.dumps(attempts))
