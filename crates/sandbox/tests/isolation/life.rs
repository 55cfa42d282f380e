//! How a command's life begins and ends, and who goes with it.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Folder, User, each, errors, expect, finish, launcher, probe, run, text};

pub fn trials() -> Vec<Trial> {
    [
        each("the command's exit status is passed on", exit_status),
        each("a signal that ends the command is passed on", signals),
        each("stopping and continuing are reported", stopping),
        each("a signal from the launcher reaches the command", order),
        each(
            "a command that cannot run is told apart from one that does not exist",
            start,
        ),
        each("arguments and environment arrive as they are", arguments),
        each(
            "without a terminal the command has a process group of its own",
            own_group,
        ),
        each("orphans are reaped", orphans),
        each("background processes end with the command", background),
        each(
            "everything ends when the launcher is killed",
            launcher_killed,
        ),
        each("everything ends when the helper is killed", helper_killed),
        each("everything ends when the launcher says so", told_to_end),
        each("a sandbox that is never started leaves nothing", unused),
        each("standard streams are the caller's", streams),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn exit_status(user: User) {
    for code in [0, 3, 255] {
        let output = run(user, &[], &["sh", "-c", &format!("exit {code}")]);
        assert_eq!(output.status.code(), Some(code), "{}", errors(&output));
    }
}

fn signals(user: User) {
    for signal in ["1", "9", "11", "15", "34", "64"] {
        let output = run(
            user,
            &[],
            &[
                "python3",
                "-c",
                &format!("import os; os.kill(os.getpid(), {signal})"),
            ],
        );
        assert_eq!(
            output.status.code(),
            Some(128 + signal.parse::<i32>().unwrap()),
            "{}",
            errors(&output)
        );
    }
}

fn stopping(user: User) {
    let line = "(sleep 0.1; kill -CONT $$) & kill -STOP $$; sleep 0.1; exit 5";
    let output = run(user, &["--events"], &["sh", "-c", line]);
    let none = "Refused(Refusals { tcp_refused: 0, udp_unreachable: 0 })";
    expect(
        &errors(&output),
        &[
            "Started",
            "Stopped { signal: 19 }",
            "Continued",
            none,
            "Exited { code: 5 }",
        ],
    );
}

fn order(user: User) {
    let output = run(user, &["--signal", "15"], &["sleep", "100"]);
    assert_eq!(output.status.code(), Some(143), "{}", errors(&output));
    let output = run(
        user,
        &["--signal", "10"],
        &["sh", "-c", "sleep 100; exit 4"],
    );
    assert_eq!(output.status.code(), Some(138), "{}", errors(&output));
}

fn start(user: User) {
    let folder = Folder::new();
    let file = |name: &str, content: &str, mode: u32| {
        folder.file(name, content, mode).display().to_string()
    };
    for (program, code, word) in [
        ("no-such-command".to_owned(), 127, "command_not_found"),
        ("/no/such/command".to_owned(), 127, "command_not_found"),
        (file("plain", "", 0o644), 126, "command_not_executable"),
        (
            folder.path().display().to_string(),
            126,
            "command_not_executable",
        ),
        (
            file("broken", "#!/no/such/interpreter\n", 0o755),
            126,
            "its interpreter does not exist",
        ),
    ] {
        let output = run(user, &[], &[&program]);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{program}: {}",
            errors(&output)
        );
        assert!(
            errors(&output).contains(word),
            "{program}: {}",
            errors(&output)
        );
    }
    let script = file("script", "echo shell $1\n", 0o755);
    assert_eq!(
        text(&run(user, &[], &[&script, "x"])),
        "shell x\n",
        "a script without #!"
    );
}

fn arguments(user: User) {
    let script =
        "import sys, os; print(sys.argv[1:], repr(os.environ['ODD']), os.environb[b'BYTES'])";
    let mut command = launcher(user, &[], &["python3", "-c", script, "", "a b", "$x", "-"]);
    let bytes = std::os::unix::ffi::OsStringExt::from_vec(vec![0xff, b'=', 0xfe]);
    let bytes: std::ffi::OsString = bytes;
    let output = finish(command.env("ODD", "a=b\nc").env("BYTES", bytes));
    expect(
        &text(&output),
        &[r"['', 'a b', '$x', '-'] 'a=b\nc' b'\xff=\xfe'"],
    );
    // Larger than a socket's buffer.
    let large = "x".repeat(100_000);
    let mut command = launcher(user, &[], &["sh", "-c", "echo ${#A} ${#B} ${#C} ${#D}"]);
    let output = finish(command.envs(["A", "B", "C", "D"].map(|name| (name, &large))));
    expect(&text(&output), &["100000 100000 100000 100000"]);
}

fn own_group(user: User) {
    let script = "
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.kill(0, signal.SIGTERM)
print(os.getpgrp() == os.getpid())
";
    // A test run may have a terminal: a session of its own has none.
    let mut command = Command::new("setsid");
    let words = launcher(user, &[], &["python3", "-c", script]);
    command
        .arg("-w")
        .arg(words.get_program())
        .args(words.get_args())
        .current_dir("/tmp")
        .stdin(Stdio::null());
    user.become_in(&mut command);
    let output = finish(&mut command);
    assert_eq!(
        (text(&output).as_str(), output.status.code()),
        ("True\n", Some(0)),
        "{}",
        errors(&output)
    );
}

fn orphans(user: User) {
    let script = r#"
import time
for _ in range(20):
    if os.fork() == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.wait()
for _ in range(100):
    left = [name for name in os.listdir('/proc') if name.isdigit()]
    if len(left) == 2: break
    time.sleep(0.02)
print(left)
"#;
    expect(&probe(user, &[], script), &["['1', '2']"]);
}

fn background(user: User) {
    // `run` waits for everybody who holds the output.
    let line =
        "setsid sleep 1000 & (trap '' TERM HUP INT; sleep 1000) & nohup sleep 1000 & echo here";
    let output = run(user, &[], &["sh", "-c", line]);
    assert_eq!(
        (text(&output).as_str(), output.status.code()),
        ("here\n", Some(0)),
        "{}",
        errors(&output)
    );
}

/// A running sandbox, seen by the output that everybody in it holds.
fn running(user: User, options: &[&str]) -> Child {
    let mut command = launcher(
        user,
        options,
        &["sh", "-c", "setsid sleep 1000 & echo here; exec sleep 1000"],
    );
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut here = [0; 5];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut here)
        .unwrap();
    child
}

