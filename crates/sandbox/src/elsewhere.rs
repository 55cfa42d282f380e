//! Operating systems without Linux's namespaces: the same interface, which says that it is not there.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use crate::{Command, Event, Plan, SandboxError, Sockets};

/// Never exists.
#[derive(Debug)]
pub enum Prepared {}

/// Never exists.
#[derive(Debug)]
pub enum Running {}

/// Never exists.
#[derive(Debug)]
pub enum Events {}

/// Says [`SandboxError::Unavailable`].
///
/// # Errors
/// Always.
pub fn prepare(_helper: &Path, _plan: &Plan) -> Result<(Prepared, Sockets), SandboxError> {
    Err(SandboxError::Unavailable)
}

impl Prepared {
    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn start(self, _command: &Command) -> Result<(Running, Events), SandboxError> {
        match self {}
    }
}

impl Running {
    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn signal(&self, _signal: i32) -> Result<(), SandboxError> {
        match *self {}
    }

    /// Cannot be called.
    pub fn kill(&self) {
        match *self {}
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        match *self {}
    }
}

/// There is no role to play.
pub fn helper(_role: &OsStr) -> ExitCode {
    ExitCode::FAILURE
}
