//! What background threads do for a database: they merge, and keep its clock and its log.

use std::time::Duration;

use crate::codec::ids::SequenceNumber;
use crate::column_family::family::Family;
use crate::column_family::merging::compaction::Moved;
use crate::column_family::merging::merge::{MergeContext, Pace};
use crate::db::budget::Wish;
use crate::db::full_disk::{Steps, unless_refused};
use crate::db::shared::Shared;
use crate::db::space::MUCH_FREE;
use crate::db::watch::{RESTED, Watched};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Instant};
use crate::wal::Log;

/// How often the clock looks at the log while anybody writes.
const TICK: Duration = Duration::from_millis(20);
/// How often the thread that keeps the log looks whether anybody writes. How often the clock looks at
/// budgets, at families that are watched, and at what readers let go of. While nothing is to be done both
/// sleep.
pub(super) const LOOK_AROUND: Duration = Duration::from_millis(500);
/// Bytes in a memtable that are little, unless they are more than a quarter of what it takes.
const LITTLE: usize = 256 << 10;
/// How often merged trees are made durable at least.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(30);

impl Shared {
    /// Does what waits for background threads, for tests without them.
    #[cfg(test)]
    pub(super) fn work_off(self: &Arc<Self>) {
        loop {
            let work = &self.pipeline.work;
            if let Some(family) = work.take_merge() {
                self.merge_in_background(&family);
                work.finish_merge(&family);
            } else if let Some(due) = work.take_due() {
                self.make_due(due).expect("nothing stands in the way of a checkpoint");
                work.finish_checkpoint();
            } else {
                return;
            }
        }
    }

    /// Merges what is frozen, or joins and drains some of what deltas hold, and asks to be called again if
    /// there is more to do.
    pub(super) fn merge_in_background(&self, family: &Arc<Family>) {
        let stop = || self.pipeline.work.is_stopped();
        let is_urgent = family.take_hurried() || family.is_resting() || self.keeps_old_log(family);
        let pace = if is_urgent { Pace::Now } else { Pace::WhenWorthIt };
        let context = self.pipeline.merge_context(&stop);
        let merged = match family.merge(&context, pace) {
            // While there is little room, nothing waits until it is worth it.
            Err(error) if error.kind() == ErrorKind::OutOfSpace => {
                tracing::debug!(%error, family = family.id().0, "a merge is made in small steps");
                let merged = self.in_steps(&mut Steps::default(), &stop, |context| family.merge_all(context));
                merged.map(|()| true)
            }
            merged => merged,
        };
        let merged = merged.and_then(|merged| {
            family.damage.check()?;
            self.keep_deltas(family, merged, &stop)
        });
        if self.data.space().is_short() {
            self.pipeline.on_reserve.store(true, Ordering::Relaxed);
        }
        match merged {
            Ok(more) => {
                family.stall.clear();
                self.pipeline.log_pace.clear();
                if self.log_is_long() {
                    self.pipeline.work.request_shorter_log();
                }
                if self.options.automatic
                    && let Err(error) = self.checkpoint_for_space(family)
                {
                    tracing::warn!(%error, "a checkpoint was put off");
                }
                if more {
                    self.pipeline.work.request_merge(family);
                }
            }
            Err(error) if error.is_refusal() => self.wait_for_space(family, error),
            Err(error) if error.kind() == ErrorKind::Closed => {}
            Err(error) if error.kind() == ErrorKind::FamilyDamaged => self.set_apart(family),
            Err(error) => {
                self.pipeline.fail(error);
            }
        }
    }

