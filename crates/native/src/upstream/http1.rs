//! One HTTP/1.1 connection to an upstream. It has no task of its own: who waits for its answer drives it, and an exchange
//! stays on one task, on one processor.

mod driver;

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{Builder, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::unconstrained,
};
use tokio_util::sync::CancellationToken;

use self::driver::Driver;
use crate::body::RequestBody;

/// The largest answer head, in bytes.
const MAX_ANSWER_HEAD: usize = 256 * 1024;

/// One request at a time.
pub(crate) struct Http1 {
    sender: SendRequest<RequestBody>,
    driver: Driver,
}

impl Http1 {
    /// Boxed, as it is passed on and kept as often as a request is sent.
    pub(super) async fn start<T>(io: T, killing: CancellationToken) -> hyper::Result<Box<Self>>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = Builder::new()
            .preserve_header_case(true)
            .max_buf_size(MAX_ANSWER_HEAD)
            .handshake(TokioIo::new(io))
            .await?;
        Ok(Box::new(Self {
            sender,
            driver: Driver::new(Box::pin(connection.with_upgrades()), killing),
        }))
    }

    /// Sends one request. Dropped before there is an answer, it leaves a connection that no other request may have.
    pub(super) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> {
        let upload = request.body().upload();
        // Unconstrained: asked to come again later, nobody would.
        let answer = unconstrained(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        async move {
            let mut answer = pin!(answer);
            let answer = poll_fn(|cx| driver.poll(cx, |cx| answer.as_mut().poll(cx))).await?;
            // From here on it is driven by who reads the answer, and only as fast as that is read.
            let is_both_ways = answer.status() == StatusCode::SWITCHING_PROTOCOLS
                || upload.is_some_and(|upload| !upload.is_over());
            if is_both_ways {
                driver.give_a_task();
            }
            Ok(answer)
        }
    }

    /// Polls what only this connection brings, which is driven for it.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        what: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.driver.poll(cx, what)
    }

    /// Whether the next request can be sent on it. What an upstream said meanwhile, that it closes say, is read now.
    pub(crate) fn is_free(&mut self) -> bool {
        self.driver.look();
        !self.sender.is_closed() && self.sender.is_ready()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Lets what is not over go on without its owner.
    pub(crate) fn give_a_task(&mut self) {
        self.driver.give_a_task();
    }

    /// Says farewell: the connection ends once nobody can send on it.
    pub(crate) fn close(self) {
        let Self { sender, mut driver } = self;
        if !sender.is_closed() {
            drop(sender);
            driver.give_a_task();
        }
    }
}
