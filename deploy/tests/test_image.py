"""The Dockerfile makes the image that the contract and the manifests take for granted.

It is read, not built: no base image can be fetched where these tests run. What the last stage leaves in the image is
what `test_container.py` runs.
"""

import json
import re
import shlex
from dataclasses import dataclass

import pytest
import yaml

from contract import codes, table
from rendering import CHART, DEPLOY, TOPOLOGIES, containers, helm, pod_templates

ROOT = DEPLOY.parent


@dataclass(frozen=True)
class Stage:
    base: str
    name: str
    lines: list[tuple[str, str]]

    def all(self, word: str) -> list[str]:
        return [rest for it, rest in self.lines if it == word]

    def only(self, word: str) -> str:
        (found,) = self.all(word)
        return found


def stages() -> list[Stage]:
    """Instructions by stage; continued lines are joined, comments are gone."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    found: list[Stage] = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base, name, []))
        elif line and found:
            found[-1].lines.append((word, rest))
    return found


def image() -> Stage:
    return stages()[-1]


def variables(stage: Stage) -> dict[str, str]:
    return dict(part.split("=", 1) for rest in stage.all("ENV") for part in shlex.split(rest))


def test_nothing_is_in_the_image_but_the_program_the_roots_and_an_empty_folder():
    last = image()
    assert last.base == "scratch"
    assert not last.all("RUN") + last.all("ADD")
    assert last.all("COPY") == [
        "--from=build /image/ /",
        "--from=build --chown=65532:65532 /volumes/ /var/lib/",
    ]
    (build,) = [it for it in stages() if it.name == "build"]
    # Flags aside, the last word of `install` is what is made.
    made = re.findall(r"install [^&]* (/(?:image|volumes)/\S+)", build.only("RUN"))
    program = codes(dict(table("Process", ""))["program"])[0]
    assert made == [f"/image{program}", "/image/etc/ssl/certs/ca-certificates.crt", "/volumes/outgate"]


def test_it_starts_as_the_contract_says():
    told = {row[0]: row[1] for row in table("Process", "")}
    last = image()
    program, arguments = codes(told["program"])
    assert json.loads(last.only("ENTRYPOINT")) == [program]
    assert json.loads(last.only("CMD")) == [arguments]
    user = re.search(r"\d{4,}", told["user"])[0]
    assert last.only("USER") == f"{user}:{user}"
    assert last.only("STOPSIGNAL") == "SIGTERM"
    assert last.only("EXPOSE") in {row[0] for row in table("Ports", "port")}


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_manifests_start_it_as_the_image_would(topology):
    last = image()
    ours = [
        container
        for _, template in pod_templates(helm(topology))
        for container in containers(template)
        if container["name"] == "outgate"
    ]
    assert ours
    for container in ours:
        assert container["args"] == json.loads(last.only("CMD"))
        env = {it["name"]: it["value"] for it in container["env"]}
        assert variables(last).items() <= env.items()
        ids = container["securityContext"]
        assert last.only("USER") == f"{ids['runAsUser']}:{ids['runAsGroup']}"
        (program,) = json.loads(last.only("ENTRYPOINT"))
        probe = container["livenessProbe"]["exec"]["command"]
        assert probe == json.loads(last.only("HEALTHCHECK").partition("CMD ")[2])
        assert probe[0] == program


def test_the_state_folder_is_below_what_the_image_gives_away():
    (folder,) = [row[0] for row in table("Mounts", "path") if "state folder" in row[3]]
    state = variables(image())["OUTGATE_STATE_DIR"]
    assert state.startswith(codes(folder)[0] + "/")
    assert codes(folder)[0] == "/var/lib/outgate"


def test_the_build_takes_what_is_locked_and_leaves_no_trace_of_its_place():
    (build,) = [it for it in stages() if it.name == "build"]
    assert "--locked" in build.only("RUN")
    flags = variables(build)
    assert "target-feature=+crt-static" in flags["RUSTFLAGS"]
    assert all("/src=outgate" in flags[it] for it in ("RUSTFLAGS", "CFLAGS"))
    assert not [name for name in flags if name.startswith("CARGO_PROFILE_")], "the profile of its load would not fit"
    profile = re.search(r"-C profile-use=/src/(\S+)", flags["RUSTFLAGS"])[1]
    assert (ROOT / profile).stat().st_size > 0
    assert "SOURCE_DATE_EPOCH" in flags
    minimum = re.search(r'^rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    builder = re.search(r"^ARG BUILDER=\S+:([\d.]+)-", (ROOT / "Dockerfile").read_text(), re.M)[1]
    assert builder.startswith(minimum), "the toolchain of the image is not the project's"


def test_every_tool_of_the_build_has_its_version():
    for stage in stages():
        for rest in stage.all("RUN"):
            for install in re.findall(r"cargo install [^&]*", rest):
                assert "--locked" in install and "--version" in install, install


def test_the_version_is_the_charts_and_the_programs():
    wanted = re.search(r'^version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    assert f"VERSION={wanted}" in image().all("ARG")
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == wanted


def test_the_build_sees_every_member_of_the_workspace_and_nothing_secret():
    """The list names what goes in, so that what nobody thought of stays out."""
    lines = [it for it in (ROOT / ".dockerignore").read_text().splitlines() if it and not it.startswith("#")]
    assert lines[0] == "*"
    let_in = {it[1:] for it in lines if it.startswith("!")}
    members = re.search(r"^members = \[(.*)\]", (ROOT / "Cargo.toml").read_text(), re.M)[1]
    folders = {it.strip().strip('"').removesuffix("/*") for it in members.split(",")}
    # A member inside another's folder comes with it.
    folders = {it for it in folders if not any(it.startswith(f"{other}/") for other in folders)}
    assert let_in == folders | {".cargo", "Cargo.toml", "Cargo.lock"}
    assert "**/target" in lines
