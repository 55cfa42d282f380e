//! The launcher's side: starts the helper, receives the sockets, gives orders, hears what happens.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, setrlimit};

use super::channel::Channel;
use super::protocol::{Order, Report};
use super::{NAMESPACE, reasons};
use crate::{Command, Event, Plan, SandboxError, Sockets};

/// The set-up takes milliseconds; a machine that needs longer than this has another trouble.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a sandbox may take to die before its helper is killed.
const GRACE: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// A sandbox with its sockets, in which nothing runs yet. Dropping it ends it.
#[derive(Debug)]
pub struct Prepared {
    helper: Helper,
    reports: Channel,
}

/// A sandbox that was told to start its command. Dropping it ends everything in it.
#[derive(Debug)]
pub struct Running {
    helper: Helper,
}

/// What happens in the sandbox: a blocking iterator, whose last event tells the end.
#[derive(Debug)]
pub struct Events {
    reports: Channel,
    ended: bool,
}

/// Makes a sandbox. `helper` is this program's own file: it is started as `helper sandbox-helper ROLE` and must call
/// [`crate::helper()`] with the role. It inherits the standard streams, which become the command's, and nothing else.
///
/// Blocks for some milliseconds. The sockets can be served at once.
///
/// # Errors
/// [`SandboxError::Forbidden`] where this user may not make namespaces; [`SandboxError::Stream`] if a standard stream
/// is a network socket or a folder; [`SandboxError::Plan`], [`SandboxError::Setup`], [`SandboxError::Lost`].
pub fn prepare(helper: &Path, plan: &Plan) -> Result<(Prepared, Sockets), SandboxError> {
    check(plan)?;
    allow_init_to_forbid_core_files();
    let (mut reports, theirs) = Channel::pair().map_err(|error| setup("make a channel", &error))?;
    let process = std::process::Command::new(helper)
        .args([crate::HELPER, NAMESPACE])
        // The real secrets are in it.
        .env_clear()
        .stdin(Stdio::from(theirs))
        .spawn()
        .map_err(|error| setup("start the sandbox's helper process", &error))?;
    let orders = reports
        .try_clone()
        .map_err(|error| setup("make a channel", &error))?;
    let helper = Helper { process, orders };
    reports
        .patience(Some(PATIENCE))
        .map_err(|error| setup("make a channel", &error))?;
    let order = Order::Prepare(plan.clone()).encode();
    // If it has gone already the answer, or its absence, says why.
    let _ = helper.orders.send(&order, &[io::stdin().as_fd()]);
    let descriptors = receive_sockets(&mut reports)?;
    let sockets =
        sort(descriptors).map_err(|error| setup("recognise the sandbox's sockets", &error))?;
    reports
        .patience(None)
        .map_err(|error| setup("make a channel", &error))?;
    Ok((Prepared { helper, reports }, sockets))
}

impl Prepared {
    /// Starts the command. Whether that worked is the first event.
    ///
    /// # Errors
    /// [`SandboxError::Lost`] if the sandbox has broken; the events of a sandbox that could not be finished tell why.
    pub fn start(self, command: &Command) -> Result<(Running, Events), SandboxError> {
        let Self { helper, reports } = self;
        // As above: a helper that has gone has left its report.
        let _ = helper
            .orders
            .send(&Order::Start(command.clone()).encode(), &[]);
        Ok((
            Running { helper },
            Events {
                reports,
                ended: false,
            },
        ))
    }
}

impl Running {
    /// Sends the command (only the first process) a signal.
    ///
    /// # Errors
    /// [`SandboxError::Lost`] if the sandbox has ended.
    pub fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        self.helper
            .orders
            .send(&Order::Signal(signal).encode(), &[])
            .map_err(|_| SandboxError::Lost)
    }

    /// Ends everything in the sandbox; the last event tells when that is done.
    pub fn kill(&self) {
        self.helper.orders.finish();
    }
}

impl Iterator for Events {
    type Item = Event;

    /// Blocks until something happens; `None` after the last event.
    fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let report = self
            .reports
            .receive()
            .ok()
            .flatten()
            .and_then(|frame| Report::decode(&frame).ok());
        let event = match report {
            Some(Report::Started) => Event::Started,
            Some(Report::Stopped(signal)) => Event::Stopped { signal },
            Some(Report::Continued) => Event::Continued,
            Some(Report::Refused(refusals)) => Event::Refused(refusals),
            Some(Report::Exited(code)) => Event::Exited { code },
            Some(Report::Signalled(signal)) => Event::Signalled { signal },
            Some(Report::Failed(failure)) => Event::Failed(reasons::explain(failure)),
            Some(Report::Sockets { .. }) | None => Event::Failed(SandboxError::Lost),
        };
        self.ended = matches!(
            event,
            Event::Exited { .. } | Event::Signalled { .. } | Event::Failed(_)
        );
        Some(event)
    }
}

