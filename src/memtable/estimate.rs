//! About how much of a memtable lies in a range of keys, from the nodes on the way to its ends.

use super::entry::EntryRef;
use super::node::NodeRef;
use super::opened::Node;
use super::table::Memtable;
use crate::codec::key;

impl Memtable {
    /// About what part of the memtable's keys lies in `[start, end)`, 0 to 1. All children of a branch are
    /// taken to hold as many keys, and leaves are two thirds full on average, so a part may be found twice as
    /// large as it is, or half as large.
    pub(crate) fn part_within(&self, start: &[u8], end: Option<&[u8]>) -> f64 {
        let end = end.map_or(1.0, |end| self.part_below(end));
        (end - self.part_below(start)).max(0.0)
    }

    fn part_below(&self, key: &[u8]) -> f64 {
        let (tree, arena) = self.points();
        let Some(mut node) = tree.root(arena) else { return 0.0 };
        let (mut low, mut width) = (0.0, 1.0);
        loop {
            match node.open() {
                Node::Leaf(leaf) => {
                    let order = leaf.order();
                    let rank = leaf.search(order, key).rank();
                    return low + width * rank as f64 / order.count().max(1) as f64;
                }
                Node::Branch(branch) => {
                    let index = branch.index_for(key);
                    width /= branch.count() as f64;
                    low += width * index as f64;
                    node = branch.child(index);
                }
            }
        }
    }

    /// Keys of `[start, end)` that divide what the memtable holds there into about equal parts, ascending: if
    /// it has as many, `wanted` at least, and at most some thirty times as many. Takes time in proportion to
    /// these.
    pub(crate) fn dividing_keys(&self, start: &[u8], end: Option<&[u8]>, wanted: usize) -> Vec<&[u8]> {
        let (tree, arena) = self.points();
        let is_before_end = |key: &[u8]| end.is_none_or(|end| key::compare(key, end).is_lt());
        let is_within = |key: &&[u8]| key::compare(start, key).is_le() && is_before_end(key);
        let mut nodes: Vec<NodeRef<'_>> = tree.root(arena).into_iter().collect();
        // One level after the other: all leaves are on one.
        loop {
            let bounds = nodes.iter().filter_map(|node| node.low()).map(EntryRef::key);
            let bounds: Vec<_> = bounds.filter(is_within).collect();
            if bounds.len() >= wanted {
                return bounds;
            }
            let (mut keys, mut below) = (Vec::new(), Vec::new());
            for node in nodes {
                match node.open() {
                    Node::Leaf(leaf) => keys.extend(leaf.items(leaf.order()).map(|item| item.entry.key())),
                    Node::Branch(branch) => {
                        let from = branch.index_for(start);
                        let within = (from..branch.count()).map(|index| branch.child(index));
                        below.extend(
                            within.take_while(|child| child.low().is_none_or(|low| is_before_end(low.key()))),
                        );
                    }
                }
            }
            if below.is_empty() {
                keys.retain(is_within);
                return keys;
            }
            nodes = below;
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::codec::ids::SequenceNumber;

    fn key(n: u32) -> [u8; 4] {
        n.to_be_bytes()
    }

    /// Tables of `count` keys that came in ascending, descending and scattered order.
    fn tables(count: u32) -> Vec<crate::memtable::MemtableWriter> {
        let orders: [fn(u32, u32) -> u32; 3] =
            [|n, _| n, |n, count| count - 1 - n, |n, count| (n as u64 * 7919 % u64::from(count)) as u32];
        let fill = |order: &fn(u32, u32) -> u32| {
            let mut writer = Memtable::create(1 << 20);
            (0..count).for_each(|n| {
                writer.put(&key(order(n, count)), b"value", SequenceNumber(u64::from(n) + 1));
            });
            writer
        };
        orders.iter().map(fill).collect()
    }

    #[test]
    fn a_part_of_a_memtable_is_found_to_a_factor_of_two() {
        let count = if cfg!(miri) { 500 } else { 20_000 };
        for writer in tables(count) {
            let table = writer.table();
            assert_eq!(table.part_within(b"", None), 1.0);
            assert!(table.part_within(&key(count), None) < 1e-9);
            assert_eq!(table.part_within(&key(9), Some(&key(9))), 0.0);
            assert_eq!(table.part_within(&key(9), Some(&key(3))), 0.0, "an end before the start");
            for parts in [2, 5, 10] {
                for part in 0..parts {
                    let (start, end) = (count / parts * part, count / parts * (part + 1));
                    let found = table.part_within(&key(start), Some(&key(end))) * f64::from(parts);
                    assert!((0.5..=2.0).contains(&found), "part {part} of {parts}: {found} times as much");
                }
            }
        }
    }

    #[test]
    fn dividing_keys_divide_a_memtable_into_about_equal_parts() {
        let count = if cfg!(miri) { 500 } else { 20_000 };
        for writer in tables(count) {
            for (start, end) in [(0, count), (count / 4, count / 2), (count / 2, count / 2 + 30)] {
                for wanted in [1, 7, 100] {
                    let keys = writer.table().dividing_keys(&key(start), Some(&key(end)), wanted);
                    assert!(keys.len() >= wanted.min((end - start) as usize), "{} keys", keys.len());
                    assert!(keys.len() <= 40 * wanted, "{} keys where {wanted} are wanted", keys.len());
                    assert!(keys.is_sorted_by(|a, b| a < b));
                    assert!(keys.iter().all(|at| (&key(start)[..]..&key(end)).contains(at)));
                }
            }
        }
        assert!(Memtable::create(0).table().dividing_keys(b"", None, 3).is_empty());
    }
}
