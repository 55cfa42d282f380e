//! A response body with the credential taken out of it. Streaming stays streaming: what arrives is passed on when it
//! arrives, and memory does not grow with the body. Ends with an error, never silently, if a coded body is damaged
//! or cut short.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use zeroize::Zeroizing;

use crate::{
    decode::{Chain, DecodeFault, STEP},
    scrub::Scrubber,
    stream::{Pieces, ScrubStream},
};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a body ends before its end. The upstream's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// Its content coding is damaged.
    #[error("the upstream's compressed body is damaged")]
    Corrupt,
    /// It stops inside its content coding.
    #[error("the upstream's compressed body ends early")]
    Truncated,
}

impl From<DecodeFault> for BodyFault {
    fn from(fault: DecodeFault) -> Self {
        match fault {
            DecodeFault::Corrupt => Self::Corrupt,
            DecodeFault::Truncated => Self::Truncated,
        }
    }
}

pin_project_lite::pin_project! {
    /// A body with the credential taken out. Without a content coding it has the length of the body inside and its
    /// chunks are not copied; with one it is delivered decoded.
    pub struct ScrubBody<B> {
        #[pin]
        inner: B,
        flow: Flow,
    }
}

/// Everything but the body inside.
struct Flow {
    scrubber: Arc<Scrubber>,
    stream: ScrubStream,
    decoding: Option<Box<Decoding>>,
    ready: Pieces,
    trailers: Option<HeaderMap>,
    ended: bool,
    hits: Arc<AtomicU64>,
}

struct Decoding {
    chain: Chain,
    input: Bytes,
    output: Zeroizing<Vec<u8>>,
}

impl<B> ScrubBody<B> {
    pub(crate) fn new(
        inner: B,
        scrubber: &Arc<Scrubber>,
        chain: Option<Chain>,
        hits: Arc<AtomicU64>,
    ) -> Self {
        let decoding = chain.map(|chain| {
            Box::new(Decoding {
                chain,
                input: Bytes::new(),
                output: Zeroizing::new(vec![0; STEP]),
            })
        });
        let flow = Flow {
            stream: scrubber.stream(),
            scrubber: Arc::clone(scrubber),
            decoding,
            ready: Pieces::default(),
            trailers: None,
            ended: false,
            hits,
        };
        Self { inner, flow }
    }
}

impl Flow {
    fn push(&mut self, chunk: Bytes) {
        let before = self.stream.hits();
        self.ready = self.stream.push(chunk);
        self.hits
            .fetch_add(self.stream.hits() - before, Ordering::Relaxed);
    }

    /// Decodes what was received. Whether something became ready.
    fn decode(&mut self) -> Result<bool, BodyFault> {
        let Some(decoding) = &mut self.decoding else {
            return Ok(false);
        };
        let length = decoding
            .chain
            .decode(&mut decoding.input, &mut decoding.output)?;
        let decoded = decoding
            .output
            .get(..length)
            .map(Bytes::copy_from_slice)
            .unwrap_or_default();
        self.push(decoded);
        Ok(length > 0)
    }

    fn receive(&mut self, chunk: Bytes) {
        match &mut self.decoding {
            Some(decoding) => decoding.input = chunk,
            None => self.push(chunk),
        }
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), BodyFault> {
        self.ended = true;
        if let Some(decoding) = &self.decoding {
            decoding.chain.finish()?;
        }
        self.ready = Pieces::one(self.stream.finish());
        self.trailers = trailers.map(|mut trailers| {
            self.hits.fetch_add(
                scrub_fields(&mut trailers, &self.scrubber),
                Ordering::Relaxed,
            );
            trailers
        });
        Ok(())
    }

    fn unsent(&self) -> u64 {
        u64::try_from(self.ready.len() + self.stream.held_back()).unwrap_or(u64::MAX)
    }
}

/// Masks the credential in field values, and removes fields whose very name holds it. Returns how many.
pub(crate) fn scrub_fields(fields: &mut HeaderMap, scrubber: &Scrubber) -> u64 {
    let mut hits = 0;
    for value in fields.values_mut() {
        if let Some(masked) = scrubber.header_value(value) {
            *value = masked;
            hits += 1;
        }
    }
    let named: Vec<_> = fields
        .keys()
        .filter(|name| scrubber.contains(name.as_str().as_bytes()))
        .cloned()
        .collect();
    for name in named {
        fields.remove(name);
        hits += 1;
    }
    hits
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
        let flow = this.flow;
        loop {
            if let Some(chunk) = flow.ready.next() {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            if flow.ended {
                return Poll::Ready(
                    flow.trailers
                        .take()
                        .map(|trailers| Ok(Frame::trailers(trailers))),
                );
            }
            let step = match flow.decode() {
                Ok(true) => continue,
                Ok(false) => match ready!(this.inner.as_mut().poll_frame(context)) {
                    None => flow.end(None),
                    Some(Err(fault)) => {
                        flow.ended = true;
                        return Poll::Ready(Some(Err(fault.into())));
                    }
                    Some(Ok(frame)) => receive_frame(flow, frame),
                },
                Err(fault) => Err(fault),
            };
            if let Err(fault) = step {
                flow.ended = true;
                return Poll::Ready(Some(Err(fault.into())));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let flow = &self.flow;
        let nothing_left = flow.unsent() == 0 && flow.trailers.is_none();
        nothing_left && (flow.ended || flow.decoding.is_none() && self.inner.is_end_stream())
    }

    /// Exact where the body inside is, unless it is decoded: a mask is as long as what it covers.
    fn size_hint(&self) -> SizeHint {
        let unsent = self.flow.unsent();
        let mut hint = SizeHint::new();
        if self.flow.ended {
            hint.set_exact(unsent);
        } else if self.flow.decoding.is_none() {
            let inner = self.inner.size_hint();
            hint.set_lower(inner.lower().saturating_add(unsent));
            if let Some(upper) = inner.upper().and_then(|upper| upper.checked_add(unsent)) {
                hint.set_upper(upper);
            }
        }
        hint
    }
}

/// A frame that is neither data nor trailers is dropped: nothing of it could be scrubbed.
fn receive_frame(flow: &mut Flow, frame: Frame<Bytes>) -> Result<(), BodyFault> {
    let frame = match frame.into_data() {
        Ok(chunk) => {
            flow.receive(chunk);
            return Ok(());
        }
        Err(frame) => frame,
    };
    frame
        .into_trailers()
        .map_or(Ok(()), |trailers| flow.end(Some(trailers)))
}

impl<B> std::fmt::Debug for ScrubBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScrubBody")
            .field("decodes", &self.flow.decoding.is_some())
            .finish_non_exhaustive()
    }
}
