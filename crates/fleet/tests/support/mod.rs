//! A control plane and gateways on real sockets with real certificates, and a network between them that can stop.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a harness that cannot do its part fails the test it serves"
)]

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use outgate_clock::{Clock, GuardedClock};
use outgate_fleet::{
    AnomalyRecord, Denylist, Fact, FleetServer, FollowConfig, FollowStatus, Follower, Pace,
    PolicyDocument, ServerTls, StatePart, StateSink, StateSource, Target,
};
use outgate_journey::session::{SessionEnd, SessionId, UnixSeconds};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// How long a test waits for what is to come; generous, since the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The heartbeat and the back-off are shortened so that a test of a reconnection is short; silence is not.
pub fn quick() -> Pace {
    Pace {
        heartbeat: Duration::from_millis(200),
        back_off: Duration::from_millis(300),
        keep_heard: Duration::from_millis(200),
        ..Pace::default()
    }
}

pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

#[derive(Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum For {
    Server,
    Gateway,
    ExpiredGateway,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub fn issue(&self, purpose: For, names: &[&str]) -> Identity {
        let (uris, hosts): (Vec<&str>, Vec<&str>) =
            names.iter().partition(|name| name.contains("://"));
        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        for uri in uris {
            let uri = SanType::URI(uri.try_into().unwrap());
            params.subject_alt_names.push(uri);
        }
        params.extended_key_usages = vec![match purpose {
            For::Server => ExtendedKeyUsagePurpose::ServerAuth,
            For::Gateway | For::ExpiredGateway => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        if purpose == For::ExpiredGateway {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// One CA for both sides, as a small deployment has it.
pub struct World {
    pub ca: Ca,
    pub server: Identity,
    pub gateway: Identity,
}

impl World {
    pub fn new() -> Self {
        let ca = Ca::new();
        Self {
            server: ca.issue(For::Server, &["127.0.0.1", "control.test"]),
            gateway: ca.issue(For::Gateway, &["gw-1"]),
            ca,
        }
    }

    pub fn tls(&self) -> ServerTls {
        ServerTls::from_pem(
            self.server.certificate.as_bytes(),
            self.server.key.as_bytes(),
            self.ca.pem.as_bytes(),
        )
        .unwrap()
    }

    pub fn config(&self, address: SocketAddr) -> FollowConfig {
        self.config_as(address, &self.gateway)
    }

    pub fn config_as(&self, address: SocketAddr, identity: &Identity) -> FollowConfig {
        FollowConfig {
            url: format!("https://{address}"),
            ca: self.ca.pem.clone().into_bytes(),
            certificate: identity.certificate.clone().into_bytes(),
            key: identity.key.clone().into_bytes().into(),
            last_state: None,
        }
    }
}

pub fn id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

pub fn ended(session: &str) -> Fact {
    Fact::Ended {
        session: id(session),
        how: SessionEnd::Ended,
    }
}

pub fn killed() -> Fact {
    Fact::KillSwitch {
        since: UnixSeconds(1),
        by: "eve".into(),
        reason: "fire".into(),
    }
}

pub fn denied(token: &str, reason: &str) -> Fact {
    Fact::Denied {
        target: Target::Token(token.into()),
        reason: reason.into(),
        by: "soar".into(),
        at: UnixSeconds(1),
        until: None,
    }
}

pub const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","kid":"a"}]}"#;

/// What a control plane knows.
pub struct Source {
    state: Mutex<(PolicyDocument, Arc<str>, Denylist)>,
    changed: watch::Sender<u64>,
    pub reports: Mutex<Vec<(String, AnomalyRecord)>>,
}

impl Source {
    pub fn new(number: u64, text: &str) -> Arc<Self> {
        let policy = PolicyDocument {
            number,
            text: text.into(),
        };
        Arc::new(Self {
            state: Mutex::new((policy, KEYS.into(), Denylist::default())),
            changed: watch::Sender::new(0),
            reports: Mutex::default(),
        })
    }

    pub fn set_policy(&self, number: u64, text: &str) {
        self.state.lock().unwrap().0 = PolicyDocument {
            number,
            text: text.into(),
        };
        self.changed.send_modify(|n| *n += 1);
    }

    pub fn set_keys(&self, keys: &str) {
        self.state.lock().unwrap().1 = keys.into();
        self.changed.send_modify(|n| *n += 1);
    }

    pub fn edit(&self, edit: impl FnOnce(&mut Denylist)) {
        edit(&mut self.state.lock().unwrap().2);
        self.changed.send_modify(|n| *n += 1);
    }

    pub fn list(&self) -> Denylist {
        self.state.lock().unwrap().2.clone()
    }
}

impl StateSource for Source {
    fn policy(&self) -> PolicyDocument {
        self.state.lock().unwrap().0.clone()
    }
    fn jwks(&self) -> Arc<str> {
        Arc::clone(&self.state.lock().unwrap().1)
    }
    fn denylist(&self) -> Denylist {
        self.list()
    }
    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
    fn report(&self, gateway: &str, anomaly: AnomalyRecord) {
        let mut reports = self.reports.lock().unwrap();
        reports.push((gateway.to_owned(), anomaly));
    }
}

#[derive(Default, Clone)]
pub struct Seen {
    pub policy: Option<PolicyDocument>,
    pub keys: Option<String>,
    pub list: Option<Denylist>,
    /// The parts, in the order in which they came.
    pub order: Vec<&'static str>,
}

/// A gateway's parts.
pub struct Sink {
    seen: watch::Sender<Seen>,
    /// A policy with this text, and a denylist with the kill switch, are refused while it is set.
    pub picky: Mutex<Option<&'static str>>,
    pub slow: Mutex<Duration>,
}

impl Sink {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            seen: watch::Sender::new(Seen::default()),
            picky: Mutex::default(),
            slow: Mutex::default(),
        })
    }

    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until what was applied is as wanted; fails the test if it never is.
    pub async fn until(&self, what: &str, wanted: impl FnMut(&Seen) -> bool) -> Duration {
        let began = Instant::now();
        let mut seen = self.seen.subscribe();
        let waited = tokio::time::timeout(PATIENCE, seen.wait_for(wanted)).await;
        assert!(waited.is_ok(), "waited in vain until {what}");
        began.elapsed()
    }
}

impl StateSink for Sink {
    fn apply(&self, part: StatePart<'_>) -> Result<(), String> {
        std::thread::sleep(*self.slow.lock().unwrap());
        if let Some(text) = *self.picky.lock().unwrap() {
            let refused = match part {
                StatePart::Policy(policy) => &*policy.text == text,
                StatePart::Denylist(list) => list.facts().any(|fact| *fact == killed()),
                StatePart::Keys(_) => false,
            };
            if refused {
                return Err("it does not load".to_owned());
            }
        }
        self.seen.send_modify(|seen| match part {
            StatePart::Policy(policy) => {
                seen.policy = Some(policy.clone());
                seen.order.push("policy");
            }
            StatePart::Keys(keys) => {
                seen.keys = Some(keys.to_owned());
                seen.order.push("keys");
            }
            StatePart::Denylist(list) => {
                seen.list = Some(list.clone());
                seen.order.push("denylist");
            }
        });
        Ok(())
    }
}

/// A control plane that serves.
pub struct Control {
    pub address: SocketAddr,
    pub server: Arc<FleetServer>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Control {
    pub async fn start(world: &World, source: &Arc<Source>, pace: Pace) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), world, source, pace).await
    }

    pub async fn start_at(
        address: SocketAddr,
        world: &World,
        source: &Arc<Source>,
        pace: Pace,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let server = FleetServer::with_pace(source.clone(), world.tls(), pace).unwrap();
        let server = Arc::new(server);
        let stop = CancellationToken::new();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn({
            let (server, stop) = (server.clone(), stop.clone());
            async move { server.serve(listener, stop).await }
        });
        Self {
            address,
            server,
            stop,
            task,
        }
    }

    pub fn allow(&self, names: &[&str]) {
        let names: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.server.set_gateways(Some(names));
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.task)
            .await
            .expect("it ends soon after it is told to")
            .unwrap();
    }
}

