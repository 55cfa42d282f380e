//! One test's surroundings: upstreams, a DNS server, a gateway that keeps nothing, one session and its sockets.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use outgate_config::Config;
use outgate_journey::{
    denial::DenyCode,
    record::{DecisionRecord, Ending, Entry, Verdict},
    session::SessionId,
};
use outgate_native::{
    arrival::OwnSession,
    gateway::{Attribution, AuditPlace, InMemoryGateway, SessionSockets},
    names::NameSockets,
};
use outgate_testkit::{
    Channel, DnsAnswer, DnsServer, Guest, Origin, OriginOptions, Outcome, Req, TestCa, TlsOptions,
    certs::roots_from_pem, eventually, guest::TlsTunnel, h1::H1,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// The credential of `a.test`.
pub(crate) const K1: &str = "k1-live-Q7f3vN0pXz2LrT8wYb5e";
/// The credential of `b.test`.
pub(crate) const K2: &str = "k2-live-mH6dJ9sRcV1uKq4gWx3a";

/// An address that a guest dials; nobody is there but the gateway.
pub(crate) const ANYWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Another one.
pub(crate) const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Names in the DNS server and in the TLS upstream's certificate.
const NAMES: &[&str] = &[
    "a.test",
    "b.test",
    "n.test",
    "pass.test",
    "tlsonly.test",
    "optional.test",
    "rules.test",
    "x.test",
    "sub.a.test",
    "one.wild.test",
    "two.one.wild.test",
    "wild.test",
    "xwild.test",
    "closed.test",
];

/// The ways into a captured connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Clear,
    TlsH1,
    TlsH2,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Clear, Self::TlsH1, Self::TlsH2];
    pub(crate) const TLS: [Self; 2] = [Self::TlsH1, Self::TlsH2];
    /// Of its requests.
    pub(crate) fn entry(self) -> Entry {
        match self {
            Self::Clear => Entry::TransparentPlain,
            Self::TlsH1 | Self::TlsH2 => Entry::Bumped,
        }
    }
}

/// Ports that the config needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) tls: u16,
    pub(crate) clear: u16,
}

/// An upstream's listener on `127.0.0.1`, and the sockets that capture its port at every other address.
pub(crate) async fn captured_port() -> (TcpListener, Vec<TcpListener>) {
    loop {
        let upstream = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = upstream.local_addr().expect("bound").port();
        let (first, second) = tokio::join!(
            TcpListener::bind((ANYWHERE, port)),
            TcpListener::bind((ELSEWHERE, port))
        );
        if let (Ok(first), Ok(second)) = (first, second) {
            return (upstream, vec![first, second]);
        }
    }
}

/// What a test does to the usual config.
type ConfigChange = Box<dyn FnOnce(&mut Value, Ports)>;

/// What a test does to the usual world.
pub(crate) struct Setup {
    pub(crate) attribution: Attribution,
    pub(crate) config: ConfigChange,
    /// Further sockets that capture.
    pub(crate) capturing: Vec<TcpListener>,
    /// Whether the gateway is told which of the sockets are in its own network.
    pub(crate) knows_its_sockets: bool,
    /// How many records the trail may have.
    pub(crate) most_records: u64,
}

impl Setup {
    pub(crate) fn new(attribution: Attribution) -> Self {
        Self {
            attribution,
            config: Box::new(|_, _| {}),
            capturing: Vec::new(),
            knows_its_sockets: false,
            most_records: u64::MAX,
        }
    }

    pub(crate) fn config(mut self, change: impl FnOnce(&mut Value, Ports) + 'static) -> Self {
        self.config = Box::new(change);
        self
    }
}

pub(crate) struct World {
    pub(crate) gateway: InMemoryGateway,
    pub(crate) session: Arc<OwnSession>,
    pub(crate) tls: Origin,
    pub(crate) clear: Origin,
    pub(crate) dns: DnsServer,
    /// Of the explicit proxy.
    pub(crate) proxy: Guest,
    /// Of the name server over UDP, at any loopback address.
    pub(crate) names: u16,
    pub(crate) names_v6: u16,
    /// Of the name server over TCP.
    pub(crate) names_tcp: SocketAddr,
    records: Arc<Mutex<Vec<DecisionRecord>>>,
    /// What the gateway was started with.
    config: Value,
    /// Dropped last: the audit trail is in it.
    folder: TempDir,
}

/// How much had happened at some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    records: usize,
    requests: usize,
    connections: u64,
    queries: usize,
}

