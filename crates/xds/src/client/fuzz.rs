//! A client's side of one stream, without the stream.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

use prost::Message;
use tokio::sync::{Notify, watch};

use super::{
    Protocol, SecretFault, SecretState, Shared, Target, address::Address, cache::Cache,
    delta::Delta, stream::Talk, world::World,
};

/// A client that wants secrets, and what one stream gives it.
pub struct Wanting {
    side: Box<dyn Side>,
    shared: Shared,
}

impl Wanting {
    /// In the incremental protocol.
    ///
    /// # Errors
    /// None: the target is not looked at.
    pub fn delta() -> Result<Self, SecretFault> {
        Self::of::<Delta>(Protocol::Delta)
    }

    /// In the state-of-the-world protocol.
    ///
    /// # Errors
    /// None: the target is not looked at.
    pub fn world() -> Result<Self, SecretFault> {
        Self::of::<World>(Protocol::StateOfTheWorld)
    }

    fn of<T: Talk + 'static>(protocol: Protocol) -> Result<Self, SecretFault> {
        let nowhere = Address::of(Target::Unix(PathBuf::new()))?;
        Ok(Self {
            side: Box::new(T::default()),
            shared: Shared {
                node_id: "fuzz".to_owned(),
                protocol,
                cache: Mutex::new(Cache::default()),
                wanted: Notify::new(),
                target: watch::Sender::new(Arc::new(nowhere)),
                standing: Mutex::default(),
            },
        })
    }

    /// Wants a secret for as long as what is returned is there, and says how it stands with it.
    ///
    /// # Errors
    /// [`SecretFault::Name`].
    pub fn want(&self, name: &str) -> Result<watch::Receiver<SecretState>, SecretFault> {
        let (states, _) = self.shared.cache().subscribe(name, Instant::now())?;
        Ok(states)
    }

    /// The first request of the stream.
    pub fn first(&mut self) -> Vec<u8> {
        self.side.first(&self.shared)
    }

    /// What is to be said since something else is wanted.
    pub fn tell(&mut self) -> Option<Vec<u8>> {
        self.side.tell(&self.shared)
    }

    /// What a response is answered with; `None`: it is none.
    pub fn take(&mut self, response: &[u8]) -> Option<Vec<u8>> {
        self.side.take(&self.shared, response)
    }

    /// What runs out until then is withdrawn.
    pub fn expire(&self, now: Instant) {
        self.shared.cache().expire(now);
    }
}

impl std::fmt::Debug for Wanting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wanting")
    }
}

/// [`Talk`] in bytes.
trait Side {
    fn first(&mut self, shared: &Shared) -> Vec<u8>;
    fn tell(&mut self, shared: &Shared) -> Option<Vec<u8>>;
    fn take(&mut self, shared: &Shared, response: &[u8]) -> Option<Vec<u8>>;
}

impl<T: Talk> Side for T {
    fn first(&mut self, shared: &Shared) -> Vec<u8> {
        Talk::first(self, shared).encode_to_vec()
    }

    fn tell(&mut self, shared: &Shared) -> Option<Vec<u8>> {
        Some(Talk::tell(self, shared)?.encode_to_vec())
    }

    fn take(&mut self, shared: &Shared, response: &[u8]) -> Option<Vec<u8>> {
        let response = T::Response::decode(response).ok()?;
        Some(Talk::take(self, shared, response).encode_to_vec())
    }
}
