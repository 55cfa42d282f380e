"""What the services answer: faithful enough for their SDKs, with pauses in the streams that show a buffering gateway."""

import asyncio
import base64
import hashlib
import io
import json
import os
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

PIECES = ["The ", "gateway ", "streams ", "this."]
PAUSE = 0.3
BIG = hashlib.shake_256(b"big").digest(1 << 20) * 12


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


async def refuse_websocket(receive, send) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 4401})


async def websocket(receive, send) -> None:
    await receive()
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


def wheel() -> bytes:
    """A wheel of `widget` 1.0: one module."""
    information = "widget-1.0.dist-info"
    files = {
        "widget.py": "ANSWER = 42\n",
        f"{information}/METADATA": "Metadata-Version: 2.1\nName: widget\nVersion: 1.0\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{information}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{information}/RECORD"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def tarball() -> bytes:
    """An npm package `widget` 1.0.0: one module."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        files = {"package.json": '{"name":"widget","version":"1.0.0"}', "index.js": "module.exports = 42;\n"}
        for name, text in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


WHEEL, TARBALL = wheel(), tarball()


async def package_index(seen: Seen, body: bytes, send) -> None:
    """A Python index (PEP 503) whose files are elsewhere."""
    digest = hashlib.sha256(WHEEL).hexdigest()
    link = f"https://files.example.net/widget-1.0-py3-none-any.whl#sha256={digest}"
    page = f'<!DOCTYPE html><a href="{link}">widget-1.0-py3-none-any.whl</a>'
    await answer(send, 200, {"content-type": "text/html"}, page.encode())


async def package_file(seen: Seen, body: bytes, send) -> None:
    await answer(send, 200, {"content-type": "application/octet-stream"}, WHEEL)


async def npm_package(seen: Seen, body: bytes, send) -> None:
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(TARBALL).digest()).decode()
    file = {"tarball": "https://npm.example.net/widget/-/widget-1.0.0.tgz", "integrity": integrity}
    version = {"name": "widget", "version": "1.0.0", "dist": file}
    await answer_json(send, {"name": "widget", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}})


async def npm_file(seen: Seen, body: bytes, send) -> None:
    await answer(send, 200, {"content-type": "application/octet-stream"}, TARBALL)


ROUTES = {
    ("api.openai.com", "/v1/chat/completions"): chat_completions,
    ("api.openai.com", "/v1/models"): models,
    ("api.anthropic.com", "/v1/messages"): messages,
    ("echo.example.com", "/big"): big,
    ("echo.example.com", "/ticks"): ticks,
    ("public.example.org", "/ticks"): ticks,
    ("packages.example.com", "/simple/widget/"): package_index,
    ("files.example.net", "/widget-1.0-py3-none-any.whl"): package_file,
    ("npm.example.net", "/widget"): npm_package,
    ("npm.example.net", "/widget/-/widget-1.0.0.tgz"): npm_file,
}
