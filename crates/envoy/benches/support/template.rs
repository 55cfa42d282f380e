//! Messages about one request after the other, made without encoding each.

use std::collections::BTreeMap;

type Make = Box<dyn Fn(&str) -> Vec<u8>>;

/// A message that is the same for every request of a tunnel but for the request's id: encoded once for each length of
/// an id, so that the client has little to do.
pub(crate) struct Template {
    make: Make,
    /// By the id's length: the message, and where the id is in it.
    made: BTreeMap<usize, (Vec<u8>, usize)>,
}

impl Template {
    pub(crate) fn new(make: impl Fn(&str) -> Vec<u8> + 'static) -> Self {
        Self {
            make: Box::new(make),
            made: BTreeMap::new(),
        }
    }

    /// The message about the request of this id.
    pub(crate) fn about(&mut self, id: &[u8]) -> Vec<u8> {
        let (message, at) = self.made.entry(id.len()).or_insert_with(|| {
            let placeholder = "#".repeat(id.len());
            let message = (self.make)(&placeholder);
            let at = position(&message, placeholder.as_bytes()).unwrap();
            (message, at)
        });
        let mut message = message.clone();
        message[*at..*at + id.len()].copy_from_slice(id);
        message
    }
}

/// The request's id in an answer that lets through: the value of the metadata's key `request`.
pub(crate) fn id_in(answer: &[u8]) -> &[u8] {
    const KEY: &[u8] = b"\x0a\x07request\x12";
    let at = position(answer, KEY).unwrap() + KEY.len();
    // A value's length, the tag of a text, the text's length.
    let length = usize::from(answer[at + 2]);
    &answer[at + 3..at + 3 + length]
}

fn position(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|it| it == what)
}
