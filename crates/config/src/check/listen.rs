//! Decides where others connect. Guests, operators and other gateways each have a door of their own: what shares a
//! socket with the proxy would be in reach of a guest.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use super::{check_path, limit::check_at_least_one, name::check_token_text, report::Report};
use crate::{
    ControlListen, Listen, OperatorListen, TlsFiles,
    file::{FileControlListen, FileListen},
    node::KeyPath,
};

const PROXY: &str = "127.0.0.1:8080";

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
    let mut doors: Vec<(&str, SocketAddr)> = proxy
        .iter()
        .flatten()
        .map(|it| ("listen.proxy", *it))
        .collect();
    let operator = listen.operator.as_ref().and_then(|written| {
        let path = base.key("operator");
        let address = check_door(&written.address, &path, &mut doors, report);
        let tls = check_tls(&written.certificate, &written.key, &path, folder, report);
        Some(OperatorListen {
            address: address?,
            tls: tls?,
        })
    });
    let control = listen.control.as_ref().and_then(|written| {
        let path = base.key("control");
        let address = check_door(&written.address, &path, &mut doors, report);
        check_control(written, address, &path, folder, report)
    });
    Some(Listen {
        proxy: proxy?,
        max_connections: max_connections?,
        operator,
        control,
    })
}

fn check_proxy(
    listen: &FileListen,
    base: &KeyPath,
    report: &mut Report<'_>,
) -> Option<Vec<SocketAddr>> {
    let Some(proxy) = &listen.proxy else {
        report.missing(base, "proxy", &format!("add `proxy: {PROXY}`"));
        return None;
    };
    let sockets = check_sockets(&proxy.0, &base.key("proxy"), PROXY, report);
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
    Some(sockets.into_iter().map(|(_, socket)| socket).collect())
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
    let texts = written.gateways.as_ref().map(|list| &list.0[..]);
    let path = path.key("gateways");
    if let Some(texts) = texts {
        report.refuse_empty(texts, &path);
    }
    let mut gateways = Vec::new();
    for (path, text) in report.places(&path, texts.unwrap_or_default()) {
        match check_token_text("invalid_gateway", text, &path, report) {
            Some(name) if gateways.contains(&name) => report.duplicate(&path, text),
            name => gateways.extend(name),
        }
    }
    Some(ControlListen {
        address: address?,
        tls: tls?,
        client_ca: client_ca?,
        gateways,
    })
}

/// The socket of a listener that is not for guests; no other listener has it.
fn check_door(
    text: &str,
    path: &KeyPath,
    doors: &mut Vec<(&'static str, SocketAddr)>,
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
    if let Some((other, _)) = doors.iter().find(|(_, door)| collide(*door, socket)) {
        report.error(
            "same_address",
            &at,
            format!("`{other}` listens there already"),
            "give each listener a port of its own: who may reach the one must not reach the other",
        );
    }
    doors.push((
        if path.0.ends_with(&KeyPath::of("operator").0) {
            "listen.operator"
        } else {
            "listen.control"
        },
        socket,
    ));
    Some(socket)
}

/// Whether one listener would stand in the other's place. The unspecified address is all of them; port 0 is any free
/// one.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
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
