//! Bodies on their way through: passed on as they come and never held, counted, and ended when the token that let them in
//! does.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use outgate_journey::denial::DenyCode;
use outgate_native::{
    answer::{BoxError, CutError},
    guard::ActiveExchange,
};
use outgate_plane::trail::{Meter, Trail};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

pin_project! {
    /// A caller's body on its way to the service, without trailers: nothing that was judged stands in them.
    pub(crate) struct RequestBody {
        #[pin]
        inner: Option<Incoming>,
        meter: Arc<Meter>,
        active: Arc<ActiveExchange>,
        expiry: Option<Pin<Box<Sleep>>>,
    }
}

impl RequestBody {
    pub(crate) fn new(
        inner: Incoming,
        meter: Arc<Meter>,
        active: Arc<ActiveExchange>,
        until: Option<Instant>,
    ) -> Self {
        // An empty body is no body: some servers take a chunked GET amiss.
        let inner = (!inner.is_end_stream()).then_some(inner);
        let expiry = until.filter(|_| inner.is_some());
        Self {
            expiry: expiry.map(|at| Box::pin(tokio::time::sleep_until(at))),
            inner,
            meter,
            active,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            return Poll::Ready(None);
        };
        if is_over(this.expiry.as_mut(), cx) {
            let _ = this.meter.cut.set(DenyCode::BearerExpired);
            return Poll::Ready(Some(Err(CutError(DenyCode::BearerExpired).into())));
        }
        match inner.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => Poll::Ready(None),
            Poll::Ready(Some(Ok(frame))) => {
                this.active.note_progress();
                if let Some(data) = frame.data_ref() {
                    this.meter.count_out(data.len());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            other => other.map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

fn is_over(expiry: Option<&mut Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> bool {
    expiry.is_some_and(|expiry| expiry.as_mut().poll(cx).is_ready())
}

pin_project! {
    /// The service's answer on its way to the caller; the record goes with it.
    pub(crate) struct ServiceBody {
        #[pin]
        inner: Incoming,
        trail: Option<Trail>,
        active: Arc<ActiveExchange>,
        expiry: Option<Pin<Box<Sleep>>>,
        #[pin]
        idle: Sleep,
        idle_after: Duration,
        armed: bool,
    }
}

impl ServiceBody {
    pub(crate) fn new(
        inner: Incoming,
        trail: Trail,
        active: Arc<ActiveExchange>,
        until: Option<Instant>,
        idle_after: Duration,
    ) -> Self {
        let mut body = Self {
            inner,
            trail: Some(trail),
            active,
            expiry: until.map(|at| Box::pin(tokio::time::sleep_until(at))),
            idle: tokio::time::sleep(idle_after),
            idle_after,
            armed: false,
        };
        // A body without bytes is never polled by the server.
        if body.inner.is_end_stream() {
            finish(&mut body.trail);
        }
        body
    }
}

fn finish(trail: &mut Option<Trail>) {
    if let Some(trail) = trail.take() {
        trail.complete();
    }
}

/// The gateway ends the answer.
fn cut_off(
    trail: &mut Option<Trail>,
    code: DenyCode,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    if let Some(mut trail) = trail.take() {
        trail.cut(code);
        trail.complete();
    }
    Poll::Ready(Some(Err(CutError(code).into())))
}

impl Body for ServiceBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        if this.trail.is_some() && is_over(this.expiry.as_mut(), cx) {
            return cut_off(this.trail, DenyCode::BearerExpired);
        }
        match this.inner.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                *this.armed = false;
                this.active.note_progress();
                if let (Some(data), Some(trail)) = (frame.data_ref(), &this.trail) {
                    trail.meter().count_in(data.len());
                }
                if this.inner.is_end_stream() {
                    finish(this.trail);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                finish(this.trail);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(trail) = this.trail.take() {
                    trail.abort(&error);
                }
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Pending => {
                if !*this.armed {
                    *this.armed = true;
                    this.idle.as_mut().reset(Instant::now() + *this.idle_after);
                }
                if this.idle.as_mut().poll(cx).is_ready() {
                    return cut_off(this.trail, DenyCode::UpstreamTimeout);
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
