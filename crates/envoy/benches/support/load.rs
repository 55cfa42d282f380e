//! An upstream that costs little, and clients that send through the proxy by a schedule.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use outgate_testkit::{CertificateKind, Channel, Guest, Outcome, Req, TestCa, guest::TlsOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{machine::Latencies, messages::HOST};

/// What each answer carries, in bytes.
const BODY: usize = 1024;

/// Serves TLS with HTTP/1.1 and returns its port: every request, which must have no body, is answered with 1 KiB.
pub(crate) async fn upstream(ca: &TestCa) -> u16 {
    let key = ca.issue(CertificateKind::Good, &[HOST.to_owned()]);
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + BODY, b'x');
    let answer: Arc<[u8]> = answer.into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut head = Vec::with_capacity(4096);
                while let Ok(1..) = stream.read_buf(&mut head).await {
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        if stream.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    port
}

/// A request of the guest's.
pub(crate) fn request(port: u16, token: &str) -> Req {
    Req::get(HOST, port, "/v1/messages")
        .header("user-agent", "Example/Python 0.75.0")
        .header("accept", "application/json")
        .header("x-api-key", token)
}

/// Opens a tunnel with TLS inside.
pub(crate) async fn open(guest: &Guest, host: &str, port: u16) -> Result<Channel, Outcome> {
    let stream = guest.connect(&format!("{host}:{port}")).await?;
    let tunnel = guest
        .handshake(stream, &TlsOptions::new(host, "http/1.1"))
        .await?;
    Ok(Channel::h1_in_tunnel(tunnel.io))
}

/// Sends `rate` requests a second for so long, over tunnels that stay open; every one must be answered with 200.
/// Timed from when each was due.
pub(crate) async fn run(
    channels: &mut Vec<Channel>,
    request: &Req,
    rate: u32,
    length: Duration,
) -> Latencies {
    let count = u32::try_from(channels.len()).unwrap();
    let total = (f64::from(rate) * length.as_secs_f64()) as u32;
    let every = Duration::from_secs(1) / rate;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (at, mut channel) in channels.drain(..).enumerate() {
        let request = request.clone();
        tasks.spawn(async move {
            let mut latencies = Latencies::default();
            let mut number = u32::try_from(at).unwrap();
            while number < total {
                let due = start + every * number;
                tokio::time::sleep_until(due.into()).await;
                let answer = channel.send(&request).await.answered();
                assert_eq!(answer.status, 200, "{answer:?}");
                latencies.note(due.elapsed());
                number += count;
            }
            (channel, latencies)
        });
    }
    let mut all = Latencies::default();
    while let Some(ended) = tasks.join_next().await {
        let (channel, latencies) = ended.unwrap();
        channels.push(channel);
        all.take(&latencies);
    }
    all
}
