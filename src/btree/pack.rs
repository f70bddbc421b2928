//! Where one node ends and the next begins: the rules by which a stream of entries is cut, for leaves and
//! inner nodes alike. Knows sizes only.
//!
//! A leaf of small entries, four of which fit a page, is one page. Larger ones may leave much of their page
//! unused, so a leaf with one of these grows by pages until little of the last one is left over: it ends
//! where what is unused is at most [`WASTE`] of what is used, or after four pages, of which it then fills
//! three. Where small entries come before a large one they may end sooner, so that they stay in one page, if
//! leaves before used their pages better than that: how much better is the packer's credit. From it a value
//! that does not fit a page may be given a run of its own among small entries, too. In the long run leaves
//! and such runs waste no more than without.
//!
//! Up to two nodes are held back: the first is cut only once the second is full as well, so that when the
//! stream ends the last two can share what they hold evenly. The prefix that a node cuts off is what its
//! first and last key share, which is the least that any two neighbours share: so the size of a node grows by
//! a constant-time step.

use super::node_writer::arrays_len;
use crate::page::HEADER_LEN;

/// What a leaf, or the run of a value, may leave unused: so many parts for so many that it uses.
const WASTE: (i64, i64) = (3, 10);
/// A leaf or run of so many pages wastes little in any case: what is unused lies in the last of them.
const MANY_PAGES: usize = 4;
/// Pages that may be wasted on credit at once, and when a stream begins.
const MOST_CREDIT: usize = 4;
const FIRST_CREDIT: usize = 1;

/// By how much less than it may is wasted where `used` bytes take `taken`, times the second of [`WASTE`].
fn gain(used: usize, taken: usize) -> i64 {
    used as i64 * WASTE.0 - (taken as i64 - used as i64) * WASTE.1
}

/// What an entry contributes to its node.
#[derive(Debug, Clone, Copy)]
struct Measure {
    /// Sum, up to and with this entry, of the bytes of entries with whole keys.
    end: u64,
    key_len: usize,
    /// Leading bytes that the key shares with the one before.
    shared: usize,
}

/// Size of a growing node.
#[derive(Debug, Clone, Copy)]
struct Growing {
    count: usize,
    bytes: u64,
    prefix: usize,
}

impl Growing {
    fn size(&self, inner: bool, page_size: usize) -> usize {
        let cut_off = (self.prefix * self.count) as u64;
        // Entries of forged nodes may be shorter than their keys.
        let rests = self.bytes.saturating_sub(cut_off) as usize;
        let size = |wide| arrays_len(self.count, inner, wide) + self.prefix + rests;
        if size(false) <= page_size { size(false) } else { size(true) }
    }
}

pub(super) struct Packer {
    inner: bool,
    page_size: usize,
    /// Size that a node is filled to while more entries follow.
    target: usize,
    measures: Vec<Measure>,
    /// `end` of the last entry that was taken out.
    taken: u64,
    /// Entries of the first node, once a second one has begun; else 0.
    cut: usize,
    /// The node that entries are being added to.
    growing: Growing,
    /// Whether any of its entries is large.
    has_large: bool,
    /// Bytes of the longest entries of which four fit a page: longer ones are large.
    longest_small: u64,
    /// By how much less than they might leaves and runs wasted so far, as [`gain`] counts; the first node is
    /// not among them while it waits, and has its own.
    credit: i64,
    first_gain: i64,
}

impl Packer {
    pub(super) fn new(inner: bool, page_size: usize, fill: u8) -> Self {
        let fill = usize::from(fill.clamp(50, 100));
        Self {
            inner,
            page_size,
            target: page_size * fill / 100,
            measures: Vec::new(),
            taken: 0,
            cut: 0,
            growing: Growing { count: 0, bytes: 0, prefix: 0 },
            has_large: false,
            longest_small: (page_size - arrays_len(4, inner, false)) as u64 / 4,
            credit: (FIRST_CREDIT * page_size) as i64 * WASTE.1,
            first_gain: 0,
        }
    }

