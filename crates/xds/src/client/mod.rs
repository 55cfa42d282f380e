//! A client of secrets: asks a server for them by name, holds what it was given, and says how it stands with each.
//!
//! What was given last stays in force while the server is away; how long that is bearable is the caller's to say, from
//! [`SecretClient::silent_for`]. What the server takes back, empties, or lets run out is absent from that moment.

mod address;
mod cache;
mod delta;
mod follow;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod link;
mod read;
mod secret;
mod stream;
mod world;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use cache::Cache;
use follow::follow;
use outgate_clock::{Clock, machine};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

pub use address::Target;
pub use secret::{Secret, SecretFault, SecretState, SecretValue};

use address::Address;

use crate::clean::clean;

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Incrementally: what does not exist is said at once.
    Delta,
    /// For servers that know only this. What does not exist is not said; it counts as absent after 15 seconds.
    StateOfTheWorld,
    /// The first, or the second where the server says that it does not know the first.
    Auto,
}

/// Secrets of one server. Clones share a connection and what came over it; the connection ends with the last of them.
#[derive(Clone)]
pub struct SecretClient(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

/// What the calls and the connection share.
struct Shared {
    node_id: String,
    protocol: Protocol,
    cache: Mutex<Cache>,
    /// Another name is wanted, or one is no more.
    wanted: Notify,
    target: watch::Sender<Arc<Address>>,
    standing: Mutex<Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    connected: bool,
    /// By the machine's own clock, asleep or awake.
    heard: Option<Duration>,
    problem: Option<String>,
}

/// A secret that is kept up to date for as long as this is held.
pub struct SecretWatch {
    states: watch::Receiver<SecretState>,
    _client: SecretClient,
}

impl SecretClient {
    /// A client that connects when the first secret is wanted. To be called within a runtime.
    ///
    /// # Errors
    /// [`SecretFault::Target`], where the certificates cannot be used.
    pub fn new(target: Target, node_id: &str, protocol: Protocol) -> Result<Self, SecretFault> {
        let shared = Arc::new(Shared {
            node_id: clean(node_id, crate::talk::NODE_BYTES),
            protocol,
            cache: Mutex::new(Cache::default()),
            wanted: Notify::new(),
            target: watch::Sender::new(Arc::new(Address::of(target)?)),
            standing: Mutex::default(),
        });
        let task = tokio::spawn(follow(Arc::clone(&shared)));
        Ok(Self(Arc::new(Handle {
            shared,
            _task: AbortOnDropHandle::new(task),
        })))
    }

    /// Keeps this secret up to date.
    ///
    /// # Errors
    /// [`SecretFault::Name`], [`SecretFault::TooMany`].
    pub fn watch(&self, name: &str) -> Result<SecretWatch, SecretFault> {
        Ok(SecretWatch {
            states: self.subscribe(name)?,
            _client: self.clone(),
        })
    }

    /// The secret, waiting for it this long if it was not asked for before. It is kept up to date for ten minutes from
    /// its last use, then forgotten.
    ///
    /// # Errors
    /// [`SecretFault`].
    pub async fn get(&self, name: &str, wait: Duration) -> Result<Arc<Secret>, SecretFault> {
        let mut states = self.subscribe(name)?;
        let settled = async {
            loop {
                let state = states.borrow_and_update().clone();
                match state {
                    SecretState::Present(secret) => return Ok(secret),
                    SecretState::Absent => return Err(SecretFault::Absent),
                    SecretState::Waiting => {}
                }
                if states.changed().await.is_err() {
                    return Err(SecretFault::Absent);
                }
            }
        };
        match tokio::time::timeout(wait, settled).await {
            Ok(settled) => settled,
            Err(_) => Err(self.problem().map_or(SecretFault::Timeout, |problem| {
                SecretFault::Unavailable(problem)
            })),
        }
    }

    /// For how long the server may have had something to say that was not heard, also while this machine was asleep:
    /// zero, while it is connected; it is asked whether it is there every five seconds, and has five to answer. `None`:
    /// it never was.
    #[must_use]
    pub fn silent_for(&self) -> Option<Duration> {
        let standing = self.0.shared.standing();
        match standing.connected {
            true => Some(Duration::ZERO),
            false => Some(machine().monotonic().saturating_sub(standing.heard?)),
        }
    }

    /// Why there is no connection, where one is wanted and there is none.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.0.shared.standing().problem.clone()
    }

    /// Connects elsewhere, or with another certificate. What is held stays.
    ///
    /// # Errors
    /// [`SecretFault::Target`]; the one before is used on then.
    pub fn set_target(&self, target: Target) -> Result<(), SecretFault> {
        let address = Arc::new(Address::of(target)?);
        self.0.shared.target.send_replace(address);
        Ok(())
    }

    fn subscribe(&self, name: &str) -> Result<watch::Receiver<SecretState>, SecretFault> {
        let (states, is_new) = self.0.shared.cache().subscribe(name, Instant::now())?;
        if is_new {
            self.0.shared.wanted.notify_one();
        }
        Ok(states)
    }
}

impl Shared {
    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connected(&self) {
        *self.standing() = Standing {
            connected: true,
            heard: Some(machine().monotonic()),
            problem: None,
        };
    }

    /// `silence`: for how long the server may have been gone without its being noticed.
    fn disconnected(&self, problem: String, silence: Duration) {
        let mut standing = self.standing();
        if standing.connected {
            let began = standing.heard;
            let heard = machine().monotonic().checked_sub(silence);
            standing.heard = heard.max(began);
        }
        standing.connected = false;
        standing.problem = Some(problem);
    }
}

impl SecretWatch {
    /// How it stands at this moment.
    #[must_use]
    pub fn state(&self) -> SecretState {
        self.states.borrow().clone()
    }

    /// How it stands once that has changed since the last call of this.
    pub async fn changed(&mut self) -> SecretState {
        if self.states.changed().await.is_err() {
            // Its name is kept for as long as this is held; nothing else ends it.
            std::future::pending::<()>().await;
        }
        self.states.borrow_and_update().clone()
    }
}

impl std::fmt::Debug for SecretClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretClient({:?})", self.0.shared.standing())
    }
}

impl std::fmt::Debug for SecretWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretWatch({:?})", self.state())
    }
}
