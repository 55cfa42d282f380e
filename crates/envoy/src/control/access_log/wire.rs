//! Parts of an encoded message, found without decoding the rest: what a log entry carries in maps is much, and what is read
//! of it is one text. (<https://protobuf.dev/programming-guides/encoding/>)

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// The fields of a message that are texts, bytes or messages, by their numbers and in their order; others are passed over.
/// It ends where the message cannot be read any further.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Reads one field; the outer `None`: there is none that could be read.
    fn step(&mut self) -> Option<Option<(u32, &'a [u8])>> {
        if self.0.is_empty() {
            return None;
        }
        let (number, kind) = decode_key(&mut self.0).ok()?;
        if kind != WireType::LengthDelimited {
            skip_field(kind, number, &mut self.0, DecodeContext::default()).ok()?;
            return Some(None);
        }
        let length = usize::try_from(decode_varint(&mut self.0).ok()?).ok()?;
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Some((number, value)))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Some(Some(field)) => return Some(field),
                Some(None) => {}
                None => {
                    self.0 = &[];
                    return None;
                }
            }
        }
    }
}

/// The field of this number. Of several the last counts.
pub(crate) fn field(message: &[u8], number: u32) -> Option<&[u8]> {
    let found = Fields(message).filter(|(known, _)| *known == number);
    found.last().map(|(_, value)| value)
}

/// The value of an entry of a map from texts to messages, if it is the entry of `key`. A part that is missing is empty.
pub(super) fn value_of<'a>(entry: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let (mut found, mut value): (&[u8], &[u8]) = (&[], &[]);
    for (number, bytes) in Fields(entry) {
        match number {
            1 => found = bytes,
            2 => value = bytes,
            _ => {}
        }
    }
    (found == key.as_bytes()).then_some(value)
}

/// The value of `key` in the map that is this field of a message. Of several the last counts.
pub(crate) fn in_map<'a>(message: &'a [u8], number: u32, key: &str) -> Option<&'a [u8]> {
    Fields(message)
        .filter(|(known, _)| *known == number)
        .filter_map(|(_, entry)| value_of(entry, key))
        .last()
}
