//! Init: process 1 of the sandbox. Arranges what the command sees, gives up every privilege, starts it, reaps.
//!
//! The command can see this process. It cannot trace it (init is not dumpable), cannot signal it (the kernel spares
//! process 1 what it does not handle) and finds nothing in it: its environment is empty, its memory has no secret.

use std::io;
use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, WaitOptions, WaitStatus, getuid, kill_process,
    set_dumpable_behavior, set_parent_process_death_signal, setrlimit, wait,
};

use super::channel::Channel;
use super::group::{self, Group};
use super::protocol::{Failure, Order, Report, Stage};
use super::{mounts, privileges, program, seccomp, streams};
use crate::{Command, Plan};

/// Runs until the command has ended, or the helper has.
pub(super) fn run() -> io::Result<()> {
    set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // The helper's mask came along, and the command would inherit it. Process 1 is spared by what it does not handle.
    SigSet::empty().thread_set_mask()?;
    let mut helper = streams::take_channel()?;
    let Some(frame) = helper.receive()? else {
        return Ok(());
    };
    let Order::Prepare(plan) = Order::decode(&frame)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    streams::restore_input(&mut helper)?;
    let group = match confine(&plan) {
        Ok(group) => group,
        Err(failure) => return helper.send(&Report::Failed(failure).encode(), &[]),
    };
    let Some(frame) = helper.receive()? else {
        return Ok(());
    };
    let Order::Start(command) = Order::decode(&frame)? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    match Life::start(&command, group) {
        Ok(life) => {
            helper.send(&Report::Started.encode(), &[])?;
            life.watch(&mut helper)
        }
        Err(error) => {
            let failure = Failure::new(Stage::Start, command.program.to_string_lossy(), &error);
            helper.send(&Report::Failed(failure).encode(), &[])
        }
    }
}

fn confine(plan: &Plan) -> Result<Group, Failure> {
    mounts::arrange(plan, getuid().is_root())?;
    streams::replace_null().map_err(|error| {
        Failure::new(
            Stage::Mount,
            "give the command a /dev/null of its own",
            &error,
        )
    })?;
    // After the mounts: the folder must be the one that is seen now, not the one under a cover.
    let folder = &plan.working_directory;
    std::env::set_current_dir(folder).map_err(|error| {
        Failure::new(
            Stage::Mount,
            format!("work in {}", folder.display()),
            &error,
        )
    })?;
    let failure = |step: &str, error: &io::Error| Failure::new(Stage::Privilege, step, error);
    privileges::drop_all().map_err(|error| failure("give up the privileges", &error))?;
    // A crash must not make the host run its handler of core files: 1 is what the kernel takes for "do not", whether
    // files or a program receive them. A limit that is lower already cannot be raised.
    let _ = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(1),
            maximum: Some(1),
        },
    );
    let group = group::choose();
    seccomp::install(plan.unix_sockets, group, getuid().is_root())
        .map_err(|error| failure("install the filter of system calls", &error))?;
    Ok(group)
}

/// The command's life.
struct Life {
    command: Pid,
    children: SignalFd,
}

impl Life {
    fn start(command: &Command, group: Group) -> io::Result<Self> {
        let child = program::start(command, group)?;
        let command = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(io::ErrorKind::InvalidData)?;
        // After the start, for the same reason; a death before it is found by the first look.
        let ended = SigSet::from(Signal::SIGCHLD);
        ended.thread_block()?;
        let children = SignalFd::with_flags(&ended, SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { command, children })
    }

    fn watch(&self, helper: &mut Channel) -> io::Result<()> {
        while !self.reap(helper)? {
            let (order, child) = self.wait_for(helper)?;
            if child {
                // One signal may stand for many children, so its content says nothing.
                self.children.read_signal()?;
            }
            if order {
                let Some(frame) = helper.receive()? else {
                    return Ok(());
                };
                if let Order::Signal(number) = Order::decode(&frame)?
                    && let Some(signal) = rustix::process::Signal::from_named_raw(number)
                {
                    // It may have ended in this moment.
                    let _ = kill_process(self.command, signal);
                }
            }
        }
        Ok(())
    }

    fn wait_for(&self, helper: &Channel) -> io::Result<(bool, bool)> {
        let mut wanted = [
            PollFd::new(helper, PollFlags::IN),
            PollFd::from_borrowed_fd(self.children.as_fd(), PollFlags::IN),
        ];
        match poll(&mut wanted, None) {
            Err(rustix::io::Errno::INTR) | Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [order, child] = wanted.map(|one| !one.revents().is_empty());
        Ok((order, child))
    }

    /// Takes every status there is, the command's and its orphans'. `true`: the command has ended.
    fn reap(&self, helper: &Channel) -> io::Result<bool> {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED | WaitOptions::CONTINUED;
        while let Some((process, status)) = wait(options).unwrap_or(None) {
            if process != self.command {
                continue;
            }
            if let Some(report) = report(status) {
                helper.send(&report.encode(), &[])?;
                if matches!(report, Report::Exited(_) | Report::Signalled(_)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

fn report(status: WaitStatus) -> Option<Report> {
    let ended = status
        .exit_status()
        .map(Report::Exited)
        .or(status.terminating_signal().map(Report::Signalled));
    let stopped = || status.stopping_signal().map(Report::Stopped);
    ended
        .or_else(stopped)
        .or_else(|| status.continued().then_some(Report::Continued))
}
