//! Joining: deltas that memtables were written as become one larger delta, a range of keys at a time.
//!
//! Readers ask every delta, and how much of the tree draining rewrites falls with what the deltas hold: few
//! large ones are better than many small ones, for one more byte written for each. The deltas of a family
//! are, the newest first: fresh ones; those that are leaving; the one that is filled from them; and those
//! that were filled before. A step takes the next keys of those that are leaving and puts them behind
//! everything that it filled so far, in one change for readers. So the order in which they count never
//! changes.
//!
//! Source: the stepped merge of H. V. Jagadish et al., "Incremental Organization for Data Recording and
//! Warehousing", VLDB 1997; with one step.

use crate::btree::RangeDeletion;
use crate::column_family::delta::{JOINED, Stage, trees_of};
use crate::column_family::family::{Counters, Family};
use crate::column_family::merging::gather::{Stretch, out_of_order};
use crate::column_family::merging::merge::MergeContext;
use crate::column_family::operands::OfLists;
use crate::column_family::trees::TreeVersion;
use crate::error::Result;
use crate::sync::{Arc, Instant};
use std::ops::Range;

impl TreeVersion {
    /// Deltas that wait to be joined.
    pub(super) fn fresh(&self) -> usize {
        self.deltas.iter().filter(|delta| delta.stage == Stage::Fresh).count()
    }

    /// Where the deltas are that are to be joined: those that are leaving, or as many of the oldest fresh
    /// ones as become one.
    fn to_join(&self) -> Option<Range<usize>> {
        let fresh = self.fresh();
        let leaving = self.deltas.iter().filter(|delta| delta.stage == Stage::Leaving).count();
        match leaving {
            0 if fresh < JOINED => None,
            0 => Some(fresh - JOINED..fresh),
            _ => Some(fresh..fresh + leaving),
        }
    }
}

impl Family {
    /// Whether deltas are to be joined now. Not while the family rests: then all go into the tree.
    pub(crate) fn is_to_join(&self) -> bool {
        !self.is_resting() && !self.damage.is_met() && self.trees.lock().current().to_join().is_some()
    }

    /// Joins one range of keys of deltas. `false` if there are none to join, or the family was dropped.
    ///
    /// Waits for a merge that is under way. On an error nothing has changed.
    pub(crate) fn join_step(self: &Arc<Self>, context: &MergeContext<'_>) -> Result<bool> {
        self.join_range(context).map_err(|error| self.judge(error))
    }

    fn join_range(self: &Arc<Self>, context: &MergeContext<'_>) -> Result<bool> {
        let _one_at_a_time = self.take_turn();
        self.damage.check()?;
        let version = Arc::clone(self.trees.lock().current());
        let Some(leaving) = version.to_join() else { return Ok(false) };
        if self.is_dropped() {
            return Ok(false);
        }
        let started = Instant::now();
        let limit = self.memtable_bytes().min(context.most_bytes);
        let range = Stretch::gather(trees_of(&version.deltas[leaving.clone()]), self.store(), &[], limit)?;
        if range.is_empty() {
            return Err(out_of_order(self.store()));
        }
        let sieve = self.sieve_if_roomy(context, &version, leaving.start, &[]);
        let joined = self.change_through(context, &version, sieve, |change| {
            let filling = change.filling_behind(leaving.clone());
            change.merge_into_delta(filling, range.ops(&OfLists(self), self.dropped_at(context.now)))?;
            let deletion = RangeDeletion { start: &[], end: range.end.as_deref() };
            change.delete_from_deltas(leaving, &[deletion])
        })?;
        if joined.is_none() {
            return Ok(false);
        }
        Counters::add(&self.counters.joins, 1);
        self.stall.joined(range.bytes, started.elapsed());
        Ok(true)
    }
}
