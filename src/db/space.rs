//! Free space goes back: from families to the data file, from the data file and the log to the disk.
//!
//! Three occasions: families at rest, which background threads look at;
//! [`wait_until_idle`](crate::ColumnFamilyDatabase::wait_until_idle); compaction. What a family gives back is
//! reused, cut off or made a hole after the next checkpoint.

use crate::column_family::family::Family;
use crate::column_family::merging::compaction::{MOST_MOVED, Moved};
use crate::column_family::merging::merge::MergeContext;
use crate::db::shared::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;

/// Free bytes below which a file keeps them.
pub(super) const MUCH_FREE: u64 = 8 << 20;
/// The log keeps one byte ready for so many bytes of data.
const DATA_FOR_LOG: u64 = 8;
/// A family has little to gain from a compaction if it is one page in so many.
const LITTLE: u64 = 16;

/// A checkpoint frees what only the last one keeps, if that is one page in so many of those that the family's
/// trees reach, or in so many of the file.
const SUPERSEDED: [u64; 2] = [8, 64];
/// Times that the catalog is moved, and checkpoints that are made, before the file is cut, at most.
const MOST_MOVES: usize = 4;
const MOST_TO_CUT: usize = 8;
/// Bytes of a family below which closing leaves it as it is.
const SMALL: u64 = 16 << 20;

impl Shared {
    /// A checkpoint, if so many pages of `family` are kept for the last one alone that it is due. Where
    /// readers keep little, they may be three quarters of what its trees take: a checkpoint costs syncs. It
    /// is made by another thread, unless it is long overdue.
    pub(super) fn checkpoint_for_space(&self, family: &Family) -> Result<()> {
        match self.checkpoints_due(family) {
            0 => Ok(()),
            1..4 => {
                self.pipeline.work.request_checkpoint();
                Ok(())
            }
            _ => self.checkpoint(),
        }
    }

    /// For how many checkpoints there are enough pages that the last one alone keeps; 0 if nobody needs them.
    fn checkpoints_due(&self, family: &Family) -> u64 {
        let space = family.store().space();
        let least = MUCH_FREE / self.data.page_size() as u64;
        let least = least.max(space.pages_reachable / SUPERSEDED[0]);
        let least = least.max(self.data.space().used_pages() / SUPERSEDED[1]);
        let kept = (space.pages_in_use - space.pages_reachable).saturating_add(space.pages_superseded);
        if kept < space.pages_reachable / 4 * 3 { 0 } else { space.pages_superseded / least }
    }

