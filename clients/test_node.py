"""Node: the built-in fetch, undici, and the OpenAI SDK with streaming."""

from services import PAUSE, PIECES
from upstream import KEYS

ECHO = "https://echo.example.com"
# What comes all at once comes within milliseconds; a busy machine may take the first piece late.
STREAMED = PAUSE / 6


def test_fetch_posts_and_streams(guest, upstream):
    done = guest.node("fetch", ECHO, guest.token)
    assert done["status"] == 200 and done["posted"]["bytes"] == len("hello there")
    assert done["text"] == "".join(f"data: {number}\n\n" for number in range(4))
    assert done["spread"] > STREAMED, "events arrive as they are sent"
    values = [seen.header("authorization") for seen in upstream.heads("echo.example.com")]
    assert values == [[f"Bearer {KEYS['echo']}"]] * 2


def test_fetch_without_a_token_gets_an_answer_it_can_read(guest, upstream):
    done = guest.node("fetch", ECHO, "")
    assert (done["status"], done["reason"]) == (401, "token_missing")
    assert done["posted"]["error"]["message"] == "No session token was presented."
    assert upstream.seen == []


def test_undici_fetch(guest, upstream):
    done = guest.node("undici_fetch", f"{ECHO}/undici", guest.token)
    assert done["status"] == 200 and done["body"]["path"] == "/undici"
    (seen,) = upstream.heads("echo.example.com")
    assert seen.header("authorization") == [f"Bearer {KEYS['echo']}"]


def test_openai_sdk_streams(guest, upstream):
    done = guest.node("openai_stream", "stream")
    assert done["whole"] == done["text"] == "".join(PIECES)
    assert done["spread"] > STREAMED, "pieces arrive as they are sent"
    values = [seen.header("authorization") for seen in upstream.heads("api.openai.com")]
    assert values == [[f"Bearer {KEYS['openai']}"]] * 2


def test_openai_sdk_raises_its_own_authentication_error(guest, upstream):
    done = guest.node("openai_stream", "refused", OPENAI_API_KEY="sk-not-a-session-token")
    assert (done["error"], done["status"], done["reason"]) == ("AuthenticationError", 401, "token_invalid")
    assert "The presented token is not a valid session token." in done["text"]
    assert upstream.seen == []
