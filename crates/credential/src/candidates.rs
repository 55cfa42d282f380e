//! Where in a text a spelling may begin: a vectorised search for the spellings' first bytes. Its hits are for the caller
//! to compare; what it does not show begins no spelling that it could see whole.

use aho_corasick::{Span, packed};
use smallvec::SmallVec;

/// What the search looks for: the first bytes of each spelling.
pub(crate) const FRAGMENT: usize = 4;
/// How many fragments one search takes for each of their bytes: what makes it stop at a place by accident grows with their
/// number, and falls with their length.
const FRAGMENTS_A_BYTE: usize = 16;
/// Each field of each answer is searched: so many searches at once need no memory of their own.
const USUAL_SEARCHES: usize = 4;

/// The first bytes of spellings.
pub(crate) struct Fragments {
    /// Each looks for a part of them. None where the processor has no vector instructions for it; then candidates are found
    /// by their first byte.
    searches: Vec<packed::Searcher>,
    begins: [bool; 256],
}

impl Fragments {
    /// Those of these texts, none of which is empty.
    pub(crate) fn of<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut fragments: Vec<&[u8]> = texts
            .map(|text| text.get(..FRAGMENT).unwrap_or(text))
            .collect();
        // Apart by length, because the shortest says how much of all of them a search compares.
        fragments.sort_unstable_by_key(|fragment| (fragment.len(), *fragment));
        fragments.dedup();
        let mut begins = [false; 256];
        for first in fragments.iter().filter_map(|fragment| fragment.first()) {
            if let Some(begins) = begins.get_mut(usize::from(*first)) {
                *begins = true;
            }
        }
        let searches = fragments
            .chunk_by(|left, right| left.len() == right.len())
            .flat_map(|alike| {
                let length = alike.first().map_or(1, |fragment| fragment.len());
                alike.chunks(FRAGMENTS_A_BYTE * length.max(1))
            })
            .map(packed::Searcher::new)
            .collect::<Option<_>>()
            .unwrap_or_default();
        Self { searches, begins }
    }

    /// The places where one of them stands, ascending; where there is no search, those where one's first byte does.
    pub(crate) fn candidates<'a>(&'a self, text: &'a [u8]) -> Candidates<'a> {
        let hits = self.searches.iter();
        Candidates {
            fragments: self,
            text,
            from: 0,
            hits: hits.map(|search| hit(search, text, 0)).collect(),
        }
    }

    #[cfg(test)]
    pub(crate) const fn searches(&self) -> usize {
        self.searches.len()
    }

    #[cfg(test)]
    pub(crate) fn without_vectors(&mut self) {
        self.searches.clear();
    }
}

pub(crate) struct Candidates<'a> {
    fragments: &'a Fragments,
    text: &'a [u8],
    /// Where the search goes on.
    from: usize,
    /// Each search's next hit, so that one with few hits does not read the same text again for every hit of another.
    hits: SmallVec<[Option<usize>; USUAL_SEARCHES]>,
}

impl Candidates<'_> {
    fn next_by_first(&self) -> Option<usize> {
        let begins = |byte: &u8| self.fragments.begins.get(usize::from(*byte)) == Some(&true);
        let offset = self.text.get(self.from..)?.iter().position(begins)?;
        Some(self.from + offset)
    }
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        for (next, search) in self.hits.iter_mut().zip(&self.fragments.searches) {
            if next.is_some_and(|at| at < self.from) {
                *next = hit(search, self.text, self.from);
            }
        }
        let at = if self.hits.is_empty() {
            self.next_by_first()
        } else {
            self.hits.iter().flatten().min().copied()
        }?;
        self.from = at + 1;
        Some(at)
    }
}

fn hit(search: &packed::Searcher, text: &[u8], from: usize) -> Option<usize> {
    let span = Span::from(from.min(text.len())..text.len());
    search.find_in(text, span).map(|hit| hit.start())
}
