//! The supervisor: starts Envoy, tells what happens to it, starts it again when it ends by itself, ends it when told.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    AdminPlace, EnvoyBinary, Event, Ready, SuperviseError,
    admin::{Admin, LONGEST_SOCKET_PATH},
    backoff::Backoff,
    error::failed,
    flags::{flags, log_everything},
    log::{self, Repeats},
    process::{Happening, Process, described},
    stop::stop,
    watch::{self, Seen},
};

/// Lines that are told again when Envoy has ended by itself.
const LAST_LINES: usize = 10;
/// How long to read what a process left behind.
const REST: Duration = Duration::from_millis(500);

/// What to run and how.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Which Envoy.
    pub binary: EnvoyBinary,
    /// A program that plays the role of [`super::HELPER`]; this program itself, usually.
    pub helper: PathBuf,
    /// Where the bootstrap is written; made with mode 0700.
    pub folder: PathBuf,
    /// The bootstrap; its `admin` is replaced.
    pub bootstrap: Value,
    /// Where the supervisor reaches it.
    pub admin: AdminPlace,
    /// The sockets of the explicit proxy.
    pub proxy: Expected,
    /// The sockets for captured connections.
    pub transparent: Expected,
    /// The control plane in words, as in `unix:/run/xds.sock`; `None`: the bootstrap has everything in it.
    pub control: Option<String>,
    /// Worker threads.
    pub concurrency: u32,
    /// How long what is open may take to finish when Envoy is stopped.
    pub grace: Duration,
    /// More flags for Envoy.
    pub further: Vec<OsString>,
    /// Whether lines of the log are told that may have header fields in them, and with those tokens and credentials.
    pub log_secrets: bool,
}

/// Sockets that are open when Envoy is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// How the names of their listeners begin.
    pub prefix: String,
    /// How many sockets.
    pub count: usize,
}

/// What the owner of a supervisor wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// End in order; a second one does not wait.
    Stop,
    /// End at once.
    Kill,
}

