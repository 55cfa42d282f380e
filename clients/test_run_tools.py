"""Unmodified tools in `outgate run`: an injected destination, one that passes through, and one that no rule names."""

import json
import re
import sys
from dataclasses import dataclass

import pytest

from conftest import assert_nothing_foreign
from sandbox import Launcher, Ran, guest
from services import Seen
from tools import PROXY, TOOLS
from upstream import KEYS

INJECTED, PASSED, CLOSED = "echo.example.com", "public.example.org", "closed.example.net"


@dataclass
class Outcome:
    """What came of the three requests of one tool, which one run made."""

    ran: Ran
    injected: dict
    passed: dict
    refused: dict
    heads: list[Seen]


@pytest.fixture(scope="module")
def outcomes(services, tmp_path_factory):
    known = {}

    def outcome(name: str) -> Outcome:
        if name not in known:
            launcher = Launcher(tmp_path_factory.mktemp("tool"), services.ca)
            tool = TOOLS[name]
            commands = [
                tool.get(launcher, f"https://{INJECTED}/deep/path", "ECHO_API_KEY"),
                tool.get(launcher, f"https://{PASSED}/own"),
                tool.get(launcher, f"https://{CLOSED}/"),
            ]
            services.seen.clear()
            ran = launcher.run(sys.executable, guest("thrice.py"), json.dumps(commands))
            known[name] = Outcome(ran, *ran.json(), list(services.seen))
        return known[name]

    return outcome


@pytest.fixture(params=TOOLS)
def tool(request):
    return request.param


def test_an_injected_destination_sees_the_real_key(outcomes, tool):
    it, expected = outcomes(tool), TOOLS[tool]
    assert it.injected["code"] == 0, it.injected
    assert json.loads(it.injected["out"])["path"] == "/deep/path"
    (seen,) = [seen for seen in it.heads if seen.host == INJECTED]
    assert seen.header("authorization") == [f"Bearer {KEYS['echo']}"]
    assert seen.version == expected.version
    entry = "connect" if expected.way == PROXY else "transparent"
    assert entry in it.ran.entries(INJECTED) and "bumped" in it.ran.entries(INJECTED)
    assert_nothing_foreign(it.heads)


def test_a_pass_through_destination_is_verified_by_its_own_certificate(outcomes, tool):
    it, expected = outcomes(tool), TOOLS[tool]
    assert it.passed["code"] == 0, it.passed
    assert json.loads(it.passed["out"])["path"] == "/own"
    assert [seen.version for seen in it.heads if seen.host == PASSED] == [expected.version]
    assert it.ran.entries(PASSED) == ["connect" if expected.way == PROXY else "transparent"]


def test_a_host_that_no_rule_names_fails_fast_and_says_why(outcomes, tool):
    it, expected = outcomes(tool), TOOLS[tool]
    assert it.refused["code"] != 0, it.refused
    # Against the tool's own time for a good answer, its start included: a virtual machine takes seconds.
    assert it.refused["seconds"] < it.passed["seconds"] + 2
    assert re.search(expected.says, it.refused["err"] + it.refused["out"]), it.refused
    entry = "connect" if expected.way == PROXY else "dns"
    assert (entry, "destination_not_allowed") in it.ran.denials(CLOSED)
    assert "--allow closed.example.net" in it.ran.err, "the summary says what would allow it"
