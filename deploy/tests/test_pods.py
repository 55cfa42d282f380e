"""What a pod has, and what it must not have."""

import json
import re

import pytest
import yaml

from rendering import TOPOLOGIES, by_key, configurations, containers, helm, pod_templates

TOKEN = {"name": "ci", "secret": {"name": "ci", "key": "t"}, "scopes": ["revoke"]}
OPERATED = {"operator": {"enabled": True, "tokens": [TOKEN]}}


def everything(topology):
    return helm(topology, {} if topology == "sidecar" else OPERATED)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_no_pod_has_a_token_for_the_api_server(topology):
    rendered = everything(topology)
    accounts = {it["metadata"]["name"] for it in rendered if it["kind"] == "ServiceAccount"}
    assert all(it["automountServiceAccountToken"] is False for it in rendered if it["kind"] == "ServiceAccount")
    for name, template in pod_templates(rendered):
        assert template["spec"]["automountServiceAccountToken"] is False, name
        assert template["spec"]["serviceAccountName"] in accounts, name
    assert not [it for it in rendered if "Role" in it["kind"]]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_only_token_of_a_service_account_is_for_the_gateway(topology):
    audiences = [
        source["serviceAccountToken"]["audience"]
        for _, template in pod_templates(everything(topology))
        for volume in template["spec"]["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        if "serviceAccountToken" in source
    ]
    assert audiences == ["outgate"]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_container_runs_without_rights(topology):
    for name, template in pod_templates(everything(topology)):
        spec = template["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & set(spec), name
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume], name
        for container in containers(template):
            rights = container["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
            assert rights["capabilities"]["drop"] == ["ALL"]
            assert "privileged" not in rights
            if container["name"] == "outgate-capture":
                # The one exception: it writes packet filter rules and ends before the agent starts.
                assert (topology, rights["capabilities"]["add"]) == ("sidecar", ["NET_ADMIN"])
                assert "restartPolicy" not in container
                continue
            assert rights["runAsNonRoot"] is True
            assert rights["runAsUser"] > 0
            assert "add" not in rights["capabilities"]
            if container["name"] != "agent":
                assert rights["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_only_the_state_can_be_written(topology):
    for name, template in pod_templates(everything(topology)):
        for container in containers(template):
            writable = [mount["mountPath"] for mount in container.get("volumeMounts", []) if not mount.get("readOnly")]
            expected = {
                "outgate": ["/var/lib/outgate"],
                "outgate-install": ["/opt/outgate"],
                "outgate-trust": ["/etc/outgate/trust"],
            }
            assert writable == expected.get(container["name"], []), (name, container["name"])


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_what_agents_are_given_of_the_ca_is_its_certificate(topology):
    (template,) = [it for name, it in pod_templates(everything(topology)) if name[2] == "outgate-agent"]
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    for container in containers(template):
        if container["name"] == "outgate":
            continue
        for mount in container.get("volumeMounts", []):
            volume = volumes[mount["name"]]
            assert "secret" not in volume, mount
            assert "tls.key" not in json.dumps(volume), mount
    assert volumes["outgate-ca"]["configMap"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_no_secret_stands_in_what_is_rendered(topology):
    rendered = everything(topology)
    assert not [it for it in rendered if it["kind"] == "Secret"]
    assert "PRIVATE KEY" not in json.dumps(rendered)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_only_gateways_have_the_cas_key_and_the_credentials(topology):
    for name, template in pod_templates(everything(topology)):
        for container in containers(template):
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            if mounted & {"ca", "credentials"}:
                assert container["name"] == "outgate"
                assert template["metadata"]["labels"]["app.kubernetes.io/component"] != "control", name


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_path_that_a_configuration_names_is_mounted(topology):
    rendered = everything(topology)
    for name, template in pod_templates(rendered):
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        for container in containers(template):
            if container["name"] != "outgate":
                continue
            text = configurations(rendered)[volumes["config"]["configMap"]["name"]]
            mounts = tuple(f"{mount['mountPath']}/" for mount in container["volumeMounts"])
            paths = set(re.findall(r"/(?:etc|var/lib)/outgate/\S+", text))
            assert paths
            is_control = "gateways:" in text
            for path in paths:
                # Credentials are the gateways'; to the control plane they are names.
                assert path.startswith(mounts) or (is_control and "/credentials/" in path), (name, path)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_pod_is_not_killed_while_it_drains(topology):
    rendered = everything(topology)
    for name, template in pod_templates(rendered):
        for container in containers(template):
            if container["name"] != "outgate":
                continue
            leave = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            text = "".join(configurations(rendered).values())
            drains = {int(it) for it in re.findall(r"drain: (\d+)s", text)}
            # After the drain: what is cut (2 s), the trail (5 s), its receivers and operators (3 s each).
            assert template["spec"]["terminationGracePeriodSeconds"] >= leave + max(drains) + 13, name


def test_a_longer_drain_is_a_longer_grace():
    rendered = helm("gateway-shared", {"gateway": {"drain": 3600}})
    (template,) = [it for name, it in pod_templates(rendered) if name[2] == "outgate"]
    assert template["spec"]["terminationGracePeriodSeconds"] == 3620


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_an_agent_starts_when_its_way_out_was_proven(topology):
    (template,) = [it for name, it in pod_templates(everything(topology)) if name[2] == "outgate-agent"]
    order = [container["name"] for container in template["spec"]["initContainers"]]
    expected = ["outgate-preflight", "outgate-install", "outgate-trust"]
    assert order == (["outgate", "outgate-capture", *expected] if topology == "sidecar" else expected)


@pytest.mark.parametrize(("bind", "loopback"), [("[::]", ["127.0.0.1", "[::1]"]), ("0.0.0.0", ["127.0.0.1"])])
def test_what_is_redirected_arrives_where_the_gateway_listens(bind, loopback):
    rendered = helm("sidecar", {"capture": {"transparent": True}, "gateway": {"bind": bind}})
    (template,) = [template for _, template in pod_templates(rendered)]
    arguments = {it["name"]: it["args"] for it in containers(template) if it["name"] != "agent" and "args" in it}
    (port,) = [it.removeprefix("--redirect=") for it in arguments["outgate-capture"] if it.startswith("--redirect=")]
    (text,) = configurations(rendered).values()
    listen = yaml.safe_load(text)["listen"]
    assert listen["transparent"] == [f"{address}:{port}" for address in loopback]
    # Programs that read the variables go on using the proxy.
    assert listen["proxy"] == "127.0.0.1:8080"
    # Without it, the gateway's own answers to the probes would be ways out.
    assert "--captured" in arguments["outgate-preflight"]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_nothing_is_redirected_unless_it_is_switched_on(topology):
    rendered = helm(topology)
    assert not [text for text in configurations(rendered).values() if "transparent" in text]
    given = {it for _, template in pod_templates(rendered) for c in containers(template) for it in c.get("args", [])}
    assert not [it for it in given if it.startswith(("--redirect", "--captured"))]


def test_a_state_of_its_own_makes_a_statefulset_of_one():
    def kinds(topology):
        workloads = [it for it in helm(topology) if it["kind"] in {"Deployment", "StatefulSet"}]
        return {(it["kind"], it["spec"]["replicas"]) for it in workloads if it["metadata"]["name"] != "outgate-agent"}

    assert kinds("gateway-per-agent") == {("StatefulSet", 1)}
    assert kinds("gateway-shared") == {("StatefulSet", 1), ("Deployment", 2)}
    assert kinds("sidecar") == set()


@pytest.mark.parametrize("topology", ["gateway-per-agent", "gateway-shared"])
def test_every_service_leads_to_a_port_of_some_pod(topology):
    rendered = helm(topology, {**OPERATED, "metrics": {"enabled": True}})
    for it in by_key(rendered).values():
        if it["kind"] != "Service":
            continue
        selector = it["spec"]["selector"].items()
        ports = {
            port["name"]
            for _, template in pod_templates(rendered)
            if selector <= template["metadata"]["labels"].items()
            for container in containers(template)
            for port in container.get("ports", [])
        }
        assert {port["targetPort"] for port in it["spec"]["ports"]} <= ports, it["metadata"]["name"]
        assert it["spec"]["type"] == "ClusterIP"
