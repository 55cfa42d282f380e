"""The static program in a container's place: a root of its own, no rights, nothing to write to but its state."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from container import PROGRAM, ROOTS, STATIC
from live import AGENT, running

pytestmark = pytest.mark.timeout(120)
STATE = "/var/lib/outgate"
STREAM = "https://api.anthropic.com/v1/stream"


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with running("gateway-per-agent", tmp_path_factory.mktemp("container")) as cluster:
        yield cluster


@pytest.fixture
def gateway(live):
    return live.containers["gateway 1"]


def test_the_program_needs_no_library():
    text = subprocess.run(["ldd", STATIC], capture_output=True, text=True)
    assert "statically linked" in text.stdout + text.stderr or "not a dynamic" in text.stdout + text.stderr
    assert b"/lib64/ld-linux" not in STATIC.read_bytes()[:8192]


def test_it_runs_without_any_right(gateway):
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{gateway.pid()}/status").read_text().splitlines() if ":" in line
    )
    assert status["Uid"].split() == status["Gid"].split() == ["65532"] * 4
    assert status["Groups"].split() == ["65532"]
    for which in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[which], 16) == 0, which
    assert status["NoNewPrivs"].strip() == "1"
    assert status["NSpid"].split()[-1] == "1", "it is not process 1"


def test_it_has_the_manifests_variables_and_no_other(gateway):
    environment = Path(f"/proc/{gateway.pid()}/environ").read_bytes().rstrip(b"\0").decode().split("\0")
    names = {it.partition("=")[0] for it in environment}
    assert names == {"OUTGATE_CONFIG", "OUTGATE_STATE_DIR", "OUTGATE_LOG_FORMAT"}


def test_only_the_state_can_be_written(gateway):
    mounts = [line.split() for line in Path(f"/proc/{gateway.pid()}/mounts").read_text().splitlines()]
    writable = {path for _, path, _, flags, *_ in mounts if "rw" in flags.split(",") and not path.startswith("/dev/")}
    assert writable == {STATE}
    assert sorted(os.listdir(gateway.volumes[STATE])) == ["state"]
    assert (gateway.volumes[STATE] / "state").stat().st_mode & 0o777 == 0o700


def test_there_is_nothing_in_its_root_but_the_image(gateway):
    root = Path(f"/proc/{gateway.pid()}/root")
    volumes = {root / it.lstrip("/") for it in [*gateway.volumes, "/proc", "/dev"]}
    files = set()
    for folder, folders, names in os.walk(root):
        folders[:] = [it for it in folders if Path(folder) / it not in volumes]
        files |= {f"/{(Path(folder) / it).relative_to(root)}" for it in names}
    assert files == {PROGRAM, ROOTS, "/etc/resolv.conf"}
    assert gateway.execute("/bin/sh", "-c", "true").returncode != 0, "there is a shell"


def test_a_command_in_the_container_finds_its_gateway(gateway):
    done = gateway.execute(PROGRAM, "session", "list")
    assert done.returncode == 0, done
    for ask in (["health"], ["health", "--ready"]):
        assert gateway.execute(PROGRAM, *ask).returncode == 0, ask


def test_secrets_that_its_group_may_read_are_no_cause_for_a_warning(gateway):
    place = gateway.volumes["/etc/outgate/credentials"]
    assert (place / "anthropic").stat().st_mode & 0o777 == 0o440
    assert "readable_by_others" not in gateway.log_text()


def test_a_stop_waits_for_an_open_stream_and_keeps_every_record(live, gateway):
    """The last test: it ends the gateway."""
    head = ["--no-buffer", "--header", f"x-api-key: {live.issuer.token(AGENT)}"]
    env = {"https_proxy": live.proxy(), "CURL_CA_BUNDLE": str(live.bundle), "PATH": "/usr/bin:/bin"}
    command = live.wire[AGENT].command("curl", "--silent", "--show-error", *head, STREAM)
    client = subprocess.Popen(command, env=env, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert client.stdout.readline() == b"data: first\n", client.stderr.read()
    gateway.process.terminate()
    deadline = time.monotonic() + 10
    while live.curl(AGENT, "--max-time", "2", live.proxy()).returncode != 7:
        assert time.monotonic() < deadline, "the listener stays open"
    assert gateway.process.poll() is None, "it did not wait for the stream"
    assert gateway.execute(PROGRAM, "health", "--ready").returncode == 1, "it says that it is ready"
    live.upstream.stream_may_end.set()
    out, errors = client.communicate(timeout=20)
    assert (client.returncode, out) == (0, b"\ndata: last\n\n"), errors
    assert gateway.process.wait(20) == 0, gateway.log_text()
    trail = gateway.volumes[STATE] / "state" / "audit"
    assert any("/v1/stream" in it.read_text() for it in trail.glob("*.jsonl") if it.is_file()), sorted(trail.iterdir())
