//! The merge: a family's frozen memtables become part of its tree, or a delta in front of it.

use crate::btree::{MergeOp, MergeStats, RangeDeletion};
use crate::codec::expiry::Now;
use crate::codec::ids::SequenceNumber;
use crate::codec::key::{self, ABOVE_EVERY_KEY};
use crate::column_family::family::DrainPosition;
use crate::column_family::family::{Counters, Family};
use crate::column_family::merging::change::Change;
use crate::column_family::merging::gather::MOST_BYTES;
use crate::column_family::merging::sieve::Sieve;
use crate::column_family::operands::OfMemtables;
use crate::column_family::remembered::Remembered;
use crate::column_family::stall::WORTH_A_MERGE;
use crate::column_family::trees::TreeVersion;
use crate::column_family::view::{FamilyView, Frozen, Measured, View};
use crate::error::{Error, ErrorKind, Result};
use crate::memtable::{Found, Memtable};
use crate::sync::arc_cell::ArcCell;
use crate::sync::sequencer::Sequencer;
use crate::sync::{Arc, Instant, MutexGuard};

/// What a merge needs of the database.
pub(crate) struct MergeContext<'a> {
    pub(crate) views: &'a ArcCell<View>,
    pub(crate) visible: &'a Sequencer,
    pub(crate) should_stop: &'a dyn Fn() -> bool,
    /// Bytes of a tree that a merge may write for each byte of memtables; where it would write more, it
    /// writes a delta.
    pub(crate) merge_cost: u32,
    pub(crate) remembered: &'a Remembered,
    /// What has expired by then is dropped.
    pub(crate) now: Now,
    /// Bytes of keys and values that a step takes at most: less than [`MOST_BYTES`] where the disk has no
    /// room for as much.
    pub(crate) most_bytes: usize,
    /// Whether the room comes out of what is kept for a full disk: then nothing is written but what
    /// memtables hold, and what frees as much as it takes.
    pub(crate) from_reserve: bool,
    /// Whether every commit so far is in the log.
    pub(crate) all_is_logged: bool,
}

impl MergeContext<'_> {
    /// Whether there is so little room that as little as can be is written at once: one memtable, as a delta.
    fn is_short(&self) -> bool {
        self.most_bytes < MOST_BYTES
    }
}

/// What a merge of few memtables does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// It goes on.
    Now,
    /// It waits until most of the memtables are frozen that there can be: what is merged in one pass rewrites
    /// the same leaves once, and fewer and larger deltas are cheaper to drain.
    WhenWorthIt,
}

impl Family {
    /// Merges all memtables that are frozen now; of a disk that is short of room, the oldest. `false` if
    /// there were none, the pace let them wait, or the family was dropped. Of a family that is damaged, or
    /// turns out to be, they become a delta.
    ///
    /// Waits for a merge that is under way. On an error nothing has changed.
    pub(crate) fn merge(self: &Arc<Self>, context: &MergeContext<'_>, pace: Pace) -> Result<bool> {
        // What is kept is not for making deltas fewer: they are more for a while.
        if !self.damage.is_met()
            && !context.from_reserve
            && let Err(error) = self.make_room_for_delta(context)
            && !self.damage.is_met()
        {
            return Err(error);
        }
        let _one_at_a_time = self.take_turn();
        // Of this family alone: a merge may take long, and whoever holds a view keeps the old trees of every
        // family.
        let view = context.views.load_full().family(self.slot(), self.id()).map(Arc::clone);
        let Ok(view) = view else { return Ok(false) };
        let taken = if context.is_short() { view.frozen.len().saturating_sub(1) } else { 0 };
        let frozen = &view.frozen[taken..];
        let Some(newest) = frozen.first() else { return Ok(false) };
        if self.is_dropped() {
            return Ok(false);
        }
        // Not `stop`: a family that is dropped just now does not close the database.
        if (context.should_stop)() {
            return Err(Error::new(ErrorKind::Closed, "the database was closed"));
        }
        if pace == Pace::WhenWorthIt && frozen.len() < WORTH_A_MERGE {
            return Ok(false);
        }
        if self.damage.is_stuck() {
            self.damage.check()?;
        }
        let started = Instant::now();
        let through = newest.table.last_sequence();
        context.visible.wait_for(through.0).map_err(|_| {
            Error::new(ErrorKind::WriteFailed, "a commit whose entries are in a memtable was never completed")
        })?;
        let version = self.delete_ahead(context, &view.tree, frozen);
        let version = version.map_err(|error| self.judge(error))?;
        let as_delta = context.is_short() || self.damage.is_met() || !version.deltas.is_empty();
        let is_costly = match as_delta {
            true => Ok(true),
            false => self.is_costly(&version, frozen, context.merge_cost),
        };
        let merged = is_costly.and_then(|as_delta| self.merge_frozen(context, &version, frozen, as_delta));
        let merged = match merged.map_err(|error| self.judge(error)) {
            Err(error) if error.kind() == ErrorKind::FamilyDamaged => {
                // What stood in the way may have been a page of the tree, or of a delta, that this does not
                // need.
                let again =
                    self.merge_frozen(context, &version, frozen, true).map_err(|error| self.judge(error));
                if again.as_ref().is_err_and(|error| error.kind() == ErrorKind::FamilyDamaged) {
                    self.damage.set_stuck();
                }
                again?
            }
            merged => merged?,
        };
        if !merged {
            return Ok(false);
        }
        let bytes: usize = frozen.iter().map(|frozen| frozen.table.bytes()).sum();
        let took = started.elapsed();
        Counters::add(&self.counters.merges, 1);
        Counters::add(&self.counters.merge_nanoseconds, took.as_nanos() as u64);
        // What a merge of next to nothing takes for a byte says nothing of a large one.
        self.stall.merged(frozen.len(), bytes.max(self.memtable_bytes() / 2), took);
        tracing::debug!(
            family = self.id().0,
            memtables = frozen.len(),
            bytes,
            through = through.0,
            ?took,
            "merged"
        );
        Ok(true)
    }

