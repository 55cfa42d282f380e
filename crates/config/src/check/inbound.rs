//! Decides who is let in to the service behind a listener, and what needs no token. A caller's token is none of a guest's
//! or an operator's: what opens one door must not open another.

use std::{collections::HashMap, path::Path};

use http::Method;
use outgate_journey::name::HostName;

use super::{
    check_optional_path,
    envoy::own_listener_at,
    issuer::{check_algorithms, check_audiences, check_keys, check_once},
    limit::check_at_least_one,
    listen::{check_tls, collide},
    name::{check_claim, check_token_text},
    report::Report,
    request::{check_each, check_method, check_path_pattern},
    target::{check_target, leaves_in_clear},
};
use crate::{
    CallerIssuer, Exemption, Inbound, Listen, TlsFiles,
    file::{FileCallerIssuer, FileConfig, FileExemption, FileInbound},
    node::KeyPath,
};

/// All of them.
pub(super) fn check_inbound(
    file: &FileConfig,
    listen: Option<&Listen>,
    folder: &Path,
    report: &mut Report<'_>,
) -> Vec<Inbound> {
    let mut listeners: Vec<Inbound> = Vec::new();
    for (path, written) in report.places(&KeyPath::of("inbound"), &file.inbound) {
        for (at, issuer) in report.places(&path.key("issuers"), &written.issuers) {
            check_other_doors(issuer, file, &at, report);
        }
        let Some(listener) = check_listener(written, &path, folder, report) else {
            continue;
        };
        let socket = listener.listen;
        let other = own_listener_at(socket, listen).map(str::to_owned);
        let taken = listeners.iter().position(|it| collide(it.listen, socket));
        if let Some(other) = other.or(taken.map(|at| format!("inbound[{at}]"))) {
            report.error(
                "same_address",
                &path.key("listen"),
                format!("`{other}` listens there already"),
                "give each listener a port of its own: who may reach the one must not reach the other",
            );
        }
        listeners.push(listener);
    }
    listeners
}

