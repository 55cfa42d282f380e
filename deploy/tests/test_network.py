"""Who reaches whom when all rendered policies hold together, for every pair, port, protocol and address family.

A verdict is for all of a place's addresses, IPv4 and IPv6: a way that is open in one family alone fails.
"""

import re
from ipaddress import IPv6Network, ip_network

import pytest
import yaml

from rendering import DEPLOY, TOPOLOGIES, helm, kustomize
from world import World

SEPARATE = ["gateway-per-agent", "gateway-shared"]
DNS = {"UDP/53", "TCP/53"}
OPEN = {"metrics": {"enabled": True, "namespaces": ["monitoring"]}}
OPERATED = {"operator": {"enabled": True, "namespaces": ["operations"]}}


@pytest.mark.parametrize("topology", SEPARATE)
@pytest.mark.parametrize("agent", ["agent 1", "agent 2"])
def test_an_agent_reaches_the_gateways_proxy_and_nothing_else(topology, agent):
    assert World(helm(topology)).reached_by(agent) == {"gateway 1": {"TCP/8080"}, "gateway 2": {"TCP/8080"}}


@pytest.mark.parametrize("topology", SEPARATE)
def test_the_doors_of_others_stay_closed_to_agents(topology):
    world = World(helm(topology, {**OPEN, **OPERATED}))
    assert world.reached_by("agent 1") == {"gateway 1": {"TCP/8080"}, "gateway 2": {"TCP/8080"}}


@pytest.mark.parametrize("topology", SEPARATE)
def test_an_unlabelled_pod_beside_the_agents_reaches_nothing(topology):
    assert World(helm(topology)).reached_by("unlabelled") == {}


@pytest.mark.parametrize("topology", SEPARATE)
def test_an_agent_is_closed_in_without_the_namespaces_policy_too(topology):
    world = World(helm(topology, {"networkPolicy": {"namespaceDefaultDeny": False}}))
    assert world.reached_by("agent 1") == {"gateway 1": {"TCP/8080"}, "gateway 2": {"TCP/8080"}}
    assert world.reaching("agent 1") == {}


def test_an_agent_does_not_reach_the_gateway_of_another():
    world = World(helm("gateway-per-agent") + helm("gateway-per-agent", {}, "second"))
    assert world.reached_by("agent 1") == {"gateway 1": {"TCP/8080"}, "gateway 2": {"TCP/8080"}}
    gateways = {"second's gateway 1": {"TCP/8080"}, "second's gateway 2": {"TCP/8080"}}
    assert world.reached_by("second's agent 1") == gateways


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_nobody_reaches_an_agent(topology):
    assert World(helm(topology, {} if topology == "sidecar" else {**OPEN, **OPERATED})).reaching("agent 1") == {}


@pytest.mark.parametrize("topology", SEPARATE)
def test_a_gateway_is_reached_by_its_agents_alone(topology):
    agents = {"agent 1": {"TCP/8080"}, "agent 2": {"TCP/8080"}}
    assert World(helm(topology)).reaching("gateway 1") == agents


def test_the_agents_policies_close_by_themselves():
    """Neither end relies on what the other one refuses."""
    rendered = helm("gateway-shared", {**OPEN, **OPERATED})
    world = World(without(rendered, "outgate-gateway", "outgate-control"))
    assert world.reached_by("agent 1") == {"gateway 1": {"TCP/8080"}, "gateway 2": {"TCP/8080"}}


@pytest.mark.parametrize("topology", SEPARATE)
def test_the_gateways_policy_closes_by_itself(topology):
    world = World(without(helm(topology, {**OPEN, **OPERATED}), "outgate-agent", "outgate-default-deny"))
    reaching = world.reaching("gateway 1")
    assert {who for who, ways in reaching.items() if "TCP/8080" in ways} == {"agent 1", "agent 2"}
    assert reaching["agent 1"] == {"TCP/8080"}


@pytest.mark.parametrize("topology", SEPARATE)
def test_a_gateway_reaches_dns_and_the_world_by_https(topology):
    ways = {"dns": DNS, "internet": {"TCP/443"}}
    if topology == "gateway-shared":
        ways |= {"control 1": {"TCP/9444"}, "control 2": {"TCP/9444"}}
    assert World(helm(topology)).reached_by("gateway 1") == ways


def test_the_control_plane_reaches_nothing_and_is_reached_by_gateways_alone():
    world = World(helm("gateway-shared"))
    assert world.reached_by("control 1") == {}
    assert world.reaching("control 1") == {"gateway 1": {"TCP/9444"}, "gateway 2": {"TCP/9444"}}


@pytest.mark.parametrize(("topology", "whose"), [("gateway-per-agent", "gateway 1"), ("gateway-shared", "control 1")])
def test_operators_come_from_the_named_namespace(topology, whose):
    reaching = World(helm(topology, OPERATED)).reaching(whose)
    assert [who for who, ways in reaching.items() if "TCP/9443" in ways] == ["console"]
    assert reaching["console"] == {"TCP/9443"}