    /// Families give back what they have free, if it is more than a quarter of what their trees take and than
    /// `most` bytes. Returns whether any did.
    pub(super) fn give_back_pages<'f>(
        &self,
        families: impl IntoIterator<Item = &'f Arc<Family>>,
        most: u64,
    ) -> bool {
        let mut any = false;
        for family in families {
            any |= family.give_back(self.much_free(family, most));
        }
        any
    }

    /// Free pages from which on `family` gives them back, if they are more than `most` bytes.
    fn much_free(&self, family: &Family, most: u64) -> u64 {
        (family.store().space().pages_reachable / 4).max(most / self.data.page_size() as u64) + 1
    }

    /// Whether `family` has so many free pages left that it is worth moving pages to give them back: more
    /// than a third of what its tree takes, and than `most` bytes.
    pub(super) fn is_scattered(&self, family: &Family, most: u64) -> bool {
        if family.damage.is_met() {
            return false;
        }
        let space = family.store().space();
        let free = space.pages_total - space.pages_in_use;
        free > (space.pages_reachable / 3).max(most / self.data.page_size() as u64)
    }

    /// Moves as many pages of `family` to the front as fit. Returns whether there were any.
    pub(super) fn move_all(&self, family: &Arc<Family>, context: &MergeContext<'_>) -> Result<bool> {
        let mut any = false;
        loop {
            // A damaged page that nobody asked for is no reason to end all writing.
            let judge = |error: Error| if error.is_damage() { error } else { self.judge(error) };
            match family.move_to_front(context).map_err(judge)? {
                Moved::Nothing => return Ok(any),
                Moved::AllThatFits => return Ok(true),
                Moved::Some => any = true,
            }
        }
    }

    /// Moves what `family` has at `file_page` of the data file, or behind it, to where the file is free
    /// before. Returns whether there was anything that found room.
    pub(super) fn move_below(
        &self,
        family: &Arc<Family>,
        context: &MergeContext<'_>,
        file_page: u64,
    ) -> Result<bool> {
        let mut any = false;
        // Merges may put more there meanwhile, but not for ever.
        for _ in 0..8 + 2 * family.store().space().bytes / MOST_MOVED {
            if family.move_below(context, file_page).map_err(|error| self.judge(error))? == Moved::Nothing {
                break;
            }
            any = true;
        }
        Ok(any)
    }

    /// Does at once what background threads do after some seconds of rest, without regard to how little it
    /// is: makes merged trees durable if that happens by itself, and gives back what only older ones needed.
    pub(super) fn give_back_now(&self) -> Result<()> {
        if self.options.automatic && self.has_merges_to_checkpoint() {
            self.checkpoint()?;
        }
        let families = self.families();
        families.iter().for_each(|family| family.release_unread());
        let mut any = self.give_back_pages(&families, 0);
        let ended = || self.pipeline.owns_files().is_err();
        let context = self.pipeline.merge_context(&ended);
        let mut moved = false;
        for family in families.iter().filter(|family| self.is_scattered(family, 0)) {
            let any = self.move_all(family, &context);
            self.pipeline.work.touch(family);
            moved |= match any {
                // Nobody needs this page now: who reads it is told.
                Err(error) if error.is_damage() => {
                    tracing::warn!(%error, family = family.id().0, "pages stay scattered");
                    false
                }
                any => any?,
            };
        }
        if moved {
            self.checkpoint()?;
            families.iter().for_each(|family| family.release_unread());
            any |= self.give_back_pages(&families, 0);
        }
        if any {
            self.checkpoint()?;
            self.shrink()?;
        }
        if self.log_keeps_much() {
            self.give_back_log()?;
        }
        Ok(())
    }

    /// Before the end: families that take much more of the disk than their trees need drain their deltas,
    /// move what is scattered together, and give back the rest. What is in the way of that stays, and is no
    /// reason not to close.
    pub(super) fn pack_for_end(&self) -> Result<()> {
        let ended = || self.pipeline.owns_files().is_err();
        let context = self.pipeline.merge_context(&ended);
        let mut families = self.families();
        families.retain(|family| family.store().space().bytes > SMALL && !family.damage.is_met());
        let tolerate = |outcome: Result<()>| match outcome {
            Err(error)
                if error.is_damage() || error.kind() == ErrorKind::FamilyDamaged || error.is_refusal() =>
            {
                tracing::warn!(%error, "a family keeps more of the disk than it needs");
                Ok(())
            }
            outcome => outcome,
        };
        let mut changed = false;
        for family in &families {
            if family.holds_much_in_deltas(LITTLE) {
                changed = true;
                tolerate(family.drain_to_the_end(&context).map_err(|error| self.judge(error)))?;
            }
        }
        families.retain(|family| self.keeps_more(family, LITTLE));
        if families.is_empty() && !changed {
            return Ok(());
        }
        for round in 0..2 {
            self.checkpoint()?;
            crate::sync::epoch::collect();
            for family in &families {
                family.release_unread();
                family.give_back(1);
                if round == 0 && self.keeps_more(family, LITTLE) {
                    tolerate(self.move_all(family, &context).map(drop))?;
                }
            }
        }
        self.cut()
    }

    /// Cuts the data file behind what is used. What families gave back is free after a checkpoint; where the
    /// catalog, or its spare place, is what stands at the end, it moves to the front. Nothing is written if
    /// neither is so.
    pub(super) fn cut(&self) -> Result<()> {
        // What was the catalog's place is its spare one after a move, and free after two and a checkpoint.
        let mut moves = 0;
        for _ in 0..MOST_TO_CUT {
            if moves < MOST_MOVES && self.catalog_is_in_the_way() {
                moves += 1;
                self.checkpoint_afresh()?;
            } else if self.data.space().has_waiting() {
                self.checkpoint()?;
            } else {
                break;
            }
        }
        self.shrink()
    }

    /// Whether the file is as long as it is for the catalog or its spare place, and there is room before for
    /// both copies of all that the catalog says.
    fn catalog_is_in_the_way(&self) -> bool {
        let state = self.checkpoint.lock();
        let pages = state.catalog.wanted_room(state.catalog.len, self.data.page_size() as u64);
        let places = [Some(state.catalog.place), state.catalog.spare];
        places.iter().flatten().any(|place| {
            let copies: Vec<u64> = place.copies.into_iter().flatten().collect();
            self.data.space().is_longer_for(&copies, place.room, 2, pages)
        })
    }

    /// Whether `family` has more pages than its trees reach by one in `share`.
    fn keeps_more(&self, family: &Family, share: u64) -> bool {
        let space = family.store().space();
        space.pages_total - space.pages_reachable > space.pages_reachable / share
    }

    /// Whether the log has more files in reserve than the data is worth.
    pub(super) fn log_keeps_much(&self) -> bool {
        let data = self.data.space().used_pages() * self.data.page_size() as u64;
        self.pipeline
            .log
            .as_ref()
            .is_some_and(|log| log.reserve_bytes() > (data / DATA_FOR_LOG).max(MUCH_FREE))
    }

    /// Gives back to the disk what no record of the log stands in that recovery needs.
    pub(super) fn give_back_log(&self) -> Result<()> {
        if self.shrink_log()? {
            // The checkpoint lets go of a large segment, which is then kept for reuse.
            self.checkpoint()?;
            self.shrink_log()?;
        }
        Ok(())
    }

    /// Removes what the log keeps for reuse and goes on to a small segment, unless it is at one. Returns
    /// whether a checkpoint lets go of the one before.
    pub(super) fn shrink_log(&self) -> Result<bool> {
        self.pipeline.owns_files()?;
        self.check_place()?;
        let Some(log) = &self.pipeline.log else { return Ok(false) };
        log.give_back().map_err(|error| self.judge(error))
    }

    /// Cuts the data file and makes holes in it.
    pub(super) fn shrink(&self) -> Result<()> {
        let _no_checkpoint = self.checkpoint.lock();
        self.pipeline.owns_files()?;
        self.data.space().shrink().map_err(|error| self.judge(error)).map(drop)
    }

    /// Whether rewriting `family` would save no more than a sixteenth of its pages: those free in its
    /// segments, and those by which its leaves would be fewer. Nothing of it is in memtables.
    pub(super) fn is_packed(&self, family: &Family) -> Result<bool> {
        // While the lock is held, the pages of a family that is dropped from now on stay.
        let _no_merge = family.merging.lock();
        if family.is_dropped() {
            return Ok(true);
        }
        family.damage.check()?;
        let tree = family.trees.lock().current().tree;
        let store = family.store();
        let space = store.space();
        let (free, little) = (space.pages_total - space.pages_in_use, space.pages_total / LITTLE);
        if free > little {
            return Ok(false);
        }
        let spare = tree.spare_pages(store, family.options().page_fill);
        let spare = spare.map_err(|error| self.judge(family.judge(error)))?;
        Ok(free + spare <= little)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::Duration;

    use crate::btree::MergeOp;
    use crate::column_family::merging::change::Change;
    use crate::column_family::merging::compaction::Repacked;
    use crate::column_family::trees::TreeVersion;
    use crate::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};

    #[test]
    fn a_change_that_is_given_up_leaves_no_pages() {
        let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory").unwrap();
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        let store = family.family().store();
        let before = store.space().pages_in_use;
        let version = TreeVersion::default();
        let mut change = Change::of(&version, store, 100, &|| false);
        change.push_delta(1, [(&b"key"[..], MergeOp::Put(b"value"))].into_iter()).unwrap();
        assert!(store.space().pages_in_use > before);
        drop(change);
        assert_eq!(store.space().pages_in_use, before);
    }

    #[test]
    fn a_checkpoint_is_due_once_it_would_free_much_beside_what_readers_keep() {
        let builder = ColumnFamilyDatabase::builder().automatic_maintenance(false).merge_cost(u32::MAX);
        let db = builder.storage(MemoryStorage::new()).open("memory").unwrap();
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        let fill = |keys: std::ops::Range<u32>| {
            keys.for_each(|n| {
                family.put(n.to_be_bytes(), [n as u8; 1000]).unwrap();
            });
            db.shared().drain(family.family()).unwrap();
        };
        let due = || {
            // Other tests' readers put off what was let go of.
            crate::sync::epoch::drain();
            family.family().release_unread();
            db.shared().checkpoints_due(family.family())
        };
        fill(0..20_000);
        db.checkpoint().unwrap();
        fill(0..12_000);
        assert_eq!(due(), 0, "without readers it may be more");
        fill(0..16_000);
        assert_eq!(due(), 1);
        db.checkpoint().unwrap();
        assert_eq!(due(), 0);
        let snapshot = db.snapshot().unwrap();
        fill(0..19_000);
        db.checkpoint().unwrap();
        fill(0..9_000);
        assert_eq!(due(), 1, "beside what a reader keeps it may be less");
        drop(snapshot);
    }

    #[test]
    fn merges_go_on_between_the_steps_of_a_compaction() {
        let builder = ColumnFamilyDatabase::builder()
            .automatic_maintenance(false)
            .merge_cost(u32::MAX)
            .page_size(4096)
            .write_buffer_bytes(1 << 20)
            .storage(MemoryStorage::new());
        let db = builder.open("memory").unwrap();
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        let key = |n: u32| n.wrapping_mul(0x9e37_79b9).to_be_bytes();
        (0..20_000).for_each(|n| {
            family.put(key(n), [n as u8; 600]).unwrap();
        });
        db.flush().unwrap();
        (0..20_000).filter(|n| n % 4 > 0).for_each(|n| {
            family.delete(key(n)).unwrap();
        });
        db.flush().unwrap();
        let own = family.family();
        let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (at_first, at_last) = (AtomicU64::new(u64::MAX), AtomicU64::new(0));
        let should_stop = || {
            let merges = counted(&own.counters.merges);
            at_first.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |first| Some(first.min(merges))).ok();
            at_last.store(merges, Ordering::Relaxed);
            false
        };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut n = 1;
                while !done.load(Ordering::Relaxed) {
                    family.put(key(n), [n as u8; 600]).unwrap();
                    db.shared().drain(own).unwrap();
                    n += 4;
                }
            });
            // A thread that is not let run does not come between the steps of one compaction.
            let came = (0..1000).any(|_| {
                at_first.store(u64::MAX, Ordering::Relaxed);
                let context = db.pipeline().merge_context(&should_stop);
                let mut progress = Repacked::default();
                while own.repack_step(&context, &mut progress).unwrap() {}
                at_last.load(Ordering::Relaxed) > at_first.load(Ordering::Relaxed)
            });
            done.store(true, Ordering::Relaxed);
            assert!(came, "no merge came before the last step");
        });
        assert!(counted(&own.counters.rewrites) >= 8, "it has steps");
        assert!(
            (0..20_000)
                .filter(|n| n % 4 == 0)
                .all(|n| family.get(key(n)).unwrap().unwrap() == vec![n as u8; 600])
        );
        assert!(db.verify().unwrap().is_clean());
        db.compact().unwrap();
        assert!(db.verify().unwrap().is_clean());
    }

    #[test]
    fn a_compaction_of_one_family_makes_durable_what_was_committed_to_others() {
        let builder = ColumnFamilyDatabase::builder()
            .automatic_maintenance(false)
            .sync_interval(Duration::from_secs(3600))
            .storage(MemoryStorage::new());
        let db = builder.open("memory").unwrap();
        let compacted = db.create_column_family("compacted", FamilyOptions::default()).unwrap();
        let other = db.create_column_family("other", FamilyOptions::default()).unwrap();
        compacted.put("key", "value").unwrap();
        db.compact().unwrap();
        other.put("key", "value").unwrap();
        assert_eq!(db.statistics().log.commits_not_durable, 1);
        db.compact_column_family(&compacted).unwrap();
        assert_eq!(db.statistics().log.commits_not_durable, 0);
    }
}
