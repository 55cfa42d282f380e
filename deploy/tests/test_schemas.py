"""Everything that is rendered is what the API server takes."""

import copy
import json
import os
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest

from rendering import OPTIONS, TOPOLOGIES, helm, key

# The oldest that the chart takes, and the newest that there is a schema of.
VERSIONS = ["1.30", "1.37"]
CORE = {"v1", "apps/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1"}
MORE = {
    "operator": {
        "enabled": True,
        "namespaces": ["operations"],
        "tokens": [{"name": "ci", "secret": {"name": "ci", "key": "token"}, "scopes": ["session:read"]}],
    },
    "imagePullSecrets": [{"name": "registry"}],
    "image": {"digest": "sha256:" + "0" * 64},
    "networkPolicy": {"egress": {"targets": [{"to": [{"ipBlock": {"cidr": "10.0.0.7/32"}}]}]}},
}
EVERYTHING = [
    *(helm(topology) for topology in TOPOLOGIES),
    *(helm(topology, option.values) for option in OPTIONS for topology in option.topologies),
    helm("gateway-shared", MORE),
]
OBJECTS = {json.dumps(it, sort_keys=True): it for rendered in EVERYTHING for it in rendered}
OURS = [it for it in OBJECTS.values() if it["apiVersion"] in CORE]
CUSTOM = [it for it in OBJECTS.values() if it["apiVersion"] not in CORE]

# The schemas of custom resources do not refuse what they do not know; the API server drops it in silence.
KNOWN = {
    "Certificate": {
        *("commonName", "dnsNames", "duration", "isCA", "issuerRef"),
        *("privateKey", "renewBefore", "secretName", "usages"),
    },
    "Issuer": {"selfSigned", "ca"},
    "Bundle": {"sources", "target"},
    "ServiceMonitor": {"selector", "endpoints"},
    "CiliumNetworkPolicy": {"endpointSelector", "egress"},
}


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_of_kubernetes_are_valid(version):
    assert len(OURS) > 40
    for it in OURS:
        kubernetes_validate.validate(it, version, strict=True)


def test_the_schemas_of_kubernetes_refuse_what_is_not_there():
    broken = copy.deepcopy(next(it for it in OURS if it["kind"] == "Deployment"))
    broken["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_custom_resources_are_valid():
    kinds = {it["kind"] for it in CUSTOM}
    assert kinds == set(KNOWN)
    assert problems(CUSTOM) == []
    for it in CUSTOM:
        assert set(it) == {"apiVersion", "kind", "metadata", "spec"}, key(it)
        assert set(it["spec"]) <= KNOWN[it["kind"]], key(it)


def test_the_schemas_of_custom_resources_refuse_a_wrong_value():
    broken = copy.deepcopy(next(it for it in CUSTOM if it["kind"] == "Certificate"))
    broken["spec"]["privateKey"]["algorithm"] = "P256"
    assert len(problems([broken])) == 1


def test_every_ca_of_cert_manager_is_one_that_the_gateway_takes():
    for it in (it for it in CUSTOM if it["kind"] == "Certificate"):
        assert it["spec"]["privateKey"]["algorithm"] == "ECDSA"
        assert it["spec"]["privateKey"]["size"] == 256
        assert it["spec"]["privateKey"]["encoding"] == "PKCS8"
        if it["spec"].get("isCA"):
            assert set(it["spec"]["usages"]) == {"cert sign", "crl sign"}
    renewed = [it for it in CUSTOM if it["kind"] == "Certificate" and "renewBefore" in it["spec"]]
    assert {it["spec"]["privateKey"]["rotationPolicy"] for it in renewed} == {"Always"}


def problems(objects):
    node = os.environ.get("OUTGATE_NODE") or shutil.which("node")
    packages = os.environ.get("OUTGATE_DEPLOY_NODE_PACKAGES")
    assert node and packages, "OUTGATE_DEPLOY_NODE_PACKAGES: the node_modules of package.json, and a node"
    # Node looks for packages beside the script, wherever it is started.
    script = Path(packages).parent / "crds.mjs"
    shutil.copyfile(Path(__file__).with_name("crds.mjs"), script)
    done = subprocess.run([node, script], input=json.dumps(objects), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)
