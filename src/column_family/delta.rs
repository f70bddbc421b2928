//! Deltas: small trees of recent entries and deletions in front of a family's tree.
//!
//! Where a merge would rewrite much of the tree for little, it writes what the memtables hold as a tree of its own instead,
//! the newest delta. Later several deltas become one (`join.rs`), and all are drained into the tree, both a range of keys at a
//! time (`drain.rs`). Whatever a delta says of a key counts more than what older deltas and the tree say.

use crate::btree::{self, MergeOp, MergeOptions, MergeOutcome, MergeStats, RangeDeletion, Tree, TreeCursor};
use crate::codec::ids::PageId;
use crate::column_family::gather::Stretch;
use crate::column_family::join::JOINED;
use crate::column_family::trees::TreeVersion;
use crate::error::Result;
use crate::memtable::Filter;
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;
use std::ops::Range;
use std::sync::OnceLock;

/// A leaf takes at least this for an entry: head, offset, two lengths.
const FEWEST_ENTRY_BYTES: u64 = 8;
/// Keys that go into a filter from one look whether to stop to the next.
const KEYS_BETWEEN_LOOKS: u64 = 1 << 12;

/// Where a delta stands between its memtables and the tree: see `join.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Written by a merge.
    Fresh,
    /// Goes into the one that is filled, a range of keys after the other.
    Leaving,
    Filling,
    Filled,
}

/// One tree in front of older ones.
#[derive(Clone)]
pub(crate) struct Delta {
    /// Holds deletions as entries.
    pub(crate) tree: Tree,
    pub(crate) stage: Stage,
    /// Entries of the largest merge that it was made of; a guess if it was there when the database was opened.
    pub(crate) merge: u64,
    /// Of its keys, and of some that were taken out. For a delta that was there when the database was opened it is built later: from some
    /// version of the delta, for that one and those that come of it, which hold fewer keys. So versions share a filter, but no place for one.
    filter: Arc<OnceLock<Arc<Filter>>>,
    /// Shared by all versions of the delta, and by no other.
    origin: Arc<()>,
}

impl Delta {
    /// A delta as the catalog knows it. It is drained, but not joined any more.
    pub(crate) fn restore(tree: Tree) -> Self {
        Self {
            tree,
            stage: Stage::Filled,
            merge: tree.entries / JOINED as u64,
            filter: Arc::default(),
            origin: Arc::default(),
        }
    }

    /// A delta for at most `keys` keys.
    fn empty(stage: Stage, merge: u64, keys: u64) -> Self {
        let filter = Arc::new(OnceLock::from(Arc::new(Filter::of_keys(keys))));
        Self { tree: Tree::default(), stage, merge, filter, origin: Arc::default() }
    }

    /// Bytes of memory of its filter.
    pub(crate) fn filter_bytes(&self) -> u64 {
        self.filter.get().map_or(0, |filter| filter.memory() as u64)
    }

    /// Whether the delta may say anything of `key`.
    #[inline]
    pub(crate) fn may_hold(&self, key: &[u8]) -> bool {
        self.filter.get().is_none_or(|filter| filter.may_hold(key))
    }

    /// Whether every look-up has to search the delta.
    pub(crate) fn lacks_filter(&self) -> bool {
        self.filter.get().is_none()
    }

    /// Takes what remains of the delta for its tree: keys were taken out.
    fn become_less(&mut self, tree: Tree) {
        self.tree = tree;
        if self.lacks_filter() {
            // One that is built from what remains would not do for who holds the version before.
            self.filter = Arc::default();
        }
    }

