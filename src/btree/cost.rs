//! What it costs to change entries here and there, estimated before anything is read but the way to a few
//! leaves.

use super::locate::locate;
use super::node::Node;
use super::tree::Tree;
use crate::error::Result;
use crate::segment::PartitionedStorageBackend;

/// Ranks that are looked at, evenly spaced among those that change.
const LOOKS: u64 = 4;

/// Leaves that were looked at.
#[derive(Default)]
struct Leaves {
    count: u64,
    pages: u64,
    entries: u64,
}

impl Tree {
    /// About how many pages of leaves change if `operations` keys between `low` and `high`, which is not one
    /// of them, are put or deleted. Each changes one leaf at most, with all pages that this has; no value run
    /// is written anew but its own. Looks at six nodes of each level but the last at most.
    pub(crate) fn changed_pages(
        &self,
        store: &PartitionedStorageBackend,
        low: Option<&[u8]>,
        high: Option<&[u8]>,
        operations: u64,
    ) -> Result<f64> {
        let first = low.map_or(Ok(0), |low| self.count_range(store, None, Some(low)))?;
        let entries = self.count_range(store, low, high)?;
        let mut leaves = Leaves::default();
        for look in 0..LOOKS {
            let rank = u128::from(entries) * u128::from(2 * look + 1) / u128::from(2 * LOOKS);
            self.look_at(store, first.saturating_add(rank as u64), &mut leaves)?;
        }
        let of_all = |sum: u64| sum as f64 / leaves.count.max(1) as f64;
        // Less than one where the tree has little between the two keys: a leaf, as a delta takes, too.
        let in_range = entries as f64 / of_all(leaves.entries).max(1.0);
        Ok(in_range.min(operations as f64) * of_all(leaves.pages))
    }

    /// Adds the leaves beside that of entry number `rank`, itself among them: the children of one node.
    fn look_at(&self, store: &PartitionedStorageBackend, mut rank: u64, leaves: &mut Leaves) -> Result<()> {
        let Some((mut pointer, mut level)) = self.top(store)? else { return Ok(()) };
        let mut guard = None;
        if level == 0 {
            leaves.count += 1;
            leaves.pages += u64::from(pointer.pages);
            leaves.entries = leaves.entries.saturating_add(self.entries);
        }
        while level > 0 {
            let below = store.look(pointer, &mut guard, |page| {
                let node = Node::open(page, level)?;
                if level == 1 {
                    leaves.count += node.count() as u64;
                    leaves.entries = leaves.entries.saturating_add(node.entries_before(node.count()));
                    for i in 0..node.count() {
                        leaves.pages = leaves.pages.saturating_add(node.child(i)?.pointer.pages.into());
                    }
                }
                let mut index = 0;
                let mut child = node.child(index)?;
                while index + 1 < node.count() && rank >= child.entries {
                    rank -= child.entries;
                    index += 1;
                    child = node.child(index)?;
                }
                Ok(child.pointer)
            })?;
            pointer = below.map_err(|fault| locate(store, pointer, fault))?;
            level -= 1;
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::testing::Harness;

    fn key(n: u64) -> [u8; 8] {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
    }

    #[test]
    fn leaves_of_several_pages_and_value_runs_are_counted_as_they_are() {
        type Lengths = fn(u64) -> usize;
        let mixtures: [(&str, Lengths); 4] = [
            ("small", |_| 60),
            ("leaves of several pages", |n| 4100 + (n % 3) as usize * 1000),
            ("runs", |_| 16_000),
            ("runs among small ones", |n| if n.is_multiple_of(10) { 16_000 } else { 60 }),
        ];
        let entries = if cfg!(miri) { 60 } else { 1200 };
        for (name, lengths) in mixtures {
            for every in [1, 7, 200] {
                let mut harness = Harness::new(4096);
                harness.put((0..entries).map(|n| (key(n), vec![1; lengths(n)])));
                let mut keys: Vec<_> = (0..entries).filter(|n| n % every == 0).map(key).collect();
                keys.sort_unstable();
                let (low, high) = (keys[0], [&keys[keys.len() - 1][..], &[0]].concat());
                let operations = keys.len() as u64;
                let estimate =
                    harness.tree.changed_pages(&harness.store, Some(&low), Some(&high), operations).unwrap();
                // As long as before, so that leaves stay where they end.
                let before = harness.verify();
                let stats = harness
                    .put((0..entries).filter(|n| n % every == 0).map(|n| (key(n), vec![2; lengths(n)])));
                let after = harness.verify();
                let run_pages = (0..entries)
                    .filter(|n| n % every == 0 && lengths(*n) > 12_288)
                    .map(|n| (lengths(n) as u64 + 32).div_ceil(4096));
                let leaf_pages =
                    stats.pages_written - run_pages.sum::<u64>() - after.inner_nodes.min(before.inner_nodes);
                let ratio = estimate / leaf_pages as f64;
                assert!(
                    (0.6..1.7).contains(&ratio),
                    "{estimate} pages estimated, {leaf_pages} written: {name}, one key in {every}"
                );
            }
        }
    }
}
