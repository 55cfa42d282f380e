//! The policy file.

use std::path::Path;

use outgate_config::{Config, Listen, MAX_FILE_BYTES};
use outgate_journey::{
    destination::identify_connect,
    name::HostPattern,
    policy::{Posture, Rule},
};

/// A file is either refused with problems that point into it, or accepted with the same meaning every time; no
/// accepted rule injects into what is not terminated, or lets another rule decide for its own host.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let parse = || Config::parse("outgate.yaml", text, Path::new("/etc/outgate"));
    match parse() {
        Ok(config) => {
            let again = parse().expect("the same text again");
            assert!(config.restart_needed(&again).is_empty());
            assert_eq!(rules(&config), rules(&again));
            assert_sound_listeners(&config.listen);
            for rule in config.policy.rules() {
                assert_sound(&config, rule);
            }
        }
        Err(problems) => {
            assert!(!problems.as_slice().is_empty(), "refused without a reason");
            // YAML ends a line at CR, LF or both; what is missing at the end is missing on the line after.
            let lines = 2 + text.bytes().filter(|byte| b"\r\n".contains(byte)).count();
            for problem in problems.iter() {
                assert!(
                    (1..=lines).contains(&problem.line) || text.len() > MAX_FILE_BYTES,
                    "{problem:?}"
                );
                assert!(
                    problem.column >= 1 && !problem.message.is_empty(),
                    "{problem:?}"
                );
            }
        }
    }
}

/// Counts and operators have a listener only beside one for guests, gateways or a minter's clients.
fn assert_sound_listeners(listen: &Listen) {
    let serves = listen.serves_guests() || listen.control.is_some() || listen.minter.is_some();
    let watched = !listen.metrics.is_empty() || listen.operator.is_some();
    assert!(serves || !watched, "{listen:?}");
}

fn assert_sound(config: &Config, rule: &Rule) {
    assert!(!rule.ports.is_empty());
    if let Some(injection) = &rule.injection {
        assert_eq!(rule.posture, Posture::Bump, "{rule:?}");
        assert!(
            config.credentials.contains_key(&injection.credential),
            "{rule:?}"
        );
        assert!(config.needs_ca());
    }
    if let HostPattern::Exact(host) = &rule.host {
        for port in &rule.ports {
            let destination =
                identify_connect(&format!("{host}:{port}")).expect("a canonical name and port");
            let decided = config.policy.allow(destination);
            match rule.posture {
                Posture::DenyAll => assert!(decided.is_err(), "{rule:?}"),
                _ => assert_eq!(decided.expect("its own host").rule().as_ref(), rule),
            }
        }
    }
}

fn rules(config: &Config) -> Vec<Rule> {
    let mut rules: Vec<Rule> = config
        .policy
        .rules()
        .map(|rule| rule.as_ref().clone())
        .collect();
    rules.sort_by_key(|rule| rule.id.to_string());
    rules
}
