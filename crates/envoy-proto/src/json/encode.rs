//! From JSON straight to bytes, along the descriptors. A dynamic message would do for the values, and does for every
//! single one of them; as a whole it would lose the path of what is wrong, and write maps in the order of a hash.

use std::collections::{BTreeMap, BTreeSet};

use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use prost_types::{Any, ListValue, Struct, value};
use serde_json::{Map, Value, json};

use super::{
    descriptor,
    error::{Problem, RenderError},
};

const TYPE: &str = "@type";

type Encoded = Result<Vec<u8>, RenderError>;

/// The bytes of a message of the type `kind`.
pub(super) fn message(kind: &MessageDescriptor, value: &Value) -> Encoded {
    match kind.full_name() {
        // Envoy asks for an `Any` that is there and empty, where a filter is switched on and not configured.
        "google.protobuf.Any" if object(value)?.is_empty() => Ok(Vec::new()),
        "google.protobuf.Any" => Ok(any(value)?.encode_to_vec()),
        "google.protobuf.Struct" => Ok(tree_of(object(value)?)?.encode_to_vec()),
        "google.protobuf.ListValue" => Ok(list_of(list(value)?)?.encode_to_vec()),
        "google.protobuf.Value" => Ok(value_of(value)?.encode_to_vec()),
        name if is_well_known(name) => single_value(kind, value.clone()),
        _ => fields(kind, object(value)?.iter()),
    }
}

/// The message that an object with `@type` describes.
pub(super) fn any(value: &Value) -> Result<Any, RenderError> {
    let object = object(value)?;
    let url = object.get(TYPE).and_then(Value::as_str);
    let url = url.ok_or(Problem::Untyped)?;
    let (_, name) = url.rsplit_once('/').ok_or(Problem::Untyped)?;
    let kind = descriptor(name)?;
    let others = object.iter().filter(|(name, _)| *name != TYPE);
    let value = if is_well_known(name) {
        wrapped(&kind, others)?
    } else {
        fields(&kind, others)?
    };
    let type_url = url.to_owned();
    Ok(Any { type_url, value })
}

/// A message whose JSON is not an object of its fields stands in an `Any` under the key `value`.
fn wrapped<'a>(
    kind: &MessageDescriptor,
    others: impl Iterator<Item = (&'a String, &'a Value)>,
) -> Encoded {
    let mut inner = None;
    for (name, value) in others {
        if name != "value" {
            return Err(unknown(kind, name));
        }
        inner = Some(value);
    }
    let encoded = message(kind, inner.unwrap_or(&json!({})));
    encoded.map_err(|error| error.in_field("value"))
}

fn is_well_known(name: &str) -> bool {
    name.starts_with("google.protobuf.")
}

fn fields<'a>(
    kind: &MessageDescriptor,
    given: impl Iterator<Item = (&'a String, &'a Value)>,
) -> Encoded {
    let mut ordered = BTreeMap::new();
    for (name, value) in given {
        let field = kind.get_field_by_name(name);
        let field = field.or_else(|| kind.get_field_by_json_name(name));
        let field = field.ok_or_else(|| unknown(kind, name))?;
        if value.is_null() && !takes_null(&field) {
            continue;
        }
        if ordered
            .insert(field.number(), (name, field, value))
            .is_some()
        {
            return Err(RenderError::from(Problem::Twice).in_field(name));
        }
    }
    let mut bytes = Vec::new();
    let mut choices = BTreeMap::new();
    for (name, given, value) in ordered.into_values() {
        let choice = given.containing_oneof().filter(|one| !one.is_synthetic());
        let other = choice.and_then(|one| choices.insert(one.full_name().to_owned(), name));
        if let Some(other) = other {
            let problem = Problem::Excluded(other.clone());
            return Err(RenderError::from(problem).in_field(name));
        }
        let encoded = field(kind, &given, value);
        bytes.extend(encoded.map_err(|error| error.in_field(name))?);
    }
    Ok(bytes)
}

fn unknown(kind: &MessageDescriptor, field: &str) -> RenderError {
    let problem = Problem::UnknownField(kind.full_name().to_owned());
    RenderError::from(problem).in_field(field)
}

/// Only a field that can hold any JSON holds `null`; everywhere else `null` is the absence of the field.
fn takes_null(field: &FieldDescriptor) -> bool {
    let kind = field.kind();
    let message = kind.as_message();
    !field.is_list() && message.is_some_and(|m| m.full_name() == "google.protobuf.Value")
}

