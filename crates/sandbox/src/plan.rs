//! What a sandbox is asked to be, what it hands back, and what it tells while it runs.

use std::ffi::OsString;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

/// How to isolate one command.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The launcher's temporary folder: the command finds what is in it, read-only, in [`crate::RUN_FOLDER`]. It may lie
    /// in what is hidden, where no command of the same user reaches it.
    pub run_folder: PathBuf,
    /// TCP ports answered at every address. 53 is always the DNS listener's and is ignored here.
    pub ports: Vec<u16>,
    /// The explicit proxy's port on 127.0.0.1. 0 lets the kernel choose: see `Sockets::proxy`'s local address.
    pub proxy_port: u16,
    /// Files and folders shown as empty. A path that does not exist is ignored. All paths of a plan are absolute. A *file* that the host replaces by
    /// renaming over it while the command runs is uncovered by the kernel: name its folder where that can happen.
    pub hidden: Vec<PathBuf>,
    /// Files that the command reads and cannot change, nor replace in their folder.
    pub read_only: Vec<PathBuf>,
    /// Files that show the content of others, read-only: path, and whose content. A path that does not exist is
    /// ignored.
    pub shown: Vec<(PathBuf, PathBuf)>,
    /// What stays writable when the invoking user is root (see [`default_writable`]). Other users keep what file
    /// permissions give them.
    pub writable: Vec<PathBuf>,
    /// Whether the command may use Unix sockets.
    pub unix_sockets: UnixSockets,
    /// Whether the command may make user namespaces of its own.
    pub user_namespaces: UserNamespaces,
    /// Where the command starts.
    pub working_directory: PathBuf,
}

/// Unix sockets reach services of the host (a container engine, an agent for keys) that no gateway sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixSockets {
    /// `socket(AF_UNIX)` is refused; connected pairs remain.
    Refused,
    /// Allowed; those sockets of the host that exist when the sandbox starts are covered.
    Allowed,
}

/// In a user namespace of its own the command is root over further namespaces: it mounts file systems (control groups
/// among them) and reaches parts of the kernel that nobody else without privileges does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserNamespaces {
    /// The kernel makes none.
    Refused,
    /// As many as the machine allows.
    Allowed,
}

/// The sockets that were opened inside the sandbox, all blocking. An accepted connection's local address is the
/// address that the command asked for.
#[derive(Debug)]
pub struct Sockets {
    /// The explicit proxy, on 127.0.0.1.
    pub proxy: TcpListener,
    /// For each port a listener on 0.0.0.0, and one on `[::]` where the kernel has IPv6.
    pub transparent: Vec<TcpListener>,
    /// Port 53. `IP_PKTINFO`/`IPV6_RECVPKTINFO` is set: answer from the address that was asked.
    pub dns_udp: Vec<UdpSocket>,
    /// Port 53.
    pub dns_tcp: Vec<TcpListener>,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Command {
    /// A path, or a name that is looked for on the `PATH` of `environment`, as a shell does.
    pub program: OsString,
    /// Its arguments, without the name.
    pub args: Vec<OsString>,
    /// All of its environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// What happened to the command. The last one is `Exited`, `Signalled` or `Failed`; when it is reported no process
/// of the sandbox is left.
#[derive(Debug)]
pub enum Event {
    /// It runs.
    Started,
    /// It was stopped by a signal (job control): a launcher that belongs to a shell stops itself too.
    Stopped {
        /// Number of the signal.
        signal: i32,
    },
    /// It runs again.
    Continued,
    /// What the namespace refused by itself; reported once, just before the end.
    Refused(Refusals),
    /// It ended by itself.
    Exited {
        /// Its exit status.
        code: i32,
    },
    /// A signal ended it.
    Signalled {
        /// Number of the signal.
        signal: i32,
    },
    /// It was not started, or the sandbox broke.
    Failed(crate::SandboxError),
}

/// Counted by the kernel for the whole namespace: attempts that no socket of the gateway (or of the command) took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// TCP connections that were refused before they were open, of IPv4 and IPv6.
    pub tcp_refused: u64,
    /// UDP datagrams to ports without a socket.
    pub udp_unreachable: u64,
}

/// What a root user's command may write by default: its home, its working directory and the temporary folders, but
/// never `/` or a folder in which the system keeps what it runs, even if that is the working directory.
pub fn default_writable(home: Option<&Path>, working_directory: &Path) -> Vec<PathBuf> {
    let own = home
        .into_iter()
        .chain([working_directory])
        .filter(|path| !is_system_folder(path));
    own.chain([Path::new("/tmp"), Path::new("/var/tmp")])
        .map(Path::to_path_buf)
        .collect()
}

fn is_system_folder(path: &Path) -> bool {
    const SYSTEM: [&str; 14] = [
        "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/opt", "/proc", "/run",
        "/sbin", "/sys", "/usr", "/var",
    ];
    // What a link or `..` points at counts, not how it is spelled.
    let Ok(path) = path.canonicalize() else {
        return true;
    };
    path == Path::new("/")
        || path == Path::new("/home")
        || SYSTEM.iter().any(|system| path.starts_with(system))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_never_gets_the_system_to_write_by_standing_in_it() {
        let only_temporary = [PathBuf::from("/tmp"), PathBuf::from("/var/tmp")];
        for folder in [
            "/",
            "/etc",
            "/usr/bin",
            "/var/../etc",
            "/proc/self/root",
            "/does/not/exist",
        ] {
            assert_eq!(
                default_writable(None, Path::new(folder)),
                only_temporary,
                "{folder}"
            );
            assert_eq!(
                default_writable(Some(Path::new(folder)), Path::new("/")),
                only_temporary,
                "{folder}"
            );
        }
    }

    #[test]
    fn a_project_and_a_home_are_writable() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            default_writable(Some(folder.path()), Path::new("/"))[0],
            folder.path()
        );
    }
}
