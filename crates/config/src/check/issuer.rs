//! Decides whose tokens are taken for session tokens. An issuer of sessions is none of operators: otherwise what a
//! guest holds would open the operator's door.

use std::{collections::HashMap, path::Path, time::Duration};

use super::{
    check_optional_path,
    confinement::check_confinement,
    credential::check_source,
    limit::check_duration,
    name::{check_claim, check_token_text},
    report::Report,
    url::check_url,
};
use crate::{
    Algorithm, Introspection, IssuerKeys, OperatorOidc, TrustedIssuer, WebUrl,
    file::{FileAlgorithm, FileIntrospection, FileIssuer, OneOrMany},
    node::KeyPath,
    url::{Clear, UrlFault},
};

/// The `iss` of the gateway's own tokens.
const OWN: &str = "outgate";

pub(super) fn check_issuers(
    written: &[FileIssuer],
    operators: &[OperatorOidc],
    folder: &Path,
    report: &mut Report<'_>,
) -> Vec<TrustedIssuer> {
    let base = KeyPath::of("sessions").key("issuers");
    let mut lines = HashMap::new();
    let mut issuers = Vec::new();
    for (path, written) in report.places(&base, written) {
        check_once(&mut lines, &written.issuer, &path.key("issuer"), report);
        let Some(issuer) = check_issuer(written, &path, folder, report) else {
            continue;
        };
        check_operators(&issuer, operators, &path, report);
        issuers.push(issuer);
    }
    issuers
}

/// Refuses the issuer that an earlier entry has; `lines` are those of the issuers so far.
pub(super) fn check_once<'a>(
    lines: &mut HashMap<&'a str, usize>,
    issuer: &'a str,
    path: &KeyPath,
    report: &mut Report<'_>,
) {
    if let Some(first) = lines.insert(issuer, report.line(path)) {
        report.error(
            "duplicate_issuer",
            path,
            format!("the issuer of line {first} is the same"),
            "merge the two: one entry may have several audiences",
        );
    }
}

fn check_operators(
    issuer: &TrustedIssuer,
    operators: &[OperatorOidc],
    path: &KeyPath,
    report: &mut Report<'_>,
) {
    let is_same =
        |it: &&OperatorOidc| it.issuer == issuer.issuer && issuer.audiences.contains(&it.audience);
    if operators.iter().any(|it| is_same(&it)) {
        report.error(
            "guests_could_operate",
            &path.key("audience"),
            "`operator.oidc` trusts the same issuer for the same audience".to_owned(),
            "give operators an audience of their own, so that no guest holds a token that is good for both",
        );
    }
}

