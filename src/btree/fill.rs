//! How full the leaves are, estimated from a few of them.

use super::locate::locate;
use super::node::Node;
use super::pack::packed_pages;
use super::tree::Tree;
use crate::error::Result;
use crate::segment::PartitionedStorageBackend;

/// Leaves that are looked at.
const SAMPLE: u64 = 256;

/// A leaf that was looked at.
struct Leaf {
    pages: f64,
    bytes: f64,
    entries: f64,
}

impl Tree {
    /// About how many pages fewer the leaves would take if they were packed, filled to `fill` percent. Looks
    /// at the leaves of up to 256 entries, evenly spaced; in a tree with more entries this is an estimate,
    /// some percent off. What stands in value runs does not count.
    pub(crate) fn spare_leaf_pages(&self, store: &PartitionedStorageBackend, fill: u8) -> Result<u64> {
        let looks = self.entries.min(SAMPLE);
        let (mut pages, mut bytes) = (0.0, 0.0);
        for look in 0..looks {
            // A leaf is met as often as it has entries, so each look stands for one of them.
            let rank = (u128::from(2 * look + 1) * u128::from(self.entries) / u128::from(2 * looks)) as u64;
            if let Some(leaf) = self.leaf_of(store, rank)? {
                pages += leaf.pages / leaf.entries;
                bytes += leaf.bytes / leaf.entries;
            }
        }
        let looks = looks.max(1) as f64;
        let (pages, bytes) = (pages / looks, bytes / looks);
        let packed = packed_pages(store.page_size(), fill, bytes);
        Ok(((pages - packed) * self.entries as f64).max(0.0) as u64)
    }

    /// The leaf with entry number `rank`, as the inner nodes count.
    fn leaf_of(&self, store: &PartitionedStorageBackend, mut rank: u64) -> Result<Option<Leaf>> {
        let Some((mut pointer, mut level)) = self.top(store)? else { return Ok(None) };
        let mut guard = None;
        loop {
            let below = store.look(pointer, &mut guard, |page| {
                let node = Node::open(page, level)?;
                if level == 0 {
                    return Ok(Err(Leaf {
                        pages: f64::from(pointer.pages),
                        bytes: node.declared_len() as f64,
                        entries: node.count().max(1) as f64,
                    }));
                }
                let mut index = 0;
                while index + 1 < node.count() && rank >= node.child(index).entries {
                    rank -= node.child(index).entries;
                    index += 1;
                }
                Ok(Ok(node.child(index).pointer))
            })?;
            match below.map_err(|fault| locate(store, pointer, fault))? {
                Ok(child) => pointer = child,
                Err(leaf) => return Ok(Some(leaf)),
            }
            level -= 1;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::testing::Harness;

    fn scattered(n: u64) -> [u8; 8] {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
    }

    /// Pages that packing would save, as estimated and as they are.
    fn saved(harness: &mut Harness) -> (u64, u64) {
        let estimate = harness.tree.spare_leaf_pages(&harness.store, harness.fill).unwrap();
        let before = harness.verify().leaf_bytes_total;
        harness.repack();
        (estimate, (before - harness.verify().leaf_bytes_total) / 4096)
    }

    #[test]
    fn a_packed_tree_has_nothing_to_spare() {
        for (fill, value) in
            [(100, 90), (80, 90), (100, 900), (100, 1000), (100, 10), (100, 2500), (90, 4200)]
        {
            let mut harness = Harness::new(4096);
            harness.fill = fill;
            harness.put((0..5000).map(|n| (scattered(n), vec![1; value])));
            let pages = harness.verify().leaf_bytes_total / 4096;
            let (estimate, saved) = saved(&mut harness);
            assert!(estimate <= pages / 32, "{estimate} of {pages} pages, values of {value} bytes");
            assert_eq!(saved, 0);
        }
        let empty = Harness::new(4096);
        assert_eq!(empty.tree.spare_leaf_pages(&empty.store, 100).unwrap(), 0);
    }

    #[test]
    fn what_packing_saves_is_estimated() {
        for inserted in [3000, 300_000] {
            let mut harness = Harness::new(4096);
            let batch = inserted / 30;
            for first in (0..inserted).step_by(batch as usize) {
                harness.put((first..first + batch).map(|n| (scattered(n), vec![1; 50])));
            }
            harness.delete((0..inserted).filter(|n| scattered(*n)[0] < 60 && n % 3 > 0).map(scattered));
            let pages = harness.verify().leaf_bytes_total / 4096;
            let (estimate, saved) = saved(&mut harness);
            assert!(
                estimate.abs_diff(saved) <= pages / 12 + 1,
                "{estimate} estimated, {saved} of {pages} pages saved"
            );
        }
    }
}
