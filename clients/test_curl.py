"""curl, over both HTTP versions, both schemes and every injection form."""

import hashlib
import json

import pytest

from services import BIG
from upstream import KEYS

HOST = "echo.example.com"


@pytest.mark.parametrize(("flag", "version"), [("--http1.1", "1.1"), ("--http2", "2")])
def test_https_carries_the_real_key_over_either_version(guest, upstream, flag, version):
    done = guest.curl(flag, "-H", f"Authorization: Bearer {guest.token}", "-w", "\n%{http_version}", f"https://{HOST}/a")
    body, spoken = done.out.rsplit("\n", 1)
    assert spoken == version
    (seen,) = upstream.heads(HOST)
    assert seen.header("authorization") == [f"Bearer {KEYS['echo']}"]
    assert seen.version == version, "the version is mirrored to the upstream"
    assert json.loads(body)["path"] == "/a"


def test_the_tokens_place_is_the_clients_choice(guest, upstream):
    for arguments in (["-H", f"x-api-key: {guest.token}"], ["--user", f"me:{guest.token}"], ["--oauth2-bearer", guest.token]):
        guest.curl("--fail", *arguments, f"https://{HOST}/")
    assert [seen.header("authorization") for seen in upstream.heads(HOST)] == [[f"Bearer {KEYS['echo']}"]] * 3
    assert not any(seen.header("x-api-key") for seen in upstream.heads(HOST))


def test_the_key_goes_into_a_query_parameter(guest, upstream):
    guest.curl("--fail", "-H", f"Authorization: Bearer {guest.token}", "https://query.example.com/maps?q=berlin")
    (seen,) = upstream.heads("query.example.com")
    assert sorted(seen.query.split("&")) == [f"key={KEYS['query']}", "q=berlin"]
    assert not seen.header("authorization")


def test_plain_http_in_absolute_form_where_the_rule_says_so(guest, upstream):
    done = guest.curl("--fail", "-H", f"x-api-key: {guest.token}", "http://plain.example.com/in/clear?a=1")
    (seen,) = upstream.heads("plain.example.com")
    assert (seen.path, seen.query, seen.header("x-api-key")) == ("/in/clear", "a=1", [KEYS["plain"]])
    assert seen.header("host") == ["plain.example.com"]
    assert json.loads(done.out)["path"] == "/in/clear"


def test_an_echoed_key_is_scrubbed(guest, upstream):
    done = guest.curl("--fail", "-H", f"Authorization: Bearer {guest.token}", f"https://{HOST}/echo")
    assert upstream.heads(HOST)[0].header("authorization") == [f"Bearer {KEYS['echo']}"]
    # `Guest.run` has checked that the key is not in the output; the rest of the echo must have arrived.
    assert "authorization" in dict(json.loads(done.out)["headers"])


@pytest.mark.parametrize("flag", ["--http1.1", "--http2"])
def test_large_bodies_arrive_whole_in_both_directions(guest, upstream, flag):
    source, target = guest.folder / "up", guest.folder / "down"
    source.write_bytes(BIG)
    bearer = ["-H", f"Authorization: Bearer {guest.token}"]
    sent = json.loads(guest.curl("--fail", flag, *bearer, "-T", str(source), f"https://{HOST}/up").out)
    assert (sent["bytes"], sent["sha256"]) == (len(BIG), hashlib.sha256(BIG).hexdigest())
    guest.curl("--fail", flag, *bearer, "-o", str(target), f"https://{HOST}/big")
    assert target.read_bytes() == BIG


def test_an_upload_of_unknown_length_is_chunked_through(guest, upstream):
    source = guest.folder / "up"
    source.write_bytes(BIG[:3_000_000])
    bearer = f"Authorization: Bearer {guest.token}"
    command = f"cat up | curl -sS --fail --http1.1 -H '{bearer}' -T - https://{HOST}/up"
    assert guest.run("sh", "-c", command).json()["bytes"] == 3_000_000
    assert upstream.heads(HOST)[0].header("transfer-encoding") == ["chunked"]


def test_a_pass_through_destination_shows_its_own_certificate(guest, upstream):
    done = guest.curl("--fail", "--cacert", str(upstream.ca), "-H", "x-mine: 1", "https://public.example.org/own")
    assert json.loads(done.out)["path"] == "/own"
    (seen,) = upstream.heads("public.example.org")
    assert seen.header("x-mine") == ["1"]


def test_a_bumped_destination_does_not_show_the_upstreams_certificate(guest, upstream):
    done = guest.curl("--cacert", str(upstream.ca), f"https://{HOST}/", check=False)
    assert done.code == 60, done.err
    assert not upstream.heads(HOST)


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        ([f"https://{HOST}/"], 401, "token_missing"),
        (["-H", "Authorization: Bearer sk-mine", f"https://{HOST}/"], 401, "token_invalid"),
        (["-X", "DELETE", "-H", "Authorization: Bearer {token}", f"https://{HOST}/"], 403, "request_denied"),
        (["-H", "Authorization: Bearer {token}", "https://api.openai.com/admin"], 403, "path_not_allowed"),
        (["-H", "Authorization: Bearer {token}", "http://unlisted.example.net/"], 403, "destination_not_allowed"),
        (["-H", "Authorization: Bearer {token}", f"http://{HOST}:443/"], 403, "plaintext_not_allowed"),
        (["-H", "Authorization: Bearer {token}", "-H", "Host: github.com", f"https://{HOST}/"], 421, "authority_mismatch"),
    ],
)
def test_a_refusal_says_why_and_nothing_leaves(guest, upstream, arguments, status, reason):
    arguments = [text.replace("{token}", guest.token) for text in arguments]
    done = guest.curl("--http1.1", "-i", *arguments)
    head, body = done.out.rsplit("\r\n\r\n", 1)
    last = head.rsplit("HTTP/", 1)[1]
    assert last.split()[1] == str(status), head
    assert f"x-deny-reason: {reason}" in last
    told = json.loads(body)["error"]
    assert told["code"] == reason and told["message"] and told["remedy"] and told["request_id"]
    assert upstream.seen == []


def test_an_unlisted_host_is_refused_at_connect(guest, upstream):
    done = guest.curl("-i", "https://unlisted.example.net/", check=False)
    assert done.code == 56, done.err
    assert "x-deny-reason: destination_not_allowed" in done.out
    assert upstream.seen == []


def test_an_ended_session_is_refused(guest, upstream):
    bearer = f"Authorization: Bearer {guest.token}"
    guest.curl("--fail", "-H", bearer, f"https://{HOST}/")
    guest.gateway.command("session", "end", guest.session)
    done = guest.curl("-i", "-H", bearer, f"https://{HOST}/", check=False)
    assert "x-deny-reason: session_revoked" in done.out
    assert len(upstream.heads(HOST)) == 1
