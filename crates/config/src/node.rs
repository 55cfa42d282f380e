//! A YAML text as a tree in which every key and value knows its place, and the way to a value in it. Scalars stay
//! text: what a value means is decided by the key that holds it, never by how it looks.

use std::{collections::HashMap, fmt};

/// A place in the text; both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// Tells nodes apart; in the order of the text.
pub(crate) type NodeId = usize;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) at: Position,
    pub(crate) value: Value,
}

#[derive(Debug)]
pub(crate) enum Value {
    /// Text, and whether it stands without quotes.
    Scalar(String, Quoting),
    Sequence(Vec<Node>),
    Mapping(Mapping),
    /// Something that was refused and reported.
    Refused,
}

/// Entries in the order of the text; no key occurs twice.
#[derive(Debug, Default)]
pub(crate) struct Mapping {
    pub(crate) entries: Vec<Entry>,
    /// Where each key is: files may have as many entries as fit into their size.
    pub(crate) places: HashMap<String, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quoting {
    Plain,
    Quoted,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Position,
    pub(crate) value: Node,
}

impl Node {
    /// Whether this is YAML's null: nothing at all, or a word for it.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(text, Quoting::Plain)
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Mapping(mapping) => &mapping.entries,
            _ => &[],
        }
    }

    pub(crate) fn items(&self) -> &[Self] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Mapping(mapping) => mapping.entries.get(*mapping.places.get(key)?),
            _ => None,
        }
    }

    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text, _) => Some(text),
            _ => None,
        }
    }
}

/// One step from a node to a node inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// The way from the file's root to a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyPath(pub(crate) Vec<Step>);

impl KeyPath {
    /// The path of a key at the top.
    pub(crate) fn of(key: &str) -> Self {
        Self::default().key(key)
    }

    pub(crate) fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    fn step(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }

    /// The node at the path's end or, where the file has none, the last one on the way.
    pub(crate) fn nearest<'t>(&self, root: &'t Node) -> &'t Node {
        let mut node = root;
        for step in &self.0 {
            let next = match step {
                Step::Key(key) => node.entry(key).map(|entry| &entry.value),
                // A list of one may be written without brackets.
                Step::Index(index) => node.items().get(*index),
            };
            let Some(next) = next else { break };
            node = next;
        }
        node
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if is_bare(key) => {
                    let dot = if at == 0 { "" } else { "." };
                    write!(f, "{dot}{key}")?;
                }
                Step::Key(key) => write!(f, "[{key:?}]")?,
            }
        }
        Ok(())
    }
}

fn is_bare(key: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    !key.is_empty() && key.bytes().all(plain)
}
