//! Decides whether a session still is: the denylist, and the signal that cuts what a session has open. Ending a
//! session is on disk before it is acknowledged, in memory before that call returns, and wakes every tunnel and
//! stream that holds the session's signal.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use dashmap::{DashMap, DashSet};
use outgate_journey::session::{Denylist, SessionId, UnixSeconds};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::journal::{Entry, Journal, JournalError};

/// A session as the operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Its id.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// When its token ends, seconds since 1970.
    pub expires: u64,
    /// Whether it was ended by the operator.
    pub ended: bool,
    /// The operator's labels.
    pub labels: BTreeMap<String, String>,
}

/// Every session that this gateway issued or ended.
pub struct Sessions {
    /// `None`: in memory only.
    journal: Option<Mutex<Journal>>,
    known: DashMap<SessionId, SessionView>,
    revoked: DashSet<SessionId>,
    cuts: DashMap<SessionId, Arc<CancellationToken>>,
}

impl Sessions {
    /// Loads the journal. A session that was ended before a restart is ended after it.
    ///
    /// # Errors
    /// [`JournalError`]: a gateway that cannot read its denylist must not start.
    pub fn open(path: &Path, now: UnixSeconds) -> Result<Self, JournalError> {
        let (journal, entries) = Journal::open(path, now.0)?;
        let sessions = Self::with(Some(journal));
        entries.into_iter().for_each(|entry| sessions.apply(entry));
        Ok(sessions)
    }

    /// Sessions that end with this process, and leave nothing on disk.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::with(None)
    }

    fn with(journal: Option<Journal>) -> Self {
        Self {
            journal: journal.map(Mutex::new),
            known: DashMap::new(),
            revoked: DashSet::new(),
            cuts: DashMap::new(),
        }
    }

    /// Reads a journal that a running gateway may be writing to, without changing it.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn read(path: &Path, now: UnixSeconds) -> Result<impl Denylist, JournalError> {
        let ended = Journal::read(path, now.0)?
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::End { id, .. } => SessionId::parse(&id),
                Entry::Create { .. } => None,
            });
        Ok(ReadDenylist(ended.collect()))
    }

    fn apply(&self, entry: Entry) {
        match entry {
            Entry::Create {
                id,
                at,
                expires,
                labels,
            } => {
                if let Some(key) = SessionId::parse(&id) {
                    self.known.insert(
                        key,
                        SessionView {
                            id,
                            created: at,
                            expires,
                            ended: false,
                            labels,
                        },
                    );
                }
            }
            Entry::End { id, .. } => {
                if let Some(key) = SessionId::parse(&id) {
                    self.revoked.insert(key.clone());
                    if let Some(mut view) = self.known.get_mut(&key) {
                        view.ended = true;
                    }
                    if let Some((_, cut)) = self.cuts.remove(&key) {
                        cut.cancel();
                    }
                }
            }
        }
    }

    fn commit(&self, entry: Entry) -> Result<(), JournalError> {
        self.write(&entry)?;
        self.apply(entry);
        Ok(())
    }

    fn write(&self, entry: &Entry) -> Result<(), JournalError> {
        self.journal.as_ref().map_or(Ok(()), |journal| {
            // A panic while the lock was held left the journal as a failed write would: it is still usable.
            journal
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .append(entry)
        })
    }

    /// Records a new session. Blocks on the disk.
    ///
    /// # Errors
    /// [`JournalError::Io`]; then the session does not exist.
    pub fn create(
        &self,
        id: &SessionId,
        labels: BTreeMap<String, String>,
        expires: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<(), JournalError> {
        self.commit(Entry::Create {
            id: id.as_str().to_owned(),
            at: now.0,
            expires: expires.0,
            labels,
        })
    }

    /// Ends a session, known or not, and cuts what it has open. Blocks on the disk. Ending it again is no error.
    ///
    /// # Errors
    /// [`JournalError::Io`]; then it is cut and refused all the same until a restart.
    pub fn end(&self, id: &SessionId, now: UnixSeconds) -> Result<(), JournalError> {
        let entry = Entry::End {
            id: id.as_str().to_owned(),
            at: now.0,
        };
        // When in doubt, the session is over: the kill must not wait for a disk.
        self.apply(entry.clone());
        self.write(&entry)
    }

    /// Notes that a session has a token of a later end. In memory: a session whose tokens are renewed by this process
    /// ends with it.
    pub fn renew(&self, id: &SessionId, expires: UnixSeconds) {
        if let Some(mut view) = self.known.get_mut(id) {
            view.expires = view.expires.max(expires.0);
        }
    }

    /// Every session whose token has not run out, the newest first.
    #[must_use]
    pub fn list(&self, now: UnixSeconds) -> Vec<SessionView> {
        let mut views: Vec<_> = self
            .known
            .iter()
            .filter(|view| view.expires > now.0)
            .map(|view| view.clone())
            .collect();
        views.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
        views
    }

    /// Whether this gateway issued or ended the session.
    #[must_use]
    pub fn is_known(&self, id: &SessionId) -> bool {
        self.known.contains_key(id) || self.revoked.contains(id)
    }

    /// The signal that is given when the session is ended; already given if it was.
    #[must_use]
    pub fn cut_signal(&self, id: &SessionId) -> Arc<CancellationToken> {
        if let Some(cut) = self.cuts.get(id) {
            return Arc::clone(&cut);
        }
        let cut = self.cuts.entry(id.clone()).or_default().clone();
        // Ended between the look-up and the entry: the signal just made would never be given.
        if self.revoked.contains(id) {
            cut.cancel();
        }
        cut
    }

    /// Forgets what is over: run once in a while.
    pub fn sweep(&self, now: UnixSeconds) {
        self.known.retain(|_, view| view.expires > now.0);
        // A signal that nobody waits for can be made anew. A stream may outlive its token, and must still be cut.
        self.cuts.retain(|_, cut| Arc::strong_count(cut) > 1);
    }
}