    /// Moves, joins and drains some of what `family` has, of which a merge was made or not. Says whether
    /// there is more to do. On a full disk little of that is done, which keeps nobody from writing.
    fn keep_deltas(&self, family: &Arc<Family>, merged: bool, stop: &dyn Fn() -> bool) -> Result<bool> {
        let work = |context: &MergeContext<'_>| {
            if family.take_scattered() && family.is_resting() {
                self.move_in_background(family, context)?;
            }
            join_and_drain(family, context, merged)
        };
        let drain = |context: &MergeContext<'_>| {
            let any = family.is_to_drain() && family.drain_step(context)?.has_drained();
            Ok(any && family.is_to_drain())
        };
        let kept = match work(&self.pipeline.merge_context(stop)) {
            // Again only when something has changed that it may be the better for.
            Err(error) if error.kind() == ErrorKind::OutOfSpace => match self.touched.installed() {
                tried if family.tried_to_drain.swap(tried, Ordering::Relaxed) == tried => Err(error),
                _ => self.in_steps(&mut Steps::default(), stop, drain),
            },
            kept => kept,
        };
        Ok(unless_refused(kept)?.unwrap_or(false))
    }

    /// Writes what a damaged family holds in memory, which takes no more, where it can be written, so that
    /// nothing waits for it.
    fn set_apart(&self, family: &Arc<Family>) {
        match self.drain(family) {
            Ok(()) => {
                family.stall.clear();
                self.pipeline.work.request_checkpoint();
            }
            Err(error) if error.is_refusal() => self.wait_for_space(family, error),
            Err(error) => {
                tracing::warn!(%error, family = family.id().0, "a damaged family needs the log for now")
            }
        }
    }

    fn wait_for_space(&self, family: &Arc<Family>, error: Error) {
        tracing::warn!(%error, family = family.id().0, "a merge is put off");
        self.pipeline.log_pace.obstruct(error.clone());
        family.stall.obstruct(error);
        // Other databases may need the thread meanwhile.
        self.pipeline.work.request_later_merge(family);
    }

    /// Moves some pages of `family` to the front, and asks to be called again if there may be more.
    fn move_in_background(&self, family: &Arc<Family>, context: &MergeContext<'_>) -> Result<()> {
        match family.move_to_front(context) {
            Ok(Moved::Nothing) => {}
            Ok(Moved::AllThatFits) => self.pipeline.work.request_checkpoint(),
            Ok(Moved::Some) => {
                family.set_scattered();
                self.pipeline.work.request_merge(family);
            }
            // Nobody needs this page now: who reads it is told.
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, family = family.id().0, "pages stay scattered");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What of keeping the log may wait for the disk: a sync once in a while, the next segment, and the room
    /// of those removed. Says when to come again; `None` if not before the log's bell rings.
    pub(super) fn keep_log(&self, keeper: &mut LogKeeper) -> Option<Duration> {
        let log = self.pipeline.log.as_ref()?;
        let interval = self.options.sync_interval;
        if keeper.rested {
            // Whoever wrote since did so within the last look of the clock.
            (keeper.synced, keeper.behind) = (Instant::now(), LOOK_AROUND.min(interval));
        }
        // Whatever else failed: a log that is healthy keeps its promise.
        if keeper.since_sync() >= interval {
            (keeper.synced, keeper.behind) = (Instant::now(), Duration::ZERO);
            self.keep_log_synced(log);
        }
        if self.pipeline.latch.check().is_ok()
            && (!log.wants_next() || self.check_place().is_ok())
            && let Err(error) = log.prepare_next()
            && !error.is_refusal()
        {
            self.pipeline.fail(error);
        }
        // One at a time, so that neither a sync nor a segment waits for long; and while nobody writes, who
        // would wait for the disk.
        let newest = log.last_assigned();
        let nobody_writes = std::mem::replace(&mut keeper.seen, newest) == newest;
        keeper.rested = false;
        if nobody_writes && log.free_one() {
            return Some(Duration::ZERO);
        }
        log.free_surplus();
        // Before what was written is looked at: who writes after that finds that he, or the clock, has to
        // ring.
        self.log_rests.store(true, Ordering::SeqCst);
        let is_watched = self.pipeline.work.is_watched();
        // While anything is watched the clock looks whether there is something to sync, which must be often
        // enough.
        let is_called = !is_watched || interval >= 2 * LOOK_AROUND;
        keeper.rested = nobody_writes && is_called && log.durable() >= log.last_assigned();
        if keeper.rested {
            return None;
        }
        self.log_rests.store(false, Ordering::SeqCst);
        Some(interval.saturating_sub(keeper.since_sync()).clamp(TICK, LOOK_AROUND))
    }

    /// Calls whoever keeps the log if he rests and there is something to sync.
    fn wake_log(&self) {
        let Some(log) = &self.pipeline.log else { return };
        if self.log_rests.load(Ordering::SeqCst)
            && log.durable() < log.last_assigned()
            && self.log_rests.swap(false, Ordering::SeqCst)
        {
            self.pipeline.work.log.ring();
        }
    }

    fn keep_log_synced(&self, log: &Log) {
        if log.durable() < log.last_assigned()
            && let Err(error) = log.sync()
        {
            self.pipeline.fail(error);
        }
    }

    /// Does what is due, and, if the clock `looks` around, what need not be done at once; to be called after
    /// [`see`](Self::see) then. Says for how long nothing will be due; `None` if not before the clock's bell
    /// rings. While anybody writes, it waits for no sync and for no segment of the log, so that what is due
    /// in milliseconds is done.
    pub(super) fn keep_time(&self, clock: &mut Clock, looks: bool) -> Option<Duration> {
        self.welcome(clock);
        let is_healthy = self.pipeline.latch.check().is_ok();
        if is_healthy {
            self.prepare_log();
            if self.log_is_long() {
                self.pipeline.work.request_shorter_log();
            }
        }
        if looks {
            self.wake_log();
            if is_healthy && self.pipeline.log.is_some() && self.check_place().is_ok() {
                self.look_after(clock);
            }
        }
        self.until_due(clock)
    }

    /// For how long nothing is due; `None` if for ever.
    pub(super) fn until_due(&self, clock: &Clock) -> Option<Duration> {
        if self.pipeline.latch.check().is_err() {
            return Some(LOOK_AROUND);
        }
        if !clock.watched.iter().all(Watched::is_at_rest) {
            return Some(TICK);
        }
        let is_awake = !clock.watched.is_empty() || clock.has_more_to_do;
        is_awake.then_some(LOOK_AROUND)
    }

    /// Looks after families to which something was done lately.
    fn welcome(&self, clock: &mut Clock) {
        for family in self.pipeline.work.take_touched() {
            self.memory.write_share_at_rest(&family);
            clock.watched.push(Watched::new(family, LOOK_AROUND));
        }
    }

    fn prepare_log(&self) {
        if let Some(log) = &self.pipeline.log {
            if log.wants_prepare() {
                log.prepare_memory();
            }
            if log.wants_next() {
                self.pipeline.work.log.ring();
            }
        }
    }

    /// Sees what was done to families since the last look, and says what they ask for.
    pub(super) fn see(&self, clock: &mut Clock) -> Vec<Wish> {
        self.welcome(clock);
        if self.pipeline.latch.check().is_err() {
            return Vec::new();
        }
        let look = |watched: &mut Watched| {
            watched.look();
            watched.writing.look(&watched.family)
        };
        clock.watched.iter_mut().map(look).collect()
    }

    /// What the clock does at a look around, for tests that move it by hand.
    #[cfg(test)]
    pub(super) fn look_around(&self, clock: &mut Clock) {
        self.memory.rebalance_writing(&self.see(clock));
        self.look_after(clock);
    }

    /// What need not be done at once: pages and families that readers let go of, idle families, checkpoints,
    /// free space.
    fn look_after(&self, clock: &mut Clock) {
        let Clock { watched, checkpointed, has_more_to_do } = clock;
        // What was replaced is let go of once for all of them.
        let reaped = self.reap();
        watched.iter().for_each(|watched| watched.family.release_let_go());
        if !self.options.automatic {
            self.turn_away(watched, &[]);
            *has_more_to_do = !self.registry.lock().dying.is_empty();
            return;
        }
        let mut idle = true;
        for watched in &*watched {
            let family = &watched.family;
            idle &= watched.is_at_rest();
            if family.damage.is_met() {
                if !is_set_apart(family) {
                    self.pipeline.work.request_merge(family);
                }
                continue;
            }
            if watched.waits_for_long() {
                family.set_hurried();
                self.pipeline.work.request_merge(family);
            }
            // What is deleted goes with a merge.
            if watched.passes_much(|| self.entries_in_memtables(family)) {
                family.set_hurried();
                self.freeze_for_merge(family);
            }
            let may_wait = watched.is_patient() && self.keeps_little(family);
            if watched.is_at_rest() && !may_wait && !self.freeze_for_merge(family) {
                idle = false;
            }
            // Deltas may be there since the database was opened, or by hand.
            if family.is_to_drain() {
                self.pipeline.work.request_merge(family);
            }
        }
        let given_back = self.give_back_at_rest(watched);
        let due = idle && self.pipeline.work.is_idle() || checkpointed.elapsed() >= CHECKPOINT_INTERVAL;
        let has_merges = self.has_merges_to_checkpoint();
        if reaped || given_back || due && has_merges {
            *checkpointed = Instant::now();
            self.pipeline.work.request_checkpoint();
        }
        *has_more_to_do = has_merges
            || !self.pipeline.work.is_idle()
            || self.log_keeps_much()
            || !self.registry.lock().dying.is_empty();
    }

    /// Families at rest give back what they have free, and so does the log if all are. Those that have
    /// nothing more to give are not watched any more. Returns whether a checkpoint has to follow.
    fn give_back_at_rest(&self, watched: &mut Vec<Watched>) -> bool {
        let mut given_back = false;
        let mut at_work = Vec::new();
        for family in
            watched.iter().filter(|watched| watched.is_to_give_back()).map(|watched| &watched.family)
        {
            let gave = self.give_back_pages([family], MUCH_FREE);
            let is_scattered = self.is_scattered(family, MUCH_FREE);
            // What a move frees goes back when the family is looked at the next time.
            if is_scattered {
                family.set_scattered();
                self.pipeline.work.request_merge(family);
            }
            if gave || is_scattered {
                at_work.push(Arc::clone(family));
            }
            given_back |= gave;
        }
        let log_rested = watched.iter().all(|watched| watched.looks_at_rest() >= RESTED);
        if log_rested && self.log_keeps_much() {
            match self.shrink_log() {
                Ok(shrunk) => given_back |= shrunk,
                Err(error) => tracing::warn!(%error, "the log keeps what it does not need"),
            }
        }
        self.turn_away(watched, &at_work);
        given_back
    }

    fn entries_in_memtables(&self, family: &Family) -> u64 {
        let view = self.pipeline.views.load_full();
        let view = view.family(family.slot(), family.id());
        view.map_or(0, |view| view.memtables().map(|table| table.entries()).sum())
    }

    /// Whether all that waits to be merged of `family` is little and in its active memtable.
    fn keeps_little(&self, family: &Arc<Family>) -> bool {
        let Some(side) = family.write.try_lock() else { return false };
        let bytes = side.writer.table().bytes();
        bytes < LITTLE.min(family.memtable_bytes() / 4) && family.stall.waiting() == 0
    }

    /// Freezes what an idle family still has in memory and asks for the merge. Returns whether there was
    /// nothing.
    fn freeze_for_merge(&self, family: &Arc<Family>) -> bool {
        let Some(mut side) = family.write.try_lock() else { return false };
        if family.is_dropped() {
            return true;
        }
        if side.writer.table().is_empty() {
            let nothing_waits = family.stall.waiting() == 0 && !family.has_deltas();
            if !nothing_waits {
                self.pipeline.work.request_merge(family);
            }
            return nothing_waits;
        }
        if let Err(error) = family.freeze(&mut side, &self.pipeline.views) {
            tracing::warn!(%error, "a memtable was not frozen");
        }
        drop(side);
        self.pipeline.work.request_merge(family);
        false
    }
}

