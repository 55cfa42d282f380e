"""Signed webhooks, with an independent library as the sender."""

import base64
import datetime
import json
import re
import secrets
import subprocess
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from standardwebhooks import Webhook

from operators import REVOKED, SECRET, Site, until

PAGE = Path(__file__).parent.parent / "docs/operator.md"
SIGNER = Ed25519PrivateKey.generate()
TEAM_SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
WEBHOOKS = """
  webhooks:
    - { name: soar, secret_file: soar.secret }
    - { name: signer, public_key_file: signer.pub }
    - { name: team-a, secret_file: team-a.secret, tenant: team-a }
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory, services):
    site = Site(tmp_path_factory.mktemp("site"), services.ca, operator=WEBHOOKS)
    public = SIGNER.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    (site.folder / "signer.pub").write_text("whpk_" + base64.b64encode(public).decode())
    team = site.folder / "team-a.secret"
    team.write_text(TEAM_SECRET)
    team.chmod(0o600)
    site.start()
    # Timestamps count from the second after the gateway's start.
    until(lambda: send(site, {"action": "end", "session": "s_unknown"})[1] == "unknown_session")
    yield site
    site.close()


def send(site, body: dict, name="soar", id=None, at=0, signature=None, raw=None):
    """A signed call; `at` seconds from now."""
    id = id or f"msg_{time.time_ns()}"
    when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=at)
    text = json.dumps(body)
    secret = TEAM_SECRET if name == "team-a" else SECRET
    signature = signature or Webhook(secret).sign(id, when, text)
    headers = {
        "content-type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": str(int(when.timestamp())),
        "webhook-signature": signature,
    }
    answer = site.call("POST", f"/v1/webhooks/{name}", who=None, headers=headers, data=(raw or text).encode())
    return answer.status_code, answer.json().get("code")


def test_a_signed_webhook_revokes_once(site):
    session, token = site.open()
    order = {"action": "end", "session": session, "reason": "credential stuffing"}
    assert send(site, order, id="msg_once") == (200, None)
    assert site.get(token) == REVOKED
    assert send(site, order, id="msg_once") == (200, None), "a repeat gets the first answer"
    assert send(site, order, at=30) == (200, None), "and a further order for the same changes nothing"
    record = site.records("webhook")[-1]
    assert "soar" in json.dumps(record["actor"])


def test_what_a_webhook_did_not_sign_does_nothing(site):
    session, token = site.open()
    order = {"action": "end", "session": session}
    unverified = (401, "webhook_unverified")
    before = len(site.records("webhook"))
    assert send(site, order, raw=json.dumps(order | {"reason": "other"})) == unverified
    assert send(site, order, signature="v1,AAAA") == unverified
    assert send(site, order, signature=Webhook(base64.b64encode(b"x" * 32).decode()).sign(
        "msg_x", datetime.datetime.now(datetime.timezone.utc), json.dumps(order)), id="msg_x") == unverified
    assert send(site, order, name="nobody") == unverified
    assert send(site, order, name="signer") == unverified, "an HMAC is no signature of the public key"
    assert send(site, order, at=-600) == send(site, order, at=600) == (401, "webhook_outdated")
    assert send(site, {"action": "kill_all", "reason": "x"}, name="team-a") == (403, "tenant_bound")
    assert send(site, order, name="team-a") == (404, "unknown_session")
    assert send(site, {"action": "end", "session": session, "extra": 1}) == (400, "invalid_body")
    assert site.get(token) == (200, None)
    assert site.json("kill", "--status") == {"on": False}
    assert len(site.records("webhook")) > before


def test_a_webhook_may_sign_with_ed25519(site):
    session, token = site.open()
    order, id, now = {"action": "deny", "session": session, "reason": "soar"}, "msg_ed", int(time.time())
    signed = f"{id}.{now}.{json.dumps(order)}".encode()
    signature = "v1a," + base64.b64encode(SIGNER.sign(signed)).decode()
    headers = {"content-type": "application/json", "webhook-id": id, "webhook-timestamp": str(now), "webhook-signature": signature}
    answer = site.call("POST", "/v1/webhooks/signer", who=None, headers=headers, data=json.dumps(order).encode())
    assert answer.status_code == 200, answer.text
    assert site.get(token) == REVOKED
    site.told("deny", "remove", session)


def test_the_pages_example_verifies():
    rows = dict(re.findall(r"^(secret|webhook-\S+|body|signed) +(.+)$", PAGE.read_text(), re.MULTILINE))
    sent = datetime.datetime.fromtimestamp(int(rows["webhook-timestamp"]), datetime.timezone.utc)
    assert Webhook(rows["secret"]).sign(rows["webhook-id"], sent, rows["body"]) == rows["webhook-signature"]
    assert rows["signed"] == ".".join([rows["webhook-id"], rows["webhook-timestamp"], rows["body"]])


def test_the_pages_shell_lines_work(site):
    """As they stand, with this gateway's place and session in them."""
    lines = re.search(r"```sh\n(id=msg_.+?)```", PAGE.read_text(), re.DOTALL)[1]
    session, token = site.open()
    lines = lines.replace('"ID"', f'"{session}"').replace("https://gateway.example.org:9443", site.url)
    done = subprocess.run(
        ["sh", "-euc", lines.replace("gateway-ca.pem", str(site.ca)).replace("curl ", "curl -sS --fail-with-body ")],
        cwd=site.folder, capture_output=True, text=True, timeout=30,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert json.loads(done.stdout) == {"action": "end"}
    assert site.get(token) == REVOKED
