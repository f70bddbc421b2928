//! Recovery: the log's commits go back into the memtables they were lost from.
//!
//! A family takes only commits beyond the one it is merged through, so what is in its tree is not applied twice; operations on
//! families that the catalog does not know were made on families that are dropped.

use std::collections::HashMap;

use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::column_family::family::{Family, MAX_FROZEN};
use crate::column_family::merge::MergeContext;
use crate::column_family::view::View;
use crate::error::Result;
use crate::sync::Arc;
use crate::sync::arc_cell::ArcCell;
use crate::sync::sequencer::Sequencer;
use crate::txn::batch::{Operation, Operations};
use crate::txn::commit::{Replaced, insert};

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
pub(super) struct Replayer<'a> {
    views: &'a ArcCell<View>,
    families: HashMap<FamilyId, (Arc<Family>, SequenceNumber)>,
    /// Log segment from which on the replayed records stand.
    first_segment: u64,
    /// Whether full memtables are merged, as they must not be when nothing on disk may change.
    merge: bool,
    /// Nobody reads yet: merges need not wait for anything to become visible.
    all_is_visible: Sequencer,
    pub(super) applied: u64,
}

impl<'a> Replayer<'a> {
    pub(super) fn new(views: &'a ArcCell<View>, first_segment: u64, merge: bool) -> Self {
        let families = views
            .load_full()
            .families()
            .map(|view| {
                let through = view.family.trees.lock().merged_through();
                (view.family.id(), (Arc::clone(&view.family), through))
            })
            .collect();
        let all_is_visible = Sequencer::new(u64::MAX);
        Self { views, families, first_segment, merge, all_is_visible, applied: 0 }
    }

    /// Applies one commit.
    pub(super) fn apply(&mut self, sequence: SequenceNumber, payload: &[u8]) -> Result<()> {
        let operations = Operations::new(payload).collect::<Result<Vec<_>>>()?;
        let deletes_ranges = |(_, operation): &(_, _)| matches!(operation, Operation::DeleteRange { .. });
        let replaced =
            if operations.iter().any(deletes_ranges) { Replaced::of(payload) } else { Replaced::default() };
        let mut touched: Vec<FamilyId> = Vec::new();
        for (index, (id, operation)) in operations.into_iter().enumerate() {
            let Some((family, merged_through)) = self.families.get(&id) else { continue };
            if sequence <= *merged_through || replaced.contains(index) {
                continue;
            }
            let mut side = family.write.lock();
            family.note_segment(self.first_segment);
            insert(&mut side, operation, sequence);
            if !touched.contains(&id) {
                touched.push(id);
            }
        }
        self.applied += u64::from(!touched.is_empty());
        if self.merge { touched.iter().try_for_each(|id| self.make_room(*id)) } else { Ok(()) }
    }

    /// Freezes the family's memtable if it is full, after a merge if too many wait already.
    fn make_room(&self, id: FamilyId) -> Result<()> {
        let (family, _) = &self.families[&id];
        let mut side = family.write.lock();
        if side.writer.table().bytes() < family.memtable_bytes() {
            return Ok(());
        }
        if family.stall.waiting() >= MAX_FROZEN {
            drop(side);
            let context =
                MergeContext { views: self.views, visible: &self.all_is_visible, should_stop: &|| false };
            family.merge(&context)?;
            side = family.write.lock();
        }
        family.freeze(&mut side, self.views).map(drop)
    }
}
