//! Calls of bare methods, as a peer of any manners makes them, and the bounds of the connection that they come over.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use h2::{Reason, SendStream, client::ResponseFuture, client::SendRequest};
use http::{HeaderMap, Request, StatusCode};
use outgate_xds::{Call, Door, Services};
use prost::Message;
use support::{PATIENCE, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::Notify,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

const SAY: &str = "/test.Echo/Say";
/// The longest message, in bytes.
const LONGEST: usize = 192 * 1024;

/// A door with one method that says what it was asked.
struct World {
    folder: tempfile::TempDir,
    /// Lets `wait` go.
    go: Arc<Notify>,
    /// Calls that wait.
    waiting: Arc<AtomicUsize>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Counted for as long as it is there.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(
    call: Call<String>,
    go: Arc<Notify>,
    waiting: Arc<AtomicUsize>,
) -> Result<String, Status> {
    match call.question.as_str() {
        question if question.starts_with("wait") => {
            waiting.fetch_add(1, Ordering::SeqCst);
            let _waiting = Waiting(waiting);
            go.notified().await;
            Ok("waited".to_owned())
        }
        "panic" => panic!("as the test asks for"),
        "refuse" => Err(Status::permission_denied("not this: %")),
        "leg" => Ok(call.metadata["leg"].to_str().unwrap().to_owned()),
        question if question.len() > 100 => Ok(question.len().to_string()),
        question => Ok(format!("{} says {question}", call.client)),
    }
}

fn open() -> World {
    let folder = tempfile::tempdir().unwrap();
    let door = Door::unix(&folder.path().join("socket")).unwrap();
    let (go, waiting): (Arc<Notify>, Arc<AtomicUsize>) = Default::default();
    let (let_go, count) = (Arc::clone(&go), Arc::clone(&waiting));
    let services = Services::new().method(SAY, move |call| {
        answer(call, Arc::clone(&let_go), Arc::clone(&count))
    });
    let stop = CancellationToken::new();
    let task = tokio::spawn(door.serve(services, stop.clone()));
    World {
        folder,
        go,
        waiting,
        stop,
        task,
    }
}

impl World {
    async fn socket(&self) -> UnixStream {
        let path = self.folder.path().join("socket");
        UnixStream::connect(path).await.unwrap()
    }

    async fn peer(&self) -> Peer {
        let (sender, connection) = h2::client::handshake(self.socket().await).await.unwrap();
        tokio::spawn(connection);
        Peer(sender)
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

#[derive(Clone)]
struct Peer(SendRequest<Bytes>);

impl Peer {
    async fn begin(
        &self,
        path: &str,
        fields: &[(&str, &str)],
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut sender = self.0.clone().ready().await.unwrap();
        sender
            .send_request(request.body(()).unwrap(), false)
            .unwrap()
    }

    /// Asks by these bytes, and gives the answer's status and message.
    async fn ask_raw(&self, body: &[u8], fields: &[(&str, &str)]) -> (u32, Bytes) {
        let (answer, mut out) = self.begin(SAY, fields).await;
        out.send_data(Bytes::copy_from_slice(body), true).unwrap();
        outcome(answer).await
    }

    async fn ask(&self, question: &str) -> Result<String, u32> {
        read(self.ask_raw(&framed(question), &[]).await)
    }
}

fn framed(question: &str) -> Bytes {
    let message = question.to_owned().encode_to_vec();
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap());
    out.put_slice(&message);
    out.freeze()
}

fn read((status, body): (u32, Bytes)) -> Result<String, u32> {
    if status != 0 {
        return Err(status);
    }
    let length = u32::from_be_bytes(body[1..5].try_into().unwrap());
    assert_eq!((body[0], length as usize), (0, body.len() - 5));
    Ok(String::decode(&body[5..]).unwrap())
}

/// The status of gRPC, and the body.
async fn outcome(answer: ResponseFuture) -> (u32, Bytes) {
    let answer = tokio::time::timeout(PATIENCE, answer);
    let answer = answer.await.expect("no answer").unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    let status = |fields: &HeaderMap| fields.get("grpc-status")?.to_str().ok()?.parse().ok();
    let early = status(answer.headers());
    let mut body = answer.into_body();
    let mut whole = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        whole.extend_from_slice(&piece);
    }
    let trailers = body
        .trailers()
        .await
        .unwrap_or_default()
        .unwrap_or_default();
    (early.or_else(|| status(&trailers)).unwrap(), whole.freeze())
}

#[tokio::test]
async fn a_call_has_its_answer_and_says_who_asks() {
    let world = open();
    let peer = world.peer().await;
    assert_eq!(peer.ask("hello").await.unwrap(), "local says hello");
    assert_eq!(peer.ask("").await.unwrap(), "local says ");
    let said = peer.ask_raw(&framed("leg"), &[("leg", "inner")]).await;
    assert_eq!(read(said).unwrap(), "inner");
    assert_eq!(peer.ask("refuse").await, Err(7));
}

#[tokio::test]
async fn what_is_not_one_whole_message_is_refused() {
    let world = open();
    let peer = world.peer().await;
    let twice = [framed("a"), framed("b")].concat();
    let trailing = [&framed("a")[..], b"\x10\0"].concat();
    for (what, body, fields, status) in [
        ("nothing", &b""[..], &[][..], 13),
        ("half a prefix", b"\0\0\0", &[], 13),
        ("half a message", b"\0\0\0\0\x09abc", &[], 13),
        ("two messages", &twice, &[], 13),
        ("a message and more", &trailing, &[], 13),
        ("a compressed one", b"\x01\0\0\0\0", &[], 13),
        ("an unknown flag", b"\x07\0\0\0\0", &[], 13),
        ("an endless one", b"\0\xff\xff\xff\xff", &[], 11),
        ("no such message", b"\0\0\0\0\x04\xff\xff\xff\xff", &[], 13),
        (
            "an encoding",
            &framed("a"),
            &[("grpc-encoding", "gzip")],
            12,
        ),
    ] {
        assert_eq!(peer.ask_raw(body, fields).await.0, status, "{what}");
    }
    let identity = [("grpc-encoding", "identity")];
    assert_eq!(peer.ask_raw(&framed("a"), &identity).await.0, 0);
    let (answer, mut out) = peer.begin("/test.Echo/Shout", &[]).await;
    out.send_data(framed("a"), true).unwrap();
    assert_eq!(outcome(answer).await.0, 12);
}

#[tokio::test]
async fn a_message_that_is_too_long_is_refused_by_its_first_bytes() {
    let world = open();
    let peer = world.peer().await;
    let (answer, mut out) = peer.begin(SAY, &[]).await;
    let length = u32::try_from(LONGEST + 1).unwrap();
    let begin = [&[0][..], &length.to_be_bytes()].concat();
    out.send_data(begin.into(), false).unwrap();
    assert_eq!(outcome(answer).await.0, 11);
    // Its first bytes may come one by one.
    let (answer, mut out) = peer.begin(SAY, &[]).await;
    for byte in [0, 0xff, 0xff, 0xff, 0xff] {
        out.send_data(vec![byte].into(), false).unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(outcome(answer).await.0, 11);
}

#[tokio::test]
async fn a_message_in_pieces_is_read_whole() {
    let world = open();
    let peer = world.peer().await;
    let (answer, mut out) = peer.begin(SAY, &[]).await;
    let body = framed("piece by piece");
    for at in 0..body.len() {
        out.send_data(body.slice(at..=at), false).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    out.send_trailers(HeaderMap::new()).unwrap();
    let said = read(outcome(answer).await).unwrap();
    assert_eq!(said, "local says piece by piece");
    // A field's number, its length in three bytes, and the text.
    let longest = "x".repeat(LONGEST - 4);
    for _ in 0..50 {
        assert_eq!(peer.ask(&longest).await.unwrap(), (LONGEST - 4).to_string());
    }
}

#[tokio::test]
async fn a_message_that_does_not_come_is_not_waited_for_and_holds_nobody_up() {
    let world = open();
    let peer = world.peer().await;
    let begun = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..2000 {
        let (answer, mut out) = peer.begin(SAY, &[]).await;
        out.send_data(framed("slow").slice(..7), false).unwrap();
        slow.push((answer, out));
    }
    assert_eq!(peer.ask("quick").await.unwrap(), "local says quick");
    assert!(begun.elapsed() < Duration::from_secs(9), "it was held up");
    for (answer, _out) in slow {
        assert_eq!(outcome(answer).await.0, 4);
    }
    assert_eq!(peer.ask("later").await.unwrap(), "local says later");
}

#[tokio::test]
async fn calls_that_wait_do_not_hold_others_up_and_end_with_their_caller() {
    let world = open();
    let peer = world.peer().await;
    let mut waiting = Vec::new();
    // More in all than the connection's window: what is read gives its room back before it is answered.
    let long = framed(&"wait".repeat(40_000));
    for _ in 0..100 {
        let (answer, mut out) = peer.begin(SAY, &[]).await;
        out.send_data(long.clone(), true).unwrap();
        waiting.push((answer, out));
    }
    until("their waiting", || world.waiting() == 100).await;
    assert_eq!(peer.ask("quick").await.unwrap(), "local says quick");
    // One is taken back, the others are not.
    let (_, mut taken_back) = waiting.pop().unwrap();
    taken_back.send_reset(Reason::CANCEL);
    until("its end", || world.waiting() == 99).await;
    world.go.notify_waiters();
    for (answer, _) in waiting {
        assert_eq!(read(outcome(answer).await).unwrap(), "waited");
    }
    let (_answer, mut out) = peer.begin(SAY, &[]).await;
    out.send_data(framed("wait"), true).unwrap();
    until("its waiting", || world.waiting() == 1).await;
    drop((peer, out, _answer));
    until("its end with the connection", || world.waiting() == 0).await;
}

#[tokio::test]
async fn a_call_that_panics_ends_alone() {
    let world = open();
    let peer = world.peer().await;
    let (waits, mut out) = peer.begin(SAY, &[]).await;
    out.send_data(framed("wait"), true).unwrap();
    let (panics, mut out) = peer.begin(SAY, &[]).await;
    out.send_data(framed("panic"), true).unwrap();
    let fault = tokio::time::timeout(PATIENCE, panics).await.unwrap();
    assert!(fault.unwrap_err().is_reset());
    until("the other's waiting", || world.waiting() == 1).await;
    world.go.notify_waiters();
    assert_eq!(read(outcome(waits).await).unwrap(), "waited");
    assert_eq!(peer.ask("hello").await.unwrap(), "local says hello");
}

#[tokio::test]
async fn a_door_that_closes_answers_what_is_under_way() {
    let world = open();
    let peer = world.peer().await;
    let (answer, mut out) = peer.begin(SAY, &[]).await;
    out.send_data(framed("wait"), true).unwrap();
    until("its waiting", || world.waiting() == 1).await;
    world.stop.cancel();
    // It says so, and takes no more calls.
    let began = Instant::now();
    while let Ok(mut sender) = peer.0.clone().ready().await {
        let request = Request::post(format!("http://localhost{SAY}"))
            .body(())
            .unwrap();
        let refused = match sender.send_request(request, true) {
            Err(_) => true,
            Ok((answer, _)) => answer.await.is_err(),
        };
        if refused {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(4), "it goes on");
    }
    world.go.notify_waiters();
    assert_eq!(read(outcome(answer).await).unwrap(), "waited");
    let closed = tokio::time::timeout(Duration::from_secs(4), world.task).await;
    closed.expect("it waits for nobody").unwrap();
}

#[tokio::test]
async fn the_bounds_of_a_connection_are_told_and_kept() {
    let world = open();
    let peer = world.peer().await;
    assert_eq!(peer.ask("hello").await.unwrap(), "local says hello");
    assert_eq!(peer.0.current_max_send_streams(), 10_000);
    let long = "x".repeat(20_000);
    let fields = [("a", &*long), ("b", &*long), ("c", &*long), ("d", &*long)];
    let (answer, mut out) = peer.begin(SAY, &fields).await;
    let _ = out.send_data(framed("a"), true);
    match tokio::time::timeout(PATIENCE, answer).await.unwrap() {
        Ok(answer) => assert_eq!(answer.status(), 431),
        Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
    }
    assert_eq!(world.peer().await.ask("on").await.unwrap(), "local says on");
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// What the door says at last, by the code of its farewell; it closes the connection.
async fn farewell(socket: &mut UnixStream) -> Option<u32> {
    let mut said = Vec::new();
    let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut said));
    let _ = read.await.expect("it is not closed");
    let mut rest = &said[..];
    let mut code = None;
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        if rest[3] == GOAWAY {
            code = Some(u32::from_be_bytes(rest[13..17].try_into().unwrap()));
        }
        rest = &rest[9 + length..];
    }
    code
}

#[tokio::test]
async fn a_flood_of_calls_that_are_taken_back_ends_its_own_connection() {
    let world = open();
    let peer = world.peer().await;
    let mut socket = world.socket().await;
    let mut flood = PREFACE.to_vec();
    for number in 0..20_000_u32 {
        let stream = 2 * number + 1;
        // `:method POST`, `:scheme http`, `:path /`.
        flood.extend(frame(HEADERS, END_HEADERS, stream, &[0x83, 0x86, 0x84]));
        flood.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let (mut from, mut to) = socket.split();
    let writing = async {
        let _ = to.write_all(&flood).await;
    };
    let mut said = Vec::new();
    let reading = async {
        let read = tokio::time::timeout(PATIENCE, from.read_to_end(&mut said));
        let _ = read.await.expect("it is not closed");
    };
    tokio::join!(writing, reading);
    assert_eq!(peer.ask("hello").await.unwrap(), "local says hello");
}

#[tokio::test]
async fn a_head_without_end_ends_its_own_connection() {
    let world = open();
    let peer = world.peer().await;
    let mut socket = world.socket().await;
    let mut flood = PREFACE.to_vec();
    flood.extend(frame(HEADERS, 0, 1, &[0x83, 0x86, 0x84]));
    for _ in 0..1000 {
        // A field that is not remembered: `x: ` and a hundred bytes.
        let field = [&[0, 1, b'x', 100][..], &[b'y'; 100]].concat();
        flood.extend(frame(CONTINUATION, 0, 1, &field));
    }
    let _ = socket.write_all(&flood).await;
    assert_eq!(farewell(&mut socket).await, Some(11), "ENHANCE_YOUR_CALM");
    assert_eq!(peer.ask("hello").await.unwrap(), "local says hello");
}
