"""The chart and the kustomizations are one thing, written twice."""

import json
import re

import pytest
import yaml

from binary import check
from rendering import (
    CHART,
    DEPLOY,
    GATEWAY,
    OPTIONS,
    TOOLS,
    TOPOLOGIES,
    Option,
    comparable,
    configurations,
    helm,
    kustomize,
    run,
)

CASES = [(option, topology) for option in OPTIONS for topology in option.topologies]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_helm_finds_no_fault_in_a_preset(topology):
    run(TOOLS / "helm", "lint", "--strict", CHART, "--values", CHART / "presets" / f"{topology}.yaml")


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_chart_and_overlay_are_the_same_objects(topology):
    assert comparable(kustomize(topology)) == comparable(helm(topology))


@pytest.mark.parametrize(("option", "topology"), CASES, ids=lambda it: getattr(it, "name", it))
def test_an_option_and_its_components_are_the_same_objects(option, topology, tmp_path):
    charted = comparable(helm(topology, option.values))
    overlaid = comparable(kustomize(topology, option, tmp_path))
    # A component cannot write into a file: its comment says what to add.
    if option.written:
        assert [file for file in files(charted) if taken_out(file, option.written)], "the chart does not write it"
    assert overlaid == charted
    assert charted != comparable(helm(topology)), "the option changes nothing"


def test_the_listener_to_write_with_a_component_is_the_one_that_the_chart_writes():
    text = (DEPLOY.parent / "docs/deployment/inbound.md").read_text()
    values, written = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    (file,) = configurations(helm("gateway-per-agent", values)).values()
    assert yaml.safe_load(file)["inbound"] == written["inbound"]


def test_the_document_on_captures_says_what_the_chart_and_the_component_do():
    text = (DEPLOY.parent / "docs/deployment/capture.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    values, written, outer = blocks
    (option,) = [it for it in OPTIONS if it.name == "transparent capture"]
    assert values == option.values
    (file,) = configurations(helm("sidecar", values)).values()
    assert yaml.safe_load(file)["listen"] == written["listen"]
    assert outer == {"resources": ["../sidecar"], "components": ["../../components/capture"]}


def test_a_capture_that_is_added_to_the_overlay_itself_is_refused(tmp_path):
    """There it would come before the overlay's own patches, which would undo it."""
    with pytest.raises(RuntimeError, match="initContainers/1/name"):
        kustomize("sidecar", Option("misplaced", {}, {GATEWAY: ["capture"]}), tmp_path)


def files(charted):
    return [it["data"]["outgate.yaml"] for name, it in charted.items() if name[0] == "ConfigMap"]


def taken_out(file, path):
    """The value at a path of keys, which is no longer there."""
    *outer, last = path
    for name in outer:
        file = file.get(name, {})
    return file.pop(last, None)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_release_of_another_name_shares_no_object_with_the_first(topology):
    second = helm(topology, {}, "second")
    assert not set(comparable(second)) & set(comparable(helm(topology)))
    text = json.dumps([it for it in second if it["kind"] == "NetworkPolicy"])
    assert '"app.kubernetes.io/instance": "second"' in text
    assert '"outgate/gateway": "outgate"' not in text


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"gatway": {}}, "additional properties 'gatway' not allowed"),
        ({"gateway": {"replicas": 0}}, "/gateway/replicas"),
        ({"gateway": {"autoscaling": {"enabled": True}}}, "/gateway/autoscaling/enabled"),
        ({"agent": {"command": []}}, "/agent/command"),
        # The gateway's own user: what a capture lets through.
        ({"agent": {"securityContext": {"runAsUser": 65532}}}, "/agent/securityContext/runAsUser"),
        ({"agent": {"securityContext": {"runAsUser": 0}}}, "/agent/securityContext/runAsUser"),
        # Where the gateway is in a pod of its own, nothing is redirected to it.
        ({"capture": {"transparent": True}}, "/capture/transparent"),
        ({"networkPolicy": {"egress": {"except": {"ipv4": []}}}}, "/networkPolicy/egress/except/ipv4"),
        ({"identity": {"policies": {"agent": "build"}}}, "invalid propertyName .agent."),
        ({"identity": {"policies": {"a/b/c": "build"}}}, "invalid propertyName .a/b/c."),
        ({"identity": {"policies": {"a/b": "two words"}}}, "/identity/policies"),
        ({"identity": {"policy": "build", "policies": {"a/b": "build"}}}, "/identity"),
        ({"operator": {"tokens": [{"name": "a", "secret": {"name": "b", "key": "c"}, "scopes": ["all"]}]}}, "scopes"),
    ],
)
def test_values_that_mean_nothing_are_refused(values, told):
    with pytest.raises(RuntimeError, match=told):
        helm("gateway-per-agent", values)


