"""A wall clock that is set back by a day extends nothing: not while the gateway runs, and not across its restart. The
clock is that of the gateway's process alone (libfaketime); the time by which it judges comes from the kernel itself."""

import json
import signal
import ssl
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import pki
from operators import HOST, OTHER, REVOKED, RULES, Site, until

EXPIRED, IDLE = (407, "token_expired"), (403, "session_idle")
(LIBRARY,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
DAY = 86_400


class Clocked(Site):
    """A gateway whose wall clock a test moves."""

    def __post_init__(self):
        super().__post_init__()
        self.offset = self.folder / "offset"
        self.wall(0)
        self.environment = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self.offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def wall(self, seconds: int) -> None:
        self.offset.write_text(f"{seconds:+d}\n")


@pytest.fixture
def site(tmp_path, services, request):
    site = Clocked(tmp_path, services.ca, further=f"sessions: {request.param}")
    site.start()
    yield site
    site.close()


def written_at(site) -> float:
    """The wall clock's time in the newest record."""
    line = site.told("audit", "tail", "-n", "1", "--json")
    return json.loads(line)["record"]["time"] / 1000


idles = pytest.mark.parametrize("site", ["{ idle: 3s }"], indirect=True)
rests = pytest.mark.parametrize("site", ["{ idle: 15m }"], indirect=True)


@idles
def test_a_setback_while_it_runs_extends_nothing(site):
    (_, brief), (idle, idler), (_, active) = site.open("--ttl", "3s"), site.open(), site.open()
    assert site.get(brief) == site.get(idler) == site.get(active) == (200, None)
    began = time.monotonic()
    site.wall(-DAY)
    assert site.get(brief) == (200, None), "nor does it take anything away"
    assert abs(written_at(site) - (time.time() - DAY)) < 60, "the clock was not set back"
    late = site.json("session", "create", "--ttl", "3s")
    assert abs(late["expires"] - (time.time() + 3)) < 2, "tokens of now are of now"
    until(lambda: site.get(active) == (200, None) and site.get(brief) == EXPIRED, 6)
    assert time.monotonic() - began < 5
    until(lambda: site.get(active) == (200, None) and time.monotonic() - began > 4.2)
    assert site.get(idler) == IDLE
    assert site.json("session", "show", idle)["end"]["cause"] == "idle"
    assert site.get(late["token"]) == EXPIRED
    assert site.get(active) == (200, None)


def test_certificates_are_judged_by_the_same_clock(tmp_path, services):
    """One that ran out half an hour ago would be good yesterday, and one of an hour ago would not be good yet."""
    upstream, folder = tmp_path / "upstream", tmp_path / "site"
    upstream.mkdir()
    folder.mkdir()
    certificate, key = pki.issue(upstream, ["expired.example.org"], hours=-0.5)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.40", 443), SimpleHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    both = tmp_path / "both.pem"
    both.write_text((upstream / "ca.pem").read_text() + services.ca.read_text())
    rules = RULES.replace("destinations:\n", "destinations:\n  - { host: expired.example.org, posture: bump }\n")
    site = Clocked(folder, both, rules=rules)
    site.config.write_text(site.config.read_text().replace("hosts: {", 'hosts: {"expired.example.org": "127.0.0.40", '))
    site.start()
    _, token = site.open()
    for offset in (0, -DAY):
        site.wall(offset)
        assert site.get(token, "expired.example.org") == (502, "upstream_tls_failed"), offset
        assert site.get(token, OTHER if offset else HOST) == (200, None), offset
    server.shutdown()
    site.close()


@rests
def test_a_denial_ends_when_it_was_to_end(site):
    (long, refused), (short, lapsing) = site.open(), site.open()
    began = time.monotonic()
    site.told("deny", "add", long, "--for", "1h")
    site.told("deny", "add", short, "--for", "3s")
    site.wall(-DAY)
    assert site.get(refused) == site.get(lapsing) == REVOKED
    until(lambda: site.get(lapsing) == (200, None), 8)
    assert 2 <= time.monotonic() - began < 6
    assert site.get(refused) == REVOKED
    assert site.stop() == 0, site.log_text()
    site.wall(-2 * DAY)
    site.start()
    assert (site.get(refused), site.get(lapsing)) == (REVOKED, (200, None))


@pytest.mark.parametrize("site", ["{ idle: 3s, lifetime: 5s }"], indirect=True)
def test_a_lifetime_is_over_when_it_is_over(site):
    session, token = site.open()
    began = time.monotonic()
    site.wall(-DAY)
    until(lambda: site.get(token) == (403, "session_lifetime"), 8)
    assert 4 <= time.monotonic() - began < 7
    assert site.refused("session", "renew", session) == "session_over"


@idles
def test_nothing_revives_behind_a_restart_with_a_setback(site):
    (_, brief), (killed, over), (_, idler) = site.open("--ttl", "2s"), site.open(), site.open()
    site.told("kill", killed)
    assert site.get(idler) == (200, None)
    until(lambda: site.get(brief) == EXPIRED)
    until(lambda: site.json("session", "list")["sessions"] == [])
    assert site.stop() == 0, site.log_text()
    site.wall(-DAY)
    site.start()
    assert (site.get(brief), site.get(over), site.get(idler)) == (EXPIRED, REVOKED, IDLE)
    fresh = site.json("session", "create")
    assert abs(fresh["expires"] - time.time() - 1800) < 10, "the day that it was set back by is not believed"
    assert site.get(fresh["token"]) == (200, None)
    assert site.json("session", "show", fresh["id"])["created"] > time.time() - 60


@rests
def test_what_was_ended_stays_ended_behind_a_crash_with_a_setback(site):
    (killed, over), (denied, refused) = site.open(), site.open()
    site.told("kill", killed)
    site.told("deny", "add", denied, "--for", "1h")
    assert site.stop(signal.SIGKILL) == -signal.SIGKILL
    site.wall(-DAY)
    site.start()
    assert site.get(over) == site.get(refused) == REVOKED
    site.told("kill", "--all", "--reason", "to be sure")
    assert site.stop(signal.SIGKILL) == -signal.SIGKILL
    site.wall(-2 * DAY)
    site.start()
    assert site.json("kill", "--status")["on"]
    assert site.refused("session", "create") == "kill_switch"
    assert site.json("audit", "verify")["ok"]


@rests
def test_a_day_that_is_over_is_signed_and_proved(site):
    site.open()
    site.wall(DAY)
    site.open()
    sealed = until(lambda: site.json("audit", "verify").get("heads"), 20)
    assert sealed >= 1
    key = site.told("audit", "key").strip()
    proof = site.folder / "proof"
    site.told("audit", "prove", "2", "--out", proof)
    assert "record 2 is in the log" in site.told("audit", "check-proof", proof, "--key", key)
    assert site.json("audit", "verify", "--key", key)["ok"]
    line, _, rest = proof.read_text().partition("\n")
    assert json.loads(line)["seq"] == 2
    forged = site.folder / "forged"
    forged.write_text(line.replace('"time":1', '"time":2', 1) + "\n" + rest)
    assert site.command("audit", "check-proof", forged, "--key", key).returncode == 1
    other = key.replace("+", "x+", 1)
    assert site.command("audit", "check-proof", proof, "--key", other).returncode != 0
