//! What the operator's interface takes and gives, as JSON. A public format: fields are added, not changed. What is taken
//! has no room for unknown fields, so that a misspelt limit is an error and not an absent one.

mod control;
mod requests;

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use outgate_journey::limit_text::LimitsText;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

pub use self::{control::*, requests::*};
use super::text::{ID, SAYING, TENANT, TEXT};

/// `POST /v1/sessions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    /// Life of the token, in seconds; at most and by default the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub ttl_seconds: Option<u64>,
    /// Free-form labels: at most 32, of at most 256 characters.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "distinct"
    )]
    #[schemars(schema_with = "labels")]
    pub labels: BTreeMap<String, String>,
    /// The name of the workload's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SAYING), length(max = 256))]
    pub container: Option<String>,
    /// The policy of the configuration that the session is confined to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = ID))]
    pub policy: Option<String>,
    /// Limits beside the configuration's own: they narrow and never widen.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "object"
    )]
    #[schemars(with = "Option<Limits>")]
    pub limits: Option<LimitsText>,
    /// Whose session it is. A caller that is bound to a tenant may leave it out, or name its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = TENANT))]
    pub tenant: Option<String>,
}

/// `POST /v1/sessions/{id}/renew`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewSession {
    /// Life of the fresh token, in seconds; at most and by default the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub ttl_seconds: Option<u64>,
}

/// A session with a token: the one time that the token is shown.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct CreatedSession {
    /// The session.
    pub id: String,
    /// The token. Only this answer has it.
    pub token: String,
    /// When the token ends, seconds since 1970.
    pub expires: u64,
}

impl fmt::Debug for CreatedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "CreatedSession({}, [redacted], {})",
            self.id, self.expires
        )
    }
}

/// What one session may use; what is not there has no limit.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "the schema of journey's LimitsText, which knows no schemas"
)]
pub(crate) struct Limits {
    /// Requests per window, as in `120/min`.
    #[schemars(regex(
        pattern = r"^0{0,3}[1-9][0-9]{0,8}/(s|sec|second|min|minute|h|hour|d|day)$"
    ))]
    requests: Option<String>,
    /// New connections per window, as in `30/min`.
    #[schemars(regex(
        pattern = r"^0{0,3}[1-9][0-9]{0,8}/(s|sec|second|min|minute|h|hour|d|day)$"
    ))]
    connections: Option<String>,
    /// Connections open at once.
    #[schemars(range(min = 1, max = 4_294_967_295u32))]
    concurrent_connections: Option<u32>,
    /// Bytes towards upstreams over the session's life.
    #[schemars(range(min = 1))]
    bytes_out: Option<u64>,
    /// Distinct hosts over the session's life.
    #[schemars(range(min = 1, max = 4_294_967_295u32))]
    distinct_destinations: Option<u32>,
}

/// A session, without its tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionBody {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: Option<String>,
    /// The operator's labels.
    pub labels: BTreeMap<String, String>,
    /// The workload's container.
    pub container: Option<String>,
    /// The policy that it is confined to.
    pub policy: Option<String>,
    /// Its own limits.
    #[schemars(with = "Limits")]
    pub limits: LimitsText,
    /// Seconds since 1970.
    pub created: u64,
    /// When its last token ends.
    pub expires: u64,
    /// When it last did something, to within some seconds.
    pub last_active: u64,
    /// When it ends whatever it does, if it does.
    pub ends_at_latest: Option<u64>,
    /// Whether it goes on.
    pub state: SessionStateBody,
    /// What ended it.
    pub end: Option<SessionEndBody>,
    /// Who issued its tokens, if not this gateway.
    pub issuer: Option<String>,
    /// What that issuer calls it.
    pub subject: Option<String>,
    /// Who created it: kind and name.
    pub created_by: String,
}

/// Whether a session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionStateBody {
    /// It does.
    Live,
    /// It was ended.
    Ended,
    /// Its last token has run out.
    Expired,
}

/// What ended a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionEndBody {
    /// `ended`, `denied`, `kill_switch`, `idle`, `lifetime_over` or `tripwire`.
    pub cause: String,
    /// Seconds since 1970.
    pub at: u64,
    /// Who: kind and name.
    pub by: String,
}

/// `GET /v1/sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionList {
    /// The newest first.
    pub sessions: Vec<SessionBody>,
}

/// `POST /v1/sessions/{id}/kill`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KillSession {
    /// Why; it is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An object or null: a list of the members' values would do for a struct as well. Read where it stands, so that the
/// struct sees a member that comes twice.
fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    struct Object<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }

    from.deserialize_any(Object(PhantomData))
}

/// Texts by keys that come once each.
fn distinct<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Distinct;

    impl<'de> Visitor<'de> for Distinct {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut texts = BTreeMap::new();
            while let Some((key, text)) = map.next_entry()? {
                if texts.insert(key, text).is_some() {
                    return Err(A::Error::custom("a key comes twice"));
                }
            }
            Ok(texts)
        }
    }

    from.deserialize_map(Distinct)
}

/// A text that is there, where it is said at all: null is none.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    String::deserialize(from).map(Some)
}

fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "propertyNames": { "pattern": SAYING, "maxLength": 256 },
        "additionalProperties": { "type": "string", "pattern": TEXT },
    })
}
