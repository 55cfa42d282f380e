//! Watches a running Envoy from outside: when it serves, and whether its control plane is there.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    AdminPlace, Expected, Level, Notice, Setup,
    admin::{self, Admin, Listener},
};

const OFTEN: Duration = Duration::from_millis(100);
const SELDOM: Duration = Duration::from_secs(2);
/// After so long without serving, the reason is told.
const PATIENCE: Duration = Duration::from_millis(700);
/// What a connected Envoy is being told takes a moment.
const PATIENCE_WITH_CONTROL: Duration = Duration::from_secs(3);

/// What was seen.
pub(super) enum Seen {
    /// The administration interface answers.
    Up(Admin),
    /// All sockets are open: the proxy's, and those for captured connections.
    Serving(Admin, Vec<std::net::SocketAddr>, Vec<std::net::SocketAddr>),
    Notice(Notice),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Process,
    Control,
    Sockets,
}

/// Watches until it is dropped.
pub(super) async fn follow(setup: &Setup, address: Option<PathBuf>, seen: mpsc::Sender<Seen>) {
    let Some(serving) = start(setup, address, &seen).await else {
        return;
    };
    let mut connected = true;
    loop {
        tokio::time::sleep(SELDOM).await;
        let Ok(Some(is)) = serving.has_control().await else {
            continue;
        };
        if is != connected {
            connected = is;
            let notice = if is { back() } else { lost(setup) };
            if seen.send(Seen::Notice(notice)).await.is_err() {
                return;
            }
        }
    }
}

/// Waits until it serves.
async fn start(
    setup: &Setup,
    address: Option<PathBuf>,
    seen: &mpsc::Sender<Seen>,
) -> Option<Admin> {
    let begun = Instant::now();
    let mut admin = None;
    let mut told = Vec::new();
    loop {
        let waiting = match look(setup, address.as_deref(), &mut admin, seen).await {
            Ok(serving) => {
                let (admin, proxy, transparent) = serving;
                let news = Seen::Serving(admin.clone(), proxy, transparent);
                return seen.send(news).await.is_ok().then_some(admin);
            }
            Err(waiting) => waiting,
        };
        let patience = match waiting {
            Waiting::Sockets => PATIENCE_WITH_CONTROL,
            Waiting::Process | Waiting::Control => PATIENCE,
        };
        if begun.elapsed() >= patience && !told.contains(&waiting) {
            told.push(waiting);
            seen.send(Seen::Notice(reason(setup, waiting))).await.ok()?;
        }
        tokio::time::sleep(OFTEN).await;
    }
}

type Serving = (Admin, Vec<std::net::SocketAddr>, Vec<std::net::SocketAddr>);

async fn look(
    setup: &Setup,
    address: Option<&std::path::Path>,
    up: &mut Option<Admin>,
    seen: &mpsc::Sender<Seen>,
) -> Result<Serving, Waiting> {
    let admin = match (&*up, address) {
        (Some(admin), _) => admin.clone(),
        (None, None) => Admin(setup.admin.clone()),
        (None, Some(file)) => Admin(AdminPlace::Tcp(
            admin::read_address(file).ok_or(Waiting::Process)?,
        )),
    };
    let is_live = admin.is_live().await.map_err(|_| Waiting::Process)?;
    if up.is_none() {
        *up = Some(admin.clone());
        let _ = seen.send(Seen::Up(admin.clone())).await;
    }
    let listeners = admin.listeners().await.map_err(|_| Waiting::Process)?;
    let proxy = sockets(&listeners, &setup.proxy);
    let transparent = sockets(&listeners, &setup.transparent);
    match (proxy, transparent) {
        (Some(proxy), Some(transparent)) if is_live => Ok((admin, proxy, transparent)),
        _ if setup.control.is_some() && matches!(admin.has_control().await, Ok(Some(false))) => {
            Err(Waiting::Control)
        }
        _ => Err(Waiting::Sockets),
    }
}

/// The bound sockets of these listeners, once there are as many as expected.
fn sockets(listeners: &[Listener], expected: &Expected) -> Option<Vec<std::net::SocketAddr>> {
    let found: Vec<_> = listeners
        .iter()
        .filter(|it| it.name.starts_with(&expected.prefix))
        .flat_map(|it| it.addresses.iter().copied())
        .filter(|address| address.port() != 0)
        .collect();
    (found.len() >= expected.count).then_some(found)
}

fn reason(setup: &Setup, waiting: Waiting) -> Notice {
    match waiting {
        Waiting::Process => Notice {
            level: Level::Info,
            code: "envoy_starting",
            text: "Envoy is starting".to_owned(),
            remedy: "",
        },
        Waiting::Control => Notice {
            level: Level::Warning,
            code: "control_plane_unreachable",
            text: format!(
                "Envoy runs and waits for its control plane at {}, which does not answer or refuses it",
                setup.control.as_deref().unwrap_or_default()
            ),
            remedy: "start `outgate serve` with this configuration; if it runs, see what its log says of this Envoy, and check that listen.xds (or envoy.control) is \
                     the same place for both, and the certificates if it is TCP. Envoy tries again by itself",
        },
        Waiting::Sockets => Notice {
            level: Level::Info,
            code: "envoy_waiting_for_listeners",
            text: "Envoy is connected and waits for its listeners".to_owned(),
            remedy: "if this stays, the lines around it say what Envoy rejected",
        },
    }
}

fn lost(setup: &Setup) -> Notice {
    Notice {
        level: Level::Error,
        code: "control_plane_lost",
        text: format!(
            "Envoy has lost its control plane at {}: what is new is refused, and what is open is cut",
            setup.control.as_deref().unwrap_or_default()
        ),
        remedy: "start `outgate serve` again; Envoy connects by itself",
    }
}

fn back() -> Notice {
    Notice {
        level: Level::Info,
        code: "control_plane_back",
        text: "Envoy is connected to its control plane again".to_owned(),
        remedy: "",
    }
}
