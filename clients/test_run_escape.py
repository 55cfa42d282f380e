"""Ways out of `outgate run` that are not its gateway: all closed, at once, and with a record where one can be had."""

import json
import re
import select
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox import AS_NOBODY, Launcher, Ran, guest, plain
from services import Seen
from upstream import ADDRESSES

CLOSED, OPEN = "closed.example.net", "public.example.org"


@dataclass
class Host:
    """What listens on this machine, outside of the sandbox."""

    tcp: list
    udp: list
    abstract: str
    paths: list


@contextmanager
def services_of_the_host(gateway, abstract_name: str):
    """Services that any process of this machine reaches: TCP, UDP, Unix sockets, another gateway and its operator.

    Yields them, and whether anybody came.
    """
    folder = Path(tempfile.mkdtemp())
    tcp = socket.create_server(("127.0.0.1", 0))
    tcp6 = socket.create_server(("::1", 0), family=socket.AF_INET6)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    abstract, path = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    abstract.bind("\0" + abstract_name)
    path.bind(str(folder / "service.sock"))
    for it in (abstract, path):
        it.listen()
    proxy, port = gateway.ready["proxy"][0].rsplit(":", 1)
    reached = [tcp.getsockname()[:2], tcp6.getsockname()[:2], [proxy, int(port)]]
    opened = (tcp, tcp6, abstract, path)

    def visited() -> list[bool]:
        return [bool(select.select([it], [], [], 0)[0]) for it in (*opened, udp)]

    places = [list(place) for place in reached]
    paths = [str(folder / "service.sock"), gateway.ready["operator"]]
    yield Host(places, [list(udp.getsockname())], abstract_name, paths), visited
    for it in (*opened, udp):
        it.close()


@pytest.fixture(scope="module")
def host(gateway):
    """The services of this machine; nobody may have come to them when all is over."""
    with services_of_the_host(gateway, "outgate-escape") as (found, visited):
        yield found
        assert not any(visited()), "somebody reached a service of the host"


@dataclass
class Escape:
    ran: Ran
    attempts: dict
    heads: list[Seen]

    def result(self, name: str) -> str:
        return self.attempts[name]["result"]

    def results(self, pattern: str) -> dict[str, str]:
        found = {name: it["result"] for name, it in self.attempts.items() if re.fullmatch(pattern, name)}
        assert found, f"nothing was tried as {pattern}"
        return found


@pytest.fixture(scope="module", params=["as the root of this namespace", "as a user without privileges"])
def escape(request, services, host, tmp_path_factory):
    launcher = Launcher(tmp_path_factory.mktemp("escape"), services.ca)
    if "without" in request.param:
        launcher.wrapper = AS_NOBODY
    services.seen.clear()
    ran = launcher.run(sys.executable, guest("escape.py"), json.dumps(vars(host)))
    return Escape(ran, ran.json(), list(services.seen))


def test_the_probe_gets_out_where_there_is_no_sandbox(gateway):
    """Otherwise the other tests would show nothing."""
    environment = {"HTTPS_PROXY": f"http://x:y@{gateway.ready['proxy'][0]}"}
    with services_of_the_host(gateway, "outgate-no-sandbox") as (host, visited):
        command = [sys.executable, guest("escape.py"), json.dumps(vars(host))]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
        assert all(visited())
    attempts = {name: it["result"] for name, it in json.loads(done.stdout).items()}
    for name, result in attempts.items():
        if re.match("host tcp|abstract|path", name):
            assert result == "connected", name
    assert attempts["raw icmp"] == attempts["packet"] == "made" and attempts["netlink"] == "done"


def test_nothing_hangs(escape):
    slow = {name: it for name, it in escape.attempts.items() if it["seconds"] > 2 or it["result"] == "timed out"}
    assert not slow


def test_ports_that_no_rule_names_are_refused_at_every_address(escape):
    assert set(escape.results(r"tcp .*").values()) == {"ECONNREFUSED"}
    assert "refused by the sandbox" in plain(escape.ran.err)
    assert ("namespace", "port_not_allowed") in escape.ran.denials()


def test_services_of_the_host_are_not_there(escape):
    assert set(escape.results(r"host tcp .*").values()) == {"ECONNREFUSED"}
    assert set(escape.results(r"host udp .*").values()) == {"ECONNREFUSED"}


def test_udp_is_refused_whether_it_is_quic_or_not(escape):
    assert set(escape.results(r"udp .*").values()) == {"ECONNREFUSED"}


