//! What the command sees of the file system, and what it cannot change.

use std::process::Command;

use libtest_mimic::Trial;

use crate::support::{
    Folder, User, each, errors, expect, finish, launcher, probe, program, run, text,
};

pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<_> = [
        each(
            "only the sandbox's processes are to be seen, and no secret in them",
            processes,
        ),
        each("hidden files and folders are empty", hidden),
        each("files that are shown or read-only stay so", shown),
        each(
            "folders above what is hidden stay in their places",
            in_place,
        ),
        each(
            "the host's null device is not among the streams",
            null_stream,
        ),
        each("a relative path in a plan is refused", relative),
        each(
            "a namespace of its own does not uncover what is hidden",
            nested,
        ),
        each(
            "moving the tree away does not uncover what is hidden",
            moved,
        ),
        each(
            "the machine's settings and devices are out of reach",
            machine,
        ),
        each("the trust files can be read and not changed", trust),
        each("the devices that programs need work", devices),
        each(
            "the working directory is the one asked for",
            working_directory,
        ),
        each("shared memory and temporary files work", own_files),
    ]
    .into_iter()
    .flatten()
    .collect();
    if User::all().contains(&User::Root) {
        // Only root can arrange these on the host.
        trials.extend(each(
            "bind mounts of what is hidden are covered too",
            bind_mounts,
        ));
        trials.extend(each(
            "another mount of the host's processes is covered",
            other_proc,
        ));
        trials.push(Trial::test(
            "pipes of the host's services are covered",
            || {
                pipes();
                Ok(())
            },
        ));
        trials.push(Trial::test(
            "root's disks, settings and programs cannot be written",
            || {
                root_owns_nothing();
                Ok(())
            },
        ));
    }
    trials
}

fn processes(user: User) {
    let script = r#"
numbers = [int(name) for name in os.listdir('/proc') if name.isdigit()]
print(sorted(numbers) == [1, os.getpid()], os.getpid() < 10)
for parent, _, names in os.walk('/proc'):
    if parent.count('/') > 4: continue
    for name in names:
        if name in ('environ', 'cmdline'):
            try: text = open(parent + '/' + name, 'rb').read()
            except OSError: continue
            if b'the-real-' + b'key' in text: print('found in', parent)
print('the-real-' + 'key' in str(os.environ))
tell('launcher', lambda: os.kill(HOST, 0))
"#;
    let script = format!("HOST = {}\n{script}", std::process::id());
    // Numbers of the host mean nothing here.
    expect(
        &probe(user, &[], &script),
        &["True True", "False", "launcher ESRCH"],
    );
}

fn hidden(user: User) {
    let folder = Folder::new();
    let key = folder.file("state/keys/signing.key", "the-real-key", 0o666);
    let file = folder.file("credential", "the-real-key", 0o666);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path().join("state"), &link).unwrap();
    let script = format!(
        r#"
print(os.listdir({link:?}), repr(open({file:?}).read()))
tell('by its name', lambda: open({key:?}))
tell('write', lambda: open({file:?}, 'w'))
tell('create', lambda: open({link:?} + '/x', 'w'))
tell('remove', lambda: os.unlink({file:?}))
tell('rename over', lambda: os.rename({other:?}, {file:?}))
tell('rename the folder', lambda: os.rename(os.path.realpath({link:?}), {file:?} + '2'))
tell('hard link', lambda: os.link({file:?}, {file:?} + '3'))
"#,
        other = folder.file("other", "", 0o666)
    );
    let options = [
        "--hide",
        link.to_str().unwrap(),
        "--hide",
        file.to_str().unwrap(),
        "--hide",
        "/not/there",
    ];
    let expected = [
        "[] ''",
        "by its name ENOENT",
        "write EROFS",
        "create EROFS",
        "remove EBUSY",
        "rename over EBUSY",
        "rename the folder EBUSY",
        "hard link EXDEV",
    ];
    expect(&probe(user, &options, &script), &expected);
    assert_eq!(
        std::fs::read_to_string(key).unwrap(),
        "the-real-key",
        "the host's own is untouched"
    );
}