@pytest.mark.parametrize("topology", SEPARATE)
def test_metrics_are_read_from_the_named_namespace(topology):
    reaching = World(helm(topology, OPEN)).reaching("gateway 1")
    assert [who for who, ways in reaching.items() if "TCP/9090" in ways] == ["prometheus"]
    assert reaching["prometheus"] == {"TCP/9090"}


@pytest.mark.parametrize("topology", SEPARATE)
def test_without_named_namespaces_a_door_is_open_to_none(topology):
    doors = {"operator": {"enabled": True}, "metrics": {"enabled": True}}
    world = World(helm(topology, doors))
    assert {way for ways in world.reaching("gateway 1").values() for way in ways} == {"TCP/8080"}


def test_a_named_target_is_reached_by_gateways_and_by_nobody_else():
    target = {"to": [{"ipBlock": {"cidr": cidr}} for cidr in ("10.20.0.5/32", "fd20::5/128")]}
    target["ports"] = [{"protocol": "TCP", "port": 443}]
    world = World(helm("gateway-per-agent", {"networkPolicy": {"egress": {"targets": [target]}}}))
    assert world.reaching("company").keys() >= {"gateway 1", "gateway 2", "stranger"}
    assert world.reached_by("gateway 1")["company"] == {"TCP/443"}
    assert world.reached_by("agent 1").keys() == {"gateway 1", "gateway 2"}


def test_a_control_plane_with_named_targets_may_ask_dns_for_them():
    target = {"to": [{"ipBlock": {"cidr": cidr}} for cidr in ("10.20.0.5/32", "fd20::5/128")]}
    world = World(helm("gateway-shared", {"networkPolicy": {"egress": {"targets": [target]}}}))
    assert world.reached_by("control 1").keys() == {"dns", "company"}
    assert world.reached_by("control 1")["dns"] == DNS


def test_an_agents_pod_with_a_sidecar_reaches_what_the_sidecar_does():
    """A policy sees a pod, not a container: what keeps the agent in is the capture, not this."""
    world = World(helm("sidecar"))
    assert world.reached_by("agent 1") == {"dns": DNS, "internet": {"TCP/443"}}
    assert world.reached_by("unlabelled") == {}


def test_with_names_the_way_to_the_world_is_no_longer_a_range():
    """What the names open is Cilium's to say; the rest must not open more."""
    world = World(helm("gateway-shared", {"networkPolicy": {"cilium": {"enabled": True}}}))
    assert world.reached_by("gateway 1") == {"control 1": {"TCP/9444"}, "control 2": {"TCP/9444"}}


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_overlays_open_the_same(topology):
    assert World(kustomize(topology)).reached() == World(helm(topology)).reached()


def test_one_permissive_policy_elsewhere_defeats_ours_and_is_seen():
    permissive = {
        "kind": "NetworkPolicy",
        "metadata": {"name": "allow-all", "namespace": "agents"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]},
    }
    world = World(helm("gateway-shared"), [permissive])
    assert {"internet", "metadata", "API server", "company"} <= world.reached_by("agent 1").keys()


@pytest.mark.parametrize(
    ("policy", "sender", "receiver"),
    [
        ("outgate-default-deny", "unlabelled", "internet"),
        ("outgate-gateway", "stranger", "gateway 1"),
        ("outgate-gateway", "gateway 1", "metadata"),
        ("outgate-control", "stranger", "control 1"),
    ],
)
def test_each_policy_is_needed(policy, sender, receiver):
    rendered = helm("gateway-shared")
    assert receiver not in World(rendered).reached_by(sender)
    assert receiver in World(without(rendered, policy)).reached_by(sender)


def without(rendered, *policies):
    return [it for it in rendered if it["kind"] != "NetworkPolicy" or it["metadata"]["name"] not in policies]


def test_the_ranges_that_are_excepted_are_those_that_the_gateway_never_dials():
    """Both lists are written by hand; a range that the gateway learns belongs here too."""
    source = (DEPLOY.parent / "crates" / "journey" / "src" / "address.rs").read_text()
    v4 = re.findall(r"\(v4\((\d+), (\d+), (\d+), (\d+), (\d+)\)", source)
    v6 = re.findall(r"\(v6\((\w+), (\w+), (\w+), (\d+)\)", source)
    judged = {"{}.{}.{}.{}/{}".format(*it) for it in v4}
    assert len(judged) > 15
    excepted = networks("ipv4")
    # Multicast and Azure's wire server have lines of their own in the source.
    assert {str(it) for it in excepted} == judged | {"224.0.0.0/4", "168.63.129.16/32"}
    judged6 = {
        IPv6Network((sum(int(part, 0) << (112 - 16 * i) for i, part in enumerate(groups)), int(prefix)))
        for *groups, prefix in v6
    }
    assert len(judged6) > 8
    uncovered = {it for it in judged6 if not any(it.subnet_of(other) for other in networks("ipv6"))}
    assert not uncovered
    assert {IPv6Network("ff00::/8"), IPv6Network("2002::/16")} <= networks("ipv6")


def networks(family):
    values = yaml.safe_load((DEPLOY / "helm" / "outgate" / "values.yaml").read_text())
    return {ip_network(cidr) for cidr in values["networkPolicy"]["egress"]["except"][family]}
