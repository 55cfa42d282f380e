//! The helper: makes the namespaces, opens the gateway's sockets in them, starts init, and watches.
//!
//! It stays out of the sandbox's process namespace, so the command cannot see it. When the launcher goes away, by
//! whatever death, its end of the channel closes, and the helper ends the sandbox. When the helper goes, the kernel
//! does.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{getgid, getuid};

use super::channel::{Channel, MAX_DESCRIPTORS};
use super::network::{self, Counters};
use super::protocol::{Failure, Order, Report, Stage};
use super::streams::{self, Foreground};
use super::{INIT, privileges};
use crate::{Plan, UnixSockets, UserNamespaces};

/// Below `/run`, services put their pipes no deeper.
const PIPES_DEPTH: usize = 4;

/// Runs until the sandbox has ended.
pub(super) fn run() -> io::Result<()> {
    streams::close_others()?;
    // ^C and ^Z at the terminal are for the command. Taking the terminal back from the background needs it too.
    // (Children inherit the mask: init begins by emptying its own.)
    SigSet::all().thread_block()?;
    let mut launcher = streams::take_channel()?;
    let Some(frame) = launcher.receive()? else {
        return Ok(());
    };
    let Order::Prepare(plan) = Order::decode(&frame)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    streams::restore_input(&mut launcher)?;
    match prepare(plan, &launcher) {
        Ok(sandbox) => sandbox.watch(&mut launcher),
        Err(failure) => launcher.send(&Report::Failed(failure).encode(), &[]),
    }
}

fn prepare(mut plan: Plan, launcher: &Channel) -> Result<Sandbox, Failure> {
    streams::check()?;
    let foreground = Foreground::find();
    plan.hidden.extend(pipes());
    if plan.unix_sockets == UnixSockets::Allowed {
        plan.hidden
            .extend(host_sockets().map_err(|error| namespace("list the host's sockets", &error))?);
    }
    // Not in a folder of the host's view.
    std::env::set_current_dir("/").map_err(|error| namespace("go to /", &error))?;
    enter(plan.user_namespaces).map_err(|(step, error)| namespace(step, &error))?;
    let sockets = network::open(&plan.ports, plan.proxy_port)?;
    let counters = Counters::open();
    hand_over(&sockets, launcher).map_err(|error| namespace("hand the sockets over", &error))?;
    // The launcher's are the only ones from here on: closing them there closes them.
    drop(sockets);
    let (init, process) =
        start_init(plan).map_err(|error| namespace("start the sandbox's first process", &error))?;
    Ok(Sandbox {
        init,
        process,
        foreground,
        counters,
    })
}

/// New namespaces, in which this user keeps its numbers.
fn enter(further: UserNamespaces) -> Result<(), (&'static str, io::Error)> {
    // Asked before: inside, they are unknown until the maps are written.
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let all = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(all).map_err(|errno| ("make namespaces", errno.into()))?;
    // Without it an unprivileged user may not write the map of groups.
    fs::write("/proc/self/setgroups", "deny")
        .map_err(|error| ("give up changing groups", error))?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))
        .map_err(|error| ("map the user", error))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
        .map_err(|error| ("map the group", error))?;
    if further == UserNamespaces::Refused {
        // A setting of the namespace that this process is in.
        fs::write("/proc/sys/user/max_user_namespaces", "0")
            .map_err(|error| ("forbid further user namespaces", error))?;
    }
    privileges::keep_across_exec().map_err(|error| ("keep the namespace's privileges", error))
}

/// The named pipes of the host's services: a service that reads one is reached by writing, on whatever mount.
fn pipes() -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![(PathBuf::from("/run"), 0)];
    while let Some((folder, depth)) = folders.pop() {
        // What this user cannot list, its command cannot either.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_fifo() => found.push(entry.path()),
                Ok(kind) if kind.is_dir() && depth < PIPES_DEPTH => {
                    folders.push((entry.path(), depth + 1));
                }
                _ => {}
            }
        }
    }
    found
}

