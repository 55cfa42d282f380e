"""Operators and sessions of an identity provider that nobody of ours wrote: discovery, JWKS with key rotation, and
introspection, over TLS."""

import base64
import json
import time

import pytest

from operators import HOST, OTHER, REVOKED, Issuer, Site, cut_within, until
from upstream import KEYS

OPERATOR = """
  oidc:
    - issuer: {issuer}
      audience: outgate-operators
      ca: {ca}
      name_claim: email
      scopes: {{ claim: groups, map: {{ secops: ["session:read", revoke], platform: ["session:create", "session:read"] }} }}
"""
SESSIONS = """
sessions:
  issuers:
    - issuer: {issuer}
      audience: [outgate, outgate-too]
      ca: {ca}
      session_claim: kubernetes.io.pod.uid
      algorithms: [RS256, ES256, EdDSA]
      max_age: 10m
    - issuer: https://opaque.example.org
      audience: outgate
      jwks: {issuer}/jwks
      ca: {ca}
      policy: public-only
      introspection: {{ url: "{issuer}/oauth/introspect", client_id: outgate, client_secret: {{ file: idp.secret }}, cache: 1s }}
"""


@pytest.fixture(scope="module")
def provider(tmp_path_factory):
    issuer = Issuer(tmp_path_factory.mktemp("issuer")).start()
    yield issuer
    issuer.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory, services, provider):
    known = {"issuer": provider.url, "ca": provider.ca}
    site = Site(
        tmp_path_factory.mktemp("site"),
        services.ca,
        operator=OPERATOR.format(**known),
        further=SESSIONS.format(**known),
    )
    site.secret("idp.secret", "introspection-secret-5b1e7c")
    site.start()
    yield site
    site.close()


# Operators


def operator(provider, groups, **more) -> str:
    claims = {"aud": "outgate-operators", "sub": "u-17", "email": "alice@example.org", "groups": groups}
    return provider.token(claims | more.pop("claims", {}), **more)


def asked(site, token, method="GET", path="/v1/sessions", **more):
    answer = site.call(method, path, who=token, **more)
    return answer.status_code, answer.json().get("code") if answer.content else None


def test_a_group_gives_its_scopes_and_nothing_more(site, provider):
    session, guest = site.open()
    secops = operator(provider, ["everybody", "secops"])
    assert asked(site, secops) == (200, None)
    assert asked(site, secops, "POST") == (403, "scope_missing")
    assert asked(site, operator(provider, ["everybody"])) == (403, "scope_missing")
    assert asked(site, operator(provider, "platform"), "POST") == (201, None)
    assert asked(site, secops, "POST", f"/v1/sessions/{session}/kill") == (204, None)
    assert site.get(guest) == REVOKED
    assert site.json("session", "show", session)["end"]["by"] == "oidc:alice@example.org"
    assert "alice@example.org" in json.dumps(site.records("session.kill")[-1]["actor"])


def test_a_token_that_is_not_for_operators_is_none(site, provider):
    invalid = (401, "credential_invalid")
    now = int(time.time())
    for claims in (
        {"aud": "outgate"},
        {"aud": ["other"]},
        {"iss": "https://other.example.org"},
        {"exp": now - 1},
        {"nbf": now + 120},
        {"email": None},
        {"email": ["alice@example.org", "bob@example.org"]},
    ):
        assert asked(site, operator(provider, ["secops"], claims=claims)) == invalid, claims
    good = operator(provider, ["secops"])
    head, body, signature = good.split(".")
    assert asked(site, f"{head}.{body}.{signature[:-6]}AAAAAA") == invalid
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    assert asked(site, f"{none}.{body}.") == invalid
    assert asked(site, good) == (200, None)


def test_a_session_token_opens_no_operators_door(site, provider):
    _, own = site.open()
    assert asked(site, own) == (401, "credential_invalid")
    assert asked(site, pod(provider, "uid-door")) == (401, "credential_invalid")


def test_a_rotated_key_counts_at_its_first_token(site, provider):
    assert asked(site, operator(provider, ["secops"])) == (200, None)
    # The interval at which an unknown key may be asked for has passed, or passes.
    until(lambda: asked(site, operator(provider, ["secops"], fresh=True)) == (200, None), 15)


def test_an_operator_of_the_provider_uses_the_command_line(site, provider):
    site.secret("alice.token", operator(provider, ["secops"]))
    listed = site.json("session", "list", **site.remotely("alice"))
    assert "sessions" in listed
    assert site.refused("session", "create", **site.remotely("alice")) == "scope_missing"


