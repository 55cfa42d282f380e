//! A gateway that follows a control plane: what it is given takes effect here, or is refused and the last good stays.

use std::{
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use anyhow::{Context, Result};
use outgate_config::Config;
use outgate_control::sessions::{
    DenyEntry, DenyTarget, DenylistSnapshot, EndedSession, KillSwitch, Sessions,
};
use outgate_fleet::{
    Denylist, Fact, FollowConfig, Follower, Restored, StatePart, StateSink, Target,
};
use outgate_native::state::StatePaths;
use outgate_plane::{AnomalyObserver, clock};
use outgate_session::FollowedKeys;

use super::core::Core;
use crate::commands::files::read;

/// Takes the parts of the state over, before and after there is a gateway to give them to.
pub(super) struct Held {
    keys: FollowedKeys,
    sessions: Arc<Sessions>,
    core: OnceLock<Weak<Core>>,
    /// The policy that came before there was a gateway.
    early: Mutex<Option<Arc<str>>>,
}

impl Held {
    pub(super) fn new(keys: FollowedKeys, sessions: Arc<Sessions>) -> Self {
        Self {
            keys,
            sessions,
            core: OnceLock::new(),
            early: Mutex::default(),
        }
    }

    /// From here on, policies take effect in this gateway.
    pub(super) fn belongs_to(&self, core: &Arc<Core>) {
        let _ = self.core.set(Arc::downgrade(core));
    }

    /// Puts what was last verified in force: gives the configuration to start with, and the document it is made of.
    pub(super) fn restore(
        &self,
        follower: &Follower,
        config: Config,
        file: &Path,
    ) -> (Config, Option<Arc<str>>) {
        match follower.restore() {
            Ok(Restored::Nothing) => {
                tracing::info!("nothing is let out until the control plane is heard");
            }
            Ok(Restored::LastState { age, refused }) => tracing::info!(
                age_seconds = age.map(|age| age.as_secs()),
                ?refused,
                "the last state of the control plane is in force"
            ),
            Err(error) => tracing::error!(
                code = "last_state_unusable",
                %error,
                "nothing is let out until the control plane is heard"
            ),
        }
        let document = self
            .early
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(document) = document else {
            return (config, None);
        };
        match Config::load_following(file, &document) {
            Ok(config) => (config, Some(document)),
            Err(problems) => {
                tracing::error!(
                    "the last policy of the control plane does not load here\n{problems}"
                );
                (config, None)
            }
        }
    }

    fn take_policy(&self, text: &Arc<str>) -> Result<(), String> {
        let Some(core) = self.core.get() else {
            *self.early.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(text));
            return Ok(());
        };
        let core = core.upgrade().ok_or("the gateway is stopping")?;
        core.take_document(text)
            .map_err(|error| format!("{error:#}"))?;
        tracing::info!("the control plane's policy is in force");
        Ok(())
    }
}

impl StateSink for Held {
    fn apply(&self, part: StatePart<'_>) -> Result<(), String> {
        match part {
            StatePart::Policy(document) => self.take_policy(&document.text),
            StatePart::Keys(text) => {
                let keys = serde_json::from_str(text).map_err(|error| error.to_string())?;
                self.keys.replace(&keys).map_err(str::to_owned)
            }
            StatePart::Denylist(denylist) => {
                self.sessions.apply(&snapshot(denylist));
                Ok(())
            }
        }
    }
}

/// The follower of the control plane that the file names, if it names one.
pub(super) fn follower(
    config: &Config,
    state: &StatePaths,
    held: Arc<Held>,
) -> Result<Option<Arc<Follower>>> {
    let Some(control) = &config.control else {
        return Ok(None);
    };
    let follow = FollowConfig {
        url: control.url.as_str().to_owned(),
        ca: read(&control.ca)?.to_vec(),
        certificate: read(&control.tls.certificate)?.to_vec(),
        key: read(&control.tls.key)?,
        last_state: Some(state.last_state()),
    };
    let follower = Follower::new(follow, held, clock::machine()).context("control")?;
    Ok(Some(Arc::new(follower)))
}

/// Has the denylist count as recent only while the control plane is heard often enough.
pub(super) fn judge_freshness(
    config: &Config,
    follower: Option<&Arc<Follower>>,
    sessions: &Sessions,
) {
    if let (Some(control), Some(follower)) = (&config.control, follower) {
        let (heard, bound) = (follower.freshness(), control.max_staleness);
        sessions.fresh_while(move || heard.is_within(bound));
    }
}

/// Tells the control plane of anomalies.
pub(super) fn report_to(follower: &Arc<Follower>) -> AnomalyObserver {
    let reporter = follower.reporter();
    Box::new(move |anomaly| reporter.report(anomaly.clone()))
}

fn snapshot(denylist: &Denylist) -> DenylistSnapshot {
    let mut snapshot = DenylistSnapshot::default();
    for fact in denylist.facts() {
        match fact {
            Fact::KillSwitch { since, by, reason } => {
                snapshot.kill = Some(KillSwitch {
                    since: since.0,
                    by: by.to_string(),
                    reason: reason.to_string(),
                });
            }
            Fact::Ended { session, how } => snapshot.ended.push(EndedSession {
                id: session.clone(),
                cause: *how,
            }),
            Fact::Denied {
                target,
                reason,
                by,
                at,
                until,
            } => snapshot.denied.push(DenyEntry {
                target: deny_target(target),
                reason: reason.to_string(),
                by: by.to_string(),
                at: at.0,
                until: until.map(|until| until.0),
            }),
            Fact::Limits { session, limits } => snapshot.limits.push((session.clone(), *limits)),
        }
    }
    snapshot
}

fn deny_target(target: &Target) -> DenyTarget {
    match target {
        Target::Session(session) => DenyTarget::Session(session.clone()),
        Target::Token(token) => DenyTarget::Token(token.to_string()),
        Target::Subject { issuer, subject } => DenyTarget::Subject {
            issuer: issuer.to_string(),
            subject: subject.to_string(),
        },
    }
}
