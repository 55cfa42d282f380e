//! The interface's document: it is what is checked in, and what is served is what it says.

use std::{collections::BTreeSet, path::Path};

use http::Method;
use outgate_control::operator::{ErrorCode, codes_table, openapi, openapi_path, routes_table};
use proptest::{
    prelude::{Just, Strategy, any, prop},
    prop_oneof,
    strategy::ValueTree,
    test_runner::TestRunner,
};
use serde_json::{Map, Value, json};

use crate::world::{Answer, Who, World};

/// The document, to check answers against.
pub(crate) struct Document(Value);

/// One operation of the document.
pub(crate) struct Operation {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) value: Value,
}

impl Operation {
    /// The scopes of which one is needed; empty: no credential.
    pub(crate) fn scopes(&self) -> Vec<String> {
        let security = self.value["security"].as_array().unwrap();
        security
            .iter()
            .map(|one| one["operator"][0].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) fn is_webhook(&self) -> bool {
        self.path.starts_with("/v1/webhooks/")
    }

    /// Whether it is for identities only that are bound to no tenant.
    pub(crate) fn is_everybodys(&self) -> bool {
        self.value["description"].is_string()
    }

    pub(crate) fn takes_body(&self) -> bool {
        self.value["requestBody"].is_object()
    }

    /// The path with these in its places.
    pub(crate) fn at(&self, id: &str) -> String {
        self.path
            .replace("{id}", id)
            .replace("{tenant}", "team-a")
            .replace("{name}", "soar")
    }
}

impl Document {
    pub(crate) fn current() -> Self {
        Self(serde_json::from_str(&openapi()).unwrap())
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        let paths = self.0["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, methods)| {
            methods
                .as_object()
                .unwrap()
                .iter()
                .map(|(method, value)| Operation {
                    method: method.to_ascii_uppercase(),
                    path: path.clone(),
                    value: value.clone(),
                })
        });
        operations.collect()
    }

    /// A validator for a schema of the document.
    pub(crate) fn validator(&self, schema: &Value) -> jsonschema::Validator {
        let mut root = schema.clone();
        root["components"] = self.0["components"].clone();
        jsonschema::validator_for(&root).unwrap()
    }

    /// The schema of the body that an operation takes.
    pub(crate) fn body_schema(&self, operation: &Operation) -> Value {
        operation.value["requestBody"]["content"]["application/json"]["schema"].clone()
    }

    fn find(&self, method: &Method, path: &str) -> Option<Operation> {
        let path = path.split('?').next().unwrap();
        self.operations().into_iter().find(|operation| {
            let (wanted, found) = (operation.path.split('/'), path.split('/'));
            operation.method == method.as_str()
                && wanted.clone().count() == found.clone().count()
                && wanted.zip(found).all(|(wanted, found)| {
                    wanted == found || wanted.starts_with('{') && !found.is_empty()
                })
        })
    }

    /// An answer must be one that the document tells of.
    pub(crate) fn check_answer(&self, method: &Method, path: &str, answer: &Answer) {
        let Some(operation) = self.find(method, path) else {
            assert!([401, 404, 405].contains(&answer.status), "{method} {path}");
            return;
        };
        let response = &operation.value["responses"][answer.status.to_string()];
        assert!(
            response.is_object(),
            "{method} {path} answered {} {:?}",
            answer.status,
            answer.body
        );
        if answer.body.is_empty() {
            assert!(response["content"].is_null(), "{method} {path}: no body");
            return;
        }
        let content_type = answer.headers["content-type"].to_str().unwrap();
        let schema = &response["content"][content_type]["schema"];
        assert!(
            schema.is_object(),
            "{method} {path} answered with {content_type}"
        );
        let body = answer.json();
        if let Err(error) = self.validator(schema).validate(&body) {
            panic!("{method} {path}: {error}: {body}");
        }
        if content_type == "application/problem+json" {
            let codes = response["x-codes"].as_array().unwrap();
            assert!(codes.contains(&body["code"]), "{method} {path}: {body}");
        }
    }
}

#[test]
fn the_document_is_the_one_that_is_checked_in() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(openapi_path());
    if std::env::var_os("OUTGATE_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, openapi()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == openapi(),
        "{} is out of date; write it by running this test with OUTGATE_WRITE_OPENAPI=1",
        openapi_path().display()
    );
}

