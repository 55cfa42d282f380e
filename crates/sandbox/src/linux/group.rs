//! The command's process group: a signal to "my group" ignores process namespaces, so it could end the launcher, or
//! stop the user's script around it.
//!
//! Without a terminal the command gets a group of its own. At a terminal it has to be in the launcher's, or the
//! shell's job control (^Z, pipelines with a pager) would not reach it. There Landlock confines its signals to the
//! sandbox; on a kernel before 6.12, which cannot, the call with "my group" is refused for everybody in the sandbox.

use std::fs::OpenOptions;
use std::io;

use landlock::{CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};

/// Where the command belongs, and what keeps its signals inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Its own.
    Own,
    /// The launcher's; signals out of the sandbox are refused.
    Shared,
    /// The launcher's; the filter has to refuse signals to it.
    SharedUnconfined,
}

/// Decides, and confines this process and its children. Needs nothing that the privileges give.
pub(super) fn choose() -> Group {
    // Opening it tells whether there is a controlling terminal, whatever the standard streams are.
    if OpenOptions::new().read(true).open("/dev/tty").is_err() {
        return Group::Own;
    }
    if confine_signals().is_ok() {
        Group::Shared
    } else {
        Group::SharedUnconfined
    }
}

fn confine_signals() -> io::Result<()> {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::Signal);
    let rules = rules.and_then(Ruleset::create).map_err(io::Error::other)?;
    rules.restrict_self().map(drop).map_err(io::Error::other)
}
