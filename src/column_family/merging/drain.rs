//! Draining: what deltas hold goes into the tree, a range of keys at a time.
//!
//! A step takes the next keys of all deltas, as many as a buffer holds, applies them to the tree in one pass
//! and takes their range out of the deltas, in one change for readers. The range moves on from step to step
//! and begins anew at the end of the keys. In the long run every delta has gone once the range has come
//! round, and the tree was rewritten once for what came in meanwhile. On average half of that is drained:
//! with deltas of d bytes in front of a tree of s bytes, each byte rewrites s / (2 d) bytes of it.

use crate::btree::RangeDeletion;
use crate::column_family::delta::JOINED;
use crate::column_family::delta::trees_of;
use crate::column_family::family::{Counters, Family};
use crate::column_family::merging::gather::{Stretch, out_of_order};
use crate::column_family::merging::merge::MergeContext;
use crate::column_family::operands::OfLists;
use crate::column_family::trees::TreeVersion;
use crate::error::Result;
use crate::sync::{Arc, Instant};

/// Merges whose entries deltas may always hold while a family is written to, and those that they hold at
/// most. Their filters are in memory, and what they hold takes space twice.
const HELD: [f64; 2] = [12.0, 36.0];
/// Part of the tree's entries that deltas may hold otherwise.
const HELD_OF_TREE: f64 = 0.25;
/// Bytes of a step up to which the oldest delta alone is drained: with each delta its edges are rewritten.
const OF_OLDEST: usize = 8 << 10;
/// Deltas at which draining goes on however little they hold.
const MAX_DELTAS: usize = 32;
/// Of these, deltas that may wait to be joined.
const MAX_FRESH: usize = 2 * JOINED;
/// Merges by which deltas hold too much, or deltas by which they are too many, when no merge adds to them any
/// more.
const MOST_EXCESS: f64 = 8.0;

/// What a step drained.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// There is nothing to drain, or the family was dropped.
    Nothing,
    /// A range of keys.
    Some,
    /// Nothing of a range of keys, which would have taken more of what is kept for a full disk than it frees.
    Skipped,
    /// The last range: the next step begins with the lowest key.
    ToTheEnd,
}

impl Drained {
    /// Whether anything went into the tree.
    pub(crate) fn has_drained(self) -> bool {
        matches!(self, Self::Some | Self::ToTheEnd)
    }
}

impl TreeVersion {
    /// How far the deltas hold more than they are to hold while the family is written to, in merges, or are
    /// too many; 0 if neither.
    pub(crate) fn excess(&self) -> f64 {
        // What a file says of its entries may be more than can be added up in integers.
        let entries = || self.deltas.iter().map(|delta| delta.tree.entries as f64);
        let merge = self.deltas.iter().map(|delta| delta.merge).fold(1, u64::max) as f64;
        let of_tree = self.tree.entries as f64 * HELD_OF_TREE / merge;
        let by_entries = entries().sum::<f64>() / merge - of_tree.clamp(HELD[0], HELD[1]);
        let by_number =
            (self.deltas.len() as f64 - MAX_DELTAS as f64).max(self.fresh() as f64 - MAX_FRESH as f64);
        by_entries.max(by_number).max(0.0)
    }
}

impl Family {
    /// Whether deltas are to be drained now: they hold too much, or the family rests. Those of a damaged
    /// family stay.
    pub(crate) fn is_to_drain(&self) -> bool {
        if self.damage.is_met() {
            return false;
        }
        let version = Arc::clone(self.trees.lock().current());
        version.excess() > 0.0 || self.is_resting() && !version.deltas.is_empty()
    }

    /// Joins and drains until there may be another delta. That takes no time unless draining is far behind,
    /// as it falls with many writers.
    pub(super) fn make_room_for_delta(self: &Arc<Self>, context: &MergeContext<'_>) -> Result<()> {
        let is_full = || self.trees.lock().current().excess() >= MOST_EXCESS;
        while is_full() && (self.join_step(context)? | (self.drain_step(context)? != Drained::Nothing)) {}
        Ok(())
    }

    /// Whether there are deltas that are to be drained one day.
    pub(crate) fn has_deltas(&self) -> bool {
        !self.damage.is_met() && !self.trees.lock().current().deltas.is_empty()
    }

    /// Whether deltas hold more than one entry for each `share` of the tree.
    pub(crate) fn holds_much_in_deltas(&self, share: u64) -> bool {
        let version = Arc::clone(self.trees.lock().current());
        let in_deltas = version.deltas.iter().fold(0u64, |sum, delta| sum.saturating_add(delta.tree.entries));
        in_deltas > version.tree.entries / share
    }

    /// Drains what deltas hold now into the tree.
    pub(crate) fn drain_to_the_end(self: &Arc<Self>, context: &MergeContext<'_>) -> Result<()> {
        // All of it is drained when the range has been at the end of the keys twice.
        let mut ends = 0;
        while ends < 2 {
            match self.drain_step(context)? {
                Drained::Nothing => break,
                Drained::Some | Drained::Skipped => {}
                Drained::ToTheEnd => ends += 1,
            }
        }
        Ok(())
    }

    /// Drains one range of keys of the deltas into the tree.
    ///
    /// Waits for a merge that is under way. On an error nothing has changed.
    pub(crate) fn drain_step(self: &Arc<Self>, context: &MergeContext<'_>) -> Result<Drained> {
        self.drain_range(context).map_err(|error| self.judge(error))
    }

    fn drain_range(self: &Arc<Self>, context: &MergeContext<'_>) -> Result<Drained> {
        let mut position = self.take_turn();
        self.damage.check()?;
        let version = Arc::clone(self.trees.lock().current());
        if version.deltas.is_empty() || self.is_dropped() {
            return Ok(Drained::Nothing);
        }
        let started = Instant::now();
        let limit = self.memtable_bytes().min(context.most_bytes);
        let all = version.deltas.len();
        let drained = if context.most_bytes <= OF_OLDEST { all - 1..all } else { 0..all };
        let deltas = &version.deltas[drained.clone()];
        let mut range = Stretch::gather(trees_of(deltas), self.store(), &position.0, limit)?;
        if range.is_empty() {
            // The end of the keys.
            range = Stretch::gather(trees_of(deltas), self.store(), &[], limit)?;
        }
        if range.is_empty() {
            return Err(out_of_order(self.store()));
        }
        let mut is_skipped = false;
        let sieve = self.sieve_if_roomy(context, &version, 0, &[]);
        let changed = self.change_through(context, &version, sieve, |change| {
            change.merge_into_tree(&[], range.ops(&OfLists(self), self.dropped_at(context.now)))?;
            let deletion = RangeDeletion { start: &range.start, end: range.end.as_deref() };
            change.delete_from_deltas(drained, &[deletion])?;
            if context.from_reserve {
                change.check_frees().inspect_err(|_| is_skipped = true)?;
            }
            Ok(())
        });
        match changed {
            Err(_) if is_skipped => {}
            Ok(None) => return Ok(Drained::Nothing),
            changed => {
                changed?;
                Counters::add(&self.counters.drains, 1);
                self.stall.drained(range.bytes, started.elapsed());
            }
        }
        let came_round = range.end.is_none();
        position.0 = range.end.take().unwrap_or_default();
        Ok(match came_round {
            true => Drained::ToTheEnd,
            false if is_skipped => Drained::Skipped,
            false => Drained::Some,
        })
    }
}