/// The helper process. Its end is the sandbox's.
#[derive(Debug)]
struct Helper {
    process: Child,
    orders: Channel,
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.orders.finish();
        let process = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw);
        let process = process.and_then(|process| pidfd_open(process, PidfdFlags::empty()).ok());
        if let Some(process) = process {
            let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&GRACE));
        }
        // For one that is stopped or stuck; the kernel then ends init, and init's end is everybody's.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Init forbids core files to the command by a limit of 1, which it cannot set where the hard limit is 0: the kernel
/// then starts the host's handler of crashes all the same. Root can raise it here; for other users it stays.
fn allow_init_to_forbid_core_files() {
    let limit = getrlimit(Resource::Core);
    if limit.maximum == Some(0) {
        let one = Rlimit {
            current: Some(1),
            maximum: Some(1),
        };
        let _ = setrlimit(Resource::Core, one);
    }
}

fn check(plan: &Plan) -> Result<(), SandboxError> {
    if plan.proxy_port != 0 && (plan.proxy_port == 53 || plan.ports.contains(&plan.proxy_port)) {
        return Err(SandboxError::Plan(format!(
            "port {} cannot be both the proxy's and a destination's",
            plan.proxy_port
        )));
    }
    // The helper's folder is another one.
    let shown = plan.shown.iter().flat_map(|(path, by)| [path, by]);
    let listed = [&plan.hidden, &plan.read_only, &plan.writable]
        .into_iter()
        .flatten();
    let mut paths = listed
        .chain(shown)
        .chain([&plan.run_folder, &plan.working_directory]);
    if let Some(path) = paths.find(|path| !path.is_absolute()) {
        return Err(SandboxError::Plan(format!(
            "{} is not an absolute path",
            path.display()
        )));
    }
    // The root of the tree writable is all of it writable.
    if plan
        .writable
        .iter()
        .any(|path| path.canonicalize().is_ok_and(|real| real == Path::new("/")))
    {
        return Err(SandboxError::Plan(
            "/ cannot be writable: name the folders below it".to_owned(),
        ));
    }
    Ok(())
}

fn receive_sockets(reports: &mut Channel) -> Result<Vec<OwnedFd>, SandboxError> {
    let mut sockets = vec![];
    loop {
        let frame = reports
            .receive()
            .map_err(|error| setup("hear from the helper process", &error))?;
        let report = Report::decode(&frame.ok_or(SandboxError::Lost)?);
        match report.map_err(|error| setup("understand the helper process", &error))? {
            Report::Sockets { count, more } => {
                for _ in 0..count {
                    sockets.push(
                        reports
                            .take()
                            .map_err(|error| setup("receive the sockets", &error))?,
                    );
                }
                if !more {
                    return Ok(sockets);
                }
            }
            Report::Failed(failure) => return Err(reasons::explain(failure)),
            _ => return Err(SandboxError::Lost),
        }
    }
}

/// The first is the proxy's; the others say themselves what they are.
fn sort(descriptors: Vec<OwnedFd>) -> io::Result<Sockets> {
    let mut descriptors = descriptors.into_iter();
    let proxy = TcpListener::from(descriptors.next().ok_or(io::ErrorKind::UnexpectedEof)?);
    let mut sockets = Sockets {
        proxy,
        transparent: vec![],
        dns_udp: vec![],
        dns_tcp: vec![],
    };
    for descriptor in descriptors {
        if sockopt::socket_type(&descriptor)? == SocketType::DGRAM {
            sockets.dns_udp.push(UdpSocket::from(descriptor));
            continue;
        }
        let listener = TcpListener::from(descriptor);
        let kind = if listener.local_addr()?.port() == 53 {
            &mut sockets.dns_tcp
        } else {
            &mut sockets.transparent
        };
        kind.push(listener);
    }
    Ok(sockets)
}

fn setup(step: &str, error: &io::Error) -> SandboxError {
    let why = error
        .raw_os_error()
        .map_or_else(|| error.to_string(), reasons::reason);
    SandboxError::Setup {
        step: step.to_owned(),
        why,
    }
}
