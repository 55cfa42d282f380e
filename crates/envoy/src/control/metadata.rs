//! What Envoy was told of a request, read back from it: dynamic metadata in ext_authz's namespace.

use prost_types::value::Kind;
#[cfg(test)]
use prost_types::{Struct, Value};

use outgate_envoy_proto::envoy::config::core::v3::Metadata;

use crate::render::names::{DECISION, decision};

/// A structure of texts.
#[cfg(test)]
pub(crate) fn texts<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> Struct {
    let field = |(key, text): (&str, String)| {
        (
            key.to_owned(),
            Value {
                kind: Some(Kind::StringValue(text)),
            },
        )
    };
    Struct {
        fields: fields.into_iter().map(field).collect(),
    }
}

/// The exchange's id in what Envoy reports.
pub(crate) fn request_id(metadata: &Metadata) -> Option<&str> {
    let fields = &metadata.filter_metadata.get(DECISION)?.fields;
    match fields.get(decision::REQUEST)?.kind.as_ref()? {
        Kind::StringValue(id) => Some(id),
        _ => None,
    }
}
