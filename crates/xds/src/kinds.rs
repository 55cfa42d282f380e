//! The types of one stream, in the order in which they are served: what both protocols do alike with them.

use std::{
    collections::HashMap,
    slice::{Iter, IterMut},
    sync::Arc,
    time::Instant,
};

use tonic::Status;

use crate::{
    order::rank,
    pb,
    source::Change,
    talk::{Asked, Asking, Host, InFlight, Questions, TYPES, too_many_types},
};

/// Stands for all names of a type that the source gives as a whole.
pub(crate) const WILDCARD: &str = "*";

/// All types of one stream.
pub(crate) struct Kinds<S: State>(Vec<Kind<S>>);

/// One type.
pub(crate) struct Kind<S: State> {
    pub(crate) type_url: Arc<str>,
    /// The source gives it as a whole.
    pub(crate) is_whole: bool,
    /// All of it is subscribed to.
    pub(crate) wildcard: bool,
    pub(crate) items: HashMap<Arc<str>, S::Item>,
    pub(crate) questions: Questions,
    pub(crate) in_flight: Option<InFlight>,
    pub(crate) state: S,
}

/// What a protocol keeps of a type beyond that.
pub(crate) trait State: Default + Send + 'static {
    /// One resource, as far as this client goes.
    type Item: Send;

    fn asking(item: &mut Self::Item) -> &mut Asking;
    /// The whole is to be read again.
    fn whole_stale(&mut self);
}

impl<S: State> Default for Kinds<S> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<S: State> Kinds<S> {
    pub(crate) fn iter(&self) -> Iter<'_, Kind<S>> {
        self.0.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> IterMut<'_, Kind<S>> {
        self.0.iter_mut()
    }

    pub(crate) fn get_mut(&mut self, type_url: &str) -> Option<&mut Kind<S>> {
        self.iter_mut().find(|kind| *kind.type_url == *type_url)
    }

    /// The type, and whether it is spoken of for the first time.
    ///
    /// # Errors
    /// There are too many.
    pub(crate) fn take(
        &mut self,
        type_url: &str,
        host: &Host,
    ) -> Result<(&mut Kind<S>, bool), Status> {
        let found = self.iter().position(|kind| *kind.type_url == *type_url);
        let at = match found {
            Some(at) => at,
            None if self.0.len() >= TYPES => return Err(too_many_types()),
            None => self.add(type_url, host),
        };
        let kind = self.0.get_mut(at);
        let kind = kind.ok_or_else(|| Status::internal("a type is lost"))?;
        Ok((kind, found.is_none()))
    }

    fn add(&mut self, type_url: &str, host: &Host) -> usize {
        let at = self
            .0
            .partition_point(|kind| rank(&kind.type_url) <= rank(type_url));
        let kind = Kind {
            type_url: type_url.into(),
            is_whole: host.source.all(&host.client, type_url).is_some(),
            wildcard: false,
            items: HashMap::new(),
            questions: Questions::default(),
            in_flight: None,
            state: S::default(),
        };
        self.0.insert(at, kind);
        at
    }

    pub(crate) fn changed(&mut self, change: &Change) {
        for kind in &mut self.0 {
            match change {
                Change::Everything => kind.all_stale(),
                Change::Type(type_url) if **type_url == *kind.type_url => kind.all_stale(),
                Change::One(type_url, name) if **type_url == *kind.type_url => {
                    kind.one_stale(name);
                }
                Change::Type(_) | Change::One(..) => {}
            }
        }
    }

    pub(crate) fn next_question(&mut self) -> Option<Asked> {
        self.iter_mut().find_map(|kind| {
            let items = &mut kind.items;
            let (name, number) = kind.questions.next(|name, number| {
                let item = items.get_mut(name);
                item.is_some_and(|item| S::asking(item).claim(number))
            })?;
            Some(Asked {
                type_url: Arc::clone(&kind.type_url),
                name,
                number,
            })
        })
    }

    pub(crate) fn ask_again(&mut self, asked: &Asked) {
        if let Some(kind) = self.get_mut(&asked.type_url) {
            kind.one_stale(&asked.name);
        }
    }
}

impl<S: State> Kind<S> {
    /// The answer to the last response, if a request is one. An answer to an older one says nothing any more, but what
    /// else the request says counts.
    pub(crate) fn settle(&mut self, nonce: &str, error: Option<&pb::Status>, host: &Host) {
        let answered = self.in_flight.take_if(|flight| *flight.nonce == *nonce);
        if let Some(flight) = answered {
            host.report(&self.type_url, &flight.sent, error);
        }
    }

    /// Whether the last response is not answered, and is still waited for.
    pub(crate) fn awaits(&self, host: &Host, now: Instant) -> bool {
        self.in_flight
            .as_ref()
            .is_some_and(|flight| now < flight.until(host))
    }

    /// A look-up has ended. `None`: the name is wanted no more, or was not in between.
    pub(crate) fn looked_up(&mut self, asked: &Asked) -> Option<&mut S::Item> {
        let item = self.items.get_mut(&asked.name)?;
        let counts = self.questions.answered(asked, S::asking(item));
        counts.then_some(item)
    }

    fn all_stale(&mut self) {
        if self.is_whole {
            self.state.whole_stale();
            return;
        }
        for (name, item) in &mut self.items {
            self.questions.ask_again(name, S::asking(item));
        }
    }

    fn one_stale(&mut self, name: &Arc<str>) {
        if self.is_whole {
            self.state.whole_stale();
        } else if let Some(item) = self.items.get_mut(name) {
            self.questions.ask_again(name, S::asking(item));
        }
    }
}
