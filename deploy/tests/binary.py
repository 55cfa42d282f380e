"""The gateway's own program, asked what it takes."""

import json
import os
import subprocess
from pathlib import Path

OUTGATE = Path(os.environ.get("OUTGATE_BIN", ""))


def outgate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert OUTGATE.is_file(), "OUTGATE_BIN: the program to ask"
    # Nothing of the caller's own gateway.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OUTGATE_")}
    return subprocess.run([OUTGATE, *map(str, arguments)], capture_output=True, text=True, env=clean, timeout=30)


def knows_command(name: str) -> bool:
    done = outgate(name, "--help")
    assert done.returncode in (0, 2), done.stderr
    return done.returncode == 0


def check(text: str, folder: Path) -> dict:
    """What `outgate check` says of a configuration."""
    file = folder / "outgate.yaml"
    file.write_text(text)
    return json.loads(outgate("check", "--config", file, "--json").stdout)