fn all_gone(child: &mut Child) {
    let begin = Instant::now();
    let mut rest = String::new();
    // The end of the stream comes when the last holder has died.
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut rest)
        .unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "somebody lived on: {rest}"
    );
}

fn launcher_killed(user: User) {
    let mut child = running(user, &[]);
    child.kill().unwrap();
    all_gone(&mut child);
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

fn helper_killed(user: User) {
    let mut child = running(user, &[]);
    let children = std::fs::read_dir(format!("/proc/{}/task", child.id()))
        .unwrap()
        .flat_map(|task| {
            let children = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap();
            children
                .split_whitespace()
                .map(|number| number.parse::<i32>().unwrap())
                .collect::<Vec<_>>()
        });
    let children: Vec<_> = children.collect();
    assert_eq!(children.len(), 1, "the launcher has one child");
    kill(Pid::from_raw(children[0]), Signal::SIGKILL).unwrap();
    all_gone(&mut child);
    assert_eq!(child.wait().unwrap().code(), Some(125));
}

fn told_to_end(user: User) {
    let output = run(
        user,
        &["--kill"],
        &["sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000"],
    );
    assert_eq!(output.status.code(), Some(137), "{}", errors(&output));
}

fn unused(user: User) {
    let begin = Instant::now();
    let output = run(user, &["--drop"], &["sh", "-c", "echo started"]);
    assert_eq!(
        (text(&output).as_str(), output.status.code()),
        ("", Some(0)),
        "{}",
        errors(&output)
    );
    assert!(begin.elapsed() < Duration::from_secs(2));
}

fn streams(user: User) {
    let folder = Folder::new();
    let input = folder.file("input", "from a file\n", 0o644);
    let mut command = launcher(user, &[], &["sh", "-c", "cat; echo problem >&2"]);
    let output = finish(command.stdin(std::fs::File::open(input).unwrap()));
    assert_eq!(
        (text(&output).as_str(), errors(&output).as_str()),
        ("from a file\n", "problem\n")
    );
}
