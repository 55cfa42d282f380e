"""What operators do to a gateway that is at work: what is open is cut, floods keep no kill out, the tripwire ends who
overruns it, a reload takes operators away, and no guest gets to the operators' door."""

import json
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest
import requests
import websockets.sync.client

from operators import HOST, REVOKED, Site, connect, until

FURTHER = """
sessions:
  tripwire: { window: 1h, requests: 8, arm: true }
"""


@pytest.fixture
def site(tmp_path, services):
    site = Site(tmp_path, services.ca, further=FURTHER).start()
    yield site
    site.close()


def anomalies(site) -> list[dict]:
    return [record for record in site.trail() if record["class_uid"] == 2004]


def test_the_tripwire_ends_who_overruns_it_and_nobody_else(site):
    (session, token), (_, modest) = site.open(), site.open()
    seen = [site.get(token) for _ in range(12)]
    assert seen[:8] == [(200, None)] * 8
    until(lambda: site.get(token) == REVOKED, 3)
    assert site.get(modest) == (200, None)
    assert site.json("session", "show", session)["end"]["cause"] == "tripwire"
    (anomaly,) = anomalies(site)
    assert session in json.dumps(anomaly) and "requests" in json.dumps(anomaly)


def websocket(site, token):
    return websockets.sync.client.connect(
        f"wss://{HOST}/",
        proxy=f"http://session:{token}@{site.ready['proxy'][0]}",
        ssl=ssl.create_default_context(cafile=site.trust()),
        additional_headers={"authorization": f"Bearer {token}"},
    )


def test_a_kill_cuts_a_websocket_and_nobody_elses(site):
    (session, token), (_, other) = site.open(), site.open()
    with websocket(site, token) as mine, websocket(site, other) as others:
        for one in (mine, others):
            one.send("hello")
            assert one.recv(timeout=5) is not None
        site.told("kill", session)
        began = time.monotonic()
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            mine.recv(timeout=5)
        assert time.monotonic() - began < 1
        others.send("still here")
        assert others.recv(timeout=5) is not None


def test_bytes_keep_a_session_and_silence_ends_it(tmp_path, services):
    site = Site(tmp_path, services.ca, further="sessions: { idle: 2s }").start()
    session, token = site.open()
    with websocket(site, token) as open_one:
        for _ in range(8):
            open_one.send("tick")
            assert open_one.recv(timeout=5) == "kcit"
            time.sleep(0.5)
        assert site.json("session", "show", session)["state"] == "live"
        began = time.monotonic()
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            open_one.recv(timeout=8)
        assert 0.4 < time.monotonic() - began < 4, "activity is known to about a second"
    assert site.get(token) == (403, "session_idle")
    assert site.json("session", "show", session)["end"]["cause"] == "idle"
    site.close()


def test_a_flood_of_the_door_keeps_no_kill_out(site):
    """Connections that say nothing, handshakes that never end, and creations, all at once."""
    sessions = [site.open()[0] for _ in range(6)]
    port = int(site.url.rsplit(":", 1)[1])
    stop, counted, silent = threading.Event(), [], []

    def connections():
        while not stop.is_set():
            try:
                silent.append(socket.create_connection(("127.0.0.1", port), 5))
            except OSError:
                continue
            if len(silent) > 600:
                silent.pop(0).close()

    def creations():
        while not stop.is_set():
            try:
                counted.append(site.call("POST", "/v1/sessions").status_code)
            except requests.exceptions.ConnectionError:
                counted.append(None)  # It was given up for one that came later.

    threads = [threading.Thread(target=work, daemon=True) for work in [connections, creations, creations, creations]]
    for thread in threads:
        thread.start()
    until(lambda: len(silent) > 300 and len(counted) > 5, 30)
    remote, took = site.remotely("root"), []
    for index, session in enumerate(sessions):
        began = time.monotonic()
        site.told("kill", session, **(remote if index % 2 else {}))
        took.append(time.monotonic() - began)
    stop.set()
    for thread in threads:
        thread.join(10)
    for one in silent:
        one.close()
    assert max(took) < 2, took
    assert all(site.json("session", "show", session)["state"] == "ended" for session in sessions)


