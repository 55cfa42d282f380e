//! Decides which patterns stand for the paths that were seen: ids become `*`, so do many siblings, and where even that
//! leaves too many patterns, whole subtrees become `/**`. Whatever is generalised, every path that went in is covered.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    advice::{CUT_METHOD_BYTES, CUT_PATH_BYTES},
    write::{is_method, is_starred, pattern},
};

/// More names than this in one place are taken for a variable part.
const MAX_SIBLINGS: usize = 8;
/// More patterns than this for one destination are no longer read by anyone.
const MAX_PATTERNS: usize = 24;

/// Methods; empty: every method, because one was seen that a file cannot name.
type Methods = BTreeSet<String>;

/// The requests that were seen at one destination.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests {
    root: Tree,
    /// A path was seen that no pattern covers, so that paths cannot be judged at all.
    unjudgeable: bool,
    all_methods: Seen,
    paths: BTreeSet<String>,
}

#[derive(Debug, Clone, Default)]
struct Tree {
    children: BTreeMap<String, Tree>,
    ends: Option<Seen>,
}

/// The methods of some requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    named: Methods,
    unnameable: bool,
}

impl Seen {
    fn add(&mut self, method: &str) {
        // A method at the length at which it is cut may have been another one.
        if method.len() < CUT_METHOD_BYTES && is_method(method) {
            self.named.insert(method.to_owned());
        } else {
            self.unnameable = true;
        }
    }

    fn merge(&mut self, other: Self) {
        self.named.extend(other.named);
        self.unnameable |= other.unnameable;
    }

    fn methods(&self) -> Methods {
        if self.unnameable {
            Methods::new()
        } else {
            self.named.clone()
        }
    }
}

/// The `allow` of a destination: methods (empty: all) and patterns (empty: all), sorted. No entry: nothing can be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) entries: Vec<(Methods, Vec<String>)>,
    pub(crate) notes: Vec<String>,
}

impl Requests {
    pub(crate) fn add(&mut self, method: &str, path: &str) {
        self.all_methods.add(method);
        self.paths.insert(path.to_owned());
        let (kept, deep) = if path.len() >= CUT_PATH_BYTES {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            // A parent is judged with its slash; the root's is all that is left of it.
            (if parent.is_empty() { "/" } else { parent }, true)
        } else {
            (path, false)
        };
        let Some(pattern) = pattern(kept) else {
            self.unjudgeable = true;
            return;
        };
        let mut segments: Vec<&str> = pattern.split('/').skip(1).collect();
        if deep {
            segments.retain(|segment| !segment.is_empty());
            segments.push("**");
        }
        let mut at = &mut self.root;
        for segment in segments {
            let name = if is_id(segment) { "*" } else { segment };
            at = at.children.entry(name.to_owned()).or_default();
        }
        at.ends.get_or_insert_default().add(method);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    pub(crate) fn shape(&self) -> Shape {
        let methods = self.all_methods.methods();
        if self.unjudgeable {
            let entries = if methods.is_empty() {
                Vec::new()
            } else {
                vec![(methods, Vec::new())]
            };
            let note =
                "a path was seen that can be read in two ways, so paths are not judged".to_owned();
            return Shape {
                entries,
                notes: vec![note],
            };
        }
        let mut root = self.root.clone();
        root.widen();
        let mut found = BTreeMap::new();
        root.collect(&mut Vec::new(), &mut found);
        let found = shorten(found);
        let mut notes = Vec::new();
        let is_general = found
            .keys()
            .any(|path| path.iter().any(|segment| is_starred(segment)));
        if is_general {
            notes.push(match self.paths.len() {
                1 => "generalised from 1 path".to_owned(),
                many => format!("generalised from {many} paths"),
            });
        }
        if self.all_methods.unnameable {
            notes.push("a method was seen that cannot be named here".to_owned());
        }
        let mut entries: BTreeMap<Methods, Vec<String>> = BTreeMap::new();
        for (path, seen) in found {
            let text = format!("/{}", path.join("/"));
            entries.entry(seen.methods()).or_default().push(text);
        }
        Shape {
            entries: entries.into_iter().collect(),
            notes,
        }
    }
}

impl Tree {
    /// Many names in one place become `*`. The empty name, a slash at the end, stays: `*` does not stand for it.
    fn widen(&mut self) {
        let is_name = |name: &String| !name.is_empty() && name != "**";
        if self.children.keys().filter(|name| is_name(name)).count() > MAX_SIBLINGS {
            let children = std::mem::take(&mut self.children);
            let (names, rest): (Vec<_>, Vec<_>) =
                children.into_iter().partition(|(name, _)| is_name(name));
            self.children.extend(rest);
            let any = self.children.entry("*".to_owned()).or_default();
            names.into_iter().for_each(|(_, tree)| any.merge(tree));
        }
        self.children.values_mut().for_each(Self::widen);
    }