    /// Makes memtables that are `frozen`, the oldest ones, part of the tree of `version`, or a delta of it.
    /// `false` if the family was dropped meanwhile. The caller holds the lock of merges. On an error nothing
    /// has changed.
    fn merge_frozen(
        &self,
        context: &MergeContext<'_>,
        version: &TreeVersion,
        frozen: &[Frozen],
        as_delta: bool,
    ) -> Result<bool> {
        let _kept = self.store().for_memtables();
        let tables: Vec<&Memtable> = frozen.iter().map(|frozen| &*frozen.table).collect();
        let stop = || self.is_dropped() || (context.should_stop)();
        let deletions = deletions(&tables);
        let now = self.dropped_at(context.now);
        let by = OfMemtables { family: self, tables: &tables, now };
        let ops = Newest::new(&by);
        let sieve = self.sieve_if_roomy(context, version, 0, frozen);
        let change = Change::of(version, self.store(), self.options().page_fill, &stop);
        let mut change = change.judging(self.dropped_at(context.now)).through(sieve.as_ref());
        let merged = if as_delta {
            self.merge_as_delta(&mut change, &tables, &deletions, ops)
        } else {
            change.merge_into_tree(&deletions, ops)
        };
        match merged {
            Err(_) if self.is_dropped() => return Ok(false),
            merged => merged?,
        }
        let through = frozen.first().map(|frozen| frozen.table.last_sequence());
        let stats = change.stats;
        // Before they leave the view: who looks there first and for what is kept then finds them.
        frozen.iter().for_each(|frozen| context.remembered.keep(self.id(), &frozen.table));
        self.install(change, through, frozen, context.views)?;
        sieve.into_iter().for_each(Sieve::conclude);
        Counters::add(&self.counters.entries_merged, stats.entries_in);
        self.count(&stats);
        Ok(true)
    }

    /// Merges all memtables that are frozen now, also where only one at a time has room.
    pub(crate) fn merge_all(self: &Arc<Self>, context: &MergeContext<'_>) -> Result<()> {
        let mut left = self.stall.waiting();
        while self.merge(context, Pace::Now)? && context.is_short() && left > 1 {
            left -= 1;
        }
        Ok(())
    }

    /// On a disk that is short of room, takes what the memtables delete by range out of the trees, one after
    /// the other, the oldest first, so that each needs little room. Nobody sees it, since the memtables
    /// stand in front, and nothing older comes up again, whatever of it a checkpoint makes durable: a replay
    /// of the log does the rest. So all of it must be in the log. The trees afterwards.
    fn delete_ahead(
        &self,
        context: &MergeContext<'_>,
        version: &Arc<TreeVersion>,
        frozen: &[Frozen],
    ) -> Result<Arc<TreeVersion>> {
        let mut version = Arc::clone(version);
        if !context.is_short() || !context.all_is_logged || self.damage.is_met() {
            return Ok(version);
        }
        let tables: Vec<&Memtable> = frozen.iter().map(|frozen| &*frozen.table).collect();
        let _kept = self.store().for_memtables();
        for some in deletions(&tables).chunks((context.most_bytes >> 12).max(1)) {
            // None: the tree.
            let mut place: Option<usize> = None;
            loop {
                let tree = match place {
                    None => version.tree,
                    Some(delta) => version.deltas[delta].tree,
                };
                let stop = || false;
                if Change::of(&version, self.store(), 100, &stop).has_any(tree, some)? {
                    self.change(context, &version, |change| match place {
                        None => change.merge_into_tree(some, std::iter::empty()),
                        Some(delta) => change.delete_from_deltas(delta..delta + 1, some),
                    })?;
                    version = Arc::clone(self.trees.lock().current());
                }
                // Deltas of which nothing is left are gone: those before are where they were.
                match place.unwrap_or(version.deltas.len()).min(version.deltas.len()) {
                    0 => break,
                    behind => place = Some(behind - 1),
                }
            }
        }
        Ok(version)
    }

