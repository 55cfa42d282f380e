//! Envoy's configuration, made from the same policy that the journey reads. Pure: nothing is read or written here, and
//! nothing that is rendered is secret; secrets go by name.
//!
//! Listeners and clusters do not depend on the rules, so a policy that changes drains nothing: what changes are the routes
//! ([`routes`]) and the secrets that they name. The journey decides about each tunnel and each request (ext_authz) and
//! vets the address; Envoy dials exactly that one, and looks no name up. Behind the decision stands Envoy's own gate
//! (RBAC), made of the same tables.

mod address;
mod bootstrap;
mod cel;
mod clusters;
mod filters;
mod injection;
mod json;
mod listeners;
mod log;
mod manager;
pub mod names;
mod rbac;
mod regex;
mod reply;
mod routes;

use std::path::Path;

use outgate_config::{EnvoyConfig, Timeouts, TlsFloor};
use outgate_envoy_proto::{RenderError, any_from_json};
use outgate_journey::policy::{PlaneAddress, Policy};
use prost_types::Any;
use serde_json::Value;

pub use injection::injection_key;

/// What the configuration says beside the policy. Paths are those of the machine that Envoy runs on.
#[derive(Debug, Clone, Copy)]
pub struct RenderOptions<'a> {
    /// The owner's word on Envoy.
    pub envoy: &'a EnvoyConfig,
    /// How Envoy reaches this gateway.
    pub control: &'a PlaneAddress,
    /// Who this Envoy is.
    pub node: Node<'a>,
    /// How session tokens are recognised.
    pub tokens: Tokens<'a>,
    /// What upstreams are verified against.
    pub roots: TrustRoots<'a>,
    /// The lowest TLS version spoken to an upstream.
    pub min_tls: TlsFloor,
    /// How long things may take.
    pub timeouts: &'a Timeouts,
    /// How many guests may be connected at once.
    pub max_connections: u32,
}

/// How an Envoy names itself.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    /// One process.
    pub id: &'a str,
    /// Those that are configured alike.
    pub cluster: &'a str,
}

/// What session tokens say of themselves.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// `iss`.
    pub issuer: &'a str,
    /// `aud`.
    pub audience: &'a str,
}

/// The roots that an upstream's certificate must lead to: Envoy takes one bundle.
#[derive(Debug, Clone, Copy)]
pub enum TrustRoots<'a> {
    /// A PEM file.
    File(&'a Path),
    /// The PEM text itself.
    Inline(&'a str),
}

/// One resource, as xDS serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Its name.
    pub name: String,
    /// A hash of its content: the same content has the same version, whenever and wherever it is rendered.
    pub version: String,
    /// The message in JSON, with its `@type`.
    pub body: Value,
}

/// One resource as a message, ready to be served.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// As [`Rendered::name`].
    pub name: String,
    /// As [`Rendered::version`].
    pub version: String,
    /// The message.
    pub message: Any,
}

impl TryFrom<Rendered> for Encoded {
    type Error = RenderError;

    fn try_from(rendered: Rendered) -> Result<Self, RenderError> {
        Ok(Self {
            message: any_from_json(&rendered.body)?,
            name: rendered.name,
            version: rendered.version,
        })
    }
}

fn rendered(name: &str, message: &str, body: Value) -> Rendered {
    let body = json::typed(message, body);
    Rendered {
        name: name.to_owned(),
        version: json::short_hash(body.to_string().as_bytes(), 16),
        body,
    }
}

/// What an Envoy is started with; everything else comes from this gateway.
#[must_use]
pub fn bootstrap(options: &RenderOptions<'_>) -> Value {
    bootstrap::dynamic(options)
}

/// Everything in one file, for `--mode validate` and for who wants to read it. Secrets still come from this gateway.
#[must_use]
pub fn static_bootstrap(options: &RenderOptions<'_>, policy: &Policy) -> Value {
    bootstrap::all_in_one(options, policy)
}

/// The listeners. Of the policy they know only the header fields that a token may stand in.
#[must_use]
pub fn listeners(options: &RenderOptions<'_>, policy: &Policy) -> Vec<Rendered> {
    listeners::listeners(options, policy)
}

/// The clusters. Of the policy they know only the deployment's address exceptions.
#[must_use]
pub fn clusters(options: &RenderOptions<'_>, policy: &Policy) -> Vec<Rendered> {
    clusters::clusters(options, policy)
}

/// The routes: [`names::ROUTES_PROXY`], [`names::ROUTES_BUMPED`], [`names::ROUTES_PLAIN`].
#[must_use]
pub fn routes(options: &RenderOptions<'_>, policy: &Policy) -> Vec<Rendered> {
    routes::routes(options, policy)
}

/// The same, ready to be served.
///
/// # Errors
/// Where Envoy's API does not know what is rendered.
pub fn encoded_routes(
    options: &RenderOptions<'_>,
    policy: &Policy,
) -> Result<Vec<Encoded>, RenderError> {
    routes::encoded(options, policy)
}
