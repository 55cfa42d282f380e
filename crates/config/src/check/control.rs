//! Decides which control plane a gateway follows. What comes from there is not in the file as well: of two policies,
//! one would be the one that nobody looks at.

use std::{path::Path, time::Duration};

use super::{check_path, limit::check_duration, listen::check_tls, report::Report, url::check_url};
use crate::{
    ControlPlane,
    file::{FileControl, SHARED_KEYS},
    node::KeyPath,
    url::Clear,
};

/// Whether the file as written follows a control plane, if perhaps not well.
pub(super) fn follows(report: &Report<'_>) -> bool {
    report.root().entry("control").is_some()
}

pub(super) fn check_control(
    control: Option<&FileControl>,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<ControlPlane> {
    if !follows(report) {
        return None;
    }
    for key in SHARED_KEYS {
        if report.root().entry(key).is_some() {
            report.error_at_key(
                "comes_from_control_plane",
                &KeyPath::of(key),
                format!("`{key}` comes from the control plane that `control` names"),
                "take it out here and write it in the control plane's file, or take `control` out",
            );
        }
    }
    let listen = report.root().entry("listen");
    if listen.is_some_and(|entry| entry.value.entry("control").is_some()) {
        report.error_at_key(
            "follows_and_controls",
            &KeyPath::of("listen").key("control"),
            "a gateway that follows a control plane is none itself".to_owned(),
            "take `listen.control` out and let the others follow the same control plane, or take `control` out",
        );
    }
    check_plane(control?, folder, report)
}

fn check_plane(
    control: &FileControl,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<ControlPlane> {
    let base = KeyPath::of("control");
    let url = check_url(&control.url.0, Clear::Never, &base.key("url"), report);
    if url.as_ref().is_some_and(|url| !url.is_bare()) {
        report.error(
            "invalid_url",
            &base.key("url"),
            "a control plane has no path".to_owned(),
            "write scheme, host and port alone, as in `https://control.example.org:9444`",
        );
    }
    let ca = check_path(&control.ca, &base.key("ca"), folder, report);
    let tls = check_tls(&control.certificate, &control.key, &base, folder, report);
    let max_staleness = check_duration(
        control.max_staleness.as_ref(),
        Duration::from_secs(60),
        &(Duration::from_secs(1)..=Duration::from_secs(600)),
        &base.key("max_staleness"),
        report,
    );
    Some(ControlPlane {
        url: url?,
        ca: ca?,
        tls: tls?,
        max_staleness,
    })
}
