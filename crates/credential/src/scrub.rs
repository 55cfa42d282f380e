//! Finds one credential's last values, in all their spellings, and says which bytes to mask. Every occurrence is found, overlapping
//! ones too, and every byte of it is masked: nothing of a spelling remains, whatever it overlaps with.
//!
//! A mask is as long as what it covers, so that a content-length stays true. It begins and ends with bytes that occur
//! in no spelling, so that it cannot form another occurrence with its neighbours; only a secret that uses every one
//! of the candidate bytes is masked without that guarantee.
//!
//! Why not one automaton over all spellings: it would hold the secret in memory that cannot be wiped, and it looks at
//! every byte where a vectorised search for the spellings' first four bytes looks at sixteen. Its hits are compared.

use std::{fmt, ops::Range};

use http::HeaderValue;
use outgate_journey::policy::InjectionForm;
use zeroize::Zeroizing;

use crate::{
    candidates::{FRAGMENT, Fragments},
    spelling::{Text, spellings},
    stream::ScrubStream,
};

/// What a longer mask begins with.
const LABEL: &[u8] = b"[scrubbed]";
/// Bytes that may fill a mask, best first. None means anything inside a quoted JSON string or a header value.
const FILLERS: &[u8] = b"*#x-._~^|@$!";

/// Knows one credential's last values in all the spellings in which they may come back.
pub struct Scrubber {
    /// Sorted.
    spellings: Vec<Spelling>,
    /// For each first byte, the part of `spellings` that begins with it.
    by_first: Vec<Range<usize>>,
    fragments: Fragments,
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
    /// A scrubber for secrets that are used in these forms.
    pub(crate) fn new(secrets: &[&[u8]], forms: &[InjectionForm]) -> Self {
        let mut texts: Vec<Text> = secrets
            .iter()
            .flat_map(|secret| spellings(secret, forms))
            .collect();
        texts.sort_unstable_by(|left, right| left.as_slice().cmp(right));
        texts.dedup();
        let spellings: Vec<Spelling> = texts
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
            fragments: Fragments::of(spellings.iter().map(|spelling| spelling.text.as_slice())),
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

    /// Finds everything in a text. One pass of each vectorised search (most often there is one), and a comparison for
    /// each hit.
    pub(crate) fn scan(&self, text: &[u8]) -> Scan {
        let mut scan = Scan::default();
        // A spelling's beginning that is shorter than a fragment is invisible to the search.
        let by_hand = text.len().saturating_sub(FRAGMENT - 1);
        let mut candidates = self.fragments.candidates(text);
        while let Some(at) = candidates.next().filter(|at| *at < by_hand) {
            scan.note(at, &self.look(text, at));
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
}

/// Three bytes of a spelling may leave before it is recognised, so that a message protocol is not stopped by a
/// message that happens to end with them; of a short one less, because three bytes would be much of it.
const fn lead(length: usize) -> usize {
    if length < 8 { length / 4 } else { FRAGMENT - 1 }
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
            let scrubber = Scrubber::new(&[secret], std::slice::from_ref(&form));
            let spellings = scrubber.spellings.len();
            assert_eq!(scrubber.fragments.searches(), 1, "{spellings} spellings");
        }
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[test]
    fn the_vectorised_search_takes_three_values_of_any_kind_and_many_forms() {
        let simple = [&b"sk-live-0123456789abcdef"[..], b"aZ9b_xQ7wE5", b"Q-1"];
        let odd = [
            &b"p@ss/w\"0rd<&>'+`=\\x"[..],
            b"<\"&'>\\ +/=`",
            b"&'`=/\"<x>+",
        ];
        for (secrets, users, searches) in [
            (odd, 1, 1..=1),
            // Three bytes are looked for apart.
            (simple, 1, 2..=2),
            (odd, 80, 2..=4),
        ] {
            let forms: Vec<InjectionForm> = (0..users)
                .map(|user| InjectionForm::Basic {
                    username: format!("{user:03}"),
                })
                .collect();
            let scrubber = Scrubber::new(&secrets, &forms);
            let spellings = scrubber.spellings.len();
            let count = scrubber.fragments.searches();
            assert!(
                searches.contains(&count),
                "{count} searches, {spellings} spellings"
            );
            let mut slow = Scrubber::new(&secrets, &forms);
            slow.fragments.without_vectors();
            let mut text = Vec::new();
            for spelling in &scrubber.spellings {
                text.extend_from_slice(&spelling.text);
                text.push(0);
            }
            let regions = scrubber.scan(&text).regions;
            assert_eq!(regions.len(), spellings);
            assert_eq!(regions, slow.scan(&text).regions);
        }
    }

    #[test]
    fn the_search_by_first_byte_finds_the_same() {
        let fast = Scrubber::new(&[b"sk-live-0123456789abcdef"], &[]);
        let mut slow = Scrubber::new(&[b"sk-live-0123456789abcdef"], &[]);
        slow.fragments.without_vectors();
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