impl World {
    pub(crate) async fn new(attribution: Attribution) -> Self {
        Self::with(Setup::new(attribution)).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let ca = TestCa::new("the upstreams' CA");
        let (tls, mut transparent) = captured_port().await;
        let (clear, more) = captured_port().await;
        transparent.extend(more);
        transparent.extend(setup.capturing);
        let tls = Origin::serve(tls, &ca, OriginOptions::tls(NAMES));
        let clear = Origin::serve(clear, &ca, OriginOptions::plain());
        let here = || DnsAnswer::address("127.0.0.1");
        let dns = DnsServer::start(NAMES.iter().map(|name| (*name, here()))).await;
        let folder = tempfile::tempdir().expect("a temp folder");
        let ports = Ports {
            tls: tls.port(),
            clear: clear.port(),
        };
        let mut config = usual_config(ports, dns.address());
        (setup.config)(&mut config, ports);
        write_files(folder.path(), ca.pem());
        let parsed = parse(&config, folder.path());

        let proxy = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let udp = UdpSocket::bind("0.0.0.0:0").await.expect("a port");
        let udp_v6 = UdpSocket::bind("[::]:0").await.expect("a port");
        let tcp = TcpListener::bind((ELSEWHERE, 0)).await.expect("a port");
        let mut own: Vec<SocketAddr> = vec![proxy.local_addr().expect("bound")];
        if setup.knows_its_sockets {
            own.extend(
                transparent
                    .iter()
                    .filter_map(|socket| socket.local_addr().ok()),
            );
        }
        let records: Arc<Mutex<Vec<DecisionRecord>>> = Arc::default();
        let seen = Arc::clone(&records);
        let observer = Box::new(move |record: &DecisionRecord| {
            seen.lock().expect("no panic holds it").push(record.clone());
        });
        let audit = AuditPlace {
            folder: folder.path().join("audit"),
            most_records: setup.most_records,
        };
        let gateway = InMemoryGateway::start(parsed, audit, &own, observer).expect("a gateway");
        let session = gateway
            .begin_session(BTreeMap::new())
            .await
            .expect("a session");
        let roots = roots_from_pem(gateway.ca_certificate().into_iter().chain([ca.pem()]));
        let world = Self {
            proxy: Guest::new(own[0], roots),
            names: udp.local_addr().expect("bound").port(),
            names_v6: udp_v6.local_addr().expect("bound").port(),
            names_tcp: tcp.local_addr().expect("bound"),
            session: Arc::clone(&session),
            tls,
            clear,
            dns,
            records,
            config,
            folder,
            gateway,
        };
        let sockets = SessionSockets {
            proxy: vec![proxy],
            transparent,
            names: NameSockets {
                udp: vec![udp, udp_v6],
                tcp: vec![tcp],
            },
        };
        world
            .gateway
            .serve_session(sockets, &session, setup.attribution);
        world
    }

    /// The gateway's configuration with this change.
    pub(crate) fn changed(&self, change: impl FnOnce(&mut Value)) -> Config {
        let mut config = self.config.clone();
        change(&mut config);
        parse(&config, self.folder.path())
    }

    /// The session's token of this moment.
    pub(crate) fn token(&self) -> String {
        self.session.token().expose().to_owned()
    }

    /// A token of another session of the same gateway.
    pub(crate) async fn foreign_token(&self) -> (SessionId, String) {
        let other = self.gateway.begin_session(BTreeMap::new()).await;
        let other = other.expect("a session");
        (other.id().clone(), other.token().expose().to_owned())
    }

    /// A GET for `host` on the port that this way speaks to.
    pub(crate) fn get(&self, way: Way, host: &str, path: &str) -> Req {
        Req::get(host, self.origin(way).port(), path)
    }

    pub(crate) fn origin(&self, way: Way) -> &Origin {
        match way {
            Way::Clear => &self.clear,
            Way::TlsH1 | Way::TlsH2 => &self.tls,
        }
    }

    /// Dials an address that is not the upstream's.
    pub(crate) async fn dial(&self, address: Ipv4Addr, port: u16) -> TcpStream {
        let stream = TcpStream::connect((address, port)).await.expect("captured");
        stream.set_nodelay(true).expect("a socket");
        stream
    }

    /// Dials, and shakes hands for the name.
    pub(crate) async fn handshake(&self, way: Way, name: &str) -> Result<TlsTunnel, Outcome> {
        let alpn = if way == Way::TlsH2 { "h2" } else { "http/1.1" };
        let stream = self.dial(ANYWHERE, self.tls.port()).await;
        self.proxy
            .handshake(stream, &TlsOptions::new(name, alpn))
            .await
    }

