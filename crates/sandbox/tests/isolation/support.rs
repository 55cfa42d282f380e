//! Starting the launcher as a user, and reading what a probe found.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

/// Who starts the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    Root,
    Nobody,
    /// Of a test run that is not root's, which can be no other.
    Own,
}

impl User {
    pub fn all() -> &'static [Self] {
        if nix::unistd::Uid::effective().is_root() {
            &[Self::Root, Self::Nobody]
        } else {
            &[Self::Own]
        }
    }

    pub fn become_in(self, command: &mut Command) {
        if self == Self::Nobody {
            command.uid(65534).gid(65534);
        }
    }
}

/// A test for each user, named by a sentence.
pub fn each(name: &str, test: fn(User)) -> Vec<Trial> {
    let trial = |user: &User| {
        let user = *user;
        Trial::test(
            format!("{name} ({user:?})"),
            move || -> Result<(), Failed> {
                test(user);
                Ok(())
            },
        )
    };
    User::all().iter().map(trial).collect()
}

/// A folder that every user can enter and write.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("isolation-")
            .tempdir_in("/tmp")
            .unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A file that every user can write, or execute if it is a program.
    pub fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::set_permissions(
            path.parent().unwrap(),
            std::fs::Permissions::from_mode(0o777),
        )
        .unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

static PROGRAM: OnceLock<(Folder, PathBuf)> = OnceLock::new();

/// This program where every user can execute it. See [`clean`].
pub fn program() -> &'static Path {
    let (_, path) = PROGRAM.get_or_init(|| {
        let folder = Folder::new();
        let (own, path) = (
            std::env::current_exe().unwrap(),
            folder.path().join("isolation"),
        );
        std::fs::hard_link(&own, &path)
            .or_else(|_| std::fs::copy(&own, &path).map(drop))
            .unwrap();
        (folder, path)
    });
    path
}

/// Statics are not dropped.
pub fn clean() {
    if let Some((folder, _)) = PROGRAM.get() {
        std::fs::remove_dir_all(folder.path()).unwrap();
    }
}

/// A launcher, not yet started, with a secret in its environment.
pub fn launcher(user: User, options: &[&str], command: &[&str]) -> Command {
    let mut launcher = Command::new(program());
    launcher
        .arg("launch")
        .args(options)
        .arg("--")
        .args(command)
        .env_clear()
        .current_dir("/tmp");
    launcher
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("SECRET", "the-real-key");
    launcher.stdin(Stdio::null());
    user.become_in(&mut launcher);
    launcher
}

/// Runs to the end: of the command, and of everything that holds its output.
pub fn run(user: User, options: &[&str], command: &[&str]) -> Output {
    finish(&mut launcher(user, options, command))
}

/// A sandbox that hangs is ended, and the test with it.
pub fn finish(command: &mut Command) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let process = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (done, watched) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if watched.recv_timeout(Duration::from_secs(8)) == Err(RecvTimeoutError::Timeout) {
            nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
            panic!("it did not end");
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    watchdog.join().unwrap();
    output
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const PRELUDE: &str = r#"
import ctypes, errno, os, socket, stat, sys
libc = ctypes.CDLL(None, use_errno=True)
def checked(result):
    if result == -1: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def call(number, *arguments): return checked(libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments]))
def mount(source, target, kind, flags, data=None): return checked(libc.mount(source, target, kind, ctypes.c_ulong(flags), data))
def umount(target): return checked(libc.umount2(target, 2))
def unshare(flags): return checked(libc.unshare(flags))
def tell(name, attempt):
    try: result = attempt(); print(name, result or 'ok')
    except OSError as error: print(name, errno.errorcode.get(error.errno, error))
"#;

/// Runs a Python probe inside and gives what it printed; the probe must not fail.
pub fn probe(user: User, options: &[&str], script: &str) -> String {
    let output = run(
        user,
        options,
        &["python3", "-c", &format!("{PRELUDE}{script}")],
    );
    assert!(
        output.status.success(),
        "{:?}\n{}\n{}",
        output.status,
        text(&output),
        errors(&output)
    );
    text(&output)
}

/// Compares line by line, so that a failure names the line.
pub fn expect(found: &str, expected: &[&str]) {
    let found: Vec<_> = found.lines().collect();
    for (index, line) in expected.iter().enumerate() {
        assert_eq!(found.get(index), Some(line), "line {index} of {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

/// A probe on the host, outside any sandbox.
pub fn on_host(user: User, script: &str, words: &[&OsStr]) -> Output {
    let mut python = Command::new("/usr/bin/python3");
    python
        .arg("-")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir("/tmp");
    user.become_in(&mut python);
    let mut child = python.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}
