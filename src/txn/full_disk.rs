//! Commits on a full disk.
//!
//! What is kept for that time (free pages at the end of the data file, files beside the log) is for whatever
//! makes room: deletions, and merges and checkpoints of what was accepted. So a commit that the log has no
//! room for
//!
//! 1. goes on in a segment of the reserve, if it deletes and puts nothing;
//! 2. waits until merges and a checkpoint have let go of log, if there is any that they can let go of;
//! 3. is refused.
//!
//! From (1) on, puts are refused at once until a checkpoint has made the reserve good again. Nobody waits
//! here while he holds a lock.

use std::time::Duration;

use crate::column_family::family::Family;
use crate::error::{Error, ErrorKind, Result};
use crate::options::Durability;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Instant, thread};
use crate::txn::operation::{Operation, Operations};
use crate::txn::pipeline::{Pipeline, Write};
use crate::wal::{Log, Weight};

/// Bytes of commits without a record after which it is looked again whether the disk is tight.
const LOOK_AFTER: u64 = 4096;
/// How often a commit tries again after log was let go of: others may have been faster.
const MOST_TRIES: usize = 4;
/// How often it looks whether that has happened, before it is refused: ten seconds.
const MOST_LOOKS: usize = 500;
/// How often it finds that merges or checkpoints have no room themselves, before it is refused: they try
/// again, and others free something.
const MOST_OBSTACLES: usize = 25;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

impl Write<'_> {
    /// Whether it deletes and puts nothing.
    fn frees(&self) -> bool {
        let puts = |operation: Result<_>| {
            !matches!(operation, Ok((_, Operation::Delete { .. } | Operation::DeleteRange { .. })))
        };
        !Operations::new(self.payload).any(puts)
    }
}

impl Pipeline {
    /// Whether a commit that asks for no record gets one: where the disk is tight, only what is in the log is
    /// sure to find room when it is merged.
    fn is_to_be_logged(&self, log: &Log, write: &Write<'_>) -> bool {
        let bytes = write.payload.len() as u64;
        if self.unlogged_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= LOOK_AFTER {
            self.unlogged_bytes.store(0, Ordering::Relaxed);
            let in_memory = |family: &Arc<Family>| (family.stall.waiting() + 1) * family.memtable_bytes();
            let unlogged: usize = write.families.iter().map(in_memory).sum();
            self.is_tight.store(log.is_tight(unlogged as u64 + bytes), Ordering::Relaxed);
        }
        self.is_tight.load(Ordering::Relaxed)
    }

    /// Refuses whatever needs room for good, while the disk is full and the reserve is used.
    #[cold]
    fn check_frees(&self, log: &Log, write: &Write<'_>) -> Result<()> {
        if write.frees() {
            return Ok(());
        }
        // What was deleted may have made room by now, or makes it with the next merge and checkpoint.
        for tries_left in (0..MOST_TRIES).rev() {
            if log.fill_reserve().map_err(|error| self.fail(error))? {
                self.on_reserve.store(false, Ordering::Relaxed);
                return Ok(());
            }
            if !(tries_left > 0 && self.wait_for_space(log)?) {
                break;
            }
        }
        self.short_of_space.store(true, Ordering::Relaxed);
        self.work.request_checkpoint();
        let message =
            "the disk is full: only deletions are taken until there is room for what is kept for them";
        Err(Error::new(ErrorKind::OutOfSpace, message))
    }

    /// Writes a commit by `attempt`, on a full disk when there is room for it.
    #[inline]
    pub(super) fn even_on_full_disk<R>(
        &self,
        log: &Log,
        write: &Write<'_>,
        durability: Durability,
        attempt: impl Fn(Durability) -> Result<R>,
    ) -> Result<R> {
        if self.on_reserve.load(Ordering::Relaxed) {
            self.check_frees(log, write)?;
        }
        let durability = match durability {
            Durability::None if self.is_to_be_logged(log, write) => Durability::Buffered,
            asked => asked,
        };
        match attempt(durability) {
            Err(error) if error.kind() == ErrorKind::OutOfSpace => {
                self.attempt_on_full_disk(log, write, error, || attempt(durability))
            }
            outcome => outcome,
        }
    }

    /// Writes a commit that was refused with `refused`, once there is room.
    #[cold]
    fn attempt_on_full_disk<R>(
        &self,
        log: &Log,
        write: &Write<'_>,
        mut refused: Error,
        attempt: impl Fn() -> Result<R>,
    ) -> Result<R> {
        let frees = write.frees();
        for _ in 0..MOST_TRIES {
            if frees {
                let gone_on = log.go_on_from_reserve(write.payload, write.operations);
                if gone_on.map_err(|error| self.fail(error))? {
                    self.on_reserve.store(true, Ordering::Relaxed);
                    match attempt() {
                        Err(error) if error.kind() == ErrorKind::OutOfSpace => refused = error,
                        outcome => return outcome,
                    }
                }
            }
            if !self.wait_for_space(log)? {
                break;
            }
            match attempt() {
                Err(error) if error.kind() == ErrorKind::OutOfSpace => refused = error,
                outcome => return outcome,
            }
        }
        Err(refused)
    }

    /// Waits until log was let go of. `false` if there is none, or merges and checkpoints find no room
    /// themselves.
    fn wait_for_space(&self, log: &Log) -> Result<bool> {
        let weight = log.weight();
        if weight == 0 {
            return Ok(false);
        }
        let since = Instant::now();
        let is_freed = self.wait_until_lighter(log, weight);
        let took = since.elapsed();
        self.waited_for.space.note(took);
        tracing::debug!(?took, ?is_freed, "a writer waited for room on a full disk");
        is_freed
    }

    /// Waits until the log weighs less than the most that it did meanwhile, `weight` at first: others may add
    /// to it while something is let go of.
    fn wait_until_lighter(&self, log: &Log, mut weight: Weight) -> Result<bool> {
        let before = self.log_pace.rounds_ended();
        // What stood in their way may be gone.
        self.log_pace.clear();
        let mut obstacles = 0;
        for _ in 0..MOST_LOOKS {
            self.writable()?;
            weight = weight.max(log.weight());
            self.short_of_space.store(true, Ordering::Relaxed);
            self.log_pace.want_all();
            self.work.request_shorter_log();
            if self.log_pace.wait().is_err() {
                obstacles += 1;
                if obstacles == MOST_OBSTACLES {
                    return Ok(false);
                }
                thread::sleep(BETWEEN_LOOKS);
            }
            // A checkpoint that came before the merges has let go of nothing.
            if self.log_pace.rounds_ended() != before && log.weight() < weight {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
