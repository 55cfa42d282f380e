//! The interface's document (OpenAPI 3.1), made from the routes' table and the bodies' types: what is documented is what
//! is served.

use std::{collections::BTreeMap, sync::OnceLock};

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    code::ErrorCode,
    problem::Problem,
    route::{self, Access, Gives, Route, Takes},
    scope::Scope,
    text,
};

const ABOUT: &str = "Sessions, denylist, kill switch, quotas, keys, policy and audit trail of a gateway. It is served on \
    the gateway's Unix socket (where the gateway's own user needs no credential) and, where `listen.operator` is \
    configured, on TLS. Every refusal is a problem (RFC 9457) with a stable `code`. A caller that is bound to a tenant \
    sees and changes its own sessions only; another tenant's are as unknown as those that never were. Every call but \
    those for public keys, health and this document is recorded in the audit trail before it is acknowledged, and \
    refused with `audit_unavailable` where it cannot be. A call that ends or denies takes effect first: then \
    `in_effect` is true.";

/// The document, as it is kept in `schema/openapi.json`.
#[must_use]
pub fn openapi() -> String {
    // Texts and numbers always serialise.
    serde_json::to_string_pretty(&document()).unwrap_or_default() + "\n"
}

/// The document, as it is served.
pub(crate) fn served() -> &'static str {
    static SERVED: OnceLock<String> = OnceLock::new();
    SERVED.get_or_init(openapi)
}

/// The routes as a table for people, in Markdown.
#[must_use]
pub fn routes_table() -> String {
    let rows = route::all().into_iter().map(|route| {
        let access = match route.access {
            Access::Public => "everybody".to_owned(),
            Access::Signed => "signature".to_owned(),
            Access::Scoped {
                any_of,
                every_tenant,
            } => {
                let words: Vec<_> = any_of.iter().map(|scope| format!("`{scope}`")).collect();
                let bound = if every_tenant { ", of no tenant" } else { "" };
                words.join(" or ") + bound
            }
        };
        let (method, path, operation, about) =
            (&route.method, route.path, route.operation, route.about);
        format!("| `{method} {path}` | {access} | `{operation}` | {about} |\n")
    });
    let head = "| route | who may | recorded as | what it does |\n|---|---|---|---|\n";
    head.to_owned() + &rows.collect::<String>()
}

fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    generator.subschema_for::<Problem>();
    let mut paths: Map<String, Value> = Map::new();
    for route in route::all() {
        let method = route.method.as_str().to_ascii_lowercase();
        let operation = describe(&route, &mut generator);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Value::Object(path) = path {
            path.insert(method, operation);
        }
    }
    let mut schemas = generator.take_definitions(true);
    let codes: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    if let Some(code) = schemas
        .get_mut("Problem")
        .and_then(|schema| schema.pointer_mut("/properties/code"))
    {
        *code = json!({ "type": "string", "enum": codes, "description": "Stable, for programs." });
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Outgate operator API",
            "version": "1",
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "operator": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": scopes(),
                },
            },
        },
    })
}

fn scopes() -> String {
    let words: Vec<_> = Scope::ALL
        .iter()
        .map(|scope| format!("`{scope}`"))
        .collect();
    format!(
        "A token from a file that the configuration names, or one of a configured identity provider. Scopes: {}.",
        words.join(", ")
    )
}

fn describe(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": route.operation,
        "summary": route.about,
        "responses": responses(route, generator),
    });
    let Value::Object(fields) = &mut operation else {
        return operation;
    };
    let security = match route.access {
        Access::Scoped {
            any_of,
            every_tenant,
        } => {
            if every_tenant {
                let text = "The identity must not be bound to a tenant.";
                fields.insert("description".to_owned(), text.into());
            }
            any_of
                .iter()
                .map(|scope| json!({ "operator": [scope.as_str()] }))
                .collect()
        }
        Access::Public | Access::Signed => Vec::new(),
    };
    fields.insert("security".to_owned(), security.into());
    let parameters = parameters(route);
    if !parameters.is_empty() {
        fields.insert("parameters".to_owned(), parameters.into());
    }
    let body = match route.takes {
        Takes::Nothing => None,
        Takes::Optionally(schema) => Some((false, schema(generator))),
        Takes::Always(schema) => Some((true, schema(generator))),
    };
    if let Some((required, schema)) = body {
        let body = json!({
            "required": required,
            "content": { "application/json": { "schema": schema } },
        });
        fields.insert("requestBody".to_owned(), body);
    }
    operation
}

fn parameters(route: &Route) -> Vec<Value> {
    let places = route.path.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?.strip_suffix('}')?;
        let pattern = match name {
            "id" => text::ID,
            "tenant" => text::TENANT,
            _ => "^[^/]+$",
        };
        let schema = json!({ "type": "string", "pattern": pattern });
        Some(json!({ "name": name, "in": "path", "required": true, "schema": schema }))
    });
    let query = route.query.iter().map(|parameter| {
        let schema = match (parameter.kind, parameter.name) {
            ("integer", "limit") => json!({ "type": "integer", "minimum": 1, "maximum": 1000 }),
            ("integer", _) => json!({ "type": "integer", "minimum": 0 }),
            (kind @ "boolean", _) => json!({ "type": kind }),
            (kind, "session") => json!({ "type": kind, "pattern": text::ID }),
            (kind, _) => json!({ "type": kind, "pattern": text::SAYING, "maxLength": 256 }),
        };
        json!({ "name": parameter.name, "in": "query", "description": parameter.about, "schema": schema })
    });
    let signed: &[&str] = match route.access {
        Access::Signed => &["webhook-id", "webhook-timestamp", "webhook-signature"],
        Access::Public | Access::Scoped { .. } => &[],
    };
    let headers = signed.iter().map(|name| {
        json!({ "name": name, "in": "header", "required": true, "schema": { "type": "string" } })
    });
    places.chain(query).chain(headers).collect()
}

fn responses(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut responses: BTreeMap<String, Value> = BTreeMap::new();
    let (status, answer) = match route.gives {
        Gives::Nothing => (204, json!({ "description": "Done." })),
        Gives::Json(status, schema) => {
            let schema = schema(generator);
            let content = json!({ "application/json": { "schema": schema } });
            (
                status,
                json!({ "description": "Done.", "content": content }),
            )
        }
        Gives::Anything(about) => {
            let content = json!({ "application/json": { "schema": { "type": "object" } } });
            (200, json!({ "description": about, "content": content }))
        }
    };
    responses.insert(status.to_string(), answer);
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in route.all_codes() {
        by_status
            .entry(code.status())
            .or_default()
            .push(code.as_str());
    }
    for (status, codes) in by_status {
        let words: Vec<_> = codes.iter().map(|code| format!("`{code}`")).collect();
        let problem = json!({
            "description": words.join(", "),
            "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
            "x-codes": codes,
        });
        responses.insert(status.to_string(), problem);
    }
    json!(responses)
}
