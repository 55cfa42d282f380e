//! A gateway's side: follows a control plane for as long as the gateway runs, across restarts of either and whatever
//! the network does in between.
//!
//! How old the denylist is, is reckoned so: the control plane says how long after it received the call the list was
//! all there was to know; it cannot have received the call before it was sent. So the moment of sending plus that time
//! is a moment at which the list was current, by the gateway's own clock, however long the message was under way.

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use outgate_clock::Clock;
use outgate_fleet_proto as pb;
use outgate_mutual::Link;
use pb::fleet_client::FleetClient;
use rustls::ClientConfig;
use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    Pace,
    core::Core,
    denylist::Denylist,
    document::PolicyDocument,
    error::{FleetError, LastStateError},
    freshness::Freshness,
    keep::Keeper,
    last_state::{LastState, origin},
    link::{self, Address},
    random,
    reporter::{Outbox, Reporter, channel},
    tls::client_config,
};

/// The longest message: a part of the denylist whose last line is as long as a line can be.
const MESSAGE_BYTES: usize = 128 * 1024;
/// How many messages are put in force together at most.
const TOGETHER: usize = 512;
/// The first wait before connecting again; it doubles from there.
const BACK_OFF: Duration = Duration::from_millis(100);
/// A stream that lasted this long was no failure, however it ended.
const GOOD: Duration = Duration::from_secs(5);

/// Which control plane to follow, and as whom. The gateway's name is its certificate's: the first DNS name, or URI.
pub struct FollowConfig {
    /// `https://host:port`.
    pub url: String,
    /// The CA that the control plane's certificate has to be of, PEM.
    pub ca: Vec<u8>,
    /// The gateway's certificate chain, PEM.
    pub certificate: Vec<u8>,
    /// Its key, PEM.
    pub key: Zeroizing<Vec<u8>>,
    /// Where to keep what was last verified.
    pub last_state: Option<PathBuf>,
}

/// A part of the state.
#[derive(Debug, Clone, Copy)]
pub enum StatePart<'a> {
    /// The policy in force.
    Policy(&'a PolicyDocument),
    /// The public keys, as a JWK set; no private part is among them.
    Keys(&'a str),
    /// Everything that is denied; what was denied before and is not in it is no longer.
    Denylist(&'a Denylist),
}

/// The gateway's parts that live by the state.
pub trait StateSink: Send + Sync + 'static {
    /// Puts a part in force before it returns. One call at a time, where blocking is allowed.
    ///
    /// # Errors
    /// Why it does not: the last good then stays, the reason is shown, and the part is offered again when there is
    /// another connection or another version.
    fn apply(&self, part: StatePart<'_>) -> Result<(), String>;
}

/// A part that the gateway did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `policy`, `keys` or `denylist`.
    pub part: &'static str,
    /// In the words of who refused it.
    pub reason: String,
}

/// How following goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FollowStatus {
    /// A stream is open, and something came over it.
    pub connected: bool,
    /// The number of the policy in force, if the control plane ever gave one.
    pub policy: Option<u64>,
    /// What was refused and not made good since.
    pub refused: Vec<Refusal>,
    /// Why there is no stream, where there is none.
    pub problem: Option<String>,
}

/// What there was from before.
#[derive(Debug, PartialEq, Eq)]
pub enum Restored {
    /// Nothing was kept.
    Nothing,
    /// The state that was last verified is in force, but for what was refused.
    LastState {
        /// How old its denylist is. `None`: one cannot tell, and it counts as too old.
        age: Option<Duration>,
        /// What the sink did not take.
        refused: Vec<Refusal>,
    },
}

/// Follows a control plane.
pub struct Follower {
    address: Address,
    ca: Vec<u8>,
    tls: ArcSwap<ClientConfig>,
    pub(crate) pace: Pace,
    pub(crate) clock: Arc<dyn Clock>,
    core: Arc<Core>,
    pub(crate) keeper: Option<Arc<Keeper>>,
    reporter: Reporter,
    outbox: AsyncMutex<Outbox>,
}

/// How a stream ended.
enum Ended {
    /// The control plane ended it in good order.
    Renewal,
    Problem(String),
}

impl Follower {
    /// A gateway that is ready to follow.
    ///
    /// # Errors
    /// [`FleetError`].
    pub fn new(
        config: FollowConfig,
        sink: Arc<dyn StateSink>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, FleetError> {
        Self::with_pace(config, sink, clock, Pace::default())
    }

    /// As [`Self::new`], at another pace.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_pace(
        config: FollowConfig,
        sink: Arc<dyn StateSink>,
        clock: Arc<dyn Clock>,
        pace: Pace,
    ) -> Result<Self, FleetError> {
        let address = Address::parse(&config.url)?;
        let tls = client_config(&config.ca, &config.certificate, &config.key)?;
        let origin = origin(&address.origin.to_string(), &config.ca);
        let (reporter, outbox) = channel();
        let core = Core::new(sink, Freshness::new(Arc::clone(&clock)));
        let keeper = config
            .last_state
            .map(|path| Arc::new(Keeper::new(LastState::new(path, origin))));
        Ok(Self {
            address,
            ca: config.ca,
            tls: ArcSwap::new(tls),
            pace,
            clock,
            core: Arc::new(core),
            keeper,
            reporter,
            outbox: AsyncMutex::new(outbox),
        })
    }