    fn size_of(&self, node: Growing) -> usize {
        node.size(self.inner, self.page_size)
    }

    fn available_credit(&self) -> i64 {
        self.credit + if self.cut > 0 { self.first_gain } else { 0 }
    }

    /// Whether a value of `len` bytes had better stand in a run of its own than in the leaf.
    pub(super) fn wants_run(&mut self, len: usize) -> bool {
        if len <= self.page_size / 4 {
            return false;
        }
        let used = HEADER_LEN + len;
        let pages = used.div_ceil(self.page_size);
        let gain = gain(used, pages * self.page_size);
        if pages >= MANY_PAGES || gain >= 0 {
            return true;
        }
        // Among small entries it would make a node of several pages of their leaf.
        let spends =
            pages > 1 && self.growing.count > 0 && !self.has_large && self.available_credit() + gain >= 0;
        if spends {
            self.credit += gain;
        }
        spends
    }

    /// Whether the node under way takes the entry that comes next, with which it would be `grown`, and which
    /// takes `alone` bytes in a node of its own, rather than end.
    #[inline]
    fn takes(&self, grown: Growing, alone: Growing, next_is_large: bool) -> bool {
        let size = self.size_of(grown);
        if size <= self.target {
            return true;
        }
        if self.inner {
            return self.growing.count < self.least();
        }
        if !self.has_large && !next_is_large {
            return false;
        }
        let used = self.size_of(self.growing);
        let pages = used.div_ceil(self.target);
        if size <= pages * self.target {
            return true;
        }
        // A prefix that is lost must not cost more than another leaf.
        if size.div_ceil(self.target) > pages + self.size_of(alone).div_ceil(self.target) {
            return false;
        }
        let gain = gain(used, pages * self.target);
        let is_full = pages >= MANY_PAGES || gain >= 0;
        let ends_early = !self.has_large && self.available_credit() + gain >= 0;
        !is_full && !ends_early
    }

    /// A node holds as many entries as this however long they are: an inner node of one child would not
    /// divide anything, and with four to a node the tree stays low.
    fn least(&self) -> usize {
        if self.inner { 4 } else { 1 }
    }

    pub(super) fn len(&self) -> usize {
        self.measures.len()
    }

    /// Adds an entry that takes `bytes` with its whole key, whose key shares `shared` bytes with the one
    /// before. Returns how many entries, from the first, now make a node that is complete: to be taken out at
    /// once.
    #[inline]
    pub(super) fn push(&mut self, bytes: usize, key_len: usize, shared: usize) -> Option<usize> {
        let bytes = bytes as u64;
        let end = self.measures.last().map_or(self.taken, |last| last.end) + bytes;
        self.measures.push(Measure { end, key_len, shared });
        let grown = Growing {
            count: self.growing.count + 1,
            bytes: self.growing.bytes + bytes,
            prefix: self.growing.prefix.min(shared),
        };
        let alone = Growing { count: 1, bytes, prefix: key_len };
        let is_large = bytes > self.longest_small;
        if self.growing.count > 0 && self.takes(grown, alone, is_large) {
            self.growing = grown;
            self.has_large |= is_large;
            return None;
        }
        let complete = self.cut;
        if self.growing.count > 0 {
            self.cut = self.growing.count;
            self.first_gain = self.gain_of(self.size_of(self.growing));
        }
        self.growing = alone;
        self.has_large = is_large;
        (complete > 0).then_some(complete)
    }

    fn gain_of(&self, size: usize) -> i64 {
        gain(size, size.div_ceil(self.page_size) * self.page_size)
    }

    /// The first `count` entries were taken out, as one node.
    pub(super) fn take(&mut self, count: usize) {
        if !self.inner {
            let most = (MOST_CREDIT * self.page_size) as i64 * WASTE.1;
            self.credit = (self.credit + self.gain_of(self.size(count))).clamp(0, most);
        }
        self.taken = self.measures[count - 1].end;
        self.measures.drain(..count);
        if self.measures.is_empty() {
            self.cut = 0;
            self.growing = Growing { count: 0, bytes: 0, prefix: 0 };
            self.has_large = false;
        }
    }

