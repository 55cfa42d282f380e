"""What is renewed in its place, an operator's token or a door's certificate, counts without a restart; also where the
gateway was started with relative paths."""

import secrets
from pathlib import Path

import pki
from operators import Site, until


def test_a_token_and_a_certificate_that_are_renewed_in_their_place_count_within_seconds(tmp_path, services, monkeypatch):
    monkeypatch.chdir(tmp_path)
    site = Site(tmp_path, services.ca)
    site.config.write_text(site.config.read_text().replace(f"{tmp_path}/tls/", "tls/"))
    site.config = Path("outgate.yaml")
    site.start()

    def reader_is_let_in() -> bool:
        return site.command("session", "list", **site.remotely("reader")).returncode == 0

    assert reader_is_let_in()
    old = (tmp_path / "reader.token").read_text().strip()
    site.secret("reader.token", secrets.token_hex(32))
    until(reader_is_let_in)
    assert site.call("GET", "/v1/sessions", who=old).status_code == 401

    # Another CA as well, which is the one that the command line trusts from here on.
    pki.issue(tmp_path / "tls", ["localhost"])
    until(reader_is_let_in)
    site.close()
