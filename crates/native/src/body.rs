//! Bodies on their way: counted, charged to the session's budget, cut when the session ends, never buffered.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use outgate_control::sessions::Activity;
use outgate_credential::ScrubBody;
use outgate_journey::{
    denial::DenyCode,
    outgoing::strip_trailers_for_upstream,
    policy::Rule,
    session::{Session, SessionId},
    tripwire::Tripwire,
};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::{
    clock::unix_now,
    guard::ActiveExchange,
    limits::SessionUse,
    pool::{Pool, PoolKey, Sender},
    shared::{Live, Shared},
    trail::{Trail, code_of},
    tripwire::Seen,
};

/// Any error of a body: whatever it is, the stream is cut.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What one exchange has carried. Shared between its two directions and its record.
#[derive(Default)]
pub(crate) struct Meter {
    /// Towards the upstream.
    pub(crate) bytes_out: AtomicU64,
    /// Towards the client.
    pub(crate) bytes_in: AtomicU64,
    /// Credentials taken out of the answer.
    pub(crate) scrubbed: Arc<AtomicU64>,
    /// Why the gateway cut it, if it did.
    pub(crate) cut: OnceLock<DenyCode>,
    /// Of the session whose exchange it is: bytes that move keep it from being idle.
    activity: OnceLock<Arc<Activity>>,
}

impl Meter {
    /// Says whose exchange it is.
    pub(crate) fn is_of(&self, activity: &Arc<Activity>) {
        let _ = self.activity.set(Arc::clone(activity));
    }

    /// Counts bytes towards the upstream.
    pub(crate) fn count_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        self.note_activity();
    }

    /// Counts bytes towards the guest.
    pub(crate) fn count_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.note_activity();
    }

    fn note_activity(&self) {
        if let Some(activity) = self.activity.get() {
            activity.note();
        }
    }
}

/// The stream was ended by the gateway.
#[derive(Debug, thiserror::Error)]
#[error("cut by the gateway: {0}")]
pub(crate) struct CutError(pub(crate) DenyCode);

/// The session's upload budget, charged as bytes go out, and what the tripwire makes of them.
#[derive(Clone)]
pub(crate) struct Budget {
    shared: Arc<Shared>,
    session: SessionId,
    used: Arc<SessionUse>,
    limit: Option<u64>,
    wire: Option<Tripwire>,
}

impl Budget {
    /// A session's budget, where the policy bounds or watches what it sends.
    pub(crate) fn of(shared: &Arc<Shared>, live: &Live, session: &Session) -> Option<Self> {
        let limit = live.policy.bounds_of(session).bytes_out;
        let wire = live.policy.tripwire().copied();
        if limit.is_none() && wire.is_none() {
            return None;
        }
        Some(Self {
            shared: Arc::clone(shared),
            session: session.id().clone(),
            used: shared.plane.limits.of(session.id()),
            limit,
            wire,
        })
    }

    /// Counts bytes; `Err` once the budget is used up, or the tripwire has ended the session.
    pub(crate) fn charge(&self, bytes: usize) -> Result<(), DenyCode> {
        let bytes = bytes as u64;
        if !self.used.charge(bytes, self.limit) {
            return Err(DenyCode::BytesLimit);
        }
        let Some(wire) = &self.wire else {
            return Ok(());
        };
        let seen = Seen::BytesOut(bytes);
        self.shared.watch(wire, &self.used, &self.session, seen)
    }
}

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
        Self {
            inner,
            meter,
            budget,
            cut,
            trailers,
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
            this.meter.count_out(data.len());
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
        match this.inner.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                *this.armed = false;
                this.active.note_progress();
                if let (Some(data), Some(trail)) = (frame.data_ref(), &this.trail) {
                    trail.meter().count_in(data.len());
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

pin_project! {
    /// What the guest gets.
    #[project = AnswerProjection]
    pub(crate) enum AnswerBody {
        /// The gateway's own words.
        Own { bytes: Option<Bytes> },
        /// The upstream's.
        Upstream { #[pin] body: UpstreamBody },
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project() {
            AnswerProjection::Own { bytes } => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            AnswerProjection::Upstream { body } => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { bytes } => bytes.is_none(),
            Self::Upstream { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { bytes } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Upstream { body } => body.size_hint(),
        }
    }
}
