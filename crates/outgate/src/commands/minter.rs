//! `outgate minter`: the process that alone holds the CA's key, and hands out leaves for what the policy bumps.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use outgate_audit::Rotation;
use outgate_config::{Config, DoorPlace};
use outgate_minter::{MinterError, MinterPlaces, MinterProcess};
use outgate_native::state::StatePaths;
use outgate_pki::{CaFiles, CaLook};
use outgate_plane::clock;
use outgate_xds::TlsDoor;
use serde_json::json;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    files::{FileWatch, LOOK_AGAIN, Stamps},
    load, plane_door,
    process::{LogTarget, hide_memory, set_limits, start_log},
    state,
};
use crate::{
    cli::{ConfigFile, Minter},
    style::say,
};

/// The door's place in the configuration file.
const DOOR: &str = "listen.minter";

pub(crate) fn run(minter: &Minter, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    start_log(LogTarget::StandardError(minter.log_format));
    hide_memory();
    set_limits();
    let file = ConfigFile {
        config: std::path::absolute(&minter.file.config)?,
        json: minter.file.json,
    };
    let config = load(&file)?;
    let state = state(state_dir, Some(&config))?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?
        .block_on(mint_until_told(&file, config, &state))
}

/// Where a minter's CA and trail are.
pub(super) fn places(config: &Config, state: &StatePaths) -> MinterPlaces {
    let supplied = config.ca.as_ref().map(|files| CaFiles {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
    });
    MinterPlaces {
        supplied,
        ..MinterPlaces::under(state.folder())
    }
}

/// How a minter's trail is cut into files.
pub(super) fn rotation(config: &Config) -> Rotation {
    Rotation {
        size: Some(config.audit.rotate.size),
        age: Some(config.audit.rotate.age),
    }
}

async fn mint_until_told(
    file: &ConfigFile,
    config: Config,
    state: &StatePaths,
) -> Result<ExitCode> {
    // Before anything listens, so that a signal is never lost.
    let mut signals = Signals::new()?;
    let Some(door) = &config.listen.minter else {
        bail!(
            "{}: there is no listen.minter, so nobody could ask for leaves; add `listen: {{ minter: {{ socket: minter.sock }} }}`",
            file.config.display()
        );
    };
    let (door, tls, place) = plane_door::bind(door, DOOR)?.open(DOOR)?;
    let process = Arc::new(MinterProcess::open(
        &places(&config, state),
        rotation(&config),
        Arc::new(config.policy.clone()),
        clock::machine(),
    )?);
    announce(&config, &place, &state.ca_certificate(), file.json);
    let stop = CancellationToken::new();
    let mut served: Served = tokio::spawn({
        let (process, stop) = (Arc::clone(&process), stop.clone());
        async move { process.serve(door, stop).await }
    });
    let current = Current {
        file: file.config.clone(),
        config,
        process: Arc::clone(&process),
        tls,
    };
    follow(current, &mut served, &mut signals).await?;
    tracing::info!("stopping");
    stop.cancel();
    let again = async { signals.stop().await };
    end(&mut served, again, &process).await
}

/// The task behind the door.
type Served = JoinHandle<Result<(), MinterError>>;

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits to be told to stop.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Takes over what changes, until it is told to stop.
async fn follow(mut current: Current, served: &mut Served, signals: &mut Signals) -> Result<()> {
    let mut watch = FileWatch::new();
    let mut stamps = Stamps::of(current.files());
    let mut is_settled = true;
    loop {
        watch.turn_to(stamps.files().chain(current.ca_files()));
        let reload = tokio::select! {
            ended = &mut *served => {
                ended??;
                bail!("the minter's door has closed by itself");
            }
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
            _ = signals.hangup.recv() => { stamps.look(); true }
            () = watch.due() => stamps.look(),
            () = tokio::time::sleep(LOOK_AGAIN), if !is_settled => false,
        };
        // It reads files, and whoever is served does not wait for that.
        let reloading = tokio::task::spawn_blocking(move || {
            if reload {
                current.reload();
            }
            let look = current.process.refresh_ca();
            (current, !matches!(look, CaLook::Unsettled))
        });
        (current, is_settled) = reloading.await?;
        stamps.turn_to(current.files());
    }
}

/// Waits for whoever is served to be done. Who says it `again` waits no longer, and is told that this was no orderly end;
/// the records are waited for all the same.
///
/// # Errors
/// The last records are not on disk.
async fn end(
    served: &mut Served,
    again: impl Future<Output = ()>,
    process: &MinterProcess,
) -> Result<ExitCode> {
    tokio::select! {
        ended = &mut *served => {
            ended??;
            return Ok(ExitCode::SUCCESS);
        }
        () = again => served.abort(),
    }
    process.close().await?;
    tracing::warn!(
        code = "stopped_at_once",
        "a second signal: who was still served is cut; every record is on disk"
    );
    Ok(ExitCode::FAILURE)
}

/// What is in force.
struct Current {
    file: PathBuf,
    config: Config,
    process: Arc<MinterProcess>,
    tls: Option<TlsDoor>,
}

