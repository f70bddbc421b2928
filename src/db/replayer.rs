//! What the parts of a replay share: the families, the memory that they may take, and the merges that keep
//! them within it.

use std::collections::BTreeMap;

use crate::codec::expiry::Now;
use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::column_family::family::Family;
use crate::column_family::merging::gather::MOST_BYTES;
use crate::column_family::merging::merge::{MergeContext, Pace};
use crate::column_family::remembered::Remembered;
use crate::column_family::stall::MAX_FROZEN;
use crate::column_family::view::{FamilyView, Frozen, View};
use crate::db::progress::Progress;
use crate::error::{ErrorKind, Result};
use crate::memtable::Memtable;
use crate::sync::Arc;
use crate::sync::arc_cell::ArcCell;
use crate::sync::sequencer::Sequencer;

/// Part of the budget for writing that memtables may take when the database is open. The rest is for what
/// writers bring before these are merged: up to four more memtables of each family, and the write buffers.
const MEMTABLE_PART: u64 = 2;
/// Memory of the read cache that memtables may take while the log is replayed, at most: nothing else uses it
/// by then.
const FROM_CACHE: u64 = 64 << 20;
/// Part of the budget for writing by which reading may be ahead of inserting, and the bytes of log that are
/// enough: so many are inserted while the log's end is made durable.
const AHEAD_PART: u64 = 16;
const ENOUGH_AHEAD: u64 = 64 << 20;
/// Memory that a replay may take, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// For memtables while the log is replayed.
    replaying: u64,
    /// For memtables afterwards.
    pub(super) open: u64,
    /// For what is read and not inserted yet.
    pub(super) ahead: u64,
}

impl Budget {
    pub(super) fn new(write_buffer_bytes: u64, cache_bytes: u64) -> Self {
        let open = write_buffer_bytes / MEMTABLE_PART;
        Self {
            replaying: open.max((cache_bytes / 2).min(FROM_CACHE)),
            open,
            ahead: (write_buffer_bytes / AHEAD_PART).min(ENOUGH_AHEAD),
        }
    }

    /// Without a limit: nothing on disk may change, so nothing is merged.
    pub(super) fn unlimited() -> Self {
        Self { replaying: u64::MAX, open: u64::MAX, ahead: ENOUGH_AHEAD }
    }

    pub(super) fn is_unlimited(&self) -> bool {
        self.open == u64::MAX
    }

    /// For memtables of a part and of those before, while those behind are replayed as well.
    pub(super) fn of_parts(&self, parts: usize, of: usize) -> u64 {
        (u128::from(self.replaying) * parts as u128 / of as u128) as u64
    }
}

/// A family that takes commits.
pub(super) struct Known {
    pub(super) family: Arc<Family>,
    pub(super) merged_through: SequenceNumber,
}

/// What all parts of a replay share.
///
/// Nothing is merged while the memtables of all families together stay within their part of the budget for
/// writing: a merge takes several times as long as what it merges took to replay, and can go on when the
/// database is open.
pub(super) struct Replayer<'a> {
    pub(super) views: &'a ArcCell<View>,
    pub(super) families: BTreeMap<FamilyId, Known>,
    pub(super) budget: Budget,
    pub(super) progress: Progress<'a>,
    /// As merges of the open database have it.
    merge_cost: u32,
    /// No transaction is open.
    remembered: Remembered,
    /// Nobody reads yet: merges need not wait for anything to become visible.
    all_is_visible: Sequencer,
}

/// What was replayed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    /// Commits of which something went into a memtable.
    pub(super) applied: u64,
    /// Operations in all records, whether or not they were applied.
    pub(super) operations: u64,
}

impl<'a> Replayer<'a> {
    pub(super) fn new(
        views: &'a ArcCell<View>,
        budget: Budget,
        merge_cost: u32,
        progress: Progress<'a>,
    ) -> Self {
        let families = views
            .load_full()
            .families()
            .map(|view| {
                let merged_through = view.family.trees.lock().merged_through();
                (view.family.id(), Known { family: Arc::clone(&view.family), merged_through })
            })
            .collect();
        let (remembered, all_is_visible) = (Remembered::up_to(0), Sequencer::new(u64::MAX));
        Self { views, families, budget, progress, merge_cost, remembered, all_is_visible }
    }

    /// Merges all that is in `family`'s memtables in the view, at once. Says whether they are gone: what of a
    /// damaged family cannot be merged stays.
    pub(super) fn merge(&self, family: &Arc<Family>) -> Result<bool> {
        if family.damage.is_stuck() {
            return Ok(false);
        }
        family.freeze(&mut family.write.lock(), self.views)?;
        let context = MergeContext {
            views: self.views,
            visible: &self.all_is_visible,
            should_stop: &|| false,
            merge_cost: self.merge_cost,
            remembered: &self.remembered,
            // The clock is the program's: it is not asked before the database is open.
            now: Now::UNASKED,
            most_bytes: MOST_BYTES,
            from_reserve: false,
            all_is_logged: true,
        };
        let merged = match family.merge(&context, Pace::Now) {
            // One after the other may have room. Nothing can be made free before the database is open.
            Err(error) if error.kind() == ErrorKind::OutOfSpace => {
                let _open = family.store().open_reserve();
                let context = MergeContext { most_bytes: MOST_BYTES / 64, from_reserve: true, ..context };
                family.merge_all(&context).map(|()| true)
            }
            merged => merged,
        };
        match merged {
            Err(error) if error.kind() == ErrorKind::FamilyDamaged => Ok(false),
            merged => merged.map(|_| true),
        }
    }

    /// Bytes of the memtables of `family` in the view. Of empty ones a merge frees nothing.
    pub(super) fn memtable_bytes(&self, family: &Family) -> u64 {
        let view = self.views.load_full();
        let bytes = |view: &FamilyView| {
            let tables = view.memtables().filter(|table| !table.is_empty());
            tables.map(|table| table.bytes() as u64).sum()
        };
        view.family(family.slot(), family.id()).map_or(0, |view| bytes(view))
    }

    /// Puts `table`, whose records stand in the log from `first_segment` on, in front of the memtables of
    /// `family`.
    pub(super) fn put_in_front(
        &self,
        family: &Arc<Family>,
        table: Arc<Memtable>,
        first_segment: u64,
    ) -> Result<()> {
        // It takes a place, and the active memtable may.
        if family.stall.waiting() + 2 > MAX_FROZEN {
            self.merge(family)?;
        }
        let part = Frozen { table, first_segment };
        family.freeze_apart(&mut family.write.lock(), part, self.views);
        Ok(())
    }
}
