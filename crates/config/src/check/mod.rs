//! Decides whether a file that has the right shape also makes sense, and turns it into a [`Config`]. Every check
//! reports and goes on; a check that needs something which was already reported stays silent, so that one mistake
//! is told once.

mod address;
mod audit;
mod ca;
mod confinement;
mod control;
pub(crate) mod credential;
pub(crate) mod destination;
mod door;
mod envoy;
mod inbound;
mod inject;
mod issuer;
mod limit;
mod listen;
mod name;
mod operator;
mod plane;
mod policy;
mod report;
mod request;
mod service;
mod session;
mod shared;
mod target;
mod upstream;
mod url;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use outgate_journey::address::DenySet;
use serde::de::DeserializeOwned;

use crate::{
    Config, MAX_DOCUMENT_BYTES, MAX_FILE_BYTES, Problem, Problems, Service,
    file::{FileCatalog, FileConfig, FileShared, VERSION},
    node::KeyPath,
    read::read,
    secrecy::secret_lines,
    yaml::read_tree,
};
use report::Report;
use shared::{CheckedShared, check_shared};

/// See [`Config::parse`].
pub(crate) fn parse(name: &str, text: &str, folder: &Path) -> Result<Config, Problems> {
    let (config, warnings) = read_checked(name, text, MAX_FILE_BYTES, |file, report| {
        check(file, folder, report)
    })?;
    Ok(Config { warnings, ..config })
}

/// The services of a catalog, a file of its own.
pub(crate) fn parse_catalog(name: &str, text: &str) -> Result<Vec<Service>, Problems> {
    let check = |file: &FileCatalog, report: &mut Report<'_>| {
        let path = KeyPath::of("services");
        Some(service::check_list(&file.services, &path, report))
    };
    read_checked(name, text, MAX_FILE_BYTES, check).map(|(services, _)| services)
}

/// What a control plane gave, on the gateway whose own file is `base`. Its warnings were told where it was written.
pub(crate) fn parse_shared(
    name: &str,
    text: &str,
    base: &Config,
    folder: &Path,
) -> Result<CheckedShared, Problems> {
    let check = |file: &FileShared, report: &mut Report<'_>| {
        check_version(file.version, report);
        let own = base.credentials.keys().map(|name| name.as_str().to_owned());
        report.know_credentials(own.collect());
        Some(check_shared(
            &file.shared(),
            &base.operator.oidc,
            folder,
            report,
        ))
    };
    read_checked(name, text, MAX_DOCUMENT_BYTES, check).map(|(shared, _)| shared)
}

/// Reads a text and has it checked: what came of it and the warnings, or every problem.
fn read_checked<T: DeserializeOwned, C>(
    name: &str,
    text: &str,
    limit: usize,
    check: impl FnOnce(&T, &mut Report<'_>) -> Option<C>,
) -> Result<(C, Vec<Problem>), Problems> {
    if text.len() > limit {
        return Err(Problems::too_large(name, limit));
    }
    let mut problems = Vec::new();
    let Ok(root) = read_tree(text, &mut problems) else {
        return Err(Problems::new(name, text, problems, HashSet::new()));
    };
    let (file, dropped) = read::<T>(&root, &mut problems);
    let mut report = Report::new(&root, &dropped, problems);
    let checked = file.and_then(|file| check(&file, &mut report));
    let (problems, warnings) = report.finish();
    match checked {
        Some(checked) if problems.is_empty() => Ok((checked, warnings)),
        _ => Err(Problems::new(name, text, problems, secret_lines(&root))),
    }
}

fn check(file: &FileConfig, folder: &Path, report: &mut Report<'_>) -> Option<Config> {
    check_version(file.version, report);
    let listen = listen::check_listen(file.listen.as_ref(), folder, report);
    let state_dir = KeyPath::of("state_dir");
    let state_dir = check_optional_path(file.state_dir.as_ref(), &state_dir, folder, report);
    let dir = file.audit.as_ref().and_then(|audit| audit.dir.as_ref());
    let audit_dir = check_optional_path(dir, &KeyPath::of("audit").key("dir"), folder, report);
    let audit = audit::check_audit(file.audit.as_ref(), folder, report);
    let operator = operator::check_operator(file, folder, report);
    let is_own = !control::follows(report);
    // A data plane may draw any credential: which ones it needs is not said here alone.
    let has_xds = report.root().entry("listen");
    let has_xds = has_xds.is_some_and(|it| it.value.entry("xds").is_some());
    let credentials = credential::check_credentials(
        &file.credentials,
        is_own && !has_xds,
        listen.as_ref(),
        folder,
        report,
    );
    let ca = ca::check_ca(file.ca.as_ref(), folder, report);
    let minter = plane::check_minter(file.minter.as_ref(), listen.as_ref(), folder, report);
    let envoy = envoy::check_envoy(file.envoy.as_ref(), listen.as_ref(), folder, report);
    let inbound = inbound::check_inbound(file, listen.as_ref(), folder, report);
    let control = control::check_control(file.control.as_ref(), folder, report);
    let shared = if is_own {
        check_shared(&file.shared(), &operator.oidc, folder, report)
    } else {
        CheckedShared::nothing()
    };
    let resolver = address::check_resolver(file.resolver.as_ref(), report);
    let deny_set = DenySet::new(resolver.exceptions.clone(), Arc::new([]));
    address::check_fixed_hosts(
        &resolver.hosts,
        file.resolver.as_ref(),
        &shared.rules,
        &deny_set,
        report,
    );
    let upstream = upstream::check_upstream(file.upstream.as_ref(), folder, report);
    let timeouts = limit::check_timeouts(file.timeouts.as_ref(), report);
    let services = service::check_services(file.services.as_ref(), report);
    let config = Config {
        listen: listen?,
        state_dir,
        credentials: credentials.sources,
        credential_planes: credentials.planes,
        resolver,
        upstream,
        timeouts,
        audit_dir,
        audit,
        operator,
        control,
        ca,
        minter,
        inbound,
        envoy,
        services,
        ..Config::without_file()
    };
    Some(shared.into_config(config, deny_set))
}

fn check_version(version: Option<u32>, report: &mut Report<'_>) {
    match version {
        Some(VERSION) => {}
        Some(_) => report.error(
            "unsupported_version",
            &KeyPath::of("version"),
            "this version of the format is not known".to_owned(),
            "write `version: 1`",
        ),
        None => report.missing(&KeyPath::default(), "version", "add `version: 1`"),
    }
}

fn check_path(
    text: &str,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<PathBuf> {
    if text.is_empty() || text.contains('\0') {
        report.error(
            "invalid_path",
            path,
            "not a path".to_owned(),
            "write a path, absolute or relative to this file's folder",
        );
        return None;
    }
    // `join` keeps an absolute path as it is.
    Some(folder.join(text))
}

fn check_optional_path(
    text: Option<&String>,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<PathBuf> {
    check_path(text?, path, folder, report)
}
