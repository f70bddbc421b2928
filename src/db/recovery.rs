//! Recovery: the log's commits go back into the memtables they were lost from.
//!
//! A family takes only commits beyond the one it is merged through, so what is in its tree is not applied twice; operations on
//! families that the catalog does not know were made on families that are dropped.
//!
//! One thread reads and sums the log, another inserts. What is read is inserted whole, in the order of the log, before anything is made
//! of it; if the log turns out to be corrupt further on, or an insertion fails, opening fails and nothing is left of either.

use std::collections::HashMap;

use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::column_family::family::Family;
use crate::column_family::merge::{MergeContext, Pace};
use crate::column_family::view::View;
use crate::db::stretch::hand_over;
use crate::error::{Error, Result};
use crate::sync::arc_cell::ArcCell;
use crate::sync::sequencer::Sequencer;
use crate::sync::{Arc, spawn_scoped, thread};
use crate::txn::batch::{Operation, Operations};
use crate::txn::commit::{Replaced, insert_all};

/// Part of the budget for writing that memtables may take before the largest is merged. The rest is for what writers bring
/// before these are merged: up to four more memtables of each family, and the write buffers.
const MEMTABLE_PART: u64 = 2;
/// Part of that budget by which reading may be ahead of inserting, and the bytes of log that are enough: so many are inserted while
/// the log's end is made durable.
const AHEAD_PART: u64 = 16;
const ENOUGH_AHEAD: u64 = 64 << 20;

/// What opening a database replayed from its log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Records read from the log, each a commit.
    pub records: u64,
    /// Commits of which something was not merged yet and went into a memtable.
    pub records_applied: u64,
    /// Bytes of the records read.
    pub bytes: u64,
    /// Log segments read.
    pub segments: u64,
    /// Where a torn tail was cut off: number of the log segment and byte offset in it. `None` if the log ended in good order.
    pub torn_tail: Option<(u64, u64)>,
    /// Position of the last commit that the database holds.
    pub last_sequence: SequenceNumber,
}

/// Applies the log's commits to the families of a view.
///
/// Nothing is merged while the memtables of all families together stay within their part of the budget for writing: a merge takes
/// several times as long as what it merges took to replay, and can go on when the database is open.
pub(super) struct Replayer<'a> {
    views: &'a ArcCell<View>,
    families: HashMap<FamilyId, Replayed>,
    /// Bytes of all memtables.
    bytes: u64,
    /// Log segment from which on the replayed records stand.
    first_segment: u64,
    /// Bytes for all that writing takes; `None` if nothing on disk may change, so that nothing is merged.
    budget: Option<u64>,
    /// As merges of the open database have it.
    merge_cost: u32,
    /// Nobody reads yet: merges need not wait for anything to become visible.
    all_is_visible: Sequencer,
    pub(super) applied: u64,
    /// Operations in all records, whether or not they were applied.
    pub(super) operations: u64,
}

struct Replayed {
    family: Arc<Family>,
    merged_through: SequenceNumber,
    /// Bytes of its memtable.
    bytes: u64,
}

impl<'a> Replayer<'a> {
    pub(super) fn new(
        views: &'a ArcCell<View>,
        first_segment: u64,
        budget: Option<u64>,
        merge_cost: u32,
    ) -> Self {
        let families = views
            .load_full()
            .families()
            .map(|view| {
                let merged_through = view.family.trees.lock().merged_through();
                (view.family.id(), Replayed { family: Arc::clone(&view.family), merged_through, bytes: 0 })
            })
            .collect();
        Self {
            views,
            families,
            bytes: 0,
            first_segment,
            budget,
            merge_cost,
            all_is_visible: Sequencer::new(u64::MAX),
            applied: 0,
            operations: 0,
        }
    }

