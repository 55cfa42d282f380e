"""Two gateways, one control plane: what is revoked there is cut here, and a gateway that hears nothing for too long
attaches no credential."""

import signal
import time

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

import pki
from operators import HOST, OTHER, REVOKED, Site, cut_within, until

STALE = (503, "denylist_stale")
NAME = "gateway-1.example.org"
FOLLOWS = """
control: {{ url: "{url}", ca: {ca}, certificate: {certificate}, key: {key}, max_staleness: 3s }}
"""


@pytest.fixture
def control(tmp_path, services):
    """The gateway that is followed. Its port stays the same across a restart."""
    folder, gateways = tmp_path / "control", tmp_path / "gateways"
    folder.mkdir()
    gateways.mkdir()
    pki.issue(gateways, [NAME], ExtendedKeyUsageOID.CLIENT_AUTH)
    certificate, key = pki.issue(folder, ["localhost"])
    place = f"  control: {{ address: 127.0.0.1:0, certificate: {certificate}, key: {key}, client_ca: {gateways}/ca.pem, gateways: [{NAME}] }}"
    site = Site(tmp_path / "control", services.ca, listen=place).start()
    port = site.ready["control"].rsplit(":", 1)[1]
    site.config.write_text(site.config.read_text().replace("control: { address: 127.0.0.1:0", f"control: {{ address: 127.0.0.1:{port}"))
    site.control = f"https://localhost:{port}"
    yield site
    site.close()


@pytest.fixture
def follower(control, tmp_path, services):
    folder, gateways = tmp_path / "follower", tmp_path / "gateways"
    folder.mkdir()
    further = FOLLOWS.format(
        url=control.control, ca=control.folder / "ca.pem", certificate=gateways / "leaf.pem", key=gateways / "leaf.key"
    )
    site = Site(folder, services.ca, rules="", further=further).start()
    until(lambda: site.ready["proxy"] and site.command("session", "list").returncode == 0)
    yield site
    site.close()


def trusting(follower, control):
    """The guests' trust: the follower's CA comes to be when the first policy does."""
    follower.ready["ca"] = str(follower.state / "ca" / "ca.crt")
    until((follower.state / "ca" / "ca.crt").exists)
    return follower


def test_what_is_revoked_there_is_cut_here(control, follower):
    trusting(follower, control)
    (session, token), (_, other) = control.open(), control.open("--policy", "public-only")
    until(lambda: follower.get(token) == (200, None))
    assert control.get(token) == (200, None)
    assert follower.get(other, OTHER) == (200, None)
    assert follower.get(other, HOST) == (403, "destination_not_allowed"), "the policy has come with it"
    tunnel = follower.tunnel(token)
    control.told("kill", session)
    cut_within(1, tunnel)
    assert follower.get(token) == REVOKED
    control.told("kill", "--all", "--reason", "everywhere")
    until(lambda: follower.get(other, OTHER) == (403, "kill_switch"), 1)
    control.told("kill", "--lift")
    until(lambda: follower.get(other, OTHER) == (200, None), 2)
    control.json("keys", "rotate")
    _, fresh = control.open()
    until(lambda: follower.get(fresh) == (200, None), 2)


def test_a_follower_issues_nothing_and_revokes_on_its_own(control, follower):
    trusting(follower, control)
    session, token = control.open()
    until(lambda: follower.get(token) == (200, None))
    assert follower.refused("session", "create") == "follows_control_plane"
    assert follower.refused("keys", "rotate") == "follows_control_plane"
    follower.told("deny", "add", session)
    assert (follower.get(token), control.get(token)) == (REVOKED, (200, None))


def test_without_news_no_credential_is_attached(control, follower):
    trusting(follower, control)
    (killed, over), (_, token) = control.open(), control.open()
    until(lambda: follower.get(token) == follower.get(over) == (200, None))
    control.told("kill", killed)
    until(lambda: follower.get(over) == REVOKED)
    control.process.send_signal(signal.SIGSTOP)
    assert follower.get(token) == (200, None), "the last verified state is kept"
    until(lambda: follower.get(token) == STALE, 6)
    assert follower.get(token, OTHER) == (200, None), "what needs no credential goes on"
    assert follower.get(over) == REVOKED
    # Nor does a restart make it younger, and what was revoked stays so.
    assert follower.stop() == 0
    follower.start()
    trusting(follower, control)
    assert follower.get(token) == STALE
    assert follower.get(over) == REVOKED
    control.process.send_signal(signal.SIGCONT)
    began = time.monotonic()
    until(lambda: follower.get(token) == (200, None), 20)
    assert time.monotonic() - began < 12
