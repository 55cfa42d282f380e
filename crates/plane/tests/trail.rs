//! The record of an exchange: written once, whatever becomes of the exchange, and never with a token in it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Method, StatusCode, Version};
use outgate_audit::{AuditKey, AuditLog, AuditOptions, Rotation};
use outgate_config::Config;
use outgate_control::sessions::Sessions;
use outgate_credential::CredentialStore;
use outgate_issuer::Issuers;
use outgate_journey::{
    denial::{Denial, DenyCode},
    record::{DecisionRecord, Ending, Entry, Verdict},
    session::{SessionId, Terms},
};
use outgate_plane::{
    Core, CoreParts, GatewayPlane, Live,
    clock::{machine, unix_now},
    limits::SessionCounters,
    resolver::GatewayResolver,
    tokens::Tokens,
    trail::Trail,
    upstream_tls::UpstreamTls,
};
use outgate_session::KeyRing;
use tempfile::TempDir;

struct World {
    core: Arc<Core>,
    keys: KeyRing,
    records: Arc<Mutex<Vec<DecisionRecord>>>,
    _folder: TempDir,
}

impl World {
    fn new(most_records: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{ "version": 1, "listen": { "proxy": "127.0.0.1:0" },
            "resolver": { "servers": ["127.0.0.1:9"] }, "upstream": { "roots": "bundled" } }"#;
        let config = Config::parse("test.json", text, Path::new("/")).unwrap();
        let keys = KeyRing::in_memory("outgate", "outgate", unix_now()).unwrap();
        let options = AuditOptions {
            clock: machine(),
            key: AuditKey::in_memory().unwrap(),
            rotation: Rotation::NEVER,
        };
        let plane = GatewayPlane {
            tokens: Tokens::new(
                keys.verifier(),
                Issuers::new(Vec::new(), machine()).unwrap(),
            ),
            sessions: Arc::new(Sessions::in_memory(machine())),
            limits: SessionCounters::default(),
            resolver: GatewayResolver::new(&config.resolver).unwrap(),
            credentials: CredentialStore::open(&config.credentials, &[]).0,
            audit: AuditLog::open(&folder.path().join("audit"), options).unwrap(),
        };
        let records: Arc<Mutex<Vec<DecisionRecord>>> = Arc::default();
        let seen = Arc::clone(&records);
        let core = Core::new(CoreParts {
            plane,
            live: Live {
                policy: config.policy.clone(),
                timeouts: config.timeouts,
                upstream_tls: UpstreamTls::new(&config.upstream).unwrap(),
                number: 0,
                ttl: config.sessions.ttl,
            },
            most_records,
            observer: Some(Box::new(move |record| {
                seen.lock().unwrap().push(record.clone());
            })),
            on_anomaly: None,
        });
        Self {
            core: Arc::new(core.unwrap()),
            keys,
            records,
            _folder: folder,
        }
    }

    fn trail(&self) -> Trail {
        let client = "198.51.100.7:40123".parse().unwrap();
        Trail::begin(&self.core, Entry::Bumped, client)
    }

    #[track_caller]
    fn only(&self) -> DecisionRecord {
        let mut records = self.records.lock().unwrap();
        assert_eq!(records.len(), 1, "{records:#?}");
        records.remove(0)
    }
}

