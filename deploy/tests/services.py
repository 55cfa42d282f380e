"""What is outside the cluster, and its DNS: an HTTPS server that tells what it was sent, and names with addresses."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

from netns import Namespace
from reachability import family
from wire import FAMILIES


class Upstream:
    """Serves every name of its certificate on port 443 of these addresses, and keeps the heads that it was sent."""

    def __init__(self, namespace: Namespace, addresses: tuple[str, ...], certificate: Path, key: Path) -> None:
        self.seen: list[dict[str, str]] = []
        self.stream_may_end = threading.Event()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._servers = [self._server(namespace, it, context) for it in addresses]

    def _server(self, namespace: Namespace, address: str, context: ssl.SSLContext) -> ThreadingHTTPServer:
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                self.request = context.wrap_socket(self.request, server_side=True)
                super().setup()

            def do_GET(self) -> None:
                head = {name.lower(): value for name, value in self.headers.items()}
                upstream.seen.append(head)
                if self.path == "/v1/stream":
                    return self._stream()
                text = json.dumps({"host": head.get("host"), "address": address}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def _stream(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                self._chunk(b"data: first\n\n")
                upstream.stream_may_end.wait(30)
                self._chunk(b"data: last\n\n")
                self._chunk(b"")

            def _chunk(self, text: bytes) -> None:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(text), text))

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            address_family = FAMILIES[family(address)]
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                """A client that goes away in the middle is its own affair."""

        with namespace.entered():
            server = Server((address, 443), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def close(self) -> None:
        self.stream_may_end.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


class Dns:
    """Answers for these names over UDP, for every other one that there is none, and keeps what it was asked."""

    def __init__(self, namespace: Namespace, addresses: tuple[str, ...], names: dict[str, tuple[str, ...]]) -> None:
        self.asked: list[str] = []
        self._names = names
        self._sockets = []
        for address in addresses:
            with namespace.entered():
                peer = socket.socket(FAMILIES[family(address)], socket.SOCK_DGRAM)
            peer.bind((address, 53))
            self._sockets.append(peer)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        while True:
            try:
                query, sender = peer.recvfrom(4096)
                if not query:
                    return
                peer.sendto(self._answer(query), sender)
            except OSError:
                return

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        name, kind = ".".join(labels).lower(), struct.unpack("!H", query[at + 1 : at + 3])[0]
        self.asked.append(name)
        version = {1: 4, 28: 6}.get(kind)
        found = [ip_address(it).packed for it in self._names.get(name, ()) if family(it) == version]
        records = b"".join(struct.pack("!HHHIH", 0xC00C, kind, 1, 5, len(it)) + it for it in found)
        # Recursion is there; a name that nobody has is NXDOMAIN.
        flags = 0x8180 if name in self._names else 0x8183
        head = query[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0)
        return head + query[12 : at + 5] + records

    def close(self) -> None:
        for peer in self._sockets:
            # Wakes the thread that waits in recvfrom; closing alone does not.
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            peer.close()
