"""The operator's side from the command line: sessions, limits, the kill switch, the denylist, tenants, keys,
evidence; by the socket and over TLS."""

import base64
import json
import os
import shutil
import subprocess
import time

import pytest

from operators import HOST, OTHER, REVOKED, Site, cut_within, until
from upstream import KEYS


@pytest.fixture(scope="module")
def site(tmp_path_factory, services):
    site = Site(tmp_path_factory.mktemp("site"), services.ca, operator="  quotas: { sessions: 200 }").start()
    yield site
    site.close()


def claims(token: str) -> dict:
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def test_a_sessions_whole_life_on_the_command_line(site, services, tmp_path):
    services.seen.clear()
    file = tmp_path / "token"
    said = site.told("session", "create", "--ttl", "10m", "--label", "job=4711", "--container", "c-1", "--token-file", file)
    assert "eyJ" not in said and f"in {file}" in said
    assert file.stat().st_mode & 0o777 == 0o600
    first, session = file.read_text().strip(), said.split()[1]
    assert site.get(first) == (200, None)
    assert services.heads(HOST)[0].header("authorization") == [f"Bearer {KEYS['echo']}"]

    site.told("session", "renew", session, "--ttl", "5m", "--token-file", file)
    second = file.read_text().strip()
    assert second != first and claims(second)["sub"] == claims(first)["sub"] == session
    assert claims(second)["jti"] != claims(first)["jti"]
    assert site.get(first) == site.get(second) == (200, None), "a renewal ends no token before its time"

    site.told("session", "limit", session, "requests=1/h", "bytes_out=1GiB")
    shown = site.json("session", "show", session)
    assert shown["limits"] == {"requests": "1/h", "bytes_out": 1 << 30}
    assert (shown["labels"], shown["container"], shown["state"]) == ({"job": "4711"}, "c-1", "live")
    assert [site.get(second)[1] for _ in range(3)][-1] == "rate_limited"
    site.told("session", "limit", session, "--none")
    until(lambda: site.get(second) == (200, None))

    assert session in site.told("session", "list")
    site.told("kill", session, "--reason", "reads what it should not")
    assert site.get(first) == site.get(second) == REVOKED
    assert session not in site.told("session", "list")
    assert site.json("session", "show", session)["end"]["cause"] == "denied"
    assert site.refused("session", "renew", session) == "session_over"
    assert site.records("session.kill")[-1]["actor"]


def test_no_command_prints_a_token_that_it_was_not_asked_for(site):
    session, _ = site.open()
    for arguments in (["session", "list", "--all"], ["session", "show", session], ["deny", "list"], ["kill", "--status"]):
        assert "eyJ" not in site.told(*arguments) + site.told(*arguments, "--json"), arguments
    site.told("session", "end", session)


def test_a_token_that_cannot_be_written_leaves_no_session_behind(site, tmp_path):
    live = len(site.json("session", "list")["sessions"])
    done = site.command("session", "create", "--token-file", tmp_path / "no" / "folder")
    assert done.returncode == 1 and "ended again" in done.stderr and str(tmp_path) in done.stderr
    assert len(site.json("session", "list")["sessions"]) == live


def test_the_kill_switch_stops_everything_until_it_is_lifted(site):
    _, going_on = site.open()
    ended, over = site.open()
    tunnel = site.tunnel(going_on)
    said = site.told("kill", "--all", "--reason", "key leaked")
    cut_within(1, tunnel)
    assert "key leaked" in said and "--lift" in said
    assert site.get(going_on) == site.get(over) == (403, "kill_switch")
    assert site.refused("session", "create") == "kill_switch"
    site.told("session", "end", ended)
    status = site.json("kill", "--status")
    assert status["on"] and status["by"].startswith("local:")
    site.told("kill", "--lift")
    assert site.get(going_on) == (200, None), "who was not ended goes on"
    assert site.get(over) == REVOKED
    assert site.json("kill", "--status") == {"on": False}


