"""A cluster to judge policies in: the pods that the manifests make, and everybody around them."""

from __future__ import annotations

from itertools import product
from typing import Any

from reachability import Cluster, Outside, Place, Pod, Protocol, family

Object = dict[str, Any]

# Ports that somebody may listen on: DNS, the web, our own doors, SSH, the API server, kubelet, an agent's own.
PORTS = (22, 53, 80, 443, 3000, 6443, 8080, 8443, 9090, 9443, 9444, 10250)
PROTOCOLS: tuple[Protocol, ...] = ("TCP", "UDP", "SCTP")

OUTSIDE = [
    Outside("internet", ("1.1.1.1", "2606:4700::1111")),
    Outside("metadata", ("169.254.169.254", "fd00:ec2::254")),
    Outside("metadata of Azure", ("168.63.129.16",)),
    Outside("API server", ("10.96.0.1", "fd00:10:96::1")),
    Outside("node", ("172.18.0.2", "fc00:f853:ccd:e793::2")),
    Outside("company", ("10.20.0.5", "fd20::5")),
    Outside("carrier NAT", ("100.64.0.9",)),
    Outside("embedded", ("::ffff:10.96.0.1", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1")),
]


class World:
    """All places, and the cluster's policies."""

    def __init__(self, rendered: list[Object], extra_policies: list[Object] | None = None) -> None:
        self._count = 1
        self.places: list[Place] = [*OUTSIDE]
        for it in rendered:
            if it["kind"] in {"Deployment", "StatefulSet"}:
                self._add_workload(it)
        for name, namespace, labels in [
            ("unlabelled", "agents", {}),
            # What a guest with rights in another namespace would try.
            ("impostor", "elsewhere", {"outgate/gateway": "outgate"}),
            ("neighbour", "outgate", {}),
            ("stranger", "elsewhere", {}),
            ("prometheus", "monitoring", {"app": "prometheus"}),
            ("console", "operations", {}),
            ("dns", "kube-system", {"k8s-app": "kube-dns"}),
            ("metrics-server", "kube-system", {"k8s-app": "metrics-server"}),
        ]:
            self._add(name, namespace, labels)
        namespaces = {it.namespace for it in self.places if isinstance(it, Pod)}
        policies = [it for it in rendered if it["kind"] == "NetworkPolicy"] + (extra_policies or [])
        self.cluster = Cluster(policies, {name: {"kubernetes.io/metadata.name": name} for name in namespaces})

    def _add_workload(self, workload: Object) -> None:
        template = workload["spec"]["template"]
        labels = template["metadata"]["labels"]
        component, instance = labels["app.kubernetes.io/component"], labels["app.kubernetes.io/instance"]
        prefix = "" if instance == "outgate" else f"{instance}'s "
        ports = {
            port["name"]: port["containerPort"]
            for container in template["spec"]["containers"]
            for port in container.get("ports", [])
        }
        namespace = workload["metadata"]["namespace"]
        # Two of each: pods of one kind are each other's neighbours, too.
        for number in (1, 2):
            self._add(f"{prefix}{component} {number}", namespace, template["metadata"]["labels"], ports)

    def _add(self, name: str, namespace: str, labels: dict[str, str], ports: dict[str, int] | None = None) -> None:
        self._count += 1
        addresses = (f"10.244.0.{self._count}", f"fd00:10:244::{self._count:x}")
        self.places.append(Pod(name, namespace, labels, addresses, ports or {}))

    def reached(self) -> dict[tuple[str, str], set[str]]:
        """Every pair with a way between them: `TCP/8080`."""
        pairs = product(self.places, self.places)
        found = {(sender.name, receiver.name): self.ways(sender, receiver) for sender, receiver in pairs}
        return {pair: ways for pair, ways in found.items() if ways}

    def reached_by(self, name: str) -> dict[str, set[str]]:
        found = {it.name: self.ways(self._place(name), it) for it in self.places}
        return {receiver: ways for receiver, ways in found.items() if ways}

    def reaching(self, name: str) -> dict[str, set[str]]:
        found = {it.name: self.ways(it, self._place(name)) for it in self.places}
        return {sender: ways for sender, ways in found.items() if ways}

    def ways(self, sender: Place, receiver: Place) -> set[str]:
        """All addresses of the receiver have to agree, and all readings of the API's reference."""
        if sender is receiver or (isinstance(sender, Outside) and isinstance(receiver, Outside)):
            return set()
        asked = product(PROTOCOLS, PORTS)
        return {f"{protocol}/{port}" for protocol, port in asked if self._way(sender, receiver, protocol, port)}

    def _way(self, sender: Place, receiver: Place, protocol: Protocol, port: int) -> bool:
        families = {family(it) for it in sender.addresses}
        addresses = [it for it in receiver.addresses if family(it) in families]
        verdicts = {self.cluster.verdict(sender, receiver, it, protocol, port) for it in addresses}
        what = f"{sender.name} > {receiver.name} {protocol}/{port}: {verdicts}"
        assert len(verdicts) <= 1, f"{what} by address"
        assert "depends" not in verdicts, f"{what}, by network plugin"
        return verdicts == {"yes"}

    def _place(self, name: str) -> Place:
        (found,) = [it for it in self.places if it.name == name]
        return found
