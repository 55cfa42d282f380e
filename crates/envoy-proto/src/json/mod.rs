//! Envoy's configuration from JSON to protobuf.
//!
//! The JSON is protobuf's own mapping: fields by their proto or camel-case names, messages in an `Any` as an object
//! with `@type`. A field, type or enum value that the descriptors do not have is refused and named with its path, so
//! that a misspelt key fails here and not in Envoy. The same JSON gives the same bytes, whatever the order of its
//! keys, so that a resource's bytes change only when it does. Values are not validated beyond their types: Envoy does
//! that.

mod encode;
mod error;

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, MessageDescriptor};
use prost_types::Any;
use serde_json::Value;

pub use error::{Problem, RenderError};

static POOL: LazyLock<Result<DescriptorPool, String>> = LazyLock::new(|| {
    let bytes: &[u8] = include_bytes!("descriptors.bin");
    DescriptorPool::decode(bytes).map_err(|error| error.to_string())
});

/// Turns an object with `@type` (`type.googleapis.com/envoy.config.listener.v3.Listener`) into the message that it
/// describes, together with every message in an `Any` inside it.
///
/// # Errors
/// Whatever the descriptors do not know, or of another type than they say, with the path to it. The error may quote
/// the value that it is about: the JSON of a configuration holds no secret.
pub fn any_from_json(value: &Value) -> Result<Any, RenderError> {
    encode::any(value)
}

/// Turns `value` into the bytes of a message of the type `type_name` (`envoy.config.bootstrap.v3.Bootstrap`).
///
/// # Errors
/// As [`any_from_json`].
pub fn message_from_json(type_name: &str, value: &Value) -> Result<Vec<u8>, RenderError> {
    encode::message(&descriptor(type_name)?, value)
}

/// Whether `value` describes a message of the type `type_name`.
///
/// # Errors
/// As [`any_from_json`].
pub fn check(type_name: &str, value: &Value) -> Result<(), RenderError> {
    message_from_json(type_name, value).map(drop)
}

fn descriptor(type_name: &str) -> Result<MessageDescriptor, RenderError> {
    let pool = POOL
        .as_ref()
        .map_err(|error| Problem::Descriptors(error.clone()))?;
    let found = pool.get_message_by_name(type_name);
    found.ok_or_else(|| Problem::UnknownType(type_name.to_owned()).into())
}
