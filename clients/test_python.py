"""Python: requests, httpx over both HTTP versions, the OpenAI and Anthropic SDKs with streaming."""

import json

import pytest

from services import PAUSE, PIECES
from upstream import KEYS

ANSWER = "".join(PIECES)
# What comes all at once comes within milliseconds; a busy machine may take the first piece late.
STREAMED = PAUSE / 6


def keys(upstream, host, header):
    return {value for seen in upstream.heads(host) for value in seen.header(header)}


def test_requests_get_and_post(guest, upstream):
    got = guest.python("requests_get", "GET", "https://echo.example.com/get", guest.token)
    assert got["status"] == 200 and json.loads(got["text"])["path"] == "/get"
    posted = guest.python("requests_get", "POST", "https://echo.example.com/post", guest.token, "2000000")
    assert json.loads(posted["text"])["bytes"] == 2_000_000
    assert keys(upstream, "echo.example.com", "authorization") == {f"Bearer {KEYS['echo']}"}


def test_requests_over_plain_http_without_a_rule_is_told_why(guest, upstream):
    refused = guest.python("requests_get", "GET", "http://api.openai.com/v1/models", guest.token)
    assert refused["status"] == 403 and refused["headers"]["x-deny-reason"] == "port_not_allowed"
    assert upstream.seen == []


def test_requests_to_an_unlisted_host_is_a_proxy_error(guest, upstream):
    refused = guest.python("requests_get", "GET", "https://unlisted.example.net/", guest.token)
    assert "403" in refused["proxy_error"]
    assert upstream.seen == []


@pytest.mark.parametrize(("version", "spoken"), [("1", "HTTP/1.1"), ("2", "HTTP/2")])
def test_httpx_posts_and_streams(guest, upstream, version, spoken):
    done = guest.python("httpx_get", version, "https://echo.example.com", guest.token)
    assert done["version"] == spoken
    assert done["posted"]["bytes"] > 0
    assert done["lines"] == [f"data: {number}" for number in range(4)]
    assert done["spread"] > STREAMED, "events arrive as they are sent"
    assert keys(upstream, "echo.example.com", "authorization") == {f"Bearer {KEYS['echo']}"}


def test_openai_sdk(guest, upstream):
    # The gateway's key comes from OPENAI_API_KEY, so `outgate env` gives the guest its token under that name.
    assert guest.environment["OPENAI_API_KEY"] == guest.token
    assert guest.python("openai_chat", "models") == ["gpt-test"]
    assert guest.python("openai_chat", "chat") == ANSWER
    assert len(upstream.heads("api.openai.com")) == 2
    assert keys(upstream, "api.openai.com", "authorization") == {f"Bearer {KEYS['openai']}"}


def test_openai_sdk_streams(guest, upstream):
    streamed = guest.python("openai_chat", "stream")
    assert streamed["text"] == ANSWER
    assert streamed["spread"] > STREAMED, "pieces arrive as they are sent"
    assert keys(upstream, "api.openai.com", "authorization") == {f"Bearer {KEYS['openai']}"}


def test_openai_sdk_raises_its_own_authentication_error(guest, upstream):
    refused = guest.python("openai_chat", "refused", OPENAI_API_KEY="sk-not-a-session-token")
    assert (refused["error"], refused["status"]) == ("AuthenticationError", 401)
    assert refused["reason"] == "token_invalid"
    assert "The presented token is not a valid session token." in refused["text"]
    assert upstream.seen == []


def test_openai_sdk_raises_permission_denied_once_the_session_ended(guest, upstream):
    # The proxy leg carries no token here, so that the refusal is the request's and reaches the SDK as an answer.
    bare = {name: f"http://{guest.gateway.ready['proxy'][0]}" for name in ("HTTPS_PROXY", "https_proxy")}
    assert guest.python("openai_chat", "chat", **bare) == ANSWER
    guest.gateway.command("session", "end", guest.session)
    refused = guest.python("openai_chat", "refused", **bare)
    assert (refused["error"], refused["reason"]) == ("PermissionDeniedError", "session_revoked")
    assert len(upstream.heads("api.openai.com")) == 1


def test_anthropic_sdk(guest, upstream):
    assert guest.python("anthropic_messages", "message", ANTHROPIC_API_KEY=guest.token) == ANSWER
    assert keys(upstream, "api.anthropic.com", "x-api-key") == {KEYS["anthropic"]}
    # The SDK sends its key as a bearer token: replaced by the real one in its own place, not merged.
    assert keys(upstream, "api.anthropic.com", "authorization") == set()


def test_anthropic_sdk_streams(guest, upstream):
    streamed = guest.python("anthropic_messages", "stream", ANTHROPIC_API_KEY=guest.token)
    assert streamed["text"] == ANSWER
    assert streamed["spread"] > STREAMED, "pieces arrive as they are sent"
    assert keys(upstream, "api.anthropic.com", "x-api-key") == {KEYS["anthropic"]}


def test_anthropic_sdk_raises_its_own_authentication_error(guest, upstream):
    refused = guest.python("anthropic_messages", "refused", ANTHROPIC_API_KEY="sk-ant-not-a-session-token")
    assert (refused["error"], refused["status"]) == ("AuthenticationError", 401)
    assert refused["reason"] == "token_invalid"
    assert "The presented token is not a valid session token." in refused["text"]
    assert upstream.seen == []
