//! Decides where credentials come from. Nothing that is written here is repeated in a message: it may be the secret.

use std::{collections::BTreeMap, path::Path};

use outgate_journey::policy::{CredentialName, CredentialSource};

use super::{check_path, destination, report::Report};
use crate::{
    file::{FileCredential, FileSource},
    node::KeyPath,
};

/// `use_is_known`: whether the destinations are in this file, so that a credential which nothing injects is a mistake.
pub(super) fn check_credentials(
    credentials: &BTreeMap<String, FileCredential>,
    use_is_known: bool,
    folder: &Path,
    report: &mut Report<'_>,
) -> BTreeMap<CredentialName, CredentialSource> {
    let mut checked = BTreeMap::new();
    for (name, credential) in credentials {
        let path = KeyPath::of("credentials").key(name);
        if !is_simple_name(name) {
            report.error_at_key(
                "invalid_credential_name",
                &path,
                "not a name for a credential".to_owned(),
                "use 1 to 64 letters, digits, `.`, `_` and `-`",
            );
        }
        if use_is_known && !destination::mentions_credential(report.root(), name) {
            report.error_at_key(
                "unused_credential",
                &path,
                format!("no destination injects the credential `{name}`"),
                "add `inject: { credential: … }` to a destination, or take the credential out",
            );
        }
        if let Some(source) = check_source(&credential.from, &path.key("from"), folder, report) {
            checked.insert(CredentialName::new(name.as_str()), source);
        }
    }
    checked
}

/// 1 to 64 characters that need no quoting anywhere.
pub(super) fn is_simple_name(name: &str) -> bool {
    let simple = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    !name.is_empty() && name.len() <= 64 && name.bytes().all(simple)
}

/// The portable names of environment variables (POSIX.1-2024, 8.1), and the same in lower case.
pub(crate) fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

pub(super) fn check_source(
    source: &FileSource,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<CredentialSource> {
    match (&source.env, &source.file) {
        (Some(name), None) => {
            let valid = is_variable_name(name);
            if !valid {
                report.error(
                    "invalid_env_name",
                    &path.key("env"),
                    "not the name of an environment variable".to_owned(),
                    "write the variable's name, as in `env: ANTHROPIC_API_KEY`; never the secret itself",
                );
            }
            valid.then(|| CredentialSource::Env(name.clone()))
        }
        (None, Some(file)) => {
            check_path(file, &path.key("file"), folder, report).map(CredentialSource::File)
        }
        (None, None) if report.touched(path) => None,
        _ => {
            report.error(
                "one_source",
                path,
                "a secret comes from exactly one place".to_owned(),
                "write either `{ env: NAME }` or `{ file: path }`",
            );
            None
        }
    }
}
