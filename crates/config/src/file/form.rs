//! Forms that values of many keys have: lists that may be written without brackets, ports, and texts whose meaning
//! `check` reads.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A list that is not empty; one item may be written without brackets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "OneOrMany")]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<T>);

/// A list; one item may be written without brackets.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename = "OneOrMany")]
pub(crate) struct AnyOneOrMany<T>(pub(crate) Vec<T>);

fn one_or_many<T: JsonSchema>(generator: &mut SchemaGenerator, at_least: u8) -> Schema {
    let item = generator.subschema_for::<T>();
    let mut list = json_schema!({ "type": "array", "items": item });
    if at_least > 0 {
        list.insert("minItems".to_owned(), at_least.into());
    }
    json_schema!({ "anyOf": [item, list] })
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        one_or_many::<T>(generator, 1)
    }
}

impl<T: JsonSchema> JsonSchema for AnyOneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("AnyOneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        one_or_many::<T>(generator, 0)
    }
}

/// A TCP port, or 0, which `check` refuses.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PortNumber(pub(crate) u16);

impl JsonSchema for PortNumber {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 65535 })
    }
}

/// A text with a form of its own, which `check` reads.
macro_rules! text_form {
    ($(#[$doc:meta])* $name:ident, $schema:tt) => {
        $(#[$doc])*
        #[derive(Debug, Serialize, Deserialize)]
        pub(crate) struct $name(pub(crate) String);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text_form! {
    /// `30m`, `10s`, `500ms`.
    DurationText, { "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" }
}
text_form! {
    /// `120/min`.
    RateText, { "type": "string", "pattern": "^[1-9][0-9]*/(s|sec|second|min|minute|h|hour|d|day)$" }
}
text_form! {
    /// `1GiB`, or a number of bytes.
    SizeText, {
        "anyOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": "^[1-9][0-9]*(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$" }
        ]
    }
}
text_form! {
    /// `https://idp.example.org/keys`.
    HttpsText, { "type": "string", "pattern": "^https://" }
}
text_form! {
    /// `https://…`, or `http://` and a loopback address.
    UrlText, { "type": "string", "pattern": "^(https://|http://(127\\.|\\[::1\\]))" }
}
text_form! {
    /// `http://127.0.0.1:9000`.
    ServiceUrlText, { "type": "string", "pattern": "^https?://[^/?#@]+/?$" }
}
text_form! {
    /// A name of the owner's choice.
    NameText, { "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" }
}
text_form! {
    /// A tenant's name.
    TenantText, { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" }
}
text_form! {
    /// `sub`, `kubernetes.namespace`: the way to a claim.
    ClaimText, { "type": "string", "pattern": "^[^.\\s]+(\\.[^.\\s]+)*$" }
}
