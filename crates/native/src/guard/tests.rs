use std::time::Instant as Clock;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{sleep, timeout},
};

use super::*;

const GET: &str = "GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n";
const POST: &str =
    "POST /b HTTP/1.1\r\nHost: a.test\r\nContent-Length: 18\r\n\r\nGET / HTTP/9\n\n\0\r\r\r";
const CHUNKED: &str =
    "POST /c HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\n0\r\n\r\n";
const BAD: &str = "GET /bad HTTP/1.1\r\nHost : a.test\r\n\r\n";
const MARKED: &str = "GET /marker HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

const PATIENT: GuardTimeouts = GuardTimeouts {
    head: Duration::from_secs(60),
    idle: Duration::from_secs(60),
};

/// Long enough for whatever is going to happen, short enough to wait for what is not.
const A_WHILE: Duration = Duration::from_millis(100);

struct Fixture {
    guest: DuplexStream,
    guarded: Guarded<DuplexStream>,
    state: Arc<GuardState>,
}

fn guard(prefix: &str, timeouts: GuardTimeouts) -> Fixture {
    let (guest, io) = duplex(256 * 1024);
    let state = GuardState::new("marker".to_owned());
    let guarded = Guarded::new(io, prefix.into(), Arc::clone(&state), timeouts);
    Fixture {
        guest,
        guarded,
        state,
    }
}

impl Fixture {
    async fn send(&mut self, text: &str) {
        self.guest.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads exactly what is expected, and sees that nothing follows it for a while.
    async fn expect(&mut self, expected: &str) {
        let mut read = vec![0; expected.len()];
        let reading = self.guarded.read_exact(&mut read);
        timeout(Duration::from_secs(10), reading)
            .await
            .expect("it arrives")
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&read), expected);
        self.expect_silence().await;
    }

    async fn expect_silence(&mut self) {
        let mut more = [0; 64];
        if let Ok(read) = timeout(A_WHILE, self.guarded.read(&mut more)).await {
            panic!("more came: {read:?} {}", more.escape_ascii());
        }
    }

    /// The end of the input, within a while.
    async fn expect_end(&mut self) {
        let mut more = [0; 64];
        let reading = self.guarded.read(&mut more);
        let read = timeout(Duration::from_secs(10), reading).await;
        assert_eq!(read.expect("it ends").unwrap(), 0);
    }
}

