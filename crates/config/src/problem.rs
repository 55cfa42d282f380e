//! Decides how a problem is told: where it is, which key, what is wrong, what to write instead. Lines on which a
//! secret may stand by mistake are never repeated.

use std::{collections::HashSet, fmt, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeSeq as _};

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What kind; stable, for programs.
    pub code: &'static str,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The key, `destinations[2].inject.header`; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

/// One line, without the file's name: for logs.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            line,
            column,
            key,
            message,
            help,
        } = self;
        let colon = if key.is_empty() { "" } else { ": " };
        write!(f, "{line}:{column}: {key}{colon}{message}; {help} [{code}]")
    }
}

/// Everything that is wrong with one file, sorted by place; never empty.
#[derive(Clone)]
pub struct Problems {
    name: Arc<str>,
    text: Arc<str>,
    list: Vec<Problem>,
    hidden: HashSet<usize>,
}

impl Problems {
    /// `hidden` are the lines that are not repeated.
    pub(crate) fn new(
        name: &str,
        text: &str,
        mut list: Vec<Problem>,
        hidden: HashSet<usize>,
    ) -> Self {
        list.sort_by(|a, b| (a.line, a.column, &a.key).cmp(&(b.line, b.column, &b.key)));
        Self {
            name: name.into(),
            text: text.into(),
            list,
            hidden,
        }
    }

    pub(crate) fn unreadable(name: &str, why: &str) -> Self {
        Self::whole_file(
            name,
            "unreadable",
            format!("the file cannot be read: {why}"),
            "check the path, the permissions and that the file is UTF-8 text",
        )
    }

    pub(crate) fn too_large(name: &str, limit: usize) -> Self {
        Self::whole_file(
            name,
            "file_too_large",
            format!("the file is larger than {} MiB", limit >> 20),
            "split the policy over several gateways",
        )
    }

    pub(crate) fn no_control(name: &str) -> Self {
        Self::whole_file(
            name,
            "no_control_plane",
            "the file names no control plane, and a policy came from one".to_owned(),
            "add `control: { url: https://…, ca: ca.pem, certificate: gateway.crt, key: gateway.key }`",
        )
    }

    fn whole_file(name: &str, code: &'static str, message: String, help: &str) -> Self {
        let problem = Problem {
            code,
            line: 1,
            column: 1,
            key: String::new(),
            message,
            help: help.to_owned(),
        };
        Self::new(name, "", vec![problem], HashSet::new())
    }

    /// The file's name, as it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The problems, sorted by place.
    #[must_use]
    pub fn as_slice(&self) -> &[Problem] {
        &self.list
    }

    /// The problems, sorted by place.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

impl std::error::Error for Problems {}

/// As [`fmt::Display`]: the text of the file is not part of it, since a secret may stand in it by mistake.
impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A list of problems.
impl Serialize for Problems {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.list.len()))?;
        for problem in &self.list {
            list.serialize_element(problem)?;
        }
        list.end()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<&str> = self.text.lines().collect();
        for problem in &self.list {
            let source = lines.get(problem.line.saturating_sub(1)).copied();
            let shown = source.filter(|_| !self.hidden.contains(&problem.line));
            render(f, &self.name, shown, problem)?;
        }
        let count = self.list.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} problem{plural} in {}", self.name)
    }
}

/// ```text
/// outgate.yaml:7:5: unknown key `hots` [unknown_key]
///   7 |   - hots: api.example.org
///     |     ^
///   key:  destinations[0].hots
///   help: did you mean `host`?
/// ```
fn render(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    source: Option<&str>,
    problem: &Problem,
) -> fmt::Result {
    let Problem {
        code,
        line,
        column,
        key,
        message,
        help,
    } = problem;
    writeln!(f, "{name}:{line}:{column}: {message} [{code}]")?;
    if let Some(source) = source {
        let (shown, caret) = excerpt(source, column.saturating_sub(1));
        let gutter = line.to_string().len();
        writeln!(f, "  {line} | {shown}")?;
        writeln!(f, "  {:gutter$} | {:caret$}^", "", "")?;
    }
    if !key.is_empty() {
        writeln!(f, "  key:  {key}")?;
    }
    writeln!(f, "  help: {help}\n")
}

/// At most 100 characters around `column`, without control characters, and where the caret goes.
fn excerpt(source: &str, column: usize) -> (String, usize) {
    const BEFORE: usize = 60;
    const SHOWN: usize = 100;
    let skip = column.saturating_sub(BEFORE);
    let shown = source
        .chars()
        .skip(skip)
        .take(SHOWN)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    (shown, column - skip)
}
