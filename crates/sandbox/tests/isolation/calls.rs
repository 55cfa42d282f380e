//! Privileges, and system calls that would reach past the namespaces.

use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::support::{Folder, User, each, errors, expect, launcher, probe, run, text};

pub fn trials() -> Vec<Trial> {
    [
        each(
            "the command has no privilege and cannot gain one",
            privileges,
        ),
        each("calls around the filters are refused", calls),
        each("calls by other numbers are refused", numbers),
        each("other namespaces cannot be entered", namespaces),
        each("no user namespaces can be made", no_user_namespaces),
        each("files that run as their owner cannot be made", set_id_files),
        each("init cannot be traced, read or ended", init),
        each("what the caller left open is closed", descriptors),
        each("a standard stream that is a way out is refused", streams),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn privileges(user: User) {
    let script = r#"
for line in open('/proc/self/status'):
    if line.startswith(('Cap', 'NoNewPrivs', 'Seccomp:')): print(*line.split())
tell('setuid', lambda: os.setuid(0 if os.getuid() else 1))
tell('chroot', lambda: os.chroot('/tmp'))
tell('mount', lambda: mount(b'none', b'/tmp', b'tmpfs', 0))
tell('umount', lambda: umount(b'/proc'))
tell('hostname', lambda: socket.sethostname('x'))
tell('groups', lambda: os.setgroups([]))
"#;
    let none = "0000000000000000";
    let sets =
        ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("{set}: {none}"));
    let mut expected: Vec<_> = sets.iter().map(String::as_str).collect();
    expected.extend([
        "NoNewPrivs: 1",
        "Seccomp: 2",
        "setuid EPERM",
        "chroot EPERM",
        "mount EPERM",
        "umount EPERM",
    ]);
    expected.extend(["hostname EPERM", "groups EPERM"]);
    // Nobody's number 0 does not exist at all.
    let found = probe(user, &[], script).replace("setuid EINVAL", "setuid EPERM");
    expect(&found, &expected);
}

fn calls(user: User) {
    let script = r#"
import fcntl
x86 = os.uname().machine == 'x86_64'
for name, number in [('io_uring_setup', 425), ('io_uring_enter', 426), ('io_uring_register', 427),
                     ('add_key', 248 if x86 else 217), ('request_key', 249 if x86 else 218), ('keyctl', 250 if x86 else 219),
                     ('open_by_handle_at', 304 if x86 else 265)]:
    tell(name, lambda: call(number, 0, 0, 0, 0, 0))
for request in 0x5412, 0x541C, 0x5423, 0x540C:
    tell('ioctl', lambda: fcntl.ioctl(0, request, b'x'))
    tell('ioctl, high half set', lambda: call(16 if x86 else 29, 0, request | 1 << 32, 0))
"#;
    let mut expected = vec![];
    expected.extend([
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "add_key",
        "request_key",
        "keyctl",
    ]);
    let mut expected: Vec<_> = expected
        .into_iter()
        .map(|name| format!("{name} ENOSYS"))
        .collect();
    expected.push("open_by_handle_at EPERM".to_owned());
    for _ in 0..4 {
        expected.extend(["ioctl EPERM", "ioctl, high half set EPERM"].map(str::to_owned));
    }
    expect(
        &probe(user, &[], script),
        &expected.iter().map(String::as_str).collect::<Vec<_>>(),
    );
}

/// The numbers of the 32-bit system calls, and of x32.
fn numbers(user: User) {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let folder = Folder::new();
    let source = folder.file(
        "numbers.c",
        r#"
#include <unistd.h>
#include <sys/syscall.h>
#include <errno.h>
#include <string.h>
int main(int count, char **words) {
    long result;
    if (!strcmp(words[1], "x32")) { errno = 0; result = syscall(0x40000000 + 41, 1, 1, 0); return result == -1 && errno == ENOSYS ? 7 : 8; }
    if (!strcmp(words[1], "int80")) { __asm__ volatile("int $0x80" : "=a"(result) : "a"(359), "b"(1), "c"(1), "d"(0) : "memory"); return 8; }
    return 9;
}"#,
        0o644,
    );
    let program = folder.path().join("numbers");
    let made = Command::new("cc")
        .arg("-o")
        .arg(&program)
        .arg(&source)
        .status()
        .unwrap();
    assert!(made.success());
    let program = program.to_str().unwrap();
    assert_eq!(run(user, &[], &[program, "x32"]).status.code(), Some(7));
    // By the filter (SIGSYS), or by a kernel without 32-bit calls (SIGSEGV).
    let status = run(user, &[], &[program, "int80"]).status.code();
    assert!(
        status == Some(128 + 31) || status == Some(128 + 11),
        "{status:?}"
    );
}

fn namespaces(user: User) {
    let script = r#"
def enter(path): os.setns(os.open(path, os.O_RDONLY), 0) if hasattr(os, 'setns') else checked(libc.setns(os.open(path, os.O_RDONLY), 0))
for kind in 'net', 'mnt', 'pid', 'ipc', 'uts', 'cgroup', 'user':
    tell(kind, lambda: enter('/proc/self/ns/' + kind))
tell('of init', lambda: enter('/proc/1/ns/net'))
unshare(0x10000000)
for kind in 'net', 'mnt', 'ipc', 'uts':
    tell('nested ' + kind, lambda: enter('/proc/self/ns/' + kind))
import fcntl
tell('by a socket', lambda: fcntl.ioctl(socket.socket(), 0x894C))
"#;
    let found = probe(user, &["--user-namespaces"], script);
    let lines: Vec<_> = found.lines().collect();
    assert_eq!(lines.len(), 13, "{found}");
    // The user namespace one is in cannot be entered again: EINVAL.
    assert!(
        lines.iter().all(|line| [" EPERM", " EACCES", " EINVAL"]
            .iter()
            .any(|end| line.ends_with(end))),
        "{found}"
    );
}

/// Every way to make a user namespace; what is left is what needs one first.
fn no_user_namespaces(user: User) {
    let script = r#"
tell('unshare', lambda: unshare(0x10000000))
tell('with others', lambda: unshare(0x10000000 | 0x00020000 | 0x02000000 | 0x40000000))
tell('clone', lambda: call(56 if os.uname().machine == 'x86_64' else 220, 0x10000000 | 17, 0, 0, 0, 0))
arguments = (ctypes.c_uint64 * 11)(0x10000000, 0, 0, 0, 17)
tell('clone3', lambda: call(435, ctypes.addressof(arguments), 88))
tell('mounts', lambda: unshare(0x00020000))
tell('control groups', lambda: mount(b'c', b'/tmp', b'cgroup2', 0))
tell('allow them', lambda: open('/proc/sys/user/max_user_namespaces', 'w').write('9'))
"#;
    let found = probe(user, &[], script);
    let allow = found.lines().last().unwrap().to_owned();
    assert!(
        allow.ends_with(" EACCES") || allow.ends_with(" EROFS") || allow.ends_with(" EPERM"),
        "{found}"
    );
    let expected = [
        "unshare ENOSPC",
        "with others ENOSPC",
        "clone ENOSPC",
        "clone3 ENOSPC",
        "mounts EPERM",
        "control groups EPERM",
        &allow,
    ];
    expect(&found, &expected);
}

/// What would run as its owner, whoever starts it.
fn set_id_files(user: User) {
    let root = user == User::Root;
    let script = r#"
import tempfile
folder = tempfile.mkdtemp()
file = folder + '/x'
held = os.open(file, os.O_CREAT | os.O_RDWR, 0o755)
tell('chmod', lambda: os.chmod(file, 0o4755))
tell('fchmod', lambda: os.fchmod(held, 0o4755))
tell('fchmodat2', lambda: call(452, -100, ctypes.cast(ctypes.c_char_p(file.encode()), ctypes.c_void_p).value, 0o4755, 0))
tell('create', lambda: os.open(folder + '/y', os.O_CREAT | os.O_WRONLY, 0o4755) and None)
tell('no name', lambda: os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o4755) and None)
tell('node', lambda: os.mknod(folder + '/z', 0o4755 | stat.S_IFREG))
tell('openat2', lambda: call(437, -100, ctypes.cast(ctypes.c_char_p(file.encode()), ctypes.c_void_p).value, 0, 24))
tell('open without a mode', lambda: os.open(file, os.O_RDONLY, 0o4755) and None)
tell('usual', lambda: os.chmod(file, 0o755))
os.chmod(folder, 0o755)
tell('of the group', lambda: os.chmod(file, 0o2755))
print(oct(os.stat(file).st_mode & 0o4000))
os.unlink(file)
"#;
    let of_the_group = if root {
        "of the group EPERM"
    } else {
        "of the group ok"
    };
    let expected = [
        "chmod EPERM",
        "fchmod EPERM",
        "fchmodat2 EPERM",
        "create EPERM",
        "no name EPERM",
        "node EPERM",
        "openat2 ENOSYS",
        "open without a mode ok",
        "usual ok",
        of_the_group,
        "0o0",
    ];
    expect(&probe(user, &[], script), &expected);
}

