"""Runs a container of a rendered pod without an engine: the static program, and what its manifest mounts and sets."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from netns import Namespace

Object = dict[str, Any]
# What the image has beside the program.
PROGRAM, ROOTS = "/usr/local/bin/outgate", "/etc/ssl/certs/ca-certificates.crt"
STATIC = Path(os.environ.get("OUTGATE_STATIC", ""))


class Container:
    """The only container of a workload's pod, in a network namespace that is given."""

    def __init__(
        self, workload: Object, files: dict[str, dict[str, str]], image: dict[str, Path], folder: Path, net: Namespace
    ) -> None:
        assert STATIC.is_file(), "OUTGATE_STATIC: the static program"
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        self.net = net
        self.folder = folder
        pod = workload["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] and rights["capabilities"] == {"drop": ["ALL"]}
        assert not rights["allowPrivilegeEscalation"]
        self.uid, self.gid = rights["runAsUser"], rights["runAsGroup"]
        self.volumes = {
            mount["mountPath"]: self._volume(mount["name"], pod, files) for mount in container["volumeMounts"]
        }
        read_only = {it["mountPath"] for it in container["volumeMounts"] if it.get("readOnly")}
        (folder / "root").mkdir()
        self.spec = {
            "root": str(folder / "root"),
            "pid_file": str(folder / "pid"),
            "image": {PROGRAM: str(STATIC), **{path: str(source) for path, source in image.items()}},
            "volumes": [
                {"path": path, "source": str(source), "read_only": path in read_only}
                for path, source in self.volumes.items()
            ],
            "argv": [PROGRAM, *container["args"]],
            "env": {it["name"]: it["value"] for it in container["env"]},
            "uid": self.uid,
            "gid": self.gid,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def _volume(self, name: str, pod: Object, files: dict[str, dict[str, str]]) -> Path:
        """A folder with what kubelet would put there; a volume that is not read from objects is empty."""
        place = self.folder / "volumes" / name
        place.mkdir(parents=True)
        volume = next((it for it in pod["volumes"] if it["name"] == name), {})
        sources = volume["projected"]["sources"] if "projected" in volume else [volume]
        group = pod["securityContext"]["fsGroup"]
        content = {path: text for source in sources for path, text in projected(source, files).items()}
        if not content:
            os.chown(place, 0, group)
            place.chmod(0o2770)
            return place
        (settings,) = [it for it in volume.values() if isinstance(it, dict)]
        write_volume(place, content, settings.get("defaultMode", 0o644), group)
        return place

    def start(self) -> None:
        spec = self.folder / "spec.json"
        spec.write_text(json.dumps(self.spec))
        self.log = self.folder / "log"
        (self.folder / "pid").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            command = self.net.command(sys.executable, Path(__file__).with_name("container_start.py"), spec)
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def pid(self) -> int:
        """Its process 1, as it is called outside."""
        return int((self.folder / "pid").read_text())

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As `kubectl exec` does."""
        ids = ["--setgid", str(self.gid), "--setuid", str(self.uid)]
        inside = ["nsenter", "--target", str(self.pid()), "--mount", "--net", "--pid", "--root", "--wd=/", *ids, "--"]
        return subprocess.run([*inside, *command], env=self.spec["env"], capture_output=True, text=True, timeout=20)

    def wait_ready(self, address: str, port: int) -> None:
        """Until its readiness probe succeeds and its port is open."""
        deadline = time.monotonic() + 30
        while not self._ready(address, port):
            assert self.process is not None and self.process.poll() is None, self.log_text()
            assert time.monotonic() < deadline, f"not ready:\n{self.log_text()}"
            time.sleep(0.05)

    def _ready(self, address: str, port: int) -> bool:
        if not (self.folder / "pid").exists() or not accepts(self.net, address, port):
            return False
        return self.execute(PROGRAM, "health", "--ready").returncode == 0

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")


def accepts(net: Namespace, address: str, port: int) -> bool:
    with net.entered():
        peer = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    with peer:
        peer.settimeout(2)
        return peer.connect_ex((address, port)) == 0


def projected(source: Object, files: dict[str, dict[str, str]]) -> dict[str, str]:
    """Path and content of what one source of a volume gives."""
    if "secret" in source:
        named = source["secret"].get("secretName") or source["secret"]["name"]
        items = source["secret"].get("items")
    elif "configMap" in source:
        named, items = source["configMap"]["name"], source["configMap"].get("items")
    else:
        return {}
    there = files[named]
    return {it["path"]: there[it["key"]] for it in items} if items else dict(there)


def write_volume(place: Path, content: dict[str, str], mode: int, group: int) -> None:
    """As kubelet does: a folder with a time in its name, and symlinks by way of `..data`, which it swaps."""
    fresh = place / f"..{time.time_ns()}"
    fresh.mkdir()
    for name, text in content.items():
        file = fresh / name
        file.write_text(text)
        os.chown(file, 0, group)
        file.chmod(mode)
        if not (place / name).is_symlink():
            (place / name).symlink_to(f"..data/{name}")
    (place / "..fresh").symlink_to(fresh.name)
    (place / "..fresh").rename(place / "..data")


def secrets_and_maps(rendered: list[Object], **secrets: dict[str, str]) -> dict[str, dict[str, str]]:
    """What volumes are made of: the rendered ConfigMaps, and what an owner brings."""
    maps = {it["metadata"]["name"]: it["data"] for it in rendered if it["kind"] == "ConfigMap"}
    kept = {
        it["metadata"]["name"]: {name: base64.b64decode(text).decode() for name, text in it.get("data", {}).items()}
        for it in rendered
        if it["kind"] == "Secret"
    }
    return {**maps, **kept, **{name.replace("_", "-"): it for name, it in secrets.items()}}
