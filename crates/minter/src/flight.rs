//! One mint at a time for one name, however many ask. What comes of it, all are told: the refusal, too.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use outgate_journey::{
    denial::{Denial, DenyCode},
    name::HostName,
};
use tokio::sync::watch;

/// What came of a mint, once something did.
type Outcome<T> = Option<Result<T, Denial>>;
type ByHost<T> = HashMap<HostName, watch::Receiver<Outcome<T>>>;

/// Mints that are going on.
#[derive(Debug)]
pub(crate) struct Flights<T>(Mutex<ByHost<T>>);

/// Whoever has it does the work, and tells.
pub(crate) struct Lead<T>(watch::Sender<Outcome<T>>);

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// Waits for what comes of the mint for `host`; the first to ask starts it. It goes on when its askers are gone.
    pub(crate) async fn join(
        &self,
        host: &HostName,
        start: impl FnOnce(Lead<T>),
    ) -> Result<T, Denial> {
        let (mut receiver, lead) = {
            let mut flights = self.flights();
            if let Some(flight) = flights.get(host) {
                (flight.clone(), None)
            } else {
                let (sender, receiver) = watch::channel(None);
                flights.insert(host.clone(), receiver.clone());
                (receiver, Some(Lead(sender)))
            }
        };
        if let Some(lead) = lead {
            start(lead);
        }
        let told = receiver.wait_for(Option::is_some).await;
        told.ok()
            .and_then(|outcome| outcome.clone())
            .unwrap_or_else(|| {
                Err(Denial::new(DenyCode::InternalFault).because("the mint broke off"))
            })
    }

    /// Ends the mint: who asks from here on starts another one.
    pub(crate) fn land(&self, host: &HostName) {
        self.flights().remove(host);
    }

    fn flights(&self) -> MutexGuard<'_, ByHost<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Lead<T> {
    /// Tells everybody who waits.
    pub(crate) fn tell(self, outcome: Result<T, Denial>) {
        self.0.send_replace(Some(outcome));
    }
}
