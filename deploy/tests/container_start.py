"""What a container runtime does between `fork` and `exec`: `python container_start.py SPEC`.

A root of its own in which nothing can be written but the volumes that are meant for it, process 1 of its own process
namespace, the pod's user and group, no capability, no way to new ones, and only the variables of the manifest. The
program is started from the image's one file.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWPID = 0x20000, 0x20000000
RDONLY, NOSUID, NODEV, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
DETACH = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
SET_PDEATHSIG, SET_NO_NEW_PRIVS, CAPBSET_DROP, CAP_AMBIENT, AMBIENT_CLEAR_ALL = 1, 38, 24, 47, 4

# Those that every runtime gives, by the OCI runtime specification.
DEVICES = ("null", "zero", "full", "random", "urandom")


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    must("prctl", SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    must("unshare", NEWPID)
    child = os.fork()
    if child == 0:
        contain(spec)
    Path(spec["pid_file"]).write_text(str(child))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(child, number))
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status) % 256)


def contain(spec: dict) -> None:
    must("unshare", NEWNS)
    mounts(Path(spec["root"]), spec)
    drop(spec["uid"], spec["gid"])
    os.execve(spec["argv"][0], spec["argv"], spec["env"])


def mounts(root: Path, spec: dict) -> None:
    mount(None, "/", None, PRIVATE | REC)
    mount("tmpfs", root, "tmpfs", NOSUID | NODEV)
    for path, source in spec["image"].items():
        inside = root / path.lstrip("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.touch()
        mount(source, inside, None, BIND)
        mount(None, inside, None, REMOUNT | BIND | RDONLY | NOSUID | NODEV)
    for volume in spec["volumes"]:
        inside = root / volume["path"].lstrip("/")
        inside.mkdir(parents=True, exist_ok=True)
        mount(volume["source"], inside, None, BIND)
        rights = RDONLY if volume["read_only"] else 0
        mount(None, inside, None, REMOUNT | BIND | NOSUID | NODEV | rights)
    for name in DEVICES:
        inside = root / "dev" / name
        inside.parent.mkdir(exist_ok=True)
        inside.touch()
        mount(f"/dev/{name}", inside, None, BIND)
    (root / "proc").mkdir()
    mount("proc", root / "proc", "proc", NOSUID | NODEV | RDONLY)
    (root / "old").mkdir()
    os.chdir(root)
    if LIBC.syscall(PIVOT_ROOT, b".", b"old") != 0:
        fail("pivot_root")
    must("umount2", b"/old", DETACH)
    os.rmdir("/old")
    mount(None, "/", None, REMOUNT | RDONLY | NOSUID | NODEV)
    os.chdir("/")


def drop(uid: int, gid: int) -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        must("prctl", CAPBSET_DROP, capability, 0, 0, 0)
    must("prctl", CAP_AMBIENT, AMBIENT_CLEAR_ALL, 0, 0, 0)
    os.setgroups([gid])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    must("prctl", SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    must("prctl", SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def mount(source: str | None, target: str | Path, kind: str | None, flags: int) -> None:
    text = [None if it is None else str(it).encode() for it in (source, target, kind)]
    if LIBC.mount(*text, ctypes.c_ulong(flags), None) != 0:
        fail(f"mount {target}")


def must(name: str, *arguments: object) -> None:
    if getattr(LIBC, name)(*arguments) != 0:
        fail(name)


def fail(what: str) -> None:
    number = ctypes.get_errno()
    sys.exit(f"container_start: {what}: {os.strerror(number)}")


main()
