//! A tree as serde reads it. Every fault knows the deepest node and the keys on the way to it, and never repeats the
//! value that it found: it may be a secret in the wrong place.

use std::fmt;

use serde::{
    de::{
        self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
        VariantAccess, Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};

use crate::{
    node::{Entry, Node, Position, Quoting, Step, Value},
    read::Dropped,
};

/// A newtype of this name is a list that may be written without brackets if it has one item.
pub(crate) const ONE_OR_MANY: &str = "OneOrMany";

#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'t> {
    pub(crate) node: &'t Node,
    pub(crate) at: Position,
}

#[derive(Debug)]
pub(crate) enum Kind {
    UnknownKey(String, &'static [&'static str]),
    MissingKey(&'static str),
    UnknownWord(String, &'static [&'static str]),
    Empty,
    /// What is expected. What was found is never repeated: it may be a secret in the wrong place.
    WrongType(String),
    Other(String),
}

#[derive(Debug)]
pub(crate) struct FaultInner<'t> {
    pub(crate) kind: Kind,
    pub(crate) place: Option<Place<'t>>,
    /// From the deepest step to the first.
    pub(crate) steps: Vec<Step>,
}

/// Boxed: results are passed through every level.
#[derive(Debug)]
pub(crate) struct Fault<'t>(pub(crate) Box<FaultInner<'t>>);

impl<'t> Fault<'t> {
    fn new(kind: Kind) -> Self {
        Self(Box::new(FaultInner {
            kind,
            place: None,
            steps: Vec::new(),
        }))
    }

    /// Says where it happened, unless a deeper level has said so.
    fn at(mut self, node: &'t Node, at: Position) -> Self {
        self.0.place.get_or_insert(Place { node, at });
        self
    }

    fn within(mut self, step: Step) -> Self {
        self.0.steps.push(step);
        self
    }
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.kind)
    }
}

impl de::StdError for Fault<'_> {}

impl de::Error for Fault<'_> {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Kind::Other(message.to_string()))
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(Kind::WrongType(plain_words(&expected.to_string())))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(Kind::WrongType(plain_words(&expected.to_string())))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownKey(field.to_owned(), expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownWord(variant.to_owned(), expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Kind::MissingKey(field))
    }
}

/// serde's words for what it expects, in the file's words.
fn plain_words(expected: &str) -> String {
    match expected {
        "a boolean" => "true or false, without quotes".to_owned(),
        "a string" | "path string" => "a text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping, `key: value`".to_owned(),
        text if text.starts_with("struct ") => "a mapping, `key: value`".to_owned(),
        text if text.starts_with("enum ") => "one of the words that are allowed here".to_owned(),
        "u16" => "a whole number from 0 to 65535, without quotes".to_owned(),
        "u32" | "u64" | "usize" => "a whole number, without quotes".to_owned(),
        text => text.to_owned(),
    }
}

/// A node, without what was dropped.
#[derive(Clone, Copy)]
pub(crate) struct View<'t, 'd> {
    node: &'t Node,
    dropped: &'d Dropped,
}

impl<'t, 'd> View<'t, 'd> {
    pub(crate) fn new(node: &'t Node, dropped: &'d Dropped) -> Self {
        Self { node, dropped }
    }

    fn with(self, node: &'t Node) -> Self {
        Self { node, ..self }
    }

    fn refuse<T>(self, expected: &dyn de::Expected) -> Result<T, Fault<'t>> {
        let fault: Fault<'t> = if self.node.is_null() {
            Fault::new(Kind::Empty)
        } else {
            de::Error::invalid_type(de::Unexpected::Other("value"), expected)
        };
        Err(fault.at(self.node, self.node.at))
    }

    /// The text of a scalar that is not null.
    fn text(self) -> Option<&'t str> {
        if self.node.is_null() {
            None
        } else {
            self.node.text()
        }
    }

    fn visit_number<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault<'t>> {
        let number = match &self.node.value {
            Value::Scalar(text, Quoting::Plain) if text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse::<u64>().ok()
            }
            _ => None,
        };
        match number {
            Some(number) => visitor.visit_u64(number),
            None => self.refuse(&visitor),
        }
    }
}

impl<'t> Deserializer<'t> for View<'t, '_> {
    type Error = Fault<'t>;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault<'t>> {
        match &self.node.value {
            Value::Sequence(_) => self.deserialize_seq(visitor),
            Value::Mapping(_) => self.deserialize_map(visitor),
            Value::Scalar(..) | Value::Refused => self.deserialize_str(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault<'t>> {
        match self.text() {
            Some(text) => visitor.visit_borrowed_str(text),
            None => self.refuse(&visitor),
        }
    }

    fn deserialize_string<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault<'t>> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault<'t>> {
        match &self.node.value {
            Value::Scalar(text, Quoting::Plain) if text == "true" => visitor.visit_bool(true),
            Value::Scalar(text, Quoting::Plain) if text == "false" => visitor.visit_bool(false),
            _ => self.refuse(&visitor),
        }
    }

    fn deserialize_u16<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault<'t>> {
        self.visit_number(visitor)
    }

    fn deserialize_u32<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault<'t>> {
        self.visit_number(visitor)
    }