/// A gateway that follows.
pub struct Gateway {
    pub follower: Arc<Follower>,
    pub sink: Arc<Sink>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Gateway {
    pub fn start(config: FollowConfig, pace: Pace) -> Self {
        Self::start_with(config, pace, Sink::new())
    }

    pub fn start_with(config: FollowConfig, pace: Pace, sink: Arc<Sink>) -> Self {
        let mut gateway = Self::ready(config, pace, sink, machine_clock());
        gateway.follow();
        gateway
    }

    pub fn ready(config: FollowConfig, pace: Pace, sink: Arc<Sink>, clock: Arc<dyn Clock>) -> Self {
        let follower = Follower::with_pace(config, sink.clone(), clock, pace).unwrap();
        Self {
            follower: Arc::new(follower),
            sink,
            stop: CancellationToken::new(),
            task: None,
        }
    }

    pub fn follow(&mut self) {
        let (follower, stop) = (self.follower.clone(), self.stop.clone());
        self.task = Some(tokio::spawn(async move { follower.follow(stop).await }));
    }

    pub async fn until(
        &self,
        what: &str,
        wanted: impl FnMut(&FollowStatus) -> bool,
    ) -> FollowStatus {
        let mut status = self.follower.status();
        let waited = tokio::time::timeout(PATIENCE, status.wait_for(wanted)).await;
        match waited {
            Ok(status) => status.unwrap().clone(),
            Err(_) => panic!(
                "waited in vain until {what}: {:?}",
                *self.follower.status().borrow()
            ),
        }
    }

    /// Waits until everything is in force.
    pub async fn follows(&self) {
        self.until("it follows", |s| s.connected && s.policy.is_some())
            .await;
    }

    pub async fn stop(self) {
        self.stop.cancel();
        if let Some(task) = self.task {
            tokio::time::timeout(Duration::from_secs(5), task)
                .await
                .expect("it ends soon after it is told to")
                .unwrap();
        }
    }
}

pub fn machine_clock() -> Arc<dyn Clock> {
    Arc::new(GuardedClock::new(UnixSeconds(0)))
}

/// A network that can stop carrying bytes without a word, and can be cut.
pub struct Relay {
    pub address: SocketAddr,
    open: watch::Sender<bool>,
    cut: watch::Sender<u64>,
}

impl Relay {
    pub async fn start(towards: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self {
            address: listener.local_addr().unwrap(),
            open: watch::Sender::new(true),
            cut: watch::Sender::new(0),
        };
        let (open, cut) = (relay.open.subscribe(), relay.cut.subscribe());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (open, mut cut) = (open.clone(), cut.clone());
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(towards).await else {
                        return;
                    };
                    cut.mark_unchanged();
                    let (near, far) = (near.into_split(), far.into_split());
                    tokio::select! {
                        _ = carry(near.0, far.1, open.clone()) => {}
                        _ = carry(far.0, near.1, open) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        relay
    }

    pub fn pause(&self) {
        self.open.send_replace(false);
    }

    pub fn resume(&self) {
        self.open.send_replace(true);
    }

    pub fn cut(&self) {
        self.cut.send_modify(|n| *n += 1);
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut open: watch::Receiver<bool>,
) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let len = from.read(&mut buffer).await?;
        let _ = open.wait_for(|open| *open).await;
        if len == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..len]).await?;
    }
}