    /// Puts in force what was last verified. To be called once, before the first listener opens.
    ///
    /// # Errors
    /// [`LastStateError`]; nothing was put in force then, and the first connection makes good for it.
    pub fn restore(&self) -> Result<Restored, LastStateError> {
        let Some(keeper) = &self.keeper else {
            return Ok(Restored::Nothing);
        };
        keeper.restore(&self.core, self.clock.as_ref())
    }

    /// Uses another certificate and key from the next connection on, which is at most a quarter of an hour away.
    ///
    /// # Errors
    /// [`FleetError`]; the one before is used on then.
    pub fn set_identity(&self, certificate: &[u8], key: &[u8]) -> Result<(), FleetError> {
        self.tls.store(client_config(&self.ca, certificate, key)?);
        Ok(())
    }

    /// How old the denylist is.
    #[must_use]
    pub fn freshness(&self) -> Arc<Freshness> {
        Arc::clone(&self.core.freshness)
    }

    /// Reports anomalies to the control plane.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// How following goes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<FollowStatus> {
        self.core.status.subscribe()
    }

    /// Follows until it is stopped.
    pub async fn follow(&self, stop: CancellationToken) {
        let keep = async {
            if let Some(keeper) = &self.keeper {
                keeper.run(&self.core, &self.clock, &self.pace, &stop).await;
            }
        };
        tokio::join!(self.stay_connected(&stop), keep);
    }

    async fn stay_connected(&self, stop: &CancellationToken) {
        let mut failures = 0;
        loop {
            let began = tokio::time::Instant::now();
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.follow_once() => ended,
            };
            if began.elapsed() >= GOOD {
                failures = 0;
            }
            let wait = match ended {
                Ended::Renewal if failures == 0 => jitter(BACK_OFF),
                Ended::Renewal => back_off(failures, self.pace.back_off),
                Ended::Problem(problem) => {
                    self.core.lost(problem);
                    back_off(failures, self.pace.back_off)
                }
            };
            failures += 1;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn follow_once(&self) -> Ended {
        let link = match link::open(&self.address, &self.tls.load_full(), &self.pace).await {
            Ok(link) => link,
            Err(problem) => return Ended::Problem(problem),
        };
        let client = FleetClient::with_origin(link.clone(), self.address.origin.clone())
            .max_decoding_message_size(MESSAGE_BYTES);
        let Ok(mut outbox) = self.outbox.try_lock() else {
            return Ended::Problem("it is being followed already".to_owned());
        };
        let ended = tokio::select! {
            ended = self.stream(client.clone()) => ended,
            () = outbox.send(client) => Ended::Renewal,
        };
        match ended {
            Ended::Renewal => Ended::Renewal,
            Ended::Problem(problem) => Ended::Problem(link.broken().await.unwrap_or(problem)),
        }
    }

    async fn stream(&self, mut client: FleetClient<Link>) -> Ended {
        let request = {
            let mut held = self.core.held();
            held.begin();
            held.request()
        };
        // Before the call leaves: what the control plane says is reckoned from here.
        let sent = self.clock.monotonic();
        let mut states = match timeout(self.pace.silence, client.follow(request)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Ended::Problem(describe(&status)),
            Err(_) => return Ended::Problem(SILENT.to_owned()),
        };
        let mut first = true;
        loop {
            let state = match timeout(self.pace.silence, states.message()).await {
                Ok(Ok(Some(state))) => state,
                Ok(Ok(None)) => return Ended::Renewal,
                Ok(Err(status)) => return Ended::Problem(describe(&status)),
                Err(_) => return Ended::Problem(SILENT.to_owned()),
            };
            // What came while the last was put in force is put in force together.
            let mut together = vec![state];
            while together.len() < TOGETHER
                && let Some(Ok(Some(state))) = states.message().now_or_never()
            {
                together.push(state);
            }
            if let Err(problem) = self.take(together, first, sent).await {
                return Ended::Problem(problem);
            }
            first = false;
        }
    }

    async fn take(
        &self,
        states: Vec<pb::State>,
        first: bool,
        sent: Duration,
    ) -> Result<(), String> {
        let core = Arc::clone(&self.core);
        tokio::task::spawn_blocking(move || core.take(states, first, sent))
            .await
            .unwrap_or_else(|_| Err("the gateway failed at what was sent".to_owned()))
    }
}

const SILENT: &str = "it has gone silent";

fn describe(status: &tonic::Status) -> String {
    match status.code() {
        tonic::Code::PermissionDenied => status.message().to_owned(),
        code => format!("{code}: {}", status.message()),
    }
}

/// Doubles with each failure, up to `most`.
fn back_off(failures: u32, most: Duration) -> Duration {
    jitter(BACK_OFF.saturating_mul(1_u32 << failures.min(10)).min(most))
}

/// Between a half and the whole of it, so that gateways that lost the same control plane do not come back at once.
fn jitter(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + random() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_to_its_bound_and_starts_below_a_second() {
        let most = Duration::from_secs(10);
        for failures in 0..100 {
            let wait = back_off(failures, most);
            assert!(wait <= most);
            assert!(
                failures > 3 || wait <= Duration::from_secs(1),
                "{failures}: {wait:?}"
            );
            assert!(failures < 7 || wait >= most / 2, "{failures}: {wait:?}");
        }
    }
}
