"""The operator's interface held to its own document, by a property-based tester that nobody of ours wrote: with data
that the document allows and with data that it does not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from operators import Site

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "schema/openapi.json"
# Not `positive_data_acceptance`: a document cannot say which policies there are, nor what time it is. Not
# `use_after_free`: a session that was ended is still shown, as what it is.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method,allow_header_conformance,ignored_auth"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory, services):
    site = Site(tmp_path_factory.mktemp("site"), services.ca, operator=WEBHOOKS)
    site.start()
    yield site
    site.close()


WEBHOOKS = """
  webhooks: [{ name: soar, secret_file: soar.secret }]
  quotas: { sessions: 10000 }
"""


def schemathesis(site, *arguments: str) -> subprocess.CompletedProcess:
    token = (site.folder / "root.token").read_text().strip()
    return subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis", "run", DOCUMENT, "--url", site.url, "--tls-verify", site.ca,
            "-H", f"Authorization: Bearer {token}", "--checks", CHECKS, "--seed", "4", "--no-color",
            "--request-timeout", "10", "--generation-database", "none", *arguments,
        ],
        capture_output=True, text=True, timeout=240, cwd=site.folder,
        env={"PATH": os.environ["PATH"], "HOME": str(site.folder)},
    )


def test_what_is_served_is_what_is_checked_in(site):
    assert site.call("GET", "/v1/openapi.json", who=None).json() == json.loads(DOCUMENT.read_text())


@pytest.mark.timeout(260)
def test_every_route_keeps_to_the_document_whatever_it_is_sent(site):
    done = schemathesis(site, "--phases", "coverage,fuzzing,stateful", "--mode", "all", "--max-examples", "40")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    site.told("kill", "--lift")
    assert site.json("audit", "verify")["ok"]
