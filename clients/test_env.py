"""`outgate env`: the same variables in both formats, in the letter cases that clients read, and trust that adds up."""

import ssl
import subprocess


def test_the_shell_format_evaluates_to_the_json_format(guest):
    printed = guest.gateway.command("env", "--token-file", str(guest.folder / "token"), "--format", "sh")
    script = printed + "\nenv -0"
    done = subprocess.run(["sh", "-eu", "-c", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True)
    evaluated = dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)
    for name in ("PATH", "PWD", "_", "SHLVL", "OLDPWD"):
        evaluated.pop(name, None)
    assert evaluated == guest.environment


def test_the_proxy_is_there_in_both_letter_cases_and_has_no_hole(guest):
    environment = guest.environment
    for name in ("http_proxy", "https_proxy"):
        assert environment[name] == environment[name.upper()]
        assert f":{guest.token}@{guest.gateway.ready['proxy'][0]}" in environment[name]
    for name in ("no_proxy", "NO_PROXY"):
        assert environment.get(name, "") in ("", "localhost,127.0.0.1,::1", "127.0.0.1,localhost,::1")


def test_the_bundle_holds_the_gateways_ca_beside_the_systems_roots(guest):
    bundle = guest.environment["SSL_CERT_FILE"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(bundle)
    assert context.cert_store_stats()["x509_ca"] > 50
    with open(guest.gateway.ready["ca"]) as own, open(bundle) as whole:
        held = whole.read()
        assert own.read().strip() in held and "PRIVATE KEY" not in held
