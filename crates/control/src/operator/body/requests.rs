//! What a session asked for.

use std::{borrow::Cow, fmt};

use base64::{Engine, display::Base64Display, engine::general_purpose::STANDARD};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use zeroize::Zeroizing;

/// `GET /v1/sessions/{id}/requests`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionRequests {
    /// Requests that have ended, in the order of their records.
    pub requests: Vec<SessionRequest>,
    /// How many are kept of a session; 0: none.
    pub kept: u32,
    /// How many bytes are kept of each body; 0: none.
    pub kept_body_bytes: u32,
}

/// A request, a connection or a question for a name, as its audit record has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionRequest {
    /// Rises from request to request: what `after` of the next call is.
    pub seq: u64,
    /// As in the audit record and in the answer that the guest got.
    pub request_id: String,
    /// When it began, milliseconds since 1970.
    pub time_unix_ms: u64,
    /// How it came in: `connect`, `bumped`, …
    pub entry: String,
    /// The method, where one was seen.
    pub method: Option<String>,
    /// What it named.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// The path without its query, where one was seen.
    pub path: Option<String>,
    /// `bump` or `pass-through`, where that was decided.
    pub posture: Option<String>,
    /// Whether it was let out.
    pub allowed: bool,
    /// Why it was refused, or cut after it had been let out.
    pub code: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Detail for operators.
    pub detail: String,
    /// The token that it came with, by its id.
    pub token_id: Option<String>,
    /// The name of the credential that was attached.
    pub credential: Option<String>,
    /// How often a credential was taken out of the answer.
    pub scrubbed: u64,
    /// The status that the guest got.
    pub status: Option<u16>,
    /// Bytes towards the upstream.
    pub bytes_out: u64,
    /// Bytes towards the guest.
    pub bytes_in: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// `completed`, `aborted` or `cut`.
    pub ending: String,
    /// The beginning of what the guest sent; only where bodies are kept and asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_body: Option<BodyPart>,
    /// The beginning of what the guest got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_body: Option<BodyPart>,
}

/// The beginning of a body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BodyPart {
    /// The bytes.
    pub base64: Base64Bytes,
    /// Whether the body went on.
    pub is_cut: bool,
}

/// Bytes that are base64 in JSON, and are wiped.
#[derive(Clone, PartialEq, Eq)]
pub struct Base64Bytes(pub Zeroizing<Vec<u8>>);

impl fmt::Debug for Base64Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Base64Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(&self.0, &STANDARD))
    }
}

impl<'de> Deserialize<'de> for Base64Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = STANDARD.decode(text.as_bytes());
        let bytes = bytes.map_err(|_| D::Error::custom("not base64"))?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

impl JsonSchema for Base64Bytes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Base64Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "contentEncoding": "base64" })
    }
}
