use governor::clock::FakeRelativeClock;
use http::HeaderMap;
use outgate_journey::{
    destination::identify_connect,
    name::HostPattern,
    policy::{DestinationLimits, Port, Posture, SessionLimits, TokenDemand, TunnelProtocol},
    session::{
        Denylist, SessionEnd, Terms, TokenClaims, TokenFault, TokenOrigin, TokenVerifier,
        UnixSeconds, authenticate, check_denylist, presented_to_proxy,
    },
};

use super::*;

/// Takes any text for the token of a session of that name.
struct AnyToken;

impl TokenVerifier for AnyToken {
    fn verify(&self, token: &str, _: UnixSeconds) -> Result<Arc<TokenClaims>, TokenFault> {
        Ok(Arc::new(TokenClaims {
            session: SessionId::parse(token).unwrap(),
            token_id: "t".into(),
            expires: UnixSeconds(u64::MAX),
            terms: Terms::default(),
            origin: TokenOrigin::Own,
        }))
    }
}

impl Denylist for AnyToken {
    fn standing(&self, _: &TokenClaims) -> Result<Option<Arc<SessionLimits>>, SessionEnd> {
        Ok(None)
    }
}

fn session(id: &str) -> Session {
    let mut headers = HeaderMap::new();
    headers.insert("proxy-authorization", id.parse().unwrap());
    let presented = presented_to_proxy(&headers);
    let proof = authenticate(&AnyToken, &presented, UnixSeconds(0)).unwrap();
    check_denylist(&AnyToken, proof.unwrap()).unwrap()
}

const fn rate(events: u32, window_seconds: u32) -> Rate {
    Rate {
        events: NonZeroU32::new(events).unwrap(),
        window_seconds,
    }
}

fn rule(id: &str, requests: Option<Rate>) -> Rule {
    Rule {
        id: RuleId::new(id),
        host: HostPattern::parse("a.test").unwrap(),
        ports: vec![Port::HTTPS],
        posture: Posture::Bump,
        protocol: TunnelProtocol::Tls,
        plaintext: false,
        encrypted_client_hello: false,
        token: TokenDemand::Required,
        requests: Default::default(),
        injection: None,
        limits: DestinationLimits { requests },
        addresses: Default::default(),
    }
}

/// Counters on a clock that stands still until it is advanced.
struct Fixture {
    counters: SessionCounters<FakeRelativeClock>,
    clock: FakeRelativeClock,
    limits: SessionLimits,
    /// What the session was given beside them.
    more: Option<SessionLimits>,
}

impl Fixture {
    fn bounds(&self) -> SessionBounds {
        SessionBounds::of([Some(&self.limits), None, self.more.as_ref(), None])
    }

    fn new(limits: SessionLimits) -> Self {
        let clock = FakeRelativeClock::default();
        Self {
            counters: SessionCounters::with_clock(clock.clone()),
            clock,
            limits,
            more: None,
        }
    }

    fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn request(&self, id: &str) -> Result<(), Exceeded> {
        self.request_under(id, &rule("any", None))
    }

    fn request_under(&self, id: &str, rule: &Rule) -> Result<(), Exceeded> {
        self.counters
            .admit_request(&session(id), rule, &self.bounds())
    }

    fn connect(&self, id: &str, host: &str) -> Result<ConnectionSlot<FakeRelativeClock>, Exceeded> {
        let destination = identify_connect(&format!("{host}:443")).unwrap();
        self.counters
            .admit_connection(&session(id), &destination, &self.bounds())
    }
}

fn requests(rate: Rate) -> Fixture {
    Fixture::new(SessionLimits {
        requests: Some(rate),
        ..SessionLimits::default()
    })
}

fn retry_after(result: Result<(), Exceeded>) -> Option<u64> {
    match result {
        Err(Exceeded::Requests {
            retry_after_seconds,
        }) => Some(retry_after_seconds),
        _ => None,
    }
}

#[test]
fn a_window_may_be_spent_at_once_and_comes_back_evenly() {
    let f = requests(rate(3, 60));
    for _ in 0..3 {
        assert_eq!(f.request("one"), Ok(()));
    }
    assert_eq!(retry_after(f.request("one")), Some(20));
    f.wait(19);
    assert_eq!(retry_after(f.request("one")), Some(1));
    f.wait(1);
    assert_eq!(f.request("one"), Ok(()));
    assert_eq!(retry_after(f.request("one")), Some(20));
    f.wait(600);
    for _ in 0..3 {
        assert_eq!(f.request("one"), Ok(()));
    }
    assert!(f.request("one").is_err());
}