    /// Opens a captured connection for requests like `req`.
    pub(crate) async fn open(&self, way: Way, req: &Req) -> Result<Channel, Outcome> {
        if way == Way::Clear {
            let stream = self.dial(ANYWHERE, self.clear.port()).await;
            return Ok(Channel::H1 {
                stream: H1::new(Box::new(stream)),
                absolute: false,
                proxy_field: None,
            });
        }
        let io = self
            .handshake(way, req.sni.as_ref().unwrap_or(&req.host))
            .await?
            .io;
        match way {
            Way::TlsH2 => Channel::h2(io).await.map_err(Outcome::Closed),
            _ => Ok(Channel::h1_in_tunnel(io)),
        }
    }

    /// Opens a captured connection, sends one request and reads its answer.
    pub(crate) async fn send(&self, way: Way, req: &Req) -> Outcome {
        match self.open(way, req).await {
            Ok(mut channel) => channel.send(req).await,
            Err(outcome) => outcome,
        }
    }

    /// Asks the name server at some address; a client that is connected takes no answer from another one.
    pub(crate) async fn ask_at(&self, server: IpAddr, packet: &[u8]) -> Option<Vec<u8>> {
        let (from, port) = match server {
            IpAddr::V4(_) => ("127.0.0.1:0", self.names),
            IpAddr::V6(_) => ("[::1]:0", self.names_v6),
        };
        let socket = UdpSocket::bind(from).await.expect("a port");
        socket.connect((server, port)).await.expect("loopback");
        socket.send(packet).await.expect("sent");
        let mut buffer = vec![0; 4096];
        let read = tokio::time::timeout(SECOND, socket.recv(&mut buffer)).await;
        let length = read.ok()?.expect("an answer");
        buffer.truncate(length);
        Some(buffer)
    }

    pub(crate) async fn ask(&self, packet: &[u8]) -> Option<Vec<u8>> {
        self.ask_at(ELSEWHERE.into(), packet).await
    }

    /// Asks over TCP, on a connection of its own.
    pub(crate) async fn ask_over_tcp(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(self.names_tcp).await.expect("listening");
        stream.write_all(&framed(packet)).await.expect("sent");
        read_framed(&mut stream).await
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark {
            records: self.records.lock().expect("no panic holds it").len(),
            requests: self.tls.count() + self.clear.count(),
            connections: self.tls.connections() + self.clear.connections(),
            queries: self.dns.queries().len(),
        }
    }

    pub(crate) fn records_since(&self, mark: Mark) -> Vec<DecisionRecord> {
        self.records.lock().expect("no panic holds it")[mark.records..].to_vec()
    }

    /// The record since `mark` that `wanted` accepts, as soon as there is one; there must not be two.
    pub(crate) async fn record(
        &self,
        mark: Mark,
        what: &str,
        wanted: impl Fn(&DecisionRecord) -> bool,
    ) -> DecisionRecord {
        let found = eventually(3 * SECOND, || {
            let mut records = self.records_since(mark);
            records.retain(&wanted);
            (!records.is_empty()).then_some(records)
        });
        match found.await.as_deref() {
            Some([one]) => one.clone(),
            other => panic!(
                "{what}: not one record but {other:#?} of {:#?}",
                self.records_since(mark)
            ),
        }
    }

    /// The one record since `mark` of a refusal of this kind.
    pub(crate) async fn refusal(
        &self,
        mark: Mark,
        entry: Entry,
        code: DenyCode,
        context: &str,
    ) -> DecisionRecord {
        let what = format!("{context}: {code} on {}", entry.as_str());
        self.record(mark, &what, |record| {
            record.entry == entry && record.verdict == Verdict::Denied(code)
        })
        .await
    }

    /// Panics unless the answer denies with this code, its record says so, and nothing was sent.
    pub(crate) async fn assert_denied(
        &self,
        mark: Mark,
        outcome: &Outcome,
        entry: Entry,
        code: DenyCode,
        context: &str,
    ) {
        assert_eq!(
            outcome.reason(),
            Some(code.as_str()),
            "{context}: {outcome:?}"
        );
        self.refusal(mark, entry, code, context).await;
        self.assert_nothing_sent(mark, context);
    }

    #[track_caller]
    pub(crate) fn assert_nothing_sent(&self, mark: Mark, context: &str) {
        assert_eq!(
            self.mark().requests,
            mark.requests,
            "{context}: an upstream saw a request"
        );
    }

    #[track_caller]
    pub(crate) fn assert_nothing_dialled(&self, mark: Mark, context: &str) {
        assert_eq!(
            self.mark().connections,
            mark.connections,
            "{context}: an upstream was dialled"
        );
    }

