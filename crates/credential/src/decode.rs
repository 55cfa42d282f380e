//! Undoing content codings (RFC 9110 section 8.4.1, RFC 8878, RFC 7932), pushed chunk by chunk: whatever the bytes
//! received so far decode to comes out at once, so that events of a compressed stream are not held until its end.
//! Memory is bounded by the coding's window (zstd: 8 MiB, RFC 9659) and one buffer, however much comes out.
//!
//! Refuses a stream that is damaged or ends early. What follows a complete stream, and does not begin another one
//! where the coding allows several, is dropped: it is padding at best, and it cannot be scrubbed.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use bytes::{Buf, Bytes};
use flate2::{Decompress, FlushDecompress, Status};
use zeroize::Zeroizing;
use zstd::stream::raw::{DParameter, Operation};

/// Bytes decoded in one step.
pub(crate) const STEP: usize = 16 * 1024;
/// The largest DEFLATE window, as a power of two.
const DEFLATE_WINDOW: u8 = 15;
/// The largest window that a zstd content coding may use (RFC 9659).
const ZSTD_WINDOW: u32 = 23;

/// A content coding that can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// Why a body cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecodeFault {
    Corrupt,
    Truncated,
}

enum Engine {
    Inflate(Decompress),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(zstd::stream::raw::Decoder<'static>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// No byte yet.
    Fresh,
    Running,
    /// A stream is complete.
    Ended,
    /// Something else follows.
    Dropping,
}

/// Undoes one coding.
struct Decoder {
    coding: Coding,
    engine: Option<Engine>,
    progress: Progress,
    /// The last step filled its buffer: more may come without further input.
    is_pending: bool,
}

/// What one step of an engine did.
struct Stepped {
    read: usize,
    written: usize,
    ended: bool,
}

impl Decoder {
    const fn new(coding: Coding) -> Self {
        Self {
            coding,
            engine: None,
            progress: Progress::Fresh,
            is_pending: false,
        }
    }

    /// Decodes some of `input` into `output`; returns bytes read and written. Reads or writes something unless
    /// `input` is empty.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), DecodeFault> {
        let Some(first) = input.first() else {
            return if self.is_pending {
                self.run(input, output)
            } else {
                Ok((0, 0))
            };
        };
        match self.progress {
            Progress::Fresh => self.begin(*first)?,
            Progress::Ended if self.begins_another(*first) => self.begin(*first)?,
            Progress::Ended => self.progress = Progress::Dropping,
            Progress::Running | Progress::Dropping => {}
        }
        if self.progress == Progress::Dropping {
            return Ok((input.len(), 0));
        }
        self.run(input, output)
    }

    fn begin(&mut self, first: u8) -> Result<(), DecodeFault> {
        self.engine = Some(engine(self.coding, first)?);
        self.progress = Progress::Running;
        Ok(())
    }

    /// Whether the first byte after a complete stream begins another: a gzip member, a zstd or skippable frame.
    const fn begins_another(&self, first: u8) -> bool {
        match self.coding {
            Coding::Gzip => first == 0x1f,
            Coding::Zstd => first == 0x28 || first >> 4 == 5,
            Coding::Deflate | Coding::Brotli => false,
        }
    }

    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), DecodeFault> {
        let Some(engine) = &mut self.engine else {
            return Ok((0, 0));
        };
        let done = match engine {
            Engine::Inflate(state) => inflate(state, input, output)?,
            Engine::Brotli(state) => unbrotli(state, input, output)?,
            Engine::Zstd(state) => {
                let status = state
                    .run_on_buffers(input, output)
                    .map_err(|_| DecodeFault::Corrupt)?;
                Stepped {
                    read: status.bytes_read,
                    written: status.bytes_written,
                    ended: status.remaining == 0,
                }
            }
        };
        self.is_pending = done.written == output.len() && !done.ended;
        if done.ended {
            self.progress = Progress::Ended;
            // Its window is not needed any more.
            self.engine = None;
        } else if done.read == 0 && done.written == 0 && !input.is_empty() {
            return Err(DecodeFault::Corrupt);
        }
        Ok((done.read, done.written))
    }

    const fn is_complete(&self) -> bool {
        !matches!(self.progress, Progress::Running)
    }
}

