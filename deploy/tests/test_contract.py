"""The contract, the manifests, the schema and the binary say the same."""

import itertools
import json
import re
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from binary import OUTGATE, check, knows_command, outgate
from callers import CALLED
from contract import codes, table
from rendering import DEPLOY, OPTIONS, TOPOLOGIES, configurations, containers, helm, pod_templates

SCHEMA = json.loads((DEPLOY.parent / "schema" / "outgate.schema.json").read_text())
EVERYTHING = {
    f"{topology}, {option.name}": helm(topology, option.values) for option in OPTIONS for topology in option.topologies
} | {topology: helm(topology) for topology in TOPOLOGIES}
CONFIGURATIONS = {
    f"{name}: {file}": text for name, rendered in EVERYTHING.items() for file, text in configurations(rendered).items()
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_binary_takes_every_rendered_configuration(name, tmp_path):
    told = check(CONFIGURATIONS[name], tmp_path)
    assert told["ok"], told
    assert {it["code"] for it in told.get("warnings", [])} <= {"listens_beyond_loopback"}, told


def test_the_binary_has_every_command_that_a_pod_starts():
    used = {arguments[0] for arguments in started()}
    assert used >= {"serve", "capture", "preflight", "install", "trust", "exec"}
    assert [name for name in used if not knows_command(name)] == []


def test_the_binary_knows_every_flag_that_a_pod_gives():
    for command, *arguments in started():
        listed = outgate(command, "--help").stdout
        own = itertools.takewhile(lambda it: it != "--", arguments)
        for flag in (it.split("=")[0] for it in own if it.startswith("--")):
            assert re.search(rf"^\s+(-\w, )?{flag}\b", listed, re.M), (command, flag)


def started():
    """The arguments of everything of ours that a pod starts, each once."""
    found = {
        tuple(arguments)
        for rendered in EVERYTHING.values()
        for _, template in pod_templates(rendered)
        for container in containers(template)
        for arguments in commands(container)
    }
    return sorted(found)


def commands(container):
    """What a container starts of ours, its probes included, without the program's own name."""
    command = container.get("command", [])
    if command and command[0] == "/opt/outgate/outgate":
        yield command[1:]
    elif container["image"].startswith("outgate"):
        yield container["args"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe in container:
            program, *arguments = container[probe]["exec"]["command"]
            assert program == "/usr/local/bin/outgate"
            yield arguments


def test_the_process_has_the_variables_of_the_contract():
    told = {codes(row[0])[0] for row in table("Process", "variable")}
    listed = outgate("serve", "--help").stdout
    for _, template in (it for rendered in EVERYTHING.values() for it in pod_templates(rendered)):
        for container in containers(template):
            if container["name"] == "outgate":
                assert {it["name"] for it in container["env"]} == told
    assert told == set(re.findall(r"\[env: (\w+)=", listed))


def test_what_reloads_is_what_the_schema_has():
    rows = {codes(row[0])[0]: row[1] for row in table("Configuration", "key")}
    top = SCHEMA["properties"]
    assert all(key.split(".")[0] in top for key in rows), set(rows) - set(top)
    documented = (DEPLOY.parent / "docs" / "configuration.md").read_text()
    (reload,) = re.findall(r"A change of anything under\n(.*?)needs a restart", documented, re.S)
    restarts = {key for key, change in rows.items() if change == "needs a restart"}
    keys = {it for it in codes(reload) if "." not in it or it == "audit.dir"}
    assert restarts == keys


def test_every_mount_is_one_of_the_contract():
    rows = table("Mounts", "path")
    told = {codes(row[0])[0] for row in rows}
    mounted = {
        mount["mountPath"]
        for rendered in [*EVERYTHING.values(), operated()]
        for _, template in pod_templates(rendered)
        for container in containers(template)
        for mount in container.get("volumeMounts", [])
    }
    assert mounted == told


def test_every_port_is_one_of_the_contract():
    told = {(codes(row[1])[0], int(row[0])) for row in table("Ports", "port")}
    opened = {
        (port["name"], port["containerPort"])
        for rendered in [*EVERYTHING.values(), operated()]
        for _, template in pod_templates(rendered)
        for container in containers(template)
        for port in container.get("ports", [])
    }
    assert opened == told


def test_the_workload_has_the_variables_of_the_contract_and_of_outgate_env():
    told = [name for row in table("The workload's environment", "variable") for name in codes(row[0])]
    assert len(told) == len(set(told))
    for topology in TOPOLOGIES:
        (template,) = [it for name, it in pod_templates(helm(topology)) if name[2] == "outgate-agent"]
        env = {it["name"]: it["value"] for it in template["spec"]["containers"][0]["env"]}
        assert set(env) == set(told)
        trusting = {name for name, value in env.items() if value == "/etc/outgate/trust/bundle.pem"}
        assert trusting == {name for name, value in printed().items() if value.endswith("/ca/bundle.pem")}
        adding = {name for name, value in env.items() if value == "/etc/outgate/ca/ca.crt"}
        assert adding == {name for name, value in printed().items() if value.endswith("/ca/ca.crt")}
        assert env["NO_PROXY"] == env["no_proxy"] == printed()["NO_PROXY"]
        ours = {"OUTGATE_PROXY", "OUTGATE_SESSION_TOKEN_FILE", "OUTGATE_TOKEN_VARIABLES", "JAVA_TOOL_OPTIONS"}
        assert set(env) - ours == set(printed()) - {"OUTGATE_SESSION_TOKEN"}


_printed = {}


def printed():
    """What `outgate env` prints beside a running gateway."""
    if _printed:
        return _printed
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "outgate.yaml"
        config.write_text(
            "version: 1\nlisten: { proxy: 127.0.0.1:0 }\ndestinations: [{ host: a.example.org, posture: bump }]\n"
        )
        state = ["--state-dir", f"{folder}/state"]
        command = [OUTGATE, *state, "serve", "--config", config, "--json"]
        gateway = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            assert gateway.stdout.readline().startswith(b"{"), "the gateway does not start"
            _printed.update(json.loads(outgate(*state, "env", "--format", "json").stdout))
        finally:
            gateway.terminate()
            assert gateway.wait(20) == 0
    return _printed


def operated():
    tokens = [{"name": "ci", "secret": {"name": "ci", "key": "t"}, "scopes": ["revoke"]}]
    return helm("gateway-shared", {"operator": {"enabled": True, "tokens": tokens}, "inbound": CALLED["inbound"]})


@pytest.mark.parametrize(
    ("status", "arguments"), [(2, ["serve", "--no-such-flag"]), (1, ["serve", "--config", "/none"])]
)
def test_a_process_that_cannot_start_ends_as_the_contract_says(status, arguments):
    meanings = {row[0]: row[1] for row in table("Process", "exit status")}
    assert set(meanings) == {"0", "1", "2"}
    done = outgate(*arguments)
    assert done.returncode == status
    assert "error:" in done.stderr


def test_a_process_that_is_told_to_stop_drains_and_ends_with_0(tmp_path):
    config = tmp_path / "outgate.yaml"
    config.write_text("version: 1\nlisten: { proxy: 127.0.0.1:0 }\ndestinations: [{ host: a.example.org }]\n")
    command = [OUTGATE, "--state-dir", tmp_path / "state", "serve", "--config", config, "--json"]
    gateway = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    ready = json.loads(gateway.stdout.readline())
    assert ready["event"] == "ready"
    started = time.monotonic()
    gateway.terminate()
    assert gateway.wait(20) == 0
    assert time.monotonic() - started < 5, "nothing was open"


def test_threats_name_tests_that_exist():
    root = DEPLOY.parent
    text = (root / "docs" / "deployment" / "threats.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) > 30
    without = [row for row in rows if not re.search(r"`\w+_\w+_\w+`", row) and not row.startswith("| threat ")]
    assert without == []
    sources = [*root.glob("deploy/tests/test_*.py"), *root.glob("clients/test_*.py"), *root.glob("conformance/**/*.rs")]
    sources += root.glob("crates/**/*.rs")
    there = {name for file in sources for name in re.findall(r"(?:fn|def) (\w+)", file.read_text())}
    named = set(re.findall(r"`(\w+_\w+_\w+)`", text))
    assert named <= there, named - there
