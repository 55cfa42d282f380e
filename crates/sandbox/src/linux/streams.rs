//! The standard streams: the only descriptors of the host that the command gets, so they must not be a way out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, getpgrp, test_kill_process_group};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use super::channel::Channel;
use super::protocol::{Failure, Stage};

/// Closes everything but the standard streams: what the user's shell or service manager left open without
/// close-on-exec. To be called before this process opens anything of its own.
pub(super) fn close_others() -> io::Result<()> {
    let names = std::fs::read_dir("/proc/self/fd")?.map(|entry| Ok(entry?.file_name()));
    let open: Vec<_> = names.collect::<io::Result<_>>()?;
    for descriptor in open
        .iter()
        .filter_map(|name| name.to_str()?.parse::<i32>().ok())
        .filter(|fd| *fd > 2)
    {
        match nix::unistd::close(descriptor) {
            // The listing's own, which is closed already.
            Ok(()) | Err(nix::errno::Errno::EBADF) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// The channel that a helper process finds as its standard input, and then the user's input in its place.
pub(super) fn take_channel() -> io::Result<Channel> {
    let channel: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    Ok(Channel::from(std::os::unix::net::UnixStream::from(channel)))
}

/// Makes the descriptor that came with the first order standard input.
pub(super) fn restore_input(channel: &mut Channel) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(channel.take()?)?)
}

/// A stream that is the host's `/dev/null` becomes the sandbox's: by the host's, root could change the permissions of
/// the file that all of the host uses.
pub(super) fn replace_null() -> io::Result<()> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    let device = fstat(&null)?.st_rdev;
    let is_null = |stream: BorrowedFd<'_>| {
        fstat(stream).is_ok_and(|stream| {
            FileType::from_raw_mode(stream.st_mode) == FileType::CharacterDevice
                && stream.st_rdev == device
        })
    };
    if is_null(io::stdin().as_fd()) {
        rustix::stdio::dup2_stdin(&null)?;
    }
    if is_null(io::stdout().as_fd()) {
        rustix::stdio::dup2_stdout(&null)?;
    }
    if is_null(io::stderr().as_fd()) {
        rustix::stdio::dup2_stderr(&null)?;
    }
    Ok(())
}

/// A socket could be connected again, to anywhere from the host's network; a folder opens the host's files around
/// every cover.
pub(super) fn check() -> Result<(), Failure> {
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let streams = [
        ("input", input.as_fd()),
        ("output", output.as_fd()),
        ("error", error.as_fd()),
    ];
    streams
        .into_iter()
        .try_for_each(|(name, stream)| match way_out(stream) {
            Ok(None) => Ok(()),
            Ok(Some(what)) => Err(Failure {
                stage: Stage::Stream,
                step: format!("{name} is {what}"),
                errno: 0,
            }),
            Err(errno) => Err(Failure::new(
                Stage::Stream,
                format!("{name} is unreadable"),
                &errno.into(),
            )),
        })
}

fn way_out(stream: BorrowedFd<'_>) -> rustix::io::Result<Option<&'static str>> {
    Ok(match FileType::from_raw_mode(fstat(stream)?.st_mode) {
        FileType::Directory => Some("a folder"),
        FileType::Socket => {
            let connected = [SocketType::STREAM, SocketType::SEQPACKET]
                .contains(&sockopt::socket_type(stream)?);
            let local = sockopt::socket_domain(stream)? == AddressFamily::UNIX;
            (!local || !connected || sockopt::socket_acceptconn(stream)?)
                .then_some("a network socket")
        }
        _ => None,
    })
}

/// The terminal that the launcher is in the foreground of, if it is.
#[derive(Debug)]
pub(super) struct Foreground {
    terminal: OwnedFd,
    group: Pid,
}

impl Foreground {
    pub(super) fn find() -> Option<Self> {
        let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
        let group = getpgrp();
        let mut streams = [input.as_fd(), output.as_fd(), error.as_fd()].into_iter();
        let terminal = streams.find(|stream| tcgetpgrp(stream) == Ok(group))?;
        Some(Self {
            terminal: terminal.try_clone_to_owned().ok()?,
            group,
        })
    }

    /// Takes the terminal back from a process group of the sandbox that had it and is gone: a shell in the sandbox
    /// cannot give it back, since our group has no number there. From a living group (the user's shell, if the command
    /// went on in the background) it is not taken.
    pub(super) fn restore(&self) {
        if let Ok(group) = tcgetpgrp(&self.terminal)
            && test_kill_process_group(group) == Err(Errno::SRCH)
        {
            let _ = tcsetpgrp(&self.terminal, self.group);
        }
    }
}
