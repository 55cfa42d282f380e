//! Decides where data planes connect, and those that want leaves. What comes out of these doors is secret, so who comes in
//! is known: by the socket's folder and mode, or by a certificate.

use std::path::Path;

use super::{
    listen::{Doors, check_door},
    name::check_certificate_names,
    plane::{
        Place, check_identity, check_needed, check_one_place, check_socket_path,
        refuse_beside_socket,
    },
    report::Report,
};
use crate::{
    DoorPlace, PlaneDoor,
    file::{FileListen, FilePlaneDoor},
    node::KeyPath,
};

/// `listen.xds` and `listen.minter`.
pub(super) fn check_plane_doors(
    listen: &FileListen,
    base: &KeyPath,
    doors: &mut Doors,
    folder: &Path,
    report: &mut Report<'_>,
) -> (Option<PlaneDoor>, Option<PlaneDoor>) {
    let mut check = |written: Option<&FilePlaneDoor>, key: &str, report: &mut Report<'_>| {
        check_plane_door(written?, &base.key(key), doors, folder, report)
    };
    let xds = check(listen.xds.as_ref(), "xds", report);
    let minter = check(listen.minter.as_ref(), "minter", report);
    let socket = |door: &Option<PlaneDoor>| match door {
        Some(PlaneDoor {
            place: DoorPlace::Socket(path),
            ..
        }) => Some(path.clone()),
        _ => None,
    };
    if socket(&xds).is_some() && socket(&xds) == socket(&minter) {
        refuse_same_socket("listen.xds", &base.key("minter").key("socket"), report);
    }
    (xds, minter)
}

pub(super) fn refuse_same_socket(other: &str, path: &KeyPath, report: &mut Report<'_>) {
    report.error(
        "same_address",
        path,
        format!("`{other}` listens there already"),
        "give each listener a socket of its own: who may reach the one must not reach the other",
    );
}

fn check_plane_door(
    written: &FilePlaneDoor,
    path: &KeyPath,
    doors: &mut Doors,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<PlaneDoor> {
    let FilePlaneDoor {
        certificate,
        key,
        client_ca,
        clients,
        ..
    } = written;
    let (socket, address) = (written.socket.as_ref(), written.address.as_ref());
    match check_one_place(socket, address, path, report)? {
        Place::Socket(text) => {
            let beside = [
                ("certificate", certificate.is_some()),
                ("key", key.is_some()),
                ("client_ca", client_ca.is_some()),
                ("clients", clients.is_some()),
            ];
            refuse_beside_socket(&beside, path, report);
            let socket = check_socket_path(text, &path.key("socket"), folder, report)?;
            Some(PlaneDoor {
                place: DoorPlace::Socket(socket),
                clients: Vec::new(),
            })
        }
        Place::Address(text) => {
            let address = check_door(text, path, doors, report);
            let tls = check_identity(certificate.as_ref(), key.as_ref(), path, folder, report);
            let client_ca = check_needed(client_ca.as_ref(), "client_ca", path, folder, report);
            let at = path.key("clients");
            let clients = check_certificate_names("invalid_client", clients.as_ref(), &at, report);
            Some(PlaneDoor {
                place: DoorPlace::Tcp {
                    address: address?,
                    tls: tls?,
                    client_ca: client_ca?,
                },
                clients,
            })
        }
    }
}