    /// Whether both are versions of one delta.
    pub(crate) fn is_version_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.origin, &other.origin)
    }

    /// Gives the delta, and whoever holds this version of it, a filter that was built from it or from a version before.
    pub(crate) fn set_filter(&self, filter: &Arc<Filter>) {
        // Somebody else may have been sooner.
        let _ = self.filter.set(Arc::clone(filter));
    }

    /// Builds a filter of the keys of a delta that lacks one; `None` if it was to stop. Reads all of
    /// its leaves. The caller holds the version of the trees. `should_stop` is asked once in a while.
    pub(crate) fn build_filter(
        &self,
        store: &Arc<PartitionedStorageBackend>,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<Option<Arc<Filter>>> {
        assert!(self.stage == Stage::Filled, "keys may be put into a delta that is {:?}", self.stage);
        // What a crafted file says of the number of keys is not believed.
        let most = store.space().bytes / FEWEST_ENTRY_BYTES;
        let filter = Filter::of_keys(self.tree.entries.min(most));
        let mut cursor = TreeCursor::new(self.tree, Arc::clone(store));
        let mut stands = cursor.first()?;
        let mut count = 0u64;
        while stands {
            filter.add(filter.spot(cursor.key()));
            count += 1;
            if count.is_multiple_of(KEYS_BETWEEN_LOOKS) && should_stop() {
                return Ok(None);
            }
            stands = cursor.next()?;
        }
        Ok(Some(Arc::new(filter)))
    }
}

/// The trees of `deltas`.
pub(super) fn trees_of(deltas: &[Delta]) -> impl Iterator<Item = Tree> + '_ {
    deltas.iter().map(|delta| delta.tree)
}

impl std::fmt::Debug for Delta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.tree.fmt(f)
    }
}

/// How trees become others, step by step. What was written is abandoned unless the change is installed.
pub(crate) struct Change<'s> {
    store: &'s Arc<PartitionedStorageBackend>,
    options: MergeOptions,
    should_stop: &'s dyn Fn() -> bool,
    pub(crate) tree: Tree,
    /// Newest first.
    pub(crate) deltas: Vec<Delta>,
    /// First pages and lengths, as a [`MergeOutcome`] has them.
    written: Vec<(PageId, u32)>,
    retired: Vec<(PageId, u32)>,
    pub(crate) stats: MergeStats,
}

impl<'s> Change<'s> {
    /// Begins with the trees of `version`. Leaves are filled to `fill` percent.
    pub(crate) fn of(
        version: &TreeVersion,
        store: &'s Arc<PartitionedStorageBackend>,
        fill: u8,
        should_stop: &'s dyn Fn() -> bool,
    ) -> Self {
        let newest =
            version.deltas.iter().map(|delta| delta.tree.generation).fold(version.tree.generation, u64::max);
        Self {
            store,
            options: MergeOptions { fill, generation: newest.wrapping_add(1), keep_deletions: false },
            should_stop,
            tree: version.tree,
            deltas: version.deltas.clone(),
            written: Vec::new(),
            retired: Vec::new(),
            stats: MergeStats::default(),
        }
    }

    /// Applies `deletions` and `ops` to the tree behind all deltas.
    pub(crate) fn merge_into_tree<'m>(
        &mut self,
        deletions: &[RangeDeletion<'m>],
        ops: impl Iterator<Item = (&'m [u8], MergeOp<'m>)>,
    ) -> Result<()> {
        let outcome =
            btree::merge(&self.tree, self.store, deletions, ops.map(Ok), &self.options, self.should_stop)?;
        self.tree = self.note(outcome);
        Ok(())
    }

    /// Rewrites the tree behind all deltas in packed pages.
    pub(crate) fn repack_tree(&mut self) -> Result<()> {
        let outcome = btree::repack(&self.tree, self.store, &self.options, self.should_stop)?;
        self.tree = self.note(outcome);
        Ok(())
    }

    /// Writes the next entries of the tree behind all deltas anew, from `start` on, in packed pages: about `limit` bytes. Returns where those begin
    /// that follow; `None` at the end.
    pub(crate) fn repack_range(&mut self, start: &[u8], limit: usize) -> Result<Option<Vec<u8>>> {
        let mut range = Stretch::gather([self.tree], self.store, start, limit)?;
        self.merge_into_tree(&[], range.ops())?;
        Ok(range.end.take())
    }