#[test]
fn a_retry_after_the_told_time_succeeds_in_every_window() {
    for (events, window) in [
        (1, 1),
        (7, 60),
        (3, 3600),
        (1000, 60),
        (1, 86_400),
        (7, 86_400),
    ] {
        let f = requests(rate(events, window));
        let refused = (0..=events).find_map(|_| retry_after(f.request("one")));
        let seconds = refused.unwrap();
        assert!(
            seconds >= 1 && seconds <= u64::from(window),
            "{events}/{window}: {seconds}"
        );
        f.wait(seconds);
        assert_eq!(f.request("one"), Ok(()), "{events}/{window}");
    }
}

#[test]
fn one_sessions_use_is_not_anothers() {
    let f = requests(rate(1, 60));
    assert_eq!(f.request("one"), Ok(()));
    assert!(f.request("one").is_err());
    assert_eq!(f.request("two"), Ok(()));
}

#[test]
fn a_rules_own_rate_is_counted_for_each_session_and_rule() {
    let f = Fixture::new(SessionLimits::default());
    let (a, b) = (rule("a", Some(rate(1, 60))), rule("b", Some(rate(2, 60))));
    assert_eq!(f.request_under("one", &a), Ok(()));
    assert_eq!(retry_after(f.request_under("one", &a)), Some(60));
    assert_eq!(f.request_under("one", &b), Ok(()));
    assert_eq!(f.request_under("one", &b), Ok(()));
    assert_eq!(retry_after(f.request_under("one", &b)), Some(30));
    assert_eq!(f.request_under("two", &a), Ok(()));
    assert_eq!(f.request("one"), Ok(()));
}

#[test]
fn the_narrower_of_a_rules_and_the_sessions_rate_decides() {
    let f = requests(rate(2, 60));
    let wide = rule("wide", Some(rate(100, 60)));
    assert_eq!(f.request_under("one", &wide), Ok(()));
    assert_eq!(f.request_under("one", &wide), Ok(()));
    assert_eq!(retry_after(f.request_under("one", &wide)), Some(30));
    // What a rule refuses is not charged to the session.
    let narrow = rule("narrow", Some(rate(1, 3600)));
    f.wait(60);
    assert_eq!(f.request_under("one", &narrow), Ok(()));
    assert_eq!(retry_after(f.request_under("one", &narrow)), Some(3600));
    assert_eq!(f.request("one"), Ok(()));
}

#[test]
fn a_changed_rate_holds_from_the_next_request_and_the_same_one_goes_on() {
    let mut f = requests(rate(1, 3600));
    assert_eq!(f.request("one"), Ok(()));
    assert!(f.request("one").is_err());
    f.limits.requests = Some(rate(2, 60));
    assert_eq!(f.request("one"), Ok(()));
    assert_eq!(f.request("one"), Ok(()));
    f.limits.requests = Some(rate(2, 60));
    assert_eq!(retry_after(f.request("one")), Some(30));

    assert_eq!(
        f.request_under("two", &rule("r", Some(rate(1, 60)))),
        Ok(())
    );
    assert!(
        f.request_under("two", &rule("r", Some(rate(1, 60))))
            .is_err()
    );
    assert_eq!(
        f.request_under("two", &rule("r", Some(rate(2, 60)))),
        Ok(())
    );
}

#[test]
fn new_connections_have_their_rate() {
    let f = Fixture::new(SessionLimits {
        connections: Some(rate(2, 60)),
        ..SessionLimits::default()
    });
    assert!(f.connect("one", "a.test").is_ok());
    assert!(f.connect("one", "a.test").is_ok());
    // Closing gives nothing back: it is new ones that are counted.
    assert_eq!(
        f.connect("one", "a.test").err(),
        Some(Exceeded::Connections)
    );
    assert!(f.connect("two", "a.test").is_ok());
    f.wait(30);
    assert!(f.connect("one", "a.test").is_ok());
}

#[test]
fn an_open_connections_slot_is_given_back_when_it_closes() {
    let f = Fixture::new(SessionLimits {
        concurrent_connections: Some(2),
        ..SessionLimits::default()
    });
    let first = f.connect("one", "a.test").ok().unwrap();
    let second = f.connect("one", "b.test").ok().unwrap();
    // Refused ones take no slot with them.
    for _ in 0..5 {
        assert_eq!(
            f.connect("one", "a.test").err(),
            Some(Exceeded::Connections)
        );
    }
    assert!(f.connect("two", "a.test").is_ok());
    drop(first);
    let third = f.connect("one", "a.test");
    assert!(third.is_ok());
    assert!(f.connect("one", "a.test").is_err());
    drop((second, third));
    assert_eq!(
        f.counters
            .of(session("one").id())
            .open_connections
            .load(Ordering::Relaxed),
        0
    );
}

