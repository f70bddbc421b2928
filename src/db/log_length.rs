//! Keeps the log within its limit: merges what needs its oldest segments, and makes it durable.
//!
//! A round ([`crate::txn::log_pace`]) goes like this. The log weighs more than half of its limit. Every
//! family whose memtables need a segment before its last quarter is to be merged, however little that is: its
//! active memtable is frozen, and background threads are asked for the merge. When nothing needs an old
//! segment any more, a checkpoint lets go of them all.
//!
//! The thread that makes checkpoints merges nothing itself: so a checkpoint that is due, for whatever reason,
//! never waits for a merge.

use crate::column_family::family::Family;
use crate::column_family::merging::desk::Due;
use crate::db::shared::Shared;
use crate::error::{ErrorKind, Result};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::wal::Log;

/// A checkpoint during a round has to let go of so many parts of the log's limit; the last of the round of
/// anything.
const WORTH_A_CHECKPOINT: u64 = 16;
/// Segments of the log from which on an opening makes it shorter: more than a log comes to that one process
/// wrote.
const MANY_SEGMENTS: u64 = 32;

impl Shared {
    pub(super) fn make_due(&self, due: Due) -> Result<()> {
        let Some(log) = &self.pipeline.log else { return Ok(()) };
        let shortened = self.shorten_log(log);
        // On a full disk a checkpoint is what makes room for the next segment.
        let is_full = shortened.as_ref().is_err_and(|error| error.kind() == ErrorKind::OutOfSpace);
        if due == Due::Checkpoint || is_full || shortened.as_ref().is_ok_and(|&is_worth_it| is_worth_it) {
            if self.pipeline.short_of_space.load(Ordering::Relaxed) {
                self.make_space()?;
            } else {
                self.checkpoint()?;
            }
        }
        shortened.map(drop)
    }

    /// Whether the log weighs so much, by itself or for what a writer brings, that it has to become shorter.
    pub(super) fn log_is_long(&self) -> bool {
        let pace = &self.pipeline.log_pace;
        let is_waited_for = pace.is_waited_for();
        let is_short_of_space = self.pipeline.short_of_space.load(Ordering::Relaxed);
        let is_long = |log: &Log| {
            (pace.is_too_long(log) || is_waited_for) && log.can_be_shorter()
                || is_waited_for && is_short_of_space && log.weight() > 0
        };
        self.pipeline.log.as_ref().is_some_and(is_long)
    }

    /// Whether a memtable of `family` needs a segment of the log that is to be let go of.
    pub(super) fn keeps_old_log(&self, family: &Family) -> bool {
        let wanted = self.checkpoints.wanted_segment.load(Ordering::Relaxed);
        wanted > 0 && self.oldest_segment(family) < wanted
    }

    /// Asks for the merges of a round. Says whether a checkpoint lets go of enough by now.
    fn shorten_log(&self, log: &Log) -> Result<bool> {
        if !self.log_is_long() {
            self.checkpoints.wanted_segment.store(0, Ordering::Relaxed);
            self.pipeline.log_pace.is_short();
            return Ok(false);
        }
        self.pipeline.log_pace.is_long();
        // Where the disk is full, what stands in the present segment keeps its room as well.
        let is_in_the_way = !log.can_be_shorter() && self.pipeline.log_pace.is_waited_for();
        let left = log.leave_segment(is_in_the_way).map_err(|error| self.judge(error));
        let wanted = log.segment_within(self.pipeline.log_pace.short_enough());
        self.checkpoints.wanted_segment.store(wanted, Ordering::Relaxed);
        let mut needed = wanted;
        for family in &self.families() {
            let oldest = self.oldest_segment(family);
            if oldest < wanted {
                if family.damage.is_stuck() {
                    self.pipeline.carry_forward(family)?;
                } else {
                    self.merge_for_log(family, wanted)?;
                }
                needed =
                    needed.min(if family.damage.is_stuck() { self.oldest_segment(family) } else { oldest });
            }
        }
        left?;
        let first = self.checkpoints.first_segment.load(Ordering::Relaxed);
        let freed = log.charge_since(first).saturating_sub(log.charge_since(needed));
        Ok(needed > first && (needed == wanted || freed >= self.options.log_limit() / WORTH_A_CHECKPOINT))
    }

    /// Asks for the merge of what needs a segment of the log before `wanted`.
    fn merge_for_log(&self, family: &Arc<Family>, wanted: u64) -> Result<()> {
        if family.active_segment() < wanted {
            let mut side = family.write.lock();
            if family.active_segment() < wanted && !family.is_dropped() {
                if side.writer.table().is_empty() {
                    // It was meant for a record that was not written.
                    family.forget_segment();
                    return Ok(());
                }
                // If as many wait as there may be, it is this one's turn when they are merged.
                family.freeze(&mut side, &self.pipeline.views)?;
            }
        }
        self.pipeline.work.request_merge(family);
        Ok(())
    }

    /// Merges what was replayed and lets go of the log, if that is many segments: processes that end, one
    /// after the other, before they have written much, leave a segment each. To be called before there are
    /// other threads.
    pub(super) fn gather_small_segments(&self) -> Result<()> {
        if self.recovery.segments < MANY_SEGMENTS {
            return Ok(());
        }
        let families = self.families();
        let gathered = families.iter().try_for_each(|family| self.drain(family));
        match gathered.and_then(|()| self.checkpoint()) {
            // The log is longer than it need be, that is all.
            Err(error) if error.is_refusal() => {
                tracing::warn!(%error, segments = self.recovery.segments, "many segments of the log stay for now");
                Ok(())
            }
            gathered => gathered,
        }
    }

    /// The oldest log segment that a memtable of `family` needs. Holds no view when it returns, so that what
    /// is merged can go.
    fn oldest_segment(&self, family: &Family) -> u64 {
        let active = family.active_segment();
        // Counted before it is no longer active.
        if family.stall.waiting() == 0 {
            return active;
        }
        let view = self.pipeline.views.load_full();
        let frozen = view.family(family.slot(), family.id()).map_or(&[][..], |view| &view.frozen);
        frozen.iter().map(|frozen| frozen.first_segment).fold(active, u64::min)
    }
}
