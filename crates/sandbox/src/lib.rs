//! What `outgate run` puts a command into: an environment without secrets, and namespaces whose only exit is the
//! gateway.
//!
//! On Linux three processes of one program do it. The *launcher* holds the gateway and stays outside. The *helper*
//! makes a user, network, mount, process and IPC namespace without root, opens the gateway's sockets there, sends them
//! to the launcher and then only watches. *Init* is process 1 of the sandbox: it covers what must not be seen, gives
//! up every privilege, starts the command and reaps. If any of the three dies the kernel ends the rest.
//!
//! The network needs no packet filter: the namespace has `lo` and nothing else, and a `local` route sends every
//! address of both families to it. What the gateway listens for is answered, everything else is refused at once.
//!
//! It is an isolation by the kernel's namespaces, not a virtual machine: a kernel bug is a way out. The user's own
//! files stay the user's own: what the command writes to them is there afterwards.

pub mod environment;
mod error;
mod plan;

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod linux;

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{Events, Prepared, Running, helper, prepare};
pub use error::SandboxError;
#[cfg(target_os = "linux")]
pub use linux::{Events, Prepared, Running, helper, prepare};
pub use plan::{
    Command, Event, Plan, Refusals, Sockets, UnixSockets, UserNamespaces, default_writable,
};

/// Where the command finds the run folder.
pub const RUN_FOLDER: &str = "/dev/outgate";

/// The hidden subcommand's name: [`prepare`] starts its `helper` program as `program HELPER ROLE`, and the program
/// hands the role to [`helper()`].
pub const HELPER: &str = "sandbox-helper";
