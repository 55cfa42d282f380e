//! Heads as Envoy sends them, and what it is told to change. Refuses fields that no HTTP library would have let
//! through: what cannot be read cannot be searched.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use outgate_envoy_proto::envoy::{
    config::core::v3::{
        HeaderMap as Sent, HeaderValue as Field, HeaderValueOption,
        header_value_option::HeaderAppendAction,
    },
    service::ext_proc::v3::HeaderMutation,
};
use prost_types::{Struct, value::Kind};

/// Under which name Envoy sends the attributes that its filter was told to send.
const ATTRIBUTES: &str = "envoy.filters.http.ext_proc";
/// The attribute that says where an answer comes from, and what it says of an upstream's.
const DETAILS: &str = "response.code_details";
const UPSTREAM: &str = "via_upstream";

/// Whether a head is that of an answer that Envoy made itself. Where nothing is said of it, it is not.
pub(super) fn is_local(attributes: &BTreeMap<String, Struct>) -> bool {
    let details = attributes
        .get(ATTRIBUTES)
        .and_then(|sent| sent.fields.get(DETAILS)?.kind.as_ref());
    matches!(details, Some(Kind::StringValue(details)) if !details.is_empty() && details != UPSTREAM)
}

/// A head: its fields, and of the pseudo-fields the two that count here.
#[derive(Default)]
pub(super) struct Head {
    pub(super) status: Option<StatusCode>,
    pub(super) path: Option<Vec<u8>>,
    pub(super) fields: HeaderMap,
}

/// Reads a head, or a trailer section. `None`: a field is malformed.
pub(super) fn read(sent: Option<Sent>) -> Option<Head> {
    let mut head = Head::default();
    for Field {
        key,
        value,
        raw_value,
    } in sent.unwrap_or_default().headers
    {
        let value = if raw_value.is_empty() {
            value.into_bytes()
        } else {
            raw_value
        };
        match key.as_str() {
            ":status" => head.status = Some(StatusCode::from_bytes(&value).ok()?),
            ":path" => head.path = Some(value),
            pseudo if pseudo.starts_with(':') => {}
            name => {
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                let value = HeaderValue::from_maybe_shared(bytes::Bytes::from(value)).ok()?;
                head.fields.append(name, value);
            }
        }
    }
    Some(head)
}

/// What turns `before` into `after`. `None`: nothing has to be changed.
pub(super) fn changes(before: &HeaderMap, after: &HeaderMap) -> Option<HeaderMutation> {
    let mut mutation = HeaderMutation {
        remove_headers: before
            .keys()
            .filter(|name| !after.contains_key(*name))
            .map(|name| name.as_str().to_owned())
            .collect(),
        ..HeaderMutation::default()
    };
    for name in after.keys() {
        if !before.get_all(name).iter().eq(after.get_all(name)) {
            mutation.set_headers.extend(set_all(name, after));
        }
    }
    let is_needed = !mutation.remove_headers.is_empty() || !mutation.set_headers.is_empty();
    is_needed.then_some(mutation)
}

/// All of a map's fields, as those of an answer that Envoy makes.
pub(in crate::control) fn all(fields: &HeaderMap) -> HeaderMutation {
    HeaderMutation {
        set_headers: fields
            .keys()
            .flat_map(|name| set_all(name, fields))
            .collect(),
        ..HeaderMutation::default()
    }
}

/// The fields of one name: the first replaces whatever was there.
fn set_all<'a>(
    name: &'a HeaderName,
    fields: &'a HeaderMap,
) -> impl Iterator<Item = HeaderValueOption> + 'a {
    let values = fields.get_all(name).iter().enumerate();
    values.map(|(place, value)| set(name.as_str(), value.as_bytes(), place > 0))
}

/// One field. The external processor's filter heeds `append`, not the action (tried on 1.40).
pub(super) fn set(name: &str, value: &[u8], append: bool) -> HeaderValueOption {
    let action = if append {
        HeaderAppendAction::AppendIfExistsOrAdd
    } else {
        HeaderAppendAction::OverwriteIfExistsOrAdd
    };
    HeaderValueOption {
        header: Some(Field {
            key: name.to_owned(),
            raw_value: value.to_vec(),
            ..Field::default()
        }),
        append: Some(append),
        append_action: action.into(),
        ..HeaderValueOption::default()
    }
}
