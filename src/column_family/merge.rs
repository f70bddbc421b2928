//! The merge: a family's frozen memtables become part of its tree.

use crate::btree::{self, MergeOp, MergeOptions, MergeOutcome, RangeDeletion};
use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::column_family::family::{Counters, Family};
use crate::column_family::hidden::join;
use crate::column_family::view::{FamilyView, Frozen, View};
use crate::error::{Error, ErrorKind, Result};
use crate::memtable::{Found, Memtable};
use crate::sync::arc_cell::ArcCell;
use crate::sync::sequencer::Sequencer;
use crate::sync::{Arc, Instant};

/// A key above every key that a family can hold: the end of a range deletion that has no end.
pub(crate) static ABOVE_EVERY_KEY: [u8; key::MAX_KEY_LEN + 1] = [0xff; key::MAX_KEY_LEN + 1];

/// What a merge needs of the database.
pub(crate) struct MergeContext<'a> {
    pub(crate) views: &'a ArcCell<View>,
    pub(crate) visible: &'a Sequencer,
    pub(crate) should_stop: &'a dyn Fn() -> bool,
}

impl Family {
    /// Merges all memtables that are frozen now. `false` if there were none, or the family was dropped.
    ///
    /// Waits for a merge that is under way. On an error nothing has changed.
    pub(crate) fn merge(self: &Arc<Self>, context: &MergeContext<'_>) -> Result<bool> {
        let _one_at_a_time = self.merging.lock();
        let stop = || self.is_dropped() || (context.should_stop)();
        let view = context.views.load_full();
        let Ok(view) = view.family(self.slot(), self.id()) else { return Ok(false) };
        let Some(newest) = view.frozen.first() else { return Ok(false) };
        if self.is_dropped() {
            return Ok(false);
        }
        // Not `stop`: a family that is dropped just now does not close the database.
        if (context.should_stop)() {
            return Err(Error::new(ErrorKind::Closed, "the database was closed"));
        }
        let started = Instant::now();
        let through = newest.table.last_sequence();
        context.visible.wait_for(through.0).map_err(|_| {
            Error::new(ErrorKind::WriteFailed, "a commit whose entries are in a memtable was never completed")
        })?;
        let tables: Vec<&Memtable> = view.frozen.iter().map(|frozen| &*frozen.table).collect();
        let deletions = deletions(&tables);
        let tree = view.tree.tree;
        let options =
            MergeOptions { fill: self.options().page_fill, generation: tree.generation.wrapping_add(1) };
        let outcome = match btree::merge(
            &tree,
            self.store(),
            &deletions,
            Newest::new(&tables).map(Ok),
            &options,
            &stop,
        ) {
            Err(_) if self.is_dropped() => return Ok(false),
            outcome => outcome?,
        };
        Counters::add(&self.counters.entries_merged, outcome.stats.entries_in);
        self.count(&outcome);
        self.install(outcome, through, &view.frozen, context.views)?;
        let bytes = tables.iter().map(|table| table.bytes()).sum();
        let took = started.elapsed();
        Counters::add(&self.counters.merges, 1);
        Counters::add(&self.counters.merge_nanoseconds, took.as_nanos() as u64);
        self.stall.merged(tables.len(), bytes, took);
        tracing::debug!(
            family = self.id().0,
            memtables = tables.len(),
            bytes,
            through = through.0,
            ?took,
            "merged"
        );
        Ok(true)
    }

    /// Rewrites the tree in packed pages of new segments. Does nothing if the family is dropped.
    pub(crate) fn repack(self: &Arc<Self>, context: &MergeContext<'_>) -> Result<()> {
        let _one_at_a_time = self.merging.lock();
        // While the lock is held, the pages of a family that is dropped from now on stay.
        if self.is_dropped() {
            return Ok(());
        }
        let (tree, through) = {
            let trees = self.trees.lock();
            (trees.current().tree, trees.merged_through())
        };
        if tree.root.is_none() {
            return Ok(());
        }
        let options =
            MergeOptions { fill: self.options().page_fill, generation: tree.generation.wrapping_add(1) };
        self.store().set_placement(true);
        let stop = || self.is_dropped() || (context.should_stop)();
        let outcome = btree::repack(&tree, self.store(), &options, &stop);
        self.store().set_placement(false);
        let outcome = match outcome {
            Err(_) if self.is_dropped() => return Ok(()),
            outcome => outcome?,
        };
        self.count(&outcome);
        self.install(outcome, through, &[], context.views)
    }

