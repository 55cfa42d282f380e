"""Renders the chart and the kustomizations as their users do, with the real programs."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parent.parent
CHART = DEPLOY / "helm" / "outgate"
KUSTOMIZE = DEPLOY / "kustomize"
TOOLS = Path(os.environ.get("OUTGATE_DEPLOY_TOOLS", DEPLOY.parent / ".cache" / "deploy-tools"))

Object = dict[str, Any]
Key = tuple[str, str | None, str]
# The namespace that each topology's preset is installed into.
TOPOLOGIES = {"gateway-per-agent": "agents", "gateway-shared": "outgate", "sidecar": "agents"}


@dataclass(frozen=True)
class Option:
    """One thing to switch on: by values of the chart, and by components and where they are added."""

    name: str
    values: dict[str, Any]
    components: dict[str, list[str]]
    topologies: tuple[str, ...] = ("gateway-per-agent", "gateway-shared")
    # The key of the configuration file that the components' comments tell people to add.
    written: tuple[str, ...] = ()


GATEWAY, ROOT, AGENTS = "gateway", "root", "agents"
INBOUND = {
    "enabled": True,
    "to": "http://agent.agents.svc.cluster.local:9000",
    "namespaces": ["ingress"],
    "issuers": [{"issuer": "https://idp.example.org", "audience": "agent"}],
}
ALIAS = {"ip": "192.0.2.1", "hostnames": ["api.anthropic.com"]}
OPTIONS = [
    Option(
        "cert-manager",
        {"ca": {"certManager": {"enabled": True}}},
        {GATEWAY: ["cert-manager"]},
        ("gateway-per-agent", "sidecar"),
    ),
    Option(
        "cert-manager, with peers",
        {"ca": {"certManager": {"enabled": True}}},
        {GATEWAY: ["cert-manager", "cert-manager-peers"]},
        ("gateway-shared",),
    ),
    Option(
        "trust-manager",
        {"ca": {"trustManager": {"enabled": True}}},
        {ROOT: ["trust-manager"]},
        tuple(TOPOLOGIES),
    ),
    Option(
        "autoscaling",
        {"gateway": {"autoscaling": {"enabled": True}}},
        {GATEWAY: ["autoscaling"]},
        ("gateway-shared",),
    ),
    Option(
        "metrics",
        {"metrics": {"enabled": True, "namespaces": ["monitoring"], "serviceMonitor": {"enabled": True}}},
        {GATEWAY: ["metrics"]},
        written=("listen", "metrics"),
    ),
    Option(
        "inbound",
        {"inbound": INBOUND},
        {GATEWAY: ["inbound"]},
        ("gateway-per-agent",),
        ("inbound",),
    ),
    Option(
        "inbound, agents elsewhere",
        {"inbound": INBOUND},
        {GATEWAY: ["inbound"], AGENTS: ["inbound-agents"]},
        ("gateway-shared",),
        ("inbound",),
    ),
    Option(
        "inbound, in the agent's pod",
        {"inbound": {**INBOUND, "to": "http://127.0.0.1:9000"}},
        {GATEWAY: ["inbound-sidecar"]},
        ("sidecar",),
        ("inbound",),
    ),
    Option(
        "transparent capture",
        {"capture": {"transparent": True}, "agent": {"hostAliases": [ALIAS]}},
        {ROOT: ["capture"]},
        ("sidecar",),
        ("listen", "transparent"),
    ),
    Option(
        "cilium",
        {"networkPolicy": {"cilium": {"enabled": True}}},
        {GATEWAY: ["cilium"], AGENTS: ["cilium-agents"]},
        ("gateway-shared",),
    ),
]


def run(*command: str | Path, stdin: str | None = None) -> str:
    done = subprocess.run([str(part) for part in command], input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{done.stderr}{done.stdout}")
    return done.stdout


def helm(topology: str, values: dict[str, Any] | None = None, release: str = "outgate", *more: str) -> list[Object]:
    """`helm template` of a preset, with further values."""
    text = run(
        *(TOOLS / "helm", "template", release, CHART, "--namespace", TOPOLOGIES[topology]),
        *("--values", CHART / "presets" / f"{topology}.yaml", "--values", "-", *more),
        stdin=yaml.safe_dump(values or {}),
    )
    return objects(text)


def kustomize(topology: str, option: Option | None = None, scratch: Path | None = None) -> list[Object]:
    """`kubectl kustomize` of an overlay; with an option, of a copy in `scratch` that has its components."""
    if option is None:
        return objects(run(TOOLS / "kubectl", "kustomize", KUSTOMIZE / "overlays" / topology))
    assert scratch is not None
    copy = scratch / "kustomize"
    shutil.copytree(KUSTOMIZE, copy)
    overlay = copy / "overlays" / topology
    parts = {GATEWAY: overlay / "gateway", AGENTS: overlay / "agents"} if topology == "gateway-shared" else {}
    outer = copy / "overlays" / "outer"
    outer.mkdir()
    (outer / "kustomization.yaml").write_text(f"resources: [../{topology}]\n")
    for where, components in option.components.items():
        folder = outer if where == ROOT else parts.get(where, overlay)
        up = os.path.relpath(copy / "components", folder)
        with (folder / "kustomization.yaml").open("a") as file:
            file.write(f"components: [{', '.join(f'{up}/{name}' for name in components)}]\n")
    return objects(run(TOOLS / "kubectl", "kustomize", outer))


def objects(text: str) -> list[Object]:
    return [it for it in yaml.safe_load_all(text) if it]


def key(it: Object) -> Key:
    return it["kind"], it["metadata"].get("namespace"), it["metadata"]["name"]


def by_key(rendered: list[Object]) -> dict[Key, Object]:
    found = {key(it): it for it in rendered}
    assert len(found) == len(rendered), "two objects of one name"
    return found


def comparable(rendered: list[Object]) -> dict[Key, Object]:
    """As the API server would read them: what is a set there has one order here, and a file of YAML is its content."""
    return {name: in_order(it) for name, it in by_key(rendered).items()}


def in_order(value: Any) -> Any:
    if isinstance(value, list):
        return [in_order(it) for it in value]
    if not isinstance(value, dict):
        return value
    ordered = {name: in_order(it) for name, it in value.items()}
    for name, by in (("volumes", "name"), ("volumeMounts", "mountPath")):
        if isinstance(ordered.get(name), list):
            ordered[name] = sorted(ordered[name], key=lambda it: it[by])
    if ordered.get("kind") == "ConfigMap":
        ordered["data"] = {name: yaml.safe_load(text) for name, text in ordered["data"].items()}
    return ordered


def pod_templates(rendered: list[Object]) -> list[tuple[Key, Object]]:
    kinds = {"Deployment", "StatefulSet"}
    return [(key(it), it["spec"]["template"]) for it in rendered if it["kind"] in kinds]


def containers(template: Object) -> list[Object]:
    spec = template["spec"]
    return (spec.get("initContainers") or []) + spec["containers"]


def configurations(rendered: list[Object]) -> dict[str, str]:
    maps = (it for it in rendered if it["kind"] == "ConfigMap")
    return {it["metadata"]["name"]: it["data"]["outgate.yaml"] for it in maps if "outgate.yaml" in it["data"]}
