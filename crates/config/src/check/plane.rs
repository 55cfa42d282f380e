//! Decides where the gateway is itself a client of a process that holds secrets. Between processes there is a Unix socket
//! or mutual TLS, nothing in between: keys that only the one has are refused beside the other, since whoever wrote them
//! counts on them.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use outgate_journey::name::HostName;

use super::{check_path, listen::check_tls, report::Report};
use crate::{
    DoorPlace, Listen, MinterSource, PlaneAddress, TlsFiles,
    file::{FileMinter, WrittenAddress},
    node::KeyPath,
};

/// The longest path of a Unix socket in bytes: `sun_path` has 108, the last of them zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

pub(super) fn check_minter(
    written: Option<&FileMinter>,
    listen: Option<&Listen>,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<MinterSource> {
    let written = written?;
    let path = KeyPath::of("minter");
    let leaf_ca = check_path(&written.leaf_ca, &path.key("leaf_ca"), folder, report);
    let address = check_address(written.place(), &path, folder, report)?;
    refuse_own_door(&address, &path, listen, report);
    Some(MinterSource {
        address,
        leaf_ca: leaf_ca?,
    })
}

/// Where this gateway, or Envoy, connects as a client.
pub(super) fn check_address(
    written: WrittenAddress<'_>,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<PlaneAddress> {
    let WrittenAddress {
        ca,
        certificate,
        key,
        server_name,
        ..
    } = written;
    match check_one_place(written.socket, written.address, path, report)? {
        Place::Socket(text) => {
            let beside = [
                ("ca", ca.is_some()),
                ("certificate", certificate.is_some()),
                ("key", key.is_some()),
                ("server_name", server_name.is_some()),
            ];
            refuse_beside_socket(&beside, path, report);
            check_socket_path(text, &path.key("socket"), folder, report).map(PlaneAddress::Socket)
        }
        Place::Address(text) => {
            let server = check_server(text, &path.key("address"), report);
            let ca = check_needed(ca, "ca", path, folder, report);
            let identity = check_identity(certificate, key, path, folder, report);
            let server_name = server_name
                .and_then(|name| check_server_name(name, &path.key("server_name"), report));
            let (host, port) = server?;
            Some(PlaneAddress::Tcp {
                host,
                port,
                ca: ca?,
                identity: identity?,
                server_name,
            })
        }
    }
}

/// What a place is written as.
pub(super) enum Place<'f> {
    Socket(&'f str),
    Address(&'f str),
}

/// Exactly one of `socket` and `address`.
pub(super) fn check_one_place<'f>(
    socket: Option<&'f String>,
    address: Option<&'f String>,
    path: &KeyPath,
    report: &mut Report<'_>,
) -> Option<Place<'f>> {
    match (socket, address) {
        (Some(socket), None) => Some(Place::Socket(socket)),
        (None, Some(address)) => Some(Place::Address(address)),
        (None, None) if report.touched(path) => None,
        _ => {
            report.error(
                "one_place",
                path,
                "this is either a Unix socket or an address".to_owned(),
                "write one of `socket: path` and `address: host:port`",
            );
            None
        }
    }
}

pub(super) fn refuse_beside_socket(
    keys: &[(&'static str, bool)],
    path: &KeyPath,
    report: &mut Report<'_>,
) {
    for (key, _) in keys.iter().filter(|(_, is_there)| *is_there) {
        report.error_at_key(
            "no_such_use",
            &path.key(key),
            format!("`{key}` is for `address`: on a Unix socket no certificates are shown"),
            "take the key out, or write `address` in place of `socket`",
        );
    }
}

pub(super) fn check_socket_path(
    text: &str,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<PathBuf> {
    let socket = check_path(text, path, folder, report)?;
    let length = socket.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        report.error(
            "socket_path_too_long",
            path,
            format!(
                "the path has {length} bytes, and that of a Unix socket at most {MAX_SOCKET_PATH}"
            ),
            "write a shorter path, as in `/run/outgate/xds.sock`",
        );
        return None;
    }
    Some(socket)
}

/// A path that `address` cannot do without.
pub(super) fn check_needed(
    text: Option<&String>,
    key: &str,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<PathBuf> {
    let Some(text) = text else {
        let help = format!("add `{key}: path`: with `address`, both sides prove who they are");
        report.missing(path, key, &help);
        return None;
    };
    check_path(text, &path.key(key), folder, report)
}

pub(super) fn check_identity(
    certificate: Option<&String>,
    key: Option<&String>,
    path: &KeyPath,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<TlsFiles> {
    if let (Some(certificate), Some(key)) = (certificate, key) {
        return check_tls(certificate, key, path, folder, report);
    }
    check_needed(certificate, "certificate", path, folder, report);
    check_needed(key, "key", path, folder, report);
    None
}

/// Reads `vault.example.org:8443`. What is written is not repeated: under `credentials` it may be the secret.
fn check_server(text: &str, path: &KeyPath, report: &mut Report<'_>) -> Option<(String, u16)> {
    let server = server(text);
    if server.is_none() {
        report.error(
            "invalid_server",
            path,
            "not a host and a port".to_owned(),
            "write a name or an address and a port, as in `vault.example.org:8443` or `\"[::1]:8443\"`, without `https://`",
        );
    }
    server
}

fn server(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    // `parse` would take a sign.
    let port = port
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| port.parse::<u16>().ok().filter(|port| *port != 0))
        .flatten()?;
    if let Ok(socket) = text.parse::<SocketAddr>() {
        // A scope belongs to one machine's interface, and no certificate has one.
        let is_plain = !socket.ip().is_unspecified() && !text.contains('%');
        return is_plain.then(|| (socket.ip().to_string(), port));
    }
    let host = HostName::parse_written(host).ok()?;
    Some((host.as_str().to_owned(), port))
}

fn check_server_name(text: &str, path: &KeyPath, report: &mut Report<'_>) -> Option<String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let Ok(name) = HostName::parse_written(text) else {
        report.error(
            "invalid_server_name",
            path,
            "neither a name nor an address".to_owned(),
            "write a name that stands in the server's certificate, without a port, as in `vault.example.org`",
        );
        return None;
    };
    Some(name.as_str().to_owned())
}

/// What came from the gateway's own door would come from the gateway, which is waiting for it.
pub(super) fn refuse_own_door(
    address: &PlaneAddress,
    path: &KeyPath,
    listen: Option<&Listen>,
    report: &mut Report<'_>,
) {
    let own = listen.and_then(|listen| Some(&listen.xds.as_ref()?.place));
    let is_own = match (address, own) {
        (PlaneAddress::Socket(path), Some(DoorPlace::Socket(own))) => path == own,
        (PlaneAddress::Tcp { host, port, .. }, Some(DoorPlace::Tcp { address, .. })) => {
            host.parse() == Ok(address.ip()) && *port == address.port()
        }
        _ => false,
    };
    if is_own {
        report.error(
            "own_door",
            path,
            "this is `listen.xds`, the gateway's own door".to_owned(),
            "name the place of the other process",
        );
    }
}
