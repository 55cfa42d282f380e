"""The real services' stand-in: an HTTPS server for every name, with HTTP/1.1, HTTP/2 and WebSocket.

It accepts only the real credential of each service, and records every request head as it arrived.
"""

import asyncio
import base64
import hashlib
import json
import os
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

from hypercorn.asyncio import serve
from hypercorn.config import Config

import pki

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
}

KEYS = {
    "openai": "sk-real-openai-6f1e0d7ab2c94853",
    "anthropic": "sk-ant-real-anthropic-91b7c3f25e08",
    "github": "ghp_realGithubToken4d2c9a7be1f0",
    "echo": "echo-real-key-7a31f0c9d5b2e846",
    "query": "query-real-key-52c8e1f7b93d",
    "plain": "plain-real-key-0d94ab6e37f1",
    "grpc": "grpc-real-key-c3e85b1f97a2",
}

PIECES = ["The ", "gateway ", "streams ", "this."]
PAUSE = 0.2
BIG = hashlib.shake_256(b"big").digest(1 << 20) * 12


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


# What the head of a good request holds, and nothing else will do.
PROOF = {
    "api.openai.com": ("authorization", f"Bearer {KEYS['openai']}"),
    "api.anthropic.com": ("x-api-key", KEYS["anthropic"]),
    "github.com": ("authorization", basic("x-access-token", KEYS["github"])),
    "echo.example.com": ("authorization", f"Bearer {KEYS['echo']}"),
    "plain.example.com": ("x-api-key", KEYS["plain"]),
}


@dataclass
class Seen:
    """One request head as the upstream got it."""

    host: str
    address: str
    method: str
    path: str
    query: str
    version: str
    headers: list[tuple[str, str]]
    body_bytes: int = 0

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def text(self) -> str:
        return "\n".join([self.path, self.query, *(f"{key}: {value}" for key, value in self.headers)])


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
        config.insecure_bind = [f"{ADDRESSES['plain.example.com']}:80"]
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
            return await websocket(seen, receive, send)
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


async def read_body(seen: Seen, receive) -> bytes:
    parts = []
    async for part in body_parts(seen, receive):
        parts.append(part)
    return b"".join(parts)


async def body_parts(seen: Seen, receive):
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ConnectionError("the request ended early")
        seen.body_bytes += len(event.get("body", b""))
        yield event.get("body", b"")
        if not event.get("more_body"):
            return


async def answer(send, status: int, headers: dict[str, str], body: bytes) -> None:
    head = [(key.encode(), value.encode()) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def answer_json(send, value, status: int = 200) -> None:
    body = json.dumps(value).encode()
    await answer(send, status, {"content-type": "application/json", "content-length": str(len(body))}, body)


async def unauthorized(seen: Seen, send) -> None:
    """The upstream's own refusal: a test that sees it sent no real key, or a wrong one."""
    headers = {"content-type": "application/json", "www-authenticate": 'Basic realm="upstream"'}
    await answer(send, 401, headers, b'{"error":{"message":"the upstream refused the key","type":"upstream"}}')


async def stream(send, events: list[str]) -> None:
    """Server-sent events with a pause between them, so that a buffering gateway is noticed."""
    head = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    for event in events:
        await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        await asyncio.sleep(PAUSE)
    await send({"type": "http.response.body", "body": b""})


async def chat_completions(seen: Seen, body: bytes, send) -> None:
    """OpenAI: POST /v1/chat/completions."""
    asked = json.loads(body)
    frame = {"id": "chatcmpl-1", "created": 1790000000, "model": asked["model"]}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": "".join(PIECES), "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        return await answer_json(send, frame | {"object": "chat.completion", "choices": [choice], "usage": usage})
    deltas = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in PIECES), {}]
    chunks = []
    for delta in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
        chunks.append(frame | {"object": "chat.completion.chunk", "choices": [choice]})
    await stream(send, [*(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks), "data: [DONE]\n\n"])


async def models(seen: Seen, body: bytes, send) -> None:
    """OpenAI: GET /v1/models."""
    model = {"id": "gpt-test", "object": "model", "created": 1790000000, "owned_by": "openai"}
    await answer_json(send, {"object": "list", "data": [model]})


async def messages(seen: Seen, body: bytes, send) -> None:
    """Anthropic: POST /v1/messages."""
    asked = json.loads(body)
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }
    if not asked.get("stream"):
        content = [{"type": "text", "text": "".join(PIECES)}]
        return await answer_json(send, message | {"content": content, "stop_reason": "end_turn"})
    events = [{"type": "message_start", "message": message}]
    events.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    events += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}} for piece in PIECES
    ]
    events.append({"type": "content_block_stop", "index": 0})
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    events.append({"type": "message_delta", "delta": stop, "usage": {"output_tokens": 4}})
    events.append({"type": "message_stop"})
    await stream(send, [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events])


async def big(seen: Seen, body: bytes, send) -> None:
    await answer(send, 200, {"content-type": "application/octet-stream", "content-length": str(len(BIG))}, BIG)


async def ticks(seen: Seen, body: bytes, send) -> None:
    await stream(send, [f"data: {number}\n\n" for number in range(4)])


async def echo(seen: Seen, body: bytes, send) -> None:
    """Says what arrived, the real key included: the gateway has to scrub it."""
    await answer_json(
        send,
        {
            "host": seen.host,
            "method": seen.method,
            "path": seen.path,
            "query": seen.query,
            "version": seen.version,
            "headers": seen.headers,
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        },
    )


async def websocket(seen: Seen, receive, send) -> None:
    await receive()
    if not proven(seen):
        return await send({"type": "websocket.close", "code": 4401})
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        if event.get("text") is not None:
            await send({"type": "websocket.send", "text": event["text"][::-1]})
        else:
            await send({"type": "websocket.send", "bytes": event["bytes"][::-1]})


async def git(repositories: Path, seen: Seen, receive, send) -> None:
    """GitHub: the CGI program that git ships for its smart HTTP protocol."""
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_PROJECT_ROOT": str(repositories),
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        "REMOTE_USER": "octocat",
        "REMOTE_ADDR": "127.0.0.1",
        "REQUEST_METHOD": seen.method,
        "PATH_INFO": seen.path,
        "QUERY_STRING": seen.query,
        "CONTENT_TYPE": "".join(seen.header("content-type")),
        "GIT_PROTOCOL": "".join(seen.header("git-protocol")),
        "HTTP_CONTENT_ENCODING": "".join(seen.header("content-encoding")),
    }
    if length := seen.header("content-length"):
        environment["CONTENT_LENGTH"] = length[0]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("git", "http-backend", env=environment, stdin=pipe, stdout=pipe)
    output, _ = await process.communicate(await read_body(seen, receive))
    head, _, body = output.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
    status = int(headers.pop("Status", "200 OK").split()[0])
    await answer(send, status, {key.lower(): value for key, value in headers.items()}, body)


ROUTES = {
    ("api.openai.com", "/v1/chat/completions"): chat_completions,
    ("api.openai.com", "/v1/models"): models,
    ("api.anthropic.com", "/v1/messages"): messages,
    ("echo.example.com", "/big"): big,
    ("echo.example.com", "/ticks"): ticks,
}


def wait_for_port(address: str, port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection((address, port), 1).close()
            return
        except OSError:
            threading.Event().wait(0.05)
    raise TimeoutError(f"nothing listens on {address}:{port}")
