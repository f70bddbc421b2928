//! Ranges of keys that are locked, found by the keys that belong to them.
//!
//! A binary tree in the order of where ranges begin. Each node knows how far any range at or below it
//! reaches, so a search leaves out what ends before the keys that it is for, and what begins behind them: it
//! takes about as many steps as the tree is deep for each range that it finds, and the tree is about
//! logarithmically deep. Ranges may overlap in any way.
//!
//! Invariants:
//! 1. In order, beginnings ascend; ranges that begin alike are in the order of their numbers.
//! 2. No node's rank is above that of its parent (a treap). Ranks are mixed from numbers, so the shape is
//!    that of a tree to which the ranges came in random order, however they came.
//! 3. A node's `reach` is the furthest end at or below it.

use std::cmp::Ordering;

use crate::codec::key;
use crate::error::LockOwner;
use crate::sync::Arc;
use crate::txn::keys::Keys;
use crate::txn::locks::want::Span;

/// A range that an owner has locked.
pub(super) struct LockedRange {
    pub(super) span: Span,
    pub(super) owner: LockOwner,
    /// Tells it from others with the same bounds.
    pub(super) number: u64,
}

impl LockedRange {
    fn start(&self) -> &[u8] {
        self.span.keys().start()
    }

    fn order(&self, start: &[u8], number: u64) -> Ordering {
        key::compare(self.start(), start).then(self.number.cmp(&number))
    }
}

type Link = Option<Box<Node>>;

struct Node {
    range: LockedRange,
    rank: u64,
    reach: Option<Arc<[u8]>>,
    left: Link,
    right: Link,
}

impl Node {
    /// Finds its reach again, after what is below it changed.
    fn measure(&mut self) {
        let mut reach = match &self.range.span {
            Span::One(key) => Some(key),
            Span::Range(_, end) => end.as_ref(),
        };
        for below in [&self.left, &self.right].into_iter().flatten() {
            reach = match (reach, &below.reach) {
                (Some(own), Some(other)) if key::compare(own, other).is_ge() => Some(own),
                (Some(_), Some(other)) => Some(other),
                _ => None,
            };
        }
        self.reach = reach.cloned();
    }
}

/// Locked ranges of one family.
#[derive(Default)]
pub(super) struct Ranges(Link);

impl Ranges {
    /// Bytes of memory that each takes beside its bounds.
    pub(super) const BYTES_EACH: usize = size_of::<Node>();

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn insert(&mut self, range: LockedRange) {
        let (before, behind) = split(self.0.take(), range.start(), range.number);
        let rank = mixed(range.number);
        let mut node = Box::new(Node { range, rank, reach: None, left: None, right: None });
        node.measure();
        self.0 = join(join(before, Some(node)), behind);
    }

    /// Takes out the range with these bounds and this number.
    pub(super) fn remove(&mut self, span: &Span, number: u64) -> Option<LockedRange> {
        let (before, rest) = split(self.0.take(), span.keys().start(), number);
        let (found, behind) = split(rest, span.keys().start(), number + 1);
        self.0 = join(before, behind);
        found.map(|node| node.range)
    }

    /// Those that have keys in common with `keys`.
    pub(super) fn overlapping<'r>(&'r self, keys: Keys<'r>) -> Search<'r> {
        Search { keys, next: self.0.as_deref().into_iter().collect(), steps: 0 }
    }

    /// All of them, by where they begin.
    pub(super) fn all(&self) -> impl Iterator<Item = &LockedRange> {
        let mut above: Vec<&Node> = Vec::new();
        let mut next = self.0.as_deref();
        std::iter::from_fn(move || {
            while let Some(node) = next {
                above.push(node);
                next = node.left.as_deref();
            }
            let node = above.pop()?;
            next = node.right.as_deref();
            Some(&node.range)
        })
    }
}

/// Ranges that have keys in common with others.
pub(super) struct Search<'r> {
    keys: Keys<'r>,
    /// Nodes whose ranges, and what is below them, are still to be looked at.
    next: Vec<&'r Node>,
    /// Nodes that were looked at.
    steps: usize,
}

impl<'r> Iterator for Search<'r> {
    type Item = &'r LockedRange;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(node) = self.next.pop() {
            self.steps += 1;
            if node.reach.as_ref().is_some_and(|end| key::compare(end, self.keys.start()).is_le()) {
                continue;
            }
            self.next.extend(node.left.as_deref());
            if self.keys.is_below(node.range.start()) {
                continue;
            }
            self.next.extend(node.right.as_deref());
            if node.range.span.keys().overlaps(self.keys) {
                return Some(&node.range);
            }
        }
        None
    }
}

/// Those before `start` and `number`, and the others.
fn split(tree: Link, start: &[u8], number: u64) -> (Link, Link) {
    let Some(mut node) = tree else { return (None, None) };
    if node.range.order(start, number).is_lt() {
        let (before, behind) = split(node.right.take(), start, number);
        node.right = before;
        node.measure();
        (Some(node), behind)
    } else {
        let (before, behind) = split(node.left.take(), start, number);
        node.left = behind;
        node.measure();
        (before, Some(node))
    }
}

