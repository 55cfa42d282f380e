"""What the judge says of the rendered policies is what happens to packets, cell by cell.

Every place tries every other one on eleven ports, by TCP and UDP, and with a ping, at every address of both families.
SCTP is judged in `test_network.py` alone: not every kernel speaks it.
"""

import pytest

from rendering import TOPOLOGIES, helm
from test_network import OPEN, OPERATED, without
from wire import Wire
from world import World

pytestmark = pytest.mark.timeout(180)


def outcomes(rendered, names=None, extra=None):
    """For each cell: what the judge says, and what happened."""
    world = World(rendered, extra)
    wire = Wire(world)
    try:
        tried = {}
        for sender in wire.places:
            if names is None or sender.name in names:
                tried |= wire.tried(sender)
    finally:
        wire.close()
    judge = world.cluster.verdict
    return {
        cell: (judge(cell.sender, cell.receiver, cell.address, cell.protocol, cell.port), happened)
        for cell, happened in tried.items()
    }


def differing(found):
    return [
        f"{cell}: judged {judged}, {'answered' if happened else 'refused'}"
        for cell, (judged, happened) in found.items()
        if (judged == "yes") != happened
    ]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_packets_go_where_the_judge_says(topology):
    found = outcomes(helm(topology, {} if topology == "sidecar" else {**OPEN, **OPERATED}))
    assert differing(found) == []
    happened = [it for _, it in found.values()]
    assert len(found) > 10000
    # Neither all open nor all closed: strangers reach each other, and agents their gateway.
    assert sum(happened) > 2000
    assert happened.count(False) > 4000


@pytest.mark.parametrize("topology", ["gateway-per-agent", "gateway-shared"])
def test_an_agents_packets_reach_the_gateways_proxy_and_nothing_else(topology):
    found = outcomes(helm(topology), ["agent 1"])
    reached = {(cell.receiver.name, f"{cell.protocol}/{cell.port}", cell.address) for cell, it in found.items() if it[1]}
    assert {it[:2] for it in reached} == {("gateway 1", "TCP/8080"), ("gateway 2", "TCP/8080")}
    assert len(reached) == 4, "each of both families"


@pytest.mark.parametrize("policy", ["outgate-default-deny", "outgate-agent", "outgate-gateway", "outgate-control"])
def test_a_policy_that_is_taken_away_is_seen_on_the_wire(policy):
    names = ["agent 1", "unlabelled", "stranger", "gateway 1", "control 1"]
    whole, less = (outcomes(it, names) for it in (helm("gateway-shared"), without(helm("gateway-shared"), policy)))
    assert differing(less) == []
    assert {str(it) for it, (_, reached) in less.items() if reached} != {
        str(it) for it, (_, reached) in whole.items() if reached
    }


def test_one_permissive_policy_elsewhere_lets_packets_out():
    permissive = {
        "kind": "NetworkPolicy",
        "metadata": {"name": "allow-all", "namespace": "agents"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]},
    }
    found = outcomes(helm("gateway-shared"), ["agent 1"], [permissive])
    assert differing(found) == []
    reached = {cell.receiver.name for cell, (_, happened) in found.items() if happened}
    assert {"internet", "metadata", "API server", "company"} <= reached
