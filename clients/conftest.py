"""Fixtures: one upstream and one gateway for the run, a session and a clean record for each test."""

import base64
import os
from pathlib import Path

import pytest

from gateway import Gateway, Guest
from grpc_upstream import GrpcUpstream
from sandbox import TOKEN_HEAD, Launcher
from upstream import KEYS, Upstream


@pytest.fixture(scope="session")
def services(tmp_path_factory):
    folder = tmp_path_factory.mktemp("upstream")
    upstream = Upstream(folder, folder / "ca.pem", folder / "repositories")
    upstream.start()
    grpc = GrpcUpstream(upstream)
    grpc.start()
    yield upstream
    grpc.close()
    upstream.close()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory, services):
    gateway = Gateway(tmp_path_factory.mktemp("gateway"), services.ca)
    gateway.start()
    yield gateway
    if gateway.process.poll() is None:
        gateway.stop()


@pytest.fixture
def guest(gateway, tmp_path) -> Guest:
    """A sandbox with a session of its own."""
    return gateway.open_session(tmp_path)


@pytest.fixture
def upstream(services, guest):
    """The services, with an empty record; afterwards no request may have carried the token."""
    services.seen.clear()
    yield services
    forms = [guest.token, *(base64.b64encode(b"." * pad + guest.token.encode())[4:-4].decode() for pad in range(3))]
    for seen in services.seen:
        text = seen.text()
        for form in forms:
            assert form not in text, f"the session token reached {seen.host}"
        for value in seen.header("authorization"):
            if value.startswith("Basic "):
                assert guest.token.encode() not in base64.b64decode(value[6:]), f"the token reached {seen.host}"
        assert not seen.header("proxy-authorization"), f"Proxy-Authorization reached {seen.host}"
        others = [key for name, key in KEYS.items() if not belongs(name, seen.host)]
        assert not [key for key in others if key in text], f"another service's key reached {seen.host}"


@pytest.fixture
def launcher(services, tmp_path) -> Launcher:
    """Somebody who starts `outgate run`."""
    return Launcher(tmp_path, services.ca)


@pytest.fixture
def outside(services):
    """The services, with an empty record; afterwards no request may have carried a session token or a foreign key."""
    services.seen.clear()
    yield services
    assert_nothing_foreign(services.seen)


def assert_nothing_foreign(heads) -> None:
    for seen in heads:
        basic = [value[6:] for value in seen.header("authorization") if value.startswith("Basic ")]
        decoded = [base64.b64decode(value).decode() for value in basic]
        text = "\n".join([seen.text(), *decoded])
        assert TOKEN_HEAD not in text, f"a session token reached {seen.host}"
        assert not seen.header("proxy-authorization"), f"Proxy-Authorization reached {seen.host}"
        foreign = [name for name, key in KEYS.items() if key in text and not belongs(name, seen.host)]
        assert not foreign, f"{foreign} reached {seen.host}"
        assert seen.host != "closed.example.net", "what no rule names was reached"


def belongs(credential: str, host: str) -> bool:
    return credential in host.split(".")


@pytest.fixture(scope="session", autouse=True)
def nothing_secret_is_left_behind(gateway):
    """At the end of the run: no secret in the gateway's log (at trace level) or in its audit trail."""
    yield
    assert gateway.stop() == 0
    written = {Path(folder) / name for folder, _, names in os.walk(gateway.state) for name in names}
    trail = [path for path in written if "audit" in path.parts]
    assert trail, "there is no audit trail"
    texts = {"the log": gateway.log_text()} | {str(path): path.read_text() for path in trail}
    for where, text in texts.items():
        for name, key in KEYS.items():
            assert key not in text, f"the real {name} key is in {where}"
        for form in ("eyJ", base64.b64encode(b"session:eyJ").decode()[:12]):
            assert form not in text, f"a session token is in {where}"