    fn merge(&mut self, other: Self) {
        for (name, tree) in other.children {
            self.children.entry(name).or_default().merge(tree);
        }
        if let Some(seen) = other.ends {
            self.ends.get_or_insert_default().merge(seen);
        }
    }

    fn collect(&self, path: &mut Vec<String>, found: &mut BTreeMap<Vec<String>, Seen>) {
        if let Some(seen) = &self.ends {
            found.insert(path.clone(), seen.clone());
        }
        for (name, tree) in &self.children {
            path.push(name.clone());
            tree.collect(path, found);
            path.pop();
        }
    }
}

/// Cuts paths to prefixes, the deepest first, until they are few.
fn shorten(mut found: BTreeMap<Vec<String>, Seen>) -> BTreeMap<Vec<String>, Seen> {
    let mut depth = found.keys().map(Vec::len).max().unwrap_or(0);
    while found.len() > MAX_PATTERNS && depth > 0 {
        depth -= 1;
        let mut shorter: BTreeMap<Vec<String>, Seen> = BTreeMap::new();
        for (mut path, seen) in found {
            if path.len() > depth {
                path.truncate(depth);
                path.push("**".to_owned());
            }
            shorter.entry(path).or_default().merge(seen);
        }
        found = shorter;
    }
    found
}

/// Numbers, UUIDs, long hexadecimal texts and long mixtures of letters and digits.
fn is_id(segment: &str) -> bool {
    let digits = |text: &str| text.bytes().any(|b| b.is_ascii_digit());
    let letters = |text: &str| text.bytes().any(|b| b.is_ascii_alphabetic());
    if !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_digit()) {
        return true;
    }
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let groups: Vec<&str> = segment.split('-').collect();
    if groups.iter().all(|group| hex(group)) && groups.iter().map(|g| g.len()).eq([8, 4, 4, 4, 12])
    {
        return true;
    }
    segment
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|run| {
            (run.len() >= 12 && hex(run) && digits(run))
                || (run.len() >= 16 && digits(run) && letters(run))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_words() {
        for id in [
            "42",
            "0",
            "3f2b8c1e-5d0a-4b7f-9c3d-1a2b3c4d5e6f",
            "da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "thread_8Xk2mQp0Zr7LwN4tVb1s",
            "file-abc123def456ghi789",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        ] {
            assert!(is_id(id), "{id}");
        }
        for word in [
            "",
            "v1",
            "models",
            "gpt-4o-2024-05-13",
            "claude-opus-4-20250514",
            "chat",
            "deadbeef",
            "internationalisation",
            "repo.git",
            "*",
        ] {
            assert!(!is_id(word), "{word}");
        }
    }

    #[test]
    fn paths_become_the_patterns_that_a_person_would_write() {
        let mut seen = Requests::default();
        for (method, path) in [
            ("GET", "/v1/threads/1"),
            ("GET", "/v1/threads/2"),
            ("DELETE", "/v1/threads/2"),
            ("POST", "/v1/messages"),
            ("GET", "/"),
        ] {
            seen.add(method, path);
        }
        let set = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Methods>()
        };
        let shape = seen.shape();
        assert_eq!(
            shape.entries,
            [
                (set(&["DELETE", "GET"]), vec!["/v1/threads/*".to_owned()]),
                (set(&["GET"]), vec!["/".to_owned()]),
                (set(&["POST"]), vec!["/v1/messages".to_owned()]),
            ]
        );
        assert_eq!(shape.notes, ["generalised from 4 paths"]);
    }

    #[test]
    fn many_siblings_become_one_and_many_patterns_become_prefixes() {
        let mut seen = Requests::default();
        for name in 'a'..='j' {
            seen.add("GET", &format!("/simple/{name}/"));
        }
        assert_eq!(seen.shape().entries[0].1, ["/simple/*/"]);

        let mut seen = Requests::default();
        for (one, two) in ('a'..='f').flat_map(|one| ('a'..='f').map(move |two| (one, two))) {
            seen.add("GET", &format!("/api/{one}/{two}"));
        }
        assert_eq!(
            seen.shape().entries[0].1,
            [
                "/api/a/**",
                "/api/b/**",
                "/api/c/**",
                "/api/d/**",
                "/api/e/**",
                "/api/f/**"
            ]
        );
    }

    #[test]
    fn what_no_pattern_says_is_not_judged() {
        let mut seen = Requests::default();
        seen.add("GET", "/a//b");
        seen.add("GET", "/c");
        assert_eq!(seen.shape().entries, [(["GET".to_owned()].into(), vec![])]);
        seen.add("get", "/c");
        assert_eq!(seen.shape().entries, []);
    }
}
