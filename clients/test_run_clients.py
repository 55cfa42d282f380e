"""Unmodified clients in `outgate run` that need more than one URL: git, pip, npm, the SDKs, streams."""

import hashlib
import sys

import pytest

from sandbox import SYSTEM_ROOTS, guest, plain
from services import BIG, PAUSE, PIECES
from test_git import repository_at
from upstream import KEYS, basic

REPOSITORY = "https://github.com/acme/widgets.git"
HELPER = 'credential.helper=!f() { test "$1" = get && echo username=x && echo "password=$GITHUB_TOKEN"; }; f'
STREAMED = PAUSE / 6


@pytest.fixture
def repository(outside, launcher):
    """A bare repository with one commit, on the upstream's side."""
    return repository_at(outside, launcher.folder / "seed")


def test_git_clones_and_fetches_with_the_token_in_the_keys_place(launcher, outside, repository):
    script = f"""
    git -c '{HELPER}' clone -q {REPOSITORY} copy && cd copy && cat README
    git -c '{HELPER}' fetch -q && git -c '{HELPER}' ls-remote "https://x:$GITHUB_TOKEN@github.com/acme/widgets.git"
    """
    ran = launcher.run("bash", "-ec", script)
    assert ran.out.startswith("hello\n") and "refs/heads/main" in ran.out
    values = {tuple(seen.header("authorization")) for seen in outside.heads("github.com")}
    # The first request carries nothing, because git sends nothing until it is challenged: `token: optional`.
    assert values == {(), (basic("x-access-token", KEYS["github"]),)}


def test_git_is_refused_a_push_and_told_why(launcher, outside, repository):
    script = f"""
    git -c '{HELPER}' clone -q {REPOSITORY} copy && cd copy
    git -c user.name=o -c user.email=o@example.org commit -q --allow-empty -m second
    git -c '{HELPER}' push origin main
    """
    ran = launcher.run("bash", "-ec", script, check=False)
    assert ran.code != 0 and "403" in ran.err
    assert ("bumped", "request_denied") in ran.denials("github.com")
    assert not [seen for seen in outside.heads("github.com") if seen.path.endswith("/git-receive-pack")]


def test_git_finds_no_other_host(launcher, outside):
    ran = launcher.run("git", "clone", "https://closed.example.net/acme/widgets.git", check=False)
    assert ran.code == 128 and "403" in ran.err and ran.seconds < 2
    assert ("connect", "destination_not_allowed") in ran.denials("closed.example.net")


def test_pip_installs_from_a_private_index(launcher, outside):
    script = f"""
    {sys.executable} -m pip install --quiet --disable-pip-version-check --no-cache-dir --target site \
        --index-url "https://__token__:$PACKAGES_TOKEN@packages.example.com/simple" widget
    cat site/widget.py
    """
    ran = launcher.run("bash", "-ec", script)
    assert ran.out == "ANSWER = 42\n"
    assert [seen.header("authorization") for seen in outside.heads("packages.example.com")] == [
        [basic("__token__", KEYS["packages"])]
    ]
    assert not any(seen.header("authorization") for seen in outside.heads("files.example.net"))
    assert ran.entries("files.example.net") == ["connect"]


def test_pip_finds_no_other_index(launcher, outside):
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--retries=1"]
    ran = launcher.run(*pip, "--target=site", "--index-url=https://closed.example.net/simple", "widget", check=False)
    assert ran.code != 0 and "403" in ran.err and ran.seconds < 4
    assert ("connect", "destination_not_allowed") in ran.denials("closed.example.net")


def test_npm_installs_from_the_registry_with_its_own_token_variable(launcher, outside):
    script = """
    printf '%s\\n' registry=https://npm.example.net/ '//npm.example.net/:_authToken=${NPM_TOKEN}' > .npmrc && echo '{}' > package.json
    npm install --no-audit --no-fund --no-update-notifier --cache "$TMPDIR/npm" widget
    node -p 'require("widget")'
    """
    ran = launcher.run("bash", "-ec", script)
    assert ran.out.splitlines()[-1] == "42"
    values = {tuple(seen.header("authorization")) for seen in outside.heads("npm.example.net")}
    assert values == {(f"Bearer {KEYS['npm']}",)}
    assert len(outside.heads("npm.example.net")) == 2


def test_npm_finds_no_other_registry(launcher, outside):
    npm = ["npm", "view", "--registry=https://closed.example.net/", "--fetch-retries=0", "--no-update-notifier"]
    ran = launcher.run(*npm, "widget", check=False)
    assert ran.code != 0 and "403" in ran.err + ran.out and ran.seconds < 4
    assert ("connect", "destination_not_allowed") in ran.denials("closed.example.net")


@pytest.mark.parametrize(
    ("program", "host", "header", "key"),
    [
        ("openai_chat.py", "api.openai.com", "authorization", f"Bearer {KEYS['openai']}"),
        ("anthropic_messages.py", "api.anthropic.com", "x-api-key", KEYS["anthropic"]),
    ],
)
def test_python_sdks_stream_with_nothing_but_their_own_variable(launcher, outside, program, host, header, key):
    done = launcher.run(sys.executable, guest(program), "stream").json()
    assert done["text"] == "".join(PIECES)
    assert done["spread"] > STREAMED, "pieces arrive as they are sent"
    assert [seen.header(header) for seen in outside.heads(host)] == [[key]]


