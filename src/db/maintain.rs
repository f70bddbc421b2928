//! Keeping a database by hand: flush, checkpoint, compact, close.

use std::time::Duration;

use crate::column_family::family::{Counters, Family};
use crate::column_family::merging::compaction::Repacked;
use crate::column_family::merging::drain::Drained;
use crate::column_family::options::Lifetime;
use crate::db::database::ColumnFamilyDatabase;
use crate::db::full_disk::{Steps, unless_refused};
use crate::db::place::{DATA, GONE};
use crate::db::shared::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::txn::handle::ColumnFamily;
use crate::wal::Log;

/// Rounds of moving trees to the front of the file that a compaction makes at most.
const COMPACTION_ROUNDS: usize = 3;
/// A compaction leaves what a family has free if it is less than one page in so many.
const LITTLE_OF_FAMILY: u64 = 64;
/// Free bytes of the file that a compaction leaves in any case.
const LITTLE_FREE: u64 = 256 << 10;
/// Bytes of a log that the next open reads in about a millisecond.
const MUCH_TO_READ: u64 = 1 << 20;

impl ColumnFamilyDatabase {
    /// Refuses a family of another database.
    pub(super) fn check_own(&self, family: &ColumnFamily) -> Result<()> {
        if family.database_number() != self.pipeline().database {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the column family belongs to another database",
            ));
        }
        Ok(())
    }

    fn own(&self, family: &ColumnFamily) -> Result<Arc<Family>> {
        self.check_own(family)?;
        let view = self.pipeline().views.load_full();
        Ok(Arc::clone(&view.family(family.family().slot(), family.id())?.family))
    }

    /// Makes every commit so far durable in the log. Cheaper than [`flush`](Self::flush), but commits of
    /// [`Durability::None`](crate::Durability::None) are not in the log.
    pub fn sync(&self) -> Result<()> {
        let log = self.pipeline().writable()?;
        log.sync().map_err(|error| self.pipeline().fail(error))?;
        Ok(())
    }

    /// Merges all memtables of all families and makes everything durable, whatever durability it was written
    /// with. What a [damaged](ErrorKind::FamilyDamaged) family holds becomes durable, too, without being
    /// merged into its tree.
    pub fn flush(&self) -> Result<()> {
        self.pipeline().writable()?;
        let _waiting = self.shared().data.pool().expect_sync();
        self.shared().drain_all()?;
        self.shared().checkpoint()
    }

    /// Merges the memtables of one family and makes it durable.
    ///
    /// # Errors
    ///
    /// [`FamilyDamaged`](ErrorKind::FamilyDamaged) if the family cannot be merged: what was acknowledged is
    /// durable nevertheless.
    pub fn flush_column_family(&self, family: &ColumnFamily) -> Result<()> {
        self.pipeline().writable()?;
        let family = self.own(family)?;
        self.shared().drain(&family)?;
        self.shared().checkpoint()?;
        family.damage.check()
    }

    /// Makes what is merged durable, so that log and pages of before can be reused. Merges nothing.
    pub fn checkpoint(&self) -> Result<()> {
        self.pipeline().writable()?;
        self.shared().checkpoint()
    }

    /// Packs all families and gives free space back to the file system. Reads and writes go on. Pages that a
    /// snapshot holds are not given back.
    ///
    /// A family is rewritten, in new and full pages, if that saves more than a sixteenth of them, which is
    /// estimated from a sample of its leaves; this needs room for a second copy of it meanwhile. Of other
    /// families free pages are given back where they are many in a row. If more than an eighth of the file is
    /// free then, what stands at its end moves to the front, and the file is cut; what is free in the middle
    /// of it becomes holes, where the file system has such. Large families are rewritten and moved a few MiB
    /// at a time, between which merges go on.
    ///
    /// On a full disk everything is packed that finds room, piece by piece; the rest stays as it is, which is
    /// no error.
    ///
    /// Before that every entry of a family with a [filter](crate::FamilyOptions::filter) is shown to it,
    /// which reads all leaves of the family. Where it has nothing to say nothing is written.
    ///
    /// # Errors
    ///
    /// [`FilterFailed`](ErrorKind::FilterFailed) if a filter failed: the rest of that family was not shown to
    /// it, and all else was done.
    ///
    /// [`FamilyDamaged`](ErrorKind::FamilyDamaged) if there are families that cannot be read whole; all
    /// others are packed.
    pub fn compact(&self) -> Result<()> {
        self.pipeline().writable()?;
        let families = self.shared().families();
        self.shared().compact(&families)
    }

    /// Packs one family and gives free space back to the file system; see [`compact`](Self::compact).
    pub fn compact_column_family(&self, family: &ColumnFamily) -> Result<()> {
        self.pipeline().writable()?;
        self.shared().compact(&[self.own(family)?])
    }

    /// Merges all memtables, drains all deltas, waits until no background work is left, and gives free space
    /// back to the file system if it is more than a quarter of what the trees take, or of the log if it is
    /// more than what it needs: background threads do so after some seconds of rest. Where what is free is
    /// scattered over a family's pages, its last pages are moved to the front first, which writes about as
    /// many bytes as it frees. The room of removed log files follows a moment later.
    pub fn wait_until_idle(&self) -> Result<()> {
        self.pipeline().writable()?;
        let families = self.shared().families();
        let _waiting = self.shared().data.pool().expect_sync();
        self.shared().hurry(&families)?;
        families.iter().try_for_each(|family| self.shared().drain_deltas(family))?;
        while !self.pipeline().work.is_idle() {
            self.pipeline().writable()?;
            self.pipeline().work.pause(Duration::from_millis(5));
        }
        self.shared().give_back_now()
    }
}