fn engine(coding: Coding, first: u8) -> Result<Engine, DecodeFault> {
    Ok(match coding {
        Coding::Gzip => Engine::Inflate(Decompress::new_gzip(DEFLATE_WINDOW)),
        // RFC 9110 means the zlib format, and some servers send bare DEFLATE: a first byte whose low half is 8 is a
        // zlib header; in bare DEFLATE it would be a stored block with dirty padding.
        Coding::Deflate => Engine::Inflate(Decompress::new(first & 0x0f == 8)),
        Coding::Brotli => Engine::Brotli(Box::new(BrotliState::new(
            StandardAlloc::default(),
            StandardAlloc::default(),
            StandardAlloc::default(),
        ))),
        Coding::Zstd => {
            let mut state = zstd::stream::raw::Decoder::new().map_err(|_| DecodeFault::Corrupt)?;
            state
                .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))
                .map_err(|_| DecodeFault::Corrupt)?;
            Engine::Zstd(state)
        }
    })
}

fn inflate(
    state: &mut Decompress,
    input: &[u8],
    output: &mut [u8],
) -> Result<Stepped, DecodeFault> {
    let (read, written) = (state.total_in(), state.total_out());
    let status = state
        .decompress(input, output, FlushDecompress::None)
        .map_err(|_| DecodeFault::Corrupt)?;
    let length =
        |before: u64, after: u64| usize::try_from(after - before).map_err(|_| DecodeFault::Corrupt);
    Ok(Stepped {
        read: length(read, state.total_in())?,
        written: length(written, state.total_out())?,
        ended: status == Status::StreamEnd,
    })
}

fn unbrotli(
    state: &mut BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    input: &[u8],
    output: &mut [u8],
) -> Result<Stepped, DecodeFault> {
    let (mut unread, mut read) = (input.len(), 0);
    let (mut room, mut written, mut total) = (output.len(), 0, 0);
    let result = BrotliDecompressStream(
        &mut unread,
        &mut read,
        input,
        &mut room,
        &mut written,
        output,
        &mut total,
        state,
    );
    match result {
        BrotliResult::ResultFailure => Err(DecodeFault::Corrupt),
        BrotliResult::ResultSuccess => Ok(Stepped {
            read,
            written,
            ended: true,
        }),
        BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => Ok(Stepped {
            read,
            written,
            ended: false,
        }),
    }
}

/// Undoes one coding, or two on top of each other.
pub(crate) struct Chain {
    outer: Decoder,
    inner: Option<Inner>,
}

struct Inner {
    decoder: Decoder,
    between: Zeroizing<Vec<u8>>,
    /// What of `between` is not decoded yet.
    unread: std::ops::Range<usize>,
}

impl Chain {
    /// `outer` was applied last.
    pub(crate) fn new(outer: Coding, inner: Option<Coding>) -> Self {
        let inner = inner.map(|coding| Inner {
            decoder: Decoder::new(coding),
            between: Zeroizing::new(vec![0; STEP]),
            unread: 0..0,
        });
        Self {
            outer: Decoder::new(outer),
            inner,
        }
    }

    /// Decodes until something comes out or `input` is used up; returns how much came out.
    pub(crate) fn decode(
        &mut self,
        input: &mut Bytes,
        output: &mut [u8],
    ) -> Result<usize, DecodeFault> {
        loop {
            let written = match &mut self.inner {
                None => self.outer.take(input, output)?,
                Some(inner) => {
                    if inner.unread.is_empty() && !inner.decoder.is_pending {
                        let length = self.outer.take(input, &mut inner.between)?;
                        inner.unread = 0..length;
                    }
                    let unread = inner.between.get(inner.unread.clone()).unwrap_or_default();
                    let (read, written) = inner.decoder.step(unread, output)?;
                    inner.unread.start += read;
                    written
                }
            };
            let is_idle = |inner: &Inner| inner.unread.is_empty() && !inner.decoder.is_pending;
            let is_used_up = input.is_empty()
                && !self.outer.is_pending
                && self.inner.as_ref().is_none_or(is_idle);
            if written > 0 || is_used_up {
                return Ok(written);
            }
        }
    }

    /// Judges the end of the body. One that is empty altogether is complete: servers send it with any coding.
    pub(crate) const fn finish(&self) -> Result<(), DecodeFault> {
        let inner_complete = match &self.inner {
            None => true,
            Some(inner) => inner.decoder.is_complete(),
        };
        if self.outer.is_complete() && inner_complete {
            Ok(())
        } else {
            Err(DecodeFault::Truncated)
        }
    }
}

impl Decoder {
    fn take(&mut self, input: &mut Bytes, output: &mut [u8]) -> Result<usize, DecodeFault> {
        let (read, written) = self.step(input, output)?;
        input.advance(read);
        Ok(written)
    }
}