fn shown(user: User) {
    let folder = Folder::new();
    let policy = folder.file("policy", "the policy", 0o666);
    let roots = folder.file("roots", "the host's roots", 0o666);
    let other = folder.file("other", "other roots", 0o666);
    let script = format!(
        r#"
print(open({policy:?}).read(), open({roots:?}).read(), sep=', ')
tell('write', lambda: open({policy:?}, 'w'))
tell('rename over', lambda: os.rename({other:?}, {policy:?}))
tell('remove', lambda: os.unlink({policy:?}))
tell('write what is shown', lambda: open({roots:?}, 'a'))
"#
    );
    let options = [
        "--read-only",
        policy.to_str().unwrap(),
        "--show",
        roots.to_str().unwrap(),
        other.to_str().unwrap(),
        "--show",
        "/not/there",
        other.to_str().unwrap(),
    ];
    let expected = [
        "the policy, other roots",
        "write EROFS",
        "rename over EBUSY",
        "remove EBUSY",
        "write what is shown EROFS",
    ];
    expect(&probe(user, &options, &script), &expected);
}

/// What is covered must not be led away: the next gateway would find what the command puts in its place.
fn in_place(user: User) {
    let folder = Folder::new();
    folder.file("home/.local/state/keys", "the-real-key", 0o666);
    let policy = folder.file("home/project/policy", "the policy", 0o666);
    folder.file("home/other/file", "", 0o666);
    let home = folder.path().join("home");
    for open in [
        "home",
        "home/.local",
        "home/.local/state",
        "home/project",
        "home/other",
    ] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder.path().join(open), mode).unwrap();
    }
    let state = home.join(".local/state");
    let script = format!(
        r#"
os.chdir({home:?})
for name in '.local/state', '.local', 'project/policy', 'project', 'other':
    tell(name, lambda: os.rename(name, name + '.x'))
tell('home', lambda: os.rename({home:?}, {home:?} + '.x'))
tell('exchange', lambda: call(316 if os.uname().machine == 'x86_64' else 276, -100, ctypes.cast(ctypes.c_char_p(b'project'), ctypes.c_void_p).value, -100, ctypes.cast(ctypes.c_char_p(b'other.x'), ctypes.c_void_p).value, 2))
tell('work', lambda: open('project/new', 'w').close())
"#
    );
    let options = [
        "--write",
        folder.path().to_str().unwrap(),
        "--hide",
        state.to_str().unwrap(),
        "--read-only",
        policy.to_str().unwrap(),
    ];
    let expected = [
        ".local/state EBUSY",
        ".local EBUSY",
        "project/policy EBUSY",
        "project EBUSY",
        "other ok",
        "home EBUSY",
        "exchange EBUSY",
        "work ok",
    ];
    expect(&probe(user, &options, &script), &expected);
}

/// By the stream it would be the host's: the file that everybody on it uses.
fn null_stream(user: User) {
    let script =
        "tell('chmod', lambda: os.fchmod(0, 0o666)); tell('read', lambda: os.read(0, 1) and None)";
    // The harness gives `/dev/null` as standard input.
    let found = probe(user, &[], script);
    let chmod = if user == User::Root {
        "chmod EROFS"
    } else {
        "chmod EPERM"
    };
    let lines: Vec<_> = found.lines().collect();
    assert!(
        lines == [chmod, "read ok"] || lines == ["chmod EROFS", "read ok"],
        "{found}"
    );
}

/// A pipe that a service of the host reads is written to through a read-only mount as well.
fn pipes() {
    let pipe = std::path::PathBuf::from(format!("/run/isolation-{}", std::process::id()));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let script = format!(
        "print(stat.S_ISFIFO(os.stat({pipe:?}).st_mode)); tell('write', lambda: os.open({pipe:?}, os.O_WRONLY | os.O_NONBLOCK))"
    );
    let found = probe(User::Root, &[], &script);
    std::fs::remove_file(&pipe).unwrap();
    expect(&found, &["False", "write EROFS"]);
}

/// The helper is in another folder than the launcher.
fn relative(user: User) {
    for option in ["--hide", "--write", "--read-only"] {
        let output = run(user, &[option, "."], &["true"]);
        let told = errors(&output);
        assert!(
            told.starts_with("invalid_plan") && told.contains("absolute"),
            "{option}: {told}"
        );
    }
}

