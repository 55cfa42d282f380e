"""A cluster that runs: real gateways from their manifests, an upstream, DNS, and agents that are curl and Python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from certificates import Authority, Issuer
from container import ROOTS, Container, secrets_and_maps
from reachability import family
from rendering import helm
from services import Dns, Upstream
from wire import Wire
from world import World

KEY = "sk-ant-real-2c94853f1e0d7ab"
NAMES = {
    "api.anthropic.com": ("1.1.1.1", "2606:4700::1111"),
    "four.example.net": ("1.1.1.1",),
    "six.example.net": ("2606:4700::1111",),
    "closed.example.net": ("1.1.1.1",),
    # A name that is let out and points where nothing may be sent.
    "rebound.example.net": ("169.254.169.254",),
}
VALUES = {
    "policy": {
        "destinations": [
            {"host": "api.anthropic.com", "inject": {"credential": "anthropic", "header": "x-api-key"}},
            *({"host": f"{name}.example.net", "posture": "pass-through"} for name in ("four", "six", "rebound")),
        ]
    }
}
AGENT = "agent 1"


class Live:
    """One of the topologies, running in `folder`. Its gateways answer on 8080, everybody else by name."""

    def __init__(self, topology: str, folder: Path) -> None:
        self.folder = folder
        self.topology = topology
        self.rendered = helm(topology, VALUES)
        world = World(self.rendered)
        self.gateways = ["gateway 1", "gateway 2"] if topology == "gateway-shared" else ["gateway 1"]
        silent = {name: {"TCP/8080"} for name in self.gateways}
        self.wire = Wire(world, {**silent, "control 1": {"TCP/9444"}, "internet": {"TCP/443"}, "dns": {"UDP/53"}})
        self.issuer = Issuer(folder)
        outside = Authority(folder / "outside", "the world's CA")
        self.roots = outside.certificate
        certificate, key = outside.issue(*NAMES)
        self.upstream = Upstream(self.wire["internet"], self.address("internet"), certificate, key)
        control = {"outgate-control.outgate.svc.cluster.local": self.address("control 1")} if self.shared else {}
        self.dns = Dns(self.wire["dns"], self.address("dns"), {**NAMES, **control})
        self.ca = Authority(folder / "leaves", "the deployment's CA")
        self.files = secrets_and_maps(self.rendered, **self.secrets())
        self.containers: dict[str, Container] = {}
        # What agents trust: the world's roots and the gateways' CA.
        self.bundle = folder / "bundle.pem"
        self.bundle.write_text(self.roots.read_text() + self.ca.certificate.read_text())

    @property
    def shared(self) -> bool:
        return self.topology == "gateway-shared"

    def address(self, name: str) -> tuple[str, ...]:
        return self.wire.place(name).addresses

    def secrets(self) -> dict[str, dict[str, str]]:
        """What an owner makes before the first start."""
        peers = Authority(self.folder / "peers", "gateways' CA")

        def pair(*names: str) -> dict[str, str]:
            certificate, key = peers.issue(*names)
            return {"tls.crt": certificate.read_text(), "tls.key": key.read_text(), "ca.crt": peers.certificate.read_text()}

        return {
            "outgate_ca": {"tls.crt": self.ca.certificate.read_text(), "tls.key": self.ca.key.read_text()},
            "outgate_credentials": {"anthropic": KEY},
            "outgate_jwks": {"jwks.json": self.issuer.jwks},
            "outgate_gateway_tls": pair("outgate-gateway"),
            "outgate_control_tls": pair("outgate-control.outgate.svc.cluster.local"),
        }

    def start(self) -> None:
        kinds = {it["metadata"]["name"]: it for it in self.rendered if it["kind"] in ("Deployment", "StatefulSet")}
        if self.shared:
            self.run("control 1", kinds["outgate-control"], 9444)
        for name in self.gateways:
            self.run(name, kinds["outgate"], 8080)

    def run(self, name: str, workload: dict[str, Any], port: int) -> Container:
        """Starts the pod's container where the place is, as kubelet would: with DNS, and with the image's roots."""
        folder = self.folder / name.replace(" ", "-")
        resolv = self.folder / "resolv.conf"
        resolv.write_text(f"nameserver {self.address('dns')[0]}\noptions ndots:1\n")
        image = {ROOTS: self.roots, "/etc/resolv.conf": resolv}
        container = Container(workload, self.files, image, folder, self.wire[name])
        self.containers[name] = container
        container.start()
        container.wait_ready(self.address(name)[0], port)
        return container

    def proxy(self, gateway: str = "gateway 1", version: int = 4, token: str | None = None) -> str:
        (address,) = [it for it in self.address(gateway) if family(it) == version]
        host = f"[{address}]" if version == 6 else address
        return f"http://{f'session:{token}@' if token else ''}{host}:8080"

    def curl(self, place: str, *arguments: str, proxy: str | None = None) -> subprocess.CompletedProcess[str]:
        """curl where that place is. It has the proxy's variables, or none."""
        return self.client(place, "curl", "--silent", "--show-error", "--max-time", "10", *arguments, proxy=proxy)

    def python(self, place: str, code: str, proxy: str | None = None) -> subprocess.CompletedProcess[str]:
        return self.client(place, sys.executable, "-c", code, proxy=proxy)

    def client(self, place: str, *command: str, proxy: str | None = None) -> subprocess.CompletedProcess[str]:
        names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        trust = dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE"), str(self.bundle))
        env = {"PATH": "/usr/bin:/bin", **trust, **(dict.fromkeys(names, proxy) if proxy else {})}
        whole = self.wire[place].command(*command)
        return subprocess.run(whole, env=env, capture_output=True, text=True, timeout=30)

    def close(self) -> None:
        for it in self.containers.values():
            it.close()
        self.upstream.close()
        self.dns.close()
        self.wire.close()


@contextmanager
def running(topology: str, folder: Path) -> Iterator[Live]:
    cluster = Live(topology, folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
