//! Decides what Envoy's configuration says. Envoy has no way to the gateway but the one that is written: where it needs
//! a certificate for it, the file must say which.

use std::{net::SocketAddr, path::Path};

use super::{
    control::follows,
    door::refuse_same_socket,
    listen::{check_sockets, collide},
    plane::{Place, check_address, check_one_place, check_socket_path},
    report::Report,
};
use crate::{
    DoorPlace, EnvoyAdmin, EnvoyConfig, Listen, PlaneAddress,
    file::{FileEnvoy, FileEnvoyAdmin, OneOrMany},
    node::KeyPath,
};

const PROXY: &str = "127.0.0.1:8080";

pub(super) fn check_envoy(
    written: Option<&FileEnvoy>,
    listen: Option<&Listen>,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<EnvoyConfig> {
    let written = written?;
    let base = KeyPath::of("envoy");
    if written.proxy.is_none() && written.transparent.is_none() && !report.touched(&base) {
        report.missing(&base, "proxy", &format!("add `proxy: {PROXY}`"));
    }
    let mut taken = Vec::new();
    let proxy = check_listeners(written.proxy.as_ref(), "proxy", &mut taken, listen, report);
    let transparent = written.transparent.as_ref();
    let transparent = check_listeners(transparent, "transparent", &mut taken, listen, report);
    let admin = written
        .admin
        .as_ref()
        .and_then(|admin| check_admin(admin, &mut taken, listen, folder, report));
    let path = base.key("control");
    let control = written
        .control
        .as_ref()
        .and_then(|control| check_address(control.place(), &path, folder, report));
    check_way(control.as_ref(), listen, &base, report);
    let scrub = written.scrub.unwrap_or(true);
    if !scrub && some_rule_injects(report) {
        report.warn(
            "not_scrubbed",
            &base.key("scrub"),
            "an upstream that repeats the credential gives it to the guest".to_owned(),
            "leave it out",
        );
    }
    Some(EnvoyConfig {
        proxy,
        transparent,
        admin,
        control,
        scrub,
    })
}

/// As the file is written. Of one that follows a control plane it is not known: there it is said where a credential is.
fn some_rule_injects(report: &Report<'_>) -> bool {
    let root = report.root();
    let destinations = root.entry("destinations").map(|it| it.value.items());
    let mut rules = destinations.unwrap_or_default().iter();
    rules.any(|rule| rule.entry("inject").is_some())
        || (follows(report) && !report.credentials().is_empty())
}

fn check_listeners(
    written: Option<&OneOrMany<String>>,
    key: &'static str,
    taken: &mut Vec<(&'static str, SocketAddr)>,
    listen: Option<&Listen>,
    report: &mut Report<'_>,
) -> Vec<SocketAddr> {
    let Some(OneOrMany(texts)) = written else {
        return Vec::new();
    };
    let path = KeyPath::of("envoy").key(key);
    let sockets = check_sockets(texts, &path, PROXY, report);
    for (path, socket) in &sockets {
        check_free(*socket, key, path, taken, listen, report);
    }
    let sockets: Vec<_> = sockets.into_iter().map(|(_, socket)| socket).collect();
    taken.extend(sockets.iter().map(|socket| (key, *socket)));
    sockets
}

/// One Envoy cannot listen twice in one place; it and the gateway can, on two machines.
fn check_free(
    socket: SocketAddr,
    key: &str,
    path: &KeyPath,
    taken: &[(&'static str, SocketAddr)],
    listen: Option<&Listen>,
    report: &mut Report<'_>,
) {
    let mut others = taken.iter();
    if let Some((other, _)) = others.find(|(_, other)| collide(*other, socket)) {
        report.error(
            "same_address",
            path,
            format!("`envoy.{other}` listens there already"),
            &format!("give `envoy.{key}` a port of its own"),
        );
    }
    if let Some(own) = own_listener_at(socket, listen) {
        report.warn(
            "envoy_at_own_address",
            path,
            format!("`{own}` listens there too, and on one machine only one of the two can"),
            "give Envoy a port of its own, or take the gateway's own listener out",
        );
    }
}

pub(super) fn own_listener_at(socket: SocketAddr, listen: Option<&Listen>) -> Option<&'static str> {
    let listen = listen?;
    let proxies = listen.proxy.iter().map(|it| ("listen.proxy", *it));
    let transparent = listen.transparent.iter();
    let transparent = transparent.map(|it| ("listen.transparent", *it));
    let metrics = listen.metrics.iter().map(|it| ("listen.metrics", *it));
    let operator = listen.operator.as_ref();
    let operator = operator.map(|it| ("listen.operator", it.address));
    let control = listen.control.as_ref();
    let control = control.map(|it| ("listen.control", it.address));
    let planes = [
        ("listen.xds", &listen.xds),
        ("listen.minter", &listen.minter),
    ];
    let planes = planes
        .into_iter()
        .filter_map(|(key, door)| match &door.as_ref()?.place {
            DoorPlace::Tcp { address, .. } => Some((key, *address)),
            DoorPlace::Socket(_) => None,
        });
    let mut all = proxies
        .chain(transparent)
        .chain(metrics)
        .chain(operator)
        .chain(control)
        .chain(planes);
    all.find(|(_, own)| collide(*own, socket))
        .map(|(key, _)| key)
}

fn check_admin(
    written: &FileEnvoyAdmin,
    taken: &mut Vec<(&'static str, SocketAddr)>,
    listen: Option<&Listen>,
    folder: &Path,
    report: &mut Report<'_>,
) -> Option<EnvoyAdmin> {
    let path = KeyPath::of("envoy").key("admin");
    let (socket, address) = (written.socket.as_ref(), written.address.as_ref());
    match check_one_place(socket, address, &path, report)? {
        Place::Socket(text) => {
            let path = path.key("socket");
            let socket = check_socket_path(text, &path, folder, report)?;
            let own = listen.and_then(|listen| Some(&listen.xds.as_ref()?.place));
            if own == Some(&DoorPlace::Socket(socket.clone())) {
                refuse_same_socket("listen.xds", &path, report);
            }
            Some(EnvoyAdmin::Socket(socket))
        }
        Place::Address(text) => {
            let path = path.key("address");
            let sockets = check_sockets(&[text.to_owned()], &path, "127.0.0.1:9901", report);
            let (_, socket) = sockets.into_iter().next()?;
            if socket.port() == 0 {
                report.error(
                    "invalid_socket",
                    &path,
                    "the port of what ends Envoy has to be known, so that no guest gets there"
                        .to_owned(),
                    "write a port, or take a `socket`",
                );
                return None;
            }
            check_free(socket, "admin", &path, taken, listen, report);
            if !socket.ip().is_loopback() {
                report.warn(
                    "listens_beyond_loopback",
                    &path,
                    "Envoy's administration interface asks nobody who they are".to_owned(),
                    "listen on 127.0.0.1 or on a `socket`",
                );
            }
            Some(EnvoyAdmin::Tcp(socket))
        }
    }
}

/// How Envoy comes to `listen.xds`. Whether that is there is judged by the file as written.
fn check_way(
    control: Option<&PlaneAddress>,
    listen: Option<&Listen>,
    base: &KeyPath,
    report: &mut Report<'_>,
) {
    let root = report.root();
    let is_written = root.entry("listen").and_then(|it| it.value.entry("xds"));
    if is_written.is_none() {
        report.warn(
            "envoy_without_xds",
            base,
            "Envoy would have no control plane".to_owned(),
            "add `listen: { xds: { socket: xds.sock } }`",
        );
    }
    let door = listen.and_then(|listen| Some(&listen.xds.as_ref()?.place));
    let has_way = root
        .entry("envoy")
        .is_some_and(|it| it.value.entry("control").is_some());
    match (door, control) {
        (Some(DoorPlace::Tcp { .. }), None) if !has_way => report.missing(
            base,
            "control",
            "add `control: { address: host:port, ca: path, certificate: path, key: path }`: `listen.xds` asks Envoy who it is",
        ),
        (Some(DoorPlace::Tcp { .. }), Some(PlaneAddress::Socket(_)))
        | (Some(DoorPlace::Socket(_)), Some(PlaneAddress::Tcp { .. })) => report.warn(
            "other_kind_of_place",
            &base.key("control"),
            "of this and `listen.xds`, one is a Unix socket and the other is not".to_owned(),
            "write the two alike, unless something between them passes the one on as the other",
        ),
        _ => {}
    }
}
