"""Who reaches whom under all NetworkPolicies together, as the API's reference says it.

Policies only add up: a pod that one policy selects for a direction is closed in that direction but for what any policy
that selects it lets through. A connection needs the sender's egress and the receiver's ingress; answers need nothing.

The reference leaves open whether an `ipBlock` covers addresses of pods (with Cilium it does not, elsewhere it does).
Both readings are judged, and a verdict that depends on it is neither yes nor no.

Not judged, because NetworkPolicy has no word for it: ICMP, traffic within a pod, and what comes from a pod's own node.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any, Literal

Protocol = Literal["TCP", "UDP", "SCTP"]
Verdict = Literal["yes", "no", "depends"]
Policy = dict[str, Any]


class Unreadable(Exception):
    """The policy has something that is not judged here."""


@dataclass(frozen=True)
class Pod:
    """A pod with its labels, one address of each family, and its named ports."""

    name: str
    namespace: str
    labels: dict[str, str]
    addresses: tuple[str, ...]
    ports: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Outside:
    """Whatever is no pod: the internet, a node, the API server, a metadata service."""

    name: str
    addresses: tuple[str, ...]


Place = Pod | Outside


@dataclass(frozen=True)
class Cluster:
    """All policies that there are, and the labels of namespaces."""

    policies: list[Policy]
    namespaces: dict[str, dict[str, str]]

    def verdict(self, sender: Place, receiver: Place, address: str, protocol: Protocol, port: int) -> Verdict:
        """May `sender` connect to `receiver` at this address and port?"""
        readings = {
            self._open(sender, receiver, address, protocol, port, blocks_cover_pods)
            for blocks_cover_pods in (False, True)
        }
        if len(readings) == 2:
            return "depends"
        return "yes" if readings == {True} else "no"

    def _open(
        self, sender: Place, receiver: Place, address: str, protocol: Protocol, port: int, blocks_cover_pods: bool
    ) -> bool:
        from_address = next((it for it in sender.addresses if family(it) == family(address)), None)
        if from_address is None:
            return False
        ask = (receiver, protocol, port, blocks_cover_pods)
        return self._direction("Egress", sender, receiver, address, *ask) and self._direction(
            "Ingress", receiver, sender, from_address, *ask
        )

    def _direction(
        self,
        direction: Literal["Ingress", "Egress"],
        subject: Place,
        peer: Place,
        peer_address: str,
        receiver: Place,
        protocol: Protocol,
        port: int,
        blocks_cover_pods: bool,
    ) -> bool:
        if not isinstance(subject, Pod):
            return True
        policies = [policy for policy in self.policies if self._selects(policy, subject, direction)]
        if not policies:
            return True
        ways, ends = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
        for policy in policies:
            for rule in policy["spec"].get(ways) or []:
                only(rule, {ends, "ports"})
                if self._peer_fits(rule.get(ends), policy, peer, peer_address, blocks_cover_pods) and port_fits(
                    rule.get("ports"), receiver, protocol, port
                ):
                    return True
        return False

    def _selects(self, policy: Policy, pod: Pod, direction: str) -> bool:
        spec = policy["spec"]
        only(spec, {"podSelector", "policyTypes", "ingress", "egress"})
        types = spec.get("policyTypes") or (["Ingress", "Egress"] if "egress" in spec else ["Ingress"])
        return (
            policy["metadata"]["namespace"] == pod.namespace
            and direction in types
            and selector_fits(spec.get("podSelector") or {}, pod.labels)
        )

    def _peer_fits(
        self, peers: list[dict[str, Any]] | None, policy: Policy, place: Place, address: str, blocks_cover_pods: bool
    ) -> bool:
        if not peers:
            return True
        return any(self._one_peer_fits(peer, policy, place, address, blocks_cover_pods) for peer in peers)

    def _one_peer_fits(
        self, peer: dict[str, Any], policy: Policy, place: Place, address: str, blocks_cover_pods: bool
    ) -> bool:
        only(peer, {"ipBlock", "podSelector", "namespaceSelector"})
        if "ipBlock" in peer:
            if len(peer) > 1:
                raise Unreadable("an ipBlock beside a selector is no valid peer")
            return (blocks_cover_pods or isinstance(place, Outside)) and block_fits(peer["ipBlock"], address)
        if not isinstance(place, Pod):
            return False
        if "namespaceSelector" in peer:
            labels = self.namespaces.get(place.namespace)
            if labels is None or not selector_fits(peer["namespaceSelector"], labels):
                return False
        elif place.namespace != policy["metadata"]["namespace"]:
            return False
        return selector_fits(peer.get("podSelector") or {}, place.labels)


def selector_fits(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """An empty selector fits everything."""
    only(selector, {"matchLabels", "matchExpressions"})
    wanted = (selector.get("matchLabels") or {}).items()
    return all(labels.get(key) == value for key, value in wanted) and all(
        expression_fits(expression, labels) for expression in selector.get("matchExpressions") or []
    )


def expression_fits(expression: dict[str, Any], labels: dict[str, str]) -> bool:
    only(expression, {"key", "operator", "values"})
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case other:
            raise Unreadable(f"operator {other}")


def block_fits(block: dict[str, Any], address: str) -> bool:
    only(block, {"cidr", "except"})
    return within(block["cidr"], address) and not any(within(cidr, address) for cidr in block.get("except") or [])


@cache
def within(cidr: str, address: str) -> bool:
    return ip_address(address) in ip_network(cidr)


@cache
def family(address: str) -> int:
    return ip_address(address).version


def port_fits(ports: list[dict[str, Any]] | None, receiver: Place, protocol: Protocol, port: int) -> bool:
    if not ports:
        return True
    for wanted in ports:
        only(wanted, {"protocol", "port", "endPort"})
        if wanted.get("protocol", "TCP") != protocol:
            continue
        number = wanted.get("port")
        if isinstance(number, str):
            number = receiver.ports.get(number) if isinstance(receiver, Pod) else None
            if number is None:
                continue
        if number is None or number <= port <= wanted.get("endPort", number):
            return True
    return False


def only(value: dict[str, Any], known: set[str]) -> None:
    """What is not known here must not be passed over: it could open something."""
    unknown = set(value) - known
    if unknown:
        raise Unreadable(f"{sorted(unknown)} in a policy")