/// What was done to a family; `None` if the family is damaged, which is no reason not to go on with others.
fn is_whole<R>(family: &Family, outcome: Result<R>) -> Result<Option<R>> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::FamilyDamaged => {
            tracing::warn!(%error, family = family.id().0, "a family stays as it is");
            Ok(None)
        }
        outcome => outcome.map(Some),
    }
}

impl Shared {
    pub(super) fn drain_all(&self) -> Result<()> {
        let families = self.families();
        self.hurry(&families)?;
        families.iter().try_for_each(|family| self.drain(family))
    }

    /// Has background threads merge what is in the memtables of `families` but the first, which the caller
    /// begins with.
    fn hurry(&self, families: &[Arc<Family>]) -> Result<()> {
        for family in families.iter().skip(1).rev() {
            let mut side = family.write.lock();
            if !side.writer.table().is_empty() && !family.is_dropped() {
                family.freeze(&mut side, &self.pipeline.views)?;
            }
            drop(side);
            if family.stall.waiting() > 0 {
                family.set_hurried();
                self.pipeline.work.request_merge(family);
            }
        }
        Ok(())
    }

    /// Merges all that is in `family`'s memtables now. Waits for merges that are under way. What of a damaged
    /// family cannot be written as a delta stands in the log afterwards.
    pub(super) fn drain(&self, family: &Arc<Family>) -> Result<()> {
        match self.merge_all_of(family) {
            Err(error) if error.kind() == ErrorKind::FamilyDamaged => {
                if family.damage.is_stuck() && !family.damage.is_carried() {
                    self.pipeline.carry_forward(family)?;
                }
                Ok(())
            }
            merged => merged,
        }
    }

    fn merge_all_of(&self, family: &Arc<Family>) -> Result<()> {
        let ended = || self.pipeline.owns_files().is_err();
        let merge = || self.in_steps(&mut Steps::default(), &ended, |context| family.merge_all(context));
        loop {
            let frozen = {
                let mut side = family.write.lock();
                if side.writer.table().is_empty() {
                    break;
                }
                family.freeze(&mut side, &self.pipeline.views)?
            };
            if frozen || family.is_dropped() {
                break;
            }
            merge()?;
        }
        merge()?;
        if family.is_to_drain() {
            self.pipeline.work.request_merge(family);
        }
        Ok(())
    }

    /// Merges all that is in `family`'s memtables and deltas now into its tree.
    pub(super) fn drain_deltas(&self, family: &Arc<Family>) -> Result<()> {
        self.drain_with_room(family).map(drop)
    }

    /// The same; says whether there was room for all of it. What there was none for, on a full disk, is still
    /// in deltas.
    fn drain_with_room(&self, family: &Arc<Family>) -> Result<bool> {
        self.drain(family)?;
        if family.damage.is_met() {
            return Ok(true);
        }
        let ended = || self.pipeline.owns_files().is_err();
        let mut had_room = true;
        // What is there now is drained when the range has been at the end of the keys twice.
        let mut ends = 0;
        let mut steps = Steps::default();
        while ends < 2 {
            let drained = self.in_steps(&mut steps, &ended, |context| family.drain_step(context));
            let drained = match drained {
                // What came meanwhile becomes a delta.
                Err(error) if error.kind() == ErrorKind::FamilyDamaged => {
                    return self.drain(family).map(|()| had_room);
                }
                drained => drained?,
            };
            match drained {
                Drained::Nothing => break,
                Drained::Some => {}
                Drained::Skipped => had_room = false,
                Drained::ToTheEnd => ends += 1,
            }
            self.pipeline.work.touch(family);
        }
        Ok(had_room)
    }

