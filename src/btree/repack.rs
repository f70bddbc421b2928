//! Rewrites a whole tree in order and packed: compaction.

use super::builder::{MergeOptions, TreeBuilder};
use super::locate::locate;
use super::node::{LeafValue, Node};
use super::output::MergeOutcome;
use super::records::Child;
use super::tree::{Tree, load_run};
use crate::codec::expiry::STAMP_LEN;
use crate::error::{Error, ErrorKind, Result};
use crate::page::HEADER_LEN;
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;

/// Rewrites every node and value run, filling leaves as `options` say. What stands in a leaf and what in a
/// run follows from the sizes of the entries alone, so who does it twice gets the same pages. Fails as
/// [`merge`](super::merge::merge) does.
pub(crate) fn repack(
    tree: &Tree,
    store: &Arc<PartitionedStorageBackend>,
    options: &MergeOptions,
    should_stop: &dyn Fn() -> bool,
) -> Result<MergeOutcome> {
    let mut repacker = Repacker { builder: TreeBuilder::new(store, options), store, should_stop };
    let new = repacker.run(tree);
    repacker.builder.out.conclude(tree, new)
}

struct Repacker<'s> {
    builder: TreeBuilder<'s, 'static>,
    store: &'s Arc<PartitionedStorageBackend>,
    should_stop: &'s dyn Fn() -> bool,
}

impl Repacker<'_> {
    fn run(&mut self, tree: &Tree) -> Result<Option<Tree>> {
        let Some((pointer, level)) = tree.top(self.store)? else { return Ok(None) };
        self.rewrite(Child { pointer, owns_values: tree.owns_values, entries: tree.entries }, level)?;
        self.builder.finish().map(Some)
    }

    fn rewrite(&mut self, child: Child, level: u8) -> Result<()> {
        let page = self.store.pin(child.pointer)?;
        let node = Node::open(&page, level).map_err(|fault| locate(self.store, child.pointer, fault))?;
        self.builder.out.retire_checked(child.pointer)?;
        if level == 0 {
            if (self.should_stop)() {
                return Err(Error::new(ErrorKind::Closed, "a compaction was stopped before its end"));
            }
            return self.rewrite_leaf(child, node);
        }
        for i in 0..node.count() {
            let below = node.child(i).map_err(|fault| locate(self.store, child.pointer, fault))?;
            self.rewrite(below, level - 1)?;
        }
        Ok(())
    }

    fn rewrite_leaf(&mut self, child: Child, node: Node<'_>) -> Result<()> {
        let leaf = self.builder.hold(self.store.pin(child.pointer)?, node.shape(), child.pointer);
        for i in 0..node.count() {
            if self.builder.leave_out(&leaf, i)? {
                continue;
            }
            let entry = node.entry(i).map_err(|fault| locate(self.store, child.pointer, fault))?;
            match entry.value {
                LeafValue::Inline(range) if self.builder.wants_run(range.len()) => {
                    self.builder.push_moved(&leaf, i, node.bytes(range), 0)?;
                }
                LeafValue::Expiring(range) if self.builder.wants_run(range.len() - STAMP_LEN) => {
                    let (expiry, value) = self.builder.split(node.bytes(range))?;
                    self.builder.push_moved(&leaf, i, value, expiry)?;
                }
                LeafValue::Inline(_)
                | LeafValue::Expiring(_)
                | LeafValue::Deletion
                | LeafValue::Operands(_) => {
                    self.builder.push_old(&leaf, i, i + 1)?;
                }
                LeafValue::Run(value) => {
                    let run = load_run(self.store, value.run, value.len)?;
                    let len = value.len as usize;
                    if self.builder.wants_run(len) {
                        self.builder.push_moved(&leaf, i, &run[HEADER_LEN..][..len], value.expiry)?;
                    } else {
                        self.builder.push_inlined(&leaf, i, run, len, value.expiry)?;
                    }
                    self.builder.out.retire(value.run.page, value.run.pages);
                }
            }
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::testing::Harness;
    use super::*;
    use crate::codec::expiry::Now;

    #[test]
    fn values_in_runs_that_they_do_not_fill_go_into_their_leaves() {
        let mut harness = Harness::new(4096);
        let entries: Vec<_> =
            (0..300usize).map(|n| (format!("{n:08}").into_bytes(), vec![n as u8; 1100 + n * 57])).collect();
        let options = MergeOptions { fill: 100, generation: 1, keep_deletions: false, now: Now::UNASKED };
        let mut builder = TreeBuilder::new(&harness.store, &options);
        for (key, value) in &entries {
            builder.push_in_run(key, value).unwrap();
        }
        let new = builder.finish().map(Some);
        let outcome = builder.out.conclude(&Tree::default(), new).unwrap();
        harness.install(outcome);
        harness.model = entries.iter().cloned().collect();
        let before = harness.verify();
        assert_eq!(before.value_runs, 300);

        harness.repack();
        let after = harness.verify();
        let fills_its_run = |len: usize| {
            let (used, taken) = (HEADER_LEN + len, (HEADER_LEN + len).div_ceil(4096) * 4096);
            taken > 3 * 4096 || 10 * (taken - used) <= 3 * used
        };
        let expected = entries.iter().filter(|(_, value)| fills_its_run(value.len())).count() as u64;
        assert!((150..300).contains(&expected));
        assert_eq!(after.value_runs, expected);
        assert!(after.pages.len() < before.pages.len(), "{} of {}", after.pages.len(), before.pages.len());
        (0..300).step_by(7).for_each(|n| harness.verify_at(&entries[n].0));
        // What stands where it should stays so.
        let runs = after.value_runs;
        harness.repack();
        assert_eq!(harness.verify().value_runs, runs);
    }
}