impl Current {
    /// The file, and those that are read when it is.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.file.clone()];
        files.extend(self.config.listen.minter.iter().flat_map(plane_door::files));
        files
    }

    /// Those of the CA, which are looked at every time: whether they fit together, no time stamp says.
    fn ca_files(&self) -> impl Iterator<Item = &Path> {
        let files = self.config.ca.iter();
        files.flat_map(|files| [&*files.certificate, &*files.key])
    }

    /// Takes the file over as it is, whole or not at all. Blocks on files.
    fn reload(&mut self) {
        let taken_over = self.take_over();
        let file = self.file.display();
        match taken_over {
            Ok(()) => tracing::info!(%file, "configuration taken over"),
            Err(error) => tracing::error!(
                code = "config_not_taken_over",
                %file,
                "configuration not taken over; the old policy goes on: {error:#}"
            ),
        }
    }

    fn take_over(&mut self) -> Result<()> {
        let next = Config::load(&self.file).map_err(anyhow::Error::from)?;
        let door = match (&self.config.listen.minter, &next.listen.minter) {
            (Some(before), Some(door)) if plane_door::is_one_place(before, door) => door,
            _ => bail!("{DOOR} is another place: restart the minter to open it"),
        };
        if self.config.ca != next.ca {
            bail!("ca names other files: restart the minter to take its CA from there");
        }
        let renewed = plane_door::renew(door, DOOR)?;
        if let Some(tls) = &self.tls {
            renewed.put_in_force(tls);
        }
        self.process.set_policy(Arc::new(next.policy.clone()));
        self.config = next;
        Ok(())
    }
}

fn announce(config: &Config, place: &str, certificate: &Path, as_json: bool) {
    if as_json {
        say!(
            "{}",
            json!({ "event": "ready", "minter": place, "ca": certificate, "pid": std::process::id() })
        );
        return;
    }
    say!("minter    {place}");
    say!("CA        {}", certificate.display());
    say!("policy    {}", super::destinations(config.policy.len()));
    say!(
        "next      name both in the configuration of the gateway, which needs a state folder of its own:"
    );
    match config.listen.minter.as_ref().map(|door| &door.place) {
        Some(DoorPlace::Tcp { .. }) => say!(
            "          minter: {{ address: {place}, ca: …, certificate: …, key: …, leaf_ca: <a copy of the CA> }}"
        ),
        _ => say!(
            "          minter: {{ socket: {place}, leaf_ca: {} }}",
            certificate.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{read_to_string, write},
        future::{pending, ready},
    };

    use outgate_minter::Asker;

    use super::*;

    /// A minter of a file with these hosts, in this folder.
    fn current(folder: &Path, hosts: &str) -> Current {
        let file = folder.join("minter.yaml");
        says(&file, "minter.sock", hosts);
        let config = Config::load(&file).unwrap();
        let process = MinterProcess::open(
            &MinterPlaces::under(&folder.join("state")),
            rotation(&config),
            Arc::new(config.policy.clone()),
            clock::machine(),
        );
        Current {
            file,
            config,
            process: Arc::new(process.unwrap()),
            tls: None,
        }
    }

    fn says(file: &Path, socket: &str, hosts: &str) {
        let text = format!(
            "version: 1\nlisten: {{ minter: {{ socket: {socket} }} }}\nposture: bump\ndestinations: [{hosts}]\n"
        );
        write(file, text).unwrap();
    }

    async fn refuse(process: &MinterProcess, times: usize) {
        for _ in 0..times {
            let refused = process.leaves().service();
            let refused = refused.leaf(&Asker::local(), "other.test").await;
            refused.unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_second_signal_ends_with_a_failure_and_with_every_record_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let process = current(folder.path(), "{ host: a.test }").process;
        // More than are recorded in full: how many were left out is recorded at the end.
        refuse(&process, 100).await;
        let mut served: Served = tokio::spawn(pending());
        let ended = end(&mut served, ready(()), &process).await.unwrap();
        assert_eq!(ended, ExitCode::FAILURE);
        assert!(served.await.unwrap_err().is_cancelled());
        let trail = folder.path().join("state/minter/audit");
        let trail = read_to_string(trail.join(outgate_audit::RECORDS_FILE)).unwrap();
        assert!(
            trail.contains("destination_not_allowed\"")
                && trail.contains(" destination_not_allowed")
        );
    }

    #[tokio::test]
    async fn an_end_that_nobody_hurries_is_a_success() {
        let folder = tempfile::tempdir().unwrap();
        let process = current(folder.path(), "{ host: a.test }").process;
        let mut served: Served = tokio::spawn(ready(Ok(())));
        let ended = end(&mut served, pending(), &process).await.unwrap();
        assert_eq!(ended, ExitCode::SUCCESS);
    }

    #[tokio::test]
    async fn a_file_is_taken_over_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let mut current = current(folder.path(), "{ host: a.test }");
        let service = Arc::clone(current.process.leaves().service());
        let is_bumped = async |host| service.leaf(&Asker::local(), host).await.is_ok();
        assert!(is_bumped("a.test").await && !is_bumped("b.test").await);
        says(&current.file, "minter.sock", "{ host: b.test }");
        current.reload();
        assert!(!is_bumped("a.test").await && is_bumped("b.test").await);
        says(&current.file, "elsewhere.sock", "{ host: a.test }");
        let refused = current.take_over().unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("listen.minter is another place")
        );
        assert!(!is_bumped("a.test").await && is_bumped("b.test").await);
    }
}