/// `CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC`: root in a namespace of its own.
const NESTED: &str = r#"
user, group = os.getuid(), os.getgid()
unshare(0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000)
for name, text in ('setgroups', 'deny'), ('uid_map', f'{user} {user} 1'), ('gid_map', f'{group} {group} 1'):
    # Root may not map itself without a privilege; it acts as nobody there, with all privileges of the namespace.
    try: os.write(os.open('/proc/self/' + name, os.O_WRONLY), text.encode())
    except PermissionError: pass
mount(b'', b'/', b'', 0x4000 | 0x40000)
"#;

fn nested(user: User) {
    let folder = Folder::new();
    let file = folder.file("state/key", "the-real-key", 0o666);
    let state = folder.path().join("state");
    let script = format!(
        r#"{NESTED}
state, parent = {state:?}.encode(), {parent:?}.encode()
for target in state, b'/proc', b'/dev', b'/sys', b'/etc/resolv.conf', os.environ['RUN_FOLDER'].encode():
    tell('uncover', lambda: umount(target))
    tell('uncover', lambda: checked(libc.umount2(target, 0)))
tell('remount', lambda: mount(b'', b'/sys', b'', 0x1000 | 0x20))
tell('remount trust', lambda: mount(b'', os.environ['RUN_FOLDER'].encode(), b'', 0x1000 | 0x20))
tell('bind the parent', lambda: mount(parent, b'/dev/shm', b'', 0x1000))
tell('tree', lambda: call(428, -100, ctypes.cast(ctypes.c_char_p(parent), ctypes.c_void_p).value, 1))
tell('move', lambda: mount(state, b'/dev/shm', b'', 0x2000))
print(os.listdir(state), os.path.exists({file:?}))
"#,
        parent = folder.path()
    );
    let options = ["--user-namespaces", "--hide", state.to_str().unwrap()];
    let found = probe(user, &options, &script);
    let lines: Vec<_> = found.lines().collect();
    assert_eq!(lines.last(), Some(&"[] False"), "{found}");
    for line in &lines[..lines.len() - 1] {
        assert!(
            [" EINVAL", " EPERM", " EBUSY"]
                .iter()
                .any(|end| line.ends_with(end)),
            "{found}"
        );
    }
    assert_eq!(lines.len(), 18, "{found}");
}

/// In a namespace of its own a process may take the whole tree off lazily, and still hold a folder of it.
fn moved(user: User) {
    let folder = Folder::new();
    let file = folder.file("home/credential", "the-real-key", 0o666);
    folder.file("home/state/key", "the-real-key", 0o666);
    let home = folder.path().join("home");
    let new = folder.path().join("new");
    std::fs::create_dir_all(new.join("old")).unwrap();
    let script = format!(
        r#"
outer = os.open({home:?}, os.O_RDONLY)
{NESTED}
inner = os.open({home:?}, os.O_RDONLY)
mount({new:?}.encode(), {new:?}.encode(), b'', 0x1000)
pivot = 155 if os.uname().machine == 'x86_64' else 41
tell('pivot', lambda: checked(libc.syscall(pivot, {new:?}.encode(), {new:?}.encode() + b'/old')))
os.chdir('/')
tell('drop', lambda: umount(b'/old'))
def look(folder):
    for name in os.listdir(folder):
        try:
            if stat.S_ISDIR(os.stat(name, dir_fd=folder).st_mode): look(os.open(name, os.O_RDONLY, dir_fd=folder))
            elif b'key' in os.read(os.open(name, os.O_RDONLY, dir_fd=folder), 100): print('SEEN', name)
        except OSError: pass
for folder in outer, inner:
    look(folder)
    for attempt in (lambda: os.rename('credential', 'plain', src_dir_fd=folder, dst_dir_fd=folder),
                    lambda: os.rename('state', 'open', src_dir_fd=folder, dst_dir_fd=folder),
                    lambda: os.link('credential', 'hard', src_dir_fd=folder, dst_dir_fd=folder)):
        try: attempt()
        except OSError: pass
    look(folder)
print('end')
"#
    );
    let state = home.join("state");
    let options = [
        "--user-namespaces",
        "--hide",
        file.to_str().unwrap(),
        "--hide",
        state.to_str().unwrap(),
    ];
    let found = probe(user, &options, &script);
    assert!(
        found.ends_with("end\n") && !found.contains("SEEN"),
        "{found}"
    );
    assert!(
        found.starts_with("pivot ok\ndrop ok\n"),
        "the probe did not get as far as it should: {found}"
    );
}

