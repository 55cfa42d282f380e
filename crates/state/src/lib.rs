//! Decides how a file that only the gateway may read comes to be, and refuses to use one that others can read.
//!
//! A file appears whole or not at all: it is written beside its place, flushed to disk, then renamed (to replace) or
//! linked (to create, where the first of two processes wins). It is private from its first byte, whatever the umask.
//! A key that others could have read counts as known to them, so reading it fails instead of mending its mode. What the
//! deployment mounts may be readable for this process's group besides.

mod file;
mod mounted;
mod pem;

pub use file::{
    Created, DirLock, StateError, create_private_dir, create_private_exclusive,
    create_public_exclusive, lock_dir, read_private, read_private_up_to, write_group_atomic,
    write_private_atomic, write_public_atomic,
};
pub use mounted::{is_open_to_others, read_mounted_public, read_mounted_secret};
pub use pem::{certificate_to_pem, private_key_from_pem, private_key_to_pem};