def test_killing_a_session_cuts_its_tunnel_within_a_second(site):
    session, token = site.open()
    _, other = site.open()
    mine, others = site.tunnel(token), site.tunnel(other)
    site.told("kill", session)
    cut_within(1, mine)
    others.sendall(b"GET / HTTP/1.1\r\nhost: public.example.org\r\n\r\n")
    assert others.recv(9) == b"HTTP/1.1 ", "nobody else's is"


def test_the_denylist_takes_sessions_and_single_tokens(site, tmp_path):
    session, first = site.open()
    site.told("session", "renew", session, "--token-file", tmp_path / "token")
    second = (tmp_path / "token").read_text().strip()
    jti = claims(first)["jti"]
    site.told("deny", "add", "--token", jti, "--reason", "posted in a chat")
    assert (site.get(first), site.get(second)) == (REVOKED, (200, None))
    site.told("deny", "remove", "--token", jti)
    assert site.get(first) == (200, None)
    entry = site.json("deny", "add", session, "--for", "2s")
    assert entry["reason"] == "no reason given" and entry["until"] > time.time()
    assert session in site.told("deny", "list")
    assert site.get(second) == REVOKED
    until(lambda: site.get(second) == (200, None))
    assert site.json("deny", "list")["entries"] == []
    assert site.refused("deny", "remove", session) == "not_denied"
    done = site.command("deny", "add", "--token", second)
    assert done.returncode == 1 and "jti" in done.stderr and second not in done.stderr
    assert site.json("deny", "list")["entries"] == []


def test_errors_say_what_to_do(site, tmp_path):
    nowhere = site.command("session", "list", "--state-dir", tmp_path)
    assert nowhere.returncode == 1 and "outgate serve" in nowhere.stderr and "--state-dir" in nowhere.stderr
    unknown = site.command("kill", "s_unknown")
    assert unknown.returncode == 1 and "[unknown_session]" in unknown.stderr and "session list --all" in unknown.stderr
    root, reader = site.remotely("root"), site.remotely("reader")
    lacking = site.command("session", "create", **reader)
    assert "[scope_missing]" in lacking.stderr and lacking.stdout == ""
    assert site.refused("keys", "rotate", **site.remotely("team-a")) == "scope_missing"
    assert site.refused("kill", "--all", "--reason", "x", **site.remotely("team-a")) == "tenant_bound"
    wrong = site.secret("wrong.token", "0" * 64)
    assert site.refused("session", "list", **(root | {"OUTGATE_OPERATOR_TOKEN_FILE": str(wrong)})) == "credential_invalid"
    wrong.chmod(0o644)
    exposed = site.command("session", "list", **(root | {"OUTGATE_OPERATOR_TOKEN_FILE": str(wrong)}))
    assert exposed.returncode == 1 and str(wrong) in exposed.stderr
    assert site.refused("session", "list", **{k: v for k, v in root.items() if k != "OUTGATE_OPERATOR_CA"}) == "unreachable"
    tokenless = site.command("session", "list", OUTGATE_OPERATOR=site.url)
    assert tokenless.returncode == 1 and "--operator-token" in tokenless.stderr
    assert site.refused("session", "create", "--ttl", "2h") == "invalid_ttl"
    assert site.refused("session", "create", "--policy", "nobody-wrote-it") == "unknown_policy"


def test_the_configuration_file_leads_to_the_state_folder(site, tmp_path):
    config = tmp_path / "outgate.yaml"
    config.write_text(f"version: 1\nlisten: {{ proxy: 127.0.0.1:0 }}\nstate_dir: {site.state}\n")
    for named in (["--config", config], []):
        environment = {"PATH": os.environ["PATH"]} | ({} if named else {"OUTGATE_CONFIG": str(config)})
        for command in (["session", "list"], ["audit", "tail"], ["ca", "show"], ["kill", "--status"]):
            done = subprocess.run([site.binary, *command, *named], capture_output=True, text=True, env=environment, timeout=30)
            assert done.returncode == 0, (command, done.stderr)


