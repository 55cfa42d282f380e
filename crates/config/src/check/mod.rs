//! Decides whether a file that has the right shape also makes sense, and turns it into a [`Config`]. Every check
//! reports and goes on; a check that needs something which was already reported stays silent, so that one mistake
//! is told once.

mod address;
pub(crate) mod credential;
pub(crate) mod destination;
mod inject;
mod limit;
mod report;
mod request;
mod service;
mod upstream;

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use outgate_journey::{address::DenySet, policy::Policy};

use crate::{
    Config, Listen, MAX_FILE_BYTES, Problems, Service,
    file::{FileCatalog, FileConfig, FileListen},
    node::KeyPath,
    read::read,
    secrecy::secret_lines,
    yaml::read_tree,
};
use report::Report;

/// See [`Config::parse`].
pub(crate) fn parse(name: &str, text: &str, folder: &Path) -> Result<Config, Problems> {
    if text.len() > MAX_FILE_BYTES {
        return Err(Problems::too_large(name));
    }
    let mut problems = Vec::new();
    let Ok(root) = read_tree(text, &mut problems) else {
        return Err(Problems::new(name, text, problems, HashSet::new()));
    };
    let (file, dropped) = read::<FileConfig>(&root, &mut problems);
    let mut report = Report::new(&root, &dropped, problems);
    let config = file.and_then(|file| check(&file, folder, &mut report));
    let (problems, warnings) = report.finish();
    match config {
        Some(config) if problems.is_empty() => Ok(Config { warnings, ..config }),
        _ => Err(Problems::new(name, text, problems, secret_lines(&root))),
    }
}

/// The services of a catalog, a file of its own.
pub(crate) fn parse_catalog(name: &str, text: &str) -> Result<Vec<Service>, Problems> {
    let mut problems = Vec::new();
    let Ok(root) = read_tree(text, &mut problems) else {
        return Err(Problems::new(name, text, problems, HashSet::new()));
    };
    let (file, dropped) = read::<FileCatalog>(&root, &mut problems);
    let mut report = Report::new(&root, &dropped, problems);
    let services = file.map_or_else(Vec::new, |file| {
        service::check_list(&file.services, &KeyPath::of("services"), &mut report)
    });
    let (problems, _) = report.finish();
    if problems.is_empty() {
        Ok(services)
    } else {
        Err(Problems::new(name, text, problems, secret_lines(&root)))
    }
}

fn check(file: &FileConfig, folder: &Path, report: &mut Report<'_>) -> Option<Config> {
    check_version(file.version, report);
    let listen = check_listen(file.listen.as_ref(), report);
    let state_dir = file
        .state_dir
        .as_ref()
        .and_then(|text| check_path(text, &KeyPath::of("state_dir"), folder, report));
    let audit_dir = file
        .audit
        .as_ref()
        .and_then(|audit| audit.dir.as_ref())
        .and_then(|text| check_path(text, &KeyPath::of("audit").key("dir"), folder, report));
    let credentials = credential::check_credentials(&file.credentials, folder, report);
    let rules = destination::check_destinations(file, report);
    let (sessions, token_headers, session_limits) =
        limit::check_sessions(file.sessions.as_ref(), report);
    let resolver = address::check_resolver(file.resolver.as_ref(), report);
    let deny_set = DenySet::new(resolver.exceptions.clone(), Arc::new([]));
    address::check_fixed_hosts(
        &resolver.hosts,
        file.resolver.as_ref(),
        &rules,
        &deny_set,
        report,
    );
    let upstream = upstream::check_upstream(file.upstream.as_ref(), folder, report);
    let timeouts = limit::check_timeouts(file.timeouts.as_ref(), report);
    Some(Config {
        listen: listen?,
        state_dir,
        credentials,
        policy: Policy::new(rules, deny_set, session_limits, token_headers),
        sessions,
        resolver,
        upstream,
        timeouts,
        audit_dir,
        posture: destination::default_posture(file.posture),
        services: service::check_services(file.services.as_ref(), report),
        warnings: Vec::new(),
    })
}

fn check_version(version: Option<u32>, report: &mut Report<'_>) {
    match version {
        Some(1) => {}
        Some(_) => report.error(
            "unsupported_version",
            &KeyPath::of("version"),
            "this version of the format is not known".to_owned(),
            "write `version: 1`",
        ),
        None => report.missing(&KeyPath::default(), "version", "add `version: 1`"),
    }
}

fn check_listen(listen: Option<&FileListen>, report: &mut Report<'_>) -> Option<Listen> {
    const EXAMPLE: &str = "127.0.0.1:8080";
    let Some(listen) = listen else {
        return Some(Listen::nowhere());
    };
    let base = KeyPath::of("listen");
    let max_connections = match listen.max_connections {
        None => Some(Listen::MAX_CONNECTIONS),
        Some(number) => limit::check_at_least_one(number, &base.key("max_connections"), report)
            .and_then(|number| usize::try_from(number).ok()),
    };
    let Some(proxy) = &listen.proxy else {
        report.missing(&base, "proxy", &format!("add `proxy: {EXAMPLE}`"));
        return None;
    };
    let path = base.key("proxy");
    let sockets = check_sockets(&proxy.0, &path, EXAMPLE, report);
    for (path, socket) in &sockets {
        if !socket.ip().is_loopback() {
            report.warn(
                "listens_beyond_loopback",
                path,
                format!("{socket} can be reached from other machines"),
                "make sure that only the guests can connect to it, or listen on 127.0.0.1",
            );
        }
    }
    Some(Listen {
        proxy: sockets.into_iter().map(|(_, socket)| socket).collect(),
        max_connections: max_connections?,
    })
}

/// Reads `address:port` texts, with their places: not empty, no duplicates.
fn check_sockets(
    texts: &[String],
    path: &KeyPath,
    example: &str,
    report: &mut Report<'_>,
) -> Vec<(KeyPath, SocketAddr)> {
    report.refuse_empty(texts, path);
    let mut sockets: Vec<(KeyPath, SocketAddr)> = Vec::new();
    for (path, text) in report.places(path, texts) {
        let Ok(socket) = text.parse::<SocketAddr>() else {
            report.error(
                "invalid_socket",
                &path,
                "not an IP address and a port".to_owned(),
                &format!("write an address and a port, as in `{example}` or `\"[::1]:8080\"`"),
            );
            continue;
        };
        if sockets.iter().any(|(_, known)| *known == socket) {
            report.duplicate(&path, &socket.to_string());
        } else {
            sockets.push((path, socket));
        }
    }
    sockets
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
