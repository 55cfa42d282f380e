//! The protocols without a connection, for `fuzz/`: bytes go in and come out, and time is told.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost::Message;

pub use crate::client::fuzz::Wanting;
use crate::{
    Client,
    codec::Outgoing,
    delta::Delta,
    door::bare::Coming,
    source::{Change, Lookup, Source},
    talk::{Asked, Host, Limits, Talk},
    world::World,
};

/// A server's side of one stream.
pub struct Serving {
    side: Box<dyn Side>,
    host: Host,
}

/// A name that is to be looked up.
#[derive(Debug, Clone)]
pub struct Question(Asked);

impl Question {
    /// Of which type.
    #[must_use]
    pub fn type_url(&self) -> &str {
        &self.0.type_url
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }
}

impl Serving {
    /// How long a response waits for the answer to the one before.
    pub const ANSWERING: Duration = Duration::from_secs(1000);
    /// How long a state of the world waits to be complete; longer than a run takes, so that only told time counts.
    pub const GATHERING: Duration = Duration::from_secs(500);
    /// Names that a stream may subscribe to.
    pub const SUBSCRIPTIONS: usize = 8;

    /// In the incremental protocol.
    #[must_use]
    pub fn delta(source: Arc<dyn Source>) -> Self {
        Self::of::<Delta>(source)
    }

    /// In the state-of-the-world protocol.
    #[must_use]
    pub fn world(source: Arc<dyn Source>) -> Self {
        Self::of::<World>(source)
    }

    fn of<T: Talk>(source: Arc<dyn Source>) -> Self {
        Self {
            side: Box::new(T::default()),
            host: Host {
                source,
                client: Client::new("fuzz", 1),
                node: Some("fuzz".to_owned()),
                limits: Limits {
                    subscriptions: Self::SUBSCRIPTIONS,
                    answering: Self::ANSWERING,
                    gathering: Self::GATHERING,
                    ..Limits::default()
                },
                only: None,
            },
        }
    }

    /// The client sends this.
    ///
    /// # Errors
    /// Why the stream ends.
    pub fn take(&mut self, request: &[u8]) -> Result<(), String> {
        self.side.take(request, &self.host)
    }

    /// Something has changed.
    pub fn changed(&mut self, change: &Change) {
        self.side.changed(change);
    }

    /// What is to be looked up next.
    pub fn next_question(&mut self) -> Option<Question> {
        self.side.next_question().map(Question)
    }

    /// A look-up has ended.
    pub fn answered(&mut self, question: &Question, lookup: Lookup) {
        self.side.answered(&question.0, lookup);
    }

    /// One that ended with [`Lookup::Later`] is due again.
    pub fn ask_again(&mut self, question: &Question) {
        self.side.ask_again(&question.0);
    }

    /// What the client is sent next.
    pub fn next_response(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.side.next_response(&self.host, now)
    }

    /// Until when there is nothing to send if nothing happens.
    #[must_use]
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.side.wake_at(&self.host, now)
    }
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Serving")
    }
}

/// [`Talk`] in bytes.
trait Side {
    fn take(&mut self, request: &[u8], host: &Host) -> Result<(), String>;
    fn changed(&mut self, change: &Change);
    fn next_question(&mut self) -> Option<Asked>;
    fn answered(&mut self, asked: &Asked, lookup: Lookup);
    fn ask_again(&mut self, asked: &Asked);
    fn next_response(&mut self, host: &Host, now: Instant) -> Option<Vec<u8>>;
    fn wake_at(&self, host: &Host, now: Instant) -> Option<Instant>;
}

impl<T: Talk> Side for T {
    fn take(&mut self, request: &[u8], host: &Host) -> Result<(), String> {
        let request = T::Request::decode(request).map_err(|error| error.to_string())?;
        Talk::take(self, request, host).map_err(|status| status.message().to_owned())
    }

    fn changed(&mut self, change: &Change) {
        Talk::changed(self, change);
    }

    fn next_question(&mut self) -> Option<Asked> {
        Talk::next_question(self)
    }

    fn answered(&mut self, asked: &Asked, lookup: Lookup) {
        Talk::answered(self, asked, lookup);
    }

    fn ask_again(&mut self, asked: &Asked) {
        Talk::ask_again(self, asked);
    }

    fn next_response(&mut self, host: &Host, now: Instant) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        Talk::next_response(self, host, now)?.write(&mut bytes);
        Some(bytes)
    }

    fn wake_at(&self, host: &Host, now: Instant) -> Option<Instant> {
        Talk::wake_at(self, host, now)
    }
}

/// What is read of the message of a call that comes in these pieces, or why it is refused.
///
/// # Errors
/// As a client is told.
pub fn message(pieces: &[&[u8]]) -> Result<Bytes, String> {
    let mut coming = Coming::default();
    let added = pieces
        .iter()
        .try_for_each(|piece| coming.add(Bytes::copy_from_slice(piece)));
    let read = added.and_then(|()| coming.whole());
    read.map_err(|status| status.message().to_owned())
}