    #[track_caller]
    pub(crate) fn assert_nothing_looked_up(&self, mark: Mark, context: &str) {
        assert_eq!(
            self.mark().queries,
            mark.queries,
            "{context}: {:?}",
            self.dns.queries()
        );
    }

    /// Panics if any upstream ever saw `secret`, in any spelling.
    #[track_caller]
    pub(crate) fn assert_no_upstream_saw(&self, secret: &str) {
        for seen in self.tls.seen().iter().chain(&self.clear.seen()) {
            assert!(!seen.mentions(secret), "an upstream saw it: {seen:?}");
        }
    }

    pub(crate) async fn end_session(&self) {
        let ended = self.gateway.end_session(&self.session).await;
        ended.expect("a session");
    }

    /// Stops the gateway and searches what it wrote: every record of this world is there, and no secret is.
    pub(crate) async fn finish(self) {
        let token = self.token();
        let signature = token.rsplit('.').next().expect("three parts");
        self.gateway.stop().await.expect("the records are on disk");
        let trail = std::fs::read_to_string(self.gateway.audit_file()).expect("a trail");
        for secret in [K1, K2, &token, signature] {
            assert!(!trail.contains(secret), "the audit trail holds a secret");
        }
        for record in &*self.records.lock().expect("no panic holds it") {
            assert!(
                trail.contains(&record.request_id),
                "not on disk: {record:?}"
            );
            assert!(
                record.verdict != Verdict::Denied(DenyCode::InternalFault),
                "a fault: {record:?}"
            );
        }
    }
}

/// A DNS message behind its length.
pub(crate) fn framed(packet: &[u8]) -> Vec<u8> {
    let mut out = (packet.len() as u16).to_be_bytes().to_vec();
    out.extend_from_slice(packet);
    out
}

/// The next DNS message; `None` at the end.
pub(crate) async fn read_framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let reading = async {
        let length = stream.read_u16().await.ok()?;
        let mut message = vec![0; usize::from(length)];
        stream.read_exact(&mut message).await.ok()?;
        Some(message)
    };
    tokio::time::timeout(2 * SECOND, reading)
        .await
        .expect("an answer or an end")
}

/// Whether an allowed exchange was cut because its session had ended.
pub(crate) fn was_cut(record: &DecisionRecord) -> bool {
    record.ending == Ending::Cut(DenyCode::SessionRevoked)
}

fn parse(config: &Value, folder: &Path) -> Config {
    Config::parse("test.json", &config.to_string(), folder)
        .unwrap_or_else(|problems| panic!("{problems}"))
}

fn write_files(folder: &Path, ca: &str) {
    use std::os::unix::fs::PermissionsExt;
    for (name, text) in [("upstream-ca.pem", ca), ("k1", K1), ("k2", K2)] {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("space");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("own file");
    }
}

fn usual_config(ports: Ports, dns: SocketAddr) -> Value {
    let both = json!([ports.tls, ports.clear]);
    let tls = json!([ports.tls]);
    let k1_even_in_clear =
        json!({ "credential": "k1", "header": "x-api-key", "over_plaintext": true });
    json!({
        "version": 1,
        "listen": { "proxy": "127.0.0.1:0" },
        "credentials": { "k1": { "from": { "file": "k1" } }, "k2": { "from": { "file": "k2" } } },
        "destinations": [
            { "host": "a.test", "ports": both, "plaintext": true, "inject": k1_even_in_clear },
            { "host": "b.test", "ports": both, "plaintext": true,
              "inject": { "credential": "k2", "header": "authorization" } },
            { "host": "n.test", "ports": both, "plaintext": true, "posture": "bump" },
            { "host": "pass.test", "ports": tls },
            { "host": "tlsonly.test", "ports": both, "posture": "bump" },
            { "host": "optional.test", "ports": both, "plaintext": true, "token": "optional",
              "inject": k1_even_in_clear },
            { "host": "rules.test", "ports": both, "plaintext": true, "posture": "bump",
              "allow": [{ "methods": ["GET"], "paths": ["/v1/**"] }] },
            { "host": "*.wild.test", "ports": both, "plaintext": true, "posture": "bump" },
            { "host": "closed.test", "ports": both, "posture": "deny-all" },
        ],
        "resolver": {
            "servers": [dns.to_string()],
            "allow": ["127.0.0.1/32"],
        },
        "upstream": { "roots": "none", "extra_roots": ["upstream-ca.pem"] },
        "timeouts": { "connect": "2s", "drain": "100ms" },
    })
}
