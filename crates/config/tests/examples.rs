//! Every file in `examples/` is one that the gateway takes as it is.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows test functions, not their helpers"
)]

use std::{collections::BTreeMap, fs, path::Path};

use outgate_config::Config;

/// Every example, by its name without the ending.
fn examples() -> BTreeMap<String, Config> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let files = fs::read_dir(folder).unwrap();
    files
        .map(|file| {
            let path = file.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, Config::load(&path).unwrap())
        })
        .collect()
}

#[test]
fn every_example_loads_without_a_warning() {
    let examples = examples();
    assert!(!examples.is_empty());
    for (name, config) in examples {
        assert_eq!(config.warnings, [], "{name}");
    }
}

#[test]
fn only_an_example_without_a_credential_has_no_ca() {
    let own = examples()
        .into_iter()
        .filter(|(_, config)| config.control.is_none());
    for (name, config) in own {
        assert_eq!(config.needs_ca(), !config.credentials.is_empty(), "{name}");
        assert_eq!(config.needs_ca(), name != "passthrough-only", "{name}");
    }
}

#[test]
fn the_following_gateway_takes_what_the_controlling_one_gives() {
    let examples = examples();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let document = examples["operator"].shared_document();
    let following = Config::load_following(&folder.join("following.yaml"), document).unwrap();
    assert_eq!(following.shared_document(), document);
    assert!(examples["following"].policy.is_empty() && !following.policy.is_empty());
    assert_eq!(following.sessions, examples["operator"].sessions);
    assert!(following.needs_ca());
}