fn init(user: User) {
    let script = r#"
import signal, time
for name in 'environ', 'mem', 'maps', 'fd/3', 'root/etc/passwd', 'cwd', 'exe', 'ns/net':
    tell(name, lambda: os.readlink('/proc/1/' + name) if name in ('cwd', 'exe', 'ns/net') else open('/proc/1/' + name, 'rb').read(1))
tell('attach', lambda: checked(libc.ptrace(16, 1, 0, 0)))
pidfd = os.pidfd_open(1)
tell('take a descriptor', lambda: call(438, pidfd, 3, 0))
unshare(0x10000000)
tell('nested', lambda: call(438, pidfd, 3, 0))
for number in signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1: os.kill(1, number)
time.sleep(0.05)
"#;
    let found = probe(user, &["--user-namespaces"], script);
    assert_eq!(found.lines().count(), 11, "{found}");
    assert!(
        found
            .lines()
            .all(|line| line.ends_with(" EACCES") || line.ends_with(" EPERM")),
        "{found}"
    );
}

fn descriptors(user: User) {
    let mut command = launcher(user, &[], &["ls", "/proc/self/fd"]);
    let words = command
        .get_args()
        .map(|word| word.to_str().unwrap().to_owned())
        .collect::<Vec<_>>()
        .join(" ");
    let line = format!(
        "exec 7</etc/passwd 9>/dev/null 8</ ; exec {} {words}",
        crate::support::program().display()
    );
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &line])
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .current_dir("/tmp");
    user.become_in(&mut shell);
    let output = shell.output().unwrap();
    // The fourth is `ls`'s own.
    assert_eq!(text(&output), "0\n1\n2\n3\n", "{}", errors(&output));
    assert!(command.status().unwrap().success());
}

fn streams(user: User) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (unix, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let bad: [std::os::fd::OwnedFd; 4] = [
        stream.into(),
        datagrams.into(),
        unix.into(),
        std::fs::File::open("/").unwrap().into(),
    ];
    for descriptor in bad {
        let what = format!("{descriptor:?}");
        let output = launcher(user, &[], &["true"])
            .stdin(Stdio::from(descriptor))
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(125),
            "{what}: {}",
            errors(&output)
        );
        assert!(
            errors(&output).starts_with("stream_not_allowed: standard input is a "),
            "{}",
            errors(&output)
        );
    }
    let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let output = launcher(user, &[], &["true"])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(unix)))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "a pair, as from sshd or node: {}",
        errors(&output)
    );
}