    /// Puts what the memtables hold in front of the trees; what they delete by range goes from the trees at
    /// once.
    fn merge_as_delta<'m>(
        &self,
        change: &mut Change<'_>,
        tables: &[&Memtable],
        deletions: &[RangeDeletion<'m>],
        ops: impl Iterator<Item = (&'m [u8], MergeOp<'m>)>,
    ) -> Result<()> {
        if !deletions.is_empty() {
            change.merge_into_tree(deletions, std::iter::empty())?;
            change.delete_from_deltas(0..change.deltas.len(), deletions)?;
        }
        change.push_delta(tables.iter().map(|table| table.entries()).sum(), ops)
    }

    /// Whether the tree would be rewritten by more than `cost` bytes for each byte of the memtables:
    /// estimated from the leaves of the tree between their lowest and their highest key, of which each
    /// operation rewrites one at most.
    fn is_costly(&self, version: &TreeVersion, frozen: &[Frozen], cost: u32) -> Result<bool> {
        let (mut low, mut high): (Option<Vec<u8>>, Option<Vec<u8>>) = (None, None);
        for Frozen { table, .. } in frozen {
            let mut cursor = table.cursor(SequenceNumber::MAX);
            if cursor.first() && low.as_ref().is_none_or(|low| key::compare(cursor.key(), low).is_lt()) {
                low = Some(cursor.key().to_vec());
            }
            if cursor.last() && high.as_ref().is_none_or(|high| key::compare(cursor.key(), high).is_gt()) {
                // The key behind it: the end of a range is not part of it.
                high = Some([cursor.key(), &[0]].concat());
            }
        }
        let operations: u64 = frozen.iter().map(|frozen| frozen.table.entries()).sum();
        let bytes: usize = frozen.iter().map(|frozen| frozen.table.bytes()).sum();
        let (low, high) = (low.as_deref(), high.as_deref());
        let pages = version.tree.changed_pages(self.store(), low, high, operations)?;
        let rewritten = pages * self.store().page_size() as f64;
        Ok(rewritten > f64::from(cost) * bytes as f64)
    }

    /// Makes of the trees of `version`, which is the current one, what `apply` makes of them; they hold the
    /// same commits afterwards. `None` if the family was dropped meanwhile, or `apply` gave the change up.
    /// The caller holds the lock of merges. On an error nothing has changed.
    pub(super) fn change<R>(
        &self,
        context: &MergeContext<'_>,
        version: &TreeVersion,
        apply: impl FnOnce(&mut Change<'_>) -> Result<R>,
    ) -> Result<Option<R>> {
        self.change_through(context, version, None, apply)
    }

    /// The same; what is written to trees goes through `sieve`, if there is one.
    pub(super) fn change_through<R>(
        &self,
        context: &MergeContext<'_>,
        version: &TreeVersion,
        sieve: Option<Sieve<'_>>,
        apply: impl FnOnce(&mut Change<'_>) -> Result<R>,
    ) -> Result<Option<R>> {
        let stop = || self.is_dropped() || (context.should_stop)();
        let change = Change::of(version, self.store(), self.options().page_fill, &stop);
        let mut change = change.judging(self.dropped_at(context.now)).through(sieve.as_ref());
        let applied = match apply(&mut change) {
            Err(_) if self.is_dropped() => return Ok(None),
            applied => applied?,
        };
        if change.is_given_up() {
            return Ok(None);
        }
        self.count(&change.stats);
        self.install(change, None, &[], context.views)?;
        sieve.into_iter().for_each(Sieve::conclude);
        Ok(Some(applied))
    }

    /// What a merge asks the filter with, if there is one: see [`sieve`](Self::sieve). Not where there is
    /// little room, nor for a damaged family.
    pub(super) fn sieve_if_roomy(
        &self,
        context: &MergeContext<'_>,
        version: &TreeVersion,
        before: usize,
        merged: &[Frozen],
    ) -> Option<Sieve<'_>> {
        if context.is_short() || context.from_reserve || self.damage.is_met() {
            return None;
        }
        self.sieve(context.views, context.now, version, before, merged)
    }

    fn count(&self, stats: &MergeStats) {
        Counters::add(&self.counters.entries_rewritten, stats.entries_rewritten);
        Counters::add(&self.counters.pages_written, stats.pages_written);
    }

    /// Makes new trees the current ones and takes the memtables that are in them out of the view, in one step
    /// for readers. Without `through`, the trees hold no commits that the old ones did not hold.
    fn install(
        &self,
        change: Change<'_>,
        through: Option<SequenceNumber>,
        merged: &[Frozen],
        views: &ArcCell<View>,
    ) -> Result<()> {
        let (outcome, deltas) = change.finish();
        let mut trees = self.trees.lock();
        let through = through.unwrap_or(trees.merged_through());
        let version = trees.install(self.store(), outcome, deltas, through)?;
        self.count_installed();
        self.stall.set_excess(version.excess());
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
                measured: Measured::default(),
            };
            (view.with(self.slot(), Some(Arc::new(new))), ())
        });
        drop(trees);
        merged.iter().for_each(|frozen| frozen.table.set_merged());
        self.release_unread();
        Ok(())
    }

    /// Waits until no other merge is under way. What readers, and the merge before, let go of can then be
    /// written anew.
    pub(super) fn take_turn(&self) -> MutexGuard<'_, DrainPosition> {
        let turn = self.merging.lock();
        self.release_unread();
        turn
    }

    /// Frees pages that readers have let go of.
    pub(crate) fn release_unread(&self) {
        // Views that were replaced are dropped as epochs pass, which takes somebody's help where little else
        // happens.
        crate::sync::epoch::collect();
        self.release_let_go();
    }

    /// Frees pages of versions that are known to be let go of.
    pub(crate) fn release_let_go(&self) {
        self.trees.lock().release(self.store());
    }
}