/// The paths of Unix sockets that somebody on the host has bound.
fn host_sockets() -> io::Result<Vec<PathBuf>> {
    let listing = fs::read("/proc/net/unix")?;
    let text = String::from_utf8_lossy(&listing);
    // Seven columns, then the path, which may have spaces. Abstract names start with `@`: they stay outside.
    let paths = text
        .lines()
        .skip(1)
        .filter_map(|line| line.find(" /").and_then(|start| line.get(start + 1..)));
    let sockets = paths.map(PathBuf::from);
    Ok(sockets
        .filter(|path| {
            path.metadata()
                .is_ok_and(|kind| kind.file_type().is_socket())
        })
        .collect())
}

fn hand_over(sockets: &[OwnedFd], launcher: &Channel) -> io::Result<()> {
    let mut rest = sockets;
    loop {
        let (batch, after) = rest.split_at(rest.len().min(MAX_DESCRIPTORS));
        rest = after;
        let count = u32::try_from(batch.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        let descriptors: Vec<_> = batch.iter().map(AsFd::as_fd).collect();
        launcher.send(
            &Report::Sockets {
                count,
                more: !rest.is_empty(),
            }
            .encode(),
            &descriptors,
        )?;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

fn start_init(plan: Plan) -> io::Result<(Channel, Child)> {
    let (init, theirs) = Channel::pair()?;
    // The first child is process 1 of the new namespace. It gets nothing of the launcher's environment.
    let mut command = Command::new("/proc/self/exe");
    let process = command
        .args([crate::HELPER, INIT])
        .env_clear()
        .stdin(Stdio::from(theirs))
        .spawn()?;
    init.send(&Order::Prepare(plan).encode(), &[io::stdin().as_fd()])?;
    Ok((init, process))
}

fn namespace(step: &str, error: &io::Error) -> Failure {
    Failure::new(Stage::Namespace, step, error)
}

/// A sandbox with a living init.
struct Sandbox {
    init: Channel,
    process: Child,
    foreground: Option<Foreground>,
    counters: Counters,
}

impl Sandbox {
    /// Carries orders in and reports out. The last report is held back until every process in there is gone.
    fn watch(mut self, launcher: &mut Channel) -> io::Result<()> {
        let mut last = None;
        loop {
            let (order, report) = self.wait(launcher)?;
            if order {
                match launcher.receive() {
                    // If init is gone its report comes next.
                    Ok(Some(frame)) => drop(self.init.send(&frame, &[])),
                    Ok(None) | Err(_) => break,
                }
            }
            if report {
                let Ok(Some(frame)) = self.init.receive() else {
                    break;
                };
                match Report::decode(&frame)? {
                    Report::Exited(_) | Report::Signalled(_) | Report::Failed(_) => {
                        last = Some(frame)
                    }
                    // Nobody listens any more: the next round sees it.
                    _ => drop(launcher.send(&frame, &[])),
                }
            }
        }
        // Ends it if it has not; with process 1 the kernel kills all others, and waits for them.
        self.process.kill()?;
        self.process.wait()?;
        if let Some(foreground) = &self.foreground {
            foreground.restore();
        }
        launcher.send(&Report::Refused(self.counters.read()).encode(), &[])?;
        launcher.send(&last.unwrap_or_else(|| Report::Signalled(9).encode()), &[])
    }

    /// Which of the launcher and init has something to say, or has gone.
    fn wait(&self, launcher: &Channel) -> io::Result<(bool, bool)> {
        let mut wanted = [
            PollFd::new(launcher, PollFlags::IN),
            PollFd::new(&self.init, PollFlags::IN),
        ];
        loop {
            match poll(&mut wanted, None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => break,
            }
        }
        let [order, report] = wanted.map(|one| !one.revents().is_empty());
        Ok((order, report))
    }
}