#[test]
fn the_page_for_operators_lists_every_route_and_code_as_it_is() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operator.md");
    let text = std::fs::read_to_string(page).unwrap_or_default();
    for table in [routes_table(), codes_table()] {
        assert!(
            text.contains(&table),
            "docs/operator.md must hold this table:\n{table}"
        );
    }
}

#[test]
fn the_page_for_operators_explains_no_code_that_there_is_not() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operator.md");
    let text = std::fs::read_to_string(page).unwrap();
    let mut explained = BTreeSet::new();
    for line in text.lines() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (Some(code), Some(status)) = (cells.next(), cells.next()) else {
            continue;
        };
        if status.len() == 3 && status.bytes().all(|b| b.is_ascii_digit()) {
            explained.insert((code.trim_matches('`'), status));
        }
    }
    let statuses: Vec<_> = ErrorCode::ALL
        .iter()
        .map(|code| (code.as_str(), code.status().to_string()))
        .collect();
    let current = statuses
        .iter()
        .map(|(code, status)| (*code, status.as_str()))
        .collect();
    assert_eq!(explained, current);
}

#[test]
fn every_code_belongs_to_a_route_or_to_the_door() {
    let document = Document::current();
    let mut told = BTreeSet::new();
    for operation in document.operations() {
        for response in operation.value["responses"].as_object().unwrap().values() {
            let codes = response["x-codes"].as_array().into_iter().flatten();
            told.extend(codes.map(|code| code.as_str().unwrap().to_owned()));
        }
    }
    let door = ["peer_not_allowed", "unknown_route", "method_not_allowed"];
    for code in ErrorCode::ALL {
        let known = told.contains(code.as_str()) || door.contains(&code.as_str());
        assert!(known, "{code} is never answered");
    }
}

#[tokio::test]
async fn the_document_is_served_as_it_is() {
    let world = World::new().await;
    let answer = world
        .call(&Who::Nobody, "GET", "/v1/openapi.json", &[], b"")
        .await;
    assert_eq!(String::from_utf8(answer.body.to_vec()).unwrap(), openapi());
    assert_eq!(answer.json()["openapi"], "3.1.0");
}

/// JSON of any kind, small.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("a number", |n| n.is_finite().then(|| json!(n))),
        prop_oneof![
            Just("team-a".to_owned()),
            Just("s_1".to_owned()),
            Just("120/min".to_owned()),
            "[ -~]{0,12}",
            "\\PC{0,6}",
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,8}", inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
}

/// Bodies that have some of a schema's fields, with values that may or may not fit.
fn bodies(names: Vec<String>) -> impl Strategy<Value = Value> {
    let names = prop_oneof![
        9 => prop::sample::select(names),
        1 => "[a-z_]{1,10}",
    ];
    let fields = prop::collection::btree_map(names, anything(), 0..4).prop_map(|map| {
        let map: Map<String, Value> = map.into_iter().collect();
        Value::Object(map)
    });
    prop_oneof![9 => fields, 1 => anything()]
}

#[tokio::test]
async fn what_the_document_refuses_the_interface_refuses_too() {
    let world = World::new().await;
    let document = Document::current();
    let mut runner = TestRunner::deterministic();
    let (mut fitting, mut refused) = (0, 0);
    for operation in document.operations() {
        if !operation.takes_body() || operation.is_webhook() {
            continue;
        }
        let schema = document.body_schema(&operation);
        let validator = document.validator(&schema);
        let resolved = match schema["$ref"].as_str() {
            Some(reference) => document
                .0
                .pointer(reference.trim_start_matches('#'))
                .unwrap()
                .clone(),
            None => schema,
        };
        let names = resolved["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        let strategy = bodies(names);
        for _ in 0..60 {
            let body = strategy.new_tree(&mut runner).unwrap().current();
            let text = body.to_string();
            let before = world.trail.actions().len();
            let path = operation.at("s_1");
            let answer = world
                .call(&Who::Local, &operation.method, &path, &[], text.as_bytes())
                .await;
            assert_eq!(world.trail.actions().len(), before + 1, "{path} {text}");
            if validator.is_valid(&body) {
                fitting += 1;
            } else {
                refused += 1;
                assert!((400..500).contains(&answer.status), "{path} took {text}");
            }
        }
    }
    assert!(fitting > 50 && refused > 50, "{fitting} {refused}");
}