    /// Applies all commits that `read` gives, in their order, while it reads on; then calls `meanwhile`, while the last ones are
    /// applied. If any of that fails nothing may be made of what was applied.
    pub(super) fn apply_all<R>(
        &mut self,
        read: impl FnOnce(&mut dyn FnMut(SequenceNumber, &[u8]) -> Result<()>) -> Result<R>,
        meanwhile: impl FnOnce(&R) -> Result<()>,
    ) -> Result<R> {
        thread::scope(|scope| {
            let views = self.views;
            let ahead = self.budget.map_or(ENOUGH_AHEAD, |budget| (budget / AHEAD_PART).min(ENOUGH_AHEAD));
            let (mut reading, inserting) = hand_over(ahead as usize);
            let insert = || inserting.for_each(|sequence, payload| self.apply(sequence, payload));
            let inserting = spawn_scoped(scope, "peristyle-replay", insert)
                .map_err(|error| Error::io("starting a thread for the replay", error))?;
            let outcome = read(&mut |sequence, payload| {
                if reading.push(sequence, payload)? {
                    // Reading takes a fraction of the time that inserting takes.
                    views.load_full().families().for_each(|family| family.active.make_ready());
                }
                Ok(())
            });
            let outcome = outcome.and_then(|report| {
                reading.finish()?;
                meanwhile(&report).map(|()| report)
            });
            let inserted = inserting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            inserted.and(outcome)
        })
    }

    /// Applies one commit.
    fn apply(&mut self, sequence: SequenceNumber, payload: &[u8]) -> Result<()> {
        let mut touched: Vec<FamilyId> = Vec::new();
        let mut missing = Vec::new();
        let mut deletes_ranges = false;
        let mut last: Option<(FamilyId, Option<usize>)> = None;
        for (index, operation) in Operations::new(payload).enumerate() {
            let (id, operation) = operation?;
            self.operations += 1;
            deletes_ranges |= matches!(operation, Operation::DeleteRange { .. });
            let place = match last {
                Some((family, place)) if family == id => place,
                _ => self.place(id, sequence, &mut touched),
            };
            last = Some((id, place));
            if let Some(place) = place {
                missing.push((index, place, operation));
            }
        }
        if touched.is_empty() {
            return Ok(());
        }
        let replaced = if deletes_ranges { Replaced::of(payload) } else { Replaced::default() };
        let missing = missing.into_iter().filter(|(index, _, _)| !replaced.contains(*index));
        self.applied += 1;
        {
            let families: Vec<_> = touched.iter().map(|id| &self.families[id].family).collect();
            families.iter().for_each(|family| family.note_segment(self.first_segment));
            let mut sides: Vec<_> = families.iter().map(|family| family.write.lock()).collect();
            insert_all(missing.map(|(_, place, operation)| (place, operation)), &mut sides, sequence);
        }
        for id in touched {
            self.measure(id);
        }
        self.make_room()
    }

    /// The place of a family among the `touched` ones; `None` if it does not take the commit `sequence`.
    fn place(&self, id: FamilyId, sequence: SequenceNumber, touched: &mut Vec<FamilyId>) -> Option<usize> {
        let known = self.families.get(&id).filter(|known| sequence > known.merged_through);
        known.map(|_| {
            touched.iter().rposition(|touched| *touched == id).unwrap_or_else(|| {
                touched.push(id);
                touched.len() - 1
            })
        })
    }

    fn measure(&mut self, id: FamilyId) {
        if let Some(replayed) = self.families.get_mut(&id) {
            let side = replayed.family.write.lock();
            let table = side.writer.table();
            // Of an empty one a merge frees nothing.
            let bytes = if table.is_empty() { 0 } else { table.bytes() as u64 };
            self.bytes = self.bytes - replayed.bytes + bytes;
            replayed.bytes = bytes;
        }
    }

    /// Merges the largest memtables until the others are within the budget.
    fn make_room(&mut self) -> Result<()> {
        let Some(budget) = self.budget else { return Ok(()) };
        while self.bytes > budget / MEMTABLE_PART
            && let Some((&id, largest)) = self.families.iter().max_by_key(|(_, replayed)| replayed.bytes)
        {
            largest.family.freeze(&mut largest.family.write.lock(), self.views)?;
            let context = MergeContext {
                views: self.views,
                visible: &self.all_is_visible,
                should_stop: &|| false,
                merge_cost: self.merge_cost,
            };
            largest.family.merge(&context, Pace::Now)?;
            self.measure(id);
        }
        Ok(())
    }
}
