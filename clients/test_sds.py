"""Credentials that another process has: Outgate asks an independent implementation of Envoy's Secret Discovery Service
(`vault.py`) for them, over a Unix socket and over mutual TLS, in both variants of the protocol."""

import time
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

import pki
from operators import HOST, Site, until
from upstream import KEYS
from vault import Vault

REAL = KEYS["echo"]
STALE_KEY = "echo-former-key-2b61f0"
ALLOWED, NO_VALUE = (200, None), (503, "credential_unavailable")
# What the upstream says to a key that is not its own.
WRONG_KEY = (401, None)


def site_with(folder: Path, services, source: str) -> Site:
    site = Site(folder, services.ca)
    text = site.config.read_text()
    assert "{ from: { file: echo.key } }" in text
    site.config.write_text(text.replace("{ from: { file: echo.key } }", f"{{ from: {{ sds: {source} }} }}"))
    (folder / "echo.key").unlink()
    site.handed_out += [STALE_KEY]
    return site


@pytest.fixture(params=["delta", "state of the world"])
def vault(request):
    vault = Vault(request.param)
    yield vault
    vault.close()


@pytest.fixture
def delta():
    vault = Vault()
    yield vault
    vault.close()


def on_socket(folder: Path, more: str = "") -> tuple[str, str]:
    """Where the server listens, and how the configuration says so."""
    path = folder / "vault.sock"
    return f"unix:{path}", f"{{ socket: {path}, name: echo-key{more} }}"


def test_a_value_is_attached_follows_its_rotation_and_is_gone_when_it_is_emptied(vault, tmp_path, services):
    address, source = on_socket(tmp_path)
    vault.put("echo-key", STALE_KEY)
    vault.open(address)
    site = site_with(tmp_path, services, source).start()
    _, token = site.open()
    until(lambda: site.get(token) == WRONG_KEY)
    assert f"Bearer {STALE_KEY}" in services.heads(HOST)[-1].header("authorization")
    vault.put("echo-key", REAL)
    until(lambda: site.get(token) == ALLOWED)
    vault.put("echo-key", "")
    until(lambda: site.get(token) == NO_VALUE, 3)
    vault.put("echo-key", REAL)
    until(lambda: site.get(token) == ALLOWED)
    assert set(vault.subscribed) == {"echo-key"}
    assert vault.refusals == []
    site.close()


def test_a_secret_that_is_removed_is_not_attached_from_that_moment_on(delta, tmp_path, services):
    address, source = on_socket(tmp_path)
    delta.put("echo-key", REAL)
    delta.open(address)
    site = site_with(tmp_path, services, source).start()
    _, token = site.open()
    until(lambda: site.get(token) == ALLOWED)
    delta.remove("echo-key")
    until(lambda: site.get(token) == NO_VALUE, 3)
    before = len(services.heads(HOST))
    assert [site.get(token) for _ in range(5)] == [NO_VALUE] * 5
    assert len(services.heads(HOST)) == before, "a request went out without its credential"
    site.close()


def test_a_gateway_starts_without_the_server_says_so_and_serves_as_soon_as_it_is_there(vault, tmp_path, services):
    address, source = on_socket(tmp_path)
    site = site_with(tmp_path, services, source).start()
    _, token = site.open()
    assert site.get(token) == NO_VALUE
    assert 'code="unheard"' in site.log_text() and "echo-key" in site.log_text()
    vault.put("echo-key", REAL)
    vault.open(address)
    until(lambda: site.get(token) == ALLOWED)
    site.close()


def test_without_its_server_the_last_value_is_used_until_max_age_and_again_when_it_is_back(vault, tmp_path, services):
    address, source = on_socket(tmp_path, ", max_age: 12s")
    vault.put("echo-key", REAL)
    vault.open(address)
    site = site_with(tmp_path, services, source).start()
    _, token = site.open()
    until(lambda: site.get(token) == ALLOWED)
    vault.close()
    gone = time.monotonic()
    assert site.get(token) == ALLOWED, "the last value stays"
    until(lambda: site.get(token) == NO_VALUE, 15)
    assert time.monotonic() - gone < 14
    vault.open(address)
    until(lambda: site.get(token) == ALLOWED)
    site.close()


def test_a_server_that_came_back_with_nothing_new_to_say_counts_as_heard_of(delta, tmp_path, services):
    address, source = on_socket(tmp_path, ", max_age: 12s")
    delta.put("echo-key", REAL)
    delta.open(address)
    site = site_with(tmp_path, services, source).start()
    _, token = site.open()
    until(lambda: site.get(token) == ALLOWED)
    delta.close()
    delta.open(address)
    until(lambda: len(delta.known_at_connecting) == 2)
    end = time.monotonic() + 15
    while time.monotonic() < end:
        assert site.get(token) == ALLOWED, site.log_text()[-2000:]
        time.sleep(0.5)
    site.close()


