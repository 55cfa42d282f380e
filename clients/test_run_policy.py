"""What `outgate run` lets out, how that is said, how it is learnt, and what remains without namespaces."""

import json
import re
import sys

import pytest

from sandbox import guest, plain
from upstream import KEYS

NOTHING = """
version: 1
destinations: []
"""
KNOWN = NOTHING + "services: { known: true }\n"
STATUS = "curl -sS -o /dev/null -w '%{http_code} '"


def test_known_services_need_nothing_but_their_keys(launcher, outside):
    config = launcher.write_config("known.yaml", KNOWN)
    script = f"""
    {STATUS} -H "Authorization: Bearer $OPENAI_API_KEY" https://api.openai.com/v1/models
    {STATUS} -H "x-api-key: $ANTHROPIC_API_KEY" -d '{{"model":"m"}}' https://api.anthropic.com/v1/messages
    {STATUS} --user "x:$GITHUB_TOKEN" 'https://github.com/acme/none.git/info/refs?service=git-upload-pack'
    """
    ran = launcher.run("bash", "-c", script, config=config)
    assert ran.out.split()[:2] == ["200", "200"], ran
    assert outside.heads("api.openai.com")[0].header("authorization") == [f"Bearer {KEYS['openai']}"]
    assert outside.heads("api.anthropic.com")[0].header("x-api-key") == [KEYS["anthropic"]]
    assert outside.heads("github.com")[0].header("authorization")[0].startswith("Basic ")
    said = plain(ran.err).splitlines()
    for variable, host in (("OPENAI_API_KEY", "api.openai.com"), ("ANTHROPIC_API_KEY", "api.anthropic.com")):
        assert [line for line in said if variable in line and host in line], ran.err
    assert len([line for line in said[: said.index(next(line for line in said if " allowed (" in line))]]) < 12, ran.err


def test_without_its_key_a_known_service_is_not_let_out(launcher, outside):
    config = launcher.write_config("known.yaml", KNOWN)
    ran = launcher.run("curl", "-sS", "https://api.openai.com/", config=config, check=False, OPENAI_API_KEY="")
    assert ran.code != 0 and ("connect", "destination_not_allowed") in ran.denials("api.openai.com")
    assert outside.seen == []


def test_flags_alone_let_a_host_a_port_and_a_credential_out(launcher, outside):
    config = launcher.write_config("nothing.yaml", NOTHING)
    (launcher.home / "key").write_text(KEYS["echo"] + "\n")
    flags = ("--allow", "public.example.org:8443", "--credential", "echo.example.com=file:key")
    script = f"""
    {STATUS} https://public.example.org:8443/
    {STATUS} -H "Authorization: Bearer $OUTGATE_SESSION_TOKEN" https://echo.example.com/
    {STATUS} --noproxy '*' https://public.example.org/ 2>&1
    cat key
    """
    ran = launcher.run("bash", "-c", script, config=config, flags=flags)
    assert ran.out.startswith("200 200 "), ran
    assert KEYS["echo"] not in ran.out
    assert [seen.host for seen in outside.seen] == ["public.example.org", "echo.example.com"]


def test_the_line_of_the_summary_lets_the_host_out(launcher, outside):
    config = launcher.write_config("nothing.yaml", NOTHING)
    get = [sys.executable, guest("get.py"), "urllib", "https://public.example.org/wanted"]
    refused = launcher.run(*get, config=config, check=False)
    assert refused.code != 0 and "1 denied" in plain(refused.err)
    said = plain(refused.err)
    line, flag = re.search(r"^outgate: +(- host: .*?) +# or (--allow \S+)$", said, re.M).groups()
    assert "public.example.org  1 × destination_not_allowed" in said
    assert launcher.run(*get, config=config, flags=tuple(flag.split())).json()["path"] == "/wanted"
    pasted = launcher.write_config("pasted.yaml", NOTHING.replace("destinations: []", f"destinations:\n  {line}"))
    assert launcher.run(*get, config=pasted).json()["path"] == "/wanted"
    assert len(outside.seen) == 2


def test_the_line_of_the_summary_lets_the_request_out(launcher, outside):
    policy = """
version: 1
credentials: { echo: { from: { env: ECHO_API_KEY } } }
destinations:
  - host: echo.example.com
    inject: { credential: echo, header: authorization }
    allow:
      - { methods: [GET], paths: [/read/**] }
"""
    config = launcher.write_config("narrow.yaml", policy)
    post = f'{STATUS} -H "Authorization: Bearer $ECHO_API_KEY" -d x=1 https://echo.example.com/write/one'
    refused = launcher.run("bash", "-c", post, config=config)
    assert refused.out.strip() == "403" and outside.seen == []
    line = re.search(r"allow: \[(\{.*?\})\] +# add to destinations\[0\] echo.example.com", plain(refused.err))
    assert line, refused.err
    wider = launcher.write_config("wider.yaml", policy + f"      - {line[1]}\n")
    assert launcher.run("bash", "-c", post, config=wider).out.strip() == "200"


