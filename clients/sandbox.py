"""`outgate run` as a person starts it: real keys in the environment, a policy, and a command that knows nothing."""

import base64
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from upstream import ADDRESSES, KEYS

HERE = Path(__file__).parent
LIMIT_SECONDS = 60
SYSTEM_ROOTS = Path("/etc/ssl/certs/ca-certificates.crt")

# The keys as they stand in the environment of the person who starts the command.
VARIABLES = {
    "OPENAI_API_KEY": KEYS["openai"],
    "ANTHROPIC_API_KEY": KEYS["anthropic"],
    "GITHUB_TOKEN": KEYS["github"],
    "NPM_TOKEN": KEYS["npm"],
    "ECHO_API_KEY": KEYS["echo"],
    "PACKAGES_TOKEN": KEYS["packages"],
}

# Where the names lead, and whom the gateway trusts: what the public internet gives everybody else.
WORLD = """
resolver:
  hosts: {hosts}
  allow: [127.0.0.0/24]
upstream: {{ roots: none, extra_roots: [{ca}] }}
"""

# `openai` and `anthropic` are known services: their keys are in the environment, nothing more is said.
POLICY = """
version: 1
services: { known: true }
credentials:
  echo: { from: { env: ECHO_API_KEY } }
  packages: { from: { env: PACKAGES_TOKEN } }
  github: { from: { env: GITHUB_TOKEN } }
  npm: { from: { env: NPM_TOKEN } }
destinations:
  - host: echo.example.com
    inject: { credential: echo, header: authorization }
    deny: [{ methods: [DELETE] }]
  - host: packages.example.com
    inject: { credential: packages, basic: __token__ }
  - host: github.com
    token: optional
    inject: { credential: github, basic: x-access-token }
    deny: [{ methods: [POST], paths: [/acme/widgets.git/git-receive-pack] }]
  - host: npm.example.net
    inject: { credential: npm, header: authorization }
  - host: public.example.org
    ports: [443, 8443]
  - host: files.example.net
"""

# An unprivileged user, as far as a namespace that maps one user can have another: no capability, another number.
AS_NOBODY = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]

TOKEN_HEAD = base64.urlsafe_b64encode(b'{"alg":"').decode()[:10]


@dataclass
class Ran:
    """A run that ended, and its audit trail."""

    code: int
    out: str
    err: str
    seconds: float
    trail: Path | None

    def json(self):
        assert self.code == 0, f"exit {self.code}\n{self.err}\n{self.out}"
        return json.loads(self.out)

    @property
    def records(self) -> list[dict]:
        """The audit records of decisions, oldest first."""
        lines = (self.trail / "audit.jsonl").read_text().splitlines()
        return [record for line in lines if (record := json.loads(line)["record"])["class_uid"] in (4001, 4002)]

    def entries(self, host: str) -> list[str]:
        """The ways in of what was allowed to this host, look-ups aside."""
        allowed = [record for record in self.records if record["action_id"] == 1 and name(record) == host]
        return [entry for record in allowed if (entry := record["unmapped"]["entry"]) != "dns"]

    def denials(self, host: str | None = None) -> set[tuple[str, str]]:
        """Entry and reason of every denial, to this host if one is named."""
        denied = [record for record in self.records if record["action_id"] == 2]
        return {
            (record["unmapped"]["entry"], record["status_code"])
            for record in denied
            if host is None or name(record) == host
        }


def name(record: dict) -> str | None:
    endpoint = record["dst_endpoint"]
    return endpoint.get("hostname") or endpoint.get("ip")


@dataclass
class Launcher:
    """Somebody who starts `outgate run`: a home, keys, and a state folder."""

    folder: Path
    upstream_ca: Path
    binary: Path = field(default_factory=lambda: Path(os.environ["OUTGATE_BIN"]))
    wrapper: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path in (self.home, self.temporary):
            path.mkdir()
        # The upstreams' CA is among this machine's roots, as a company's is: outgate must keep it for the guest.
        self.roots = self.folder / "roots.pem"
        self.roots.write_bytes(SYSTEM_ROOTS.read_bytes() + self.upstream_ca.read_bytes())
        self.config = self.write_config("outgate.yaml", POLICY)
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "SSL_CERT_FILE": str(self.roots),
            "NODE_EXTRA_CA_CERTS": str(self.upstream_ca),
            "PIP_CONFIG_FILE": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            **VARIABLES,
        }

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def write_config(self, file: str, policy: str) -> Path:
        """A configuration file with this policy in the tests' world."""
        path = self.folder / file
        path.write_text(policy + WORLD.format(hosts=json.dumps(ADDRESSES), ca=self.upstream_ca))
        return path

    def line(self, *command: str | Path, flags: tuple = (), config: Path | None = None) -> list[str]:
        """The command line of a run."""
        own = [self.binary, "--state-dir", self.state, "run", "--config", config or self.config, *flags, "--"]
        return [str(word) for word in [*self.wrapper, *own, *command]]

    def run(
        self,
        *command: str | Path,
        flags: tuple = (),
        config: Path | None = None,
        check: bool = True,
        stdin: bytes | None = None,
        **variables: str,
    ) -> Ran:
        """Runs a command to its end. Neither it nor what is left on disk may hold a real key."""
        before = set(self.trails())
        start = time.monotonic()
        done = subprocess.run(
            self.line(*command, flags=flags, config=config),
            cwd=self.home,
            env=self.environment | variables,
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
            capture_output=True,
            timeout=LIMIT_SECONDS,
        )
        seconds = time.monotonic() - start
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        self.assert_no_key("what was printed", out + err)
        if check:
            assert done.returncode == 0, f"{command} gave {done.returncode}\n{err}\n{out}"
        (trail,) = set(self.trails()) - before or {None}
        if trail is not None:
            self.verify(trail)
        return Ran(done.returncode, out, err, seconds, trail)

    def trails(self) -> list[Path]:
        """The audit folders of all runs, oldest first."""
        return sorted(self.state.glob("runs/*/audit"))

    def verify(self, trail: Path) -> None:
        """The trail verifies, and nothing secret is in it or in the log beside it."""
        verified = subprocess.run([self.binary, "audit", "verify", trail], capture_output=True, text=True)
        assert verified.returncode == 0, verified.stdout + verified.stderr
        for path in [*trail.iterdir(), *trail.parent.glob("*.log")]:
            text = path.read_text()
            self.assert_no_key(str(path), text)
            assert TOKEN_HEAD not in text, f"a session token is in {path}"

    def assert_no_key(self, where: str, text: str) -> None:
        for variable, key in VARIABLES.items():
            assert key not in text, f"the real {variable} is in {where}"

    def outgate(self, *arguments: str | Path) -> subprocess.CompletedProcess:
        """Another command of outgate."""
        return subprocess.run([self.binary, *arguments], capture_output=True, text=True, timeout=LIMIT_SECONDS)

    def node_program(self, program: str) -> list[str]:
        """Node and a program of `guests/`, beside the packages, where ES modules look for them."""
        packages = Path(os.environ["OUTGATE_NODE_PACKAGES"])
        target = packages / f"{program}.mjs"
        source = (HERE / "guests" / f"{program}.mjs").read_text()
        if not target.exists() or target.read_text() != source:
            target.write_text(source)
        return [str(Path(sys.executable).parent / "node"), str(target)]


def guest(program: str) -> str:
    """The path of a program of `guests/`."""
    return str(HERE / "guests" / program)


def plain(text: str) -> str:
    """Without a terminal's colours."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