def test_a_server_that_came_back_with_other_values_and_its_versions_counted_anew_is_believed(delta, tmp_path, services):
    address, source = on_socket(tmp_path)
    delta.put("echo-key", STALE_KEY)
    delta.open(address)
    site = site_with(tmp_path, services, source).start()
    _, token = site.open()
    until(lambda: site.get(token) == WRONG_KEY)
    delta.close()
    delta.versions = 0
    delta.put("echo-key", REAL)
    assert delta.secrets["echo-key"][0] == "1"
    delta.open(address)
    until(lambda: site.get(token) == ALLOWED)
    delta.close()
    delta.secrets.clear()
    delta.open(address)
    until(lambda: site.get(token) == NO_VALUE)
    site.close()


def test_what_a_server_sends_that_is_no_value_takes_the_last_one_away(delta, tmp_path, services):
    address, source = on_socket(tmp_path)
    planted = tmp_path / "planted"
    planted.write_text(REAL)
    delta.open(address)
    site = site_with(tmp_path, services, source).start()
    _, token = site.open()
    for put in (
        lambda: delta.put("echo-key", token),
        lambda: delta.put("echo-key", "x" * (65 * 1024)),
        lambda: delta.put_elsewhere("echo-key", str(planted)),
    ):
        delta.put("echo-key", REAL)
        until(lambda: site.get(token) == ALLOWED)
        put()
        until(lambda: site.get(token) == NO_VALUE, 3)
    assert any("echo-key" in text for text in delta.refusals), "a file's name is refused in the protocol"
    assert not any(REAL in text for text in delta.refusals)
    site.close()


@pytest.fixture
def tls(tmp_path):
    """Certificates of the server and of the gateway, each with a CA of its own."""
    folders = [tmp_path / name for name in ("server", "gateway", "stranger")]
    for folder in folders:
        folder.mkdir()
    server, gateway, stranger = folders
    pki.issue(server, ["vault.example.org"])
    for folder in (gateway, stranger):
        pki.issue(folder, ["gateway-1"], ExtendedKeyUsageOID.CLIENT_AUTH)
    return server, gateway, stranger


def over_tls(folder: Path, vault: Vault, tls, identity: Path) -> str:
    server, gateway, _ = tls
    vault.open("127.0.0.1:0", (server / "leaf.pem", server / "leaf.key"), gateway / "ca.pem")
    return (
        f"{{ address: 127.0.0.1:{vault.port}, server_name: vault.example.org, ca: {server}/ca.pem, "
        f"certificate: {identity}/leaf.pem, key: {identity}/leaf.key, name: echo-key }}"
    )


def test_over_tls_both_sides_prove_who_they_are(vault, tmp_path, services, tls):
    vault.put("echo-key", REAL)
    site = site_with(tmp_path, services, over_tls(tmp_path, vault, tls, tls[1])).start()
    _, token = site.open()
    until(lambda: site.get(token) == ALLOWED)
    assert vault.clients == {"gateway-1"}
    site.close()


def test_a_wrong_client_certificate_gets_nothing_until_it_is_replaced(delta, tmp_path, services, tls):
    _, gateway, stranger = tls
    used = tmp_path / "used"
    used.mkdir()
    for name in ("leaf.pem", "leaf.key"):
        (used / name).write_bytes((stranger / name).read_bytes())
    delta.put("echo-key", REAL)
    site = site_with(tmp_path, services, over_tls(tmp_path, delta, tls, used)).start()
    _, token = site.open()
    for _ in range(5):
        assert site.get(token) == NO_VALUE
        time.sleep(0.2)
    assert delta.subscribed == [] and delta.clients == set()
    for name in ("leaf.pem", "leaf.key"):
        (used / name).write_bytes((gateway / name).read_bytes())
    until(lambda: site.get(token) == ALLOWED, 20)
    assert delta.clients == {"gateway-1"}
    site.close()


def test_a_server_of_another_name_or_ca_is_told_nothing(delta, tmp_path, services, tls):
    server, _, stranger = tls
    delta.put("echo-key", REAL)
    source = over_tls(tmp_path, delta, tls, tls[1])
    for number, wrong in enumerate((
        source.replace("server_name: vault.example.org", "server_name: other.example.org"),
        source.replace(f"ca: {server}/ca.pem", f"ca: {stranger}/ca.pem"),
    )):
        folder = tmp_path / f"site-{number}"
        folder.mkdir()
        site = site_with(folder, services, wrong).start()
        _, token = site.open()
        for _ in range(5):
            assert site.get(token) == NO_VALUE
            time.sleep(0.2)
        site.close()
    assert delta.subscribed == []


def test_the_command_line_says_where_a_credential_comes_from(tmp_path, services):
    _, source = on_socket(tmp_path, ", max_age: 1h")
    site = site_with(tmp_path, services, source)
    assert "ok" in site.told("check", "--config", site.config)
    told = site.told("explain", "GET", f"https://{HOST}/", "--config", site.config)
    assert f"echo-key of unix:{tmp_path}/vault.sock" in told
