"""The programs of `docs/clients.md` that can be asked for any URL: how each is used, and how it gets out."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from sandbox import Launcher, guest

PROXY, TRANSPARENT = "proxy", "transparent"
WITHOUT_PROXY = "env -u http_proxy -u https_proxy -u all_proxy -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY"

# What a tool says of a name that no rule allows: the gateway's status through the proxy, else its resolver's error.
REFUSED_BY_PROXY = "403|Forbidden"
NO_SUCH_NAME = (
    "Could not resolve|Name or service not known|ENOTFOUND|no such host|failed to lookup|unable to resolve|"
    "nodename nor servname|No address associated|UnresolvedAddress|ConnectException|Temporary failure"
)


@dataclass
class Tool:
    """A tool: the command that gets a URL, with the bearer token in the variable `key` if one is named."""

    way: str
    """How it gets out: through the proxy that it was told of, or without knowing."""
    command: list[str]
    version: str = "1.1"
    """The HTTP version that it speaks, which the gateway mirrors."""
    refusal: str = ""
    """What it says of a host that no rule names."""
    shell: bool = False
    node: bool = field(default=False)

    def get(self, launcher: Launcher, url: str, key: str = "") -> list[str]:
        if self.shell:
            host, _, path = url.removeprefix("https://").partition("/")
            variables = [f"URL={url}", f"HOST_NAME={host}", f"URL_PATH=/{path}", f"KEY={key}"]
            return ["env", *variables, "bash", "-c", *self.command]
        command = launcher.node_program("get") + self.command if self.node else self.command
        return [*command, url, *([key] if key else [])]

    @property
    def says(self) -> str:
        return self.refusal or (REFUSED_BY_PROXY if self.way == PROXY else NO_SUCH_NAME)


def shell(way: str, script: str, **more) -> Tool:
    """A tool without a program of its own here: `$URL`, and `$proof` with the header if there is a key."""
    proof = 'proof="${KEY:+Authorization: Bearer ${!KEY}}"; '
    return Tool(way, [proof + script], shell=True, **more)


def python(library: str, way: str, **more) -> Tool:
    return Tool(way, [sys.executable, guest("get.py"), library], **more)


def curl(options: str = "") -> str:
    return f'curl -sS --fail {options} ${{proof:+-H "$proof"}} "$URL"'


WGET = 'wget -q -O - --tries=1 ${proof:+--header "$proof"} "$URL" || { wget --tries=1 -O - "$URL"; exit 1; }'
OPENSSL = (
    'printf "GET $URL_PATH HTTP/1.1\\r\\nhost: $HOST_NAME\\r\\n${proof:+$proof\\r\\n}connection: close\\r\\n\\r\\n" | '
    "openssl s_client -connect $HOST_NAME:443 -servername $HOST_NAME -verify_return_error -verify_hostname $HOST_NAME "
    "-ign_eof -quiet | sed '1,/^\\r$/d'"
)

TOOLS = {
    "curl": shell(PROXY, curl(), version="2"),
    "curl --noproxy '*'": shell(TRANSPARENT, curl("--noproxy '*'"), version="2"),
    "curl without variables": shell(TRANSPARENT, f"{WITHOUT_PROXY} {curl()}", version="2"),
    "curl in an empty environment": shell(TRANSPARENT, f"env -i {curl()}", version="2"),
    "wget": shell(PROXY, WGET),
    "openssl s_client": shell(TRANSPARENT, f"set -o pipefail; {OPENSSL}", refusal="connect:|gai|BIO|errno"),
    "Python urllib": python("urllib", PROXY),
    "Python requests": python("requests", PROXY),
    "Python httpx": python("httpx", PROXY, version="2"),
    "Python aiohttp": python("aiohttp", TRANSPARENT),
    "Python aiohttp, trust_env": python("aiohttp-env", PROXY),
    "Node fetch": Tool(PROXY, ["fetch"], node=True),
    "Node https": Tool(PROXY, ["https"], node=True, refusal="403|ENOTFOUND|ERR_PROXY"),
    "Node axios": Tool(PROXY, ["axios"], node=True, refusal="403|ENOTFOUND|ERR_"),
    "Java HttpClient": Tool(TRANSPARENT, ["java", guest("Get.java")], version="2"),
    "Go net/http": Tool(PROXY, ["{go}/get", "default"], version="2"),
    "Go, own transport": Tool(TRANSPARENT, ["{go}/get", "direct"], version="2"),
    "Rust rustls-native-certs": Tool(TRANSPARENT, ["{rust}"]),
    "Rust openssl-probe": Tool(TRANSPARENT, ["env", "-u", "SSL_CERT_FILE", "-u", "SSL_CERT_DIR", "{rust}"]),
}

for tool in TOOLS.values():
    places = {"{go}": os.environ["OUTGATE_GO_GUESTS"], "{rust}": os.environ["OUTGATE_RUST_GUEST"]}
    for mark, place in places.items():
        tool.command = [word.replace(mark, str(Path(place))) for word in tool.command]
