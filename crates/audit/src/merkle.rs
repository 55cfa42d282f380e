//! The Merkle tree over the whole log (RFC 6962 section 2.1): one leaf a record, in order, so that a leaf's index is
//! the record's sequence number. Kept as its frontier, which is a handful of hashes however long the log is.

use crate::chain::{Hash, digest};

const LEAF: &[u8] = &[0];
const NODE: &[u8] = &[1];

/// The leaf of a record: its chain hash covers its number, what came before it, and its bytes.
pub(crate) fn leaf_hash(record: Hash) -> Hash {
    digest(&[LEAF, &record.0])
}

fn node_hash(left: Hash, right: Hash) -> Hash {
    digest(&[NODE, &left.0, &right.0])
}

/// A tree, as the roots of the perfect trees that it is made of, the largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// One peak for every binary digit of the size that is set.
    pub(crate) fn from_parts(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        let wanted = usize::try_from(size.count_ones()).ok()?;
        (peaks.len() == wanted).then_some(Self { size, peaks })
    }

    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    pub(crate) fn push(&mut self, leaf: Hash) {
        self.push_subtree(0, leaf);
    }

    /// Appends a perfect tree of `1 << height` leaves. The size must be a multiple of that.
    fn push_subtree(&mut self, height: u32, root: Hash) {
        let mut node = root;
        for _ in 0..(self.size >> height).trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                node = node_hash(left, node);
            }
        }
        self.peaks.push(node);
        self.size += 1 << height;
    }

    /// Appends the leaves of a range; `false` if it does not begin where the tree ends.
    pub(crate) fn extend(&mut self, range: &Range) -> bool {
        let joins = range.first == self.size;
        if joins {
            for (height, root) in &range.subtrees {
                self.push_subtree(*height, *root);
            }
        }
        joins
    }

    pub(crate) fn root(&self) -> Hash {
        let from_the_right = self.peaks.iter().rev().copied();
        from_the_right
            .reduce(|right, left| node_hash(left, right))
            .unwrap_or_else(|| digest(&[]))
    }
}

/// Leaves from the middle of a tree, hashed together as far as they can be without those before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    first: u64,
    next: u64,
    /// Perfect trees, by their height, from left to right.
    subtrees: Vec<(u32, Hash)>,
}

impl Range {
    /// No leaf yet; the first will have this index.
    pub(crate) const fn at(first: u64) -> Self {
        Self {
            first,
            next: first,
            subtrees: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, leaf: Hash) {
        let (mut node, mut height) = (leaf, 0);
        // A right child, whose left sibling is here.
        while (self.next >> height) & 1 == 1
            && let Some((_, left)) = self.subtrees.pop_if(|(left, _)| *left == height)
        {
            node = node_hash(left, node);
            height += 1;
        }
        self.subtrees.push((height, node));
        self.next += 1;
    }
}

/// The root that a leaf and its path lead to; `None` if the path cannot be one of a tree of this size.
pub(crate) fn root_of_path(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    let mut last = size.checked_sub(1)?;
    let mut index = (index <= last).then_some(index)?;
    let mut node = leaf;
    for sibling in path {
        if last == 0 {
            return None;
        }
        if index & 1 == 1 || index == last {
            node = node_hash(*sibling, node);
            // The levels on which the last node has no sibling.
            while index & 1 == 0 && index != 0 {
                index >>= 1;
                last >>= 1;
            }
        } else {
            node = node_hash(node, *sibling);
        }
        index >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(node)
}

/// The way from one leaf to the root of a tree, made in one pass over the leaves behind a known frontier.
pub(crate) struct PathFinder<'a, F> {
    known: u64,
    peaks: std::slice::Iter<'a, Hash>,
    next_leaf: F,
}

impl<'a, E, F: FnMut() -> Result<Hash, E>> PathFinder<'a, F> {
    /// `next_leaf` gives the leaves behind the frontier, in order.
    pub(crate) fn new(frontier: &'a Frontier, next_leaf: F) -> Self {
        Self {
            known: frontier.size,
            peaks: frontier.peaks.iter(),
            next_leaf,
        }
    }

    /// The path of leaf `index`, which is not before the frontier's end, in the tree of the first `size` leaves: from
    /// the leaf's sibling up to the root's child.
    pub(crate) fn path(mut self, index: u64, size: u64) -> Result<Vec<Hash>, E> {
        let mut path = Vec::new();
        self.descend(0, size, index, &mut path)?;
        Ok(path)
    }

    fn descend(&mut self, from: u64, size: u64, index: u64, path: &mut Vec<Hash>) -> Result<(), E> {
        if size <= 1 {
            (self.next_leaf)()?;
            return Ok(());
        }
        let left = left_size(size);
        if index < from + left {
            self.descend(from, left, index, path)?;
            path.push(self.root(from + left, size - left)?);
        } else {
            let sibling = self.root(from, left)?;
            self.descend(from + left, size - left, index, path)?;
            path.push(sibling);
        }
        Ok(())
    }

