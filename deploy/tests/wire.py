"""A cluster of network namespaces: every place of `world.py` has its addresses, and packets really travel.

Each place answers on every port with its own name, over TCP and UDP, and to pings; what comes between is the packet
filter that `packetfilter.py` makes of the rendered policies.
"""

from __future__ import annotations

import errno
import resource
import selectors
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

from netns import Namespace, Router
from packetfilter import packet_filter
from reachability import Outside, Place, Pod, family
from world import PORTS, World

KINDS = {
    "TCP": (socket.SOCK_STREAM, 0),
    "UDP": (socket.SOCK_DGRAM, 0),
    "ICMP": (socket.SOCK_DGRAM, socket.IPPROTO_ICMP),
}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
# How a packet filter says no, by protocol and family.
REFUSALS = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EACCES}
AT_ONCE = 200


@dataclass(frozen=True, eq=False)
class Cell:
    """One attempt: who to whom, and how."""

    sender: Place
    receiver: Place
    address: str
    protocol: str
    port: int

    def __str__(self) -> str:
        return f"{self.sender.name} > {self.receiver.name} [{self.address}] {self.protocol}/{self.port}"


class Wire:
    """The places of a world, wired to one router."""

    def __init__(self, world: World, silent: dict[str, set[str]] | None = None) -> None:
        """`silent` ports of places, as `TCP/443`, are left to somebody else."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
        self.world = world
        self.places = [travelling(it) for it in world.places]
        self.router = Router()
        self.namespaces = {it.name: self.router.place(it.addresses) for it in self.places}
        self.names = Names()
        for it in self.places:
            self[it.name].settings({"ipv4/ping_group_range": "0 0"})
            self.names.answer(it, self[it.name], (silent or {}).get(it.name, set()))
        self.enforce()

    def __getitem__(self, name: str) -> Namespace:
        return self.namespaces[name]

    def place(self, name: str) -> Place:
        return next(it for it in self.places if it.name == name)

    def enforce(self) -> None:
        """The cluster's policies, as they are now."""
        pods = [it for it in self.places if isinstance(it, Pod)]
        cluster = self.world.cluster
        self.router.rules(packet_filter(cluster.policies, pods, cluster.namespaces))

    def cells(self, sender: Place) -> list[Cell]:
        """Every way there is from here, but to itself, and from one that no policy judges to another such."""
        found = []
        own = {family(it) for it in sender.addresses}
        for receiver in self.places:
            if receiver is sender or (isinstance(sender, Outside) and isinstance(receiver, Outside)):
                continue
            for address in (it for it in receiver.addresses if family(it) in own):
                found += [Cell(sender, receiver, address, kind, port) for kind in ("TCP", "UDP") for port in PORTS]
                found.append(Cell(sender, receiver, address, "ICMP", 0))
        return found

    def tried(self, sender: Place) -> dict[Cell, bool]:
        """What came of each: whether the receiver answered. Neither an answer nor a refusal is an error."""
        cells = self.cells(sender)
        outcomes: dict[Cell, bool] = {}
        with self[sender.name].entered():
            for start in range(0, len(cells), AT_ONCE):
                left = cells[start : start + AT_ONCE]
                # A datagram may be lost when the machine is busy.
                for _ in range(4):
                    outcomes |= attempt(left)
                    left = [it for it in left if it not in outcomes]
                    if not left:
                        break
                assert not left, f"neither an answer nor a refusal: {', '.join(map(str, left))}"
        return outcomes

    def close(self) -> None:
        self.names.close()
        self.router.close()


def travelling(place: Place) -> Place:
    """The place with the addresses that can be in a packet: one that holds an IPv4 address is sent as that."""
    kept = tuple(it for it in place.addresses if not it.startswith("::ffff:"))
    return place if kept == place.addresses else Outside(place.name, kept)


def attempt(cells: list[Cell]) -> dict[Cell, bool]:
    """Tries all of them at once; what is undecided after two seconds is not in the answer."""
    outcomes: dict[Cell, bool] = {}
    with selectors.DefaultSelector() as waiting:
        for cell in cells:
            kind, number = KINDS[cell.protocol]
            version = family(cell.address)
            if cell.protocol == "ICMP" and version == 6:
                number = socket.IPPROTO_ICMPV6
            peer = socket.socket(FAMILIES[version], kind, number)
            peer.setblocking(False)
            source = next(it for it in cell.sender.addresses if family(it) == version)
            peer.bind((source, 0))
            try:
                code = peer.connect_ex((cell.address, cell.port))
                if code not in (0, errno.EINPROGRESS):
                    raise OSError(code, str(cell))
                if cell.protocol != "TCP":
                    peer.send(question(cell))
                waiting.register(peer, selectors.EVENT_READ, cell)
            except OSError as error:
                outcomes[cell] = refused(error, cell)
                peer.close()
        deadline = time.monotonic() + 2
        while waiting.get_map() and time.monotonic() < deadline:
            for key, _ in waiting.select(0.2):
                try:
                    outcomes[key.data] = answered(key.fileobj.recv(512), key.data)
                except OSError as error:
                    outcomes[key.data] = refused(error, key.data)
                waiting.unregister(key.fileobj)
                key.fileobj.close()
        for key in list(waiting.get_map().values()):
            key.fileobj.close()
    return outcomes


def question(cell: Cell) -> bytes:
    if cell.protocol == "UDP":
        return b"?"
    echo = 128 if family(cell.address) == 6 else 8
    return struct.pack("!BBHHH", echo, 0, 0, 0, 1)


def answered(text: bytes, cell: Cell) -> bool:
    if cell.protocol == "ICMP":
        assert text[0] in (0, 129), f"{cell}: {text!r}"
    else:
        assert text.decode() == cell.receiver.name, f"{cell}: {text!r} answered"
    return True


def refused(error: OSError, cell: Cell) -> bool:
    assert error.errno in REFUSALS, f"{cell}: {error}"
    return False


class Names:
    """Answers everything with the name of the place that was reached."""

    def __init__(self) -> None:
        self._waiting = selectors.DefaultSelector()
        self._open = True
        self._thread: threading.Thread | None = None

    def answer(self, place: Place, namespace: Namespace, silent: set[str]) -> None:
        with namespace.entered():
            for address, port, protocol in product(place.addresses, PORTS, ("TCP", "UDP")):
                if f"{protocol}/{port}" in silent:
                    continue
                kind, _ = KINDS[protocol]
                peer = socket.socket(FAMILIES[family(address)], kind)
                peer.setblocking(False)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                peer.bind((address, port))
                if protocol == "TCP":
                    peer.listen(256)
                self._waiting.register(peer, selectors.EVENT_READ, (protocol, place.name.encode()))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while self._open:
            for key, _ in self._waiting.select(0.1):
                protocol, name = key.data
                with suppress(OSError):
                    if protocol == "UDP":
                        key.fileobj.sendto(name, key.fileobj.recvfrom(16)[1])
                    else:
                        with key.fileobj.accept()[0] as peer:
                            peer.send(name)

    def close(self) -> None:
        self._open = False
        if self._thread:
            self._thread.join()
        for key in list(self._waiting.get_map().values()):
            key.fileobj.close()
        self._waiting.close()
