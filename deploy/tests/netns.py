"""Network namespaces that end with this process: made, wired and entered without names that could be left behind."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    if getattr(LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}; these tests need root, and a kernel with namespaces")


class Namespace:
    """One network namespace, held by a descriptor."""

    def __init__(self) -> None:
        # In a thread that ends with it: no other thread may find itself in there.
        with ThreadPoolExecutor(1) as thread:
            self.descriptor = thread.submit(made).result()
        self.path = f"/proc/{os.getpid()}/fd/{self.descriptor}"
        self.run("ip", "link", "set", "lo", "up")

    def close(self) -> None:
        os.close(self.descriptor)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is inside: a socket that it makes belongs there for ever."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            call("setns", self.descriptor, CLONE_NEWNET)
            yield
        finally:
            call("setns", before, CLONE_NEWNET)
            os.close(before)

    def command(self, *command: str | Path) -> list[str]:
        """The command that runs this one inside."""
        return ["nsenter", f"--net={self.path}", "--", *map(str, command)]

    def run(self, *command: str | Path, stdin: str | None = None) -> str:
        done = subprocess.run(self.command(*command), input=stdin, capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            raise RuntimeError(f"{command}: {done.stderr}{done.stdout}\n{stdin or ''}")
        return done.stdout

    def links(self, lines: list[str]) -> None:
        """Lines for `ip`, all in one go."""
        self.run("ip", "-batch", "-", stdin="\n".join(lines))

    def settings(self, values: dict[str, str | int]) -> None:
        """Settings of this namespace, below /proc/sys/net."""
        with self.entered():
            for name, value in values.items():
                Path("/proc/sys/net", name).write_text(str(value))


def made() -> int:
    call("unshare", CLONE_NEWNET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Router:
    """What joins them: it forwards, and its packet filter is what a cluster's network plugin is elsewhere."""

    # What stops a packet says so, and at once: no test waits for an answer that never comes.
    PROMPT = {
        "ipv4/ip_forward": 1,
        "ipv6/conf/all/forwarding": 1,
        "ipv4/icmp_ratemask": 0,
        "ipv6/icmp/ratemask": 0,
    }

    def __init__(self) -> None:
        self.namespace = Namespace()
        self.namespace.settings(self.PROMPT)
        # Errors need a sender of each family.
        own = ["address add 192.0.2.1/32 dev lo", "address add 2001:db8::1/128 dev lo nodad"]
        self.namespace.links(own)
        self.places: list[Namespace] = []

    def place(self, addresses: tuple[str, ...]) -> Namespace:
        """A namespace with these addresses, whose every packet goes through here."""
        place = Namespace()
        self.places.append(place)
        link = f"p{len(self.places)}"
        self.namespace.links([
            f"link add {link} type veth peer name eth0 netns {place.path}",
            f"link set {link} addrgenmode none up",
            f"address add fe80::1/64 dev {link} nodad",
            *(f"route add {it} via inet6 fe80::2 dev {link}" for it in addresses),
        ])
        place.links([
            "link set eth0 addrgenmode none up",
            "address add fe80::2/64 dev eth0 nodad",
            *(f"address add {it}/{128 if ':' in it else 32} dev eth0{' nodad' if ':' in it else ''}" for it in addresses),
            "route add 0.0.0.0/0 via inet6 fe80::1 dev eth0",
            "route add ::/0 via fe80::1 dev eth0",
        ])
        # The sender's own limit on "there is nobody".
        place.settings({"ipv4/icmp_ratemask": 0, "ipv6/icmp/ratemask": 0})
        return place

    def rules(self, text: str) -> None:
        """Replaces the packet filter."""
        self.namespace.run("nft", "-f", "-", stdin=f"flush ruleset\n{text}")

    def close(self) -> None:
        for place in [*self.places, self.namespace]:
            place.close()
