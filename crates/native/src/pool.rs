//! Upstream connections that are kept for reuse. A connection belongs to one session and one destination: it never
//! carries another session's request, so neither a credential nor a confused upstream can cross sessions.
//!
//! The table is locked for look-ups, and for the look at what is idle every few seconds; never across an await.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use foldhash::quality::RandomState;
use hyper::client::conn::http2;
use outgate_journey::{destination::Destination, session::SessionId};
use tokio::sync::{Notify, futures::OwnedNotified};

use crate::{body::RequestBody, upstream::Http1};

/// How long an unused connection is kept.
const KEEP_IDLE: Duration = Duration::from_secs(60);
/// How many unused HTTP/1.1 connections one key keeps.
const MAX_IDLE_PER_KEY: usize = 32;

/// Which requests may share a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    /// Host, port and transport.
    pub(crate) destination: Destination,
    /// The session, or none where the rule needs none.
    pub(crate) session: Option<SessionId>,
    /// The policy that its addresses were vetted under.
    pub(crate) policy: u64,
    /// Whether HTTP/2 was offered: the two legs speak the same protocol where they can.
    pub(crate) http2: bool,
}

/// A connection on which one request can be sent.
pub(crate) enum Sender {
    /// HTTP/1.1: one request at a time.
    Http1(Box<Http1>),
    /// HTTP/2: a handle to a shared connection.
    Http2(http2::SendRequest<RequestBody>),
}

/// A connection taken for one request.
pub(crate) struct Connected {
    pub(crate) sender: Sender,
    pub(crate) peer: SocketAddr,
    /// Whether it was in the pool: then the upstream may have closed it unseen.
    pub(crate) reused: bool,
}

struct Idle {
    connection: Box<Http1>,
    peer: SocketAddr,
    since: Instant,
}

impl Idle {
    fn is_of_use(&mut self) -> bool {
        self.since.elapsed() < KEEP_IDLE && self.connection.is_free()
    }
}

#[derive(Default)]
struct Kept {
    http1: Vec<Idle>,
    http2: Option<(http2::SendRequest<RequestBody>, SocketAddr, Instant)>,
    /// Somebody is dialling the shared connection; told when that is over.
    dialling: Option<Arc<Notify>>,
}

/// Its keys are names that policy lists and sessions that exist: nothing that a guest could choose to collide.
type Table = HashMap<PoolKey, Kept, RandomState>;

/// The pool.
#[derive(Default)]
pub(crate) struct Pool {
    table: Mutex<Table>,
}

/// What there is for a key.
enum Entry {
    Idle(Idle),
    Other(Found),
}

/// What a look-up found.
pub(crate) enum Found {
    /// A connection.
    Connection(Connected),
    /// None; the caller dials. For HTTP/2 others wait until the turn is dropped.
    Dial(DialTurn),
    /// Somebody else dials; ask again when told.
    Wait(OwnedNotified),
}

impl Pool {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection, or the turn to dial one.
    pub(crate) fn find(self: &Arc<Self>, key: &PoolKey) -> Found {
        loop {
            match self.look_up(key) {
                Entry::Idle(mut idle) => {
                    if idle.is_of_use() {
                        return Found::Connection(Connected {
                            sender: Sender::Http1(idle.connection),
                            peer: idle.peer,
                            reused: true,
                        });
                    }
                    idle.connection.close();
                }
                Entry::Other(found) => return found,
            }
        }
    }

    fn look_up(self: &Arc<Self>, key: &PoolKey) -> Entry {
        let mut table = self.table();
        let no_turn = || {
            Entry::Other(Found::Dial(DialTurn {
                pool: Arc::clone(self),
                key: None,
            }))
        };
        let kept = match table.get_mut(key) {
            Some(kept) => kept,
            None if key.http2 => table.entry(key.clone()).or_default(),
            None => return no_turn(),
        };
        if let Some((sender, peer, used)) = &mut kept.http2 {
            if !sender.is_closed() {
                *used = Instant::now();
                let sender = Sender::Http2(sender.clone());
                return Entry::Other(Found::Connection(Connected {
                    sender,
                    peer: *peer,
                    reused: true,
                }));
            }
            kept.http2 = None;
        }
        if let Some(idle) = kept.http1.pop() {
            return Entry::Idle(idle);
        }
        if !key.http2 {
            return no_turn();
        }
        if let Some(dialling) = &kept.dialling {
            // Made under the lock: being told between here and the await is not missed.
            return Entry::Other(Found::Wait(Arc::clone(dialling).notified_owned()));
        }
        kept.dialling = Some(Arc::new(Notify::new()));
        Entry::Other(Found::Dial(DialTurn {
            pool: Arc::clone(self),
            key: Some(key.clone()),
        }))
    }

    /// Shares an HTTP/2 connection.
    pub(crate) fn share(
        &self,
        key: &PoolKey,
        sender: http2::SendRequest<RequestBody>,
        peer: SocketAddr,
    ) {
        self.table().entry(key.clone()).or_default().http2 = Some((sender, peer, Instant::now()));
    }

    /// Gives back an HTTP/1.1 connection whose exchange is complete.
    pub(crate) fn give_back(&self, key: PoolKey, mut connection: Box<Http1>, peer: SocketAddr) {
        if !connection.is_free() {
            connection.give_a_task();
        }
        if connection.is_closed() {
            return;
        }
        let mut table = self.table();
        let kept = table.entry(key).or_default();
        if kept.http1.len() < MAX_IDLE_PER_KEY {
            let since = Instant::now();
            kept.http1.push(Idle {
                connection,
                peer,
                since,
            });
            return;
        }
        drop(table);
        connection.close();
    }

    /// Drops every kept connection: the policy that they were vetted under is over.
    pub(crate) fn clear(&self) {
        let mut over = Vec::new();
        self.table().retain(|_, kept| {
            over.append(&mut kept.http1);
            kept.http2 = None;
            kept.dialling.is_some()
        });
        close(over);
    }

    /// Drops what was not used for a while or belongs to a session that is over: run every few seconds.
    pub(crate) fn sweep(&self, is_over: impl Fn(&SessionId) -> bool) {
        let mut over = Vec::new();
        self.table().retain(|key, kept| {
            if key.session.as_ref().is_some_and(&is_over) {
                over.append(&mut kept.http1);
                kept.http2 = None;
            }
            over.extend(kept.http1.extract_if(.., |idle| !idle.is_of_use()));
            // Streams that are still open hold handles of their own.
            kept.http2
                .take_if(|(sender, _, used)| sender.is_closed() || used.elapsed() >= KEEP_IDLE);
            !kept.http1.is_empty() || kept.http2.is_some() || kept.dialling.is_some()
        });
        close(over);
    }
}

/// Not under the lock: it may take the system a while.
fn close(over: Vec<Idle>) {
    for idle in over {
        idle.connection.close();
    }
}

/// The turn to dial a shared connection; the next one gets it on drop.
pub(crate) struct DialTurn {
    pool: Arc<Pool>,
    key: Option<PoolKey>,
}

impl Drop for DialTurn {
    fn drop(&mut self) {
        let Some(key) = &self.key else { return };
        let told = self
            .pool
            .table()
            .get_mut(key)
            .and_then(|kept| kept.dialling.take());
        if let Some(told) = told {
            told.notify_waiters();
        }
    }
}
