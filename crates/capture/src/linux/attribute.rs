//! The attributes of a netlink message (`struct nlattr`, netlink(7)): written, and looked for in what the kernel says.

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
const HEADER: usize = 4;

/// One attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attribute {
    kind: u16,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Bytes(Vec<u8>),
    /// Attributes of different kinds, in any order.
    Nested(Vec<Attribute>),
    /// Attributes of one kind, whose order matters.
    List(Vec<Attribute>),
}

impl Attribute {
    pub(super) fn bytes(kind: u16, bytes: &[u8]) -> Self {
        let value = Value::Bytes(bytes.to_vec());
        Self { kind, value }
    }

    /// A text, which ends with a zero.
    pub(super) fn text(kind: u16, text: &str) -> Self {
        Self::bytes(kind, &super::name(text))
    }

    /// A number, as nftables has them: big-endian.
    pub(super) fn number(kind: u16, number: u32) -> Self {
        Self::bytes(kind, &number.to_be_bytes())
    }

    pub(super) fn nested(kind: u16, attributes: Vec<Self>) -> Self {
        let value = Value::Nested(attributes);
        Self { kind, value }
    }

    pub(super) fn list(kind: u16, attributes: Vec<Self>) -> Self {
        let value = Value::List(attributes);
        Self { kind, value }
    }

    /// Appends it, padded. Lengths are far below what 16 bits hold; one that is not is cut, and refused by the kernel.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let (kind, bytes) = match &self.value {
            Value::Bytes(bytes) => (self.kind, bytes.clone()),
            Value::Nested(inner) | Value::List(inner) => {
                let mut bytes = Vec::new();
                for attribute in inner {
                    attribute.write(&mut bytes);
                }
                (self.kind | NESTED, bytes)
            }
        };
        let length = u16::try_from(HEADER + bytes.len()).unwrap_or(u16::MAX);
        to.extend(length.to_ne_bytes());
        to.extend(kind.to_ne_bytes());
        to.extend(bytes);
        to.resize(to.len().next_multiple_of(4), 0);
    }

    /// Whether it is among these attributes. The kernel may tell more than was written: handles, counts, defaults.
    pub(super) fn is_in(&self, attributes: &[u8]) -> bool {
        find(attributes, self.kind).is_some_and(|value| self.is(value))
    }

    fn is(&self, value: &[u8]) -> bool {
        match &self.value {
            Value::Bytes(bytes) => value == bytes,
            Value::Nested(inner) => inner.iter().all(|it| it.is_in(value)),
            Value::List(inner) => {
                let read: Vec<_> = Attributes(value).collect();
                let is = |(written, read): (&Self, &(u16, &[u8]))| {
                    written.kind == read.0 && written.is(read.1)
                };
                read.len() == inner.len() && inner.iter().zip(&read).all(is)
            }
        }
    }
}

/// The value of the first attribute of this kind.
pub(super) fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    Attributes(attributes)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

/// Kinds and values, up to the first that is cut off.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, _) = self.0.split_first_chunk::<HEADER>()?;
        let [a, b, c, d] = *head;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & !NESTED, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(attributes: &[Attribute]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for attribute in attributes {
            attribute.write(&mut bytes);
        }
        bytes
    }

    #[test]
    fn what_was_written_is_found_among_more() {
        let inner = vec![Attribute::number(1, 7), Attribute::text(2, "abc")];
        let one = Attribute::nested(3, inner);
        let bytes = written(&[Attribute::text(9, "else"), one.clone()]);
        assert!(one.is_in(&bytes));
        assert!(!Attribute::nested(3, vec![Attribute::number(1, 8)]).is_in(&bytes));
        assert!(!Attribute::nested(3, vec![Attribute::number(4, 7)]).is_in(&bytes));
        assert!(!Attribute::text(9, "els").is_in(&bytes));
    }

    #[test]
    fn a_list_has_as_many_entries_in_this_order() {
        let list = |numbers: &[u32]| {
            let entries = numbers.iter().map(|it| Attribute::number(1, *it));
            Attribute::list(4, entries.collect())
        };
        let bytes = written(&[list(&[1, 2])]);
        assert!(list(&[1, 2]).is_in(&bytes));
        for other in [&[2, 1][..], &[1], &[1, 2, 3], &[]] {
            assert!(!list(other).is_in(&bytes), "{other:?}");
        }
    }

    #[test]
    fn what_is_cut_off_is_not_there() {
        let one = Attribute::text(1, "abcdef");
        let bytes = written(std::slice::from_ref(&one));
        for length in 0..HEADER + 7 {
            assert!(!one.is_in(&bytes[..length]), "{length}");
        }
        // A length of zero would be read for ever.
        assert_eq!(find(&[0, 0, 1, 0, 0, 0, 1, 0], 1), None);
    }
}