/// What memtables say of a key.
pub(crate) enum Said<'m> {
    Value(&'m [u8]),
    /// A stamped value.
    Expiring(&'m [u8]),
    Deleted,
    /// It has operands, the value follows from these and what is older.
    Operands,
}

/// What all memtables of `view` say, as one commit would: first each range that they delete, start and end if
/// it has one, ascending; then what they say of each key, ascending, until that fails.
pub(crate) fn unmerged(
    view: &FamilyView,
    mut range: impl FnMut(&[u8], Option<&[u8]>),
    mut entry: impl FnMut(&[u8], Said<'_>) -> Result<()>,
) -> Result<()> {
    let tables: Vec<&Memtable> = view.memtables().map(|table| &**table).collect();
    deletions(&tables).iter().for_each(|deletion| range(deletion.start, deletion.end));
    let by = OfMemtables { family: &view.family, tables: &tables, now: Now::UNASKED };
    for (key, op) in Newest::new(&by) {
        match op {
            MergeOp::Put(value) => entry(key, Said::Value(value))?,
            MergeOp::PutExpiring(stamped) => entry(key, Said::Expiring(stamped))?,
            MergeOp::Delete => entry(key, Said::Deleted)?,
            MergeOp::Operands { .. } | MergeOp::Made(_) => entry(key, Said::Operands)?,
        }
    }
    Ok(())
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

/// The newest version of every key of several memtables (newest first), in key order; where that is an
/// operand, all that they say of the key.
struct Newest<'m> {
    by: &'m OfMemtables<'m>,
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
    fn new(by: &'m OfMemtables<'m>) -> Self {
        let sources = by
            .tables
            .iter()
            .map(|table| {
                let mut source = Source { rest: Box::new(table.iter_newest()), head: None };
                source.advance();
                source
            })
            .collect();
        Self { by, sources }
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
        let covered = self.by.tables[..age]
            .iter()
            .any(|newer| newer.has_range_deletions() && newer.covering(key, SequenceNumber::MAX).is_some());
        let op = match found {
            Found::Put(value) if !covered => MergeOp::Put(value),
            Found::Expiring(stamped) if !covered => MergeOp::of_stamped(stamped, self.by.now),
            Found::Operands(_) if !covered => MergeOp::Operands { list: &[], by: self.by },
            _ => MergeOp::Delete,
        };
        Some((key, op))
    }
}

/// Joins ranges that overlap or touch; the result is disjoint and ascending.
fn join<K: AsRef<[u8]>>(mut ranges: Vec<(K, K)>) -> Vec<(K, K)> {
    ranges.sort_by(|a, b| key::compare(a.0.as_ref(), b.0.as_ref()));
    let mut joined: Vec<(K, K)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match joined.last_mut() {
            Some(last) if key::compare(start.as_ref(), last.1.as_ref()).is_le() => {
                if key::compare(end.as_ref(), last.1.as_ref()).is_gt() {
                    last.1 = end;
                }
            }
            _ => joined.push((start, end)),
        }
    }
    joined
}