@pytest.mark.parametrize("way", ["udp", "tcp"])
def test_every_name_server_is_the_gateway_and_knows_only_what_a_rule_names(escape, way):
    assert set(escape.results(rf"dns {way} .* {OPEN} 1").values()) == {"code 0, 1 answers"}
    # HTTPS and TXT records: the name is there, and there is nothing to carry anything in or out.
    assert set(escape.results(rf"dns {way} .* {OPEN} (65|16)").values()) == {"code 0, 0 answers"}
    assert set(escape.results(rf"dns {way} .*{CLOSED} (1|16)").values()) == {"code 3, 0 answers"}
    for name in (CLOSED, f"secret-data.{CLOSED}"):
        assert ("dns", "destination_not_allowed") in escape.ran.denials(name)


def test_an_address_decides_nothing_and_the_name_all(escape):
    assert {result.strip() for result in escape.results(rf"tls .* {OPEN}").values()} == {"HTTP/1.1 200"}
    heads = [seen for seen in escape.heads if seen.path == "/from-escape"]
    assert {seen.address for seen in heads} == {ADDRESSES[OPEN]} and len(heads) == 3
    for result in escape.results(rf"tls .* {CLOSED}").values():
        assert result.startswith("TLS: ") or result in ("ECONNRESET", "EOF"), result
    assert ("transparent", "destination_not_allowed") in escape.ran.denials(CLOSED)
    assert not [seen for seen in escape.heads if seen.host == CLOSED]


def test_what_names_no_destination_is_closed_with_a_record(escape):
    assert escape.result("tls without a name").startswith("TLS: ")
    assert escape.result("no tls on 443").startswith("HTTP/1.1 400")
    unnamed = {reason for entry, reason in escape.ran.denials() if entry.startswith("transparent")}
    assert {"server_name_missing", "malformed_request"} <= unnamed, unnamed


def test_metadata_services_and_unlisted_hosts_are_refused_readably_over_plain_http(escape):
    for name in ("metadata", "http closed"):
        assert escape.result(name).startswith("HTTP/1.1 403"), name
        assert "x-deny-reason: " in escape.result(name)
    assert ("transparent-plain", "destination_not_allowed") in escape.ran.denials(CLOSED)
    assert escape.ran.denials("169.254.169.254")


def test_the_proxy_leads_neither_to_itself_nor_to_this_machine(escape):
    for name, result in escape.results(r"connect .*").items():
        assert result.startswith("HTTP/1.1 403"), (name, result)
        assert "x-deny-reason: " in result
    assert {reason for entry, reason in escape.ran.denials() if entry == "connect"}


def test_the_proxy_has_no_operator_side(escape):
    assert re.match(r"HTTP/1\.1 4\d\d", escape.result("operator side")), escape.result("operator side")


def test_there_are_no_other_kinds_of_sockets(escape):
    for name in ("raw icmp", "raw tcp", "raw ipv6"):
        assert escape.result(name) in ("EPERM", "EACCES"), name
    for name in ("packet", "vsock"):
        assert escape.result(name) == "EAFNOSUPPORT", name
    assert escape.result("ping") in ("EPERM", "EACCES", "ENETUNREACH")
    assert escape.result("netlink") in ("EPERM", "EACCES")


def test_unix_sockets_are_refused_and_pairs_are_not(escape):
    assert set(escape.results(r"unix|abstract|path .*").values()) == {"EPERM"}
    assert escape.result("socketpair") == "made" and escape.result("a listener for children") == "made"


def test_unix_sockets_of_the_host_stay_out_of_reach_when_they_are_allowed(services, host, launcher):
    probe = guest("escape.py")
    attempts = launcher.run(sys.executable, probe, json.dumps(vars(host)), flags=("--unix-sockets",)).json()
    assert attempts["unix"]["result"] == "made"
    assert attempts["abstract"]["result"] == "ECONNREFUSED"
    assert {attempts[f"path {path}"]["result"] for path in host.paths} <= {"ECONNREFUSED", "ENOENT", "ENOTSOCK"}


def test_root_writes_its_own_folders_and_not_the_systems(launcher, outside):
    """The root of a namespace may own the machine's files: a job written to /etc would run outside."""
    places = ["/etc/outgate-test", "/usr/outgate-test", "/var/spool/outgate-test", f"{launcher.home}/new"]
    script = " ".join(f"touch {place} 2>/dev/null && echo {place};" for place in places) + " :"
    ran = launcher.run("sh", "-c", script)
    assert ran.out.split() == [f"{launcher.home}/new"]
    assert not [place for place in places[:3] if Path(place).exists()]
