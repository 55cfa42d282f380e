//! Decides which files of the deployment's are taken: those that nobody but root or this process's user wrote. Kubernetes
//! mounts a secret as root's, readable for the group that the pod's volumes have (`fsGroup`), so the right to read of a
//! group that this process is in is no exposure. The gateway's own state has no such group: [`crate::read_private`].

use std::{fs::Metadata, os::unix::fs::MetadataExt, path::Path};

use zeroize::Zeroizing;

use crate::file::{READ_LIMIT, StateError, check_mode, read_judged};

const GROUP_READ: u32 = 0o040;
const OTHERS_READ: u32 = 0o004;

/// Reads a secret that the deployment mounts, of at most 4 MiB. Links are followed, and what they lead to is judged.
///
/// # Errors
/// [`StateError`]: also where others have any right to it, a group may write it, a group that this process is not in may
/// read it, or another user than root owns it.
pub fn read_mounted_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, StateError> {
    read_judged(path, READ_LIMIT, |meta| {
        let (refused, wanted) = of_secret(is_own_group(meta.gid()));
        check_mode(path, meta, refused, wanted)
    })
}

/// As [`read_mounted_secret`], for what anybody may read: nobody else may write it.
///
/// # Errors
/// [`StateError`].
pub fn read_mounted_public(path: &Path) -> Result<Zeroizing<Vec<u8>>, StateError> {
    read_judged(path, READ_LIMIT, |meta| {
        check_mode(path, meta, 0o022, 0o644)
    })
}

/// Whether a file can be read by somebody else than its owner and a group that this process is in.
#[must_use]
pub fn is_open_to_others(meta: &Metadata) -> bool {
    meta.mode() & read_by_others(is_own_group(meta.gid())) != 0
}

/// The permission bits that a secret must not have, and those to tell its owner.
const fn of_secret(own_group: bool) -> (u32, u32) {
    if own_group {
        (0o037, 0o640)
    } else {
        (0o077, 0o600)
    }
}

const fn read_by_others(own_group: bool) -> u32 {
    if own_group {
        OTHERS_READ
    } else {
        GROUP_READ | OTHERS_READ
    }
}

fn is_own_group(group: u32) -> bool {
    if rustix::process::getegid().as_raw() == group {
        return true;
    }
    let others = rustix::process::getgroups().unwrap_or_default();
    others.iter().any(|own| own.as_raw() == group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_the_process_is_not_in_is_others() {
        for (mode, own, foreign) in [
            (0o400, true, true),
            (0o600, true, true),
            (0o440, true, false),
            (0o640, true, false),
            (0o460, false, false),
            (0o441, false, false),
            (0o444, false, false),
        ] {
            assert_eq!(mode & of_secret(true).0 == 0, own, "{mode:o}");
            assert_eq!(mode & of_secret(false).0 == 0, foreign, "{mode:o}");
        }
        assert_eq!(0o440 & read_by_others(true), 0);
        assert_ne!(0o440 & read_by_others(false), 0);
        assert_ne!(0o404 & read_by_others(true), 0);
    }

    #[test]
    fn the_groups_of_the_process_are_its_own_one_and_the_further_ones() {
        assert!(is_own_group(rustix::process::getegid().as_raw()));
        for further in rustix::process::getgroups().unwrap() {
            assert!(is_own_group(further.as_raw()));
        }
        assert!(!is_own_group(u32::MAX - 7));
    }
}