    /// A subtree that the frontier covers whole is one of its peaks: both are cut at the same powers of two.
    fn root(&mut self, from: u64, size: u64) -> Result<Hash, E> {
        if from + size <= self.known
            && let Some(peak) = self.peaks.next()
        {
            return Ok(*peak);
        }
        if size <= 1 {
            return (self.next_leaf)();
        }
        let left = left_size(size);
        let (left, right) = (self.root(from, left)?, self.root(from + left, size - left)?);
        Ok(node_hash(left, right))
    }
}

/// The largest power of two that is smaller.
const fn left_size(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use proptest::prelude::*;
    use sha2::Sha256;

    use super::*;

    fn record(number: u64) -> Hash {
        digest(&[&number.to_be_bytes()])
    }

    fn tree(size: u64) -> Frontier {
        let mut tree = Frontier::default();
        for number in 0..size {
            tree.push(leaf_hash(record(number)));
        }
        tree
    }

    fn oracle(size: u64) -> MemoryBackedTree<Sha256, [u8; 32]> {
        let mut tree = MemoryBackedTree::new();
        for number in 0..size {
            tree.push(record(number).0);
        }
        tree
    }

    fn path(index: u64, size: u64, known: u64) -> Vec<Hash> {
        let frontier = tree(known);
        let mut next = known;
        let found: Result<_, Infallible> = PathFinder::new(&frontier, || {
            next += 1;
            Ok(leaf_hash(record(next - 1)))
        })
        .path(index, size);
        assert_eq!(next, size, "every leaf is read once");
        found.unwrap()
    }

    /// RFC 6962's own values are over other leaves; another implementation is the judge.
    #[test]
    fn roots_and_paths_are_those_of_another_implementation() {
        assert_eq!(
            Frontier::default().root().text(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        for size in 1..70 {
            let oracle = oracle(size);
            let root = tree(size).root();
            assert_eq!(&root.0[..], &oracle.root().as_bytes()[..], "size {size}");
            for index in 0..size {
                let ours = path(index, size, 0);
                let bytes: Vec<u8> = ours.iter().flat_map(|hash| hash.0).collect();
                let theirs = oracle.prove_inclusion(usize::try_from(index).unwrap());
                assert_eq!(bytes, theirs.as_bytes(), "{index} of {size}");
                assert_eq!(
                    root_of_path(leaf_hash(record(index)), index, size, &ours),
                    Some(root)
                );
            }
        }
    }

    proptest! {
        #[test]
        fn a_known_frontier_gives_the_same_path(size in 1_u64..600, a in any::<u64>(), b in any::<u64>()) {
            let known = a % size;
            let index = known + b % (size - known);
            prop_assert_eq!(path(index, size, known), path(index, size, 0));
        }

        #[test]
        fn a_tree_made_of_ranges_is_the_same_tree(cuts in prop::collection::vec(0_u64..90, 0..8)) {
            let mut whole = Frontier::default();
            for cut in &cuts {
                let mut range = Range::at(whole.size());
                let end = whole.size() + cut;
                (whole.size()..end).for_each(|number| range.push(leaf_hash(record(number))));
                prop_assert!(whole.extend(&range));
                prop_assert!(*cut == 0 || !whole.extend(&range));
            }
            prop_assert_eq!(&whole, &tree(cuts.iter().sum()));
        }

        #[test]
        fn a_path_fits_one_leaf_of_one_tree(size in 1_u64..300, a in any::<u64>(), b in any::<u64>(), at in any::<usize>()) {
            let index = a % size;
            let good = path(index, size, 0);
            let root = Some(tree(size).root());
            let leaf = leaf_hash(record(index));
            let other = b % size;
            if other != index {
                prop_assert_ne!(root_of_path(leaf, other, size, &good), root);
            }
            prop_assert_eq!(root_of_path(leaf, size, size, &good), None);
            prop_assert_ne!(root_of_path(leaf_hash(record(size)), index, size, &good), root);
            let mut longer = good.clone();
            longer.push(leaf);
            prop_assert_eq!(root_of_path(leaf, index, size, &longer), None);
            if !good.is_empty() {
                let at = at % good.len();
                let mut wrong = good.clone();
                wrong[at].0[0] ^= 1;
                prop_assert_ne!(root_of_path(leaf, index, size, &wrong), root);
                let mut shorter = good.clone();
                shorter.remove(at);
                prop_assert_ne!(root_of_path(leaf, index, size, &shorter), root);
            }
        }
    }
}
