"""Real gateways behind the rendered policies: what agents and strangers get, with proxy variables and without them."""

import json

import pytest

from live import AGENT, KEY, running

pytestmark = pytest.mark.timeout(120)
API = "https://api.anthropic.com/v1/models"


@pytest.fixture(scope="module", params=["gateway-per-agent", "gateway-shared"])
def live(request, tmp_path_factory):
    with running(request.param, tmp_path_factory.mktemp("live")) as cluster:
        yield cluster


@pytest.mark.parametrize("version", [4, 6])
def test_an_agent_is_served_with_the_real_key_by_way_of_its_gateway(live, version):
    for gateway in live.gateways:
        token = live.issuer.token(AGENT)
        live.upstream.seen.clear()
        done = live.curl(AGENT, "--header", f"x-api-key: {token}", API, proxy=live.proxy(gateway, version))
        assert json.loads(done.stdout or "{}").get("host") == "api.anthropic.com", (done, live.containers[gateway].log_text())
        (head,) = live.upstream.seen
        assert head["x-api-key"] == KEY
        assert token not in json.dumps(head)


@pytest.mark.parametrize(("host", "version"), [("four.example.net", 4), ("six.example.net", 6)])
def test_what_passes_through_arrives_by_either_family(live, host, version):
    proxy = live.proxy(token=live.issuer.token(AGENT))
    done = live.curl(AGENT, f"https://{host}/", proxy=proxy)
    assert json.loads(done.stdout or "{}").get("host") == host, done
    assert (":" in json.loads(done.stdout)["address"]) == (version == 6)


def test_python_is_served_by_the_variables_alone(live):
    code = f"""
import urllib.request
ask = urllib.request.Request({API!r}, headers={{"x-api-key": {live.issuer.token(AGENT)!r}}})
print(urllib.request.urlopen(ask, timeout=10).status)
"""
    done = live.python(AGENT, code, proxy=live.proxy())
    assert done.stdout == "200\n", done.stderr


@pytest.mark.parametrize("host", ["closed.example.net", "rebound.example.net", "169.254.169.254", "10.96.0.1", "[fd00:ec2::254]"])
def test_what_no_rule_names_and_what_points_inwards_is_refused_by_the_gateway(live, host):
    live.upstream.seen.clear()
    done = live.curl(AGENT, f"https://{host}/", proxy=live.proxy(token=live.issuer.token(AGENT)))
    assert "403" in done.stderr, done
    assert live.upstream.seen == []


DIRECT = {
    "IPv4": ["--resolve", "four.example.net:443:1.1.1.1", "https://four.example.net/"],
    "IPv6": ["--resolve", "six.example.net:443:[2606:4700::1111]", "https://six.example.net/"],
    "metadata": ["http://169.254.169.254/"],
    "metadata, IPv6": ["http://[fd00:ec2::254]/"],
    "API server": ["--insecure", "https://10.96.0.1:6443/"],
    "DNS over TCP": ["telnet://DNS:53"],
    "another door of the gateway": ["http://GATEWAY:9443/"],
}


@pytest.mark.parametrize("way", DIRECT.values(), ids=DIRECT)
@pytest.mark.parametrize("proxied", [False, True], ids=["no variables", "noproxy"])
def test_a_client_that_ignores_the_proxy_gets_nowhere(live, way, proxied):
    addresses = {"DNS": live.address("dns")[0], "GATEWAY": live.address("gateway 1")[0]}
    for name, address in addresses.items():
        way = [it.replace(name, address) for it in way]
    ignoring = ["--noproxy", "*"] if proxied else []
    done = live.curl(AGENT, *ignoring, *way, proxy=live.proxy() if proxied else None)
    # 7: could not connect. Anything else was an answer.
    assert done.returncode == 7, done


def test_an_agents_question_reaches_no_dns(live):
    live.dns.asked.clear()
    code = f"""
import socket
for family, server in ((socket.AF_INET, {live.address("dns")[0]!r}), (socket.AF_INET6, {live.address("dns")[1]!r})):
    peer = socket.socket(family, socket.SOCK_DGRAM)
    peer.settimeout(5)
    try:
        peer.connect((server, 53))
        peer.send(bytes.fromhex("0001010000010000000000000464617461076578616d706c650000010001"))
        print("answered", peer.recv(512))
    except OSError as error:
        print(type(error).__name__)
"""
    done = live.python(AGENT, code)
    assert "answered" not in done.stdout and len(done.stdout.splitlines()) == 2, done
    assert live.dns.asked == []


@pytest.mark.parametrize("who", ["stranger", "impostor", "unlabelled", "internet", "node"])
def test_nobody_else_uses_the_gateway(live, who):
    done = live.curl(who, API, proxy=live.proxy())
    assert done.returncode == 7, done