# Sessions


def pod(provider, uid: str, **more) -> str:
    claims = {"aud": ["outgate"], "sub": "system:serviceaccount:ci:build", "kubernetes.io": {"namespace": "ci", "pod": {"uid": uid}}}
    return provider.token(claims | more.pop("claims", {}), **more)


def listed(site, subject: str) -> dict:
    return next(session for session in site.json("session", "list", "--all")["sessions"] if session["subject"] == subject)


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
def test_a_pods_own_token_is_a_session_token(site, services, provider, alg):
    services.seen.clear()
    token = pod(provider, f"uid-{alg}", alg=alg)
    assert site.get(token) == (200, None)
    seen = services.heads(HOST)[-1]
    assert seen.header("authorization") == [f"Bearer {KEYS['echo']}"] and token not in seen.text()
    session = listed(site, f"uid-{alg}")
    assert session["issuer"] == provider.url and session["id"].startswith("x_")
    assert site.refused("session", "renew", session["id"]) == "external_session"


def test_ending_an_identity_ends_all_its_tokens(site, provider):
    first, other = pod(provider, "uid-ended"), pod(provider, "uid-other")
    assert site.get(first) == site.get(other) == (200, None)
    tunnel = site.tunnel(first)
    site.told("kill", listed(site, "uid-ended")["id"])
    cut_within(1, tunnel)
    assert site.get(first) == site.get(pod(provider, "uid-ended")) == REVOKED, "a fresh token of it, too"
    assert site.get(other) == (200, None)


def test_a_subject_is_denied_before_it_was_ever_seen(site, provider):
    site.told("deny", "add", "--subject", provider.url, "uid-denied", "--reason", "known from elsewhere")
    assert site.get(pod(provider, "uid-denied")) == REVOKED
    site.told("deny", "remove", "--subject", provider.url, "uid-denied")
    assert site.get(pod(provider, "uid-denied")) == (200, None)


def test_tokens_that_are_not_for_us_are_refused(site, provider):
    now = int(time.time())
    refused = {
        "another audience": {"aud": ["https://kubernetes.default.svc"]},
        "another issuer": {"iss": "https://other.example.org"},
        "no session claim": {"kubernetes.io": {"namespace": "ci"}},
        "not yet": {"nbf": now + 120},
    }
    for why, claims in refused.items():
        status, code = site.get(pod(provider, "uid-refused", claims=claims))
        assert status in (401, 407) and code == "token_invalid", why
    for claims in ({"exp": now - 1}, {"iat": now - 660, "exp": now + 600}):
        status, code = site.get(pod(provider, "uid-refused", claims=claims))
        assert status in (401, 407) and code == "token_expired", claims
    status, code = site.get(pod(provider, "uid-refused", alg="PS256"))
    assert code == "token_invalid", "an algorithm that is not on the list"
    assert all(session["subject"] != "uid-refused" for session in site.json("session", "list", "--all")["sessions"])


def test_an_opaque_token_is_asked_about_and_its_revocation_counts_at_once(site, provider):
    token, claims = "opaque-8d1f3a", {"active": True, "aud": "outgate", "sub": "worker-7", "exp": int(time.time()) + 600}
    claims["iat"] = int(time.time())
    assert site.get(token, OTHER)[1] == "token_invalid"
    provider.ask("/test/introspection", {"opaque-8d1f3b": claims})
    token = "opaque-8d1f3b"
    assert site.get(token, OTHER) == (200, None)
    assert site.get(token, HOST) == (403, "destination_not_allowed"), "confined by its issuer's policy"
    basic = "Basic " + base64.b64encode(b"outgate:introspection-secret-5b1e7c").decode()
    assert set(provider.ask("/test/calls")["introspect"]) == {basic}
    site.told("kill", listed(site, "worker-7")["id"])
    assert site.get(token, OTHER) == REVOKED, "whatever is cached"
    provider.ask("/test/introspection", {"opaque-8d1f3c": claims | {"sub": "worker-8"}})
    assert site.get("opaque-8d1f3c", OTHER) == (200, None)
    provider.ask("/test/introspection", {"opaque-8d1f3c": {"active": False}})
    until(lambda: site.get("opaque-8d1f3c", OTHER)[1] == "token_invalid", 5)
