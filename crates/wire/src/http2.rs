//! Decides when an HTTP/2 peer only keeps the gateway busy. The HTTP library bounds what streams cost; frames that
//! belong to no stream it answers for as long as they come (RFC 9113 section 10.5 leaves the limit to the receiver).

/// Control frames (`PING`, `SETTINGS`, `PRIORITY`, `RST_STREAM`, and whatever is passed over because nobody knows it) that
/// one window may bring.
const MOST_CONTROL: u32 = 2_000;
/// `WINDOW_UPDATE` frames that one window may bring: a fast download needs many.
const MOST_WINDOW_UPDATES: u32 = 100_000;
/// The client's connection preface (RFC 9113 section 3.4).
const PREFACE: usize = 24;
const HEADER: usize = 9;

/// The peer sends more control frames than any use of the protocol needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a flood of HTTP/2 control frames")]
pub struct Flood;

/// Counts the frames of one connection's input as its bytes go by. Holds nothing of them but an unfinished header.
#[derive(Debug)]
pub struct FrameMeter {
    /// Bytes to pass before the next header.
    skip: usize,
    header: [u8; HEADER],
    filled: usize,
    control: u32,
    window_updates: u32,
}

impl Default for FrameMeter {
    fn default() -> Self {
        Self {
            skip: PREFACE,
            header: [0; HEADER],
            filled: 0,
            control: 0,
            window_updates: 0,
        }
    }
}

impl FrameMeter {
    /// Begins another window: the caller owns the clock.
    pub const fn begin_window(&mut self) {
        self.control = 0;
        self.window_updates = 0;
    }

    /// Counts the frames in `bytes`.
    ///
    /// # Errors
    /// [`Flood`], once a window has brought too many.
    pub fn count(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(());
            }
            let wanted = HEADER - self.filled;
            let (taken, rest) = bytes.split_at(wanted.min(bytes.len()));
            if let Some(place) = self.header.get_mut(self.filled..self.filled + taken.len()) {
                place.copy_from_slice(taken);
            }
            self.filled += taken.len();
            bytes = rest;
            if self.filled < HEADER {
                return Ok(());
            }
            self.filled = 0;
            let [a, b, c, kind, ..] = self.header;
            self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
            self.count_frame(kind)?;
        }
    }

    fn count_frame(&mut self, kind: u8) -> Result<(), Flood> {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const WINDOW_UPDATE: u8 = 8;
        const CONTINUATION: u8 = 9;
        match kind {
            // What streams cost is bounded by the library.
            DATA | HEADERS | CONTINUATION => {}
            WINDOW_UPDATE => self.window_updates += 1,
            _ => self.control += 1,
        }
        if self.control > MOST_CONTROL || self.window_updates > MOST_WINDOW_UPDATES {
            Err(Flood)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        bytes.extend(vec![kind; length.into()]);
        bytes
    }

    fn input(frames: &[Vec<u8>]) -> Vec<u8> {
        [vec![b'x'; PREFACE], frames.concat()].concat()
    }

    #[test]
    fn a_flood_is_told_in_its_window_and_only_there() {
        let pings = input(&vec![frame(6, 8); MOST_CONTROL as usize]);
        let mut meter = FrameMeter::default();
        assert_eq!(meter.count(&pings), Ok(()));
        meter.begin_window();
        assert_eq!(meter.count(&frame(6, 8)), Ok(()));
        for kind in [4, 11, 255] {
            meter.begin_window();
            let flood = frame(kind, 0).repeat(MOST_CONTROL as usize + 1);
            assert_eq!(meter.count(&flood), Err(Flood), "{kind}");
        }
    }

    #[test]
    fn data_and_headers_are_no_flood() {
        let mut meter = FrameMeter::default();
        let frames = input(&vec![[frame(0, 200), frame(1, 9)].concat(); 50_000]);
        assert_eq!(meter.count(&frames), Ok(()));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(
            kinds in prop::collection::vec((0u8..10, 0u8..40), 0..60),
            cuts in prop::collection::vec(1usize..50, 0..200),
        ) {
            let bytes = input(&kinds.iter().map(|(kind, length)| frame(*kind, *length)).collect::<Vec<_>>());
            let (mut whole, mut pieces) = (FrameMeter::default(), FrameMeter::default());
            whole.count(&bytes).unwrap();
            let mut rest = &bytes[..];
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.count(piece).unwrap();
                rest = tail;
            }
            prop_assert_eq!((whole.control, whole.window_updates), (pieces.control, pieces.window_updates));
        }
    }
}
