"""Certificates, keys and service-account tokens for the tests, made by `openssl`."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


def openssl(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@dataclass(frozen=True)
class Authority:
    """A CA on P-256: `ca.crt` and `ca.key` in its folder."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90"),
            *("-subj", f"/CN={self.name}", "-keyout", self.key, "-out", self.certificate),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        return self.folder / "ca.key"

    def issue(self, *names: str) -> tuple[Path, Path]:
        """A certificate for these names, for servers and clients, and its key."""
        stem = self.folder / names[0]
        certificate, key = stem.with_name(f"{stem.name}.crt"), stem.with_name(f"{stem.name}.key")
        openssl(
            *("req", "-x509", "-CA", self.certificate, "-CAkey", self.key, "-days", "30", "-nodes"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={names[0]}"),
            *("-keyout", key, "-out", certificate, "-addext", f"subjectAltName={','.join(f'DNS:{it}' for it in names)}"),
            *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth,clientAuth"),
        )
        return certificate, key


class Issuer:
    """The cluster's issuer of service-account tokens."""

    NAME = "https://kubernetes.default.svc.cluster.local"

    def __init__(self, folder: Path) -> None:
        self._key = folder / "service-accounts.key"
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self._key)
        modulus = openssl("rsa", "-in", self._key, "-noout", "-modulus").decode().strip().partition("=")[2]
        key = {"kty": "RSA", "kid": "one", "use": "sig", "alg": "RS256", "e": "AQAB", "n": coded(bytes.fromhex(modulus))}
        self.jwks = json.dumps({"keys": [key]})

    def token(self, pod: str, audience: str = "outgate") -> str:
        """As kubelet projects it into a pod."""
        now = int(time.time())
        claims = {
            "iss": self.NAME,
            "aud": [audience],
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "sub": "system:serviceaccount:agents:outgate-agent",
            "kubernetes.io": {"namespace": "agents", "pod": {"name": pod, "uid": f"uid-of-{pod.replace(' ', '-')}"}},
        }
        parts = [{"alg": "RS256", "kid": "one"}, claims]
        signed = ".".join(coded(json.dumps(it).encode()) for it in parts)
        signature = openssl("dgst", "-sha256", "-sign", self._key, stdin=signed.encode())
        return f"{signed}.{coded(signature)}"


def coded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
