//! What a gateway last verified, on its disk, so that it can go on after a restart while the control plane is away.
//!
//! Two files: the state, and beside it a short note, written often, of when its denylist was last known to be current.
//! Each appears whole, is private, and carries its own digest; a file that is torn, edited, readable by others or of
//! another control plane is not used, and then nothing is: no policy and no keys let nothing through. The digest tells
//! accidents and hands, not an intruder with the gateway's own rights, who could as well read its TLS key. Nothing in
//! here is secret: policy text, public keys, denylist.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use outgate_clock::Clock;
use outgate_fleet_proto as pb;
use outgate_state::{StateError, create_private_dir, read_private_up_to, write_private_atomic};
use prost::Message;
use zeroize::Zeroizing;

use crate::error::LastStateError;

/// A denylist of a million facts and the longest policy fit.
const READ_LIMIT: u64 = 512 * 1024 * 1024;
const STATE: &[u8] = b"outgate fleet state 1\n";
const HEARD: &[u8] = b"outgate fleet heard 1\n";
const DIGEST_BYTES: usize = 32;

/// The place of the two files.
#[derive(Debug)]
pub(crate) struct LastState {
    path: PathBuf,
    heard: PathBuf,
    /// Which control plane it has to be of.
    origin: String,
}

/// Names one written state.
pub(crate) type StateDigest = Vec<u8>;

impl LastState {
    pub(crate) fn new(path: PathBuf, origin: String) -> Self {
        let mut heard = path.clone().into_os_string();
        heard.push(".heard");
        Self {
            path,
            heard: heard.into(),
            origin,
        }
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// What was kept, and its digest. `None`: nothing was.
    pub(crate) fn load(&self) -> Result<Option<(pb::Kept, StateDigest)>, LastStateError> {
        let Some(bytes) = read(&self.path)? else {
            return Ok(None);
        };
        let (body, sum) = open(STATE, &bytes).ok_or_else(|| self.damaged("its digest is wrong"))?;
        let mut kept = pb::Kept::decode(body).map_err(|_| self.damaged("it cannot be read"))?;
        if kept.origin != self.origin {
            return Err(LastStateError::Foreign(self.path.clone()));
        }
        // A note of another state, or none that can be read: the state's own time holds, which is earlier.
        let note = read(&self.heard).ok().flatten();
        let note = note
            .as_ref()
            .and_then(|bytes| pb::Heard::decode(open(HEARD, bytes)?.0).ok())
            .filter(|note| note.state == sum);
        if note.is_some() {
            kept.heard = note;
        }
        Ok(Some((kept, sum)))
    }

    /// Writes a state that was encoded.
    pub(crate) fn save(&self, kept: &[u8]) -> Result<StateDigest, StateError> {
        if let Some(parent) = self.path.parent() {
            create_private_dir(parent)?;
        }
        let (bytes, sum) = seal(STATE, kept);
        write_private_atomic(&self.path, &bytes)?;
        Ok(sum)
    }

    /// Writes down that the denylist of the state of this digest was current then.
    pub(crate) fn save_heard(
        &self,
        state: &StateDigest,
        heard: &pb::Heard,
    ) -> Result<(), StateError> {
        let note = pb::Heard {
            state: state.clone(),
            ..heard.clone()
        };
        let (bytes, _) = seal(HEARD, &note.encode_to_vec());
        write_private_atomic(&self.heard, &bytes)
    }

    pub(crate) fn damaged(&self, why: &'static str) -> LastStateError {
        LastStateError::Damaged {
            path: self.path.clone(),
            why,
        }
    }
}

/// When something that is this old was heard, on both clocks.
pub(crate) fn heard_at(clock: &dyn Clock, age: Duration) -> pb::Heard {
    let monotonic = clock.monotonic().saturating_sub(age);
    pb::Heard {
        unix_seconds: clock.unix().0.saturating_sub(age.as_secs()),
        monotonic_ms: u64::try_from(monotonic.as_millis()).unwrap_or(u64::MAX),
        state: Vec::new(),
    }
}

/// How old that is by now. `None` where the clock stands before it, which tells nothing.
///
/// The wall clock may have been set back while no process ran. If the machine has been up all the while, its own clock
/// knows better; if it has not, that clock may say too much, which only makes the gateway wait for the control plane.
pub(crate) fn age_of(heard: &pb::Heard, clock: &dyn Clock) -> Option<Duration> {
    let wall = clock.unix().0.checked_sub(heard.unix_seconds)?;
    let now = u64::try_from(clock.monotonic().as_millis()).ok()?;
    let own = now.saturating_sub(heard.monotonic_ms);
    // The wall clock's seconds are cut off: it could be a second more.
    let wall = Duration::from_secs(wall.saturating_add(1));
    Some(wall.max(Duration::from_millis(own)))
}

fn seal(kind: &[u8], body: &[u8]) -> (Vec<u8>, StateDigest) {
    let sum = sum(kind, body);
    let mut bytes = Vec::with_capacity(kind.len() + sum.len() + body.len());
    for part in [kind, &sum, body] {
        bytes.extend_from_slice(part);
    }
    (bytes, sum)
}

fn open<'a>(kind: &[u8], bytes: &'a [u8]) -> Option<(&'a [u8], StateDigest)> {
    let rest = bytes.strip_prefix(kind)?;
    let (written, body) = rest.split_at_checked(DIGEST_BYTES)?;
    let sum = sum(kind, body);
    (written == sum).then_some((body, sum))
}

fn sum(kind: &[u8], body: &[u8]) -> StateDigest {
    let mut context = aws_lc_rs::digest::Context::new(&SHA256);
    context.update(kind);
    context.update(body);
    context.finish().as_ref().to_vec()
}

/// Which control plane a kept state is of: its address, and the CA that it was verified by.
pub(crate) fn origin(url: &str, ca: &[u8]) -> String {
    let sum = digest(&SHA256, ca);
    let hex: String = sum.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("{url} {hex}")
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
    match read_private_up_to(path, READ_LIMIT) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