    fn deserialize_u64<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault<'t>> {
        self.visit_number(visitor)
    }

    /// A key that is there has a value: there is no null that could mean "the default".
    fn deserialize_option<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault<'t>> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'t>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault<'t>> {
        if name == ONE_OR_MANY && !matches!(self.node.value, Value::Sequence(_)) {
            return visitor.visit_newtype_struct(Single(self));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault<'t>> {
        match &self.node.value {
            Value::Sequence(items) => visitor.visit_seq(Items {
                view: self,
                rest: items.iter().enumerate(),
            }),
            _ => self.refuse(&visitor),
        }
    }

    fn deserialize_map<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault<'t>> {
        match &self.node.value {
            Value::Mapping(mapping) => visitor.visit_map(Entries {
                view: self,
                rest: mapping.entries.iter(),
                current: None,
            }),
            _ => self.refuse(&visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'t>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault<'t>> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'t>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault<'t>> {
        match self.text() {
            Some(text) => visitor.visit_enum(Word(text)),
            None => self.refuse(&visitor),
        }
    }

    forward_to_deserialize_any! {
        <V: Visitor<'t>>
        i8 i16 i32 i64 i128 u8 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}

/// A word of a closed list.
struct Word<'t>(&'t str);

impl<'t> EnumAccess<'t> for Word<'t> {
    type Error = Fault<'t>;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'t>>(self, seed: S) -> Result<(S::Value, Self), Fault<'t>> {
        let word: StrDeserializer<'_, Fault<'t>> = self.0.into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'t> VariantAccess<'t> for Word<'t> {
    type Error = Fault<'t>;

    fn unit_variant(self) -> Result<(), Fault<'t>> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'t>>(self, _: S) -> Result<S::Value, Fault<'t>> {
        Err(Fault::new(Kind::WrongType("a mapping".to_owned())))
    }

    fn tuple_variant<V: Visitor<'t>>(self, _: usize, _: V) -> Result<V::Value, Fault<'t>> {
        Err(Fault::new(Kind::WrongType("a list".to_owned())))
    }

    fn struct_variant<V: Visitor<'t>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Fault<'t>> {
        Err(Fault::new(Kind::WrongType("a mapping".to_owned())))
    }
}

/// One value, seen as a list of one.
struct Single<'t, 'd>(View<'t, 'd>);

impl<'t> Deserializer<'t> for Single<'t, '_> {
    type Error = Fault<'t>;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Fault<'t>> {
        visitor.visit_seq(One(Some(self.0)))
    }

    forward_to_deserialize_any! {
        <V: Visitor<'t>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct One<'t, 'd>(Option<View<'t, 'd>>);

impl<'t> SeqAccess<'t> for One<'t, '_> {
    type Error = Fault<'t>;

    fn next_element_seed<S: DeserializeSeed<'t>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault<'t>> {
        self.0.take().map(|view| seed.deserialize(view)).transpose()
    }
}

struct Items<'t, 'd> {
    view: View<'t, 'd>,
    rest: std::iter::Enumerate<std::slice::Iter<'t, Node>>,
}

impl<'t> SeqAccess<'t> for Items<'t, '_> {
    type Error = Fault<'t>;

    fn next_element_seed<S: DeserializeSeed<'t>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault<'t>> {
        let dropped = self.view.dropped;
        let Some((index, item)) = self.rest.find(|(_, item)| !dropped.hides(item)) else {
            return Ok(None);
        };
        seed.deserialize(self.view.with(item))
            .map(Some)
            .map_err(|fault| fault.at(item, item.at).within(Step::Index(index)))
    }
}

struct Entries<'t, 'd> {
    view: View<'t, 'd>,
    rest: std::slice::Iter<'t, Entry>,
    current: Option<&'t Entry>,
}

impl<'t> MapAccess<'t> for Entries<'t, '_> {
    type Error = Fault<'t>;

    fn next_key_seed<S: DeserializeSeed<'t>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault<'t>> {
        let dropped = self.view.dropped;
        let Some(entry) = self.rest.find(|entry| !dropped.hides(&entry.value)) else {
            return Ok(None);
        };
        self.current = Some(entry);
        let key: StrDeserializer<'_, Fault<'t>> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|fault| {
            fault
                .at(&entry.value, entry.key_at)
                .within(Step::Key(entry.key.clone()))
        })
    }

    fn next_value_seed<S: DeserializeSeed<'t>>(&mut self, seed: S) -> Result<S::Value, Fault<'t>> {
        let Some(entry) = self.current.take() else {
            return Err(de::Error::custom("a value without a key"));
        };
        seed.deserialize(self.view.with(&entry.value))
            .map_err(|fault| {
                fault
                    .at(&entry.value, entry.value.at)
                    .within(Step::Key(entry.key.clone()))
            })
    }
}
