//! A DNS server (RFC 1035) over UDP and TCP that answers from a table and remembers every question: a name that was
//! asked for is a name that leaked.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

/// What a name gets.
#[derive(Debug, Clone)]
pub enum DnsAnswer {
    /// These addresses, with this TTL in seconds.
    Addresses(Vec<IpAddr>, u32),
    /// One address list per question, in turn, with TTL 0: rebinding. A and AAAA questions count separately.
    Alternating(Vec<Vec<IpAddr>>),
    /// NXDOMAIN, as every unlisted name.
    Missing,
    /// SERVFAIL.
    Broken,
    /// No answer at all.
    Silent,
}

impl DnsAnswer {
    /// One address with a TTL of a minute.
    #[must_use]
    pub fn address(text: &str) -> Self {
        Self::Addresses(vec![text.parse().expect("an address")], 60)
    }
}

#[derive(Default)]
struct Table {
    names: HashMap<String, DnsAnswer>,
    turns: HashMap<(String, u16), usize>,
    queries: Vec<(String, u16)>,
}

/// A running server.
pub struct DnsServer {
    address: SocketAddr,
    table: Arc<Mutex<Table>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

const A: u16 = 1;
const AAAA: u16 = 28;

impl DnsServer {
    /// Starts a server on a port of `127.0.0.1` that is free for both UDP and TCP.
    pub async fn start(names: impl IntoIterator<Item = (&str, DnsAnswer)>) -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("bound")).await {
                break (tcp, udp);
            }
        };
        let table = Arc::new(Mutex::new(Table::default()));
        let server = Self {
            address: udp.local_addr().expect("bound"),
            table: Arc::clone(&table),
            tasks: vec![
                tokio::spawn(serve_udp(udp, Arc::clone(&table))),
                tokio::spawn(serve_tcp(tcp, table)),
            ],
        };
        for (name, answer) in names {
            server.set(name, answer);
        }
        server
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes or adds a name.
    pub fn set(&self, name: &str, answer: DnsAnswer) {
        let mut table = self.table.lock().expect("no panic holds it");
        table.names.insert(name.to_ascii_lowercase(), answer);
    }

    /// Every question so far: lower-case name without its last dot, and record type.
    #[must_use]
    pub fn queries(&self) -> Vec<(String, u16)> {
        self.table
            .lock()
            .expect("no panic holds it")
            .queries
            .clone()
    }

    /// Whether anybody asked for a name that contains `text`.
    #[must_use]
    pub fn was_asked_for(&self, text: &str) -> bool {
        self.queries().iter().any(|(name, _)| name.contains(text))
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn serve_udp(socket: UdpSocket, table: Arc<Mutex<Table>>) {
    let mut buffer = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        if let Some(answer) = answer(&buffer[..length], &table) {
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, table: Arc<Mutex<Table>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let table = Arc::clone(&table);
        tokio::spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut query = vec![0; usize::from(length)];
                if stream.read_exact(&mut query).await.is_err() {
                    return;
                }
                let Some(answer) = answer(&query, &table) else {
                    continue;
                };
                let mut framed = (answer.len() as u16).to_be_bytes().to_vec();
                framed.extend(answer);
                if stream.write_all(&framed).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// The answer to one query; `None` for silence or what is no query.
fn answer(query: &[u8], table: &Mutex<Table>) -> Option<Vec<u8>> {
    let (name, kind, question_end) = read_question(query)?;
    let (code, ttl, addresses) = table.lock().ok()?.look_up(&name, kind)?;
    let records: Vec<Vec<u8>> = addresses
        .into_iter()
        .filter_map(|ip| match (ip, kind) {
            (IpAddr::V4(v4), A) => Some(v4.octets().to_vec()),
            (IpAddr::V6(v6), AAAA) => Some(v6.octets().to_vec()),
            _ => None,
        })
        .collect();
    let mut out = query.get(..2)?.to_vec();
    // QR, RD copied as set, RA; the response code.
    out.extend_from_slice(&[0x85, 0x80 | code]);
    out.extend_from_slice(&[0, 1]);
    out.extend_from_slice(&(records.len() as u16).to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0]);
    out.extend_from_slice(query.get(12..question_end)?);
    for data in records {
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(&data);
    }
    Some(out)
}

fn read_question(query: &[u8]) -> Option<(String, u16, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

impl Table {
    fn look_up(&mut self, name: &str, kind: u16) -> Option<(u8, u32, Vec<IpAddr>)> {
        self.queries.push((name.to_owned(), kind));
        match self.names.get(name) {
            None | Some(DnsAnswer::Missing) => Some((3, 0, Vec::new())),
            Some(DnsAnswer::Broken) => Some((2, 0, Vec::new())),
            Some(DnsAnswer::Silent) => None,
            Some(DnsAnswer::Addresses(list, ttl)) => Some((0, *ttl, list.clone())),
            Some(DnsAnswer::Alternating(lists)) => {
                let turn = self.turns.entry((name.to_owned(), kind)).or_default();
                let list = lists[*turn % lists.len()].clone();
                *turn += 1;
                Some((0, 0, list))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(server: &DnsServer, name: &str, kind: u16) -> Vec<u8> {
        let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend_from_slice(label.as_bytes());
        }
        query.push(0);
        query.extend_from_slice(&kind.to_be_bytes());
        query.extend_from_slice(&[0, 1]);
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&query, server.address()).await.unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).await.unwrap();
        buffer[..length].to_vec()
    }

    #[tokio::test]
    async fn answers_come_from_the_table_and_questions_are_remembered() {
        let server = DnsServer::start([
            ("a.test", DnsAnswer::address("10.1.2.3")),
            (
                "turn.test",
                DnsAnswer::Alternating(vec![
                    vec!["192.0.2.1".parse().unwrap()],
                    vec!["127.0.0.1".parse().unwrap()],
                ]),
            ),
        ])
        .await;
        assert!(ask(&server, "A.test", A).await.ends_with(&[10, 1, 2, 3]));
        assert!(
            ask(&server, "turn.test", A)
                .await
                .ends_with(&[192, 0, 2, 1])
        );
        assert!(
            ask(&server, "turn.test", A)
                .await
                .ends_with(&[127, 0, 0, 1])
        );
        let missing = ask(&server, "x.test", A).await;
        assert_eq!(missing[3] & 0x0f, 3);
        assert!(server.was_asked_for("x.test") && !server.was_asked_for("y.test"));
    }
}
