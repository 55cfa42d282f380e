"""What the command of `outgate run` can read: session tokens under the keys' names, and the real keys nowhere."""

import base64
import json
import subprocess
import sys
from urllib.parse import quote

import pytest

from sandbox import AS_NOBODY, POLICY, TOKEN_HEAD, VARIABLES, guest

FILE_KEY = "file-real-key-63f0a9d2c7b15e48"
NAME_ONLY = "looks-like-a-secret-5e1c"


def forms(key: str) -> list[str]:
    """A key as it stands, and as headers and URLs carry it."""
    raw = key.encode()
    encoded = [base64.b64encode(b"." * pad + raw)[4:-4].decode() for pad in range(3)]
    return [key, key[::-1], raw.hex(), quote(key, safe=""), *encoded]


@pytest.fixture(params=["as the root of this namespace", "as a user without privileges"])
def planted(request, launcher, outside):
    """Keys in every place that a person keeps them in, and what a probe read from inside."""
    if "without" in request.param:
        launcher.wrapper = AS_NOBODY
    credential = launcher.home / "echo.key"
    credential.write_text(FILE_KEY + "\n")
    credential.chmod(0o600)
    policy = POLICY.replace("echo: { from: { env: ECHO_API_KEY } }", f"echo: {{ from: {{ file: {credential} }} }}")
    config = launcher.write_config("planted.yaml", policy)
    # A first run leaves its audit trail and its log in the state folder.
    launcher.run("true", config=config)
    folders = [str(path) for path in (launcher.home, launcher.temporary, launcher.state)]
    openai = VARIABLES["OPENAI_API_KEY"]
    ran = launcher.run(
        *[sys.executable, guest("readable.py"), *folders, f"--key={openai}", VARIABLES["GITHUB_TOKEN"]],
        config=config,
        SECOND_NAME=openai,
        CONNECTION=f"https://user:{VARIABLES['ANTHROPIC_API_KEY']}@api.anthropic.com/?k={openai}",
        SSH_AUTH_SOCK="/run/agent.sock",
        SOME_SERVICE_API_KEY=NAME_ONLY,
    )
    return ran, json.loads(ran.out), credential


def test_no_real_key_is_anywhere(planted):
    _, found, credential = planted
    for key in [*VARIABLES.values(), FILE_KEY, NAME_ONLY]:
        for form in forms(key):
            assert not [place for place, text in found.items() if form in text], f"a form of {key[:8]}… can be read"
    assert found[str(credential)] == "", "the credential file is there and shows nothing"
    assert not [place for place in found if "/runs/" in place and "audit" in place], "the state folder is covered"


def test_the_probe_finds_keys_where_there_is_no_sandbox(launcher):
    """Otherwise the other tests would show nothing."""
    (launcher.home / "echo.key").write_text(FILE_KEY)
    command = [sys.executable, guest("readable.py"), str(launcher.home), VARIABLES["GITHUB_TOKEN"]]
    done = subprocess.run(command, env=launcher.environment, capture_output=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    for key in [*VARIABLES.values(), FILE_KEY]:
        assert [place for place, text in found.items() if key in text], key
    assert len([place for place in found if place.endswith("/cmdline")]) > 3, "all of this machine's processes"


def test_the_token_stands_where_the_keys_stood(planted):
    _, found, _ = planted
    environment, arguments = json.loads(found["own environment"]), json.loads(found["own arguments"])
    token = environment["OPENAI_API_KEY"]
    assert token.startswith(TOKEN_HEAD)
    for name in ("ANTHROPIC_API_KEY", "GITHUB_TOKEN", "NPM_TOKEN", "PACKAGES_TOKEN", "SECOND_NAME"):
        assert environment[name] == token, name
    assert environment["CONNECTION"] == f"https://user:{token}@api.anthropic.com/?k={token}"
    assert arguments[-2:] == [f"--key={token}", token]
    assert "SSH_AUTH_SOCK" not in environment and "SOME_SERVICE_API_KEY" not in environment


def test_only_the_sandboxs_own_processes_and_descriptors_are_there(planted):
    _, found, _ = planted
    processes = [place for place in found if place.startswith("/proc/") and place.endswith("/cmdline")]
    assert sorted(processes) == ["/proc/1/cmdline", "/proc/2/cmdline", "/proc/cmdline"], processes
    assert set(json.loads(found["/proc/2/fd"])) == {"0", "1", "2"}, "nothing is inherited"
    init = json.loads(found["/proc/1/fd"])
    readable = init if isinstance(init, dict) else {"all": init}
    assert set(readable.values()) == {"Permission denied"}, "the sandbox's own init cannot be looked into"
    assert found["/proc/1/environ"] in ("", "(Permission denied)")


def test_a_variable_that_looks_like_a_secret_comes_in_when_it_is_asked_for(launcher, outside):
    flags = ("--keep-env", "SOME_SERVICE_API_KEY")
    ran = launcher.run("sh", "-c", "echo $SOME_SERVICE_API_KEY", flags=flags, SOME_SERVICE_API_KEY=NAME_ONLY)
    assert ran.out == NAME_ONLY + "\n"


def test_nothing_of_a_run_is_left_but_its_trail(launcher, outside):
    launcher.run("curl", "-sS", "https://public.example.org/")
    assert list(launcher.temporary.iterdir()) == []
    kept = {path.name for path in launcher.state.rglob("*") if path.is_file()}
    assert kept <= {"audit.jsonl", "audit.head", "gateway.log"}, kept
    modes = {oct(path.stat().st_mode & 0o77) for path in launcher.state.rglob("*")}
    assert modes == {"0o0"}, "nobody else reads it"


def test_the_token_is_worth_nothing_after_the_run(launcher, outside):
    token = launcher.run("sh", "-c", "printf %s $ECHO_API_KEY").out
    bearer = f"Authorization: Bearer {token}"
    second = launcher.run("curl", "-sS", "-i", "--http1.1", "-H", bearer, "https://echo.example.com/")
    assert "x-deny-reason: token_invalid" in second.out, second.out
    assert outside.heads("echo.example.com") == []
