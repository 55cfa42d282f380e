//! Decides how upstreams are verified.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use super::{check_path, report::Report};
use crate::{
    Roots, TlsFloor, Upstream,
    file::{FileRoots, FileTls, FileUpstream},
    node::KeyPath,
};

pub(super) fn check_upstream(
    upstream: Option<&FileUpstream>,
    folder: &Path,
    report: &mut Report<'_>,
) -> Upstream {
    let base = KeyPath::of("upstream");
    let texts = upstream
        .and_then(|upstream| upstream.extra_roots.as_ref())
        .map_or(&[][..], |list| &list.0);
    let extra: Vec<PathBuf> = report
        .places(&base.key("extra_roots"), texts)
        .into_iter()
        .filter_map(|(path, text)| check_path(text, &path, folder, report))
        .collect();
    let mut seen = HashSet::new();
    for (path, text) in report.places(&base.key("extra_roots"), texts) {
        if !seen.insert(text) {
            report.duplicate(&path, text);
        }
    }
    let roots = match upstream.map(|upstream| upstream.roots).unwrap_or_default() {
        FileRoots::System => Roots::System,
        FileRoots::Bundled => Roots::Bundled,
        FileRoots::None => Roots::None,
    };
    if roots == Roots::None && texts.is_empty() && !report.touched(&base) {
        report.error(
            "no_roots",
            &base.key("roots"),
            "without root certificates no upstream can be verified".to_owned(),
            "add `extra_roots: [ca.pem]`, or write `roots: system`",
        );
    }
    Upstream {
        roots,
        extra_roots: extra,
        min_tls: match upstream
            .map(|upstream| upstream.min_tls)
            .unwrap_or_default()
        {
            FileTls::Tls12 => TlsFloor::Tls12,
            FileTls::Tls13 => TlsFloor::Tls13,
        },
    }
}
