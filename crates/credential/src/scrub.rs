//! Finds one credential, in all its spellings, and says which bytes to mask. Every occurrence is found, overlapping
//! ones too, and every byte of it is masked: nothing of a spelling remains, whatever it overlaps with.
//!
//! A mask is as long as what it covers, so that a content-length stays true. It begins and ends with bytes that occur
//! in no spelling, so that it cannot form another occurrence with its neighbours; only a secret that uses every one
//! of the candidate bytes is masked without that guarantee.
//!
//! Why not one automaton over all spellings: it would hold the secret in memory that cannot be wiped, and it looks at
//! every byte where a vectorised search for the spellings' first four bytes looks at sixteen. Its hits are compared.

use std::{fmt, ops::Range};

use aho_corasick::packed;
use http::HeaderValue;
use outgate_journey::policy::InjectionForm;
use zeroize::Zeroizing;

use crate::{
    spelling::{Text, spellings},
    stream::ScrubStream,
};

/// What the search looks for: the first bytes of each spelling.
const FRAGMENT: usize = 4;
/// What a longer mask begins with.
const LABEL: &[u8] = b"[scrubbed]";
/// Bytes that may fill a mask, best first. None means anything inside a quoted JSON string or a header value.
const FILLERS: &[u8] = b"*#x-._~^|@$!";

/// Knows one credential in all the spellings in which it may come back.
pub struct Scrubber {
    /// Sorted.
    spellings: Vec<Spelling>,
    /// For each first byte, the part of `spellings` that begins with it.
    by_first: Vec<Range<usize>>,
    finder: Option<packed::Searcher>,
    longest: usize,
    filler: u8,
    labelled: bool,
}

struct Spelling {
    text: Text,
    /// How many leading bytes may leave before the rest is known.
    lead: usize,
}

/// What stands at one place of a text.
#[derive(Default)]
pub(crate) struct Found {
    /// The length of the longest spelling that begins there; 0: none.
    pub(crate) length: usize,
    /// The text ends inside a spelling that begins there.
    pub(crate) is_beginning: bool,
    /// It ends there far enough inside that it must not leave.
    pub(crate) must_wait: bool,
}

/// What stands in a text.
#[derive(Default)]
pub(crate) struct Scan {
    /// What to mask: ascending, not overlapping.
    pub(crate) regions: Vec<Range<usize>>,
    /// Where the longest beginning of a spelling starts that the text's end cuts off.
    pub(crate) remember_from: Option<usize>,
    /// Where the longest one starts that must not leave.
    pub(crate) hold_from: Option<usize>,
}

impl Scan {
    /// Records what was found at a place. Places must come in ascending order.
    pub(crate) fn note(&mut self, at: usize, found: &Found) {
        if found.length > 0 {
            let end = at + found.length;
            match self.regions.last_mut() {
                Some(last) if at < last.end => last.end = last.end.max(end),
                _ => self.regions.push(at..end),
            }
        }
        if found.is_beginning {
            self.remember_from.get_or_insert(at);
        }
        if found.must_wait {
            self.hold_from.get_or_insert(at);
        }
    }
}

impl Scrubber {
    /// A scrubber for a secret that is used in these forms.
    pub(crate) fn new(secret: &[u8], forms: &[InjectionForm]) -> Self {
        let spellings: Vec<Spelling> = spellings(secret, forms)
            .into_iter()
            .map(|text| Spelling {
                lead: lead(text.len()),
                text,
            })
            .collect();
        let by_first = (0..=u8::MAX)
            .map(|byte| {
                let start =
                    spellings.partition_point(|spelling| spelling.text.first() < Some(&byte));
                start..spellings.partition_point(|spelling| spelling.text.first() <= Some(&byte))
            })
            .collect();
        let occurs = |byte: u8| {
            spellings
                .iter()
                .any(|spelling| spelling.text.contains(&byte))
        };
        let filler = FILLERS
            .iter()
            .copied()
            .find(|byte| !occurs(*byte))
            .unwrap_or(b'*');
        let is_label = |byte: &u8| LABEL.contains(byte);
        let labelled = !occurs(b'[')
            && !occurs(filler)
            && !spellings
                .iter()
                .any(|spelling| spelling.text.iter().all(is_label));
        let longest = spellings
            .iter()
            .map(|spelling| spelling.text.len())
            .max()
            .unwrap_or(0);
        Self {
            finder: finder(&spellings),
            spellings,
            by_first,
            longest,
            filler,
            labelled,
        }
    }

    /// The value with every occurrence masked; `None` if it holds none.
    #[must_use]
    pub fn header_value(&self, value: &HeaderValue) -> Option<HeaderValue> {
        let regions = self.scan(value.as_bytes()).regions;
        if regions.is_empty() {
            return None;
        }
        let mut text = Zeroizing::new(value.as_bytes().to_vec());
        for region in regions {
            self.mask(text.get_mut(region).unwrap_or_default());
        }
        let mut masked =
            HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
        masked.set_sensitive(value.is_sensitive());
        Some(masked)
    }