/// One tree of two, the first of which lies before the other.
fn join(before: Link, behind: Link) -> Link {
    match (before, behind) {
        (Some(mut root), Some(other)) if root.rank >= other.rank => {
            root.right = join(root.right.take(), Some(other));
            root.measure();
            Some(root)
        }
        (other, Some(mut root)) if other.is_some() => {
            root.left = join(other, root.left.take());
            root.measure();
            Some(root)
        }
        (one, none) => one.or(none),
    }
}

/// The finalizer of SplitMix64, a bijection.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: &[u8], end: Option<&[u8]>, number: u64) -> LockedRange {
        LockedRange {
            span: Span::from(Keys::Range(start, end)),
            owner: LockOwner::Transaction(number),
            number,
        }
    }

    /// Holds what stands at the top of this file; gives the depth.
    fn check(link: &Link) -> usize {
        let Some(node) = link else { return 0 };
        let mut below = [&node.left, &node.right].into_iter().flatten();
        assert!(below.clone().all(|below| below.rank <= node.rank));
        let furthest = |a: Option<Arc<[u8]>>, b: Option<Arc<[u8]>>| a.zip(b).map(|(a, b)| a.max(b));
        let Span::Range(_, own) = node.range.span.clone() else { panic!("a key is no range") };
        assert_eq!(
            node.reach,
            below.try_fold(own, |all, below| Some(furthest(all, below.reach.clone()))).flatten()
        );
        1 + check(&node.left).max(check(&node.right))
    }

    fn numbers<'r>(found: impl Iterator<Item = &'r LockedRange>) -> Vec<u64> {
        let mut numbers: Vec<u64> = found.map(|range| range.number).collect();
        numbers.sort_unstable();
        numbers
    }

    proptest! {
        #![proptest_config(crate::sampling::config(48))]

        #[test]
        fn ranges_are_found_as_in_a_list(
            steps in prop::collection::vec((0u8..12, prop::option::of(0u8..14), any::<bool>(), any::<u8>()), 1..60),
        ) {
            let (mut ranges, mut list) = (Ranges::default(), Vec::<LockedRange>::new());
            for (number, (start, end, inserts, which)) in steps.into_iter().enumerate() {
                if inserts || list.is_empty() {
                    let (start, end) = ([start], end.map(|end| [end.max(start)]));
                    let new = |number| range(&start, end.as_ref().map(|end| &end[..]), number);
                    ranges.insert(new(number as u64));
                    list.push(new(number as u64));
                } else {
                    let gone = list.swap_remove(which as usize % list.len());
                    let removed = ranges.remove(&gone.span, gone.number).unwrap();
                    prop_assert_eq!((removed.number, &removed.span), (gone.number, &gone.span));
                    prop_assert!(ranges.remove(&gone.span, gone.number).is_none());
                }
                check(&ranges.0);
                list.sort_by(|a, b| a.order(b.start(), b.number));
                let order: Vec<u64> = list.iter().map(|range| range.number).collect();
                prop_assert_eq!(ranges.all().map(|range| range.number).collect::<Vec<_>>(), order);
                for from in 0..14 {
                    let (from, key) = ([from], [from]);
                    let ends = (from[0]..15).map(|end| Some([end])).chain([None]);
                    let all = ends.map(|end| (from, end));
                    for (from, end) in all {
                        let keys = Keys::Range(&from, end.as_ref().map(|end| &end[..]));
                        let expected = list.iter().filter(|range| range.span.keys().overlaps(keys));
                        prop_assert_eq!(numbers(ranges.overlapping(keys)), numbers(expected));
                    }
                    let keys = Keys::One(&key);
                    let expected = list.iter().filter(|range| range.span.keys().overlaps(keys));
                    prop_assert_eq!(numbers(ranges.overlapping(keys)), numbers(expected));
                }
            }
            prop_assert_eq!(ranges.is_empty(), list.is_empty());
        }
    }

    #[test]
    fn a_key_is_looked_up_among_many_ranges_in_few_steps() {
        // Each shares keys with its neighbours, and one holds a hundred of them.
        let mut ranges = Ranges::default();
        for number in 0u32..10_000 {
            let end = number + if number % 100 == 0 { 100 } else { 2 };
            ranges.insert(range(&number.to_be_bytes(), Some(&end.to_be_bytes()), u64::from(number)));
        }
        assert!(check(&ranges.0) < 60);
        for number in (1u32..12_000).step_by(7) {
            let key = number.to_be_bytes();
            let mut search = ranges.overlapping(Keys::One(&key));
            let found = search.by_ref().count();
            assert!(found <= 3 && search.steps < 200, "{found} found in {} steps", search.steps);
        }
    }
}