    /// Leading bytes that the first `count` entries share.
    pub(super) fn prefix(&self, count: usize) -> usize {
        self.measures[1..count].iter().fold(self.measures[0].key_len, |prefix, m| prefix.min(m.shared))
    }

    /// A bound of the size in bytes of a node of the first `count` entries.
    pub(super) fn size(&self, count: usize) -> usize {
        let bytes = self.measures[count - 1].end - self.taken;
        self.size_of(Growing { count, bytes, prefix: self.prefix(count) })
    }

    /// Whether all entries and another node's fit into one page: one of `count` entries whose bytes with
    /// whole keys are `bytes`, and all of which share `shared` bytes with the first entry here.
    pub(super) fn has_room_for(&self, count: usize, bytes: usize, shared: usize) -> bool {
        let here = Growing { count: self.len(), bytes: self.total(), prefix: self.prefix(self.len()) };
        let sum = Growing {
            count: here.count + count,
            bytes: here.bytes + bytes as u64,
            prefix: here.prefix.min(shared),
        };
        self.size_of(sum) <= self.page_size
    }

    fn total(&self) -> u64 {
        self.measures.last().map_or(0, |last| last.end - self.taken)
    }

    /// Whether what is here makes so small a node that it had better absorb its neighbour.
    pub(super) fn is_small(&self) -> bool {
        let count = self.len();
        count > 0 && self.cut == 0 && (self.size(count) < self.page_size / 4 || count < self.least() / 2)
    }

    /// How to divide what is here when no more entries follow: into one node or two. At the right edge of the
    /// tree the left one stays full, so that keys which arrive in order leave full nodes.
    pub(super) fn divide(&self, right_edge: bool) -> (usize, usize) {
        let count = self.len();
        let size = self.size(count);
        if size <= self.page_size || self.cut == 0 && (self.inner || count == 1) {
            return (count, 0);
        }
        if right_edge && self.cut > 0 {
            return (self.cut, count - self.cut);
        }
        let (pages, cut) = self.even_cut();
        // One node that was not to end yet is divided if that takes no more pages.
        if self.cut == 0 && pages > size.div_ceil(self.page_size) {
            return (count, 0);
        }
        (cut, count - cut)
    }

