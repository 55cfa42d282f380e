"""Leaves from `outgate minter`: the gateway has no CA, and no key of one."""

import json
import os
import signal
import ssl
import subprocess

import pytest

from operators import HOST, OTHER, Site, until

ALLOWED = (200, None)

POLICY = """
version: 1
listen: {{ minter: {{ socket: {socket} }} }}
destinations:
  - host: echo.example.com
    posture: bump
"""


class Minter:
    """`outgate minter` with a state folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.socket = folder / "minter.sock"
        self.config = folder / "minter.yaml"
        self.config.write_text(POLICY.format(socket=self.socket))

    def start(self) -> "Minter":
        binary = os.environ["OUTGATE_BIN"]
        self.process = subprocess.Popen(
            [binary, "--state-dir", self.folder / "state", "minter", "--config", self.config, "--json"],
            env={"PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        assert line, "the minter did not start"
        self.ca = json.loads(line)["ca"]
        return self

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(20) == 0


@pytest.fixture
def minter(tmp_path):
    folder = tmp_path / "minter"
    folder.mkdir()
    minter = Minter(folder).start()
    yield minter
    minter.stop()


def site_of(minter, folder, services) -> Site:
    site = Site(folder, services.ca, further=f"minter: {{ socket: {minter.socket}, leaf_ca: {minter.ca} }}")
    site.config.write_text(site.config.read_text() + "timeouts: { handshake: 2s }\n")
    return site


def issuer(site, token, host=HOST) -> dict:
    with site.tunnel(token, host) as tunnel:
        return dict(part[0] for part in tunnel.getpeercert()["issuer"])


def test_leaves_come_from_the_minter_and_the_gateway_has_no_key(minter, tmp_path, services):
    site = site_of(minter, tmp_path, services).start()
    _, token = site.open()
    until(lambda: site.get(token) == ALLOWED)
    assert issuer(site, token)["commonName"].startswith("Outgate CA ")
    assert issuer(site, token, OTHER)["commonName"] == "Upstream test CA"

    files = [path for path in site.state.rglob("*") if path.is_file()]
    assert site.state / "ca" / "ca.crt" in files and site.state / "ca" / "bundle.pem" in files
    assert not [path for path in files if path.name == "ca.key"]
    shown = json.loads(site.told("ca", "show", "--json"))
    assert shown["subject"].startswith("CN=Outgate CA ")

    minter.stop()
    assert site.get(token) == ALLOWED, "a leaf that was fetched is good without the minter"
    site.close()


def test_without_the_minter_a_gateway_starts_and_terminates_nothing_until_it_is_there(minter, tmp_path, services):
    minter.stop()
    site = site_of(minter, tmp_path, services).start()
    _, token = site.open()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        site.tunnel(token, HOST)
    assert site.get(token, OTHER) == ALLOWED
    minter.start()
    until(lambda: site.get(token) == ALLOWED if reachable(site, token) else False)
    site.close()


def reachable(site, token) -> bool:
    try:
        site.tunnel(token, HOST).close()
    except (ssl.SSLError, ConnectionError):
        return False
    return True


def test_a_gateway_does_not_start_beside_the_key_of_a_ca(minter, tmp_path, services):
    site = site_of(minter, tmp_path, services)
    (site.state / "ca").mkdir(parents=True, mode=0o700)
    site.state.chmod(0o700)
    (site.state / "ca" / "ca.key").write_text("a key")
    with pytest.raises(AssertionError, match="ca.key"):
        site.start()
