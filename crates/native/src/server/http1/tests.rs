use std::{future::poll_fn, time::Duration};

use bytes::BytesMut;
use hyper::service::service_fn;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{sleep, timeout},
};

use super::*;
use crate::{body::UpstreamBody, guard::GuardTimeouts};

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n";
/// Of the answer's body; more than the pipe to the client holds.
const LARGE: usize = 64 * 1024;
/// A little longer than a connection needs to come to rest.
const A_REST: Duration = Duration::from_millis(1300);

type Answer = Result<Response<AnswerBody<UpstreamBody>>, Infallible>;

struct Fixture<S: HttpService<Incoming>> {
    client: DuplexStream,
    connection: Http1<DuplexStream, S>,
    guard: Arc<GuardState>,
}

/// Answers with the request's path, and `/large` with many bytes.
fn serve(
    idle: Duration,
) -> Fixture<
    impl Service<
        Request<Incoming>,
        Response = Response<AnswerBody<UpstreamBody>>,
        Error = Infallible,
        Future: Send,
    >,
> {
    let (client, io) = duplex(1024);
    let guard = GuardState::new("marker".to_owned());
    let head = Duration::from_millis(200);
    let waits = GuardTimeouts { head, idle };
    let io = Guarded::new(io, BytesMut::new(), Arc::clone(&guard), waits);
    let (seen, marker) = (Arc::clone(&guard), "/marker");
    let service = service_fn(move |request: Request<Incoming>| {
        let _exchange = seen.begin_exchange();
        let path = request.uri().path();
        let body = match path {
            "/large" => vec![b'x'; LARGE].into(),
            _ if path == marker => "refused".into(),
            _ => path.to_owned().into(),
        };
        let answer: Answer = Ok(Response::new(AnswerBody::own(body)));
        std::future::ready(answer)
    });
    let connection = Http1::new(io, service);
    Fixture {
        client,
        connection,
        guard,
    }
}

impl<S> Fixture<S>
where
    S: Service<
            Request<Incoming>,
            Response = Response<AnswerBody<UpstreamBody>>,
            Error = Infallible,
        >,
{
    /// Serves for so long; `true` if the connection ended.
    async fn run(&mut self, time: Duration) -> bool {
        let serving = poll_fn(|cx| self.connection.poll(cx));
        timeout(time, serving).await.is_ok()
    }

    /// Sends this, and reads what is answered.
    async fn ask(&mut self, request: &[u8]) -> String {
        self.client.write_all(request).await.unwrap();
        let mut answer = vec![0; 512];
        // The answer may be the connection's last.
        let count = tokio::select! {
            () = poll_fn(|cx| self.connection.poll(cx)) => self.client.read(&mut answer).await,
            read = self.client.read(&mut answer) => read,
        }
        .unwrap();
        String::from_utf8(answer[..count].to_vec()).unwrap()
    }

    fn is_at_rest(&self) -> bool {
        matches!(self.connection, Http1::AtRest(..))
    }
}

const PATIENT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_connection_that_is_not_used_comes_to_rest_and_serves_again() {
    let mut f = serve(PATIENT);
    for _ in 0..2 {
        let answer = f.ask(GET).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n/a"), "{answer}");
        assert!(!f.is_at_rest());
        assert!(!f.run(A_REST).await);
        assert!(f.is_at_rest());
    }
    // Two at once, and one in pieces.
    let answers = f.ask(&[GET, GET].concat()).await;
    assert!(!answers.is_empty());
    assert!(!f.run(A_REST).await);
    assert!(f.is_at_rest());
    let (first, rest) = GET.split_at(9);
    f.client.write_all(first).await.unwrap();
    assert!(!f.run(Duration::from_millis(50)).await);
    assert!(f.is_at_rest());
    let answer = f.ask(rest).await;
    assert!(answer.contains("/a"), "{answer}");
}

#[tokio::test]
async fn what_comes_after_a_rest_is_judged() {
    let mut f = serve(PATIENT);
    f.ask(GET).await;
    assert!(!f.run(A_REST).await);
    let answer = f.ask(b"GET /a HTTP/1.1\r\nHost : a.test\r\n\r\n").await;
    assert!(answer.ends_with("refused"), "{answer}");
    assert!(f.guard.fault().is_some());
}

#[tokio::test]
async fn half_a_head_after_a_rest_is_waited_for_so_long_and_no_longer() {
    let mut f = serve(PATIENT);
    assert!(!f.run(A_REST).await);
    assert!(f.is_at_rest());
    let answer = f.ask(b"GET /a HT").await;
    assert!(answer.ends_with("refused"), "{answer}");
}

#[tokio::test]
async fn a_connection_at_rest_ends_when_its_time_is_over() {
    let mut f = serve(Duration::from_millis(1500));
    f.ask(GET).await;
    assert!(!f.run(A_REST).await);
    assert!(f.is_at_rest());
    assert!(f.run(Duration::from_secs(10)).await);
    drop(f.connection);
    assert_eq!(f.client.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_connection_at_rest_ends_with_its_client_and_when_it_is_told_to() {
    let mut f = serve(PATIENT);
    assert!(!f.run(A_REST).await);
    f.client.shutdown().await.unwrap();
    assert!(f.run(Duration::from_secs(10)).await);

    let mut f = serve(PATIENT);
    assert!(!f.run(A_REST).await);
    f.connection.finish();
    assert!(f.run(Duration::from_secs(10)).await);
    assert_eq!(f.client.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn nothing_is_at_rest_while_an_exchange_goes_on_or_an_answer_is_on_its_way() {
    let mut f = serve(PATIENT);
    let exchange = f.guard.begin_exchange();
    assert!(!f.run(A_REST).await);
    assert!(!f.is_at_rest());
    drop(exchange);

    let request = b"GET /large HTTP/1.1\r\nHost: a.test\r\n\r\n";
    f.client.write_all(request).await.unwrap();
    assert!(!f.run(A_REST * 2).await);
    assert!(!f.is_at_rest());
    let mut answer = vec![0; LARGE];
    tokio::select! {
        () = poll_fn(|cx| f.connection.poll(cx)) => panic!("it ended"),
        read = f.client.read_exact(&mut answer) => assert_eq!(read.unwrap(), LARGE),
    }
    let mut left = [0; 1024];
    let reading = async { while f.client.read(&mut left).await.is_ok() {} };
    tokio::select! {
        () = poll_fn(|cx| f.connection.poll(cx)) => panic!("it ended"),
        () = reading => panic!("the client's end"),
        () = sleep(A_REST * 2) => {}
    }
    assert!(matches!(f.connection, Http1::AtRest(..)));
}