    pub(super) fn judge(&self, error: Error) -> Error {
        match error.kind() {
            _ if error.is_refusal() => error,
            ErrorKind::Closed | ErrorKind::WriteFailed | ErrorKind::FamilyDamaged => error,
            _ => self.pipeline.fail(error),
        }
    }

    fn compact(&self, families: &[Arc<Family>]) -> Result<()> {
        // Of dropped families, too, once nobody reads them.
        self.reap();
        if self.data.space().has_waiting() {
            unless_refused(self.cut())?;
        }
        let mut had_room = self.make_all_durable(families)?;
        let filtered = self.sift_all(families)?;
        for _ in 0..COMPACTION_ROUNDS {
            let used = self.data.space().used_pages();
            had_room &= self.pack(families)?;
            if had_room || self.data.space().used_pages() >= used {
                break;
            }
            // What this freed is room for what had none.
            had_room = self.make_all_durable(families)?;
        }
        unless_refused(self.give_back_log())?;
        families.iter().try_for_each(|family| family.damage.check())?;
        filtered
    }

    /// Shows every entry of the trees of `families` to the filters that they have, and makes durable what
    /// these say. Fails only where the database does; what it gives says whether a filter failed.
    fn sift_all(&self, families: &[Arc<Family>]) -> Result<Result<()>> {
        let (mut outcome, mut any) = (Ok(()), false);
        for family in families.iter().filter(|family| family.filter().is_some()) {
            let sifted = self.sift(family, &mut any);
            self.pipeline.work.touch(family);
            // Without room what it was not shown stays.
            let Some(sifted) = unless_refused(sifted)? else { continue };
            if outcome.is_ok() {
                outcome = sifted;
            }
        }
        if any {
            self.checkpoint()?;
        }
        Ok(outcome)
    }

    fn sift(&self, family: &Arc<Family>, any: &mut bool) -> Result<Result<()>> {
        let ended = || self.pipeline.owns_files().is_err();
        let (mut start, mut steps) = (Vec::new(), Steps::default());
        loop {
            let step = self.in_steps(&mut steps, &ended, |context| family.sift_step(context, &start));
            let Some(step) = is_whole(family, step)? else { return Ok(Ok(())) };
            *any |= step.has_changed;
            if let Some(error) = step.failure {
                Counters::add(&family.counters.filter_failures, 1);
                return Ok(Err(error));
            }
            let Some(next) = step.next else { return Ok(Ok(())) };
            start = next;
        }
    }

    /// Packs `families`, as far as the disk has room for that. Returns whether it had.
    fn pack(&self, families: &[Arc<Family>]) -> Result<bool> {
        self.drop_expired(families)?;
        self.give_back_all(families)?;
        let (mut sparse, mut had_room) = (Vec::new(), true);
        for family in families {
            if is_whole(family, self.is_packed(family))? == Some(false) {
                sparse.push(Arc::clone(family));
            }
        }
        if !sparse.is_empty() {
            had_room &= self.rewrite(&sparse)?;
        }
        for _ in 0..COMPACTION_ROUNDS {
            if !self.shorten(families)? {
                break;
            }
        }
        Ok(had_room)
    }

