//! The control plane goes away, comes back, or only seems to be there; the gateway is restarted meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what helps a test fails it"
)]

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use outgate_clock::{Clock, FakeClock};
use outgate_fleet::{FollowConfig, LastStateError, Pace, Restored};
use outgate_journey::session::UnixSeconds;
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_comes_back_with_its_counters_at_the_start_is_followed() {
    let world = World::new();
    let source = Source::new(50, "policy 50");
    source.edit(|list| {
        for n in 0..20 {
            list.insert(ended(&format!("s_{n}")));
        }
    });
    let control = Control::start(&world, &source, quick()).await;
    let address = control.address;
    let gateway = Gateway::start(world.config(address), quick());
    gateway.follows().await;
    control.stop().await;
    gateway.until("it is gone", |s| !s.connected).await;
    let before = gateway.follower.freshness().last_heard().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(gateway.follower.freshness().last_heard().unwrap() > before);
    assert_eq!(
        gateway.sink.seen().order.len(),
        3,
        "what was verified stays"
    );

    let source = Source::new(1, "policy 1");
    source.edit(|list| list.insert(ended("another")));
    let control = Control::start_at(address, &world, &source, quick()).await;
    gateway
        .sink
        .until("its policy is there", |seen| {
            seen.policy.as_ref().is_some_and(|p| p.number == 1)
        })
        .await;
    assert_eq!(gateway.sink.seen().list, Some(source.list()));
    assert_eq!(
        gateway.sink.seen().order,
        ["denylist", "keys", "policy", "denylist", "policy"],
        "the keys are the same and were not put in force again"
    );
    gateway.until("it is connected", |s| s.connected).await;
    assert!(
        gateway
            .follower
            .freshness()
            .is_within(Duration::from_secs(2))
    );
    gateway.stop().await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_cut_only_what_is_missing_is_sent() {
    let world = World::new();
    let source = Source::new(1, "policy");
    source.edit(|list| list.insert(ended("s_1")));
    let control = Control::start(&world, &source, quick()).await;
    let relay = Relay::start(control.address).await;
    let gateway = Gateway::start(world.config(relay.address), quick());
    gateway.follows().await;
    for n in 0..3 {
        relay.cut();
        source.edit(|list| list.insert(ended(&format!("during_{n}"))));
        gateway
            .sink
            .until("it is told", |seen| seen.list == Some(source.list()))
            .await;
    }
    gateway.until("it is connected", |s| s.connected).await;
    let order = gateway.sink.seen().order;
    assert_eq!(order[..3], ["denylist", "keys", "policy"]);
    assert!(
        order[3..].iter().all(|part| *part == "denylist"),
        "{order:?}"
    );
    gateway.stop().await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_carries_nothing_is_noticed_and_makes_nothing_fresh() {
    let world = World::new();
    let source = Source::new(1, "policy");
    // The usual pace: it is what the promise is stated for.
    let control = Control::start(&world, &source, Pace::default()).await;
    let relay = Relay::start(control.address).await;
    let gateway = Gateway::start(world.config(relay.address), Pace::default());
    gateway.follows().await;
    let freshness = gateway.follower.freshness();

    relay.pause();
    let paused = Instant::now();
    source.edit(|list| list.insert(ended("s_1")));
    gateway.until("it is noticed", |s| !s.connected).await;
    let noticed = paused.elapsed();
    assert!(noticed < Duration::from_secs(9), "{noticed:?}");
    assert!(
        noticed > Duration::from_secs(2),
        "{noticed:?}: the test paused nothing"
    );
    let age = freshness.last_heard().unwrap();
    assert!(
        age + Duration::from_millis(100) >= noticed,
        "{age:?} {noticed:?}"
    );

    relay.resume();
    gateway
        .sink
        .until("it is told", |seen| seen.list == Some(source.list()))
        .await;
    gateway.until("it is connected", |s| s.connected).await;
    assert!(freshness.is_within(Duration::from_secs(3)));
    gateway.stop().await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_in_good_order_is_renewed_without_a_gap() {
    let world = World::new();
    let source = Source::new(1, "policy");
    let pace = Pace {
        stream_life: Duration::from_millis(300),
        ..quick()
    };
    let control = Control::start(&world, &source, pace).await;
    let gateway = Gateway::start(world.config(control.address), quick());
    gateway.follows().await;
    let status = gateway.follower.status();
    for n in 0..15 {
        source.edit(|list| list.insert(ended(&format!("s_{n}"))));
        gateway
            .sink
            .until("it is told", |seen| seen.list == Some(source.list()))
            .await;
        assert!(status.borrow().problem.is_none());
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    gateway.stop().await;
    control.stop().await;
}

/// A state that was kept by a gateway which then ended.
async fn kept(world: &World, folder: &Path, clock: &Arc<FakeClock>) -> FollowConfig {
    let source = Source::new(9, "policy 9");
    source.edit(|list| list.insert(ended("s_1")));
    let control = Control::start(world, &source, quick()).await;
    let config = config(world, control.address, folder);
    let mut gateway = Gateway::ready(config, quick(), Sink::new(), clock.clone());
    assert_eq!(gateway.follower.restore().unwrap(), Restored::Nothing);
    gateway.follow();
    gateway.follows().await;
    gateway.stop().await;
    let address = control.address;
    control.stop().await;
    self::config(world, address, folder)
}

fn config(world: &World, address: std::net::SocketAddr, folder: &Path) -> FollowConfig {
    FollowConfig {
        last_state: Some(folder.join("control/last.state")),
        ..world.config(address)
    }
}

fn again(config: &FollowConfig) -> FollowConfig {
    FollowConfig {
        url: config.url.clone(),
        ca: config.ca.clone(),
        certificate: config.certificate.clone(),
        key: config.key.clone(),
        last_state: config.last_state.clone(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_the_control_plane_goes_on_with_what_was_last_verified_and_its_age() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let clock = Arc::new(FakeClock::at(UnixSeconds(1_000_000)));
    let config = kept(&world, folder.path(), &clock).await;
    let file = config.last_state.clone().unwrap();
    for (path, mode) in [(file.parent().unwrap(), 0o700), (&file, 0o600)] {
        let bits = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(bits, mode, "{}", path.display());
    }
    let text = fs::read(&file).unwrap();
    let key = world.gateway.key.lines().nth(1).unwrap().as_bytes();
    assert!(!text.windows(key.len()).any(|window| window == key));

    clock.advance(Duration::from_secs(40));
    let gateway = Gateway::ready(again(&config), quick(), Sink::new(), clock.clone());
    let Restored::LastState { age, refused } = gateway.follower.restore().unwrap() else {
        panic!("nothing was kept");
    };
    assert!(refused.is_empty());
    let age = age.unwrap().as_secs();
    assert!((40..=42).contains(&age), "{age}");
    let seen = gateway.sink.seen();
    assert_eq!(seen.order, ["denylist", "keys", "policy"]);
    assert_eq!(&*seen.policy.unwrap().text, "policy 9");
    assert!(seen.list.unwrap().get(&ended("s_1").key()).is_some());
    let freshness = gateway.follower.freshness();
    assert!(freshness.is_within(Duration::from_secs(60)));
    clock.advance(Duration::from_secs(25));
    assert!(!freshness.is_within(Duration::from_secs(60)), "it ages on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_makes_no_kept_denylist_younger() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let clock = Arc::new(FakeClock::at(UnixSeconds(1_000_000)));
    let config = kept(&world, folder.path(), &clock).await;
    clock.advance(Duration::from_secs(3600));
    // The process starts again with its clock a day back, or back to just after the state was kept.
    for wall in [1_000_000 - 86_400, 1_000_001] {
        clock.set_wall(UnixSeconds(wall));
        let restarted: Arc<dyn Clock> = Arc::new(SetBack(clock.clone(), UnixSeconds(wall)));
        let gateway = Gateway::ready(again(&config), quick(), Sink::new(), restarted);
        gateway.follower.restore().unwrap();
        let freshness = gateway.follower.freshness();
        assert!(
            !freshness.is_within(Duration::from_secs(600)),
            "{wall}: {freshness:?}"
        );
    }
}

/// A process that knows no floor: its time to judge by is the wall clock's.
struct SetBack(Arc<FakeClock>, UnixSeconds);

impl Clock for SetBack {
    fn unix(&self) -> UnixSeconds {
        self.1
    }
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
    fn wall_ms(&self) -> u64 {
        self.1.0 * 1000
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_state_that_is_not_as_it_was_written_is_not_used() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let clock = Arc::new(FakeClock::at(UnixSeconds(1_000_000)));
    let config = kept(&world, folder.path(), &clock).await;
    let file = config.last_state.clone().unwrap();
    let whole = fs::read(&file).unwrap();
    let refused = |config: FollowConfig| {
        let gateway = Gateway::ready(config, quick(), Sink::new(), clock.clone());
        let error = gateway.follower.restore().unwrap_err();
        assert!(gateway.sink.seen().order.is_empty());
        assert_eq!(gateway.follower.freshness().last_heard(), None);
        error
    };

    for len in [0, 1, 22, 23, 54, 55, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..len]).unwrap();
        let error = refused(again(&config));
        assert!(
            matches!(error, LastStateError::Damaged { .. }),
            "{len}: {error}"
        );
    }
    for at in (0..whole.len()).step_by(7) {
        let mut edited = whole.clone();
        edited[at] ^= 1;
        fs::write(&file, &edited).unwrap();
        assert!(
            matches!(refused(again(&config)), LastStateError::Damaged { .. }),
            "{at}"
        );
    }
    let mut longer = whole.clone();
    longer.push(0);
    fs::write(&file, &longer).unwrap();
    refused(again(&config));

    fs::write(&file, &whole).unwrap();
    let elsewhere = FollowConfig {
        url: "https://127.0.0.1:1".to_owned(),
        ..again(&config)
    };
    assert!(matches!(refused(elsewhere), LastStateError::Foreign(_)));
    let other_ca = FollowConfig {
        ca: Ca::new().pem.into_bytes(),
        ..again(&config)
    };
    assert!(matches!(refused(other_ca), LastStateError::Foreign(_)));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(refused(again(&config)), LastStateError::State(_)));

    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let gateway = Gateway::ready(config, quick(), Sink::new(), clock.clone());
    gateway
        .follower
        .restore()
        .expect("as it was written it is used");
    assert_eq!(gateway.sink.seen().order.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_of_another_state_makes_nothing_younger() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let clock = Arc::new(FakeClock::at(UnixSeconds(1_000_000)));
    let config = kept(&world, folder.path(), &clock).await;
    let file = config.last_state.clone().unwrap();
    let note = file.with_file_name("last.state.heard");
    let old = fs::read(&file).unwrap();
    clock.advance(Duration::from_secs(500));

    // Another control plane life writes a newer state and a newer note; then the old state is put back.
    let second = tempfile::tempdir().unwrap();
    let newer = kept(&world, second.path(), &clock).await;
    let newer = newer.last_state.unwrap().with_file_name("last.state.heard");
    for text in [
        fs::read(&newer).unwrap_or_default(),
        b"torn".to_vec(),
        Vec::new(),
    ] {
        fs::write(&note, text).unwrap();
        fs::write(&file, &old).unwrap();
        let gateway = Gateway::ready(again(&config), quick(), Sink::new(), clock.clone());
        gateway.follower.restore().unwrap();
        let freshness = gateway.follower.freshness();
        assert!(
            !freshness.is_within(Duration::from_secs(400)),
            "{freshness:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_control_plane_keeps_the_kept_state_young() {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let clock = Arc::new(FakeClock::at(UnixSeconds(1_000_000)));
    let source = Source::new(1, "policy");
    let control = Control::start(&world, &source, quick()).await;
    let config = config(&world, control.address, folder.path());
    let mut gateway = Gateway::ready(again(&config), quick(), Sink::new(), clock.clone());
    gateway.follow();
    gateway.follows().await;
    let file = config.last_state.clone().unwrap();
    let written = async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written)
        .await
        .expect("it is kept");
    // Ten minutes in which the machine's clock moves on, the connection is renewed, and nothing changes.
    clock.advance(Duration::from_secs(600));
    gateway.stop().await;
    let mut gateway = Gateway::ready(again(&config), quick(), Sink::new(), clock.clone());
    gateway.follower.restore().unwrap();
    assert!(
        !gateway
            .follower
            .freshness()
            .is_within(Duration::from_secs(500))
    );
    gateway.follow();
    gateway.until("it is connected", |s| s.connected).await;
    let freshness = gateway.follower.freshness();
    let fresh = async {
        while !freshness.is_within(Duration::from_secs(5)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, fresh)
        .await
        .expect("it is heard of");
    let state = fs::read(&file).unwrap();
    gateway.stop().await;
    assert_eq!(
        fs::read(&file).unwrap(),
        state,
        "the state itself was not written again"
    );
    let gateway = Gateway::ready(again(&config), quick(), Sink::new(), clock.clone());
    gateway.follower.restore().unwrap();
    assert!(
        gateway
            .follower
            .freshness()
            .is_within(Duration::from_secs(5))
    );
    control.stop().await;
}
