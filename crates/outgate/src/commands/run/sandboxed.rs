//! In namespaces: the sockets are opened inside, and served from here.

use std::{
    fs::File,
    net::TcpListener as StdListener,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use outgate_native::{
    gateway::{Attribution, SessionSockets},
    names::NameSockets,
};
use outgate_pki::{BUNDLE_FILE, SYSTEM_FILES, TRUSTSTORE_FILE};
use outgate_sandbox::{
    Command, Event, Events, Plan, Prepared, Refusals, Running, SandboxError, Sockets, UnixSockets,
    UserNamespaces, default_writable, prepare,
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::mpsc,
};

use super::{
    super::process::set_limits,
    Ended, Launch, absolute,
    signals::{Signals, Stops},
    terminal::{INTERRUPT, is_a_job, stop_until_continued},
};

/// Where clients expect a proxy, if no rule names it.
const PROXY_PORT: u16 = 3128;
const CONTINUE: i32 = 18;
/// How long a command that stopped may take to be continued with its job, before the job is stopped with it.
const STOP_TOGETHER: Duration = Duration::from_millis(50);

pub(super) async fn run(launch: &Launch<'_>) -> Result<Ended> {
    let plan = plan(launch)?;
    let preparing = tokio::task::spawn_blocking(move || {
        let own = std::env::current_exe().map_err(|error| SandboxError::Setup {
            step: "find this program's own file".to_owned(),
            why: error.to_string(),
        })?;
        prepare(&own, &plan)
    });
    // Both take their time; neither needs the other.
    let started = tokio::task::block_in_place(|| {
        tokio::runtime::Handle::current().block_on(launch.start_gateway(&[]))
    });
    let (prepared, sockets): (Prepared, Sockets) = preparing.await??;
    // Not before: the command keeps the limits that this process was started with.
    set_limits();
    let (gateway, session) = started?;
    let proxy = sockets.proxy.local_addr()?;
    gateway.serve_session(serve(sockets)?, &session, Attribution::BySocket);
    let guest = launch.guest(&gateway, &session, proxy.to_string())?;
    let mut signals = Signals::listen(launch.in_foreground, Stops::WithTheCommand)?;
    let command = Command {
        program: guest.program,
        args: guest.arguments,
        environment: guest.environment,
    };
    let (running, events) = tokio::task::spawn_blocking(move || prepared.start(&command)).await??;
    let outcome = follow(&running, events, &mut signals).await;
    if let Ok(Ended { refused, .. }) = &outcome
        && !refused.is_empty()
    {
        gateway.record_refusals(&session, &refused.join("; "));
    }
    launch.end(&gateway, &session).await?;
    outcome
}

fn plan(launch: &Launch<'_>) -> Result<Plan> {
    let working_directory = std::env::current_dir().context("the working directory")?;
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let home = home.filter(|home| home.is_absolute());
    let mut writable = default_writable(home.as_deref(), &working_directory);
    writable.extend(absolute(&launch.run.write)?);
    let mut ports: Vec<u16> = launch
        .policy
        .config
        .policy
        .ports()
        .into_iter()
        .map(outgate_journey::policy::Port::get)
        .chain([80, 443])
        .collect();
    ports.sort_unstable();
    ports.dedup();
    let proxy_port = (PROXY_PORT..u16::MAX)
        .find(|port| !ports.contains(port))
        .context("no port is left for the proxy")?;
    Ok(Plan {
        run_folder: launch.folder.path().to_owned(),
        ports,
        proxy_port,
        hidden: launch.hidden.clone(),
        // The rules of the next run are not the command's to write.
        read_only: absolute(launch.run.config.iter().chain(&launch.run.learn))?,
        shown: if launch.policy.config.needs_ca() {
            trust_by_path(launch.folder.path())?
        } else {
            Vec::new()
        },
        writable,
        unix_sockets: if launch.run.unix_sockets {
            UnixSockets::Allowed
        } else {
            UnixSockets::Refused
        },
        user_namespaces: if launch.run.user_namespaces {
            UserNamespaces::Allowed
        } else {
            UserNamespaces::Refused
        },
        working_directory,
    })
}

/// Where distributions keep the roots for Java, where it is not the runtime's own.
const JAVA_ROOTS: [&str; 2] = [
    "/etc/ssl/certs/java/cacerts",
    "/etc/pki/ca-trust/extracted/java/cacerts",
];

/// Shows the run's trust where programs look that no variable reaches: GnuTLS, and what clears its environment. The files are made here and filled when there is
/// a CA.
fn trust_by_path(folder: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut shown = Vec::new();
    let files = [
        (BUNDLE_FILE, SYSTEM_FILES.as_slice()),
        (TRUSTSTORE_FILE, JAVA_ROOTS.as_slice()),
    ];
    for (name, places) in files {
        let file = folder.join(name);
        File::create(&file).context("the run's trust")?;
        let mut real: Vec<_> = places
            .iter()
            .filter_map(|place| Path::new(place).canonicalize().ok())
            .collect();
        real.sort_unstable();
        real.dedup();
        shown.extend(real.into_iter().map(|place| (place, file.clone())));
    }
    Ok(shown)
}

fn serve(sockets: Sockets) -> Result<SessionSockets> {
    let listener = |socket: StdListener| {
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket)
    };
    let datagrams = |socket: std::net::UdpSocket| {
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    };
    let all = |sockets: Vec<StdListener>| {
        let sockets = sockets.into_iter().map(listener);
        sockets.collect::<std::io::Result<Vec<_>>>()
    };
    Ok(SessionSockets {
        proxy: vec![listener(sockets.proxy)?],
        transparent: all(sockets.transparent)?,
        names: NameSockets {
            udp: sockets
                .dns_udp
                .into_iter()
                .map(datagrams)
                .collect::<std::io::Result<_>>()?,
            tcp: all(sockets.dns_tcp)?,
        },
    })
}

