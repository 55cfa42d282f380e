"""The real services' stand-in: an HTTPS server for every name, with HTTP/1.1, HTTP/2 and WebSocket.

It accepts only the real credential of each service, and records every request head as it arrived.
"""

import asyncio
import base64
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

from hypercorn.asyncio import serve
from hypercorn.config import Config

import pki
from services import ROUTES, Seen, echo, git, read_body, refuse_websocket, unauthorized, websocket

# One loopback address a name: a client that ends up at another service's address is noticed.
ADDRESSES = {
    "api.openai.com": "127.0.0.11",
    "api.anthropic.com": "127.0.0.12",
    "github.com": "127.0.0.13",
    "echo.example.com": "127.0.0.14",
    "query.example.com": "127.0.0.15",
    "plain.example.com": "127.0.0.16",
    "public.example.org": "127.0.0.17",
    "grpc.example.com": "127.0.0.18",
    "packages.example.com": "127.0.0.19",
    "files.example.net": "127.0.0.20",
    "npm.example.net": "127.0.0.21",
    # Served, and in no policy: that nothing arrives here is the gateway's doing.
    "closed.example.net": "127.0.0.22",
}

KEYS = {
    "openai": "sk-real-openai-6f1e0d7ab2c94853",
    "anthropic": "sk-ant-real-anthropic-91b7c3f25e08",
    "github": "ghp_realGithubToken4d2c9a7be1f0",
    "echo": "echo-real-key-7a31f0c9d5b2e846",
    "query": "query-real-key-52c8e1f7b93d",
    "plain": "plain-real-key-0d94ab6e37f1",
    "grpc": "grpc-real-key-c3e85b1f97a2",
    "packages": "packages-real-key-8b2d40e6f19a",
    "npm": "npm_realRegistryToken5c1e8f0a",
}

# Where this service is served beside port 443.
FURTHER_PORTS = {"plain.example.com": 80, "public.example.org": 8443, "closed.example.net": 8443}


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


# What the head of a good request holds, and nothing else will do.
PROOF = {
    "api.openai.com": ("authorization", f"Bearer {KEYS['openai']}"),
    "api.anthropic.com": ("x-api-key", KEYS["anthropic"]),
    "github.com": ("authorization", basic("x-access-token", KEYS["github"])),
    "echo.example.com": ("authorization", f"Bearer {KEYS['echo']}"),
    "plain.example.com": ("x-api-key", KEYS["plain"]),
    "packages.example.com": ("authorization", basic("__token__", KEYS["packages"])),
    "npm.example.net": ("authorization", f"Bearer {KEYS['npm']}"),
}


@dataclass
class Upstream:
    """The running services and what they saw."""

    folder: Path
    ca: Path
    repositories: Path
    seen: list[Seen] = field(default_factory=list)
    stop: asyncio.Event | None = None

    def start(self) -> None:
        certificate, key = pki.issue(self.folder, sorted(ADDRESSES))
        config = Config()
        names = [name for name in ADDRESSES if name != "grpc.example.com"]
        config.bind = [f"{ADDRESSES[name]}:443" for name in names]
        further = [(port, f"{ADDRESSES[name]}:{port}") for name, port in FURTHER_PORTS.items()]
        config.bind += [address for port, address in further if port != 80]
        config.insecure_bind = [address for port, address in further if port == 80]
        config.certfile, config.keyfile = str(certificate), str(key)
        config.alpn_protocols = ["h2", "http/1.1"]
        config.accesslog = config.errorlog = None
        config.graceful_timeout = 0.2
        config.h11_max_incomplete_size = 64 * 1024
        ready = threading.Event()

        def run() -> None:
            async def main() -> None:
                self.stop = asyncio.Event()
                self.loop = asyncio.get_running_loop()
                ready.set()
                await serve(self.application, config, shutdown_trigger=self.stop.wait)

            asyncio.run(main())

        self.thread = threading.Thread(target=run, name="upstream", daemon=True)
        self.thread.start()
        assert ready.wait(10), "the upstream did not start"
        for name in names:
            wait_for_port(ADDRESSES[name], 443)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(10)

    def heads(self, host: str) -> list[Seen]:
        """What this service saw since the test began."""
        return [seen for seen in self.seen if seen.host == host]

    async def application(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        headers = [(key.decode("latin-1").lower(), value.decode("latin-1")) for key, value in scope["headers"]]
        server = scope["server"][0]
        host = next(name for name, address in ADDRESSES.items() if address == server)
        seen = Seen(
            host=host,
            address=server,
            method=scope.get("method", "WEBSOCKET"),
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            version=scope["http_version"],
            headers=headers,
        )
        self.seen.append(seen)
        if scope["type"] == "websocket":
            return await (websocket if proven(seen) else refuse_websocket)(receive, send)
        if not proven(seen):
            return await unauthorized(seen, send)
        if host == "github.com":
            return await git(self.repositories, seen, receive, send)
        body = await read_body(seen, receive)
        await ROUTES.get((host, seen.path), echo)(seen, body, send)


def proven(seen: Seen) -> bool:
    if seen.host == "query.example.com":
        return parse_qs(seen.query).get("key") == [KEYS["query"]]
    if seen.host not in PROOF:
        return True
    name, value = PROOF[seen.host]
    return seen.header(name) == [value]


async def lifespan(receive, send) -> None:
    while True:
        event = await receive()
        await send({"type": event["type"] + ".complete"})
        if event["type"] == "lifespan.shutdown":
            return


def wait_for_port(address: str, port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection((address, port), 1).close()
            return
        except OSError:
            threading.Event().wait(0.05)
    raise TimeoutError(f"nothing listens on {address}:{port}")