fn check_issuer(
    written: &FileIssuer,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<TrustedIssuer> {
    let at = path.key("issuer");
    let issuer = check_token_text("invalid_issuer", &written.issuer, &at, report);
    if written.issuer == OWN {
        report.error(
            "invalid_issuer",
            &at,
            format!("`{OWN}` is the issuer of the gateway's own tokens"),
            "write the issuer of the others' tokens; its own are taken as they are",
        );
    }
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
    let session_claim = check_claim(
        written.session_claim.as_ref(),
        &path.key("session_claim"),
        report,
    );
    let day = Duration::from_secs(24 * 3600);
    let max_age = check_duration(
        written.max_age.as_ref(),
        day,
        &(Duration::from_secs(60)..=day),
        &path.key("max_age"),
        report,
    );
    let ca = check_optional_path(written.ca.as_ref(), &path.key("ca"), folder, report);
    let policy = check_confinement(written, path, report);
    let mut introspection = written.introspection.as_ref().and_then(|written| {
        check_introspection(written, &path.key("introspection"), folder, report)
    });
    if let Some(introspection) = &mut introspection {
        introspection.ca = introspection.ca.take().or_else(|| ca.clone());
    }
    Some(TrustedIssuer {
        issuer: issuer?,
        audiences,
        keys: keys?,
        algorithms,
        session_claim,
        max_age,
        ca,
        policy,
        introspection,
    })
}

pub(super) fn check_audiences(
    written: &OneOrMany<String>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Vec<String> {
    report.refuse_empty(&written.0, path);
    let mut audiences = Vec::new();
    for (path, text) in report.places(path, &written.0) {
        match check_token_text("invalid_audience", text, &path, report) {
            Some(text) if audiences.contains(&text) => report.duplicate(&path, &text),
            text => audiences.extend(text),
        }
    }
    audiences
}

/// Where an issuer's keys are: at a URL, in a file, or where the issuer itself says.
pub(super) fn check_keys(
    issuer: &str,
    jwks: Option<&str>,
    jwks_file: Option<&String>,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<IssuerKeys> {
    match (jwks, jwks_file) {
        (Some(url), None) => {
            check_url(url, Clear::Never, &path.key("jwks"), report).map(IssuerKeys::Url)
        }
        (None, file @ Some(_)) => {
            check_optional_path(file, &path.key("jwks_file"), folder, report).map(IssuerKeys::File)
        }
        (Some(_), Some(_)) => {
            report.error(
                "one_key_source",
                path,
                "an issuer's keys are in exactly one place".to_owned(),
                "write one of `jwks: https://…` and `jwks_file: path`, or neither for discovery",
            );
            None
        }
        // A key that was taken out may be the one that says where.
        (None, None) if report.touched(path) => Some(IssuerKeys::Discovery),
        (None, None) => {
            check_discovery(issuer, &path.key("issuer"), report);
            Some(IssuerKeys::Discovery)
        }
    }
}

/// Keys are found below an issuer that is a URL without a query (OpenID Connect Discovery 1.0, section 2).
pub(super) fn check_discovery(issuer: &str, path: &KeyPath, report: &mut Report<'_>) {
    let message = match WebUrl::parse(issuer, Clear::Never) {
        Ok(url) if !url.has_query() => return,
        Ok(_) => "keys cannot be found below a URL with a query",
        Err(UrlFault::NotHttps) => "keys cannot be found below an issuer that is not `https://`",
        Err(_) => "keys cannot be found below an issuer that is no URL",
    };
    report.error(
        "not_discoverable",
        path,
        message.to_owned(),
        "say where the keys are, as in `jwks: https://…/keys`, or write the issuer's `https://` URL",
    );
}

pub(super) fn check_algorithms(
    written: Option<&OneOrMany<FileAlgorithm>>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Vec<Algorithm> {
    let Some(list) = written else {
        return Algorithm::DEFAULT.to_vec();
    };
    report.refuse_empty(&list.0, path);
    let mut algorithms = Vec::new();
    for (path, written) in report.places(path, &list.0) {
        let algorithm = algorithm(*written);
        if algorithms.contains(&algorithm) {
            report.duplicate(&path, algorithm.as_str());
        } else {
            algorithms.push(algorithm);
        }
    }
    algorithms
}

const fn algorithm(written: FileAlgorithm) -> Algorithm {
    match written {
        FileAlgorithm::Rs256 => Algorithm::Rs256,
        FileAlgorithm::Rs384 => Algorithm::Rs384,
        FileAlgorithm::Rs512 => Algorithm::Rs512,
        FileAlgorithm::Ps256 => Algorithm::Ps256,
        FileAlgorithm::Ps384 => Algorithm::Ps384,
        FileAlgorithm::Ps512 => Algorithm::Ps512,
        FileAlgorithm::Es256 => Algorithm::Es256,
        FileAlgorithm::Es384 => Algorithm::Es384,
        FileAlgorithm::EdDsa => Algorithm::EdDsa,
    }
}

fn check_introspection(
    written: &FileIntrospection,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<Introspection> {
    let url = check_url(&written.url.0, Clear::Never, &path.key("url"), report);
    let at = path.key("client_id");
    let client_id = check_token_text("invalid_client_id", &written.client_id, &at, report);
    let secret = path.key("client_secret");
    let client_secret = check_source(&written.client_secret, &secret, folder, report);
    let cache = check_duration(
        written.cache.as_ref(),
        Duration::from_secs(30),
        &(Duration::from_secs(1)..=Duration::from_secs(60)),
        &path.key("cache"),
        report,
    );
    let ca = check_optional_path(written.ca.as_ref(), &path.key("ca"), folder, report);
    Some(Introspection {
        url: url?,
        client_id: client_id?,
        client_secret: client_secret?,
        cache,
        ca,
    })
}
