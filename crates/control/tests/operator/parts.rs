//! What stands around the interface in these tests: an audit trail, a store and a gateway that fail when told to.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use outgate_control::{
    operator::{
        About, AuditReader, AuditTrail, AuditUnavailable, ClaimsVerifier, DataPlane, GatewayHost,
        WaitsFor,
    },
    sessions::{SessionStore, StoreError},
};
use outgate_journey::{
    record::{ActionRecord, AuditEvent, SessionRecord},
    session::{PolicyName, UnixSeconds},
};
use outgate_store::{Change, OnDenial, Remembered, Steady, StoreFault};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Records in memory.
pub(crate) struct Trail {
    events: Mutex<Vec<AuditEvent>>,
    pub(crate) writable: AtomicBool,
    /// Whether commits fail although the trail looks writable.
    pub(crate) failing: AtomicBool,
    /// Commits of these operations wait for a permit.
    pub(crate) held: Mutex<Option<&'static str>>,
    pub(crate) permits: Semaphore,
    pub(crate) waiting: AtomicU64,
}

impl Default for Trail {
    fn default() -> Self {
        Self {
            events: Mutex::default(),
            writable: AtomicBool::new(true),
            failing: AtomicBool::new(false),
            held: Mutex::default(),
            permits: Semaphore::new(0),
            waiting: AtomicU64::new(0),
        }
    }
}

impl Trail {
    pub(crate) fn actions(&self) -> Vec<ActionRecord> {
        let events = self.events.lock().unwrap();
        let actions = events.iter().filter_map(|event| match event {
            AuditEvent::Action(action) => Some((**action).clone()),
            _ => None,
        });
        actions.collect()
    }

    pub(crate) fn sessions(&self) -> Vec<SessionRecord> {
        let events = self.events.lock().unwrap();
        let sessions = events.iter().filter_map(|event| match event {
            AuditEvent::Session(session) => Some((**session).clone()),
            _ => None,
        });
        sessions.collect()
    }

    /// Everything, as text: no secret may be in it.
    pub(crate) fn text(&self) -> String {
        format!("{:?}", self.events.lock().unwrap())
    }
}

impl AuditTrail for Trail {
    fn is_writable(&self) -> bool {
        self.writable.load(Ordering::SeqCst)
    }

    fn commit(&self, event: AuditEvent) -> BoxFuture<'_, Result<(), AuditUnavailable>> {
        Box::pin(async move {
            let held = *self.held.lock().unwrap();
            if let AuditEvent::Action(action) = &event
                && held == Some(action.operation)
            {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                self.permits.acquire().await.unwrap().forget();
            }
            if self.failing.load(Ordering::SeqCst) || !self.is_writable() {
                return Err(AuditUnavailable);
            }
            self.note(event);
            Ok(())
        })
    }

    fn note(&self, event: AuditEvent) {
        self.events.lock().unwrap().push(event);
    }
}

impl AuditReader for Trail {
    fn verify(&self) -> Result<Value, String> {
        Ok(json!({ "verified": true }))
    }

    fn records(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, String)>, String> {
        let first = after.map_or(0, |after| after + 1);
        let records = (first..5).take(limit);
        Ok(records
            .map(|seq| (seq, format!("{{\"time\":{seq}}}")))
            .collect())
    }
}

/// Remembers nothing, and fails when told to.
#[derive(Default)]
pub(crate) struct FlakyStore {
    pub(crate) failing: AtomicBool,
}

impl SessionStore for FlakyStore {
    fn load(&self, _: OnDenial) -> BoxFuture<'_, Result<Remembered, StoreError>> {
        Box::pin(async { Ok(Remembered::default()) })
    }

    fn commit(&self, _: Change, _: Steady) -> BoxFuture<'static, Result<(), StoreError>> {
        let failing = self.failing.load(Ordering::SeqCst);
        Box::pin(async move {
            if failing {
                let place = Path::new("store");
                return Err(StoreError::new(StoreFault::WriteFailed, place, "full"));
            }
            Ok(())
        })
    }

    fn clock_floor(&self) -> UnixSeconds {
        UnixSeconds(0)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A gateway that has one policy.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) reloads: AtomicU64,
    pub(crate) broken: AtomicBool,
    pub(crate) follows: AtomicBool,
    pub(crate) stopping: AtomicBool,
}

impl GatewayHost for Host {
    fn about(&self) -> About {
        About {
            proxy: vec!["127.0.0.1:8080".parse().unwrap()],
            ca: Some("/state/ca/ca.crt".into()),
            bundle: None,
            token_variables: vec!["ANTHROPIC_API_KEY".to_owned()],
            data_planes: vec![DataPlane {
                client: "envoy-1".to_owned(),
                node: "envoy".to_owned(),
                streams: 1,
                accepted_unix_ms: Some(1_790_000_000_000),
                refused: [("route".to_owned(), "a rule of team-b".to_owned())].into(),
            }],
        }
    }

    fn policy_text(&self) -> Result<String, String> {
        Ok("version: 1\n".to_owned())
    }

    fn has_policy(&self, name: &PolicyName) -> bool {
        name.as_str() == "read-only"
    }

    fn reload(&self) -> Result<(), String> {
        if self.broken.load(Ordering::SeqCst) {
            return Err("line 3: unknown key".to_owned());
        }
        self.reloads.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn issues_sessions(&self) -> bool {
        !self.follows.load(Ordering::SeqCst)
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(1800)
    }

    fn waits_for(&self) -> Vec<WaitsFor> {
        let stopping = self.stopping.load(Ordering::SeqCst);
        stopping
            .then_some([WaitsFor::Stopping, WaitsFor::Audit])
            .into_iter()
            .flatten()
            .collect()
    }
}

/// An identity provider whose only good token is `good.oidc.token`.
pub(crate) struct Provider;

impl ClaimsVerifier for Provider {
    fn verify_claims<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Value, String>> {
        let good = token == "good.oidc.token";
        Box::pin(async move {
            let claims = json!({"sub": "alice", "groups": ["secops"]});
            good.then_some(claims)
                .ok_or_else(|| "not signed by it".to_owned())
        })
    }
}

pub(crate) fn shared<T>(value: T) -> Arc<T> {
    Arc::new(value)
}
