//! A response body with the credential taken out of it. Streaming stays streaming: what arrives is passed on when it
//! arrives, and memory does not grow with the body. Ends with an error, never silently, if a coded body is damaged
//! or cut short.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::flow::{BodyFault, ScrubFlow};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

pin_project_lite::pin_project! {
    /// A body with the credential taken out. Without a content coding it has the length of the body inside and its
    /// chunks are not copied; with one it is delivered decoded.
    pub struct ScrubBody<B> {
        #[pin]
        inner: B,
        rest: Rest,
    }
}

/// Everything but the body inside.
struct Rest {
    flow: ScrubFlow,
    trailers: Option<HeaderMap>,
    ended: bool,
}

impl<B> ScrubBody<B> {
    pub(crate) const fn new(inner: B, flow: ScrubFlow) -> Self {
        let rest = Rest {
            flow,
            trailers: None,
            ended: false,
        };
        Self { inner, rest }
    }
}

impl Rest {
    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), BodyFault> {
        self.ended = true;
        self.flow.finish()?;
        self.trailers = trailers.map(|mut trailers| {
            self.flow.scrub_trailers(&mut trailers);
            trailers
        });
        Ok(())
    }

    /// A frame that is neither data nor trailers is dropped: nothing of it could be scrubbed.
    fn receive(&mut self, frame: Frame<Bytes>) -> Result<(), BodyFault> {
        match frame.into_data() {
            Ok(chunk) => {
                self.flow.push(chunk);
                Ok(())
            }
            Err(frame) => frame
                .into_trailers()
                .map_or(Ok(()), |trailers| self.end(Some(trailers))),
        }
    }
}

impl<B> Body for ScrubBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let rest = this.rest;
        let fault = loop {
            match rest.flow.pull() {
                Ok(Some(chunk)) => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
                Ok(None) => {}
                Err(fault) => break fault.into(),
            }
            if rest.ended {
                let trailers = rest.trailers.take();
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            let step = match ready!(this.inner.as_mut().poll_frame(context)) {
                None => rest.end(None),
                Some(Ok(frame)) => rest.receive(frame),
                Some(Err(fault)) => break fault.into(),
            };
            if let Err(fault) = step {
                break fault.into();
            }
        };
        rest.ended = true;
        rest.flow.abandon();
        Poll::Ready(Some(Err(fault)))
    }

    fn is_end_stream(&self) -> bool {
        let rest = &self.rest;
        let nothing_left = rest.flow.unsent() == 0 && rest.trailers.is_none();
        nothing_left && (rest.ended || !rest.flow.decodes() && self.inner.is_end_stream())
    }

    /// Exact where the body inside is, unless it is decoded: a mask is as long as what it covers.
    fn size_hint(&self) -> SizeHint {
        let unsent = self.rest.flow.unsent();
        let mut hint = SizeHint::new();
        if self.rest.ended {
            hint.set_exact(unsent);
        } else if !self.rest.flow.decodes() {
            let inner = self.inner.size_hint();
            hint.set_lower(inner.lower().saturating_add(unsent));
            if let Some(upper) = inner.upper().and_then(|upper| upper.checked_add(unsent)) {
                hint.set_upper(upper);
            }
        }
        hint
    }
}

impl<B> std::fmt::Debug for ScrubBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScrubBody")
            .field("decodes", &self.rest.flow.decodes())
            .finish_non_exhaustive()
    }
}