/// Runs Envoy until it is ordered to stop.
///
/// # Errors
/// [`SuperviseError`]: where it cannot be started, or ends with an exit code before it has ever been up, which it would
/// do again.
pub async fn supervise(
    setup: &Setup,
    orders: &mut mpsc::Receiver<Order>,
    tell: &mut dyn FnMut(Event),
) -> Result<(), SuperviseError> {
    let place = Place::make(setup)?;
    if log_everything(&setup.further) {
        tell(Event::Notice(log::secrets_notice(setup.log_secrets)));
    }
    let mut backoff = Backoff::new();
    let mut was_up = false;
    for attempt in 1_u32.. {
        place.clear();
        let begun = Instant::now();
        let process = Process::start(&setup.helper, setup.binary.path(), &place.flags)?;
        let pid = process.pid();
        tell(Event::Starting { pid, attempt });
        let mut life = Life::new(setup, process, was_up);
        let ended = match life.run(&place, orders, tell).await {
            Outcome::Stopped { cut } => {
                tell(Event::Stopped { cut });
                return Ok(());
            }
            Outcome::Ended(status) => status,
        };
        let last_lines = life.last_words(tell).await;
        was_up |= life.was_up;
        let how = described(ended);
        if !was_up && ended.code().is_some_and(|code| code != 0) {
            let said = last_lines.iter().map(|line| format!("\n  {line}"));
            let said = said.collect();
            return Err(SuperviseError::NeverStarted { how, said });
        }
        let restart_in = backoff.after(begun.elapsed());
        tell(Event::Ended {
            how,
            last_lines,
            restart_in,
        });
        tokio::select! {
            () = tokio::time::sleep(restart_in) => {}
            Some(_) = orders.recv() => {
                tell(Event::Stopped { cut: false });
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What stands in the folder.
struct Place {
    /// Held for as long as this is: two supervisors would take each other's sockets.
    _lock: File,
    admin: AdminPlace,
    /// Where Envoy writes which address it bound.
    address: Option<PathBuf>,
    flags: Vec<OsString>,
}

impl Place {
    fn make(setup: &Setup) -> Result<Self, SuperviseError> {
        if let AdminPlace::Socket(path) = &setup.admin
            && path.as_os_str().len() > LONGEST_SOCKET_PATH
        {
            return Err(SuperviseError::SocketPath(path.clone()));
        }
        outgate_state::create_private_dir(&setup.folder)?;
        let lock = lock(&setup.folder)?;
        let mut bootstrap = setup.bootstrap.clone();
        if let Some(fields) = bootstrap.as_object_mut() {
            fields.insert("admin".to_owned(), setup.admin.to_json());
        }
        let file = setup.folder.join("bootstrap.json");
        outgate_state::write_private_atomic(&file, format!("{bootstrap:#}\n").as_bytes())?;
        let address = matches!(setup.admin, AdminPlace::Tcp(_));
        let address = address.then(|| setup.folder.join("admin.address"));
        let flags = flags(
            &file,
            address.as_deref(),
            setup.concurrency,
            setup.grace,
            &setup.further,
        )?;
        Ok(Self {
            _lock: lock,
            admin: setup.admin.clone(),
            address,
            flags,
        })
    }

    /// Takes away what the Envoy before left: it would answer for the next one.
    fn clear(&self) {
        if let AdminPlace::Socket(path) = &self.admin {
            let _ = std::fs::remove_file(path);
        }
        if let Some(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn lock(folder: &Path) -> Result<File, SuperviseError> {
    let held = File::open(folder).map_err(failed("lock Envoy's folder"))?;
    match flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(held),
        Err(Errno::WOULDBLOCK) => Err(SuperviseError::InUse(folder.to_owned())),
        Err(errno) => Err(failed("lock Envoy's folder")(errno.into())),
    }
}

enum Outcome {
    Stopped { cut: bool },
    Ended(ExitStatus),
}

/// One process, from its start to its end.
struct Life<'a> {
    setup: &'a Setup,
    process: Process,
    admin: Option<Admin>,
    was_up: bool,
    heard: Heard,
}

impl<'a> Life<'a> {
    fn new(setup: &'a Setup, process: Process, was_up: bool) -> Self {
        Self {
            setup,
            process,
            admin: None,
            was_up,
            heard: Heard {
                last: VecDeque::new(),
                repeats: Repeats::new(),
                is_stopping: false,
                tells_secrets: setup.log_secrets,
            },
        }
    }

    async fn run(
        &mut self,
        place: &Place,
        orders: &mut mpsc::Receiver<Order>,
        tell: &mut dyn FnMut(Event),
    ) -> Outcome {
        let (send, mut seen) = mpsc::channel(16);
        let mut watching = std::pin::pin!(watch::follow(self.setup, place.address.clone(), send));
        let mut is_watched = true;
        let order = loop {
            tokio::select! {
                happening = self.process.next() => match happening {
                    Happening::Line(line) => self.heard.line(&line, tell),
                    Happening::Ended(status) => return Outcome::Ended(status),
                },
                Some(news) = seen.recv() => self.note(news, tell),
                () = &mut watching, if is_watched => is_watched = false,
                // Whoever could order is gone.
                order = orders.recv() => break order.unwrap_or(Order::Stop),
            }
        };
        let grace = match order {
            Order::Stop => self.setup.grace,
            Order::Kill => {
                self.process.handle().signal(rustix::process::Signal::KILL);
                Duration::ZERO
            }
        };
        tell(Event::Stopping { grace });
        self.heard.is_stopping = true;
        let admin = self.admin.take();
        let heard = &mut self.heard;
        let cut = stop(
            &mut self.process,
            admin,
            grace,
            orders,
            &mut |line: &str| heard.line(line, tell),
        )
        .await;
        Outcome::Stopped { cut }
    }

    fn note(&mut self, news: Seen, tell: &mut dyn FnMut(Event)) {
        match news {
            Seen::Up(admin) => {
                self.was_up = true;
                self.admin = Some(admin);
            }
            Seen::Serving(admin, proxy, transparent) => tell(Event::Ready(Ready {
                proxy,
                transparent,
                admin: admin.0,
                pid: self.process.pid(),
            })),
            Seen::Notice(notice) => {
                // Each is a change, and told; what the log says of the same is then nothing new.
                self.heard.repeats.is_news(&notice, Instant::now());
                tell(Event::Notice(notice));
            }
        }
    }

    /// What it said last; the rest of its log is told.
    async fn last_words(&mut self, tell: &mut dyn FnMut(Event)) -> Vec<String> {
        let rest = async {
            while let Some(line) = self.process.next_line().await {
                self.heard.line(&line, tell);
            }
        };
        // Something that it started may hold the pipe open.
        let _ = tokio::time::timeout(REST, rest).await;
        self.heard.last.drain(..).collect()
    }
}

/// Its log so far.
struct Heard {
    last: VecDeque<String>,
    repeats: Repeats,
    /// Envoy leaves its control plane then, and says so.
    is_stopping: bool,
    tells_secrets: bool,
}

impl Heard {
    fn line(&mut self, line: &str, tell: &mut dyn FnMut(Event)) {
        let line = log::read(line);
        // The level can be changed through the administration interface, too.
        if !self.tells_secrets && log::may_hold_secrets(&line) {
            return;
        }
        if self.last.len() >= LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.message.clone());
        match log::notice(&line) {
            Some(_) if self.is_stopping => {}
            Some(notice) if self.repeats.is_news(&notice, Instant::now()) => {
                tell(Event::Notice(notice));
            }
            Some(_) => {}
            None => tell(Event::Log(line)),
        }
    }
}
