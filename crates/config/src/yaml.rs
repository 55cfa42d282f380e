//! Decides what a YAML text says. YAML's surprises are refused: anchors, aliases, merge keys, tags, several
//! documents, duplicate keys, keys that are not text.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput};

use crate::{
    node::{Entry, KeyPath, Mapping, Node, NodeId, Position, Quoting, Value},
    problem::Problem,
};

/// Nesting beyond this is refused; the file's own shape needs 7.
const MAX_DEPTH: usize = 32;

impl From<&Marker> for Position {
    fn from(marker: &Marker) -> Self {
        Self {
            line: marker.line().max(1),
            column: marker.col().saturating_add(1),
        }
    }
}

/// Reads a text. `Err`: nothing can be said beyond the problems.
pub(crate) fn read_tree(text: &str, problems: &mut Vec<Problem>) -> Result<Node, Stop> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        text,
        parser: Parser::new_from_str(text),
        problems,
        ids: 0,
    };
    reader.document()
}

/// The text cannot be read to its end; the reason was reported.
#[derive(Debug)]
pub(crate) struct Stop;

struct Reader<'t, 'p> {
    text: &'t str,
    parser: Parser<'t, StrInput<'t>>,
    problems: &'p mut Vec<Problem>,
    ids: NodeId,
}

impl Reader<'_, '_> {
    fn document(&mut self) -> Result<Node, Stop> {
        let root = loop {
            match self.next()? {
                (Event::StreamEnd, span) => {
                    break self.node((&span.start).into(), Value::Mapping(Mapping::default()));
                }
                (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
                (event, span) => break self.value(event, &span, &KeyPath::default(), 0)?,
            }
        };
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(root),
                (Event::DocumentStart(_), span) => {
                    self.report(
                        "several_documents",
                        (&span.start).into(),
                        &KeyPath::default(),
                        "a second YAML document begins here".to_owned(),
                        "keep one document in the file",
                    );
                    return Ok(root);
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'static>, Span), Stop> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((into_static(event), span)),
            Some(Err(error)) => {
                self.report(
                    "syntax",
                    self.within_text(error.marker().into()),
                    &KeyPath::default(),
                    format!("not valid YAML: {}", error.info()),
                    "check indentation, brackets and quotes around here",
                );
                Err(Stop)
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// What is missing at the end is missed behind it: the place is moved to the end of the last line.
    fn within_text(&self, at: Position) -> Position {
        match self.text.lines().enumerate().last() {
            Some((last, text)) if at.line > last + 1 => Position {
                line: last + 1,
                column: text.chars().count() + 1,
            },
            _ => at,
        }
    }

    /// Builds the node that `event` begins. `depth` is bounded, so that the recursion is.
    fn value(
        &mut self,
        event: Event<'static>,
        span: &Span,
        path: &KeyPath,
        depth: usize,
    ) -> Result<Node, Stop> {
        let at = (&span.start).into();
        let refused = self.refuse_extras(&event, at, path);
        if depth > MAX_DEPTH {
            let message = format!("more than {MAX_DEPTH} levels of nesting");
            self.report("too_deep", at, path, message, "no key needs so many levels");
            return Err(Stop);
        }
        let value = match event {
            Event::Scalar(text, style, ..) => {
                let quoting = if style == ScalarStyle::Plain {
                    Quoting::Plain
                } else {
                    Quoting::Quoted
                };
                Value::Scalar(text.into_owned(), quoting)
            }
            Event::SequenceStart(..) => self.sequence(path, depth)?,
            Event::MappingStart(..) => self.mapping(path, depth)?,
            _ => Value::Refused,
        };
        Ok(self.node(at, if refused { Value::Refused } else { value }))
    }

    fn sequence(&mut self, path: &KeyPath, depth: usize) -> Result<Value, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd | Event::StreamEnd, _) => return Ok(Value::Sequence(items)),
                (event, span) => {
                    let path = path.index(items.len());
                    items.push(self.value(event, &span, &path, depth + 1)?);
                }
            }
        }
    }

