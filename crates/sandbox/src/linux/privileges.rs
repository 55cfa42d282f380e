//! Giving up every privilege, for good: what the command and its children inherit.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

/// Lets the privileges in the new namespace survive the start of init, which a user other than root would lose.
pub(super) fn keep_across_exec() -> io::Result<()> {
    let own = capabilities(None)?;
    set_capabilities(
        None,
        CapabilitySets {
            inheritable: own.permitted,
            ..own
        },
    )?;
    each()
        .filter(|one| own.permitted.contains(*one))
        .try_for_each(|one| configure_capability_in_ambient_set(one, true).map_err(io::Error::from))
}

/// Empties all five sets, the bounding set first (it needs a privilege), and forbids gaining any by a program's
/// set-uid bit. Also for uid 0, to whom a program start would give back what the bounding set still holds.
pub(super) fn drop_all() -> io::Result<()> {
    for one in each() {
        match remove_capability_from_bounding_set(one) {
            // The first number that this kernel does not know.
            Err(Errno::INVAL) => break,
            other => other?,
        }
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    Ok(set_no_new_privs(true)?)
}

/// Every number a kernel can have, known to this program or not.
fn each() -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number))
}
