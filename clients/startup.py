"""What `outgate run` adds to a command's start, and to its first request. Run by `cargo xtask startup`.

Argument: the number of rounds. Each round measures everything once, so that a busy moment hits all alike.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from sandbox import Launcher
from upstream import ADDRESSES, KEYS, Upstream

HOST = "echo.example.com"
GET = ["curl", "-sS", "--fail", "-o", "/dev/null", "-w", "%{time_total}"]


def took(line: list[str], launcher: Launcher) -> tuple[float, str]:
    """Milliseconds from start to end, and what was printed."""
    start = time.perf_counter()
    done = subprocess.run(
        line, cwd=launcher.home, env=launcher.environment, stdin=subprocess.DEVNULL, capture_output=True
    )
    milliseconds = (time.perf_counter() - start) * 1000
    assert done.returncode == 0, done.stderr.decode()
    return milliseconds, done.stdout.decode()


def main() -> None:
    rounds = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        services = Path(folder) / "services"
        services.mkdir()
        upstream = Upstream(services, services / "ca.pem", services / "repositories")
        upstream.start()
        launcher = Launcher(Path(folder), upstream.ca)
        direct = ["--resolve", f"{HOST}:443:{ADDRESSES[HOST]}", "-H", f"Authorization: Bearer {KEYS['echo']}"]
        inside = f'exec {" ".join(GET)} "$@" -H "Authorization: Bearer $ECHO_API_KEY" https://{HOST}/'
        lines = {
            "true": ["true"],
            "outgate run -- true": launcher.line("true", flags=("--quiet",)),
            "outgate run --isolation proxy-only -- true": launcher.line(
                "true", flags=("--quiet", "--isolation", "proxy-only")
            ),
            "first request, direct": [*GET, *direct, f"https://{HOST}/"],
            "first request, proxy": launcher.line("sh", "-c", inside, flags=("--quiet",)),
            "first request, transparent": launcher.line("sh", "-c", inside, "sh", "--noproxy", "*", flags=("--quiet",)),
        }
        whole, request = defaultdict(list), defaultdict(list)
        for number in range(rounds + 1):
            for name, line in lines.items():
                milliseconds, printed = took(line, launcher)
                # The first round fills the caches of the file system.
                if number > 0:
                    whole[name].append(milliseconds)
                    if printed:
                        request[name].append(float(printed) * 1000)
        upstream.close()
    print(f"{os.environ['OUTGATE_BIN']}, {rounds} rounds, milliseconds\n")
    print(f"{'':44}{'median':>8}{'lowest':>8}{'p90':>8}{'added':>8}")
    for name, values in whole.items():
        base = whole["first request, direct" if "request" in name else "true"]
        show(name, values, statistics.median(values) - statistics.median(base))
    base = statistics.median(request["first request, direct"])
    for name, values in request.items():
        show(f"{name}: the request alone", values, statistics.median(values) - base)


def show(name: str, values: list[float], added: float) -> None:
    p90 = sorted(values)[int(len(values) * 0.9)]
    print(f"{name:44}{statistics.median(values):8.1f}{min(values):8.1f}{p90:8.1f}{added:8.1f}")


main()