    /// Moves what the tree behind all deltas has in the ranges of pages `moving` to where pages are allocated now.
    pub(crate) fn relocate_tree(&mut self, moving: &[Range<u64>]) -> Result<()> {
        let outcome = btree::relocate(&self.tree, self.store, moving, &self.options, self.should_stop)?;
        self.tree = self.note(outcome);
        Ok(())
    }

    /// Takes what `deletions` cover out of the deltas at `range`; of one that holds nothing else, nothing is left.
    pub(crate) fn delete_from_deltas(
        &mut self,
        range: Range<usize>,
        deletions: &[RangeDeletion<'_>],
    ) -> Result<()> {
        for i in range {
            let tree = self.deltas[i].tree;
            let ops = std::iter::empty();
            let outcome = btree::merge(&tree, self.store, deletions, ops, &self.options, self.should_stop)?;
            let tree = self.note(outcome);
            self.deltas[i].become_less(tree);
        }
        self.deltas.retain(|delta| delta.tree.root.is_some());
        if self.deltas.iter().all(|delta| delta.stage != Stage::Leaving) {
            let filling = self.deltas.iter_mut().find(|delta| delta.stage == Stage::Filling);
            filling.into_iter().for_each(|delta| delta.stage = Stage::Filled);
        }
        Ok(())
    }

    /// Puts a delta of `ops`, of which there are at most `count`, in front.
    pub(crate) fn push_delta<'m>(
        &mut self,
        count: u64,
        ops: impl Iterator<Item = (&'m [u8], MergeOp<'m>)>,
    ) -> Result<()> {
        self.deltas.insert(0, Delta::empty(Stage::Fresh, 0, count));
        self.merge_into_delta(0, ops)?;
        self.deltas[0].merge = self.deltas[0].tree.entries;
        if self.deltas[0].tree.root.is_none() {
            self.deltas.remove(0);
        }
        Ok(())
    }

    /// The delta that is filled from those at `leaving` stands behind them; there is an empty one if it was not begun yet.
    pub(crate) fn filling_behind(&mut self, leaving: Range<usize>) -> usize {
        let at = leaving.end;
        if self.deltas.get(at).is_none_or(|delta| delta.stage != Stage::Filling) {
            let leaving = &mut self.deltas[leaving];
            leaving.iter_mut().for_each(|delta| delta.stage = Stage::Leaving);
            let keys = leaving.iter().map(|delta| delta.tree.entries).sum();
            let merge = leaving.iter().map(|delta| delta.merge).fold(0, u64::max);
            self.deltas.insert(at, Delta::empty(Stage::Filling, merge, keys));
        }
        at
    }

    /// Applies `ops` to the delta at `at`, and keeps deletions as entries.
    pub(crate) fn merge_into_delta<'m>(
        &mut self,
        at: usize,
        ops: impl Iterator<Item = (&'m [u8], MergeOp<'m>)>,
    ) -> Result<()> {
        let Delta { tree, filter, .. } = self.deltas[at].clone();
        let ops = ops.inspect(|(key, _)| {
            if let Some(filter) = filter.get() {
                filter.add(filter.spot(key));
            }
        });
        let options = MergeOptions { keep_deletions: true, ..self.options };
        let outcome = btree::merge(&tree, self.store, &[], ops.map(Ok), &options, self.should_stop)?;
        self.deltas[at].tree = self.note(outcome);
        Ok(())
    }

    fn note(&mut self, outcome: MergeOutcome) -> Tree {
        self.written.extend(outcome.written);
        self.retired.extend(outcome.retired);
        self.stats += outcome.stats;
        outcome.tree
    }

    /// The outcome, with all deltas behind it. What was written belongs to whoever takes it.
    pub(crate) fn finish(mut self) -> (MergeOutcome, Vec<Delta>) {
        let outcome = MergeOutcome {
            tree: self.tree,
            written: std::mem::take(&mut self.written),
            retired: std::mem::take(&mut self.retired),
            stats: self.stats,
        };
        (outcome, std::mem::take(&mut self.deltas))
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if !self.written.is_empty() {
            self.store.abandon(&self.written);
        }
    }
}
