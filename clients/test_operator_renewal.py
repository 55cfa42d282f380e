"""Certificates and operators' tokens that are renewed in their place count without a restart, also where the gateway was
started with relative paths."""

import secrets
from pathlib import Path

import pki
from operators import Site, until


def test_what_is_renewed_in_its_place_counts_within_seconds(tmp_path, services, monkeypatch):
    monkeypatch.chdir(tmp_path)
    site = Site(tmp_path, services.ca)
    site.config.write_text(site.config.read_text().replace(f"{tmp_path}/tls/", "tls/"))
    site.config = Path("outgate.yaml")
    site.start()
    listed = lambda: site.command("session", "list", **site.remotely("reader")).returncode == 0
    before = site.remotely("reader")
    assert listed()

    kept = site.secret("kept.token", site.secret("reader.token", secrets.token_hex(32)).read_text().strip())
    assert kept.exists()
    until(listed)

    pki.issue(tmp_path / "tls", ["localhost"])
    until(listed)
    assert "configuration taken over" in site.log_text()
    assert before == site.remotely("reader"), "the command line reads its files anew each time"
    site.close()