    fn count(&self, outcome: &MergeOutcome) {
        Counters::add(&self.counters.entries_rewritten, outcome.stats.entries_rewritten);
        Counters::add(&self.counters.pages_written, outcome.stats.pages_written);
    }

    /// Makes a new tree the current one and takes the memtables that are in it out of the view, in one step for readers.
    fn install(
        &self,
        outcome: MergeOutcome,
        through: SequenceNumber,
        merged: &[Frozen],
        views: &ArcCell<View>,
    ) -> Result<()> {
        let mut trees = self.trees.lock();
        let version = trees.install(self.store(), outcome, through)?;
        views.update(|view| {
            // A dropped family has left the view; its readers keep the views that they hold.
            let Ok(old) = view.family(self.slot(), self.id()) else { return (view.clone(), ()) };
            let is_merged =
                |frozen: &&Frozen| merged.iter().any(|gone| Arc::ptr_eq(&gone.table, &frozen.table));
            let new = FamilyView {
                family: Arc::clone(&old.family),
                active: Arc::clone(&old.active),
                frozen: old.frozen.iter().filter(|frozen| !is_merged(frozen)).cloned().collect(),
                tree: version,
            };
            (view.with(self.slot(), Some(Arc::new(new))), ())
        });
        drop(trees);
        self.release_unread();
        Ok(())
    }

    /// Frees pages that readers have let go of.
    pub(crate) fn release_unread(&self) {
        // Views that were replaced are dropped as epochs pass, which takes somebody's help where little else happens.
        crate::sync::epoch::collect();
        self.trees.lock().release(self.store());
    }
}

/// What the memtables delete by range, from the tree's point of view.
fn deletions<'m>(tables: &[&'m Memtable]) -> Vec<RangeDeletion<'m>> {
    let all = tables
        .iter()
        .filter(|table| table.has_range_deletions())
        .flat_map(|table| table.deleted_ranges(SequenceNumber::MAX));
    join(all.collect())
        .into_iter()
        .map(|(start, end)| RangeDeletion { start, end: (end != &ABOVE_EVERY_KEY[..]).then_some(end) })
        .collect()
}

/// The newest version of every key of several memtables (newest first), in key order.
struct Newest<'m> {
    tables: &'m [&'m Memtable],
    sources: Vec<Source<'m>>,
}

struct Source<'m> {
    rest: Box<dyn Iterator<Item = (&'m [u8], SequenceNumber, Found<'m>)> + 'm>,
    head: Option<(&'m [u8], Found<'m>)>,
}

impl Source<'_> {
    fn advance(&mut self) {
        self.head = self.rest.next().map(|(key, _, found)| (key, found));
    }
}

impl<'m> Newest<'m> {
    fn new(tables: &'m [&'m Memtable]) -> Self {
        let sources = tables
            .iter()
            .map(|table| {
                let mut source = Source { rest: Box::new(table.iter_newest()), head: None };
                source.advance();
                source
            })
            .collect();
        Self { tables, sources }
    }
}

impl<'m> Iterator for Newest<'m> {
    type Item = (&'m [u8], MergeOp<'m>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut best: Option<(usize, &'m [u8])> = None;
        for (age, source) in self.sources.iter().enumerate() {
            if let Some((candidate, _)) = &source.head
                && best.is_none_or(|(_, key)| key::compare(candidate, key).is_lt())
            {
                best = Some((age, candidate));
            }
        }
        let (age, key) = best?;
        let (_, found) = self.sources[age].head.take()?;
        self.sources[age].advance();
        for older in &mut self.sources[age + 1..] {
            if older.head.as_ref().is_some_and(|(candidate, _)| *candidate == key) {
                older.advance();
            }
        }
        let covered = self.tables[..age]
            .iter()
            .any(|newer| newer.has_range_deletions() && newer.covering(key, SequenceNumber::MAX).is_some());
        let op = match found {
            Found::Put(value) if !covered => MergeOp::Put(value),
            _ => MergeOp::Delete,
        };
        Some((key, op))
    }
}