    /// Takes what has expired out of the trees of `families`. What finds no room stays, and is still gone for
    /// who reads.
    fn drop_expired(&self, families: &[Arc<Family>]) -> Result<()> {
        let ended = || self.pipeline.owns_files().is_err();
        let mut any = false;
        for family in families.iter().filter(|family| family.lifetime() != Lifetime::Endless) {
            let context = self.pipeline.merge_context(&ended);
            let before = family.trees.lock().current().tree.generation;
            let mut dropped = Ok(Some(Vec::new()));
            while let Ok(Some(from)) = dropped {
                dropped = match family.has_operator() {
                    true => self.pipeline.delete_expired(family, &from),
                    false => family.drop_expired_step(&context, &from),
                };
            }
            // What was deleted is in memtables.
            let dropped = dropped.and_then(|_| self.drain_deltas(family));
            if let Err(error) = unless_refused(dropped)
                && error.kind() != ErrorKind::FamilyDropped
            {
                is_whole(family, Err::<(), _>(error))?;
            }
            any |= family.trees.lock().current().tree.generation != before;
        }
        if any {
            // Lets go of the old pages.
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Moves what `families` have far behind in the data file to where the file is free before, so that it
    /// can be cut, if much of it is free. Returns whether anything was moved.
    fn shorten(&self, families: &[Arc<Family>]) -> Result<bool> {
        let space = self.data.space();
        let used = space.used_pages();
        if space.excess_pages() <= (used / 8).max(LITTLE_FREE / self.data.page_size() as u64) {
            return Ok(false);
        }
        // What is used fits before this, and a little more, since what is free is in pieces.
        let line = used + used / 16 + 1;
        let ended = || self.pipeline.owns_files().is_err();
        let context = self.pipeline.merge_context(&ended);
        let mut any = false;
        for family in families {
            any |= is_whole(family, self.move_below(family, &context, line))?.unwrap_or(false);
        }
        if any {
            self.checkpoint()?;
            self.give_back_all(families)?;
        } else {
            // What stands there is the catalog, or waits for a checkpoint.
            self.cut()?;
        }
        Ok(any)
    }

    /// Merges all that is in the memtables of `families`; what was committed so far, to whichever family, is
    /// durable then. Returns whether their trees had room for what is in their deltas.
    fn make_all_durable(&self, families: &[Arc<Family>]) -> Result<bool> {
        let mut had_room = true;
        for family in families {
            match unless_refused(self.drain_with_room(family))? {
                Some(had) => had_room &= had,
                None => {
                    had_room = false;
                    self.drain(family)?;
                }
            }
        }
        if self.has_merges_to_checkpoint() {
            self.checkpoint()?;
        } else {
            self.sync_log().map_err(|error| self.pipeline.fail(error))?;
        }
        Ok(had_room)
    }

    /// Rewrites `families` in new segments, and gives the old ones back. Returns whether the disk had room.
    fn rewrite(&self, families: &[Arc<Family>]) -> Result<bool> {
        let ended = || self.pipeline.owns_files().is_err();
        let mut had_room = true;
        for family in families {
            self.drain(family)?;
            let repacked = self.repack(family, &ended);
            self.pipeline.work.touch(family);
            if repacked.is_err() {
                // What it took until the disk was full is of use to others.
                family.give_back(1);
            }
            match unless_refused(repacked) {
                Ok(repacked) => had_room &= repacked.is_some(),
                Err(error) => _ = is_whole(family, Err::<(), _>(error))?,
            }
        }
        // Lets go of the old pages.
        self.checkpoint()?;
        self.give_back_all(families)?;
        Ok(had_room)
    }

    /// Rewrites the tree of `family`. Where the disk has no room for new segments, in pages that are free
    /// within its own.
    fn repack(&self, family: &Arc<Family>, ended: &dyn Fn() -> bool) -> Result<()> {
        let mut progress = Repacked::default();
        let mut steps = Steps::default();
        loop {
            match self.in_steps(&mut steps, ended, |context| family.repack_step(context, &mut progress)) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if error.kind() == ErrorKind::OutOfSpace && !progress.is_scattered() => {
                    progress.scatter();
                    steps = Steps::default();
                }
                Err(error) => return Err(error),
            }
        }
        if progress.is_scattered() {
            self.checkpoint()?;
            family.release_unread();
            self.move_all(family, &self.pipeline.merge_context(ended))?;
        }
        Ok(())
    }

    /// Gives back all long runs of free pages, also to the disk.
    fn give_back_all(&self, families: &[Arc<Family>]) -> Result<()> {
        crate::sync::epoch::collect();
        let mut any = self.reap();
        for family in families {
            family.release_unread();
            // Giving back takes checkpoints, which a few pages are not worth.
            any |= family.give_back(family.store().space().pages_reachable / LITTLE_OF_FAMILY + 1);
        }
        if any {
            self.cut()?;
        }
        Ok(())
    }

    /// Merges everything and makes it durable, in the trees: the log that the next open has to read is empty.
    fn finish(&self) -> Result<()> {
        self.pipeline.latch.check()?;
        let _waiting = self.data.pool().expect_sync();
        self.drain_all()?;
        // Without room for another segment the present one stays, and is read.
        unless_refused(self.shrink_log())?;
        self.checkpoint()?;
        unless_refused(self.shrink_log())?;
        unless_refused(self.pack_for_end()).map(drop)
    }

    /// The first to come closes; who comes meanwhile waits, and who comes later is told the same.
    pub(super) fn close(&self) -> Result<()> {
        self.pipeline.process.check()?;
        let mut closing = self.closing.lock();
        if let Some(outcome) = &*closing {
            return outcome.clone();
        }
        if self.pipeline.closed.swap(true, Ordering::AcqRel) {
            return Err(Error::new(ErrorKind::WriteFailed, "a thread panicked while it closed the database"));
        }
        self.pipeline.end_waiting();
        let outcome = if self.options.read_only { Ok(()) } else { self.finish() };
        let synced = self.sync_log();
        let outcome = outcome.and(synced);
        self.stop();
        closing.insert(outcome).clone()
    }

    /// The last handle went without `close`: what is in the log stays there, what is not is made durable. A
    /// long log of which nothing is needed any more is cut, as it is by `close`.
    pub(super) fn abandon(&self) {
        if self.pipeline.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.pipeline.end_waiting();
        let is_healthy = self.pipeline.latch.check().is_ok();
        let saved = if is_healthy && self.pipeline.unlogged.load(Ordering::Acquire) {
            self.drain_all().and_then(|()| self.checkpoint())
        } else {
            Ok(())
        };
        if is_healthy
            && saved.is_ok()
            && self.would_be_read_for_nothing()
            && let Err(error) = self.finish()
        {
            tracing::warn!(%error, "the log stays as long as it is");
        }
        let synced = self.sync_log();
        if let Err(error) = saved.and(synced) {
            tracing::error!(%error, "the database was dropped without being closed, and could not be made durable");
        }
        self.stop();
    }

    /// Ends all writing once the data file is not where it was: what is written by name, as the log is, would
    /// go to whatever stands there now.
    pub(super) fn check_place(&self) -> Result<()> {
        let locks = self.lock.lock().clone();
        if locks.is_none_or(|locks| locks.are_in_place()) {
            return Ok(());
        }
        Err(self.pipeline.fail(Error::new(ErrorKind::WriteFailed, GONE).in_file(DATA)))
    }

    /// In a child that was forked: closes what it inherited of the locks, which stay with the parent. Waits
    /// for nothing, since what a thread of the parent held at the fork is held here for ever.
    pub(super) fn forget_locks(&self) {
        if let Some(mut lock) = self.lock.try_lock() {
            *lock = None;
        }
    }

    /// Whether the next open would read much of the log, though all of it is merged.
    fn would_be_read_for_nothing(&self) -> bool {
        let first = self.checkpoints.first_segment.load(Ordering::Relaxed);
        let is_long = |log: &Log| log.bytes_since(first) > MUCH_TO_READ;
        let is_merged = |family: &Arc<Family>| {
            let side = family.write.try_lock();
            side.is_some_and(|side| side.writer.table().is_empty() && family.stall.waiting() == 0)
        };
        self.pipeline.log.as_ref().is_some_and(is_long) && self.registry.lock().families().all(is_merged)
    }

    /// The log may be healthy when something else is not: what it holds is made durable in any case.
    fn sync_log(&self) -> Result<()> {
        self.pipeline.log.as_ref().map_or(Ok(()), |log| log.sync().map(drop))
    }

    /// Ends what threads do for it, waits for what other handles are still at, and gives the files back.
    pub(super) fn stop(&self) {
        self.pipeline.work.stop();
        self.pipeline.ended.store(true, Ordering::Release);
        self.waiting.end();
        self.let_go_of_threads();
        // Handles may keep the database's memory for long.
        self.free_removed_log();
        let families = {
            let registry = self.registry.lock();
            registry.families().chain(&registry.dying).cloned().collect::<Vec<_>>()
        };
        for family in families {
            drop(family.merging.lock());
        }
        drop(self.checkpoint.lock());
        // From now on who reads on may find what somebody else wrote.
        if let Some(log) = &self.pipeline.log {
            log.give_up();
        }
        self.data.give_up();
        *self.lock.lock() = None;
        crate::sync::epoch::drain();
    }

    /// No thread does anything for this database any more when this returns. Those that it had for itself
    /// have ended; where it shared memory, others have all of it.
    pub(super) fn let_go_of_threads(&self) {
        let Some(threads) = self.threads.lock().take() else { return };
        self.pipeline.work.stop();
        threads.leave(self.pipeline.database);
        self.registry.lock().stop_counting();
        if self.shares_memory {
            for family in self.families() {
                family.store().cache().take_away(u64::MAX);
                family.store().cache().set_write_budget(0);
            }
        }
    }
}
