//! How many pages fewer a tree would take if it were packed: the packer is given the sizes of its entries,
//! and nothing is written.

use super::leaf_level::entry_len;
use super::locate::locate;
use super::node::{LeafValue, Node, NodeResult};
use super::pack::Packer;
use super::records::{Child, value_pointer_len};
use super::tree::Tree;
use crate::codec::expiry::STAMP_LEN;
use crate::codec::key;
use crate::error::Result;
use crate::page::HEADER_LEN;
use crate::segment::PartitionedStorageBackend;

/// Pages of leaves and value runs up to which a tree is looked at as a whole.
const MOST_PAGES: u64 = 2048;
/// Parts of a larger tree that are looked at, evenly spaced, as many pages together.
const PARTS: u64 = 16;

impl Tree {
    /// By how many pages its leaves and value runs would be fewer if [`repack`](super::repack::repack) wrote
    /// them anew, leaves filled to `fill` percent. Reads no value run and no more than about 4000 pages; of a
    /// tree with more than 2048 pages this is an estimate, some percent off.
    pub(crate) fn spare_pages(&self, store: &PartitionedStorageBackend, fill: u8) -> Result<u64> {
        let whole = Sizes::of(self, store, fill, 0, MOST_PAGES)?;
        if whole.entries >= self.entries {
            return Ok(whole.taken.saturating_sub(whole.packed));
        }
        let (mut taken, mut packed) = (0.0, 0.0);
        for part in 0..PARTS {
            let first = (u128::from(self.entries) * u128::from(part) / u128::from(PARTS)) as u64;
            let sizes = Sizes::of(self, store, fill, first, MOST_PAGES / PARTS)?;
            // What is there up to the next part is taken to be like it.
            let entries = sizes.entries.max(1) as f64;
            taken += sizes.taken as f64 / entries;
            packed += sizes.packed as f64 / entries;
        }
        Ok(((taken - packed) / PARTS as f64 * self.entries as f64).max(0.0) as u64)
    }
}

/// What a part of a tree takes, and what it would take.
struct Sizes<'s> {
    store: &'s PartitionedStorageBackend,
    packer: Packer,
    /// Entries that were looked at.
    entries: u64,
    /// Pages of their leaves and value runs.
    taken: u64,
    /// Pages of these if they were packed.
    packed: u64,
    /// Nodes that may still be looked at, and pages that may still be taken.
    left: u64,
    last_key: Vec<u8>,
    key: Vec<u8>,
}

impl<'s> Sizes<'s> {
    /// Of about `most` pages, from the leaf on that has entry number `first`, as the inner nodes count.
    fn of(
        tree: &Tree,
        store: &'s PartitionedStorageBackend,
        fill: u8,
        mut first: u64,
        most: u64,
    ) -> Result<Self> {
        let mut sizes = Self {
            store,
            packer: Packer::new(false, store.page_size(), fill),
            entries: 0,
            taken: 0,
            packed: 0,
            left: most,
            last_key: Vec::new(),
            key: Vec::new(),
        };
        if let Some((pointer, level)) = tree.top(store)? {
            let root = Child { pointer, owns_values: tree.owns_values, entries: tree.entries };
            sizes.visit(root, level, &mut first)?;
        }
        if sizes.packer.len() > 0 {
            let (one, another) = sizes.packer.divide(true);
            for count in [one, another].into_iter().filter(|&count| count > 0) {
                sizes.complete(count);
            }
        }
        Ok(sizes)
    }

    /// Looks at the leaves below `child`, without those before the one that has entry number `first` below
    /// it.
    fn visit(&mut self, child: Child, level: u8, first: &mut u64) -> Result<()> {
        let page = self.store.pin(child.pointer)?;
        let fault = |fault| locate(self.store, child.pointer, fault);
        let node = Node::open(&page, level).map_err(fault)?;
        self.left = self.left.saturating_sub(u64::from(child.pointer.pages));
        if level == 0 {
            *first = 0;
            self.taken += u64::from(child.pointer.pages);
            return self.add(&node).map_err(fault);
        }
        for i in 0..node.count() {
            let below = node.child(i).map_err(fault)?;
            if *first >= below.entries && *first > 0 && i + 1 < node.count() {
                *first -= below.entries;
                continue;
            }
            self.visit(below, level - 1, first)?;
            if self.left == 0 {
                break;
            }
        }
        Ok(())
    }