/// Follows the command to its end.
async fn follow(running: &Running, events: Events, signals: &mut Signals) -> Result<Ended> {
    let mut events = stream(events);
    let mut refused = Vec::new();
    let mut heard = None;
    loop {
        let event = match heard.take() {
            Some(event) => event,
            None => tokio::select! {
                event = events.recv() => event.ok_or(SandboxError::Lost)?,
                number = signals.next() => {
                    // It may be gone by this moment.
                    let _ = running.signal(number);
                    continue;
                }
            },
        };
        let by_interrupt = matches!(event, Event::Signalled { signal: INTERRUPT });
        let status = match event {
            Event::Started | Event::Continued => continue,
            // Elsewhere nobody would continue this process.
            Event::Stopped { .. } if is_a_job() => {
                heard = stop_with(running, &mut events).await;
                continue;
            }
            Event::Stopped { .. } => continue,
            Event::Refused(counted) => {
                refused = tell(counted);
                continue;
            }
            Event::Exited { code } => code,
            Event::Signalled { signal } => 128 + signal,
            Event::Failed(error) => return Err(error.into()),
        };
        return Ok(Ended {
            status: u8::try_from(status & 0xff).unwrap_or(1),
            by_interrupt,
            refused,
        });
    }
}

/// Stops this process as the command was stopped, so that the shell gets its terminal back, and continues both; unless
/// something else happens first, which it gives back.
async fn stop_with(running: &Running, events: &mut mpsc::Receiver<Event>) -> Option<Event> {
    // The whole job may have been stopped, and continued by now.
    if let Ok(event) = tokio::time::timeout(STOP_TOGETHER, events.recv()).await {
        return event;
    }
    stop_until_continued();
    let _ = running.signal(CONTINUE);
    None
}

fn stream(events: Events) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for event in events {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

fn tell(refused: Refusals) -> Vec<String> {
    let mut lines = Vec::new();
    if refused.tcp_refused > 0 {
        lines.push(format!(
            "{} × TCP to ports that nothing listens on, refused by the sandbox itself",
            refused.tcp_refused
        ));
    }
    if refused.udp_unreachable > 0 {
        lines.push(format!(
            "{} × UDP, refused by the sandbox itself",
            refused.udp_unreachable
        ));
    }
    lines
}
