//! Upstream connections that are kept for reuse. A connection belongs to one session and one destination: it never
//! carries another session's request, so neither a credential nor a confused upstream can cross sessions.
//!
//! The table is locked for look-ups only, never across an await.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use foldhash::quality::RandomState;
use hyper::client::conn::{http1, http2};
use outgate_journey::{destination::Destination, session::SessionId};
use tokio::sync::{Notify, futures::OwnedNotified};

use crate::body::RequestBody;

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
    Http1(http1::SendRequest<RequestBody>),
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

#[derive(Default)]
struct Kept {
    http1: Vec<(http1::SendRequest<RequestBody>, SocketAddr, Instant)>,
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
        let mut table = self.table();
        let no_turn = || {
            Found::Dial(DialTurn {
                pool: Arc::clone(self),
                key: None,
            })
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
                return Found::Connection(Connected {
                    sender,
                    peer: *peer,
                    reused: true,
                });
            }
            kept.http2 = None;
        }
        while let Some((sender, peer, since)) = kept.http1.pop() {
            if !sender.is_closed() && sender.is_ready() && since.elapsed() < KEEP_IDLE {
                let sender = Sender::Http1(sender);
                return Found::Connection(Connected {
                    sender,
                    peer,
                    reused: true,
                });
            }
        }
        if !key.http2 {
            return no_turn();
        }
        if let Some(dialling) = &kept.dialling {
            // Made under the lock: being told between here and the await is not missed.
            return Found::Wait(Arc::clone(dialling).notified_owned());
        }
        kept.dialling = Some(Arc::new(Notify::new()));
        Found::Dial(DialTurn {
            pool: Arc::clone(self),
            key: Some(key.clone()),
        })
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
    pub(crate) fn give_back(
        &self,
        key: PoolKey,
        sender: http1::SendRequest<RequestBody>,
        peer: SocketAddr,
    ) {
        if sender.is_closed() {
            return;
        }
        let mut table = self.table();
        let kept = table.entry(key).or_default();
        if kept.http1.len() < MAX_IDLE_PER_KEY {
            kept.http1.push((sender, peer, Instant::now()));
        }
    }

    /// Drops every kept connection: the policy that they were vetted under is over.
    pub(crate) fn clear(&self) {
        self.table().retain(|_, kept| {
            kept.http1.clear();
            kept.http2 = None;
            kept.dialling.is_some()
        });
    }

    /// Drops what was not used for a while or belongs to a session that is over: run every few seconds.
    pub(crate) fn sweep(&self, is_over: impl Fn(&SessionId) -> bool) {
        self.table().retain(|key, kept| {
            if key.session.as_ref().is_some_and(&is_over) {
                kept.http1.clear();
                kept.http2 = None;
            }
            kept.http1
                .retain(|(sender, _, since)| !sender.is_closed() && since.elapsed() < KEEP_IDLE);
            // Streams that are still open hold handles of their own.
            kept.http2
                .take_if(|(sender, _, used)| sender.is_closed() || used.elapsed() >= KEEP_IDLE);
            !kept.http1.is_empty() || kept.http2.is_some() || kept.dialling.is_some()
        });
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