fn bind_mounts(user: User) {
    let folder = Folder::new();
    let file = folder.file("state/keys/key", "the-real-key", 0o666);
    let state = folder.path().join("state");
    for name in ["whole", "part"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    folder.file("single", "", 0o666);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let setpriv = if user == User::Nobody {
        "setpriv --reuid 65534 --regid 65534 --clear-groups"
    } else {
        ""
    };
    let line = format!(
        "mount --bind {all} {all} && mount --bind {state} {whole} && mount --bind {state}/keys {part} && mount --bind {file} {single} &&
         cd /tmp && exec {setpriv} {program} launch --hide {state} -- sh -c 'cat {single}; find {whole} {part} {state}; cat {state}/keys/key {whole}/keys/key {part}/key 2>&1'",
        all = folder.path().display(),
        state = state.display(),
        whole = at("whole"),
        part = at("part"),
        single = at("single"),
        file = file.display(),
        program = program().display(),
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &line])
        .output()
        .unwrap();
    let found = text(&output);
    assert!(!found.contains("the-real-key"), "{found}");
    assert!(
        found.starts_with(&format!(
            "{}\n{}\n{}\n",
            at("whole"),
            at("part"),
            state.display()
        )),
        "{found}{}",
        errors(&output)
    );
}

fn other_proc(user: User) {
    let folder = Folder::new();
    let line = format!(
        "mount -t proc proc {point} && cd /tmp && exec {setpriv} {program} launch -- ls -A {point}",
        point = folder.path().display(),
        setpriv = if user == User::Nobody {
            "setpriv --reuid 65534 --regid 65534 --clear-groups"
        } else {
            ""
        },
        program = program().display(),
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &line])
        .output()
        .unwrap();
    assert!(
        output.status.success() && text(&output).is_empty(),
        "{}{}",
        text(&output),
        errors(&output)
    );
}

fn machine(user: User) {
    let script = r#"
tell('core_pattern', lambda: open('/proc/sys/kernel/core_pattern', 'w'))
tell('sysrq', lambda: open('/proc/sysrq-trigger', 'w'))
tell('cgroup', lambda: os.mkdir('/sys/fs/cgroup/x'))
tell('uevent', lambda: open('/sys/kernel/uevent_helper', 'w'))
tell('passwd', lambda: open('/etc/passwd', 'a'))
tell('cron', lambda: open('/etc/cron.d/x', 'w'))
tell('usr', lambda: open('/usr/bin/x', 'w'))
tell('node', lambda: os.mknod('/tmp/isolation-node', stat.S_IFBLK | 0o600, os.makedev(254, 0)))
tell('dev', lambda: open('/dev/x', 'w'))
tell('chmod', lambda: os.chmod('/dev/null', 0o666))
print(sorted(os.listdir('/dev')))
"#;
    let found = probe(user, &[], script);
    let (refusals, devices) = found.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(refusals.lines().count(), 10, "{found}");
    let refused = |line: &str| {
        [" EROFS", " EACCES", " EPERM", " ENOENT"]
            .iter()
            .any(|end| line.ends_with(end))
    };
    assert!(refusals.lines().all(refused), "{found}");
    let expected = "['fd', 'full', 'null', 'outgate', 'ptmx', 'pts', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'tty', 'urandom', 'zero']";
    assert_eq!(devices, expected);
}

