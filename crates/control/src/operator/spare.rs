//! File descriptors for the moment when the process has none left: a flooded data plane must not take the operator's.

use std::{fs::File, io, time::Duration};

const AFTER_A_FAILED_ACCEPT: Duration = Duration::from_millis(20);

/// Descriptors put aside, so that there is one for a caller when the process has used up all others.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<File>);

impl Spare {
    const COUNT: usize = 8;

    /// Takes what there is to take. Not between a failed accept and the next one: what was let go is for that.
    pub(crate) fn refill(&mut self) {
        while self.0.len() < Self::COUNT {
            match File::open("/dev/null") {
                Ok(file) => self.0.push(file),
                Err(_) => return,
            }
        }
    }

    /// What to do about a failed accept.
    pub(crate) async fn help(&mut self, error: &io::Error) {
        let exhausted = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
        if exhausted && self.0.pop().is_some() {
            return;
        }
        tracing::warn!(%error, "operator: accept failed");
        tokio::time::sleep(AFTER_A_FAILED_ACCEPT).await;
    }
}
