"""Two gateways are replaced one after the other while agents work: who retries a refused connection sees no error."""

import itertools
import shutil
import threading

import pytest

from live import AGENT, running

pytestmark = pytest.mark.timeout(120)
API = "https://api.anthropic.com/v1/models"
REFUSED = 7


@pytest.fixture
def live(tmp_path_factory):
    with running("gateway-shared", tmp_path_factory.mktemp("rolling")) as cluster:
        yield cluster


class Client:
    """Asks again and again, at the next gateway if one refuses the connection. Everything else is an error."""

    def __init__(self, live, endpoints: set[str]) -> None:
        self.live = live
        self.endpoints = endpoints
        self.token = live.issuer.token(AGENT)
        self.served: dict[str, int] = dict.fromkeys(live.gateways, 0)
        self.refused = 0
        self.errors: list[str] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        refused_in_a_row = 0
        for gateway in itertools.cycle(self.live.gateways):
            if self.stop.is_set():
                return
            if gateway not in self.endpoints:
                continue
            done = self.live.curl(
                AGENT, "--fail", "--header", f"x-api-key: {self.token}", API, proxy=self.live.proxy(gateway)
            )
            if done.returncode == REFUSED and refused_in_a_row < len(self.live.gateways) - 1:
                refused_in_a_row += 1
                self.refused += 1
                continue
            refused_in_a_row = 0
            if done.returncode == 0:
                self.served[gateway] += 1
            else:
                self.errors.append(f"{gateway}: {done.returncode} {done.stderr}")


def wait_for(what, seconds=30):
    waiting = threading.Event()
    for _ in range(seconds * 20):
        if what():
            return
        waiting.wait(0.05)
    raise AssertionError("it did not happen in time")


def test_a_rolling_restart_is_not_seen_by_a_client_that_retries(live):
    # A Service has a pod from its readiness on; that one has gone is known later than it goes.
    endpoints = set(live.gateways)
    clients = [Client(live, endpoints) for _ in range(3)]
    try:
        for number, gateway in enumerate(live.gateways):
            before = sum(it.served[gateway] for it in clients)
            wait_for(lambda: sum(it.served[gateway] for it in clients) > before + 5)
            container = live.containers[gateway]
            refused = sum(it.refused for it in clients)
            assert container.stop() == 0, container.log_text()
            # Long enough that everybody has tried this one in vain.
            wait_for(lambda: sum(it.refused for it in clients) > refused + 3)
            endpoints.discard(gateway)
            # Nobody is still on the way to the one that has gone.
            served = {it: sum(it.served.values()) for it in clients}
            wait_for(lambda: all(sum(it.served.values()) > served[it] + 1 for it in clients))
            # The first is followed by another pod, whose state begins empty; the second is the same pod's next container.
            if number == 0:
                shutil.rmtree(container.volumes["/var/lib/outgate"] / "state")
            container.start()
            container.wait_ready(live.address(gateway)[0], 8080)
            endpoints.add(gateway)
            again = sum(it.served[gateway] for it in clients)
            wait_for(lambda: sum(it.served[gateway] for it in clients) > again + 5)
    finally:
        for it in clients:
            it.stop.set()
        for it in clients:
            it.thread.join()
        errors = [error for it in clients for error in it.errors]
        assert errors == []
