"""Gateways with an operator's door of their own, and who comes in by it."""

import atexit
import base64
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import requests

import pki
from upstream import ADDRESSES, KEYS

HERE = Path(__file__).parent
HOST, OTHER = "echo.example.com", "public.example.org"
REVOKED = (403, "session_revoked")
LIMIT_SECONDS = 40
# Also the secret of the webhook.
SECRET = "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

CONFIG = """
version: 1
listen:
  proxy: 127.0.0.1:0
  operator: {{ address: 127.0.0.1:0, certificate: {certificate}, key: {key} }}
{listen}
operator:
  tokens:
    - {{ name: root, file: root.token, scopes: ["session:create", "session:read", revoke, policy, "audit:read"] }}
    - {{ name: reader, file: reader.token, scopes: ["session:read"] }}
    - {{ name: team-a, file: team-a.token, scopes: ["session:create", "session:read", revoke], tenant: team-a }}
    - {{ name: team-b, file: team-b.token, scopes: ["session:create", "session:read", revoke], tenant: team-b }}
{operator}
credentials:
  echo: {{ from: {{ file: echo.key }} }}
{rules}
resolver:
  hosts: {hosts}
  allow: [127.0.0.0/24]
upstream: {{ roots: none, extra_roots: [{ca}] }}
{further}
"""


RULES = """
destinations:
  - host: echo.example.com
    inject: { credential: echo, header: authorization }
  - host: public.example.org
policies:
  public-only: { destinations: [public.example.org] }
"""


