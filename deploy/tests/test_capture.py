"""A sidecar's pod whose connections are captured, started in the manifests' order: gateway, rules, preflight, agent."""

import copy
import json
import subprocess

import pytest

from certificates import Authority, Issuer
from container import ROOTS, STATIC, Container, secrets_and_maps
from live import AGENT, KEY, NAMES
from rendering import OPTIONS, containers, helm
from services import Dns, Upstream
from wire import Wire
from world import World

pytestmark = pytest.mark.timeout(120)
API = "https://api.anthropic.com/v1/models"
(OPTION,) = [it for it in OPTIONS if it.name == "transparent capture"]


class Pod:
    """The first of the agent's pods, and what is around it."""

    def __init__(self, folder):
        self.folder = folder
        self.rendered = helm("sidecar", OPTION.values)
        (self.workload,) = [it for it in self.rendered if it["kind"] == "Deployment"]
        self.wire = Wire(World(self.rendered), {"internet": {"TCP/443"}, "dns": {"UDP/53"}})
        self.net = self.wire[AGENT]
        outside = Authority(folder / "outside", "the world's CA")
        self.ca, self.issuer = Authority(folder / "leaves", "the deployment's CA"), Issuer(folder)
        internet, resolver = self.wire.place("internet").addresses, self.wire.place("dns").addresses
        self.upstream = Upstream(self.wire["internet"], internet, *outside.issue(*NAMES))
        self.dns = Dns(self.wire["dns"], resolver, NAMES)
        (folder / "resolv.conf").write_text(f"nameserver {resolver[0]}\noptions ndots:1\n")
        self.image = {ROOTS: outside.certificate, "/etc/resolv.conf": folder / "resolv.conf"}
        self.files = secrets_and_maps(
            self.rendered,
            outgate_ca={"tls.crt": self.ca.certificate.read_text(), "tls.key": self.ca.key.read_text()},
            outgate_credentials={"anthropic": KEY},
            outgate_jwks={"jwks.json": self.issuer.jwks},
        )
        self.made = []

    def container(self, name):
        """This container of the pod, not started."""
        alone = copy.deepcopy(self.workload)
        spec = alone["spec"]["template"]["spec"]
        spec["containers"] = [{"env": [], **it} for it in spec.pop("initContainers") if it["name"] == name]
        self.made.append(Container(alone, self.files, self.image, self.folder / f"{len(self.made)}", self.net))
        return self.made[-1]

    def start(self):
        self.gateway = self.container("outgate")
        self.gateway.start()
        self.gateway.wait_ready("127.0.0.1", 8080)
        everything = containers(self.workload["spec"]["template"])
        (rules,) = [it["args"] for it in everything if it["name"] == "outgate-capture"]
        self.net.run(STATIC, *rules)

    def close(self):
        for it in self.made:
            it.close()
        self.upstream.close()
        self.dns.close()
        self.wire.close()


@pytest.fixture(scope="module")
def pod(tmp_path_factory):
    made = Pod(tmp_path_factory.mktemp("pod"))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(("instead", "status"), [({}, 0), ({"--captured": "--json", "--within=60s": "--within=8s"}, 1)])
def test_the_preflight_passes_because_it_is_told_of_the_capture(pod, instead, status):
    it = pod.container("outgate-preflight")
    token = it.volumes["/var/run/secrets/outgate"]
    # The token is its user's to read, as kubelet has it.
    token.chmod(0o755)
    (token / "token").write_text(pod.issuer.token(AGENT))
    assert instead.keys() <= set(it.spec["argv"])
    it.spec["argv"] = [instead.get(argument, argument) for argument in it.spec["argv"]]
    it.start()
    assert it.process.wait(90) == status, it.log_text()
    # The gateway's own answer is what it takes for a way out then.
    assert ('"way":"tcp://1.1.1.1:443"' in it.log_text()) == (status == 1), it.log_text()


def curl(pod, *arguments):
    """The agent's curl: another user than the gateway's, and no proxy variable."""
    user = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--no-new-privs"]
    given = ["--silent", "--show-error", "--max-time", "10", "--cacert", "/dev/stdin", *arguments]
    env = {"PATH": "/usr/bin:/bin"}
    # By a descriptor: that user cannot enter the folder.
    with pod.ca.certificate.open() as trusted:
        command = pod.net.command(*user, "curl", *given)
        return subprocess.run(command, stdin=trusted, env=env, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("address", ["192.0.2.1", "[2001:db8::1]"])
def test_a_program_that_knows_no_proxy_is_served_with_the_real_key(pod, address):
    pod.upstream.seen.clear()
    token = pod.issuer.token(AGENT)
    done = curl(pod, "--resolve", f"api.anthropic.com:443:{address}", "--header", f"x-api-key: {token}", API)
    assert json.loads(done.stdout or "{}").get("host") == "api.anthropic.com", (done, pod.gateway.log_text())
    (head,) = pod.upstream.seen
    assert head["x-api-key"] == KEY


def test_a_program_that_reads_the_variables_is_served_by_the_proxy(pod):
    token = pod.issuer.token(AGENT)
    done = curl(pod, "--proxy", "http://127.0.0.1:8080", "--header", f"x-api-key: {token}", API)
    assert json.loads(done.stdout or "{}").get("host") == "api.anthropic.com", (done, pod.gateway.log_text())


def test_a_host_that_no_rule_names_is_not_reached(pod):
    pod.upstream.seen.clear()
    done = curl(pod, "--insecure", "--resolve", "closed.example.net:443:1.1.1.1", "https://closed.example.net/")
    assert done.returncode != 0, done
    assert pod.upstream.seen == []
