//! Keeping a database on a full disk: in small steps, between which space is made.

use crate::column_family::family::Family;
use crate::column_family::merging::gather::MOST_BYTES;
use crate::column_family::merging::merge::MergeContext;
use crate::db::shared::Shared;
use crate::error::{ErrorKind, Result};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::wal::Log;

/// Bytes of keys and values that a step of a merge takes on a full disk, if it found no room for more.
const STEPS: [usize; 4] = [512 << 10, 64 << 10, 8 << 10, 1 << 10];
/// About how many bytes the catalog takes for a family, and for each of its segments.
const RECORD_BYTES: usize = 400;
const SEGMENT_BYTES: usize = 12;

/// How often space is made for what comes on a little each time.
const MOST_ROUNDS: usize = 64;

/// How large the steps are in which something is done, and whether it has come on since space was last made
/// for it.
#[derive(Debug)]
pub(super) struct Steps {
    most_bytes: usize,
    has_come_on: bool,
    rounds_left: usize,
}

impl Default for Steps {
    fn default() -> Self {
        Self { most_bytes: MOST_BYTES, has_come_on: true, rounds_left: MOST_ROUNDS }
    }
}

/// What was done; `None` if it was refused: what there is no room for stays as it is.
pub(super) fn unless_refused<R>(outcome: Result<R>) -> Result<Option<R>> {
    match outcome {
        Err(error) if error.is_refusal() => {
            tracing::warn!(%error, "something stays as it is for now");
            Ok(None)
        }
        outcome => outcome.map(Some),
    }
}

