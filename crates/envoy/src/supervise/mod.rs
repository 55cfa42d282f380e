//! One Envoy as a child of this process: found, checked, started, watched, started again, ended.
//!
//! What it refuses: an Envoy that is too old to know what the configuration needs; a configuration that Envoy itself
//! refuses; flags that would take Envoy out of its hands; an Envoy that would go on without its supervisor.
//!
//! Envoy never outlives this process. A helper, which is this program in another role, asks the kernel for a deadly
//! signal at the end of its parent and then becomes Envoy. That signal is the parent *thread's*, so that a thread of
//! its own starts Envoy and lives exactly as long.

mod admin;
mod backoff;
mod binary;
mod error;
mod event;
mod flags;
mod helper;
mod lines;
mod log;
mod process;
mod run;
mod stop;
mod watch;

pub use self::{
    admin::AdminPlace,
    binary::{EnvoyBinary, NEWEST_KNOWN, OLDEST, Version},
    error::SuperviseError,
    event::{Event, Level, LogLine, Notice, Ready},
    helper::{HELPER, helper},
    run::{Expected, Order, Setup, supervise},
};
