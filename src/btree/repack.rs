//! Rewrites a whole tree in order and packed: compaction.

use super::builder::{MergeOptions, TreeBuilder};
use super::locate::locate;
use super::node::{LeafValue, Node};
use super::output::MergeOutcome;
use super::records::Child;
use super::tree::{Tree, load_run};
use crate::error::{Error, ErrorKind, Result};
use crate::page::HEADER_LEN;
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;

/// Rewrites every node and value run, filling leaves as `options` say. Fails as [`merge`](super::merge::merge) does.
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
            self.rewrite(node.child(i), level - 1)?;
        }
        Ok(())
    }

    fn rewrite_leaf(&mut self, child: Child, node: Node<'_>) -> Result<()> {
        let leaf = self.builder.hold(self.store.pin(child.pointer)?, node.shape(), child.pointer);
        if !child.owns_values {
            return self.builder.push_old(&leaf, 0, node.count());
        }
        for i in 0..node.count() {
            let entry = node.entry(i).map_err(|fault| locate(self.store, child.pointer, fault))?;
            let LeafValue::Run(value) = entry.value else {
                self.builder.push_old(&leaf, i, i + 1)?;
                continue;
            };
            let run = load_run(self.store, value.run, value.len)?;
            self.builder.push_moved(&leaf, i, &run[HEADER_LEN..][..value.len as usize])?;
            self.builder.out.retire(value.run.page, value.run.pages);
        }
        Ok(())
    }
}