    fn add(&mut self, leaf: &Node<'_>) -> NodeResult<()> {
        for i in 0..leaf.count() {
            let value = leaf.entry(i)?.value;
            let is_operands = matches!(value, LeafValue::Operands(_));
            let mut expires = false;
            let len = match value {
                LeafValue::Inline(range) => range.len(),
                LeafValue::Expiring(range) => {
                    expires = true;
                    range.len() - STAMP_LEN
                }
                LeafValue::Run(value) => {
                    expires = value.expiry != 0;
                    self.taken += u64::from(value.run.pages);
                    self.left = self.left.saturating_sub(u64::from(value.run.pages));
                    value.len as usize
                }
                LeafValue::Deletion => 0,
                LeafValue::Operands(range) => range.len(),
            };
            leaf.key(i, &mut self.key)?;
            let len = if !is_operands && self.packer.wants_run(len) {
                self.packed += (HEADER_LEN + len).div_ceil(self.store.page_size()) as u64;
                value_pointer_len(expires)
            } else {
                len + if expires { STAMP_LEN } else { 0 }
            };
            let shared =
                if self.packer.len() > 0 { key::common_prefix(&self.last_key, &self.key) } else { 0 };
            if let Some(count) = self.packer.push(entry_len(self.key.len(), len), self.key.len(), shared) {
                self.complete(count);
            }
            std::mem::swap(&mut self.last_key, &mut self.key);
            self.entries += 1;
        }
        Ok(())
    }

    /// The first `count` entries that wait make a leaf.
    fn complete(&mut self, count: usize) {
        self.packed += self.packer.size(count).div_ceil(self.store.page_size()) as u64;
        self.packer.take(count);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::testing::Harness;

    /// Eight bytes that all keys share, and eight that look random.
    fn key(n: u64) -> [u8; 16] {
        let mut key = *b"the same........";
        key[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        key
    }

    /// Pages of leaves and value runs.
    fn pages(harness: &mut Harness) -> u64 {
        let report = harness.verify();
        (report.leaf_bytes_total + report.value_bytes_total) / 4096
    }

    /// Pages that packing would save, as estimated and as they are, and what there was before.
    fn saved(harness: &mut Harness) -> (u64, u64, u64) {
        let estimate = harness.tree.spare_pages(&harness.store, harness.fill).unwrap();
        let before = pages(harness);
        harness.repack();
        (estimate, before - pages(harness), before)
    }

    type Lengths = fn(u64) -> usize;

    const MIXTURES: [Lengths; 9] = [
        |_| 90,
        |_| 10,
        |_| 1000,
        |_| 2500,
        |_| 4200,
        |n| 4050 + (n * 7919 % 200) as usize,
        |n| 1000 + (n * 7919 % 11_000) as usize,
        |n| if n.is_multiple_of(20) { 6000 } else { 90 },
        |n| (1 << (n % 15)) + (n * 7919 % 3000) as usize,
    ];

    #[test]
    fn a_packed_tree_has_nothing_to_spare() {
        for (n, lengths) in MIXTURES.into_iter().enumerate() {
            for (fill, entries) in [(100, 1200), (80, 1200), (100, 12)] {
                let entries = if cfg!(miri) { entries.min(60) } else { entries };
                let mut harness = Harness::new(4096);
                harness.fill = fill;
                harness.put((0..entries).map(|n| (key(n), vec![1; lengths(n)])));
                harness.repack();
                let (estimate, saved, pages) = saved(&mut harness);
                assert_eq!((estimate, saved), (0, 0), "mixture {n}, fill {fill}, {pages} pages");
            }
        }
        let empty = Harness::new(4096);
        assert_eq!(empty.tree.spare_pages(&empty.store, 100).unwrap(), 0);
    }

    #[test]
    fn of_a_small_tree_it_is_known_what_packing_saves() {
        for (n, lengths) in MIXTURES.into_iter().enumerate() {
            let entries = if cfg!(miri) { 60 } else { 800 };
            let mut harness = Harness::new(4096);
            for part in 0..4 {
                harness.put((0..entries).filter(|n| n % 4 == part).map(|n| (key(n), vec![1; lengths(n)])));
            }
            harness.delete((0..entries).filter(|n| key(*n)[8] < 90 && n % 3 > 0).map(key));
            let (estimate, saved, pages) = saved(&mut harness);
            assert_eq!(estimate, saved, "mixture {n}, {pages} pages");
        }
    }

    #[test]
    fn of_a_large_tree_it_is_estimated_what_packing_saves() {
        for (lengths, entries) in [(MIXTURES[0], 120_000), (MIXTURES[8], 4500)] {
            let entries = if cfg!(miri) { 300 } else { entries };
            let mut harness = Harness::new(4096);
            let batch = entries / 10;
            for first in (0..entries).step_by(batch as usize) {
                harness.put((first..first + batch).map(|n| (key(n), vec![1; lengths(n)])));
            }
            harness.delete((0..entries).filter(|n| key(*n)[8] < 60 && n % 3 > 0).map(key));
            let (estimate, now, pages) = saved(&mut harness);
            assert!(estimate.abs_diff(now) <= pages / 50 + 1, "{estimate} estimated, {now} of {pages} saved");
            let (estimate, now, pages) = saved(&mut harness);
            assert!(estimate + now <= pages / 100, "{estimate} estimated, {now} of {pages} saved again");
        }
    }
}
