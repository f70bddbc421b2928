//! Where one node ends and the next begins: the rules by which a stream of entries is cut, for leaves and inner
//! nodes alike. Knows sizes only.
//!
//! Up to two nodes are held back: the first is cut only once the second is full as well, so that when the stream
//! ends the last two can share what they hold evenly. The prefix that a node cuts off is what its first and last
//! key share, which is the least that any two neighbours share: so the size of a node grows by a constant-time step.

use super::node_writer::arrays_len;

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
    fn size(&self, inner: bool) -> usize {
        let cut_off = (self.prefix * self.count) as u64;
        arrays_len(self.count, inner, false) + self.prefix + (self.bytes - cut_off) as usize
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
        }
    }

    /// A node holds as many entries as this however long they are: an inner node of one child would not divide
    /// anything, and with four to a node the tree stays low.
    fn least(&self) -> usize {
        if self.inner { 4 } else { 1 }
    }

    pub(super) fn len(&self) -> usize {
        self.measures.len()
    }

    /// Adds an entry that takes `bytes` with its whole key, whose key shares `shared` bytes with the one before.
    /// Returns how many entries, from the first, now make a node that is complete: to be taken out at once.
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
        if self.growing.count > 0
            && (self.growing.count < self.least() || grown.size(self.inner) <= self.target)
        {
            self.growing = grown;
            return None;
        }
        let complete = self.cut;
        if self.growing.count > 0 {
            self.cut = self.growing.count;
        }
        self.growing = Growing { count: 1, bytes, prefix: key_len };
        (complete > 0).then_some(complete)
    }

    /// The first `count` entries were taken out.
    pub(super) fn take(&mut self, count: usize) {
        self.taken = self.measures[count - 1].end;
        self.measures.drain(..count);
        if self.measures.is_empty() {
            self.cut = 0;
            self.growing = Growing { count: 0, bytes: 0, prefix: 0 };
        }
    }

    /// Leading bytes that the first `count` entries share.
    pub(super) fn prefix(&self, count: usize) -> usize {
        self.measures[1..count].iter().fold(self.measures[0].key_len, |prefix, m| prefix.min(m.shared))
    }

    /// A bound of the size in bytes of a node of one page of the first `count` entries.
    pub(super) fn size(&self, count: usize) -> usize {
        let bytes = self.measures[count - 1].end - self.taken;
        Growing { count, bytes, prefix: self.prefix(count) }.size(self.inner)
    }

    /// Whether all entries and another node's fit into one page: one of `count` entries whose bytes with whole
    /// keys are `bytes`, and all of which share `shared` bytes with the first entry here.
    pub(super) fn has_room_for(&self, count: usize, bytes: usize, shared: usize) -> bool {
        let here = Growing { count: self.len(), bytes: self.total(), prefix: self.prefix(self.len()) };
        let sum = Growing {
            count: here.count + count,
            bytes: here.bytes + bytes as u64,
            prefix: here.prefix.min(shared),
        };
        sum.size(self.inner) <= self.page_size
    }

    fn total(&self) -> u64 {
        self.measures.last().map_or(0, |last| last.end - self.taken)
    }

    /// Whether what is here makes so small a node that it had better absorb its neighbour.
    pub(super) fn is_small(&self) -> bool {
        let count = self.len();
        count > 0 && self.cut == 0 && (self.size(count) < self.page_size / 4 || count < self.least() / 2)
    }

    /// How to divide what is here when no more entries follow: into one node or two.
    /// At the right edge of the tree the left one stays full, so that keys which arrive in order leave full nodes.
    pub(super) fn divide(&self, right_edge: bool) -> (usize, usize) {
        let count = self.len();
        if self.cut == 0 || self.size(count) <= self.page_size {
            return (count, 0);
        }
        let cut = if right_edge { self.cut } else { self.even_cut() };
        (cut, count - cut)
    }

    /// The cut that makes the larger of two nodes smallest.
    fn even_cut(&self) -> usize {
        let count = self.len();
        let least = self.least().div_ceil(2).min(count / 2);
        let mut right_sizes = vec![0; count];
        let mut prefix = usize::MAX;
        for (i, measure) in self.measures.iter().enumerate().rev() {
            let before = if i == 0 { self.taken } else { self.measures[i - 1].end };
            let bytes = self.measures[count - 1].end - before;
            right_sizes[i] =
                Growing { count: count - i, bytes, prefix: prefix.min(measure.key_len) }.size(self.inner);
            prefix = prefix.min(measure.shared);
        }
        let mut best = (usize::MAX, self.cut);
        let mut prefix = self.measures[0].key_len;
        for (i, measure) in self.measures.iter().enumerate() {
            if i > 0 {
                let left = Growing { count: i, bytes: self.measures[i - 1].end - self.taken, prefix };
                let larger = left.size(self.inner).max(right_sizes[i]);
                if i >= least && count - i >= least && larger < best.0 {
                    best = (larger, i);
                }
                prefix = prefix.min(measure.shared);
            }
        }
        // A leaf of several entries is never a run: where entries are that long, the cut that packing found stays.
        if self.inner || best.0 <= self.page_size { best.1 } else { self.cut }
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
    fn an_oversized_leaf_entry_stands_alone() {
        assert_eq!(pack(false, 4096, &[100, 9000, 100, 100], false), [1, 1, 2]);
        assert_eq!(pack(false, 4096, &[9000, 9000, 9000], false), [1, 1, 1]);
        assert_eq!(pack(false, 4096, &[100, 9000], false), [1, 1]);
    }

    #[test]
    fn an_inner_node_holds_two_children_at_least_however_long_their_separators() {
        assert_eq!(pack(true, 4096, &[9000; 4], false), [4]);
        assert_eq!(pack(true, 4096, &[9000; 5], false), [2, 3]);
        assert_eq!(pack(true, 4096, &[9000; 9], false), [4, 2, 3]);
        assert_eq!(pack(true, 4096, &[9000; 9], true), [4, 4, 1]);
    }
}