    fn mapping(&mut self, path: &KeyPath, depth: usize) -> Result<Value, Stop> {
        let mut mapping = Mapping::default();
        loop {
            let (event, span) = match self.next()? {
                (Event::MappingEnd | Event::StreamEnd, _) => return Ok(Value::Mapping(mapping)),
                key => key,
            };
            let key_at: Position = (&span.start).into();
            let key_node = self.value(event, &span, path, depth + 1)?;
            let key = self.key(&key_node, path);
            let inner = path.key(key.as_deref().unwrap_or("?"));
            let (event, span) = self.next()?;
            let value = self.value(event, &span, &inner, depth + 1)?;
            let Some(key) = key else { continue };
            let first = mapping
                .places
                .get(&key)
                .and_then(|at| mapping.entries.get(*at));
            if let Some(first) = first {
                let message = format!("the key is already written in line {}", first.key_at.line);
                self.report("duplicate_key", key_at, &inner, message, "keep one of them");
                continue;
            }
            mapping.places.insert(key.clone(), mapping.entries.len());
            mapping.entries.push(Entry { key, key_at, value });
        }
    }

    /// The text of a key, unless it is not text.
    fn key(&mut self, node: &Node, path: &KeyPath) -> Option<String> {
        match &node.value {
            Value::Scalar(text, Quoting::Plain) if text == "<<" => {
                let message = "merge keys are not supported".to_owned();
                self.report("merge_key", node.at, path, message, "write the keys out");
                None
            }
            Value::Scalar(text, _) if !node.is_null() => Some(text.clone()),
            Value::Refused => None,
            _ => {
                let message = "a key must be text".to_owned();
                self.report(
                    "key_not_text",
                    node.at,
                    path,
                    message,
                    "write a name, in quotes if need be",
                );
                None
            }
        }
    }

    /// Reports anchors, aliases and tags; whether there was one.
    fn refuse_extras(&mut self, event: &Event<'_>, at: Position, path: &KeyPath) -> bool {
        let (anchor, tag) = match event {
            Event::Alias(_) => {
                let message = "aliases are not supported".to_owned();
                self.report("alias", at, path, message, "write the value out");
                return true;
            }
            Event::Scalar(_, _, anchor, tag) => (*anchor, tag.is_some()),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                (*anchor, tag.is_some())
            }
            _ => return false,
        };
        if anchor != 0 {
            let message = "anchors are not supported".to_owned();
            self.report("anchor", at, path, message, "take the `&name` out");
        }
        if tag {
            let message = "tags are not supported".to_owned();
            self.report(
                "tag",
                at,
                path,
                message,
                "take the `!tag` out; quote a text that begins with `!`",
            );
        }
        anchor != 0 || tag
    }

    fn node(&mut self, at: Position, value: Value) -> Node {
        self.ids += 1;
        Node {
            id: self.ids,
            at,
            value,
        }
    }

    fn report(
        &mut self,
        code: &'static str,
        at: Position,
        key: &KeyPath,
        message: String,
        help: &str,
    ) {
        self.problems.push(Problem {
            code,
            line: at.line,
            column: at.column,
            key: key.to_string(),
            message,
            help: help.to_owned(),
        });
    }
}

fn into_static(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Scalar(text, style, anchor, tag) => Event::Scalar(
            text.into_owned().into(),
            style,
            anchor,
            tag.map(|tag| std::borrow::Cow::Owned(tag.into_owned())),
        ),
        Event::SequenceStart(anchor, tag) => Event::SequenceStart(
            anchor,
            tag.map(|tag| std::borrow::Cow::Owned(tag.into_owned())),
        ),
        Event::MappingStart(anchor, tag) => Event::MappingStart(
            anchor,
            tag.map(|tag| std::borrow::Cow::Owned(tag.into_owned())),
        ),
        Event::Alias(id) => Event::Alias(id),
        Event::Nothing => Event::Nothing,
        Event::StreamStart => Event::StreamStart,
        Event::StreamEnd => Event::StreamEnd,
        Event::DocumentStart(explicit) => Event::DocumentStart(explicit),
        Event::DocumentEnd => Event::DocumentEnd,
        Event::SequenceEnd => Event::SequenceEnd,
        Event::MappingEnd => Event::MappingEnd,
    }
}
