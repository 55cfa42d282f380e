//! Decides whether a tree has the file's shape, and reports every place where it has not. serde stops at the first
//! error, so the offending node is taken out of the view and the tree is read again; what is missing only because
//! something was taken out is not reported.

use std::collections::HashSet;

use serde::de::Deserialize;

use crate::{
    node::{KeyPath, Node, NodeId, Quoting, Step, Value},
    problem::Problem,
    view::{Kind, Place, View},
};

/// After so many structural problems the rest is not looked for.
const MAX_PROBLEMS: usize = 50;

/// What of the tree is left out of the view.
#[derive(Debug, Default)]
pub(crate) struct Dropped(HashSet<NodeId>);

impl Dropped {
    /// Whether the node, or anything in it, was taken out.
    pub(crate) fn touches(&self, node: &Node) -> bool {
        self.0.contains(&node.id)
            || matches!(node.value, Value::Refused)
            || node.items().iter().any(|item| self.touches(item))
            || node
                .entries()
                .iter()
                .any(|entry| self.touches(&entry.value))
    }

    /// Whether the node itself was taken out.
    pub(crate) fn hides(&self, node: &Node) -> bool {
        self.0.contains(&node.id) || matches!(node.value, Value::Refused)
    }
}

/// Reads a `T` from the tree. `None` when nothing is left that could be one.
pub(crate) fn read<'t, T: Deserialize<'t>>(
    root: &'t Node,
    problems: &mut Vec<Problem>,
) -> (Option<T>, Dropped) {
    let mut dropped = Dropped::default();
    for _ in 0..=MAX_PROBLEMS {
        let fault = match T::deserialize(View::new(root, &dropped)) {
            Ok(read) => return (Some(read), dropped),
            Err(fault) => *fault.0,
        };
        let place = fault.place.unwrap_or(Place {
            node: root,
            at: root.at,
        });
        if !follows_from_drop(&fault.kind, place.node, &dropped) {
            let path = KeyPath(fault.steps.into_iter().rev().collect());
            problems.push(describe(&fault.kind, place, path));
        }
        if place.node.id == root.id || !dropped.0.insert(place.node.id) {
            return (None, dropped);
        }
    }
    (None, dropped)
}

/// A missing key that is there, but was taken out, or that is there under a misspelt name, was reported as such.
fn follows_from_drop(kind: &Kind, node: &Node, dropped: &Dropped) -> bool {
    let Kind::MissingKey(missing) = kind else {
        return false;
    };
    node.entries().iter().any(|entry| {
        dropped.hides(&entry.value)
            && (entry.key == *missing || similar(&entry.key, &[missing]).is_some())
    })
}

fn describe(kind: &Kind, place: Place<'_>, mut path: KeyPath) -> Problem {
    let (code, message, help) = match kind {
        // `from: { sk-… }`: the secret itself, where the name of its source belongs.
        Kind::UnknownKey(key, known) if may_be_secret(key, known, &path) => {
            path.0.pop();
            (
                "unknown_key",
                "unknown key".to_owned(),
                suggest("", known, "the keys here are"),
            )
        }
        Kind::UnknownKey(key, known) => (
            "unknown_key",
            format!("unknown key `{}`", key.escape_debug()),
            suggest(key, known, "the keys here are"),
        ),
        Kind::MissingKey(key) => (
            "missing_key",
            format!("the key `{key}` is missing"),
            format!("add `{key}: …`"),
        ),
        Kind::UnknownWord(word, known) => (
            "unknown_word",
            format!(
                "`{}` is not one of the words allowed here",
                word.escape_debug()
            ),
            suggest(word, known, "the words are"),
        ),
        Kind::Empty => (
            "empty_value",
            "the key has no value".to_owned(),
            "give it a value, or take the key out; quote the text if \"null\" or \"~\" is meant"
                .to_owned(),
        ),
        Kind::WrongType(expected) => (
            "wrong_type",
            format!("{} does not fit here", what_is(place.node)),
            format!("write {expected}"),
        ),
        Kind::Other(message) => (
            "invalid_value",
            message.clone(),
            "see docs/configuration.md for what this key takes".to_owned(),
        ),
    };
    Problem {
        code,
        line: place.at.line,
        column: place.at.column,
        key: path.to_string(),
        message,
        help,
    }
}

fn may_be_secret(key: &str, known: &[&str], path: &KeyPath) -> bool {
    let is = |step: Option<&Step>, name: &str| matches!(step, Some(Step::Key(key)) if key == name);
    let (_, parents) = path.0.split_last().unwrap_or((&Step::Index(0), &[]));
    let says_where = parents.len() > 1 && is(parents.first(), "credentials")
        || is(parents.last(), "client_secret")
        || is(parents.first(), "audit") && parents.iter().any(|step| is(Some(step), "headers"));
    says_where && similar(key, known).is_none()
}

fn what_is(node: &Node) -> &'static str {
    match &node.value {
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Scalar(_, Quoting::Quoted) => "a quoted text",
        Value::Scalar(..) | Value::Refused => "this value",
    }
}

fn suggest(word: &str, known: &[&str], all: &str) -> String {
    match similar(word, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.is_empty() => "no key is allowed here".to_owned(),
        None => format!("{all} {}", listed(known)),
    }
}

fn listed(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

/// The known word that a misspelling most likely means.
pub(crate) fn similar<'w>(word: &str, known: &[&'w str]) -> Option<&'w str> {
    if word.len() > 64 {
        return None;
    }
    let flat = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let word = flat(word);
    known
        .iter()
        .map(|candidate| (distance(&word, &flat(candidate)), *candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap neighbours) between two texts.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (i, x) in a.chars().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let cell = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let mut best = (cell(&above, j + 1) + 1)
                .min(cell(&row, j) + 1)
                .min(cell(&above, j) + usize::from(x != *y));
            let swapped = j
                .checked_sub(1)
                .filter(|left| b.get(*left) == Some(&x) && previous == Some(*y));
            if let Some(left) = swapped {
                best = best.min(cell(&before, left) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
        previous = Some(x);
    }
    above.last().copied().unwrap_or(0)
}