    /// Whether the text holds the credential in any spelling.
    #[must_use]
    pub fn contains(&self, text: &[u8]) -> bool {
        !self.scan(text).regions.is_empty()
    }

    /// A scrubber for one stream of bytes.
    #[must_use]
    pub fn stream(self: &std::sync::Arc<Self>) -> ScrubStream {
        ScrubStream::new(std::sync::Arc::clone(self))
    }

    /// The length of the longest spelling.
    pub(crate) const fn longest(&self) -> usize {
        self.longest
    }

    /// Covers one region as a whole.
    pub(crate) fn mask(&self, bytes: &mut [u8]) {
        bytes.fill(self.filler);
        if self.labelled && bytes.len() > LABEL.len() {
            bytes
                .iter_mut()
                .zip(LABEL)
                .for_each(|(byte, label)| *byte = *label);
        }
    }

    /// Covers what is left of a region whose beginning has left already.
    pub(crate) fn mask_rest(&self, bytes: &mut [u8]) {
        bytes.fill(self.filler);
    }

    /// Finds everything in a text. One pass of the vectorised search, and a comparison for each of its hits.
    pub(crate) fn scan(&self, text: &[u8]) -> Scan {
        let mut scan = Scan::default();
        // A spelling's beginning that is shorter than a fragment is invisible to the search.
        let by_hand = text.len().saturating_sub(FRAGMENT - 1);
        let mut from = 0;
        while let Some(at) = self.next_candidate(text, from).filter(|at| *at < by_hand) {
            scan.note(at, &self.look(text, at));
            from = at + 1;
        }
        for at in by_hand..text.len() {
            scan.note(at, &self.look(text, at));
        }
        scan
    }

    /// What stands at one place.
    pub(crate) fn look(&self, text: &[u8], at: usize) -> Found {
        let mut found = Found::default();
        let rest = text.get(at..).unwrap_or_default();
        let Some(first) = rest.first() else {
            return found;
        };
        for spelling in self.beginning_with(*first) {
            let wanted: &[u8] = &spelling.text;
            if rest.len() < wanted.len() {
                if wanted.starts_with(rest) {
                    found.is_beginning = true;
                    found.must_wait |= rest.len() > spelling.lead;
                }
            } else if wanted.len() > found.length && rest.starts_with(wanted) {
                found.length = wanted.len();
            }
        }
        found
    }

    fn beginning_with(&self, first: u8) -> &[Spelling] {
        let range = self
            .by_first
            .get(usize::from(first))
            .cloned()
            .unwrap_or_default();
        self.spellings.get(range).unwrap_or_default()
    }

    fn next_candidate(&self, text: &[u8], from: usize) -> Option<usize> {
        if let Some(finder) = &self.finder {
            let span = aho_corasick::Span::from(from.min(text.len())..text.len());
            return finder.find_in(text, span).map(|hit| hit.start());
        }
        let rest = text.get(from..)?;
        rest.iter()
            .position(|byte| !self.beginning_with(*byte).is_empty())
            .map(|offset| from + offset)
    }
}

/// Three bytes of a spelling may leave before it is recognised, so that a message protocol is not stopped by a
/// message that happens to end with them; of a short one less, because three bytes would be much of it.
const fn lead(length: usize) -> usize {
    if length < 8 { length / 4 } else { FRAGMENT - 1 }
}

/// `None` where the processor has no vector instructions for it; then candidates are found by their first byte.
fn finder(spellings: &[Spelling]) -> Option<packed::Searcher> {
    let mut fragments: Vec<&[u8]> = spellings
        .iter()
        .map(|spelling| spelling.text.get(..FRAGMENT).unwrap_or(&spelling.text))
        .collect();
    fragments.dedup();
    packed::Searcher::new(fragments)
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrubber([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The throughput of bodies without a hit rests on it.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn the_vectorised_search_takes_the_fragments_of_any_kind_of_secret() {
        let form = InjectionForm::Basic {
            username: "user".into(),
        };
        for secret in [
            &b"sk-live-0123456789abcdef"[..],
            b"p@ss/w\"0rd<&>'+`=\\x \xc3\xa9",
            b"\x01\xff\n{}",
        ] {
            let scrubber = Scrubber::new(secret, std::slice::from_ref(&form));
            assert!(
                scrubber.finder.is_some(),
                "{} spellings",
                scrubber.spellings.len()
            );
        }
    }

    #[test]
    fn the_search_by_first_byte_finds_the_same() {
        let fast = Scrubber::new(b"sk-live-0123456789abcdef", &[]);
        let mut slow = Scrubber::new(b"sk-live-0123456789abcdef", &[]);
        slow.finder = None;
        let text =
            b"sk-live sk-live-0123456789abcdef c2stbGl2ZS0wMTIzNDU2Nzg5YWJjZGVm sk-live-01234567";
        let (fast, slow) = (fast.scan(text), slow.scan(text));
        assert_eq!(fast.regions, slow.regions);
        assert_eq!(fast.regions.len(), 2);
        assert_eq!(
            (fast.remember_from, fast.hold_from),
            (slow.remember_from, slow.hold_from)
        );
        assert_eq!(fast.hold_from, Some(text.len() - 16));
    }
}
