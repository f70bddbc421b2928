//! How a family gets its first memtable, and a new one when the active one is full: the changes of the view
//! that make memtables.

use crate::column_family::family::{Counters, Family, Origin, WriteSide};
use crate::column_family::stall::MAX_FROZEN;
use crate::column_family::view::{FamilyView, Frozen, Measured, View};
use crate::error::Result;
use crate::memtable::Memtable;
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;
use crate::sync::arc_cell::ArcCell;

impl Family {
    /// The family and its first view.
    pub(crate) fn create(
        origin: Origin,
        store: Arc<PartitionedStorageBackend>,
        memtable_bytes: usize,
    ) -> Arc<FamilyView> {
        let writer = Memtable::create(memtable_bytes);
        let active = Arc::clone(writer.table());
        let family = Self::new(origin, store, writer, memtable_bytes);
        let tree = Arc::clone(family.trees.lock().current());
        Arc::new(FamilyView { family, active, frozen: Vec::new(), tree, measured: Measured::default() })
    }

    /// Freezes the active memtable unless it is empty. Call with the write lock's content; fails if
    /// `MAX_FROZEN` wait already.
    pub(crate) fn freeze(&self, side: &mut WriteSide, views: &ArcCell<View>) -> Result<bool> {
        if side.writer.table().is_empty() {
            return Ok(false);
        }
        Ok(self.freeze_with(side, None, views))
    }

    /// Puts `part`, which is newer than everything that was written so far, in front of the frozen memtables,
    /// and freezes the active one before it unless that is empty. Call with the write lock's content, when
    /// there are places for what this freezes.
    pub(crate) fn freeze_apart(&self, side: &mut WriteSide, part: Frozen, views: &ArcCell<View>) {
        // A checkpoint may not have heard of it: the log is replayed into memtables that were never active.
        self.touch();
        let frozen = self.freeze_with(side, Some(part), views);
        assert!(frozen || self.is_dropped(), "there is no place for a memtable that has its number");
    }

    /// All that the memtables hold stands in one record of the log, which is in `segment` or later. Call with
    /// the write lock's content.
    pub(crate) fn set_segment(&self, side: &WriteSide, segment: u64, views: &ArcCell<View>) {
        self.set_active_segment(side, segment);
        views.update(|view| {
            let Ok(old) = view.family(self.slot(), self.id()) else { return (view.clone(), ()) };
            let mut new = FamilyView::clone(old);
            new.frozen.iter_mut().for_each(|frozen| frozen.first_segment = segment);
            (view.with(self.slot(), Some(Arc::new(new))), ())
        });
        self.touch();
    }

    fn freeze_with(&self, side: &mut WriteSide, part: Option<Frozen>, views: &ArcCell<View>) -> bool {
        let writer = (!side.writer.table().is_empty()).then(|| side.writer.successor(self.memtable_bytes()));
        let active = Arc::clone(writer.as_ref().unwrap_or(&side.writer).table());
        let first_segment = self.active_segment();
        let count = usize::from(writer.is_some()) + usize::from(part.is_some());
        // Counted first: a merge may take them as soon as the view shows them.
        self.stall.frozen(count);
        let frozen = views.update(|view| {
            let Ok(old) = view.family(self.slot(), self.id()) else { return (view.clone(), false) };
            // Of one that is stuck nothing is merged, but what is replayed has to go somewhere.
            if old.frozen.len() + count > MAX_FROZEN && !self.damage.is_stuck() {
                return (view.clone(), false);
            }
            let mut frozen = Vec::with_capacity(old.frozen.len() + count);
            frozen.extend(part.iter().cloned());
            if writer.is_some() {
                frozen.push(Frozen { table: Arc::clone(&old.active), first_segment });
            }
            frozen.extend(old.frozen.iter().cloned());
            let new = FamilyView {
                family: Arc::clone(&old.family),
                active: Arc::clone(&active),
                frozen,
                tree: Arc::clone(&old.tree),
                measured: Measured::default(),
            };
            (view.with(self.slot(), Some(Arc::new(new))), true)
        });
        if frozen {
            if let Some(writer) = writer {
                side.writer = writer;
            }
            // After the view shows the memtable as frozen, so that a checkpoint that reads this first, then
            // the view, misses neither.
            self.forget_segment();
            Counters::add(&self.counters.freezes, count as u64);
        } else {
            self.stall.not_frozen(count);
        }
        frozen
    }
}