def test_tenants_are_kept_apart(site):
    a, b = site.remotely("team-a"), site.remotely("team-b")
    own = site.json("session", "create", **a)["id"]
    assert site.json("session", "show", own, **a)["tenant"] == "team-a"
    for command in (["session", "show"], ["session", "end"], ["kill"], ["session", "renew"], ["deny", "add"]):
        foreign, never = (site.command(*command, id, "--json", **b) for id in (own, "s_" + "0" * 26))
        assert foreign.returncode == never.returncode == 1
        assert foreign.stdout == never.stdout, "another's is as unknown as one that never was"
    assert site.json("session", "list", **b)["sessions"] == []
    assert site.refused("session", "create", "--tenant", "team-b", **a) == "tenant_bound"
    site.told("kill", own, **a)


def test_quotas_bound_a_tenant(site):
    assert site.json("quota", "team-b", "1")["sessions"] == 1
    b = site.remotely("team-b")
    first = site.json("session", "create", **b)["id"]
    assert site.refused("session", "create", **b) == "quota_exceeded"
    assert "team-b  1     1        its own" in site.told("quota")
    site.told("session", "end", first, **b)
    site.told("session", "end", site.json("session", "create", **b)["id"], **b)
    assert site.json("quota", "team-b", "default") == {"sessions": None, "own": False, "live": 0}


def test_a_session_is_confined_to_its_policy(site):
    _, token = site.open("--policy", "public-only")
    assert site.get(token, OTHER) == (200, None)
    assert site.get(token, HOST) == (403, "destination_not_allowed")


def test_tokens_outlive_the_rotation_of_their_key(site):
    _, before = site.open()
    kid = site.json("keys", "rotate")["kid"]
    _, after = site.open()
    assert site.get(before) == site.get(after) == (200, None)
    for path in ("/v1/jwks", "/.well-known/jwks.json"):
        keys = site.call("GET", path, who=None).json()["keys"]
        assert kid in [key["kid"] for key in keys] and len(keys) >= 2
        assert not [key for key in keys if "d" in key], "public halves only"
    assert kid in site.told("keys", "show")


# Evidence


def test_the_trail_is_shown_verified_exported_and_its_damage_found(site, tmp_path):
    session, _ = site.open()
    site.told("kill", session, "--reason", "for the record")
    assert session in site.told("audit", "tail", "-n", "5")
    report = site.json("audit", "verify")
    assert report["ok"] and report["records"] == report["last_seq"] + 1
    exported = [json.loads(line) for line in site.told("audit", "export", "--from", "2", "--to", "6").splitlines()]
    assert len(exported) == 5 and all("class_uid" in record and "hash" not in record for record in exported)
    out = tmp_path / "records.jsonl"
    site.told("audit", "export", "--from", "2", "--to", "6", "--out", out, **site.remotely("root"))
    assert [json.loads(line) for line in out.read_text().splitlines()] == exported
    assert site.json("audit", "verify", **site.remotely("root"))["ok"]
    assert site.refused("audit", "verify", **site.remotely("team-a")) == "scope_missing"
    assert "its day (UTC)" in site.command("audit", "prove", "2").stderr
    assert site.told("audit", "key").startswith("outgate-audit/")

    copy = tmp_path / "copy"
    shutil.copytree(site.state / "audit", copy)
    file = copy / "audit.jsonl"
    file.write_text(file.read_text().replace("for the record", "for the rec0rd"))
    damaged = site.command("audit", "verify", copy, "--json")
    assert damaged.returncode == 1 and json.loads(damaged.stdout)["code"] == "edited"
    assert site.command("audit", "export", copy, "--out", out).returncode == 1
    assert "rec0rd" in out.read_text(), "what can be read is handed on all the same"
