"""NetworkPolicies as packet filter rules of the router: what a cluster's network plugin makes of them.

Written beside the judge in `reachability.py` and not from it: a rule of a policy becomes rules here, and the kernel
says what they come to. Both share only which labels a selector fits.

An `ipBlock` covers whatever has such an address, pods as well. What is closed is rejected, not dropped, so that a test
sees the refusal instead of waiting for it. A closed direction lets no protocol through that no rule names, as Calico
and Cilium do; NetworkPolicy itself has no word for ICMP.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from reachability import Pod, Policy, family, only, selector_fits

REJECT = ["meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited"]
WORD = {4: "ip", 6: "ip6"}


def packet_filter(policies: list[Policy], pods: list[Pod], namespaces: dict[str, dict[str, str]]) -> str:
    """The whole rule set, for `nft -f`."""
    forward = ["type filter hook forward priority filter; policy accept;", "ct state established,related accept"]
    chains = []
    for number, pod in enumerate(pods):
        for direction, side in (("Egress", "saddr"), ("Ingress", "daddr")):
            mine = [it for it in policies if selects(it, pod, direction)]
            if not mine:
                continue
            name = f"{direction.lower()}_{number}"
            opened = [line for it in mine for line in openings(it, direction, pod, pods, namespaces)]
            chains.append(chain(name, [*opened, *REJECT]))
            forward += [f"{WORD[family(it)]} {side} {it} jump {name}" for it in pod.addresses]
    return "\n".join(["table inet cluster {", *chains, chain("forward", forward), "}", ""])


def chain(name: str, lines: list[str]) -> str:
    return "\n".join([f"  chain {name} {{", *(f"    {line}" for line in lines), "  }"])


def selects(policy: Policy, pod: Pod, direction: str) -> bool:
    spec = policy["spec"]
    if policy["metadata"]["namespace"] != pod.namespace or not selector_fits(spec.get("podSelector") or {}, pod.labels):
        return False
    return direction in (spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])])


def openings(
    policy: Policy, direction: str, subject: Pod, pods: list[Pod], namespaces: dict[str, dict[str, str]]
) -> list[str]:
    """One line for each peer and port that a policy lets through. `return` goes on to the other end's chain."""
    ways, ends = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    side = "saddr" if direction == "Ingress" else "daddr"
    lines = []
    for rule in policy["spec"].get(ways) or []:
        only(rule, {ends, "ports"})
        for peer, port in product(rule.get(ends) or [None], rule.get("ports") or [None]):
            named = port is not None and isinstance(port.get("port"), str)
            for match, found in peers(peer, policy["metadata"]["namespace"], side, pods, namespaces, each=named):
                receiver = subject if direction == "Ingress" else found
                wanted = None if port is None else dport(port, receiver)
                if wanted is not None or port is None:
                    lines.append(" ".join(part for part in (match, wanted, "return") if part))
    return lines


def peers(
    peer: dict[str, Any] | None, own: str, side: str, pods: list[Pod], namespaces: dict[str, dict[str, str]], each: bool
) -> list[tuple[str, Pod | None]]:
    """What fits a peer; with `each`, pod by pod, because a named port is another one in each."""
    if peer is None:
        return [("", None)]
    only(peer, {"ipBlock", "podSelector", "namespaceSelector"})
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        where = f"{WORD[family(block['cidr'].split('/')[0])]} {side}"
        but = f" {where} != {{ {', '.join(block['except'])} }}" if block.get("except") else ""
        # nft takes no prefix of length 0.
        everything = f"meta nfproto {'ipv6' if ':' in block['cidr'] else 'ipv4'}"
        return [((everything if block["cidr"].endswith("/0") else f"{where} {block['cidr']}") + but, None)]
    fitting = [it for it in pods if pod_fits(peer, own, it, namespaces)]
    groups = [[it] for it in fitting] if each else [fitting]
    found: list[tuple[str, Pod | None]] = []
    for group, version in product(groups, (4, 6)):
        addresses = [address for it in group for address in it.addresses if family(address) == version]
        if addresses:
            found.append((f"{WORD[version]} {side} {{ {', '.join(addresses)} }}", group[0] if each else None))
    return found


def pod_fits(peer: dict[str, Any], own: str, pod: Pod, namespaces: dict[str, dict[str, str]]) -> bool:
    if "namespaceSelector" in peer:
        if not selector_fits(peer["namespaceSelector"], namespaces[pod.namespace]):
            return False
    elif pod.namespace != own:
        return False
    return selector_fits(peer.get("podSelector") or {}, pod.labels)


def dport(port: dict[str, Any], receiver: Pod | None) -> str | None:
    """None if the receiver has no port of this name."""
    only(port, {"protocol", "port", "endPort"})
    protocol, number = port.get("protocol", "TCP").lower(), port.get("port")
    if number is None:
        return f"meta l4proto {protocol}"
    if isinstance(number, str):
        number = receiver.ports.get(number) if receiver else None
    return None if number is None else f"{protocol} dport {number}-{port.get('endPort', number)}"
