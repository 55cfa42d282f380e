//! Calls of generated services: what they read and write, carried by HTTP/2 with its flow control on both sides.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::poll_fn;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderValue, Response, header::CONTENT_LENGTH};
use hyper::body::{Body as _, Frame, SizeHint};
use tonic::{body::Body, codegen::BoxFuture};

/// What a caller sends. Its room is given back as it is read.
pub(super) struct Incoming {
    stream: RecvStream,
    are_data_over: bool,
}

impl Incoming {
    pub(super) const fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            are_data_over: false,
        }
    }
}

impl hyper::body::Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.are_data_over {
            let data = pin!(self.stream.data()).poll(context);
            match ready!(data) {
                Some(Ok(bytes)) => {
                    let _ = self.stream.flow_control().release_capacity(bytes.len());
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Err(error)) => return Poll::Ready(fault(error)),
                None => self.are_data_over = true,
            }
        }
        Poll::Ready(match ready!(pin!(self.stream.trailers()).poll(context)) {
            Ok(trailers) => trailers.map(|it| Ok(Frame::trailers(it))),
            Err(error) => fault(error),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A caller that takes its call back says nothing more (RFC 9113, section 8.1).
fn fault<T>(error: h2::Error) -> Option<Result<T, h2::Error>> {
    match error.reason() {
        Some(Reason::NO_ERROR | Reason::CANCEL) => None,
        _ => Some(Err(error)),
    }
}

/// Sends what a service answers, until that ends or the caller takes the call back.
pub(super) async fn answer(
    mut answering: BoxFuture<Response<Body>, Infallible>,
    mut respond: SendResponse<Bytes>,
) {
    let response = poll_fn(|context| match answering.as_mut().poll(context) {
        Poll::Ready(Ok(response)) => Poll::Ready(Some(response)),
        Poll::Pending => respond.poll_reset(context).map(|_| None),
    });
    let Some(response) = response.await else {
        return;
    };
    let (mut head, body) = response.into_parts();
    let is_empty = body.is_end_stream();
    if let Some(length) = body.size_hint().exact().filter(|_| !is_empty) {
        let length = HeaderValue::from(length);
        head.headers.entry(CONTENT_LENGTH).or_insert(length);
    }
    let Ok(out) = respond.send_response(Response::from_parts(head, ()), is_empty) else {
        return respond.send_reset(Reason::INTERNAL_ERROR);
    };
    if !is_empty {
        // Whoever fails here has nobody to tell.
        let _ = carry(body, out).await;
    }
}

/// The next message is made once the caller has room for the one before.
async fn carry(mut body: Body, mut out: SendStream<Bytes>) -> Result<(), h2::Error> {
    loop {
        let frame = poll_fn(|context| {
            // Also where there is nothing to send, the caller's leaving is heard of.
            if let Poll::Ready(reason) = out.poll_reset(context) {
                return Poll::Ready(Err(reason.map_or_else(|error| error, h2::Error::from)));
            }
            Pin::new(&mut body).poll_frame(context).map(Ok)
        });
        let frame = match frame.await? {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                out.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            None => return out.send_data(Bytes::new(), true),
        };
        match frame.into_data() {
            Ok(data) => {
                let is_last = body.is_end_stream();
                if !data.is_empty() {
                    room(&mut out).await?;
                }
                out.send_data(data, is_last)?;
                if is_last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return out.send_trailers(trailers);
                }
            }
        }
    }
}

/// Waits for room on the stream. What is asked for is the least there is: a stream that waits keeps none from others.
async fn room(out: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    out.reserve_capacity(1);
    poll_fn(|context| {
        loop {
            if out.capacity() > 0 {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(reason) = out.poll_reset(context) {
                return Poll::Ready(Err(reason.map_or_else(|error| error, h2::Error::from)));
            }
            match ready!(out.poll_capacity(context)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Err(Reason::CANCEL.into())),
            }
        }
    })
    .await
}