#[test]
fn distinct_hosts_are_counted_once_and_only_when_they_were_let_through() {
    let mut f = Fixture::new(SessionLimits {
        distinct_destinations: Some(2),
        ..SessionLimits::default()
    });
    for host in ["a.test", "b.test", "A.test", "a.test"] {
        assert!(f.connect("one", host).is_ok(), "{host}");
    }
    for host in ["c.test", "d.test", "c.test"] {
        let refused = f.connect("one", host).err();
        assert_eq!(refused, Some(Exceeded::DistinctDestinations), "{host}");
    }
    assert!(f.connect("one", "b.test").is_ok());
    assert!(f.connect("two", "c.test").is_ok());

    // A connection that another limit refuses uses up no host.
    f.limits.concurrent_connections = Some(0);
    for host in ["c.test", "d.test", "e.test"] {
        assert_eq!(f.connect("three", host).err(), Some(Exceeded::Connections));
    }
    f.limits.concurrent_connections = None;
    assert!(f.connect("three", "f.test").is_ok());
    assert!(f.connect("three", "g.test").is_ok());
}

#[test]
fn a_connection_that_is_refused_for_its_host_uses_up_no_rate() {
    let f = Fixture::new(SessionLimits {
        connections: Some(rate(2, 60)),
        distinct_destinations: Some(1),
        ..SessionLimits::default()
    });
    assert!(f.connect("one", "a.test").is_ok());
    for _ in 0..3 {
        let refused = f.connect("one", "b.test").err();
        assert_eq!(refused, Some(Exceeded::DistinctDestinations));
    }
    assert!(f.connect("one", "a.test").is_ok());
}

#[test]
fn bytes_are_charged_to_the_last_one_and_then_requests_stop() {
    let f = Fixture::new(SessionLimits {
        bytes_out: Some(100),
        ..SessionLimits::default()
    });
    let used = f.counters.of(session("one").id());
    assert!(used.charge(99, Some(100)));
    assert_eq!(f.request("one"), Ok(()));
    assert!(used.charge(1, Some(100)));
    assert_eq!(f.request("one"), Err(Exceeded::BytesOut));
    assert!(!used.charge(1, Some(100)));
    assert!(used.charge(1_000_000, None));
    assert!(!used.charge(0, Some(100)));
    assert_eq!(f.request("two"), Ok(()));
}

#[test]
fn a_session_is_forgotten_after_a_day_without_use_and_not_while_a_connection_is_open() {
    let f = Fixture::new(SessionLimits {
        bytes_out: Some(1),
        ..SessionLimits::default()
    });
    for id in ["idle", "asking", "open"] {
        f.counters.of(session(id).id()).charge(1, None);
    }
    let slot = f.connect("open", "a.test").ok().unwrap();
    for hour in 0..FORGET_AFTER_SWEEPS {
        assert_eq!(f.request("asking"), Err(Exceeded::BytesOut), "{hour}");
        f.counters.sweep();
    }
    assert!(f.counters.uses.contains_key(session("idle").id()));
    f.counters.sweep();
    let known: Vec<bool> = ["idle", "asking", "open"]
        .iter()
        .map(|id| f.counters.uses.contains_key(session(id).id()))
        .collect();
    assert_eq!(known, [false, true, true]);
    assert_eq!(f.request("idle"), Ok(()));
    drop(slot);
}

#[test]
fn every_rate_that_bounds_a_session_holds_and_one_that_is_set_twice_counts_once() {
    let mut f = requests(rate(10, 60));
    f.more = Some(SessionLimits {
        requests: Some(rate(3, 3600)),
        ..SessionLimits::default()
    });
    assert!((0..3).all(|_| f.request("a").is_ok()));
    assert!(f.request("a").is_err(), "the narrower one is used up");
    f.more = Some(SessionLimits {
        requests: Some(rate(10, 60)),
        ..SessionLimits::default()
    });
    assert!(
        (0..10).all(|_| f.request("b").is_ok()),
        "asked twice, counted once"
    );
    assert!(f.request("b").is_err());
}
