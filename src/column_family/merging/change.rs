//! How the trees of a family become others.

use std::cell::OnceCell;
use std::ops::Range;

use crate::btree::{
    self, Combine, MergeOp, MergeOptions, MergeOutcome, MergeStats, RangeDeletion, Sift, Tree, TreeCursor,
};
use crate::codec::expiry::Now;
use crate::codec::ids::PageId;
use crate::codec::key;
use crate::column_family::delta::{Delta, Stage, keys_of};
use crate::column_family::merging::gather::Stretch;
use crate::column_family::merging::sieve::{Sieve, sift_op};
use crate::column_family::trees::TreeVersion;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;

/// A change frees as much as it takes also if it takes one page in so many more.
const LITTLE_MORE: u64 = 16;

/// How trees become others, step by step. What was written is abandoned unless the change is installed.
pub(crate) struct Change<'s> {
    store: &'s Arc<PartitionedStorageBackend>,
    options: MergeOptions,
    should_stop: &'s dyn Fn() -> bool,
    sieve: Option<&'s Sieve<'s>>,
    pub(crate) tree: Tree,
    /// Newest first.
    pub(crate) deltas: Vec<Delta>,
    /// First pages and lengths, as a [`MergeOutcome`] has them.
    written: Vec<(PageId, u32)>,
    retired: Vec<(PageId, u32)>,
    pub(crate) stats: MergeStats,
    is_given_up: bool,
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
            options: MergeOptions {
                fill,
                generation: newest.wrapping_add(1),
                keep_deletions: false,
                now: Now::UNASKED,
            },
            should_stop,
            sieve: None,
            tree: version.tree,
            deltas: version.deltas.clone(),
            written: Vec::new(),
            retired: Vec::new(),
            stats: MergeStats::default(),
            is_given_up: false,
        }
    }

    /// What has expired at `now` is left out of what is written.
    pub(crate) fn judging(mut self, now: Now) -> Self {
        self.options.now = now;
        self
    }

    /// What is written to trees goes through `sieve`, if there is one.
    pub(super) fn through(mut self, sieve: Option<&'s Sieve<'s>>) -> Self {
        self.sieve = sieve;
        self
    }

    /// It is not to be installed: nothing has changed.
    pub(crate) fn give_up(&mut self) {
        self.is_given_up = true;
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.is_given_up
    }

    /// Applies `deletions` and `ops` to the tree behind all deltas.
    pub(crate) fn merge_into_tree<'m>(
        &mut self,
        deletions: &[RangeDeletion<'m>],
        ops: impl Iterator<Item = (&'m [u8], MergeOp<'m>)>,
    ) -> Result<()> {
        let folded = OnceCell::new();
        let (sieve, stop) = (self.sieve, self.should_stop);
        let ops = ops.map(|op| Ok(sift_op(sieve, &folded, op)));
        let sift = sieve.map(|sieve| sieve as &dyn Sift);
        let outcome =
            btree::merge_sifting(&self.tree, self.store, deletions, ops, &self.options, stop, sift)?;
        self.tree = self.note(outcome);
        Ok(())
    }

    /// Rewrites the tree behind all deltas in packed pages.
    pub(crate) fn repack_tree(&mut self) -> Result<()> {
        let outcome = btree::repack(&self.tree, self.store, &self.options, self.should_stop)?;
        self.tree = self.note(outcome);
        Ok(())
    }

    /// Writes the next entries of the tree behind all deltas anew, from `start` on, in packed pages: about
    /// `limit` bytes. Returns where those begin that follow; `None` at the end.
    /// `by` folds what operands stand there.
    pub(crate) fn repack_range(
        &mut self,
        start: &[u8],
        limit: usize,
        by: &dyn Combine,
    ) -> Result<Option<Vec<u8>>> {
        let mut range = Stretch::gather([self.tree], self.store, start, limit)?;
        self.merge_into_tree(&[], range.ops(by, self.options.now))?;
        Ok(range.end.take())
    }

    /// Moves what the tree behind all deltas has in the ranges of pages `moving` to where pages are allocated
    /// now.
    pub(crate) fn relocate_tree(&mut self, moving: &[Range<u64>]) -> Result<()> {
        let outcome = btree::relocate(&self.tree, self.store, moving, &self.options, self.should_stop)?;
        self.tree = self.note(outcome);
        Ok(())
    }

    /// Takes what `deletions` cover out of the deltas at `range`; of one that holds nothing else, nothing is
    /// left.
    pub(crate) fn delete_from_deltas(
        &mut self,
        range: Range<usize>,
        deletions: &[RangeDeletion<'_>],
    ) -> Result<()> {
        for i in range {
            let tree = self.deltas[i].tree;
            if !self.has_any(tree, deletions)? {
                continue;
            }
            let ops = std::iter::empty();
            // What has expired in a delta hides what is older.
            let options = MergeOptions { now: Now::UNASKED, ..self.options };
            let outcome = btree::merge(&tree, self.store, deletions, ops, &options, self.should_stop)?;
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

    /// Whether `tree` has an entry that `deletions` cover: where it has none, its pages stay as they are.
    pub(crate) fn has_any(&self, tree: Tree, deletions: &[RangeDeletion<'_>]) -> Result<bool> {
        let mut cursor = TreeCursor::new(tree, Arc::clone(self.store));
        for RangeDeletion { start, end } in deletions {
            cursor.seek(start)?;
            if !cursor.valid() {
                break;
            }
            if end.is_none_or(|end| key::compare(cursor.key(), end).is_lt()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Refuses what takes more room than it frees. A little more is no matter where much is written.
    pub(crate) fn check_frees(&self) -> Result<()> {
        let sum = |pages: &[(PageId, u32)]| pages.iter().map(|&(_, pages)| u64::from(pages)).sum::<u64>();
        let (written, retired) = (sum(&self.written), sum(&self.retired));
        if written > retired + retired / LITTLE_MORE {
            let message = format!("{written} pages would be written where {retired} become free");
            return Err(Error::new(ErrorKind::OutOfSpace, message).of_family(self.store.family().0));
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

    /// The delta that is filled from those at `leaving` stands behind them; there is an empty one if it was
    /// not begun yet.
    pub(crate) fn filling_behind(&mut self, leaving: Range<usize>) -> usize {
        let at = leaving.end;
        if self.deltas.get(at).is_none_or(|delta| delta.stage != Stage::Filling) {
            let leaving = &mut self.deltas[leaving];
            leaving.iter_mut().for_each(|delta| delta.stage = Stage::Leaving);
            let keys = keys_of(leaving, self.store);
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
        let folded = OnceCell::new();
        let sieve = self.sieve;
        let ops = ops.map(|op| sift_op(sieve, &folded, op)).inspect(|(key, _)| {
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

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};

    #[test]
    fn what_deltas_say_of_their_number_of_keys_sizes_no_filter() {
        let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory").unwrap();
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        let store = family.family().store();
        let mut change = Change::of(&TreeVersion::default(), store, 100, &|| false);
        for key in [b"a", b"b"] {
            change.push_delta(1, [(&key[..], MergeOp::Put(b"value"))].into_iter()).unwrap();
        }
        change.deltas.iter_mut().for_each(|delta| delta.tree.entries = u64::MAX);
        let filling = change.filling_behind(0..2);
        change.merge_into_delta(filling, [(&b"c"[..], MergeOp::Delete)].into_iter()).unwrap();
        let (filter, file) = (change.deltas[filling].filter_bytes(), store.space().bytes);
        assert!((1..=file).contains(&filter), "{filter} bytes of filter for {file} bytes of file");
    }
}
