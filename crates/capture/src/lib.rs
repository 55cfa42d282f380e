//! What leaves one user of a network namespace a way out, and nobody else: rules of the kernel's packet filter, in a
//! table of their own. With a redirect, TCP of the others goes to the gateway's transparent listener.
//!
//! The rules are written in one batch over netlink, which the kernel takes as a whole or not at all, and are read back.
//! They are `inet` rules: one set for IPv4 and IPv6, so that neither family can be forgotten. No program is started and
//! no file is written.
//!
//! What the rules cannot hold: a process that can become the excepted user (`CAP_SETUID`, a set-user-ID program),
//! change the rules (`CAP_NET_ADMIN`) or write frames past them (`CAP_NET_RAW`).

mod error;
#[cfg(target_os = "linux")]
mod linux;

use std::num::{NonZeroU16, NonZeroU32};

pub use error::CaptureError;

/// The table's name, in the family `inet`.
pub const TABLE: &str = "outgate_capture";

/// Who is let out, and where the others' connections go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capture {
    /// The user whose packets leave: the gateway's. Not root: that is too many.
    pub except_user: NonZeroU32,
    /// The port on loopback, of both families, to which TCP of everybody else is sent; `None`: it is dropped.
    pub redirect: Option<NonZeroU16>,
}

/// Installs the rules in the network namespace of the calling thread, in the place of those of an earlier call, and
/// reads them back. Blocks, for 5 seconds at most while the kernel says nothing.
///
/// # Errors
/// [`CaptureError`]. After any but [`CaptureError::NotAsWritten`] nothing was changed.
#[cfg(target_os = "linux")]
pub fn install(capture: &Capture) -> Result<(), CaptureError> {
    linux::install(capture)
}

/// There is no such packet filter here.
///
/// # Errors
/// [`CaptureError::Unavailable`], always.
#[cfg(not(target_os = "linux"))]
pub fn install(_: &Capture) -> Result<(), CaptureError> {
    Err(CaptureError::Unavailable)
}
