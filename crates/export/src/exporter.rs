//! An exporter from outside: a thread of its own, started, asked how it does, and stopped within a bound.

use std::{path::Path, sync::Arc, thread, time::Duration};

use outgate_clock::Clock;
use outgate_state::create_private_dir;
use tokio::{runtime, sync::oneshot, time};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{ExportConfig, ExportError, ExporterName},
    cursor::CursorFile,
    shipper::Shipper,
    status::{ExportStatus, StatusCell},
    trail::TrailReader,
};

/// Beyond what an exporter may take to send what is pending: for its thread to end.
const GRACE: Duration = Duration::from_millis(500);

/// A running exporter. Dropped, it is told to stop and nobody waits.
#[derive(Debug)]
pub struct Exporter {
    name: ExporterName,
    status: Arc<StatusCell>,
    stop: CancellationToken,
    stop_within: Duration,
    ended: Option<oneshot::Receiver<()>>,
}

impl Exporter {
    /// Starts an exporter on a thread of its own. Cursors are kept in `folder`, which is created.
    ///
    /// # Errors
    /// [`ExportError`]: the folder, or the thread. Whatever is wrong with the receiver, the secrets or the trail shows
    /// in [`status`](Self::status) and in the log, and is tried again until it is mended.
    pub fn start(
        config: ExportConfig,
        folder: &Path,
        trail: impl TrailReader,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ExportError> {
        create_private_dir(folder)?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .build()
            .map_err(ExportError::Thread)?;
        let status = Arc::new(StatusCell::new(&config.name, config.tuning.behind_after));
        let stop = CancellationToken::new();
        let file = CursorFile::new(folder, &config.name);
        let shipper = Shipper::new(
            &config,
            file,
            trail,
            Arc::clone(&status),
            clock,
            stop.clone(),
        );
        let (told, ended) = oneshot::channel();
        let (stopping, stop_within) = (stop.clone(), config.tuning.stop_within);
        thread::Builder::new()
            .name(format!("export-{}", config.name))
            .spawn(move || {
                work(&runtime, shipper, stopping, stop_within);
                // A look-up that hangs must not keep the thread.
                runtime.shutdown_background();
                let _ = told.send(());
            })
            .map_err(ExportError::Thread)?;
        Ok(Self {
            name: config.name,
            status,
            stop,
            stop_within: config.tuning.stop_within,
            ended: Some(ended),
        })
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &ExporterName {
        &self.name
    }

    /// How it does. Waits for nobody.
    #[must_use]
    pub fn status(&self) -> ExportStatus {
        self.status.get()
    }

    /// Tells it to send what is pending and to end. To be called once the audit log is flushed, or its last records
    /// are left for the next start.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// [Stops](Self::stop) it and waits until it has ended, for `stop_within` and a little more at most.
    pub async fn stopped(mut self) {
        self.stop();
        if let Some(ended) = self.ended.take() {
            // An exporter that hangs is left behind: what it has not sent is on disk, and its cursor says so.
            let _ = time::timeout(self.stop_within.saturating_add(GRACE), ended).await;
        }
    }
}

/// Until it is told to stop, and so much longer at most.
fn work<T: TrailReader>(
    runtime: &runtime::Runtime,
    mut shipper: Shipper<T>,
    stop: CancellationToken,
    stop_within: Duration,
) {
    runtime.block_on(async {
        let limit = async {
            stop.cancelled().await;
            time::sleep(stop_within).await;
        };
        tokio::select! {
            _ = shipper.run() => {}
            () = limit => {}
        }
    });
    shipper.say_end();
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
