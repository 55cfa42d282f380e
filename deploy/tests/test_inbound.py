"""The listener in front of the agent: who reaches it, what it reaches, and what its configuration says."""

import pytest
import yaml

from binary import check
from callers import CALLED, called
from rendering import TOPOLOGIES, configurations, containers, helm, pod_templates
from world import World

SEPARATE = ["gateway-per-agent", "gateway-shared"]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_binary_takes_the_listener(topology, tmp_path):
    files = configurations(helm(topology, called(forwardToken=True, to="https://agent.example.org")))
    (text,) = [text for text in files.values() if "inbound" in yaml.safe_load(text)]
    config = yaml.safe_load(text)
    told = check(text, tmp_path)
    assert told["ok"], told
    (listener,) = config["inbound"]
    assert listener["listen"].endswith(":8443")
    assert listener["forward_token"] is True
    # The control plane carries no traffic.
    assert "listen" in config and "control" not in config["listen"]


@pytest.mark.parametrize("topology", SEPARATE)
def test_callers_come_from_the_named_namespace_and_reach_the_agent_through_the_gateway_alone(topology):
    world = World(helm(topology, CALLED))
    reaching = world.reaching("gateway 1")
    assert [who for who, ways in reaching.items() if "TCP/8443" in ways] == ["console"]
    assert reaching["console"] == {"TCP/8443"}
    assert world.reaching("agent 1") == {"gateway 1": {"TCP/3000"}, "gateway 2": {"TCP/3000"}}
    assert world.reached_by("agent 1") == {"gateway 1": {"TCP/8080"}, "gateway 2": {"TCP/8080"}}


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_without_named_callers_nobody_calls(topology):
    world = World(helm(topology, called(namespaces=[])))
    places = ["agent 1"] if topology == "sidecar" else ["gateway 1", "gateway 2"]
    for place in places:
        assert not [who for who, ways in world.reaching(place).items() if "TCP/8443" in ways]


@pytest.mark.parametrize("topology", SEPARATE)
def test_other_callers_are_named_as_peers(topology):
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "elsewhere"}}, "podSelector": {}}
    world = World(helm(topology, {"inbound": {**CALLED["inbound"], "namespaces": [], "from": [peer]}}))
    reaching = world.reaching("gateway 1")
    assert {who for who, ways in reaching.items() if "TCP/8443" in ways} == {"impostor", "stranger"}


def test_in_the_agents_pod_callers_reach_the_listener_and_not_the_agents_own_port():
    world = World(helm("sidecar", called(to="http://127.0.0.1:3000")))
    assert world.reaching("agent 1") == {"console": {"TCP/8443"}}


@pytest.mark.parametrize("topology", SEPARATE)
def test_the_control_plane_has_neither_the_port_nor_the_certificate(topology):
    for name, template in pod_templates(helm(topology, CALLED)):
        for container in containers(template):
            has_port = "inbound" in {port["name"] for port in container.get("ports", [])}
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            is_gateway = name[2] == "outgate"
            assert (has_port, "inbound-tls" in mounts) == (is_gateway, is_gateway), name


@pytest.mark.parametrize("values", [called(to=""), called(issuers=[]), called(oops=1), called(to="agent:9000")])
def test_a_listener_without_a_service_or_an_issuer_is_not_rendered(values):
    with pytest.raises(RuntimeError, match="inbound"):
        helm("gateway-per-agent", values)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_switched_off_nothing_of_it_is_rendered(topology):
    assert "inbound" not in yaml.safe_dump_all(helm(topology))
