"""gRPC through the bump: unary, server-streaming, trailers, and errors that stay gRPC's own."""

from services import PAUSE, PIECES
from upstream import KEYS

HOST = "grpc.example.com"


def test_a_unary_call_and_its_trailers(guest, upstream):
    done = guest.python("grpc_call", "say", DEMO_API_KEY=guest.token)
    assert (done["code"], done["text"]) == ("OK", "olleh")
    assert done["trailers"]["x-trailer"] == "came-through"
    (seen,) = upstream.heads(HOST)
    assert seen.header("authorization") == [f"Bearer {KEYS['grpc']}"]


def test_a_server_stream_arrives_piece_by_piece(guest, upstream):
    done = guest.python("grpc_call", "count", DEMO_API_KEY=guest.token)
    assert (done["code"], done["text"]) == ("OK", "".join(PIECES))
    assert done["spread"] > PAUSE / 6, "messages arrive as they are sent"
    assert done["trailers"]["x-trailer"] == "came-through"
    assert [seen.header("authorization") for seen in upstream.heads(HOST)] == [[f"Bearer {KEYS['grpc']}"]]


def test_the_services_own_error_comes_through(guest, upstream):
    done = guest.python("grpc_call", "fail", DEMO_API_KEY=guest.token)
    assert (done["code"], done["details"]) == ("FAILED_PRECONDITION", "asked to fail")
    assert done["trailers"]["x-trailer"] == "came-through"


def test_without_a_token_the_call_is_unauthenticated(guest, upstream):
    done = guest.python("grpc_call", "say")
    assert done["code"] == "UNAUTHENTICATED", done
    assert upstream.heads(HOST) == []


def test_with_a_foreign_key_the_call_is_unauthenticated(guest, upstream):
    done = guest.python("grpc_call", "say", DEMO_API_KEY="not-a-session-token")
    assert done["code"] == "UNAUTHENTICATED", done
    assert upstream.heads(HOST) == []
