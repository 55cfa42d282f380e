"""The real `outgate` binary, started once for the whole run, and guests behind it."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from upstream import ADDRESSES, KEYS

HERE = Path(__file__).parent
LIMIT_SECONDS = 40

CONFIG = """
version: 1
listen: {{ proxy: 127.0.0.1:0 }}
credentials:
  openai: {{ from: {{ env: OPENAI_API_KEY }} }}
  anthropic: {{ from: {{ file: anthropic.key }} }}
  github: {{ from: {{ file: github.key }} }}
  echo: {{ from: {{ file: echo.key }} }}
  query: {{ from: {{ file: query.key }} }}
  plain: {{ from: {{ file: plain.key }} }}
  grpc: {{ from: {{ file: grpc.key }} }}
destinations:
  - host: api.openai.com
    inject: {{ credential: openai, header: authorization }}
    allow: [{{ methods: [GET, POST], paths: [/v1/**] }}]
  - host: api.anthropic.com
    inject: {{ credential: anthropic, header: x-api-key }}
    allow: [{{ methods: [POST], paths: [/v1/messages] }}]
  - host: github.com
    inject: {{ credential: github, basic: x-access-token }}
  - host: echo.example.com
    inject: {{ credential: echo, header: authorization }}
    deny: [{{ methods: [DELETE] }}]
  - host: query.example.com
    inject: {{ credential: query, query: key }}
  - host: plain.example.com
    plaintext: true
    ports: [80]
    inject: {{ credential: plain, header: x-api-key, over_plaintext: true }}
  - host: grpc.example.com
    inject: {{ credential: grpc, header: authorization }}
  - host: public.example.org
resolver:
  hosts: {hosts}
  allow: [127.0.0.0/24]
upstream: {{ roots: none, extra_roots: [{ca}] }}
"""


@dataclass
class Gateway:
    """A running gateway."""

    folder: Path
    upstream_ca: Path
    binary: Path = field(default_factory=lambda: Path(os.environ["OUTGATE_BIN"]))

    def start(self) -> None:
        for name, key in KEYS.items():
            if name != "openai":
                file = self.folder / f"{name}.key"
                file.touch(0o600)
                file.write_text(key + "\n")
        config = self.folder / "outgate.yaml"
        config.write_text(CONFIG.format(hosts=json.dumps(ADDRESSES), ca=self.upstream_ca))
        self.log = (self.folder / "gateway.log").open("w")
        self.process = subprocess.Popen(
            [self.binary, "--state-dir", self.state, "serve", "--config", config, "--json"],
            env={"PATH": os.environ["PATH"], "OPENAI_API_KEY": KEYS["openai"], "RUST_LOG": "trace"},
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        line = self.process.stdout.readline()
        assert line, f"the gateway did not start:\n{self.log_text()}"
        self.ready = json.loads(line)
        assert self.ready["event"] == "ready", line

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def log_text(self) -> str:
        return (self.folder / "gateway.log").read_text(errors="replace")

    def command(self, *arguments: str) -> str:
        """What `outgate ARGUMENTS` prints."""
        done = subprocess.run(
            [self.binary, "--state-dir", self.state, *arguments], capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
        assert done.returncode == 0, f"outgate {arguments}: {done.stderr}{done.stdout}"
        return done.stdout

    def open_session(self, folder: Path) -> "Guest":
        created = json.loads(self.command("session", "create", "--label", "suite=clients", "--json"))
        token_file = folder / "token"
        token_file.write_text(created["token"])
        printed = self.command("env", "--token-file", str(token_file), "--format", "json")
        return Guest(self, folder, created["id"], created["token"], json.loads(printed))


@dataclass
class Done:
    """A guest program that ended."""

    code: int
    out: str
    err: str

    def json(self):
        assert self.code == 0, f"exit {self.code}\n{self.err}\n{self.out}"
        return json.loads(self.out)


@dataclass
class Guest:
    """A sandbox: a session token, the environment that `outgate env` printed, and nothing else."""

    gateway: Gateway
    folder: Path
    session: str
    token: str
    environment: dict[str, str]

    def run(self, *command: str | Path, check: bool = True, **variables: str) -> Done:
        """Runs a program as the guest. What it prints must never hold a real key."""
        base = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8"}
        done = subprocess.run(
            list(command),
            cwd=self.folder,
            env=base | self.environment | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT_SECONDS,
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        for name, key in KEYS.items():
            assert key not in out + err, f"the guest saw the real {name} key"
        if check:
            assert done.returncode == 0, f"{command} gave {done.returncode}\n{err}\n{out}"
        return Done(done.returncode, out, err)

    def python(self, program: str, *arguments: str, **variables: str):
        """The JSON that `guests/PROGRAM.py` prints."""
        return self.run(sys.executable, HERE / "guests" / f"{program}.py", *arguments, **variables).json()

    def node(self, program: str, *arguments: str, **variables: str):
        """The JSON that `guests/PROGRAM.mjs` prints."""
        node = Path(sys.executable).parent / "node"
        # ES modules look for packages beside the importing file only, so the program is run from the packages' folder.
        packages = Path(os.environ["OUTGATE_NODE_PACKAGES"])
        target = packages / f"{program}.mjs"
        target.write_text((HERE / "guests" / f"{program}.mjs").read_text())
        return self.run(node, target, *arguments, **variables).json()

    def curl(self, *arguments: str, check: bool = True) -> Done:
        return self.run("curl", "--silent", "--show-error", "--max-time", "30", *arguments, check=check)