fn field(kind: &MessageDescriptor, field: &FieldDescriptor, value: &Value) -> Encoded {
    if field.is_map() {
        entries(field, object(value)?)
    } else if field.is_list() {
        elements(kind, field, list(value)?)
    } else {
        one(kind, field, value)
    }
}

fn one(kind: &MessageDescriptor, field: &FieldDescriptor, value: &Value) -> Encoded {
    match field.kind() {
        Kind::Message(inner) => Ok(delimited(field, &message(&inner, value)?)),
        _ => single_value(kind, json!({ field.name(): value })),
    }
}

fn elements(kind: &MessageDescriptor, field: &FieldDescriptor, list: &[Value]) -> Encoded {
    let Kind::Message(inner) = field.kind() else {
        return single_value(kind, json!({ field.name(): list }));
    };
    let mut bytes = Vec::new();
    for (at, value) in list.iter().enumerate() {
        let encoded = message(&inner, value).map_err(|error| error.in_element(at))?;
        bytes.extend(delimited(field, &encoded));
    }
    Ok(bytes)
}

/// In the order of the keys: `serde_json` may keep them as they were written.
fn entries(field: &FieldDescriptor, map: &Map<String, Value>) -> Encoded {
    let kind = field.kind();
    let entry = kind.as_message().ok_or(Problem::MustBe("a map"))?;
    let keys: BTreeSet<&String> = map.keys().collect();
    let mut bytes = Vec::new();
    for (key, value) in keys.into_iter().filter_map(|key| map.get_key_value(key)) {
        let encoded = key_and_value(entry, key, value);
        let encoded = encoded.map_err(|error| error.in_element(key))?;
        bytes.extend(delimited(field, &encoded));
    }
    Ok(bytes)
}

fn key_and_value(entry: &MessageDescriptor, key: &str, value: &Value) -> Encoded {
    if value.is_null() && !takes_null(&entry.map_entry_value_field()) {
        return Err(Problem::MustBe("a value, not null").into());
    }
    let mut bytes = one(entry, &entry.map_entry_key_field(), &json!(key))?;
    bytes.extend(one(entry, &entry.map_entry_value_field(), value)?);
    Ok(bytes)
}

fn delimited(field: &FieldDescriptor, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.len() + 8);
    encode_key(field.number(), WireType::LengthDelimited, &mut bytes);
    encode_varint(message.len() as u64, &mut bytes);
    bytes.extend(message);
    bytes
}

/// A message of one value, or of one field with no message and no map in it.
fn single_value(kind: &MessageDescriptor, value: Value) -> Encoded {
    let message = DynamicMessage::deserialize(kind.clone(), value);
    let message = message.map_err(|error| Problem::Value(error.to_string()))?;
    Ok(message.encode_to_vec())
}

fn object(value: &Value) -> Result<&Map<String, Value>, RenderError> {
    Ok(value.as_object().ok_or(Problem::MustBe("an object"))?)
}

fn list(value: &Value) -> Result<&Vec<Value>, RenderError> {
    Ok(value.as_array().ok_or(Problem::MustBe("a list"))?)
}

fn tree_of(map: &Map<String, Value>) -> Result<Struct, RenderError> {
    let fields = map.iter().map(|(name, value)| {
        let value = value_of(value).map_err(|error| error.in_field(name))?;
        Ok((name.clone(), value))
    });
    let fields = fields.collect::<Result<_, RenderError>>()?;
    Ok(Struct { fields })
}

fn list_of(list: &[Value]) -> Result<ListValue, RenderError> {
    let values = list.iter().enumerate();
    let values = values.map(|(at, value)| value_of(value).map_err(|error| error.in_element(at)));
    let values = values.collect::<Result<_, RenderError>>()?;
    Ok(ListValue { values })
}

fn value_of(json: &Value) -> Result<prost_types::Value, RenderError> {
    let kind = match json {
        Value::Null => value::Kind::NullValue(0),
        Value::Bool(value) => value::Kind::BoolValue(*value),
        Value::Number(number) => {
            let number = number.as_f64().ok_or(Problem::MustBe("a finite number"))?;
            value::Kind::NumberValue(number)
        }
        Value::String(text) => value::Kind::StringValue(text.clone()),
        Value::Array(list) => value::Kind::ListValue(list_of(list)?),
        Value::Object(map) => value::Kind::StructValue(tree_of(map)?),
    };
    let kind = Some(kind);
    Ok(prost_types::Value { kind })
}