fn root_owns_nothing() {
    let folder = Folder::new();
    let disk = folder.path().join("disk");
    let made = Command::new("mknod")
        .arg(&disk)
        .args(["b", "254", "0"])
        .status()
        .unwrap();
    assert!(made.success());
    let outside = tempfile::Builder::new()
        .prefix("isolation-")
        .tempdir_in("/var/lib")
        .unwrap();
    let script = format!(
        r#"
tell('disk', lambda: open({disk:?}, 'rb'))
tell('var', lambda: open({outside:?} + '/x', 'w'))
tell('core_pattern', lambda: open('/proc/sys/kernel/core_pattern', 'w'))
tell('cron', lambda: open('/etc/cron.d/x', 'w'))
tell('cgroup', lambda: os.mkdir('/sys/fs/cgroup/x'))
tell('chmod', lambda: os.chmod('/dev/null', 0o666))
tell('tmp', lambda: open({folder:?} + '/x', 'w').close())
unshare(0x10000000 | 0x00020000 | 0x20000000)
def inside():
    if os.fork() == 0:
        tell('fresh proc', lambda: mount(b'proc', b'/proc', b'proc', 0))
        tell('fresh sys', lambda: mount(b'sys', b'/sys', b'sysfs', 0))
        tell('var', lambda: mount(b'', b'/', b'', 0x1000 | 0x20))
        sys.stdout.flush(); os._exit(0)
    os.wait()
sys.stdout.flush(); inside()
"#,
        outside = outside.path(),
        folder = folder.path()
    );
    let expected = [
        "disk EACCES",
        "var EROFS",
        "core_pattern EROFS",
        "cron EROFS",
        "cgroup EROFS",
        "chmod EROFS",
        "tmp ok",
        "fresh proc EPERM",
        "fresh sys EPERM",
        "var EPERM",
    ];
    expect(
        &probe(User::Root, &["--user-namespaces"], &script),
        &expected,
    );
    let asked = format!("open({:?} + '/x', 'w')", outside.path());
    probe(
        User::Root,
        &["--write", outside.path().to_str().unwrap()],
        &asked,
    );
    let output = run(User::Root, &["--write", "/"], &["true"]);
    assert!(
        errors(&output).starts_with("invalid_plan"),
        "{}",
        errors(&output)
    );
}

fn trust(user: User) {
    let script = r#"
folder = os.environ['RUN_FOLDER']
print(open(folder + '/ca.crt').read())
tell('write', lambda: open(folder + '/ca.crt', 'w'))
tell('create', lambda: open(folder + '/x', 'w'))
tell('remove', lambda: os.unlink(folder + '/ca.crt'))
tell('rename', lambda: os.rename(folder, folder + 'x'))
"#;
    let expected = [
        "a certificate",
        "write EROFS",
        "create EROFS",
        "remove EROFS",
        "rename EROFS",
    ];
    expect(&probe(user, &[], script), &expected);
}

fn devices(user: User) {
    let script = r#"
print(len(open('/dev/urandom', 'rb').read(9)), open('/dev/zero', 'rb').read(2), open('/dev/null').read() == '')
tell('null', lambda: open('/dev/null', 'w').write('x') and None)
tell('full', lambda: open('/dev/full', 'w', buffering=1).write('x\n'))
tell('terminal', lambda: open('/dev/tty'))
import pty
master, slave = pty.openpty()
os.write(master, b'hello\n'); print(os.read(slave, 9), os.ttyname(slave))
"#;
    // Python reports the closing of a file on a full device once more.
    let found = probe(user, &[], script);
    let expected = [
        "9 b'\\x00\\x00' True",
        "null ok",
        "full ENOSPC",
        "terminal ENXIO",
        "b'hello\\n' /dev/pts/0",
    ];
    expect(&found, &expected);
}

fn working_directory(user: User) {
    let folder = Folder::new();
    let path = folder.path().to_str().unwrap();
    assert_eq!(
        text(&run(user, &["--in", path], &["pwd"])),
        format!("{path}\n")
    );
    let output = run(
        user,
        &["--in", path, "--hide", path, "--in", &format!("{path}/sub")],
        &["pwd"],
    );
    assert!(
        errors(&output).contains("cannot work in"),
        "{}",
        errors(&output)
    );
}

fn own_files(user: User) {
    let folder = Folder::new();
    let script = r#"
from multiprocessing import shared_memory
memory = shared_memory.SharedMemory(create=True, size=4096); memory.buf[0] = 7; print(memory.buf[0]); memory.close(); memory.unlink()
import tempfile
print(tempfile.TemporaryFile().write(b'123'))
"#;
    let path = folder.path().to_str().unwrap();
    let mut command = launcher(user, &["--in", path], &["python3", "-c", script]);
    let output = finish(command.env("HOME", path).current_dir(folder.path()));
    let without_helper = text(&output);
    assert!(
        without_helper.starts_with("7\n3\n"),
        "{without_helper}{}",
        errors(&output)
    );
}