#[tokio::test]
async fn good_requests_pass_byte_for_byte_however_they_are_cut() {
    let all = [GET, POST, CHUNKED, GET].concat();
    for size in [1, 2, 7, 64, all.len()] {
        let mut f = guard("", PATIENT);
        let bytes = all.clone();
        let mut guest = f.guest;
        let sending = tokio::spawn(async move {
            for piece in bytes.as_bytes().chunks(size) {
                guest.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut read = String::new();
        f.guarded.read_to_string(&mut read).await.unwrap();
        sending.await.unwrap();
        assert_eq!(read, all, "in pieces of {size}");
        assert_eq!(f.state.fault(), None);
    }
}

#[tokio::test]
async fn what_arrived_before_the_guard_is_judged_like_the_rest() {
    let mut f = guard(GET, PATIENT);
    f.expect(GET).await;
    let mut f = guard(&[BAD, GET].concat(), PATIENT);
    f.expect(MARKED).await;
    let mut f = guard(&GET[..10], PATIENT);
    f.expect_silence().await;
    f.send(&GET[10..]).await;
    f.expect(GET).await;
}

#[tokio::test]
async fn a_bad_head_becomes_the_marked_request_and_nothing_after_it_passes() {
    let mut f = guard("", PATIENT);
    f.send(&[GET, BAD, GET].concat()).await;
    f.expect(&[GET, MARKED].concat()).await;
    f.send(GET).await;
    f.expect_silence().await;
    assert!(matches!(
        f.state.fault_of("/marker"),
        Some(HeadFault::Malformed(_))
    ));
    for path in ["/a", "/", "", "marker", "/marker/", "/markers"] {
        assert_eq!(f.state.fault_of(path), None, "{path}");
    }
}

#[tokio::test]
async fn the_markers_path_means_nothing_while_there_is_no_fault() {
    let f = guard("", PATIENT);
    assert_eq!(f.state.fault_of("/marker"), None);
}

#[tokio::test]
async fn each_kind_of_refused_head_keeps_its_reason() {
    let huge = format!(
        "GET / HTTP/1.1\r\nHost: a.test\r\nX: {}",
        "a".repeat(70_000)
    );
    for (text, expected) in [
        (
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            HeadFault::CleartextHttp2,
        ),
        (huge.as_str(), HeadFault::TooLarge),
    ] {
        let mut f = guard("", PATIENT);
        f.send(text).await;
        f.expect(MARKED).await;
        assert_eq!(f.state.fault_of("/marker"), Some(expected));
    }
}

#[tokio::test]
async fn no_byte_of_an_unfinished_head_passes() {
    let mut f = guard("", PATIENT);
    for piece in ["GET /a HTTP/1.1\r\n", "Host: a.test\r\n"] {
        f.send(piece).await;
        f.expect_silence().await;
    }
    f.send("\r\n").await;
    f.expect(GET).await;

    let mut f = guard("", PATIENT);
    f.send(&GET[..20]).await;
    drop(std::mem::replace(&mut f.guest, duplex(1).0));
    f.expect_end().await;
}

#[tokio::test]
async fn a_head_that_does_not_end_in_time_is_refused_also_when_its_bytes_keep_coming() {
    let timeouts = GuardTimeouts {
        head: Duration::from_millis(100),
        ..PATIENT
    };
    let mut f = guard("", timeouts);
    f.send(GET).await;
    f.send("GET / HTTP/1.1\r\n").await;
    f.expect(&[GET, MARKED].concat()).await;
    assert_eq!(f.state.fault(), Some(HeadFault::TimedOut));

    let mut f = guard("", timeouts);
    let mut guest = f.guest;
    let sending = tokio::spawn(async move {
        while guest.write_all(b"GET").await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    let (began, mut read) = (Clock::now(), vec![0; MARKED.len()]);
    f.guarded.read_exact(&mut read).await.unwrap();
    assert_eq!(read, MARKED.as_bytes());
    assert_eq!(f.state.fault(), Some(HeadFault::TimedOut));
    assert!(began.elapsed() < Duration::from_secs(5));
    sending.abort();
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_when_idle() {
    let timeouts = GuardTimeouts {
        idle: Duration::from_millis(30),
        ..PATIENT
    };
    let mut f = guard("", timeouts);
    f.expect_end().await;
    assert_eq!(f.state.fault(), None);
    f.send(GET).await;
    f.expect_end().await;
}

#[tokio::test]
async fn a_connection_is_not_idle_while_an_exchange_goes_on() {
    let timeouts = GuardTimeouts {
        idle: Duration::from_millis(30),
        ..PATIENT
    };
    let mut f = guard("", timeouts);
    let (first, second) = (f.state.begin_exchange(), f.state.begin_exchange());
    f.expect_silence().await;
    drop(first);
    assert!(!f.state.is_idle());
    f.expect_silence().await;
    drop(second);
    assert!(f.state.is_idle());
    f.expect_end().await;
}

#[tokio::test]
async fn a_body_passes_unseen_and_takes_its_time() {
    let timeouts = GuardTimeouts {
        head: Duration::from_millis(20),
        idle: Duration::from_millis(20),
    };
    let mut f = guard("", timeouts);
    let exchange = f.state.begin_exchange();
    let (head, body) = POST.split_at(POST.len() - 18);
    f.send(head).await;
    f.expect(head).await;
    f.send(&body[..5]).await;
    f.expect(&body[..5]).await;
    f.send(&body[5..]).await;
    f.expect(&body[5..]).await;
    // Behind it, heads are judged again.
    f.send(BAD).await;
    f.expect(MARKED).await;
    drop(exchange);
}

#[tokio::test]
async fn everything_behind_an_upgrade_passes_unseen() {
    let upgrade = "GET / HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\n\r\n";
    let mut f = guard("", PATIENT);
    let all = [upgrade, BAD, "\n\n\0"].concat();
    f.send(&all).await;
    f.expect(&all).await;
    assert_eq!(f.state.fault(), None);
}

#[tokio::test]
async fn bad_chunks_are_an_error_in_the_body_and_nothing_after_them_passes() {
    let head = &CHUNKED[..CHUNKED.find("\r\n\r\n").unwrap() + 4];
    for bad in [
        "zz\r\n",
        "3 \r\nabc",
        "3\nabc",
        "3\r\nabcd\r\n",
        "0\r\nbad trailer\r\n\r\n",
        "10000000000000000\r\n",
    ] {
        let mut f = guard("", PATIENT);
        f.send(&[head, bad, GET].concat()).await;
        let mut read = Vec::new();
        let reading = f.guarded.read_to_end(&mut read);
        let error = timeout(Duration::from_secs(10), reading)
            .await
            .expect("it ends")
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bad:?}");
        assert!(read.starts_with(head.as_bytes()));
        let read = String::from_utf8_lossy(&read);
        assert!(!read.contains("GET"), "{bad:?}: {read}");
        assert!(f.state.fault().is_some());
        f.expect_silence().await;
    }
}

#[tokio::test]
async fn queued_interim_answers_are_written_before_the_final_one() {
    let mut f = guard("", PATIENT);
    f.state
        .queue_informational(b"HTTP/1.1 103 Early Hints\r\n\r\n");
    f.state
        .queue_informational(b"HTTP/1.1 100 Continue\r\n\r\n");
    f.guarded
        .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
        .await
        .unwrap();
    f.state.queue_informational(b"again");
    f.guarded.flush().await.unwrap();
    drop(f.guarded);
    let mut seen = String::new();
    f.guest.read_to_string(&mut seen).await.unwrap();
    assert_eq!(
        seen,
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nagain"
    );
}

#[tokio::test]
async fn a_guest_that_takes_nothing_ends_the_write() {
    let timeouts = GuardTimeouts {
        idle: Duration::from_millis(50),
        ..PATIENT
    };
    for queued in [false, true] {
        let (_guest, io) = duplex(16);
        let state = GuardState::new("marker".to_owned());
        if queued {
            state.queue_informational(&[b'x'; 100]);
        }
        let mut guarded = Guarded::new(io, BytesMut::new(), state, timeouts);
        let writing = guarded.write_all(&[b'x'; 100]);
        let error = timeout(Duration::from_secs(5), writing)
            .await
            .expect("it ends")
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "queued: {queued}");
    }
}

/// As TLS over a socket whose other end reads nothing: what is written waits, the end as well.
struct Full;

impl AsyncRead for Full {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Full {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn the_end_waits_no_longer_for_a_guest_than_anything_else() {
    let timeouts = GuardTimeouts {
        idle: Duration::from_millis(50),
        ..PATIENT
    };
    let state = GuardState::new("marker".to_owned());
    let mut guarded = Guarded::new(Full, BytesMut::new(), state, timeouts);
    let ended = timeout(Duration::from_secs(10), guarded.shutdown()).await;
    let error = ended.expect("within the time").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}