fn check_listener(
    written: &FileInbound,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<Inbound> {
    let at = path.key("listen");
    let listen = written.listen.parse().ok();
    if listen.is_none() {
        report.error(
            "invalid_socket",
            &at,
            "not an IP address and a port".to_owned(),
            "write an address and a port, as in `0.0.0.0:8443` or `\"[::]:8443\"`",
        );
    }
    let tls = check_way_in(written, path, folder, report);
    let to = check_target(&written.to.0, written.http2, &path.key("to"), report);
    let hosts = check_each(
        written.hosts.as_ref(),
        &path.key("hosts"),
        check_host,
        report,
    );
    let issuers = check_issuers(&written.issuers, &path.key("issuers"), folder, report);
    let exempt = check_exemptions(&written.exempt, &path.key("exempt"), report);
    if let Some(to) = to
        .as_ref()
        .filter(|to| written.forward_token && leaves_in_clear(to))
    {
        report.warn(
            "token_in_clear",
            &path.key("forward_token"),
            format!("callers' tokens go to {to} without TLS"),
            "write `to: https://…`, or take `forward_token` out: the service is told who calls without it",
        );
    }
    let max_connections = match written.max_connections {
        None => Some(Inbound::MAX_CONNECTIONS),
        Some(number) => check_at_least_one(number, &path.key("max_connections"), report)
            .and_then(|number| usize::try_from(number).ok()),
    };
    Some(Inbound {
        listen: listen?,
        tls: tls?,
        to: to?,
        hosts,
        issuers,
        exempt,
        forward_token: written.forward_token,
        max_connections: max_connections?,
    })
}

/// TLS, or the word that there is none: a certificate that was forgotten would send every token in clear.
#[expect(
    clippy::option_option,
    reason = "outside whether it is right, inside whether there is TLS"
)]
fn check_way_in(
    written: &FileInbound,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<Option<TlsFiles>> {
    match (&written.tls, written.plaintext) {
        (Some(tls), false) => {
            let at = path.key("tls");
            check_tls(&tls.certificate, &tls.key, &at, folder, report).map(Some)
        }
        (None, true) => Some(None),
        _ if report.touched(path) => None,
        _ => {
            report.error(
                "tls_or_plaintext",
                path,
                "callers speak either TLS or plain HTTP".to_owned(),
                "write one of `tls: { certificate: tls.crt, key: tls.key }` and `plaintext: true`",
            );
            None
        }
    }
}

fn check_host(text: &str, path: &KeyPath, report: &mut Report<'_>) -> Option<HostName> {
    HostName::parse(text)
        .map_err(|error| {
            let help = "write a name without a port, as in `agent.example.org`";
            report.error("invalid_host", path, error.to_string(), help);
        })
        .ok()
}

fn check_issuers(
    written: &[FileCallerIssuer],
    base: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Vec<CallerIssuer> {
    report.refuse_empty(written, base);
    let mut lines = HashMap::new();
    let mut issuers = Vec::new();
    for (path, written) in report.places(base, written) {
        check_once(&mut lines, &written.issuer, &path.key("issuer"), report);
        issuers.extend(check_issuer(written, &path, folder, report));
    }
    issuers
}

fn check_issuer(
    written: &FileCallerIssuer,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<CallerIssuer> {
    let at = path.key("issuer");
    let issuer = check_token_text("invalid_issuer", &written.issuer, &at, report);
    let audiences = check_audiences(&written.audience, &path.key("audience"), report);
    let jwks = written.jwks.as_ref().map(|url| url.0.as_str());
    let keys = check_keys(
        &written.issuer,
        jwks,
        written.jwks_file.as_ref(),
        path,
        folder,
        report,
    );
    let algorithms = check_algorithms(written.algorithms.as_ref(), &path.key("algorithms"), report);
    let at = path.key("subject_claim");
    let subject_claim = check_claim(written.subject_claim.as_ref(), &at, report);
    let ca = check_optional_path(written.ca.as_ref(), &path.key("ca"), folder, report);
    Some(CallerIssuer {
        issuer: issuer?,
        audiences,
        keys: keys?,
        algorithms,
        subject_claim,
        ca,
    })
}

/// A token is good for one kind of door.
fn check_other_doors(
    issuer: &FileCallerIssuer,
    file: &FileConfig,
    path: &KeyPath,
    report: &mut Report<'_>,
) {
    let guests = file.sessions.iter().flat_map(|it| &it.issuers);
    let guests = guests.flat_map(|it| {
        let audiences = it.audience.0.iter();
        audiences.map(|audience| ("sessions.issuers", &it.issuer, audience))
    });
    let operators = file.operator.iter().flat_map(|it| &it.oidc);
    let operators = operators.map(|it| ("operator.oidc", &it.issuer.0, &it.audience));
    let is_same = |(_, other, audience): &(&str, &String, &String)| {
        **other == issuer.issuer && issuer.audience.0.contains(*audience)
    };
    if let Some((key, ..)) = guests.chain(operators).find(is_same) {
        report.error(
            "token_for_two_doors",
            &path.key("audience"),
            format!("`{key}` trusts the same issuer for the same audience"),
            "give callers an audience of their own, so that no token is good for both",
        );
    }
}

fn check_exemptions(
    written: &[FileExemption],
    base: &KeyPath,
    report: &mut Report<'_>,
) -> Vec<Exemption> {
    let mut exemptions = Vec::new();
    for (path, written) in report.places(base, written) {
        let at = path.key("methods");
        let mut methods = check_each(written.methods.as_ref(), &at, check_method, report);
        if written.methods.is_none() {
            methods = vec![Method::GET, Method::HEAD];
        }
        let at = path.key("paths");
        let paths = check_each(Some(&written.paths), &at, check_path_pattern, report);
        let is_preflight = methods.iter().all(|method| *method == Method::OPTIONS);
        if paths.iter().any(|it| it.to_string() == "/**") && !is_preflight {
            report.warn(
                "everything_exempt",
                &at,
                "no request with these methods needs a token".to_owned(),
                "name the paths that anybody may see",
            );
        }
        exemptions.push(Exemption { methods, paths });
    }
    exemptions
}