@dataclass
class Site:
    """A gateway, its folder, and the tokens of its operators."""

    folder: Path
    upstream_ca: Path
    operator: str = ""
    listen: str = ""
    rules: str = RULES
    further: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    # What the guests see of it all must hold none of these.
    handed_out: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.binary = Path(os.environ["OUTGATE_BIN"])
        self.state = self.folder / "state"
        self.config = self.folder / "outgate.yaml"
        tls = self.folder / "tls"
        tls.mkdir()
        certificate, key = pki.issue(tls, ["localhost"])
        self.ca = tls / "ca.pem"
        for name in ("root", "reader", "team-a", "team-b"):
            self.secret(f"{name}.token", secrets.token_hex(32))
        self.secret("soar.secret", SECRET)
        self.secret("echo.key", KEYS["echo"])
        self.config.write_text(
            CONFIG.format(
                certificate=certificate,
                key=key,
                hosts=json.dumps(ADDRESSES),
                ca=self.upstream_ca,
                operator=self.operator,
                listen=self.listen,
                rules=self.rules,
                further=self.further,
            )
        )

    def secret(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text + "\n")
        self.handed_out.append(text)
        return path

    def start(self) -> "Site":
        self.log = (self.folder / "gateway.log").open("a")
        self.process = subprocess.Popen(
            [self.binary, "--state-dir", self.state, "serve", "--config", self.config, "--json"],
            env={"PATH": os.environ["PATH"], "RUST_LOG": "debug"} | self.environment,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        # A test that fails leaves nothing running.
        atexit.register(self.process.kill)
        line = self.process.stdout.readline()
        assert line, f"the gateway did not start:\n{self.log_text()}"
        self.ready = json.loads(line)
        port = self.ready["operator_https"].rsplit(":", 1)[1]
        self.url = f"https://localhost:{port}"
        return self

    def stop(self, how=signal.SIGTERM) -> int:
        self.process.send_signal(how)
        code = self.process.wait(20)
        self.log.close()
        return code

    def close(self) -> None:
        """Stops it, and looks for secrets in what it left behind."""
        if self.process.poll() is None:
            assert self.stop() == 0, self.log_text()
        trail = [path for path in (self.state / "audit").rglob("*") if path.is_file()]
        assert trail, "there is no audit trail"
        texts = {"the log": self.log_text()} | {str(path): path.read_text() for path in trail}
        for where, text in texts.items():
            assert "eyJ" not in text, f"a token is in {where}"
            for secret in [*self.handed_out, *KEYS.values()]:
                assert secret not in text, f"a secret is in {where}"

    def log_text(self) -> str:
        return (self.folder / "gateway.log").read_text(errors="replace")

    # The operator's side

    def command(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess:
        """`outgate ARGUMENTS`, by the socket in the state folder."""
        return subprocess.run(
            [self.binary, *arguments],
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            env={"PATH": os.environ["PATH"], "OUTGATE_STATE_DIR": str(self.state)} | variables,
        )

    def told(self, *arguments: str | Path, **variables: str) -> str:
        done = self.command(*arguments, **variables)
        assert done.returncode == 0, f"outgate {arguments}: {done.stderr}{done.stdout}"
        return done.stdout

    def json(self, *arguments: str | Path, **variables: str):
        return json.loads(self.told(*arguments, "--json", **variables))

    def refused(self, *arguments: str | Path, **variables: str) -> str:
        """The code with which a command is refused."""
        done = self.command(*arguments, "--json", **variables)
        assert done.returncode == 1, f"outgate {arguments}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)["error"]["code"]

    def remotely(self, name: str) -> dict[str, str]:
        """The variables of an operator who comes in over TLS."""
        return {
            "OUTGATE_OPERATOR": self.url,
            "OUTGATE_OPERATOR_TOKEN_FILE": str(self.folder / f"{name}.token"),
            "OUTGATE_OPERATOR_CA": str(self.ca),
        }

    def call(self, method: str, path: str, who: str | None = "root", **more) -> requests.Response:
        """A call by an independent HTTP client."""
        headers = more.pop("headers", {})
        if who is not None:
            # A name, or a token as it is.
            file = self.folder / f"{who}.token"
            token = file.read_text().strip() if len(who) < 32 and file.exists() else who
            headers = {"authorization": f"Bearer {token}"} | headers
        with requests.Session() as session:
            session.trust_env = False
            return session.request(method, self.url + path, headers=headers, verify=str(self.ca), timeout=20, **more)

    def trail(self) -> list[dict]:
        """All records, as they are in the trail."""
        return [json.loads(line)["record"] for line in self.told("audit", "show", "--json").splitlines()]

    def records(self, operation: str) -> list[dict]:
        """The records of an operation."""
        return [record for record in self.trail() if record.get("api", {}).get("operation") == operation]

    # The guests' side

    def open(self, *arguments: str) -> tuple[str, str]:
        """A session's id and token."""
        made = self.json("session", "create", *arguments)
        return made["id"], made["token"]

    def get(self, token: str, host: str = HOST, path: str = "/") -> tuple[int, str | None]:
        """What a guest with this token gets: status and deny code. The status is 0 where there was no answer."""
        proxy = f"http://session:{token}@{self.ready['proxy'][0]}"
        with requests.Session() as session:
            session.trust_env = False
            try:
                answer = session.get(
                    f"https://{host}{path}",
                    headers={"authorization": f"Bearer {token}"},
                    proxies={"https": proxy},
                    verify=self.trust(),
                    timeout=20,
                )
            except requests.exceptions.ProxyError as error:
                # The tunnel itself was refused: urllib3 gives the status line alone.
                return refused_tunnel(self.ready["proxy"][0], host, token, str(error))
            except requests.exceptions.ConnectionError as error:
                # The tunnel was cut before it was of use. Whoever waits for a verdict asks again.
                return 0, f"cut: {error}"
        assert KEYS["echo"] not in answer.text
        return answer.status_code, answer.headers.get("x-deny-reason")

    def trust(self) -> str:
        both = self.folder / "trust.pem"
        if not both.exists():
            both.write_text(Path(self.ready["ca"]).read_text() + self.upstream_ca.read_text())
        return str(both)

    def tunnel(self, token: str, host: str = OTHER) -> ssl.SSLSocket:
        """An open TLS connection through the gateway."""
        head, raw = connect(self.ready["proxy"][0], host, token)
        assert head.startswith("HTTP/1.1 200"), head
        return ssl.create_default_context(cafile=self.trust()).wrap_socket(raw, server_hostname=host)


def connect(proxy: str, host: str, token: str, to: int = 443) -> tuple[str, socket.socket]:
    """The head of the answer to CONNECT, and the connection."""
    address, port = proxy.rsplit(":", 1)
    raw = socket.create_connection((address, int(port)), 10)
    basic = base64.b64encode(f"session:{token}".encode()).decode()
    raw.sendall(f"CONNECT {host}:{to} HTTP/1.1\r\nHost: {host}:{to}\r\nProxy-Authorization: Basic {basic}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = raw.recv(4096)
        if not piece:
            break
        head += piece
    return head.decode(), raw


def refused_tunnel(proxy: str, host: str, token: str, why: str) -> tuple[int, str | None]:
    head, raw = connect(proxy, host, token)
    raw.close()
    lines = head.split("\r\n")
    status = int(lines[0].split()[1])
    if status < 400:
        # The verdict changed between the two: a policy arrived. Whoever waits for it asks again.
        return status, f"refused once, then not: {why}"
    fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return status, fields.get("x-deny-reason")


@dataclass
class Issuer:
    """The identity provider of `issuer.mjs`."""

    folder: Path

    def start(self) -> "Issuer":
        certificate, key = pki.issue(self.folder, ["localhost"])
        self.ca = self.folder / "ca.pem"
        program = Path(os.environ["OUTGATE_NODE_PACKAGES"]) / "issuer.mjs"
        program.write_text((HERE / "issuer.mjs").read_text())
        node = Path(sys.executable).parent / "node"
        # The package's `node` starts the real one as a child and does not hand signals on: both are ended as a group.
        self.process = subprocess.Popen(
            [node, program, certificate, key], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.url = json.loads(self.process.stdout.readline())["issuer"]
        return self

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(10)

    def ask(self, path: str, body: dict | None = None) -> dict:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request("POST" if body is not None else "GET", self.url + path, json=body, verify=str(self.ca))
        assert answer.ok, answer.text
        return answer.json()

    def token(self, claims: dict, **how) -> str:
        return self.ask("/test/token", {"claims": claims} | how)["token"]


def until(true, seconds: float = 10.0):
    """Waits until it is true; gives what it gave."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"not true within {seconds} s"
        time.sleep(0.05)
    return found


def cut_within(seconds: float, connection: socket.socket) -> None:
    """Waits for the end of a connection that somebody else ends."""
    began = time.monotonic()
    connection.settimeout(10)
    try:
        while connection.recv(1024):
            pass
    except TimeoutError:
        raise AssertionError("it is still open") from None
    except OSError:
        pass
    assert time.monotonic() - began < seconds
