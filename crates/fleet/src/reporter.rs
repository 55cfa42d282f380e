//! Anomalies on their way to the control plane. They wait in a bounded queue while it is away; what does not fit is
//! counted, and the count is sent, so that what is missing is known to be.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use outgate_fleet_proto as pb;
use outgate_journey::record::AnomalyRecord;
use outgate_mutual::Link;
use pb::fleet_client::FleetClient;
use tokio::sync::mpsc;
use tonic::Code;

use crate::{convert::anomaly_to_proto, service::ANOMALIES};

const WAITING: usize = 1024;
const AGAIN: Duration = Duration::from_secs(1);

/// Reports to the control plane.
#[derive(Debug, Clone)]
pub struct Reporter {
    queue: mpsc::Sender<AnomalyRecord>,
    lost: Arc<AtomicU64>,
}

impl Reporter {
    /// Takes an anomaly to be reported. Never blocks; while 1024 wait, another is counted and let go.
    pub fn report(&self, anomaly: AnomalyRecord) {
        if self.queue.try_send(anomaly).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What waits to be sent, across connections.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: mpsc::Receiver<AnomalyRecord>,
    next: Vec<AnomalyRecord>,
    lost: Arc<AtomicU64>,
}

pub(crate) fn channel() -> (Reporter, Outbox) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let lost = Arc::new(AtomicU64::new(0));
    let reporter = Reporter {
        queue: sender,
        lost: Arc::clone(&lost),
    };
    let outbox = Outbox {
        queue: receiver,
        next: Vec::new(),
        lost,
    };
    (reporter, outbox)
}

impl Outbox {
    /// Sends over this connection for as long as it is polled. Nothing is taken out before it has arrived.
    pub(crate) async fn send(&mut self, mut client: FleetClient<Link>) {
        loop {
            if self.next.is_empty() && self.queue.recv_many(&mut self.next, ANOMALIES).await == 0 {
                return std::future::pending().await;
            }
            let lost = self.lost.load(Ordering::Relaxed);
            let request = pb::ReportRequest {
                anomalies: self.next.iter().map(anomaly_to_proto).collect(),
                lost,
            };
            match client.report(request).await {
                Ok(_) => {
                    self.lost.fetch_sub(lost, Ordering::Relaxed);
                    self.next.clear();
                }
                Err(status) if status.code() == Code::InvalidArgument => {
                    // It will not become valid by being sent again.
                    tracing::warn!(%status, "the control plane does not take anomalies");
                    let dropped = u64::try_from(self.next.len()).unwrap_or(u64::MAX);
                    self.lost.fetch_add(dropped, Ordering::Relaxed);
                    self.next.clear();
                }
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }
}
