//! A real TLS receiver on loopback that does what it is told, a trail in memory, and the log of the process.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "shared by tests, each of which uses a part of it"
)]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use outgate_clock::{Clock, GuardedClock};
use outgate_export::{
    ExportConfig, ExportStatus, Exporter, Target, TrailFault, TrailReader, TrailRecord, TrailStart,
    Tuning,
};
use outgate_journey::session::UnixSeconds;
use outgate_testkit::{CertificateKind, TestCa};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

pub const LOG_ID: &str = "000102030405060708090a0b0c0d0e0f";

/// Times at which tests do not get old.
pub fn quick() -> Tuning {
    Tuning {
        poll: Duration::from_millis(10),
        timeout: Duration::from_millis(400),
        first_retry: Duration::from_millis(20),
        longest_retry: Duration::from_millis(80),
        slow_retry: Duration::from_millis(200),
        behind_after: Duration::from_millis(250),
        ..Tuning::default()
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Got {
    pub at: Instant,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The sequence numbers in it, in either form.
    pub fn seqs(&self) -> Vec<u64> {
        let json = self.json();
        if let Some(records) = json["records"].as_array() {
            return records
                .iter()
                .map(|record| record["seq"].as_u64().unwrap())
                .collect();
        }
        let records = &json["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
        let seq = |record: &Value| {
            let attributes = record["attributes"].as_array().unwrap();
            let found = attributes
                .iter()
                .find(|pair| pair["key"] == "outgate.audit.seq");
            found.unwrap()["value"]["intValue"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap()
        };
        records.as_array().unwrap().iter().map(seq).collect()
    }
}

/// What the receiver does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    Status(u16, &'static str),
    With(u16, &'static [(&'static str, &'static str)], &'static str),
    /// Takes it and breaks the connection off.
    Vanish,
    /// Takes it and says nothing.
    Hang,
}

pub const OK: Reply = Reply::Status(200, "{}");

type Script = dyn FnMut(&Got) -> Reply + Send;

struct Shared {
    got: Mutex<Vec<Got>>,
    script: Mutex<Box<Script>>,
}

/// A TLS server for `localhost`.
pub struct Receiver {
    shared: Arc<Shared>,
    ca: TestCa,
    pub address: SocketAddr,
    serving: Option<JoinHandle<()>>,
}

impl Receiver {
    pub async fn start(script: impl FnMut(&Got) -> Reply + Send + 'static) -> Self {
        Self::presenting(CertificateKind::Good, script).await
    }

    pub async fn presenting(
        kind: CertificateKind,
        script: impl FnMut(&Got) -> Reply + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            got: Mutex::new(Vec::new()),
            script: Mutex::new(Box::new(script)),
        });
        let mut receiver = Self {
            shared,
            ca: TestCa::new("receivers"),
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            serving: None,
        };
        receiver.open(kind).await;
        receiver
    }

    /// Listens, again on the same port.
    pub async fn open(&mut self, kind: CertificateKind) {
        let key = self.ca.issue(kind, &["localhost".to_owned()]);
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let shared = Arc::clone(&self.shared);
        self.serving = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = hyper::service::service_fn(move |request| {
                        answer(Arc::clone(&shared), request)
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        }));
    }

    /// Goes away, with every connection.
    pub async fn close(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    pub fn script(&self, script: impl FnMut(&Got) -> Reply + Send + 'static) {
        *self.shared.script.lock().unwrap() = Box::new(script);
    }

    pub fn got(&self) -> Vec<Got> {
        self.shared.got.lock().unwrap().clone()
    }

    pub fn seqs(&self) -> Vec<u64> {
        self.got().iter().flat_map(Got::seqs).collect()
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    pub fn ca(&self) -> &TestCa {
        &self.ca
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let got = Got {
        at: Instant::now(),
        path: head.uri.path().to_owned(),
        headers: head.headers,
        body,
    };
    shared.got.lock().unwrap().push(got.clone());
    let reply = (shared.script.lock().unwrap())(&got);
    let respond = |status, headers: &[(&str, &str)], body: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            response.headers_mut().append(name, value.parse().unwrap());
        }
        response
    };
    match reply {
        Reply::Status(status, body) => Ok(respond(status, &[], body)),
        Reply::With(status, headers, body) => Ok(respond(status, headers, body)),
        Reply::Vanish => Err(std::io::Error::other("gone")),
        Reply::Hang => {
            let never: Infallible = std::future::pending().await;
            match never {}
        }
    }
}

/// A trail in memory.
#[derive(Clone)]
pub struct MemoryTrail {
    log_id: String,
    records: Arc<Mutex<BTreeMap<u64, String>>>,
    next: u64,
}

impl MemoryTrail {
    pub fn new(count: u64) -> Self {
        let trail = Self {
            log_id: LOG_ID.to_owned(),
            records: Arc::default(),
            next: 0,
        };
        trail.append(count);
        trail
    }

    pub fn named(self, log_id: &str) -> Self {
        Self {
            log_id: log_id.to_owned(),
            ..self
        }
    }

    pub fn append(&self, count: u64) {
        let mut records = self.records.lock().unwrap();
        let next = records.keys().next_back().map_or(0, |last| last + 1);
        records.extend((next..next + count).map(|seq| (seq, line(seq, ""))));
    }

    /// A record with so many bytes more.
    pub fn append_long(&self, bytes: usize) {
        let mut records = self.records.lock().unwrap();
        let next = records.keys().next_back().map_or(0, |last| last + 1);
        records.insert(next, line(next, &"x".repeat(bytes)));
    }

    pub fn forget_before(&self, seq: u64) {
        self.records.lock().unwrap().retain(|at, _| *at >= seq);
    }

    pub fn forget_from(&self, seq: u64) {
        self.records.lock().unwrap().retain(|at, _| *at < seq);
    }

    /// The same numbers, other records.
    pub fn rewrite(&self) {
        for (seq, record) in self.records.lock().unwrap().iter_mut() {
            *record = line(*seq, "rewritten").replace(
                &format!("{:064x}", seq + 1),
                &format!("{:064x}", seq + 1000),
            );
        }
    }
}

pub fn line(seq: u64, text: &str) -> String {
    let (prev, hash) = (format!("{seq:064x}"), format!("{:064x}", seq + 1));
    format!(
        r#"{{"seq":{seq},"prev":"{prev}","hash":"{hash}","record":{{"class_uid":4002,"severity_id":1,"time":1790000000123,"text":"{text}"}}}}"#
    )
}

impl TrailReader for MemoryTrail {
    fn open(&mut self, after: Option<u64>) -> Result<TrailStart, TrailFault> {
        let last = self.last_seq()?.unwrap_or(0);
        if after.is_some_and(|after| after > last) {
            return Err(TrailFault::Ahead { last });
        }
        self.next = after.map_or(0, |after| after + 1);
        Ok(TrailStart {
            log_id: self.log_id.clone(),
        })
    }

    fn next(&mut self) -> Result<Option<TrailRecord>, TrailFault> {
        let records = self.records.lock().unwrap();
        let Some((seq, line)) = records.range(self.next..).next() else {
            return Ok(None);
        };
        self.next = seq + 1;
        Ok(Some(TrailRecord {
            seq: *seq,
            line: line.clone(),
        }))
    }

    fn last_seq(&mut self) -> Result<Option<u64>, TrailFault> {
        Ok(self.records.lock().unwrap().keys().next_back().copied())
    }
}

/// The folder of one test, with the receiver's roots and a key.
pub struct Place {
    pub folder: TempDir,
    name: String,
}

impl Place {
    /// `name` is that of the exporter; unique in the test binary, because the log is shared.
    pub fn new(name: &str) -> Self {
        start_log();
        Self {
            folder: tempfile::tempdir().unwrap(),
            name: name.to_owned(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        path
    }

    pub fn otlp(&self, receiver: &Receiver) -> ExportConfig {
        self.config(&receiver.url("/v1/logs"), receiver.ca(), Target::Otlp)
    }

    pub fn webhook(&self, receiver: &Receiver, key: &str) -> ExportConfig {
        let target = Target::Webhook {
            secret_file: self.write("key", key),
        };
        self.config(&receiver.url("/hook"), receiver.ca(), target)
    }

    pub fn config(&self, url: &str, ca: &TestCa, target: Target) -> ExportConfig {
        let mut config = ExportConfig::new(&self.name, url, target).unwrap();
        config.ca = Some(self.write("ca.pem", ca.pem()));
        config.tuning = quick();
        config
    }

    pub fn start(&self, config: &ExportConfig, trail: &MemoryTrail) -> Exporter {
        let clock: Arc<dyn Clock> = Arc::new(GuardedClock::new(UnixSeconds(0)));
        Exporter::start(config.clone(), &self.exports(), trail.clone(), clock).unwrap()
    }

    pub fn exports(&self) -> PathBuf {
        self.path("export")
    }

    pub fn cursor(&self) -> PathBuf {
        self.exports().join(format!("{}.cursor", self.name))
    }

    /// The log lines of this exporter.
    pub fn log(&self) -> String {
        let wanted = format!("\"exporter\":\"{}\"", self.name);
        let log = log().lock().unwrap();
        let text = String::from_utf8_lossy(&log);
        text.lines()
            .filter(|line| line.contains(&wanted))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Waits until the status is as wanted; fails with the status that never was.
pub async fn until(
    exporter: &Exporter,
    what: &str,
    mut probe: impl FnMut(&ExportStatus) -> bool,
) -> ExportStatus {
    let begin = Instant::now();
    loop {
        let status = exporter.status();
        if probe(&status) {
            return status;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "{what}: {status:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn acknowledged(exporter: &Exporter, seq: u64) -> ExportStatus {
    let what = format!("record {seq} is acknowledged");
    until(exporter, &what, |status| {
        status.acknowledged_seq == Some(seq)
    })
    .await
}

pub async fn failed(exporter: &Exporter, code: &str) -> ExportStatus {
    until(exporter, code, |status| {
        status
            .last_error
            .as_ref()
            .is_some_and(|error| error.code == code)
    })
    .await
}

pub fn range(from: u64, to: u64) -> Vec<u64> {
    (from..to).collect()
}

fn log() -> &'static Mutex<Vec<u8>> {
    static LOG: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();
    LOG.get_or_init(Mutex::default)
}

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        log().lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn start_log() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_writer(|| Log)
            .init();
    });
}

/// Everything that any exporter of the process logged.
pub fn whole_log() -> String {
    String::from_utf8_lossy(&log().lock().unwrap()).into_owned()
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
