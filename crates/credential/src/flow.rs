//! One answer's body, pushed chunk by chunk: decoded, searched, and given on as soon as it is ready. Ends with an
//! error, never silently, if a coded body is damaged or cut short.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use http::HeaderMap;
use zeroize::Zeroizing;

use crate::{
    decode::{Chain, DecodeFault, STEP},
    scrub::Scrubber,
    stream::{Pieces, ScrubStream},
};

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

/// Takes the credential out of one body. Push a chunk, take all that is ready, and so on; finish, take the rest.
/// What was not taken when the next chunk is pushed is lost.
pub struct ScrubFlow {
    scrubber: Arc<Scrubber>,
    stream: ScrubStream,
    decoding: Option<Box<Decoding>>,
    ready: Pieces,
    hits: Arc<AtomicU64>,
}

struct Decoding {
    chain: Chain,
    input: Bytes,
    output: Zeroizing<Vec<u8>>,
}

impl ScrubFlow {
    pub(crate) fn new(
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
        Self {
            stream: scrubber.stream(),
            scrubber: Arc::clone(scrubber),
            decoding,
            ready: Pieces::default(),
            hits,
        }
    }

    /// Whether the body is delivered decoded, so that its length is not known.
    #[must_use]
    pub const fn decodes(&self) -> bool {
        self.decoding.is_some()
    }

    /// Takes a chunk as it came.
    pub fn push(&mut self, chunk: Bytes) {
        match &mut self.decoding {
            Some(decoding) => decoding.input = chunk,
            None => self.search(chunk),
        }
    }

    /// The next bytes that are ready: at most one chunk's, or one step's of decoding. `None`: push or finish.
    ///
    /// # Errors
    /// [`BodyFault::Corrupt`]; nothing more may be delivered then.
    pub fn pull(&mut self) -> Result<Option<Bytes>, BodyFault> {
        loop {
            if let Some(chunk) = self.ready.next() {
                return Ok(Some(chunk));
            }
            if !self.decode()? {
                return Ok(None);
            }
        }
    }

    /// The body is over: what was held back becomes ready.
    ///
    /// # Errors
    /// [`BodyFault::Truncated`].
    pub fn finish(&mut self) -> Result<(), BodyFault> {
        if let Some(decoding) = &self.decoding {
            decoding.chain.finish()?;
        }
        self.ready = Pieces::one(self.stream.finish());
        Ok(())
    }

    /// Nothing more is delivered, whatever was ready.
    pub(crate) fn abandon(&mut self) {
        self.ready = Pieces::default();
        self.decoding = None;
    }

    /// Takes the credential out of the fields that follow the body.
    pub fn scrub_trailers(&self, trailers: &mut HeaderMap) {
        self.hits
            .fetch_add(scrub_fields(trailers, &self.scrubber), Ordering::Relaxed);
    }

    /// Bytes that came in and were not given out; without those that wait to be decoded.
    pub(crate) fn unsent(&self) -> u64 {
        u64::try_from(self.ready.len() + self.stream.held_back()).unwrap_or(u64::MAX)
    }

    fn search(&mut self, chunk: Bytes) {
        let before = self.stream.hits();
        self.ready = self.stream.push(chunk);
        self.hits
            .fetch_add(self.stream.hits() - before, Ordering::Relaxed);
    }

    /// Decodes what was received. Whether something came out.
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
        self.search(decoded);
        Ok(length > 0)
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

impl std::fmt::Debug for ScrubFlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScrubFlow")
            .field("decodes", &self.decodes())
            .finish_non_exhaustive()
    }
}