def test_every_decision_is_told_while_it_runs(launcher, outside):
    script = f"{STATUS} https://public.example.org/told; {STATUS} https://closed.example.net/; :"
    shown = launcher.run("sh", "-c", script, flags=("--log",))
    for expected in (r"allowed  public\.example\.org", r"denied destination_not_allowed  closed\.example\.net"):
        assert re.search(rf"^outgate: {expected}", plain(shown.err), re.M), shown.err
    file = launcher.folder / "decisions.log"
    written = launcher.run("sh", "-c", script, flags=(f"--log={file}", "--quiet"))
    assert "outgate:" not in plain(written.err)
    lines = file.read_text().splitlines()
    assert [line for line in lines if line.startswith("allowed  public.example.org")]
    assert [line for line in lines if line.startswith("denied destination_not_allowed  closed.example.net")]
    launcher.assert_no_key("the decision log", file.read_text())


@pytest.mark.parametrize("curl", ["curl", "curl --noproxy '*'"], ids=["proxy", "transparent"])
def test_what_was_learnt_is_a_policy_for_the_same_command(launcher, outside, curl):
    config = launcher.write_config("known.yaml", KNOWN)
    learnt = launcher.folder / "learnt.yaml"
    get = f"{curl} -sS --fail -o /dev/null"
    script = f"""
    {get} https://public.example.org/items/12345/parts
    {get} -X PUT -d a=b https://files.example.net/v1/things
    {get} -H "Authorization: Bearer $OPENAI_API_KEY" https://api.openai.com/v1/models
    """
    open_run = launcher.run("bash", "-ec", script, config=config, flags=("--learn", str(learnt)))
    assert "OPEN while learning" in plain(open_run.err)
    launcher.assert_no_key("the learnt policy", learnt.read_text())
    checked = launcher.outgate("check", "--config", learnt)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    policy = learnt.read_text()
    hosts = set(re.findall(r"^  - host: (\S+)$", policy, re.M))
    assert hosts == {"public.example.org", "files.example.net", "api.openai.com"}, policy
    launcher.run("bash", "-ec", script, config=learnt)
    assert len(outside.seen) == 6
    assert {tuple(seen.header("authorization")) for seen in outside.heads("api.openai.com")} == {
        (f"Bearer {KEYS['openai']}",)
    }
    for other in (f"{get} https://closed.example.net/", f"{get} -X DELETE https://public.example.org/items/1/parts"):
        refused = launcher.run("bash", "-ec", other, config=learnt, check=False)
        assert refused.code != 0 and refused.denials(), other
    assert len(outside.seen) == 6


def test_learning_does_not_open_what_is_closed_to_all(launcher, outside):
    """Private addresses, other ports and addresses without a name stay closed while learning."""
    policy = NOTHING + "resolver: { hosts: { inside.example.com: 10.1.2.3, here.example.com: 127.0.0.1 } }\n"
    path = launcher.folder / "private.yaml"
    path.write_text(policy)
    script = """
    for place in https://inside.example.com/ https://here.example.com/ https://169.254.169.254/ https://10.1.2.3/; do
        curl -sS -o /dev/null -i $place; curl -sS -o /dev/null --noproxy '*' $place
    done
    curl -sS --noproxy '*' https://here.example.com:8443/
    :
    """
    learnt = launcher.folder / "learnt.yaml"
    ran = launcher.run("bash", "-c", script, config=path, flags=("--learn", str(learnt)))
    reasons = {reason for _, reason in ran.denials()}
    assert "ip_literal" in reasons and reasons & {"address_not_allowed", "address_denied"}, reasons
    assert ran.seconds < 6 and "host: inside.example.com" not in learnt.read_text()


def test_without_namespaces_the_environment_alone_leads_to_the_gateway(launcher, outside):
    script = f"""
    {STATUS} -H "Authorization: Bearer $ECHO_API_KEY" https://echo.example.com/curl
    {sys.executable} {guest("get.py")} requests https://echo.example.com/python ECHO_API_KEY >/dev/null
    {STATUS} https://closed.example.net/
    exit 7
    """
    ran = launcher.run("bash", "-c", script, flags=("--isolation", "proxy-only"), check=False)
    assert ran.code == 7 and ran.out.startswith("200 "), ran
    assert "can ignore it" in plain(ran.err), "the missing guarantee is told"
    assert [seen.path for seen in outside.heads("echo.example.com")] == ["/curl", "/python"]
    assert {tuple(seen.header("authorization")) for seen in outside.seen} == {(f"Bearer {KEYS['echo']}",)}
    assert ("connect", "destination_not_allowed") in ran.denials("closed.example.net")


def test_without_namespaces_others_on_this_machine_get_nothing_from_the_proxy(launcher, outside):
    """Whoever finds the port without the token is asked for one."""
    script = """
    place=${HTTPS_PROXY#*@}
    curl -sS -o /dev/null -w '%{http_connect}' --proxy "http://$place" https://public.example.org/
    """
    ran = launcher.run("bash", "-c", script, flags=("--isolation", "proxy-only"), check=False)
    assert ran.out == "407", ran
    assert outside.seen == []


def test_the_trail_of_a_run_says_what_happened(launcher, outside):
    ran = launcher.run("curl", "-sS", "-o", "/dev/null", "https://public.example.org/")
    shown = launcher.outgate("audit", "show", ran.trail)
    assert "public.example.org:443" in shown.stdout
    sessions = {record["actor"]["session"]["uid"] for record in ran.records}
    assert len(sessions) == 1
    assert json.loads(launcher.outgate("audit", "verify", ran.trail, "--json").stdout)
