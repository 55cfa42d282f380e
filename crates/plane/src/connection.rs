//! A guest's connection as every plane keeps it: admitted once, counted for each session and destination that is seen on
//! it, and ended with any of those sessions.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::select_all;
use outgate_control::sessions::Activity;
use outgate_journey::{
    denial::{Denial, DenyCode},
    destination::Destination,
    gate::{ConnectionPass, count_connection, resolve_destination},
    policy::{AllowedDestination, Posture},
    resolve::ResolvedDestination,
    session::{Session, SessionId},
};
use tokio::sync::watch;

use crate::{
    Core, Live,
    limits::ConnectionSlot,
    trail::{Trail, code_of},
    tripwire::Seen,
};

/// How many pairs of session and destination one connection is counted for at once.
const MAX_COUNTED: usize = 64;

/// A connection that may be opened.
pub struct AdmittedConnection {
    /// The policy that it was judged by.
    pub live: Arc<Live>,
    /// Its pass.
    pub pass: ConnectionPass,
    /// Its place among its session's, where it has one.
    pub slot: Option<ConnectionSlot>,
    /// The addresses that may be dialled for it.
    pub resolved: ResolvedDestination,
}

/// The journey of a judged connection, on every way in, up to where it may be opened.
///
/// # Errors
/// Whatever the first failing stage says.
pub async fn admit_connection(
    core: &Arc<Core>,
    live: Arc<Live>,
    pass: ConnectionPass,
    trail: &mut Trail,
) -> Result<AdmittedConnection, Denial> {
    let mut slot = None;
    if let Some(session) = pass.session() {
        trail.note_session(session);
        let allowed = pass.allowed();
        slot = Some(count_connection(
            &core.plane,
            &live.policy,
            session,
            allowed,
        )?);
        let host = allowed.destination().host();
        let shows_requests = allowed.rule().posture == Posture::Bump || allowed.rule().plaintext;
        let seen = if shows_requests {
            Seen::Connection(host)
        } else {
            Seen::Request(host)
        };
        core.watch_session(&live, session, seen)?;
    }
    let resolved = resolve_destination(&core.plane, &live.policy, pass.allowed().clone()).await?;
    Ok(AdmittedConnection {
        live,
        pass,
        slot,
        resolved,
    })
}

/// Whom a connection is counted for, and whose end is its own.
#[derive(Default)]
pub struct ConnectionUse {
    counted: Mutex<Vec<(SessionId, Destination, ConnectionSlot)>>,
    /// The sessions that were seen on it, each with the signal that ends it.
    sessions: watch::Sender<Vec<Arc<Activity>>>,
}

impl ConnectionUse {
    /// Keeps a slot that was counted before the connection carried requests.
    pub fn keep_slot(
        &self,
        core: &Core,
        session: &Session,
        destination: &Destination,
        slot: ConnectionSlot,
    ) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.push((session.id().clone(), destination.clone(), slot));
        self.follow(&core.plane.sessions.activity(session.claims()));
    }

    /// Ends the connection with the session, also while the guest takes nothing and no body is asked for its bytes.
    pub fn follow(&self, activity: &Arc<Activity>) {
        self.sessions.send_if_modified(|known| {
            let is_new = !known.iter().any(|other| Arc::ptr_eq(other, activity));
            if is_new {
                known.push(Arc::clone(activity));
            }
            is_new
        });
    }

    /// Counts the connection for a session and destination, the first time that they are seen on it.
    ///
    /// # Errors
    /// [`DenyCode::ConnectionLimit`] or [`DenyCode::DestinationsLimit`].
    pub fn count(
        &self,
        core: &Core,
        live: &Live,
        session: &Session,
        allowed: &AllowedDestination,
    ) -> Result<(), Denial> {
        let destination = allowed.destination();
        let is_counted = |counted: &Vec<(SessionId, Destination, _)>| {
            counted.iter().any(|(id, known, _)| {
                id == session.id()
                    && known.host() == destination.host()
                    && known.port() == destination.port()
            })
        };
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if is_counted(&counted) {
            return Ok(());
        }
        // One connection may name any number of destinations; the oldest are counted anew if they come back.
        if counted.len() >= MAX_COUNTED {
            counted.remove(0);
        }
        let slot = count_connection(&core.plane, &live.policy, session, allowed)?;
        counted.push((session.id().clone(), destination.clone(), slot));
        self.follow(&core.plane.sessions.activity(session.claims()));
        Ok(())
    }

    /// Waits until any session that was seen on the connection is over, and says why it is.
    pub async fn session_ended(&self) -> DenyCode {
        let mut sessions = self.sessions.subscribe();
        loop {
            let seen = sessions.borrow_and_update().clone();
            let ends = seen.iter().map(|it| Box::pin(ended(it)));
            tokio::select! {
                code = first_of(ends) => return code,
                changed = sessions.changed() => if changed.is_err() {
                    return DenyCode::InternalFault;
                },
            }
        }
    }
}

async fn ended(activity: &Activity) -> DenyCode {
    activity.cut().cancelled().await;
    code_of(activity)
}

async fn first_of<T, F: Future<Output = T> + Unpin>(futures: impl Iterator<Item = F>) -> T {
    let futures: Vec<F> = futures.collect();
    if futures.is_empty() {
        std::future::pending().await
    } else {
        select_all(futures).await.0
    }
}