def test_a_shared_gateway_without_namespaces_is_refused():
    with pytest.raises(RuntimeError, match="/agents/namespaces"):
        helm("gateway-shared", {"agents": {"namespaces": []}})


def test_an_agent_elsewhere_without_an_address_is_refused():
    with pytest.raises(RuntimeError, match="an agent in another namespace has no DNS"):
        helm("gateway-shared", {"gateway": {"clusterIP": ""}})


def test_every_key_of_the_schema_stands_in_the_values():
    """`values.yaml` is where people look for what there is."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    # As they are written in the configuration file and in a pod: described there.
    free = (".policy.", ".settings.", ".agent.securityContext.", ".global")
    missing = []

    def walk(value, shape, path):
        if not isinstance(value, dict):
            return
        for name, inner in shape.get("properties", {}).items():
            if name not in value:
                missing.append(f"{path}.{name}")
            else:
                walk(value[name], inner, f"{path}.{name}")

    walk(values, schema, "")
    assert [it for it in missing if not it.startswith(free)] == []


def test_what_a_user_writes_stands_in_the_file():
    values = {
        "policy": {"sessions": {"idle": "5m", "issuers": [{"issuer": "https://ci.example.org", "audience": "outgate"}]}},
        "settings": {"timeouts": {"connect": "3s"}, "resolver": {"servers": ["10.0.0.53:53"]}},
        "identity": {"policy": "build"},
        "gateway": {"drain": 30},
    }
    (text,) = configurations(helm("gateway-per-agent", values)).values()
    config = yaml.safe_load(text)
    assert config["timeouts"] == {"drain": "30s", "connect": "3s"}
    assert config["resolver"] == {"servers": ["10.0.0.53:53"]}
    assert config["sessions"]["idle"] == "5m"
    ours, theirs = config["sessions"]["issuers"]
    assert (ours["policy"], theirs["issuer"]) == ("build", "https://ci.example.org")


def test_each_service_account_of_a_shared_gateway_can_have_a_policy_of_its_own(tmp_path):
    policies = {"team-a/agent": "coding", "team-b/agent.search": "search"}
    hosts = ["api.anthropic.com"]
    values = {
        "identity": {"policies": policies},
        "policy": {"policies": {name: {"destinations": hosts} for name in policies.values()}},
        "agents": {"namespaces": ["team-a", "team-b"]},
        # An agent's namespace is one of them.
        "agent": {"enabled": False},
    }
    text = configurations(helm("gateway-shared", values))["outgate-control"]
    (issuer,) = yaml.safe_load(text)["sessions"]["issuers"]
    assert issuer["policies"] == {
        "claim": ["kubernetes.io.namespace", "kubernetes.io.serviceaccount.name"],
        "map": policies,
    }
    assert "policy" not in issuer
    told = check(text, tmp_path)
    assert told["ok"], told
    unknown = text.replace("team-a/agent: coding", "team-a/agent: codign")
    assert [it["code"] for it in check(unknown, tmp_path)["problems"]] == ["unknown_policy"]


def test_a_follower_says_nothing_of_the_policy():
    """Of two policies, one would be the one that nobody looks at: the gateway refuses such a file."""
    files = configurations(helm("gateway-shared"))
    assert not {"destinations", "policies", "sessions", "posture"} & set(yaml.safe_load(files["outgate"]))
    assert {"destinations", "sessions"} <= set(yaml.safe_load(files["outgate-control"]))
