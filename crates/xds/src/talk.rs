//! What both protocols have in common: a conversation is a state machine that reads requests and changes, says which
//! names to look up, and makes the responses. It does no I/O; `drive` does.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tonic::Status;

use crate::{
    Client,
    codec::Outgoing,
    kinds::{Kinds, State},
    pb,
    source::{Change, Lookup, Node, Sent, Source},
};

/// The longest name of a resource.
pub(crate) const NAME_BYTES: usize = 512;
/// The longest version that a client is believed to have.
pub(crate) const VERSION_BYTES: usize = 512;
/// Types on one stream.
pub(crate) const TYPES: usize = 32;
/// The longest name of a type.
const TYPE_BYTES: usize = 256;
/// What is said of itself by a client: its id.
pub(crate) const NODE_BYTES: usize = 256;
/// … and why it refuses something.
pub(crate) const TEXT_BYTES: usize = 1024;

/// Bounds of one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Names subscribed to, of all types.
    pub(crate) subscriptions: usize,
    /// Look-ups at once.
    pub(crate) lookups: usize,
    /// How long a client may take to read what is ready for it.
    pub(crate) reading: Duration,
    /// How long the next response of a type waits for the answer to the one before.
    pub(crate) answering: Duration,
    /// How long a state of the world waits to be complete.
    pub(crate) gathering: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            subscriptions: 100_000,
            lookups: 64,
            reading: Duration::from_secs(30),
            answering: Duration::from_secs(5),
            gathering: Duration::from_secs(1),
        }
    }
}

/// Whom a stream is with.
pub(crate) struct Host {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) client: Client,
    /// The client's word for itself, once it has been said.
    pub(crate) node: Option<String>,
    pub(crate) limits: Limits,
    /// The one type of a stream that is not aggregated.
    pub(crate) only: Option<&'static str>,
}

impl Host {
    pub(crate) fn node(&self) -> Node<'_> {
        Node {
            client: &self.client,
            id: self.node.as_deref().unwrap_or_default(),
        }
    }

    /// Which type a request is about.
    pub(crate) fn type_of<'a>(&self, said: &'a str) -> Result<&'a str, Status> {
        match self.only {
            Some(only) if said.is_empty() || said == only => Ok(only),
            Some(only) => Err(Status::invalid_argument(format!(
                "this stream is of {only}"
            ))),
            None if said.is_empty() => {
                Err(Status::invalid_argument("a request has to name a type"))
            }
            None if said.len() > TYPE_BYTES => {
                Err(Status::invalid_argument("the name of a type is too long"))
            }
            None => Ok(said),
        }
    }

    pub(crate) fn report(&self, type_url: &str, sent: &[Sent], error: Option<&pb::Status>) {
        match error {
            None => self.source.acked(&self.node(), type_url, sent),
            Some(error) => {
                let text = crate::clean::clean(&error.message, TEXT_BYTES);
                tracing::debug!(client = %self.client.name, node = self.node().id, type_url, text, "a data plane refuses what it was sent");
                self.source.nacked(&self.node(), type_url, sent, &text);
            }
        }
    }
}

/// A name to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) type_url: Arc<str>,
    pub(crate) name: Arc<str>,
    /// Which of the type's look-ups this is, from 1.
    pub(crate) number: u64,
}

/// One stream's side of a protocol.
pub(crate) trait Talk: Default + Send + 'static {
    type Request: prost::Message + Default + 'static;
    type Response: Outgoing;
    type State: State;

    /// Who the client says it is.
    fn node(request: &Self::Request) -> Option<&pb::Node>;
    fn kinds(&mut self) -> &mut Kinds<Self::State>;
    /// # Errors
    /// What the client did that it may not. The stream ends.
    fn take(&mut self, request: Self::Request, host: &Host) -> Result<(), Status>;
    fn changed(&mut self, change: &Change) {
        self.kinds().changed(change);
    }
    /// Everything may have changed that the client has.
    fn changed_unseen(&mut self) {
        self.changed(&Change::Everything);
    }
    fn next_question(&mut self) -> Option<Asked> {
        self.kinds().next_question()
    }
    /// A name that could not be looked up is to be looked up again.
    fn ask_again(&mut self, asked: &Asked) {
        self.kinds().ask_again(asked);
    }
    fn answered(&mut self, asked: &Asked, lookup: Lookup);
    fn next_response(&mut self, host: &Host, now: Instant) -> Option<Self::Response>;
    /// When there may be a response though nothing happens until then; `now` is when there was none.
    fn wake_at(&self, host: &Host, now: Instant) -> Option<Instant>;
}

/// Where one name stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Asking {
    #[default]
    Not,
    Queued,
    /// Under this number.
    UnderWay(u64),
    /// It changed while it was looked up.
    UnderWayAndStale(u64),
}