/// Joins and drains some of what the deltas of `family` hold, as long as no merge is due, which others wait
/// for: it comes first, with the family's next job. `worked` says whether anything was done in this one.
/// Returns whether there is to be a next one.
fn join_and_drain(family: &Arc<Family>, context: &MergeContext<'_>, mut worked: bool) -> Result<bool> {
    let join = || Ok(family.is_to_join() && family.join_step(context)?);
    let drain = || Ok(family.is_to_drain() && family.drain_step(context)?.has_drained());
    let mut stepped = false;
    // Two of joining, so that few deltas wait for that while others are drained: readers ask each of them.
    for step in [&join as &dyn Fn() -> Result<bool>, &join, &drain] {
        if worked && family.stall.is_due() {
            return Ok(true);
        }
        let made = step()?;
        (stepped, worked) = (stepped | made, worked | made);
    }
    Ok(stepped && (family.is_to_join() || family.is_to_drain()))
}

/// Whether a damaged family has nothing in memory that is nowhere else, but in the part of the log that
/// nobody lets go of.
fn is_set_apart(family: &Family) -> bool {
    let is_empty = || family.write.try_lock().is_some_and(|side| side.writer.table().is_empty());
    family.damage.is_carried() || family.stall.waiting() == 0 && is_empty()
}

/// What the thread that keeps the clock knows from its last round.
pub(super) struct Clock {
    pub(super) watched: Vec<Watched>,
    checkpointed: Instant,
    /// Whether something waits to be done that has nothing to do with the families that are watched.
    has_more_to_do: bool,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { watched: Vec::new(), checkpointed: Instant::now(), has_more_to_do: true }
    }
}

/// What the thread that keeps the log knows from its last round.
pub(super) struct LogKeeper {
    /// When it synced last, and how much earlier that may have been.
    synced: Instant,
    behind: Duration,
    /// The newest commit that it saw.
    seen: SequenceNumber,
    /// Whether it came to rest until it is called.
    rested: bool,
}

impl LogKeeper {
    pub(super) fn new(shared: &Shared) -> Self {
        let seen = shared.pipeline.log.as_ref().map_or(SequenceNumber(0), Log::last_assigned);
        Self { synced: Instant::now(), behind: Duration::ZERO, seen, rested: false }
    }

    fn since_sync(&self) -> Duration {
        self.synced.elapsed() + self.behind
    }
}