impl Shared {
    /// Does `work`; where the disk has no room for it, again after space was made, in ever smaller steps, out
    /// of what is kept for a full disk. The caller holds no lock.
    pub(super) fn in_steps<R>(
        &self,
        steps: &mut Steps,
        should_stop: &dyn Fn() -> bool,
        mut work: impl FnMut(&MergeContext<'_>) -> Result<R>,
    ) -> Result<R> {
        let mut open = None;
        loop {
            let mut context = self.pipeline.merge_context(should_stop);
            context.most_bytes = steps.most_bytes;
            context.from_reserve = open.is_some();
            let before = self.touched.installed();
            match work(&context) {
                Err(error) if error.kind() == ErrorKind::OutOfSpace => {
                    tracing::debug!(%error, ?steps, "space is made for a merge");
                    if self.touched.installed() != before && steps.rounds_left > 0 {
                        steps.rounds_left -= 1;
                    } else if !steps.has_come_on {
                        let smaller = STEPS.iter().find(|&&bytes| bytes < steps.most_bytes);
                        steps.most_bytes = *smaller.ok_or(error)?;
                    }
                    steps.has_come_on = false;
                    let alone = open.take().map_or_else(|| self.at_reserve.lock(), |(alone, _)| alone);
                    self.make_space()?;
                    open = Some((alone, self.data.space().open_reserve()));
                }
                outcome => {
                    steps.has_come_on = true;
                    if let Some((_alone, open)) = open {
                        drop(open);
                        if !self.data.space().fill_reserve() {
                            self.make_space()?;
                        }
                    }
                    return outcome.map_err(|error| self.judge(error));
                }
            }
        }
    }

    /// Frees what dropped families and the last checkpoint alone needed, and gives it back to the disk, which
    /// was met full.
    pub(super) fn make_space(&self) -> Result<()> {
        let give_back = || {
            self.pipeline.short_of_space.store(true, Ordering::Relaxed);
            let (mut any, families) = (self.reap(), self.families());
            let mut more = self.segments_with_room(&families);
            for family in families {
                let before = family.store().segment_count();
                family.release_unread();
                any |= family.give_back_every_page(more);
                more = more.saturating_sub(family.store().segment_count().saturating_sub(before));
            }
            any
        };
        give_back();
        self.free_removed_log();
        self.leave_merged_log()?;
        self.checkpoint()?;
        // What only the checkpoint before needed is free by now.
        if give_back() {
            self.checkpoint()?;
        }
        if let Some(log) = &self.pipeline.log {
            // What merges took that had to be given up is free again.
            self.data.space().owe(log.weight());
        }
        self.free_removed_log();
        Ok(())
    }

    /// If all that the log holds is merged, goes on to another segment, so that the checkpoint lets go of the
    /// present one, and nothing is kept for merging it.
    fn leave_merged_log(&self) -> Result<()> {
        let Some(log) = &self.pipeline.log else { return Ok(()) };
        let is_merged =
            |family: &Arc<Family>| family.stall.waiting() == 0 && family.active_segment() == u64::MAX;
        if log.weight() == 0 || !self.families().iter().all(is_merged) {
            return Ok(());
        }
        unless_refused(log.leave_segment(true)).map(drop).map_err(|error| self.pipeline.fail(error))
    }

    /// How many segments more than `families` have the catalog can name in the room that it has for certain.
    fn segments_with_room(&self, families: &[Arc<Family>]) -> usize {
        let room = {
            let catalog = &self.checkpoint.lock().catalog;
            catalog.spare.map_or(catalog.place.room, |spare| spare.room) as usize * self.data.page_size()
        };
        let taken =
            families.iter().map(|family| RECORD_BYTES + family.store().segment_count() * SEGMENT_BYTES);
        room.saturating_sub(taken.sum()) / SEGMENT_BYTES
    }

    /// Makes good what was taken of what is kept for a full disk. While it is not whole, only what frees
    /// something is written.
    pub(super) fn fill_reserve(&self) -> Result<()> {
        let Some(log) = &self.pipeline.log else { return Ok(()) };
        if log.fill_reserve()? {
            self.pipeline.on_reserve.store(false, Ordering::Relaxed);
        } else if self.data.space().is_short() {
            self.pipeline.on_reserve.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// On a full disk, what an opening and its replay took of what is kept for that is made good at once:
    /// processes that are killed there one after the other would use it up. To be called before there are
    /// other threads.
    pub(super) fn prepare_for_full_disk(&self) -> Result<()> {
        let Some(log) = &self.pipeline.log else { return Ok(()) };
        // Who opens is told what failed, not that writing has ended.
        let what_failed = |error| log.failed().unwrap_or(error);
        self.fill_reserve().map_err(what_failed)?;
        if log.fill_files().map_err(what_failed)? {
            return Ok(());
        }
        self.pipeline.on_reserve.store(true, Ordering::Relaxed);
        let families = self.families();
        // Each by itself: what there is no room for stays in the log.
        let tolerate = |done: Result<()>| match done {
            Err(error) if error.is_refusal() => {
                tracing::warn!(%error, "the database is opened on a full disk");
                Ok(())
            }
            done => done,
        };
        for family in &families {
            tolerate(self.drain(family))?;
        }
        tolerate(self.make_space())
    }

    /// Gives the room of all removed segments of the log back to the disk.
    pub(super) fn free_removed_log(&self) {
        while self.pipeline.log.as_ref().is_some_and(Log::free_one) {}
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use crate::db::full_disk::{RECORD_BYTES, SEGMENT_BYTES};
    use crate::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};

    #[test]
    fn the_catalog_has_a_spare_place_as_soon_as_a_database_is_open() {
        let storage = MemoryStorage::new();
        let builder =
            || ColumnFamilyDatabase::builder().automatic_maintenance(false).storage(storage.clone());
        let db = builder().open("memory").unwrap();
        db.create_column_family("family", FamilyOptions::default()).unwrap().put("key", "value").unwrap();
        db.close().unwrap();
        storage.set_capacity_limit(storage.used_bytes());
        let db = builder().open("memory").unwrap();
        let state = db.shared().checkpoint.lock();
        assert!(state.catalog.spare.is_some_and(|spare| spare.room >= state.catalog.place.room));
    }

    #[test]
    fn the_catalog_has_room_for_what_families_keep_when_they_give_back_all_they_can() {
        let storage = MemoryStorage::new();
        let builder = ColumnFamilyDatabase::builder().automatic_maintenance(false).page_size(4096);
        let db = builder.storage(storage).open("memory").unwrap();
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        for n in 0u32..4000 {
            family.put(n.to_be_bytes(), [n as u8; 8000]).unwrap();
        }
        db.compact().unwrap();
        for n in (0u32..4000).step_by(2) {
            family.delete(n.to_be_bytes()).unwrap();
        }
        db.shared().drain_deltas(family.family()).unwrap();
        db.checkpoint().unwrap();
        let room = {
            let catalog = &db.shared().checkpoint.lock().catalog;
            catalog.spare.unwrap().room as usize * 4096
        };
        db.shared().make_space().unwrap();
        let segments = family.family().store().segment_count();
        assert!(segments > 500, "{segments}");
        assert!(RECORD_BYTES + segments * SEGMENT_BYTES <= room, "{segments}");
        assert!(db.verify().unwrap().is_clean());
    }
}
