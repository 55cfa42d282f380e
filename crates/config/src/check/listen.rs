//! Decides where others connect. Guests, operators, other gateways and data planes each have a door of their own: what
//! shares a socket with the proxy would be in reach of a guest.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use super::{
    check_path, door::check_plane_doors, limit::check_at_least_one, name::check_certificate_names,
    report::Report,
};
use crate::{
    ControlListen, Listen, OperatorListen, TlsFiles,
    file::{FileControlListen, FileListen, FileOperatorListen},
    node::KeyPath,
    read::similar,
};

const PROXY: &str = "127.0.0.1:8080";
const TRANSPARENT: &str = "127.0.0.1:15001";
const METRICS: &str = "127.0.0.1:9090";

/// The listeners on TCP so far, by their keys.
pub(super) type Doors = Vec<(String, SocketAddr)>;

pub(super) fn check_listen(
    listen: Option<&FileListen>,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<Listen> {
    let Some(listen) = listen else {
        return Some(Listen::nowhere());
    };
    let base = KeyPath::of("listen");
    let max_connections = match listen.max_connections {
        None => Some(Listen::MAX_CONNECTIONS),
        Some(number) => check_at_least_one(number, &base.key("max_connections"), report)
            .and_then(|number| usize::try_from(number).ok()),
    };
    let proxy = check_proxy(listen, &base, report);
    let mut doors: Doors = proxy
        .iter()
        .flatten()
        .map(|it| ("listen.proxy".to_owned(), *it))
        .collect();
    let transparent = check_transparent(listen, &base, &mut doors, report);
    let metrics = check_metrics(listen, &base, &mut doors, report);
    let operator = listen.operator.as_ref().and_then(|written| {
        let path = base.key("operator");
        let address = check_door(&written.address, &path, &mut doors, report);
        check_operator(written, address, &path, folder, report)
    });
    let control = listen.control.as_ref().and_then(|written| {
        let path = base.key("control");
        let address = check_door(&written.address, &path, &mut doors, report);
        check_control(written, address, &path, folder, report)
    });
    let (xds, minter) = check_plane_doors(listen, &base, &mut doors, folder, report);
    Some(Listen {
        proxy: proxy?,
        transparent,
        metrics,
        max_connections: max_connections?,
        operator,
        control,
        xds,
        minter,
    })
}

fn check_proxy(
    listen: &FileListen,
    base: &KeyPath,
    report: &mut Report<'_>,
) -> Option<Vec<SocketAddr>> {
    let Some(proxy) = &listen.proxy else {
        let others = ["transparent", "control", "xds", "minter"];
        // One under a misspelt name was told already.
        let is_other = |key: &str| {
            others.contains(&key)
                || report.touched(&base.key(key)) && similar(key, &others).is_some()
        };
        let written = base.nearest(report.root()).entries();
        if !written.iter().any(|entry| is_other(&entry.key)) {
            report.missing(base, "proxy", &format!("add `proxy: {PROXY}`"));
        }
        return Some(Vec::new());
    };
    let sockets = check_sockets(&proxy.0, &base.key("proxy"), PROXY, report);
    warn_of_others(&sockets, report);
    Some(sockets.into_iter().map(|(_, socket)| socket).collect())
}

/// What is redirected arrives on loopback, and no other listener serves it.
fn check_transparent(
    listen: &FileListen,
    base: &KeyPath,
    doors: &mut Doors,
    report: &mut Report<'_>,
) -> Vec<SocketAddr> {
    let Some(transparent) = &listen.transparent else {
        return Vec::new();
    };
    let path = base.key("transparent");
    let sockets = check_sockets(&transparent.0, &path, TRANSPARENT, report);
    for (path, socket) in &sockets {
        refuse_taken(*socket, path, doors, report);
    }
    warn_of_others(&sockets, report);
    let sockets: Vec<_> = sockets.into_iter().map(|(_, socket)| socket).collect();
    let taken = sockets
        .iter()
        .map(|it| ("listen.transparent".to_owned(), *it));
    doors.extend(taken);
    sockets
}

fn warn_of_others(sockets: &[(KeyPath, SocketAddr)], report: &mut Report<'_>) {
    for (path, socket) in sockets {
        if !socket.ip().is_loopback() {
            report.warn(
                "listens_beyond_loopback",
                path,
                format!("{socket} can be reached from other machines"),
                "make sure that only the guests can connect to it, or listen on 127.0.0.1",
            );
        }
    }
}

/// No other listener has any of these sockets: who may read counts may be no guest, and no operator.
fn check_metrics(
    listen: &FileListen,
    base: &KeyPath,
    doors: &mut Doors,
    report: &mut Report<'_>,
) -> Vec<SocketAddr> {
    let Some(metrics) = &listen.metrics else {
        return Vec::new();
    };
    let sockets = check_sockets(&metrics.0, &base.key("metrics"), METRICS, report);
    for (path, socket) in &sockets {
        refuse_taken(*socket, path, doors, report);
    }
    let sockets = sockets.into_iter().map(|(_, socket)| socket);
    let taken = doors.len();
    doors.extend(sockets.map(|socket| ("listen.metrics".to_owned(), socket)));
    doors
        .iter()
        .skip(taken)
        .map(|(_, socket)| *socket)
        .collect()
}

fn check_operator(
    written: &FileOperatorListen,
    address: Option<SocketAddr>,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<OperatorListen> {
    let tls = check_tls(&written.certificate, &written.key, path, folder, report);
    Some(OperatorListen {
        address: address?,
        tls: tls?,
    })
}

fn check_control(
    written: &FileControlListen,
    address: Option<SocketAddr>,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<ControlListen> {
    let tls = check_tls(&written.certificate, &written.key, path, folder, report);
    let client_ca = check_path(&written.client_ca, &path.key("client_ca"), folder, report);
    let path = path.key("gateways");
    let gateways =
        check_certificate_names("invalid_gateway", written.gateways.as_ref(), &path, report);
    Some(ControlListen {
        address: address?,
        tls: tls?,
        client_ca: client_ca?,
        gateways,
    })
}

/// The socket of a listener that is not for guests; no other listener has it.
pub(super) fn check_door(
    text: &str,
    path: &KeyPath,
    doors: &mut Doors,
    report: &mut Report<'_>,
) -> Option<SocketAddr> {
    let at = path.key("address");
    let Ok(socket) = text.parse::<SocketAddr>() else {
        report.error(
            "invalid_socket",
            &at,
            "not an IP address and a port".to_owned(),
            "write an address and a port, as in `127.0.0.1:9443` or `\"[::1]:9443\"`",
        );
        return None;
    };
    refuse_taken(socket, &at, doors, report);
    doors.push((path.to_string(), socket));
    Some(socket)
}

fn refuse_taken(socket: SocketAddr, at: &KeyPath, doors: &Doors, report: &mut Report<'_>) {
    if let Some((other, _)) = doors.iter().find(|(_, door)| collide(*door, socket)) {
        report.error(
            "same_address",
            at,
            format!("`{other}` listens there already"),
            "give each listener a port of its own: who may reach the one must not reach the other",
        );
    }
}

/// Whether one listener would stand in the other's place. The unspecified address is all of them; port 0 is any free
/// one.
pub(super) fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip(), other.ip());
    let all = |it: IpAddr, other: IpAddr| it.is_unspecified() && (it.is_ipv6() || other.is_ipv4());
    one.port() != 0 && one.port() == other.port() && (a == b || all(a, b) || all(b, a))
}

/// The files of a certificate and its key.
pub(super) fn check_tls(
    certificate: &str,
    key: &str,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<TlsFiles> {
    let certificate = check_path(certificate, &path.key("certificate"), folder, report);
    let key = check_path(key, &path.key("key"), folder, report);
    Some(TlsFiles {
        certificate: certificate?,
        key: key?,
    })
}

/// Reads `address:port` texts, with their places: not empty, no duplicates.
pub(super) fn check_sockets(
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