def test_the_node_sdk_streams_with_nothing_but_its_own_variable(launcher, outside):
    done = launcher.run(*launcher.node_program("openai_stream"), "stream").json()
    assert done["text"] == done["whole"] == "".join(PIECES)
    assert done["spread"] > STREAMED, "pieces arrive as they are sent"
    values = [seen.header("authorization") for seen in outside.heads("api.openai.com")]
    assert values == [[f"Bearer {KEYS['openai']}"]] * 2


def test_grpc_goes_out_with_its_token(launcher, outside):
    policy = """
version: 1
credentials: { grpc: { from: { env: DEMO_API_KEY } } }
destinations:
  - { host: grpc.example.com, inject: { credential: grpc, header: authorization } }
"""
    config = launcher.write_config("grpc.yaml", policy)
    program = [sys.executable, guest("grpc_call.py"), "count"]
    done = launcher.run(*program, config=config, DEMO_API_KEY=KEYS["grpc"]).json()
    assert (done["code"], done["text"]) == ("OK", "".join(PIECES))
    assert [seen.header("authorization") for seen in outside.heads("grpc.example.com")] == [[f"Bearer {KEYS['grpc']}"]]


@pytest.mark.parametrize(("host", "key"), [("echo.example.com", ["ECHO_API_KEY"]), ("public.example.org", [])])
def test_events_arrive_as_they_are_sent_without_a_proxy(launcher, outside, host, key):
    ran = launcher.run(sys.executable, guest("ticks.py"), "events", host, *key)
    done = ran.json()
    assert [f"data: {number}" in done["text"] for number in range(4)] == [True] * 4
    assert done["spread"] > PAUSE, "events arrive as they are sent"
    assert ran.entries(host)[0] in ("transparent", "bumped")


@pytest.mark.parametrize(("host", "key"), [("echo.example.com", ["ECHO_API_KEY"]), ("public.example.org", [])])
def test_a_websocket_stays_open_without_a_proxy(launcher, outside, host, key):
    ran = launcher.run(sys.executable, guest("ticks.py"), "socket", host, *key)
    assert ran.json() == ["eno", "owt"]
    assert "transparent" in ran.entries(host)


def test_large_bodies_arrive_whole_in_both_directions_without_a_proxy(launcher, outside):
    (launcher.home / "up").write_bytes(BIG)
    script = f"""
    curl() {{ command curl -sS --fail --noproxy '*' -H "Authorization: Bearer $ECHO_API_KEY" "$@"; }}
    curl -T up https://echo.example.com/up && curl -o down https://echo.example.com/big
    """
    sent = launcher.run("bash", "-ec", script).json()
    assert (sent["bytes"], sent["sha256"]) == (len(BIG), hashlib.sha256(BIG).hexdigest())
    assert (launcher.home / "down").read_bytes() == BIG


def test_many_connections_at_once_without_a_proxy(launcher, outside):
    script = """
    for number in $(seq 40); do
        curl -sS --fail --noproxy '*' -o /dev/null -H "Authorization: Bearer $ECHO_API_KEY" \
            https://echo.example.com/$number &
    done
    wait
    """
    launcher.run("bash", "-c", script)
    seen = outside.heads("echo.example.com")
    assert sorted(int(it.path[1:]) for it in seen) == list(range(1, 41))
    assert {tuple(it.header("authorization")) for it in seen} == {(f"Bearer {KEYS['echo']}",)}


def test_plain_http_is_served_with_and_without_a_proxy(launcher, outside):
    policy = """
version: 1
credentials: { plain: { from: { env: PLAIN_KEY } } }
destinations:
  - host: plain.example.com
    plaintext: true
    ports: [80]
    inject: { credential: plain, header: x-api-key, over_plaintext: true }
"""
    curl = 'curl -sS --fail -o /dev/null -H "x-api-key: $PLAIN_KEY" http://plain.example.com/in/clear'
    config = launcher.write_config("plain.yaml", policy)
    ran = launcher.run("sh", "-ec", f"{curl}; {curl} --noproxy '*'", config=config, PLAIN_KEY=KEYS["plain"])
    assert [seen.header("x-api-key") for seen in outside.heads("plain.example.com")] == [[KEYS["plain"]]] * 2
    assert {"absolute-form", "transparent-plain"} <= set(ran.entries("plain.example.com"))


def test_a_port_that_a_rule_names_is_served_and_no_other(launcher, outside):
    get = "curl -sS --fail -o /dev/null --noproxy '*' --max-time 5"
    script = f"{get} https://public.example.org:8443/; {get} https://public.example.org:8444/; echo $?"
    ran = launcher.run("sh", "-c", script)
    assert ran.out == "7\n" and ran.seconds < 2, ran
    assert len(outside.heads("public.example.org")) == 1
    assert "1 × TCP" in plain(ran.err), ran.err


def test_what_does_not_verify_outside_does_not_verify_inside(launcher, outside):
    """Without the upstreams' CA among this machine's roots a pass-through host is refused by the client itself."""
    script = "curl -sS --noproxy '*' https://public.example.org/; echo $?"
    ran = launcher.run("sh", "-c", script, SSL_CERT_FILE=str(SYSTEM_ROOTS), NODE_EXTRA_CA_CERTS="")
    assert ran.out == "60\n", ran
    assert outside.seen == []
