"""git over HTTPS against the CGI program that git ships: clone, and push with a body too large for one buffer."""

import os
import subprocess

import pytest

from upstream import KEYS, basic

HOST = "github.com"
AUTHOR = {f"GIT_{who}_{what}": "o@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
REPOSITORY = "https://github.com/acme/widgets.git"
HELPER = 'credential.helper=!f() { test "$1" = get && echo username=octocat && echo "password=$GIT_TOKEN"; }; f'


@pytest.fixture
def repository(upstream, guest):
    """A bare repository with one commit, on the upstream's side."""
    return repository_at(upstream, guest.folder / "seed")


def repository_at(upstream, seed):
    """`acme/widgets` at the upstream with one commit, made in the folder `seed`."""
    bare = upstream.repositories / "acme" / "widgets.git"
    script = f"""
    rm -rf {bare} && git init -q --bare -b main {bare} && git -C {bare} config http.receivepack true
    git init -q -b main {seed} && cd {seed} && echo hello > README && git add README
    git commit -q -m first && git push -q {bare} main
    """
    environment = {"PATH": os.environ["PATH"], "HOME": str(seed), "GIT_CONFIG_NOSYSTEM": "1", **AUTHOR}
    subprocess.run(["sh", "-ec", script], env=environment, check=True, timeout=30)
    return bare


def git(guest, *command, **variables):
    return guest.run(*command, GIT_CONFIG_NOSYSTEM="1", GIT_TERMINAL_PROMPT="0", **AUTHOR, **variables)


def challenged(guest, *command):
    """git with a credential helper: it sends nothing until it is challenged."""
    return git(guest, "git", "-c", HELPER, *command, GIT_TOKEN=guest.token)


def test_clone_with_the_token_in_the_url(guest, upstream, repository):
    url = REPOSITORY.replace("https://", f"https://x-access-token:{guest.token}@")
    git(guest, "git", "clone", "-q", url, "copy")
    assert (guest.folder / "copy" / "README").read_text() == "hello\n"
    assert_only_real(upstream)


def test_clone_after_a_challenge(guest, upstream, repository):
    challenged(guest, "clone", "-q", REPOSITORY, "copy")
    assert (guest.folder / "copy" / "README").read_text() == "hello\n"
    assert_only_real(upstream)


def test_push_of_more_than_one_buffer(guest, upstream, repository):
    challenged(guest, "clone", "-q", REPOSITORY, "copy")
    copy = guest.folder / "copy"
    (copy / "blob").write_bytes(os.urandom(4_000_000))
    git(guest, "git", "-C", str(copy), "add", "blob")
    git(guest, "git", "-C", str(copy), "commit", "-q", "-m", "second")
    challenged(guest, "-C", str(copy), "push", "-q", "origin", "main")
    log = git(guest, "git", "-C", str(repository), "log", "--format=%s", "main", GIT_CONFIG_COUNT="1",
              GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*")
    assert log.out.split() == ["second", "first"]
    pushed = [seen for seen in upstream.heads(HOST) if seen.path.endswith("/git-receive-pack")]
    assert max(seen.body_bytes for seen in pushed) > 4_000_000
    assert_only_real(upstream)


def test_clone_without_a_token_fails_as_git_fails(guest, upstream, repository):
    done = guest.run("git", "clone", REPOSITORY, "copy", check=False, GIT_TERMINAL_PROMPT="0")
    assert done.code != 0
    assert "could not read Username" in done.err
    assert upstream.heads(HOST) == []


def assert_only_real(upstream):
    values = {value for seen in upstream.heads(HOST) for value in seen.header("authorization")}
    assert values == {basic("x-access-token", KEYS["github"])}
    assert all(seen.header("authorization") for seen in upstream.heads(HOST))
