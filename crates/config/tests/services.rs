//! The catalog is sound, is what its document says, and files extend it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy knows test functions, not their helpers"
)]

use std::{collections::BTreeSet, path::Path};

use outgate_config::{Config, Service, ServiceDestination, known_services};
use outgate_journey::policy::{InjectionForm, Port, TokenDemand};

const DOCUMENT: &str = include_str!("../../../docs/known-services.md");

fn parse(rest: &str) -> Config {
    let text = format!("version: 1\nlisten: {{ proxy: 127.0.0.1:8080 }}\n{rest}");
    Config::parse("outgate.yaml", &text, Path::new("")).unwrap()
}

#[test]
fn the_catalog_is_sound_and_no_two_services_share_anything() {
    let services = known_services().unwrap();
    assert!(services.len() >= 20);
    let (mut hosts, mut variables, mut names) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for service in &services {
        assert!(names.insert(&service.name), "{}", service.name);
        assert!(service.variables.iter().all(|name| variables.insert(name)));
        for destination in &service.destinations {
            assert!(
                hosts.insert(destination.host.to_string()),
                "{}",
                destination.host
            );
            assert_eq!(destination.ports, [Port::HTTPS]);
        }
        assert!(service.destinations.iter().any(|it| it.form.is_some()));
    }
}

fn form(destination: &ServiceDestination) -> String {
    let sent = match &destination.form {
        None => "nothing".to_owned(),
        Some(InjectionForm::Header { name, prefix, .. }) => format!("`{name}: {prefix}…`"),
        Some(InjectionForm::Basic { username }) => format!("Basic, user `{username}`"),
        Some(InjectionForm::Query { parameter }) => format!("`?{parameter}=…`"),
    };
    match destination.token {
        TokenDemand::Required => sent,
        TokenDemand::Optional => format!("{sent}, also without"),
    }
}

fn rows(service: &Service) -> Vec<String> {
    let variables: Vec<_> = service
        .variables
        .iter()
        .map(|it| format!("`{it}`"))
        .collect();
    let mut rows = Vec::new();
    for (at, destination) in service.destinations.iter().enumerate() {
        let (name, variables) = if at == 0 {
            (format!("`{}`", service.name), variables.join(", "))
        } else {
            Default::default()
        };
        rows.push(format!(
            "| {name} | {variables} | {} | {} |",
            destination.host,
            form(destination)
        ));
    }
    rows
}

#[test]
fn the_documented_table_is_the_catalog() {
    let services = known_services().unwrap();
    let expected: Vec<String> = services.iter().flat_map(rows).collect();
    let table = DOCUMENT.split("|---|---|---|---|\n").nth(1).unwrap();
    let written: Vec<&str> = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(written, expected, "write:\n{}", expected.join("\n"));
}

#[test]
fn the_first_variable_that_is_set_counts() {
    let services = Config::without_file().services;
    let found = |set: &[&str]| -> Vec<String> {
        let found = services.find(&|name| set.contains(&name)).unwrap();
        found
            .iter()
            .map(|it| format!("{} {}", it.service.name, it.variable))
            .collect()
    };
    assert_eq!(found(&[]), [""; 0]);
    assert_eq!(found(&["PATH", "OPENAI_API_KEY_2"]), [""; 0]);
    assert_eq!(
        found(&["GH_TOKEN", "GITHUB_TOKEN", "OPENAI_API_KEY"]),
        ["openai OPENAI_API_KEY", "github GITHUB_TOKEN"]
    );
    assert_eq!(found(&["GH_TOKEN"]), ["github GH_TOKEN"]);
}

#[test]
fn with_a_file_the_catalog_counts_only_if_it_is_asked_for() {
    let own = "extra: [{ name: forge, variables: FORGE_TOKEN, destinations: [{ host: git.forge.test, inject: { basic: git } }] }]";
    let count = |rest: &str| parse(rest).services.all().unwrap().len();
    let known = known_services().unwrap().len();
    assert_eq!(count(""), 0);
    assert_eq!(count("services: { known: true }"), known);
    assert_eq!(count(&format!("services: {{ {own} }}")), 1);
    assert_eq!(
        count(&format!("services: {{ known: true, {own} }}")),
        known + 1
    );
}

#[test]
fn a_service_of_the_file_replaces_the_one_of_its_name() {
    let config = parse(
        "services: { known: true, extra: [{ name: openai, variables: [MY_KEY], destinations: [{ host: llm.test, ports: [443, 8443], inject: { header: api-key, template: \"K {credential}\" }, allow: [{ methods: POST }] }] }] }",
    );
    let all = config.services.all().unwrap();
    let openai: Vec<_> = all.iter().filter(|it| it.name == "openai").collect();
    assert_eq!(
        (openai.len(), &openai[0].variables[..]),
        (1, &["MY_KEY".to_owned()][..])
    );
    let destination = &openai[0].destinations[0];
    assert_eq!(destination.ports.len(), 2);
    assert_eq!(destination.requests.allow[0].methods, [http::Method::POST]);
    let Some(InjectionForm::Header { name, prefix, .. }) = &destination.form else {
        unreachable!("a header was written");
    };
    assert_eq!((name.as_str(), prefix.as_str()), ("api-key", "K "));
}

#[test]
fn without_a_file_everything_is_as_in_the_shortest_file() {
    let file = parse("services: { known: true }");
    let mut config = Config::without_file();
    config.listen = file.listen.clone();
    config.warnings = file.warnings.clone();
    assert_eq!(format!("{config:?}"), format!("{file:?}"));
    assert_eq!(
        Config::without_file().listen.max_connections,
        file.listen.max_connections
    );
}

#[test]
fn the_documented_file_is_valid() {
    let block = DOCUMENT.split("```yaml\n").nth(1).unwrap();
    let text = block.split("```").next().unwrap();
    let config = Config::parse("x", text, Path::new("")).unwrap();
    assert_eq!(config.services.extra[0].destinations.len(), 3);
}
