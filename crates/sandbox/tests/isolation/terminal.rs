//! An interactive shell in the sandbox, at a terminal.

use std::ffi::OsStr;

use libtest_mimic::Trial;

use crate::support::{User, each, errors, on_host, program, text};

pub fn trials() -> Vec<Trial> {
    [
        each(
            "a shell in the sandbox has job control and the window's size",
            job_control,
        ),
        each(
            "^C is the command's, and ^Z stops it for the shell outside",
            keys,
        ),
        each(
            "the command cannot signal the process group that it shares",
            shared_group,
        ),
        each(
            "a command that ends in the background leaves the terminal alone",
            background,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Types at a shell on a terminal of its own, waiting for what each line must lead to.
const TYPIST: &str = r"
import fcntl, os, pty, re, select, struct, sys, termios, time
launch = sys.argv[1] + ' launch -- '
pid, master = pty.fork()
if pid == 0:
    os.chdir('/tmp')
    os.execve('/bin/bash', ['bash', '--norc', '--noprofile', '-i'], {'PS1': 'outer> ', 'PATH': '/usr/bin:/bin', 'TERM': 'dumb'})
def size(rows, columns): fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))
size(33, 77)
seen = ''
def until(pattern):
    global seen
    end = time.monotonic() + 7
    while not re.search(pattern, seen):
        if time.monotonic() > end: print(f'waited for {pattern!r}, saw {seen!r}'); sys.exit(1)
        if select.select([master], [], [], 0.1)[0]: seen += os.read(master, 4096).decode()
    found = re.search(pattern, seen); seen = seen[found.end():]
def type(text, pattern): time.sleep(0.05); os.write(master, text.encode()); until(pattern)
until('outer> ')
";

fn typed(user: User, script: &str) {
    let output = on_host(
        user,
        &format!("{TYPIST}{script}\nprint('done')"),
        &[OsStr::new(program())],
    );
    assert_eq!(text(&output), "done\n", "{}", errors(&output));
}

fn job_control(user: User) {
    let script = r"
type(launch + 'env PS1=inner: bash --norc --noprofile -i; echo END=$?\n', 'inner:')
type('stty size\n', r'33 77\s+inner:')
size(20, 50)
type('stty size; tty\n', r'20 50\s+/dev/console\s+inner:')
type('sleep 100 &\n', r'\[1\] \d+\s+inner:')
type('fg\n', r'sleep 100\s')
time.sleep(0.1)
type('\x1a', r'Stopped\s.*sleep 100\s+inner:')
type('bg; kill %1; wait; echo BACK\n', r'BACK\s+inner:')
type('cat\n', 'cat')
time.sleep(0.1)
type('\x03', r'\^C\s+inner:')
type('exit 3\n', r'END=3\s+outer> ')
type('tr a-z A-Z\n', 'A-Z')
time.sleep(0.1)
type('the terminal is the outer shell\x27s\n', r'THE TERMINAL IS')
type('\x04', 'outer> ')
";
    typed(user, script);
}

fn shared_group(user: User) {
    // The launcher lives to tell of it. (Where the kernel cannot tell its processes apart the call is refused.)
    let script = r"
type(launch.replace('--', '--events --') + 'sh -c \'kill -KILL 0\'\n', r'Signalled \{ signal: 9 \}|Exited \{ code: 1 \}')
until('outer> ')
type(launch.replace('--', '--events --') + 'sh -c \'kill -STOP 0\'\n', r'Stopped|Exited \{ code: 1 \}')
";
    typed(user, script);
}

fn background(user: User) {
    let script = r"
type(launch + 'sleep 0.4\n', 'sleep')
time.sleep(0.1)
type('\x1a', r'Stopped.*\s+outer> ')
type('bg\n', r'outer> ')
time.sleep(0.6)
type('echo AL''IVE\n'.replace('LI', 'L\x27\x27I'), r'ALIVE\s')
until('outer> ')
type('wait; echo ST''ILL\n'.replace('TI', 'T\x27\x27I'), r'STILL\s+outer> ')
";
    typed(user, script);
}

fn keys(user: User) {
    let script = r#"
command = "sh -c 'trap \"echo GOT''IT; exit 9\" INT; echo READ''Y; while :; do sleep 0.1; done'"
type(launch + command + '\n', 'READY')
type('\x1a', r'Stopped.*\s+outer> ')
type('jobs\n', r'Stopped.*\s+outer> ')
type('fg\n', r'launch')
time.sleep(0.2)
type('\x03', r'GOTIT\s+outer> ')
type('echo END=$?\n', r'END=9\s+outer> ')
type(launch + 'tr a-z A-Z\n', 'A-Z')
time.sleep(0.1)
type('hello\n', 'HELLO')
type('\x1a', r'Stopped.*\s+outer> ')
type('fg\n', 'A-Z')
time.sleep(0.1)
type('again\n', 'AGAIN')
type('\x04', 'outer> ')
type('echo END=$?\n', r'END=0\s+outer> ')
"#;
    typed(user, script);
}
