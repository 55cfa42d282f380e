//! Collects problems and warnings, and knows their places.

use crate::{
    node::{KeyPath, Node, Position, Step, Value},
    problem::Problem,
    read::{Dropped, similar},
};

pub(super) struct Report<'t> {
    root: &'t Node,
    dropped: &'t Dropped,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    credentials: Vec<String>,
}

impl<'t> Report<'t> {
    pub(super) fn new(root: &'t Node, dropped: &'t Dropped, problems: Vec<Problem>) -> Self {
        let credentials = root.entry("credentials").map(|entry| entry.value.entries());
        let names = credentials.unwrap_or_default().iter();
        Self {
            root,
            dropped,
            problems,
            warnings: Vec::new(),
            credentials: names.map(|entry| entry.key.clone()).collect(),
        }
    }

    /// The names of the credentials in the file as written: one that was itself reported is known all the same.
    pub(super) fn credentials(&self) -> &[String] {
        &self.credentials
    }

    /// For a text whose credentials are in another file.
    pub(super) fn know_credentials(&mut self, names: Vec<String>) {
        self.credentials = names;
    }

    /// Problems and warnings, the latter sorted by place.
    pub(super) fn finish(mut self) -> (Vec<Problem>, Vec<Problem>) {
        self.warnings
            .sort_by_key(|warning| (warning.line, warning.column));
        (self.problems, self.warnings)
    }

    pub(super) const fn root(&self) -> &'t Node {
        self.root
    }

    /// The line of the value at `path`.
    pub(super) fn line(&self, path: &KeyPath) -> usize {
        path.nearest(self.root).at.line
    }

    /// Whether something at or below `path` was already reported and taken out.
    pub(super) fn touched(&self, path: &KeyPath) -> bool {
        self.dropped.touches(path.nearest(self.root))
    }

    /// Pairs the items that were read from the list at `path` with their places: the list as written may have more.
    pub(super) fn places<'a, T>(&self, path: &KeyPath, items: &'a [T]) -> Vec<(KeyPath, &'a T)> {
        let node = path.nearest(self.root);
        if !matches!(node.value, Value::Sequence(_)) {
            return items.iter().map(|item| (path.clone(), item)).collect();
        }
        let kept = node.items().iter().enumerate();
        kept.filter(|(_, item)| !self.dropped.hides(item))
            .map(|(index, _)| path.index(index))
            .zip(items)
            .collect()
    }

    /// Reports an error in the value at `path`.
    pub(super) fn error(
        &mut self,
        code: &'static str,
        path: &KeyPath,
        message: String,
        help: &str,
    ) {
        let at = path.nearest(self.root).at;
        self.problems.push(problem(code, at, path, message, help));
    }

    /// Reports an error in the key at the end of `path`.
    pub(super) fn error_at_key(
        &mut self,
        code: &'static str,
        path: &KeyPath,
        message: String,
        help: &str,
    ) {
        let at = self.key_position(path);
        self.problems.push(problem(code, at, path, message, help));
    }

    pub(super) fn warn(&mut self, code: &'static str, path: &KeyPath, message: String, help: &str) {
        let at = path.nearest(self.root).at;
        self.warnings.push(problem(code, at, path, message, help));
    }

    fn key_position(&self, path: &KeyPath) -> Position {
        let at = path.nearest(self.root).at;
        let Some((Step::Key(key), parents)) = path.0.split_last() else {
            return at;
        };
        let parent = KeyPath(parents.to_vec());
        parent
            .nearest(self.root)
            .entry(key)
            .map_or(at, |entry| entry.key_at)
    }

    /// Reports a key that is missing below `base`, unless it is there under a misspelt name or was taken out.
    pub(super) fn missing(&mut self, base: &KeyPath, key: &str, help: &str) {
        let reported = base.nearest(self.root).entries().iter().any(|entry| {
            self.dropped.hides(&entry.value)
                && (entry.key == key || similar(&entry.key, &[key]).is_some())
        });
        if !reported {
            self.error(
                "missing_key",
                base,
                format!("the key `{key}` is missing"),
                help,
            );
        }
    }

    pub(super) fn duplicate(&mut self, path: &KeyPath, value: &str) {
        self.error(
            "duplicate_value",
            path,
            format!("`{}` is already in the list", value.escape_debug()),
            "keep one of them",
        );
    }

    /// An empty list is refused where it could be read as "nothing" by one and as "everything" by another. A list
    /// whose items were all reported is not empty.
    pub(super) fn refuse_empty<T>(&mut self, items: &[T], path: &KeyPath) {
        if items.is_empty() && !self.touched(path) {
            self.error(
                "empty_list",
                path,
                "the list is empty".to_owned(),
                "list at least one value, or take the key out",
            );
        }
    }
}

fn problem(
    code: &'static str,
    at: Position,
    path: &KeyPath,
    message: String,
    help: &str,
) -> Problem {
    Problem {
        code,
        line: at.line,
        column: at.column,
        key: path.to_string(),
        message,
        help: help.to_owned(),
    }
}
