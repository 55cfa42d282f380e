"""WebSocket clients of both languages, the key injected into the opening handshake."""

from upstream import KEYS

HOST = "echo.example.com"
URL = f"wss://{HOST}/socket"


def test_python_websockets(guest, upstream):
    done = guest.python("websocket_echo", URL, guest.token)
    assert done == {"text": "olleh", "bytes": 256 * 1024, "first": 255}
    (seen,) = upstream.heads(HOST)
    assert seen.header("authorization") == [f"Bearer {KEYS['echo']}"]


def test_python_websockets_without_a_token(guest, upstream):
    assert guest.python("websocket_echo", URL, "") == {"status": 401, "reason": "token_missing"}
    assert upstream.seen == []


def test_node_ws(guest, upstream):
    assert guest.node("ws_echo", URL, guest.token) == {"text": "olleh"}
    (seen,) = upstream.heads(HOST)
    assert seen.header("authorization") == [f"Bearer {KEYS['echo']}"]
