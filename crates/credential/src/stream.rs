//! Scrubbing a stream that comes in arbitrary chunks. A chunk with nothing in it is passed on as it is, without a copy.
//!
//! Held back is only the end of a chunk that begins a spelling and is long enough not to be a coincidence. A shorter
//! one is sent, so that a protocol of messages (gRPC, WebSocket, SSE) never waits for bytes that the peer will not
//! send before it gets an answer; it is remembered, and if the spelling goes on in the next chunk, the rest is masked.
//! So at most the first three bytes of a spelling get out.

use std::{fmt, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use zeroize::Zeroizing;

use crate::scrub::{Scan, Scrubber};

/// The scrubbed bytes that became ready, in order.
#[derive(Debug, Default)]
pub struct Pieces([Option<Bytes>; 2]);

impl Pieces {
    fn of(held: Bytes, chunk: Bytes) -> Self {
        let some = |bytes: Bytes| (!bytes.is_empty()).then_some(bytes);
        Self([some(held), some(chunk)])
    }

    /// Exactly this.
    pub(crate) const fn one(bytes: Option<Bytes>) -> Self {
        Self([bytes, None])
    }

    /// Bytes that were not taken yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().flatten().map(Bytes::len).sum()
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.0.iter_mut().find_map(Option::take)
    }
}

/// Scrubs one stream. Push chunks in order, then finish.
pub struct ScrubStream {
    scrubber: Arc<Scrubber>,
    /// The end of what was pushed, as it was: the longest part that begins a spelling.
    tail: Zeroizing<Vec<u8>>,
    /// The last bytes of `tail`, as they will be sent. What stands before them in `tail` was sent.
    held: Zeroizing<Vec<u8>>,
    hits: u64,
}

impl ScrubStream {
    pub(crate) fn new(scrubber: Arc<Scrubber>) -> Self {
        Self {
            scrubber,
            tail: Zeroizing::default(),
            held: Zeroizing::default(),
            hits: 0,
        }
    }

    /// Takes a chunk and returns what can be sent: what was held back before, then of this chunk all but its held end.
    pub fn push(&mut self, chunk: Bytes) -> Pieces {
        if chunk.is_empty() {
            return Pieces::default();
        }
        let scan = if self.tail.is_empty() {
            self.scrubber.scan(&chunk)
        } else {
            self.scan_across(&chunk)
        };
        if self.tail.is_empty() && scan.regions.is_empty() && scan.remember_from.is_none() {
            return Pieces::one(Some(chunk));
        }
        self.hits = self
            .hits
            .saturating_add(u64::try_from(scan.regions.len()).unwrap_or(u64::MAX));
        self.release(chunk, &scan)
    }

    /// The stream ended: what is held back is no credential.
    pub fn finish(&mut self) -> Option<Bytes> {
        self.tail.clear();
        let rest = Bytes::copy_from_slice(&self.held);
        self.held.clear();
        (!rest.is_empty()).then_some(rest)
    }

    /// How often something was masked. An occurrence that is recognised in two steps may count twice.
    #[must_use]
    pub const fn hits(&self) -> u64 {
        self.hits
    }

    /// How many bytes are held back.
    #[must_use]
    pub fn held_back(&self) -> usize {
        self.held.len()
    }

    /// Scans the remembered tail and the chunk as one text; places count from the tail's start.
    fn scan_across(&self, chunk: &Bytes) -> Scan {
        let base = self.tail.len();
        // A spelling that begins in the tail ends within this part, or is cut off by the chunk's end.
        let near = chunk.get(..self.scrubber.longest()).unwrap_or(chunk);
        let mut joined = Zeroizing::new(Vec::with_capacity(base + near.len()));
        joined.extend_from_slice(&self.tail);
        joined.extend_from_slice(near);
        let mut scan = Scan::default();
        for at in 0..base {
            let mut found = self.scrubber.look(&joined, at);
            if at + found.length <= base {
                // It was masked when its end came in.
                found.length = 0;
            }
            scan.note(at, &found);
        }
        let inner = self.scrubber.scan(chunk);
        for region in inner.regions {
            match scan.regions.last_mut() {
                Some(last) if region.start + base < last.end => {
                    last.end = last.end.max(region.end + base)
                }
                _ => scan.regions.push(region.start + base..region.end + base),
            }
        }
        scan.remember_from = scan
            .remember_from
            .or(inner.remember_from.map(|at| at + base));
        scan.hold_from = scan.hold_from.or(inner.hold_from.map(|at| at + base));
        scan
    }

    fn release(&mut self, chunk: Bytes, scan: &Scan) -> Pieces {
        let base = self.tail.len();
        let end = base + chunk.len();
        let sent = base - self.held.len();
        let mut hold = scan.hold_from.unwrap_or(end).max(sent);
        for region in &scan.regions {
            // What is masked need not wait.
            if region.contains(&hold) {
                hold = region.end;
            }
        }
        self.remember(&chunk, scan.remember_from.unwrap_or(end));
        self.mask_held(&scan.regions, sent);
        let mut chunk = self.masked(chunk, &scan.regions, base);
        let from_chunk = chunk.split_to(hold.saturating_sub(base));
        let from_held = self.held.len().min(hold - sent);
        let ready = Bytes::copy_from_slice(self.held.get(..from_held).unwrap_or_default());
        self.held = rejoined(self.held.get(from_held..).unwrap_or_default(), &chunk);
        Pieces::of(ready, from_chunk)
    }

    /// Keeps the end of tail and chunk, from a place counted from the tail's start.
    fn remember(&mut self, chunk: &[u8], from: usize) {
        let kept = self.tail.get(from..).unwrap_or_default();
        let fresh = chunk
            .get(from.saturating_sub(self.tail.len())..)
            .unwrap_or_default();
        self.tail = rejoined(kept, fresh);
    }

    fn mask_held(&mut self, regions: &[Range<usize>], sent: usize) {
        for region in regions {
            let upper = region.end.saturating_sub(sent).min(self.held.len());
            let lower = region.start.saturating_sub(sent);
            let Some(bytes) = self.held.get_mut(lower..upper) else {
                continue;
            };
            if region.start >= sent {
                self.scrubber.mask(bytes)
            } else {
                self.scrubber.mask_rest(bytes)
            }
        }
    }

    /// The chunk with its part of the regions masked; copied only if there is one and the chunk is shared.
    fn masked(&self, chunk: Bytes, regions: &[Range<usize>], base: usize) -> Bytes {
        if regions.iter().all(|region| region.end <= base) {
            return chunk;
        }
        let mut own = chunk
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        for region in regions {
            let Some(bytes) =
                own.get_mut(region.start.saturating_sub(base)..region.end.saturating_sub(base))
            else {
                continue;
            };
            if region.start >= base {
                self.scrubber.mask(bytes)
            } else {
                self.scrubber.mask_rest(bytes)
            }
        }
        own.freeze()
    }
}

fn rejoined(first: &[u8], second: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut whole = Zeroizing::new(Vec::with_capacity(first.len() + second.len()));
    whole.extend_from_slice(first);
    whole.extend_from_slice(second);
    whole
}

impl fmt::Debug for ScrubStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScrubStream")
            .field("hits", &self.hits)
            .finish_non_exhaustive()
    }
}
