//! What can be wrong with a configuration, and where.

use std::fmt;

/// Something in the JSON is not Envoy's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderError {
    path: String,
    problem: Problem,
}

/// What is wrong at the path of a [`RenderError`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The message, named here, has no such field.
    #[error("{0} has no such field")]
    UnknownField(String),
    /// No message of this name is known.
    #[error("there is no message type {0:?}")]
    UnknownType(String),
    /// An object that stands for an `Any` does not say of which type it is.
    #[error("\"@type\" is missing, or is not text of the form \"type.googleapis.com/NAME\"")]
    Untyped,
    /// The value is of another kind than the field.
    #[error("must be {0}")]
    MustBe(&'static str),
    /// The field is given by both of its names.
    #[error("is given twice")]
    Twice,
    /// Another field of the same choice, named here, is given as well.
    #[error("cannot be given together with {0:?}")]
    Excluded(String),
    /// The value cannot be read as what the field is.
    #[error("{0}")]
    Value(String),
    /// The descriptors that this crate carries cannot be read: a defect of the build.
    #[error("the descriptors of Envoy's configuration cannot be read: {0}")]
    Descriptors(String),
}

impl RenderError {
    /// Where it is, from the root of the JSON (`filter_chains[0].filters[1].typed_config.stat_prefix`); empty if it is
    /// the whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong there.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The same, seen from the object that has it as `field`.
    pub(super) fn in_field(self, field: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        let path = format!("{field}{dot}{}", self.path);
        Self { path, ..self }
    }

    /// The same, seen from the list that has it as an element or the map that has it under a key.
    pub(super) fn in_element(self, element: impl fmt::Debug) -> Self {
        self.in_field(&format!("[{element:?}]"))
    }
}

impl From<Problem> for RenderError {
    fn from(problem: Problem) -> Self {
        let path = String::new();
        Self { path, problem }
    }
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        self.problem.fmt(f)
    }
}

impl std::error::Error for RenderError {}
