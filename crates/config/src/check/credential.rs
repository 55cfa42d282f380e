//! Decides where credentials come from, and which data planes may have them. Nothing that is written here is repeated in a message: it may be the secret.

use std::{collections::BTreeMap, path::Path, time::Duration};

use outgate_journey::policy::{CredentialName, CredentialSource, SdsSource};

use super::{
    check_path, destination,
    limit::check_duration,
    name::{check_certificate_names, is_exact_text},
    plane::{check_address, refuse_own_door},
    report::Report,
};
use crate::{
    Listen,
    file::{FileCredential, FileCredentialSource, FileSds, FileSource, OneOrMany},
    node::{KeyPath, Node},
    read::similar,
};

/// Where credentials come from, and which data planes may have those that not all may.
#[derive(Default)]
pub(super) struct CheckedCredentials {
    pub(super) sources: BTreeMap<CredentialName, CredentialSource>,
    pub(super) planes: BTreeMap<CredentialName, Vec<String>>,
}

/// `use_is_known`: whether all that draws credentials is in this file, so that one which nothing injects is a mistake.
pub(super) fn check_credentials(
    credentials: &BTreeMap<String, FileCredential>,
    use_is_known: bool,
    listen: Option<&Listen>,
    folder: &Path,
    report: &mut Report<'_>,
) -> CheckedCredentials {
    let mut checked = CheckedCredentials::default();
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
        let from = path.key("from");
        if let Some(source) =
            check_credential_source(&credential.from, &from, listen, folder, report)
        {
            let name = CredentialName::new(name.as_str());
            checked.sources.insert(name, source);
        }
        if let Some(planes) = &credential.planes {
            let planes = check_planes(planes, &path.key("planes"), report);
            let name = CredentialName::new(name.as_str());
            checked.planes.insert(name, planes);
        }
    }
    checked
}

/// Data planes are told apart by their certificates, so there must be some.
fn check_planes(
    written: &OneOrMany<String>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Vec<String> {
    let names = check_certificate_names("invalid_plane", Some(written), path, report);
    let listen = report.root().entry("listen");
    let Some(door) = listen.and_then(|it| it.value.entry("xds")) else {
        report.error_at_key(
            "planes_without_xds",
            path,
            "there is no `listen.xds` on which data planes could come in".to_owned(),
            "add `listen: { xds: { address: …, certificate: …, key: …, client_ca: … } }`, or take the key out",
        );
        return names;
    };
    if door.value.entry("socket").is_some() {
        report.error_at_key(
            "planes_on_socket",
            path,
            "data planes on the Unix socket `listen.xds` show no names".to_owned(),
            "give `listen.xds` an `address` and certificates, or take the key out",
        );
        return names;
    }
    let Some(clients) = door.value.entry("clients") else {
        return names;
    };
    let one = clients.value.text().into_iter();
    let many = clients.value.items().iter().filter_map(Node::text);
    let clients: Vec<&str> = one.chain(many).collect();
    for (path, name) in report.places(path, &written.0) {
        if is_exact_text(name) && !clients.contains(&name.as_str()) {
            let help = match similar(name, &clients) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "add the name to `listen.xds.clients`".to_owned(),
            };
            report.warn(
                "unknown_plane",
                &path,
                "`listen.xds.clients` lets nobody of this name in".to_owned(),
                &help,
            );
        }
    }
    names
}

fn check_credential_source(
    source: &FileCredentialSource,
    path: &KeyPath,
    listen: Option<&Listen>,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<CredentialSource> {
    let forms = "write one of `{ env: NAME }`, `{ file: path }` and `{ sds: { socket: path, name: NAME } }`";
    match (&source.env, &source.file, &source.sds) {
        (None, None, Some(sds)) => check_sds(sds, &path.key("sds"), listen, folder, report),
        (env, file, None) => check_place(env.as_ref(), file.as_ref(), forms, path, folder, report),
        _ => {
            refuse_places(forms, path, report);
            None
        }
    }
}

fn check_sds(
    sds: &FileSds,
    path: &KeyPath,
    listen: Option<&Listen>,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<CredentialSource> {
    let is_name = is_exact_text(&sds.name);
    if !is_name {
        report.error(
            "invalid_secret_name",
            &path.key("name"),
            "not the name of a secret".to_owned(),
            "write the name that the server knows the secret by: 1 to 512 characters, without spaces",
        );
    }
    let max_age = sds.max_age.as_ref().map(|text| {
        let day = Duration::from_secs(24 * 3600);
        let bounds = Duration::from_secs(1)..=day;
        check_duration(Some(text), day, &bounds, &path.key("max_age"), report)
    });
    let address = check_address(sds.place(), path, folder, report)?;
    refuse_own_door(&address, path, listen, report);
    is_name.then(|| {
        CredentialSource::Sds(SdsSource {
            address,
            name: sds.name.clone(),
            max_age,
        })
    })
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

/// A secret that is not a credential's: it stands in a variable or a file.
pub(super) fn check_source(
    source: &FileSource,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<CredentialSource> {
    let forms = "write either `{ env: NAME }` or `{ file: path }`";
    let (env, file) = (source.env.as_ref(), source.file.as_ref());
    check_place(env, file, forms, path, folder, report)
}

fn check_place(
    env: Option<&String>,
    file: Option<&String>,
    forms: &str,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<CredentialSource> {
    match (env, file) {
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
            refuse_places(forms, path, report);
            None
        }
    }
}

fn refuse_places(forms: &str, path: &KeyPath, report: &mut Report<'_>) {
    report.error(
        "one_source",
        path,
        "a secret comes from exactly one place".to_owned(),
        forms,
    );
}
