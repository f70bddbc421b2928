//! Recovery: the log's commits go back into the memtables they were lost from.
//!
//! A family takes only commits beyond the one it is merged through, so what is in its tree is not applied twice; operations on
//! families that the catalog does not know were made on families that are dropped.

use std::collections::HashMap;

use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::column_family::family::Family;
use crate::column_family::merge::{MergeContext, Pace};
use crate::column_family::view::View;
use crate::error::Result;
use crate::options::MERGE_COST;
use crate::sync::Arc;
use crate::sync::arc_cell::ArcCell;
use crate::sync::sequencer::Sequencer;
use crate::txn::batch::{Operation, Operations};
use crate::txn::commit::{Replaced, insert_all};

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
/// Nothing is merged while the memtables of all families together stay within their budget: a merge takes several times as long as
/// what it merges took to replay, and can go on when the database is open. Until then up to half as much may come on top of the
/// budget, if writers freeze more memtables meanwhile.
pub(super) struct Replayer<'a> {
    views: &'a ArcCell<View>,
    families: HashMap<FamilyId, Replayed>,
    /// Bytes of all memtables.
    bytes: u64,
    /// Log segment from which on the replayed records stand.
    first_segment: u64,
    /// Bytes that memtables may take before the largest is merged; `None` if nothing on disk may change.
    budget: Option<u64>,
    /// Nobody reads yet: merges need not wait for anything to become visible.
    all_is_visible: Sequencer,
    pub(super) applied: u64,
}

struct Replayed {
    family: Arc<Family>,
    merged_through: SequenceNumber,
    /// Bytes of its memtable.
    bytes: u64,
}

impl<'a> Replayer<'a> {
    pub(super) fn new(views: &'a ArcCell<View>, first_segment: u64, budget: Option<u64>) -> Self {
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
            all_is_visible: Sequencer::new(u64::MAX),
            applied: 0,
        }
    }

    /// Applies one commit.
    pub(super) fn apply(&mut self, sequence: SequenceNumber, payload: &[u8]) -> Result<()> {
        let operations = Operations::new(payload).collect::<Result<Vec<_>>>()?;
        let deletes_ranges = |(_, operation): &(_, _)| matches!(operation, Operation::DeleteRange { .. });
        let replaced =
            if operations.iter().any(deletes_ranges) { Replaced::of(payload) } else { Replaced::default() };
        let mut touched: Vec<FamilyId> = Vec::new();
        let mut missing = Vec::with_capacity(operations.len());
        for (index, (id, operation)) in operations.into_iter().enumerate() {
            let Some(Replayed { merged_through, .. }) = self.families.get(&id) else { continue };
            if sequence <= *merged_through || replaced.contains(index) {
                continue;
            }
            let place = touched.iter().rposition(|touched| *touched == id).unwrap_or_else(|| {
                touched.push(id);
                touched.len() - 1
            });
            missing.push((place, operation));
        }
        if touched.is_empty() {
            return Ok(());
        }
        self.applied += 1;
        {
            let families: Vec<_> = touched.iter().map(|id| &self.families[id].family).collect();
            families.iter().for_each(|family| family.note_segment(self.first_segment));
            let mut sides: Vec<_> = families.iter().map(|family| family.write.lock()).collect();
            insert_all(missing.into_iter(), &mut sides, sequence);
        }
        for id in touched {
            self.measure(id);
        }
        self.make_room()
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
        while self.bytes > budget
            && let Some((&id, largest)) = self.families.iter().max_by_key(|(_, replayed)| replayed.bytes)
        {
            largest.family.freeze(&mut largest.family.write.lock(), self.views)?;
            let context = MergeContext {
                views: self.views,
                visible: &self.all_is_visible,
                should_stop: &|| false,
                merge_cost: MERGE_COST,
            };
            largest.family.merge(&context, Pace::Now)?;
            self.measure(id);
        }
        Ok(())
    }
}
