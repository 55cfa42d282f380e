//! Decides which service a listener stands in front of: one place, and nothing that a request could add to.

use std::net::IpAddr;

use http::{Uri, uri::Authority};
use outgate_journey::name::HostName;

use super::report::Report;
use crate::{InboundTarget, node::KeyPath};

pub(super) fn check_target(
    text: &str,
    is_http2: bool,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<InboundTarget> {
    let target = read_target(text, is_http2);
    if target.is_none() {
        report.error(
            "invalid_target",
            path,
            "not a service".to_owned(),
            "write scheme, host and port and nothing more, as in `http://127.0.0.1:9000`",
        );
    }
    target
}

fn read_target(text: &str, is_http2: bool) -> Option<InboundTarget> {
    let uri: Uri = text.parse().ok()?;
    let is_tls = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let authority = uri.authority()?;
    let nothing_more = matches!(uri.path(), "" | "/") && uri.query().is_none();
    let host = authority.host();
    let is_host = bare_address(host).is_some() || HostName::parse(host).is_ok();
    let port = match authority.port_u16() {
        Some(0) => return None,
        None if authority.as_str().len() > host.len() => return None,
        port => port.unwrap_or(if is_tls { 443 } else { 80 }),
    };
    // A `#` is cut off by the parser.
    (nothing_more && is_host && !text.contains(['#', '@'])).then(|| InboundTarget {
        is_tls,
        is_http2,
        authority: format!("{host}:{port}"),
    })
}

fn bare_address(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host)
        .parse()
        .ok()
}

/// Whether what is sent there travels in clear beyond this machine.
pub(super) fn leaves_in_clear(to: &InboundTarget) -> bool {
    let authority = to.authority.parse::<Authority>();
    let address = authority.ok().and_then(|it| bare_address(it.host()));
    !to.is_tls && !address.is_some_and(|address| address.is_loopback())
}