#[tokio::test]
async fn a_record_is_written_once_and_says_what_became_of_the_exchange() {
    type Fate = fn(Trail);
    let world = World::new(u64::MAX);
    let fault = Verdict::Denied(DenyCode::InternalFault);
    let refused = Verdict::Denied(DenyCode::PathNotAllowed);
    let rows: [(&str, Fate, Verdict, Ending); 8] = [
        ("forgotten", |_| {}, fault, Ending::Completed),
        (
            "complete, and nothing decided",
            Trail::complete,
            fault,
            Ending::Completed,
        ),
        (
            "allowed and complete",
            |mut trail| {
                trail.allow("rule");
                trail.complete();
            },
            Verdict::Allowed,
            Ending::Completed,
        ),
        (
            "allowed and forgotten",
            |mut trail| trail.allow("rule"),
            Verdict::Allowed,
            Ending::Aborted,
        ),
        (
            "allowed, and its end seen",
            |mut trail| {
                trail.allow("rule");
                trail.ended();
            },
            Verdict::Allowed,
            Ending::Completed,
        ),
        (
            "cut",
            |mut trail| {
                trail.allow("rule");
                trail.cut(DenyCode::PolicyChanged);
            },
            Verdict::Allowed,
            Ending::Cut(DenyCode::PolicyChanged),
        ),
        (
            "refused",
            |mut trail| trail.deny(&DenyCode::PathNotAllowed.into()),
            refused,
            Ending::Completed,
        ),
        (
            "allowed, then refused",
            |mut trail| {
                trail.allow("rule");
                trail.deny(&DenyCode::PathNotAllowed.into());
            },
            refused,
            Ending::Completed,
        ),
    ];
    for (what, fate, verdict, ending) in rows {
        fate(world.trail());
        let record = world.only();
        assert_eq!((record.verdict, record.ending), (verdict, ending), "{what}");
    }
}

#[tokio::test]
async fn what_the_carrying_plane_measured_stands_in_the_record() {
    let world = World::new(u64::MAX);
    let mut trail = world.trail();
    let id = trail.request_id().to_owned();
    trail.allow("rule");
    trail.answer(StatusCode::IM_A_TEAPOT);
    trail.lasted(Duration::from_secs(77));
    trail.meter().count_out(5);
    trail.meter().count_in(7);
    trail.meter().count_in(1);
    trail.complete();
    let record = world.only();
    assert_eq!(record.request_id, id);
    assert_eq!(record.status, Some(418));
    assert_eq!(record.ended_after, Duration::from_secs(77));
    assert_eq!((record.bytes_out, record.bytes_in), (5, 8));
    assert_eq!(record.rule.as_deref(), Some("rule"));
}

#[tokio::test]
async fn no_token_is_recorded_wherever_the_guest_put_it() {
    let world = World::new(u64::MAX);
    let session = SessionId::parse("s-1").unwrap();
    let ttl = Duration::from_secs(60);
    let minted = world
        .keys
        .mint(&session, &Terms::default(), ttl, unix_now());
    let minted = minted.unwrap();
    let token = minted.token.expose();
    let path = format!("/a/{token}/b");
    for (host, path) in [
        (Some(token), "/"),
        (Some("a.test"), &*path),
        (Some(&*path), token),
    ] {
        let mut trail = world.trail();
        trail.note_request(&Method::GET, host, path, Version::HTTP_2);
        drop(trail);
        let text = format!("{:?}", world.only());
        assert!(!text.contains(token), "{text}");
        assert!(text.contains("[session token]"), "{text}");
    }
}

#[tokio::test]
async fn what_is_written_as_long_as_a_guest_likes_is_cut() {
    let world = World::new(u64::MAX);
    let long = format!("/{}", "\u{1F980}".repeat(5000));
    let mut trail = world.trail();
    trail.note_request(&Method::GET, Some(&long), &long, Version::HTTP_11);
    drop(trail);
    let record = world.only();
    assert!(record.host.unwrap().len() <= 255);
    assert!(record.path.unwrap().len() <= 1024);
}

#[tokio::test]
async fn after_the_last_record_that_may_be_written_everything_is_closed() {
    let world = World::new(2);
    drop(world.trail());
    assert!(!world.core.killing.is_cancelled() && !world.core.stopping.is_cancelled());
    let mut trail = world.trail();
    trail.deny(&Denial::new(DenyCode::HostInvalid));
    trail.complete();
    assert!(world.core.killing.is_cancelled() && world.core.stopping.is_cancelled());
    assert_eq!(world.records.lock().unwrap().len(), 2);
}
