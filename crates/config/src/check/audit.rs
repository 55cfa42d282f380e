//! Decides how the audit trail is kept and where its records are sent. Records tell who did what where: they travel
//! encrypted and signed or to a collector that was named, never in clear over a network.

use std::{ops::RangeInclusive, path::Path, time::Duration};

use http::HeaderName;
use outgate_journey::policy::CredentialSource;

use super::{
    check_optional_path, check_path,
    credential::check_source,
    inject::check_sendable_header,
    limit::{check_duration, check_size},
    name::Names,
    report::Report,
    url::check_url,
};
use crate::{
    AuditConfig, Export, ExportTarget, Rotation,
    file::{FileAudit, FileExport, FileRotation},
    node::KeyPath,
    url::Clear,
};

const SIZES: RangeInclusive<u64> = 1 << 20..=1 << 40;

pub(super) fn check_audit(
    audit: Option<&FileAudit>,
    folder: &Path,
    report: &mut Report<'_>,
) -> AuditConfig {
    let Some(audit) = audit else {
        return AuditConfig::default();
    };
    let base = KeyPath::of("audit");
    AuditConfig {
        rotate: check_rotation(audit.rotate.as_ref(), &base.key("rotate"), report),
        export: check_exports(&audit.export, &base.key("export"), folder, report),
    }
}

fn check_rotation(
    written: Option<&FileRotation>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Rotation {
    let defaults = Rotation::default();
    let Some(written) = written else {
        return defaults;
    };
    let size = check_size(written.size.as_ref(), &path.key("size"), report);
    if size.is_some_and(|size| !SIZES.contains(&size)) {
        report.error(
            "out_of_range",
            &path.key("size"),
            "outside the allowed range".to_owned(),
            "write a size from 1MiB to 1TiB",
        );
    }
    Rotation {
        size: size.unwrap_or(defaults.size),
        age: check_duration(
            written.age.as_ref(),
            defaults.age,
            &(Duration::from_secs(60)..=Duration::from_secs(720 * 3600)),
            &path.key("age"),
            report,
        ),
    }
}

fn check_exports(
    written: &[FileExport],
    base: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Vec<Export> {
    let mut names = Names::default();
    let mut exports = Vec::new();
    for (path, written) in report.places(base, written) {
        names.take(&written.name, &path.key("name"), report);
        let target = check_target(written, &path, folder, report);
        let ca = check_optional_path(written.ca.as_ref(), &path.key("ca"), folder, report);
        let Some(target) = target else { continue };
        let (ExportTarget::Otlp { url, .. } | ExportTarget::Webhook { url, .. }) = &target;
        if ca.is_some() && url.is_plaintext() {
            report.warn(
                "no_effect",
                &path.key("ca"),
                "plain HTTP shows no certificate that could be checked".to_owned(),
                "take the key out, or write `https://`",
            );
        }
        exports.push(Export {
            name: written.name.0.clone(),
            target,
            ca,
        });
    }
    exports
}

fn check_target(
    written: &FileExport,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<ExportTarget> {
    match (&written.otlp, &written.webhook) {
        (Some(url), None) => {
            refuse_key(
                written.secret_file.is_some(),
                "secret_file",
                "a webhook",
                path,
                report,
            );
            let url = check_url(&url.0, Clear::ToLoopback, &path.key("otlp"), report);
            let headers = check_headers(written, &path.key("headers"), folder, report);
            Some(ExportTarget::Otlp { url: url?, headers })
        }
        (None, Some(url)) => {
            refuse_key(
                !written.headers.is_empty(),
                "headers",
                "an OTLP collector",
                path,
                report,
            );
            let url = check_url(&url.0, Clear::ToLoopback, &path.key("webhook"), report);
            let Some(file) = &written.secret_file else {
                report.missing(
                    path,
                    "secret_file",
                    "add `secret_file: path`: batches are signed",
                );
                return None;
            };
            let secret_file = check_path(file, &path.key("secret_file"), folder, report);
            Some(ExportTarget::Webhook {
                url: url?,
                secret_file: secret_file?,
            })
        }
        (None, None) if report.touched(path) => None,
        _ => {
            report.error(
                "one_target",
                path,
                "records are sent to exactly one place each".to_owned(),
                "write one of `otlp: https://…` and `webhook: https://…`",
            );
            None
        }
    }
}

fn refuse_key(
    is_there: bool,
    key: &'static str,
    of: &str,
    path: &KeyPath,
    report: &mut Report<'_>,
) {
    if is_there {
        report.error_at_key(
            "no_such_use",
            &path.key(key),
            format!("only {of} has `{key}`"),
            "take the key out",
        );
    }
}

fn check_headers(
    written: &FileExport,
    base: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Vec<(HeaderName, CredentialSource)> {
    let mut headers: Vec<(HeaderName, CredentialSource)> = Vec::new();
    for (name, source) in &written.headers {
        let path = base.key(name);
        let source = check_source(source, &path, folder, report);
        let Some(name) = check_sendable_header(name, &path, report) else {
            continue;
        };
        if headers.iter().any(|(known, _)| *known == name) {
            report.error_at_key(
                "duplicate_header",
                &path,
                format!("another key of `headers` is `{name}` too"),
                "keep one of them",
            );
        }
        headers.extend(source.map(|source| (name, source)));
    }
    headers
}