    /// The cut that makes the larger of two nodes smallest; of two leaves, among those cuts that take fewest
    /// pages. Gives pages, of leaves, and cut.
    fn even_cut(&self) -> (usize, usize) {
        let count = self.len();
        let least = self.least().div_ceil(2).min(count / 2);
        let mut right_sizes = vec![0; count];
        let mut prefix = usize::MAX;
        for (i, measure) in self.measures.iter().enumerate().rev() {
            let before = if i == 0 { self.taken } else { self.measures[i - 1].end };
            let bytes = self.measures[count - 1].end - before;
            right_sizes[i] =
                self.size_of(Growing { count: count - i, bytes, prefix: prefix.min(measure.key_len) });
            prefix = prefix.min(measure.shared);
        }
        let mut best = (usize::MAX, usize::MAX, self.cut);
        let mut prefix = self.measures[0].key_len;
        for (i, measure) in self.measures.iter().enumerate() {
            if i > 0 {
                let bytes = self.measures[i - 1].end - self.taken;
                let (left, right) = (self.size_of(Growing { count: i, bytes, prefix }), right_sizes[i]);
                let pages = |size: usize| if self.inner { 0 } else { size.div_ceil(self.page_size) };
                let candidate = (pages(left) + pages(right), left.max(right), i);
                if i >= least && count - i >= least && candidate < best {
                    best = candidate;
                }
                prefix = prefix.min(measure.shared);
            }
        }
        (best.0, best.2)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Packs entries of the given sizes (8-byte keys that share nothing), with the end of the stream divided.
    fn pack(inner: bool, page_size: usize, sizes: &[usize], right_edge: bool) -> Vec<usize> {
        let mut packer = Packer::new(inner, page_size, 100);
        let mut nodes = Vec::new();
        for &size in sizes {
            if let Some(count) = packer.push(size, 8, 0) {
                packer.take(count);
                nodes.push(count);
            }
        }
        if packer.len() > 0 {
            let (first, second) = packer.divide(right_edge);
            nodes.extend([first, second].into_iter().filter(|&count| count > 0));
        }
        nodes
    }

    #[test]
    fn what_fits_a_page_is_one_node() {
        assert_eq!(pack(false, 4096, &[100; 38], false), [38]);
        assert_eq!(pack(false, 4096, &[], false), [0; 0]);
    }

    #[test]
    fn an_overfull_node_splits_evenly_and_at_the_right_edge_stays_full() {
        assert_eq!(pack(false, 4096, &[100; 39], false), [19, 20]);
        assert_eq!(pack(false, 4096, &[100; 39], true), [38, 1]);
    }

    #[test]
    fn a_long_run_is_full_but_for_the_last_two() {
        assert_eq!(pack(false, 4096, &[100; 38 * 5 + 2], false), [38, 38, 38, 38, 20, 20]);
        assert_eq!(pack(false, 4096, &[100; 38 * 5 + 2], true), [38, 38, 38, 38, 38, 2]);
    }

    #[test]
    fn a_leaf_of_large_entries_grows_until_little_is_unused() {
        // Of one page three quarters at least, of two, or four.
        assert_eq!(pack(false, 4096, &[1600; 8], true), [2; 4]);
        assert_eq!(pack(false, 4096, &[1400; 20], true), [5; 4]);
        assert_eq!(pack(false, 4096, &[2050; 20], true), [5; 4]);
        assert_eq!(pack(false, 4096, &[2100; 20], true), [3, 3, 3, 3, 3, 3, 2]);
        assert_eq!(pack(false, 4096, &[4100; 20], true), [3, 3, 3, 3, 3, 3, 2]);
        assert_eq!(pack(false, 4096, &[12_000; 3], true), [1, 1, 1]);
    }

    #[test]
    fn small_entries_stay_in_leaves_of_one_page_beside_a_large_one() {
        let mut sizes = vec![100; 400];
        // Neither fits into what remains of a page.
        (sizes[100], sizes[280]) = (3800, 2600);
        let nodes = pack(false, 4096, &sizes, true);
        let mut at = 0;
        for count in nodes {
            let bytes: usize = sizes[at..at + count].iter().sum();
            assert!(bytes <= 4096 && count < 40, "{count} entries of {bytes} bytes from {at} on");
            at += count;
        }
        assert_eq!(at, 400);
    }

    #[test]
    fn a_value_gets_a_run_that_it_fills_or_that_saves_small_entries_from_a_long_leaf() {
        let mut packer = Packer::new(false, 4096, 100);
        let wants: Vec<bool> =
            [1000, 1100, 3000, 3200, 4064, 4065, 6200, 6300, 9300, 9500, 12_256, 12_257, 1 << 20]
                .iter()
                .map(|&len| packer.wants_run(len))
                .collect();
        let runs = [false, false, false, true, true, false, false, true, false, true, true, true, true];
        assert_eq!(wants, runs);
        let mut given = 0;
        for _ in 0..20 {
            for _ in 0..60 {
                if let Some(count) = packer.push(100, 8, 0) {
                    packer.take(count);
                }
            }
            given += usize::from(packer.wants_run(4100));
        }
        assert!((10..20).contains(&given), "{given} of 20 among as many bytes of small entries");
    }

    #[test]
    fn an_inner_node_holds_two_children_at_least_however_long_their_separators() {
        assert_eq!(pack(true, 4096, &[9000; 4], false), [4]);
        assert_eq!(pack(true, 4096, &[9000; 5], false), [2, 3]);
        assert_eq!(pack(true, 4096, &[9000; 9], false), [4, 2, 3]);
        assert_eq!(pack(true, 4096, &[9000; 9], true), [4, 4, 1]);
    }
}