/// Names to look up: those that a client waits for before those it has.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    awaited: VecDeque<Arc<str>>,
    stale: VecDeque<Arc<str>>,
    /// Look-ups that have begun.
    begun: u64,
}

impl Questions {
    /// For a client that waits.
    pub(crate) fn ask(&mut self, name: &Arc<str>, asking: &mut Asking) {
        if matches!(asking, Asking::Not | Asking::Queued) {
            // It may stand in the other queue as well; there it is passed over.
            *asking = Asking::Queued;
            self.awaited.push_back(Arc::clone(name));
        }
    }

    /// For a client that has one.
    pub(crate) fn ask_again(&mut self, name: &Arc<str>, asking: &mut Asking) {
        match asking {
            Asking::Not => {
                *asking = Asking::Queued;
                self.stale.push_back(Arc::clone(name));
            }
            Asking::UnderWay(number) => *asking = Asking::UnderWayAndStale(*number),
            Asking::Queued | Asking::UnderWayAndStale(_) => {}
        }
    }

    /// A look-up has ended. `false`: the name was let go of since that began. Whoever wants it again is not to take
    /// the older look-up's word for it, which may come after that of the newer one.
    pub(crate) fn answered(&mut self, asked: &Asked, asking: &mut Asking) -> bool {
        let is_stale = match *asking {
            Asking::UnderWay(number) if number == asked.number => false,
            Asking::UnderWayAndStale(number) if number == asked.number => true,
            _ => return false,
        };
        *asking = Asking::Not;
        if is_stale {
            self.ask_again(&asked.name, asking);
        }
        true
    }

    /// The next that is still wanted, which `claim` tells, and its number.
    pub(crate) fn next(
        &mut self,
        mut claim: impl FnMut(&Arc<str>, u64) -> bool,
    ) -> Option<(Arc<str>, u64)> {
        let number = self.begun + 1;
        loop {
            let name = self
                .awaited
                .pop_front()
                .or_else(|| self.stale.pop_front())?;
            if claim(&name, number) {
                self.begun = number;
                return Some((name, number));
            }
        }
    }
}

impl Asking {
    /// Whether it was this name's turn.
    pub(crate) fn claim(&mut self, number: u64) -> bool {
        let turn = *self == Self::Queued;
        if turn {
            *self = Self::UnderWay(number);
        }
        turn
    }
}

/// A response whose answer has not come.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) nonce: Arc<str>,
    pub(crate) since: Instant,
    pub(crate) sent: Vec<Sent>,
}

impl InFlight {
    /// What was sent, for whoever reads the log: each name, and whether it is gone.
    pub(crate) fn names(&self) -> Vec<(&str, bool)> {
        let sent = self.sent.iter();
        sent.map(|it| (&*it.name, it.version.is_none())).collect()
    }

    /// Until when the next response of the type waits.
    pub(crate) fn until(&self, host: &Host) -> Instant {
        self.since + host.limits.answering
    }
}

/// Numbers a stream's responses.
#[derive(Debug, Default)]
pub(crate) struct Nonces(u64);

impl Nonces {
    pub(crate) fn next(&mut self) -> Arc<str> {
        self.0 += 1;
        self.0.to_string().into()
    }
}

/// # Errors
/// For the client that sent it.
pub(crate) fn checked_name(name: &str) -> Result<Arc<str>, Status> {
    match name.len() {
        0 => Err(Status::invalid_argument("a resource's name is empty")),
        1..=NAME_BYTES => Ok(name.into()),
        _ => Err(Status::invalid_argument(format!(
            "a resource's name is longer than {NAME_BYTES} bytes"
        ))),
    }
}

pub(crate) fn too_many_names(limits: &Limits) -> Status {
    Status::resource_exhausted(format!(
        "a stream may subscribe to {} names",
        limits.subscriptions
    ))
}

pub(crate) fn too_many_types() -> Status {
    Status::resource_exhausted(format!("a stream may be of {TYPES} types"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_look_up_says_nothing_of_a_name_that_was_let_go_of_in_between() {
        let name: Arc<str> = "a".into();
        let mut questions = Questions::default();
        let begin = |questions: &mut Questions, asking: &mut Asking| {
            questions.ask(&name, asking);
            let (name, number) = questions.next(|_, number| asking.claim(number)).unwrap();
            let type_url = "type".into();
            Asked {
                type_url,
                name,
                number,
            }
        };
        let older = begin(&mut questions, &mut Asking::default());
        let mut asking = Asking::default();
        let newer = begin(&mut questions, &mut asking);
        assert!(!questions.answered(&older, &mut asking));
        assert!(questions.answered(&newer, &mut asking));
        assert!(!questions.answered(&older, &mut asking));
        assert_eq!(asking, Asking::Not);
    }
}