impl Denylist for Sessions {
    fn is_revoked(&self, session: &SessionId) -> bool {
        self.revoked.contains(session)
    }
}

/// A denylist as it was when it was read.
struct ReadDenylist(DashSet<SessionId>);

impl Denylist for ReadDenylist {
    fn is_revoked(&self, session: &SessionId) -> bool {
        self.0.contains(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_000);

    fn open(dir: &tempfile::TempDir) -> Sessions {
        Sessions::open(&dir.path().join("sessions.jsonl"), NOW).unwrap()
    }

    fn id(text: &str) -> SessionId {
        SessionId::parse(text).unwrap()
    }

    #[test]
    fn an_ended_session_stays_ended_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let sessions = open(&dir);
        sessions
            .create(&id("a"), BTreeMap::new(), UnixSeconds(2_000), NOW)
            .unwrap();
        sessions.end(&id("a"), NOW).unwrap();
        sessions.end(&id("never-seen"), NOW).unwrap();
        let restarted = open(&dir);
        assert!(restarted.is_revoked(&id("a")) && restarted.is_revoked(&id("never-seen")));
        assert!(restarted.list(NOW)[0].ended);
        assert!(restarted.cut_signal(&id("a")).is_cancelled());
    }

    #[test]
    fn ending_a_session_gives_its_signal_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let sessions = open(&dir);
        let (a, b) = (sessions.cut_signal(&id("a")), sessions.cut_signal(&id("b")));
        sessions.end(&id("a"), NOW).unwrap();
        assert!(a.is_cancelled() && !b.is_cancelled());
        assert!(!sessions.is_revoked(&id("b")));
    }

    #[test]
    fn a_journal_that_cannot_be_written_still_cuts_the_session() {
        let dir = tempfile::tempdir().unwrap();
        let sessions = open(&dir);
        // A journal opened read-only fails every append, whoever runs the test.
        let path = dir.path().join("sessions.jsonl");
        *sessions.journal.as_ref().unwrap().lock().unwrap() = Journal::read_only(&path);
        assert!(
            sessions
                .create(&id("b"), BTreeMap::new(), UnixSeconds(2_000), NOW)
                .is_err()
        );
        assert!(!sessions.is_known(&id("b")));
        assert!(sessions.end(&id("a"), NOW).is_err());
        assert!(sessions.is_revoked(&id("a")));
    }

    #[test]
    fn the_sweep_forgets_sessions_that_ran_out_but_not_the_denylist() {
        let dir = tempfile::tempdir().unwrap();
        let sessions = open(&dir);
        sessions
            .create(&id("a"), BTreeMap::new(), UnixSeconds(2_000), NOW)
            .unwrap();
        sessions.end(&id("a"), NOW).unwrap();
        sessions.sweep(UnixSeconds(2_000));
        assert!(sessions.list(NOW).is_empty());
        assert!(sessions.is_revoked(&id("a")));
    }
}
