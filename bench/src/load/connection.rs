//! A connection that requests go over, one after another.

use std::{io, time::Instant};

use http_body_util::BodyExt;
use hyper::{
    Request,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::AbortHandle;

use super::{
    h1::{H1, Sink},
    target::Target,
};
use crate::{clock, upstream::Repeated};

pub(super) struct Connection {
    wire: Wire,
    upload: Option<u64>,
}

enum Wire {
    H1 {
        wire: Box<H1>,
        request: Vec<u8>,
    },
    H2 {
        sender: SendRequest<Repeated>,
        request: Box<Request<()>>,
        /// Ends the connection with this value.
        driver: Driver,
    },
}

struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What was answered: its status and the bytes that count, which are the longer way's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub status: u16,
    pub bytes: u64,
}

impl Connection {
    /// A connection and the nanoseconds that it took until a request could be sent.
    pub(super) async fn dial(target: &Target) -> io::Result<(Self, u64)> {
        let number = target.number();
        let begun = Instant::now();
        let stream = target.open(number).await?;
        let took = clock::as_ns(begun.elapsed());
        let wire = if target.h2 {
            let (sender, driver) = http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(io::Error::other)?;
            // What ends the connection is an error of the request that was on it.
            let driver = Driver(tokio::spawn(async { drop(driver.await) }).abort_handle());
            let request = Box::new(target.h2_request(number)?);
            Wire::H2 {
                sender,
                request,
                driver,
            }
        } else {
            Wire::H1 {
                wire: Box::new(H1::new(stream, target.buffer)),
                request: target.h1_request(number, ""),
            }
        };
        let upload = target.upload;
        Ok((Self { wire, upload }, took))
    }

    /// One request and its whole answer, whose body goes to `sink`.
    pub(super) async fn call(&mut self, sink: Sink<'_>) -> io::Result<Answer> {
        let body = Repeated::new(self.upload.unwrap_or(0));
        let mut arrived = 0;
        let mut count = |piece: &[u8]| {
            arrived += piece.len() as u64;
            sink(piece);
        };
        let status = match &mut self.wire {
            Wire::H1 { wire, request } => {
                wire.send(request, body).await?;
                let mut head = wire.head().await?;
                while wire.piece(&mut head.body, &mut count).await? {}
                head.status
            }
            Wire::H2 {
                sender, request, ..
            } => by_h2(sender, request.as_ref().clone().map(|()| body), &mut count).await?,
        };
        let bytes = self.upload.unwrap_or(arrived);
        Ok(Answer { status, bytes })
    }

    /// As [`Self::call`], for an answer that has to be 200; its bytes.
    pub(super) async fn fetch(&mut self) -> io::Result<u64> {
        match self.call(&mut |_| {}).await? {
            Answer { status: 200, bytes } => Ok(bytes),
            Answer { status, .. } => Err(io::Error::other(format!("status {status}"))),
        }
    }

    /// Whether another request may follow.
    pub(super) fn keeps(&self) -> bool {
        match &self.wire {
            Wire::H1 { wire, .. } => wire.keep,
            Wire::H2 { sender, .. } => !sender.is_closed(),
        }
    }

    pub(super) async fn close(self) {
        match self.wire {
            Wire::H1 { wire, .. } => wire.close().await,
            Wire::H2 { driver, .. } => drop(driver),
        }
    }
}

async fn by_h2(
    sender: &mut SendRequest<Repeated>,
    request: Request<Repeated>,
    sink: Sink<'_>,
) -> io::Result<u16> {
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(io::Error::other)?;
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        if let Some(piece) = frame.map_err(io::Error::other)?.data_ref() {
            sink(piece);
        }
    }
    Ok(status)
}