def test_a_reload_takes_an_operator_away(site):
    reader = site.remotely("reader")
    site.told("session", "list", **reader)
    text = site.config.read_text()
    site.config.write_text("\n".join(line for line in text.splitlines() if "reader.token" not in line))
    assert site.call("POST", "/v1/policy/reload").status_code == 204
    assert site.refused("session", "list", **reader) == "credential_invalid"
    site.config.write_text(text.replace("reader.token", "missing.token"))
    answer = site.call("POST", "/v1/policy/reload")
    assert (answer.status_code, answer.json()["code"]) == (422, "reload_refused")
    assert "missing.token" in answer.json()["detail"]
    site.told("session", "list", **site.remotely("root"))
    site.config.write_text(text)
    site.process.send_signal(signal.SIGHUP)
    until(lambda: site.command("session", "list", **reader).returncode == 0)


def test_no_guest_gets_to_the_operators_door(site):
    port = int(site.url.rsplit(":", 1)[1])
    _, token = site.open()
    text = site.config.read_text()
    rule = f"destinations:\n  - {{ host: door.example.com, ports: [{port}], posture: pass-through, addresses: {{ allow: [127.0.0.1] }} }}\n"
    text = text.replace("destinations:\n", rule, 1).replace("hosts: {", 'hosts: {"door.example.com": "127.0.0.1", ')
    site.config.write_text(text)
    answer = site.call("POST", "/v1/policy/reload")
    assert answer.status_code == 204, answer.text
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    for host in ("door.example.com", "localhost", "127.0.0.1"):
        head, raw = connect(site.ready["proxy"][0], host, token, port)
        if head.startswith("HTTP/1.1 200"):
            # Where it leads to is judged behind the name in the handshake.
            with pytest.raises((ssl.SSLError, OSError)):
                anybody.wrap_socket(raw, server_hostname=host)
        raw.close()

    def codes():
        return [record["status_code"] for record in site.trail() if "status_code" in record]

    # Refusals are on record a moment after they were told.
    until(lambda: codes() == ["address_denied", "destination_not_allowed", "ip_literal"])
    # Nor does the proxy itself answer an operator's call.
    plain = socket.create_connection(tuple(site.ready["proxy"][0].split(":")), 5)
    plain.sendall(b"GET /v1/sessions HTTP/1.1\r\nHost: operator\r\n\r\n")
    assert b" 200 " not in plain.recv(4096).split(b"\r\n")[0]


def test_without_a_trail_only_revocations_have_effect(tmp_path, services):
    site = Site(tmp_path, services.ca).start()
    (session, token), (_, other) = site.open(), site.open()
    trail = site.state / "audit" / "audit.jsonl"
    trail.rename(trail.with_name("taken-away"))
    until(lambda: site.command("session", "create", "--json").returncode == 1, 5)
    assert site.refused("session", "create") == "audit_unavailable"
    assert site.refused("session", "list") == "audit_unavailable"
    assert site.get(token) == (503, "audit_unavailable"), "no credential without a record"
    for arguments in (["kill", session], ["kill", "--all", "--reason", "x"]):
        done = site.command(*arguments, "--json")
        error = json.loads(done.stdout)["error"]
        assert (done.returncode, error["code"], error["in_effect"]) == (1, "audit_unavailable", True), arguments
    assert site.refused("kill", "--lift") == "audit_unavailable"
    assert site.get(token)[1] in ("session_revoked", "kill_switch")
    assert site.get(other) == (403, "kill_switch")
    site.stop(signal.SIGKILL)
    trail.with_name("taken-away").rename(trail)
    site.start()
    assert site.json("kill", "--status")["on"], "what had its effect still has it"
    site.told("kill", "--lift")
    assert (site.get(token), site.get(other)) == (REVOKED, (200, None))
    site.close()


def test_tail_follows_and_ends_with_its_reader(site):
    command = [site.binary, "--state-dir", site.state, "audit", "tail", "--follow", "-n", "1", "--json"]
    tail = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    tail.stdout.readline()
    session, _ = site.open()
    until(lambda: session in tail.stdout.readline(), 5)
    tail.stdout.close()
    site.open()
    assert tail.wait(5) == 0, tail.stderr.read()
    tail.stderr.close()
    shown = subprocess.run(
        ["sh", "-c", '"$0" --state-dir "$1" audit show | head -n 1', site.binary, site.state],
        capture_output=True, text=True, timeout=20,
    )
    assert len(shown.stdout.splitlines()) == 1 and shown.stderr == ""
