//! Bodies on their way: counted, charged to the session's budget, cut when the session ends, never buffered.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use outgate_control::sessions::Activity;
use outgate_credential::ScrubBody;
use outgate_journey::{denial::DenyCode, outgoing::strip_trailers_for_upstream, policy::Rule};
use outgate_plane::{
    Live,
    budget::Budget,
    clock::unix_now,
    trail::{Meter, Trail, code_of},
};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::{
    answer::{BoxError, CutError},
    guard::ActiveExchange,
    pool::{Pool, PoolKey, Sender},
    shared::Shared,
};

pin_project! {
    /// A guest's request body on its way to the upstream.
    pub(crate) struct RequestBody {
        #[pin]
        inner: Option<Incoming>,
        meter: Arc<Meter>,
        budget: Option<Budget>,
        // Boxed, because the HTTP library moves request bodies; only uploads have one.
        cut: Option<(Pin<Box<WaitForCancellationFutureOwned>>, Arc<Activity>)>,
        trailers: TrailerRules,
        upload: Option<Upload>,
    }
}

/// Whether a request's body is on its way. The HTTP library drops a body that it has sent.
#[derive(Clone)]
pub(crate) struct Upload(Arc<()>);

impl Upload {
    pub(crate) fn is_over(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// What a request's trailer section is held against: no less than its head.
pub(crate) struct TrailerRules {
    pub(crate) shared: Arc<Shared>,
    pub(crate) live: Arc<Live>,
    pub(crate) rule: Arc<Rule>,
}

impl TrailerRules {
    fn apply(&self, trailers: &mut HeaderMap) {
        let tokens = &self.shared.plane.tokens;
        strip_trailers_for_upstream(trailers, &self.live.policy, &self.rule, tokens, unix_now());
    }
}

impl RequestBody {
    /// `activity` has the signal that ends the upload together with its session.
    pub(crate) fn new(
        inner: Incoming,
        meter: Arc<Meter>,
        budget: Option<Budget>,
        activity: Option<&Arc<Activity>>,
        trailers: TrailerRules,
    ) -> Self {
        // An empty body is no body: some servers take a chunked GET amiss.
        let inner = (!inner.is_end_stream()).then_some(inner);
        let cut = activity.filter(|_| inner.is_some()).map(|activity| {
            let signal = activity.cut().clone().cancelled_owned();
            (Box::pin(signal), Arc::clone(activity))
        });
        let upload = inner.is_some().then(|| Upload(Arc::default()));
        Self {
            inner,
            meter,
            budget,
            cut,
            trailers,
            upload,
        }
    }

    /// To be asked by one only; `None` for a request without a body.
    pub(crate) fn upload(&self) -> Option<Upload> {
        self.upload.clone()
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
        if let Some((signal, activity)) = this.cut
            && signal.as_mut().poll(cx).is_ready()
        {
            let code = code_of(activity);
            let _ = this.meter.cut.set(code);
            return Poll::Ready(Some(Err(CutError(code).into())));
        }
        let frame = match inner.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            other => return other.map_err(Into::into),
        };
        if let Some(data) = frame.data_ref() {
            this.meter.carry_out(data);
            if let Some(Err(code)) = this.budget.as_ref().map(|budget| budget.charge(data.len())) {
                let _ = this.meter.cut.set(code);
                return Poll::Ready(Some(Err(CutError(code).into())));
            }
        }
        Poll::Ready(Some(Ok(match frame.into_trailers() {
            Ok(mut trailers) => {
                this.trailers.apply(&mut trailers);
                Frame::trailers(trailers)
            }
            Err(data) => data,
        })))
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

/// An HTTP/1.1 connection that goes back to the pool when its exchange is complete.
pub(crate) struct ReturnToPool {
    pub(crate) pool: Arc<Pool>,
    pub(crate) key: PoolKey,
    pub(crate) sender: Sender,
    pub(crate) peer: std::net::SocketAddr,
}

impl ReturnToPool {
    fn complete(self) {
        if let Sender::Http1(sender) = self.sender {
            self.pool.give_back(self.key, sender, self.peer);
        }
    }
}

pin_project! {
    /// An upstream's answer on its way to the guest.
    pub(crate) struct UpstreamBody {
        #[pin]
        inner: Scrubbed,
        trail: Option<Trail>,
        active: ActiveExchange,
        connection: Option<ReturnToPool>,
        #[pin]
        cut: Option<WaitForCancellationFutureOwned>,
        #[pin]
        idle: Sleep,
        idle_after: Duration,
        armed: bool,
    }
}

pin_project! {
    /// An upstream's bytes, scrubbed where a credential was attached.
    #[project = ScrubbedProjection]
    pub(crate) enum Scrubbed {
        /// Nothing was attached.
        Plain { #[pin] body: Incoming },
        /// A credential was.
        Scrubbed { #[pin] body: ScrubBody<Incoming> },
    }
}

impl UpstreamBody {
    pub(crate) fn new(
        inner: Scrubbed,
        trail: Trail,
        active: ActiveExchange,
        connection: Option<ReturnToPool>,
        cut: Option<WaitForCancellationFutureOwned>,
        idle_after: Duration,
    ) -> Self {
        let mut body = Self {
            inner,
            trail: Some(trail),
            active,
            connection,
            cut,
            idle: tokio::time::sleep(idle_after),
            idle_after,
            armed: false,
        };
        // A body without bytes is never polled by the server.
        if body.is_end_stream() {
            body.finish();
        }
        body
    }

    fn finish(&mut self) {
        finish(&mut self.trail, &mut self.connection);
    }
}

/// The gateway ends the answer.
fn cut_off(
    trail: &mut Option<Trail>,
    code: DenyCode,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    if let Some(mut trail) = trail.take() {
        trail.cut(code);
    }
    Poll::Ready(Some(Err(CutError(code).into())))
}

fn finish(trail: &mut Option<Trail>, connection: &mut Option<ReturnToPool>) {
    if let Some(connection) = connection.take() {
        connection.complete();
    }
    if let Some(trail) = trail.take() {
        trail.complete();
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        if let Some(signal) = this.cut.as_mut().as_pin_mut()
            && signal.poll(cx).is_ready()
        {
            let code = this.trail.as_ref().and_then(Trail::session_over);
            return cut_off(this.trail, code.unwrap_or(DenyCode::SessionRevoked));
        }
        let mut inner = |cx: &mut Context<'_>| this.inner.as_mut().poll_frame(cx);
        let polled = match this.connection.as_mut().map(|it| &mut it.sender) {
            Some(Sender::Http1(connection)) => connection.poll(cx, inner),
            _ => inner(cx),
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                *this.armed = false;
                this.active.note_progress();
                if let (Some(data), Some(trail)) = (frame.data_ref(), &this.trail) {
                    trail.meter().carry_in(data);
                }
                if this.inner.is_end_stream() {
                    finish(this.trail, this.connection);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                finish(this.trail, this.connection);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(trail) = this.trail.take() {
                    trail.abort(&*error);
                }
                Poll::Ready(Some(Err(error)))
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

impl Body for Scrubbed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project() {
            ScrubbedProjection::Plain { body } => body.poll_frame(cx).map_err(Into::into),
            ScrubbedProjection::Scrubbed { body } => body.poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain { body } => body.is_end_stream(),
            Self::Scrubbed { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain { body } => body.size_hint(),
            Self::Scrubbed { body } => body.size_hint(),
        }
    }
}
