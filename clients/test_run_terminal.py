"""`outgate run` as a part of the shell's life: terminals, jobs, signals, exit statuses, pipes, other runs."""

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sandbox import AS_NOBODY, plain
from services import BIG
from terminal import Terminal
from upstream import KEYS

SHELL = ["bash", "--norc", "--noprofile", "-i"]


def marked(mark: str) -> list[int]:
    """The processes of this machine, those in sandboxes among them, with this word in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            pass  # It has just ended.
    return found


def wait_until(what, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def terminal(launcher, outside):
    opened = []

    def opens(*command: str) -> Terminal:
        environment = launcher.environment | {"PS1": "ready> ", "HISTFILE": os.devnull}
        opened.append(Terminal(list(command), environment, launcher.home))
        return opened[-1]

    yield opens
    for it in opened:
        it.close()


@pytest.fixture
def inner(launcher, terminal):
    """An interactive shell inside."""
    it = terminal(*launcher.line(*SHELL, flags=("--quiet",)))
    it.see("ready> ")
    return it


@pytest.fixture
def outer(terminal):
    """An interactive shell outside, from which a run is started as a job."""
    it = terminal(*SHELL)
    it.see("ready> ")
    return it


def test_a_shell_has_its_terminal_and_jobs(inner):
    inner.type("tty; test -t 0 && test -t 1 && stty size; echo over\n")
    assert "/dev/" in inner.see(r"^(.*)\n40 200\nover")[1]
    for complaint in ("no job control", "cannot set terminal"):
        assert complaint not in inner.screen
    inner.type("sleep 300 &\n")
    inner.see(r"\[1\] \d+")
    inner.type("fg\n")
    inner.see("^sleep 300")
    # The shell gives its terminal away only after it has said so.
    time.sleep(0.3)
    inner.type("\x1a")
    inner.see(r"\[1\]\+\s+Stopped\s+sleep 300")
    inner.type("bg; jobs\n")
    inner.see(r"\[1\]\+\s+Running\s+sleep 300")
    inner.type("kill %1; wait; echo gone\n")
    inner.see("^gone")


def test_control_c_ends_what_runs_in_the_shell_and_not_the_shell(inner):
    inner.type("sleep 300; echo not-reached\n")
    time.sleep(0.3)
    inner.type("\x03")
    inner.see("ready> ")
    inner.type("echo alive $?\n")
    inner.see("^alive 130")
    assert "\nnot-reached" not in inner.screen
    inner.type("exit 3\n")
    assert inner.ended() == 3


def test_the_window_size_follows(inner):
    inner.type("trap 'echo size $(stty size)' WINCH; echo armed\n")
    inner.see("^armed")
    # While bash prepares its prompt it sets the size that it has just read.
    inner.see("ready> ")
    time.sleep(0.3)
    inner.resize(33)
    inner.type("\n")
    inner.see("size 33 200")


def test_the_whole_job_stops_and_goes_on(launcher, outer):
    words = launcher.line("sh", "-c", "echo begun; read line; echo got $line", flags=("--quiet",))
    outer.type(shlex.join(words) + "\n")
    outer.see("^begun")
    outer.type("\x1a")
    outer.see(r"\[1\]\+\s+Stopped")
    outer.type("echo the outer shell; fg\n")
    outer.see("^the outer shell")
    time.sleep(0.3)
    outer.type("a line\n")
    outer.see("^got a line")
    outer.type("echo status $?\n")
    outer.see("^status 0")


def test_control_c_from_an_outer_shell_ends_the_job_with_130(launcher, outer):
    outer.type(shlex.join(launcher.line("sleep", "31536003", flags=("--quiet",))) + "\n")
    assert wait_until(lambda: len(marked("31536003")) >= 2)
    time.sleep(0.3)
    outer.type("\x03")
    outer.see("ready> ")
    outer.type("echo after $?\n")
    outer.see("^after 130")
    assert not marked("31536003")


def test_a_background_run_that_reads_the_terminal_stops_as_any_job_does(launcher, outer):
    outer.type(shlex.join(launcher.line("cat", flags=("--quiet",))) + " &\n")
    outer.see(r"\[1\] \d+")
    time.sleep(0.5)
    outer.type("\n")
    outer.see(r"\[1\]\+\s+Stopped")
    outer.type("fg\n")
    time.sleep(0.3)
    outer.type("typed\n")
    outer.see("^typed\n+typed")
    outer.type("\x04")
    outer.see("ready> ")


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "exit 255"], 255),
        (["/etc/passwd"], 126),
        (["./a-folder"], 126),
        (["no-such-program"], 127),
        (["./no-such-program"], 127),
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["sh", "-c", "kill -KILL $$"], 128 + signal.SIGKILL),
        (["sh", "-c", "kill -SEGV $$"], 128 + signal.SIGSEGV),
    ],
)
def test_the_exit_status_is_the_commands(launcher, outside, command, status):
    (launcher.home / "a-folder").mkdir()
    ran = launcher.run(*command, check=False)
    assert ran.code == status, ran.err
    if status in (126, 127):
        assert command[0] in ran.err


@pytest.mark.parametrize("flags", [("--nonsense",), ("--credential", "openai=sk-secret"), ("--allow", "*.com")])
def test_outgates_own_failure_is_125_or_2(launcher, outside, flags):
    ran = launcher.run("echo", "ran", flags=flags, check=False)
    assert ran.code in (2, 125) and "ran" not in ran.out.split(), ran
    assert "sk-secret" not in ran.err


def test_background_children_end_with_the_command(launcher, outside):
    ran = launcher.run("sh", "-c", "setsid sleep 31536001 >/dev/null 2>&1 & (sleep 31536001 &) ; echo over")
    assert ran.out == "over\n"
    assert wait_until(lambda: not marked("31536001"))


def started(launcher, *command: str, **more) -> subprocess.Popen:
    pipe = subprocess.PIPE
    line = launcher.line(*command, flags=("--quiet",))
    place = {"cwd": launcher.home, "env": launcher.environment}
    return subprocess.Popen(line, **place, stdin=pipe, stdout=pipe, text=True, **more)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_the_launcher_reaches_the_command(launcher, outside, number):
    script = f"trap 'echo caught; exit 9' {number.value}; echo begun; while :; do sleep 0.05; done"
    with started(launcher, "sh", "-c", script, start_new_session=True) as run:
        assert run.stdout.readline() == "begun\n"
        run.send_signal(number)
        assert run.stdout.readline() == "caught\n"
        assert run.wait(10) == 9


def test_what_kills_the_launcher_ends_everything(launcher, outside):
    with started(launcher, "sh", "-c", "echo begun; setsid sleep 31536002 & sleep 31536002") as run:
        assert run.stdout.readline() == "begun\n"
        assert wait_until(lambda: len(marked("31536002")) >= 2)
        run.kill()
        run.wait(10)
    assert wait_until(lambda: not marked("31536002")), "the command outlived its gateway"


def test_pipes_are_clean_and_closed_in_time(launcher, outside):
    run = subprocess.run(
        launcher.line("sh", "-c", "cat; echo done >&2"),
        cwd=launcher.home,
        env=launcher.environment,
        input=BIG[:5_000_000],
        capture_output=True,
        timeout=60,
    )
    assert run.stdout == BIG[:5_000_000] and b"done\n" in run.stderr and run.returncode == 0


def test_standard_output_is_the_commands_alone(launcher, outside):
    ran = launcher.run("sh", "-c", "echo mine; curl -sS https://closed.example.net/ || :")
    assert ran.out == "mine\n" and "outgate:" in plain(ran.err)
    quiet = launcher.run("echo", "mine", flags=("--quiet",))
    assert (quiet.out, quiet.err) == ("mine\n", "")


def test_a_closed_reader_ends_the_command(launcher, outside):
    with started(launcher, "yes") as run:
        run.stdout.readline()
        run.stdout.close()
        assert run.wait(10) == 128 + signal.SIGPIPE


def test_node_starts_it_with_its_socket_pairs(launcher, outside):
    run = launcher.line("sh", "-c", "cat; echo err >&2; exit 4", flags=("--quiet",))
    line, place = [*launcher.node_program("child"), *run], {"cwd": launcher.home, "env": launcher.environment}
    done = subprocess.run(line, **place, capture_output=True, timeout=60, check=True)
    ended = json.loads(done.stdout)
    assert ended == {"code": 4, "signal": None, "out": "through a pair of sockets\n", "err": "err\n"}


def test_two_runs_beside_one_another_do_not_know_each_other(launcher, outside):
    get = 'curl -sS --fail -o /dev/null -H "Authorization: Bearer $ECHO_API_KEY" https://echo.example.com/'
    with started(launcher, "sh", "-c", f"{get}; echo begun; read line; {get}; echo over") as first:
        assert first.stdout.readline() == "begun\n"
        second = launcher.run("sh", "-c", f"{get}; ls /proc | grep -c '^[0-9]'")
        assert int(second.out) <= 5, "only its own processes are there"
        first.stdin.write("go on\n")
        first.stdin.flush()
        assert first.stdout.readline() == "over\n"
        assert first.wait(10) == 0
    keys = [seen.header("authorization") for seen in outside.heads("echo.example.com")]
    assert keys == [[f"Bearer {KEYS['echo']}"]] * 3
    assert len(launcher.trails()) == 2


@pytest.mark.parametrize("wrapper", [[], AS_NOBODY], ids=["root", "user"])
def test_a_run_in_a_run_says_why_not(launcher, outside, wrapper):
    launcher.wrapper = wrapper
    inner = [str(launcher.binary), "--state-dir", "inner-state", "run", "--", "echo", "inside"]
    ran = launcher.run(*inner, check=False)
    assert ran.code == 125 and "session tokens in place of keys" in ran.err, ran.err
    # Without the outer session's variables the namespaces decide.
    ran = launcher.run("env", "-i", *inner, check=False)
    print(ran.err)
    assert (ran.code, ran.out) == (0, "inside\n") or (ran.code == 125 and "does not allow" in ran.err), ran.err


def test_without_a_terminal_a_command_that_stops_does_not_stop_the_run(launcher, outside):
    """Nobody would continue it."""
    script = "(sleep 0.3; kill -STOP $$; sleep 0.4; kill -CONT $$) & sleep 1; wait; echo done"
    line = launcher.line("sh", "-c", script, flags=("--quiet",))
    run = subprocess.run(
        line, env=launcher.environment, cwd=launcher.home, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=15, start_new_session=True,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (0, "done\n"), run


def test_relative_paths_mean_the_working_directory(launcher, outside):
    """Hidden is hidden, and the policy of the next run is not this run's to write."""
    folder = launcher.folder / "project"
    folder.mkdir()
    (folder / "secret.txt").write_text("the secret")
    policy = "version: 1\n"
    (folder / "policy.yaml").write_text(policy)
    script = "cat secret.txt; echo x >> policy.yaml || mv policy.yaml other || { cd ..; mv project elsewhere; }; true"
    line = [launcher.line("true")[0], "run", "--hide", "secret.txt", "--config", "policy.yaml", "--", "sh", "-c", script]
    run = subprocess.run(line, env=launcher.environment, cwd=folder, capture_output=True, text=True, timeout=15)
    assert "the secret" not in run.stdout, run
    assert (folder / "policy.yaml").read_text() == policy, run
    line[3] = "secret.tx"
    run = subprocess.run(line, env=launcher.environment, cwd=folder, capture_output=True, text=True, timeout=15)
    assert run.returncode == 125 and "secret.tx" in run.stderr, run


def test_an_interrupt_ends_the_shells_loop_and_not_one_command_of_it(launcher, terminal):
    outer = terminal(*SHELL)
    outer.see("ready> ")
    run = " ".join(shlex.quote(word) for word in launcher.line("sleep", "30", flags=("--quiet",)))
    outer.type(f"for turn in 1 2 3; do echo turn $turn; {run}; done; echo status $?\n")
    outer.see("turn 1")
    assert wait_until(lambda: marked("sleep"))
    time.sleep(0.3)
    outer.type("\x03")
    outer.see("ready> ")
    outer.type("echo after\n")
    outer.see("after")
    assert "turn 2" not in outer.screen
