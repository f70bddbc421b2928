//! What commits and readers of one open database share, and the steps that every commit takes.

use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::codec::ids::SequenceNumber;
use crate::column_family::family::{Counters, Family, WriteSide};
use crate::column_family::merging::gather::MOST_BYTES;
use crate::column_family::merging::merge::MergeContext;
use crate::column_family::merging::work::Work;
use crate::column_family::remembered::Remembered;
use crate::column_family::stall::{MAX_FROZEN, Woken};
use crate::column_family::view::{Moment, View};
use crate::error::{Error, ErrorKind, LockOwner, Result};
use crate::options::Durability;
use crate::options::clock::WallClock;
use crate::sync::arc_cell::ArcCell;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::sequencer::Sequencer;
use crate::sync::waits::Waits;
use crate::sync::{Arc, Instant, MutexGuard};
use crate::system::Process;
use crate::txn::apart::Apart;
use crate::txn::latch::Latch;
use crate::txn::locks::table::LockTable;
use crate::txn::log_pace::LogPace;
use crate::txn::prepared::table::Prepared;
use crate::txn::prepared::waiting::HeldBack;
use crate::txn::tally::Tally;
use crate::wal::Log;

/// What commits and readers of one open database share.
pub(crate) struct Pipeline {
    /// Tells this open database from every other one in the process.
    pub(crate) database: u64,
    /// That opened it.
    pub(crate) process: Process,
    pub(crate) views: ArcCell<View>,
    pub(crate) visible: CachePadded<Sequencer>,
    pub(crate) latch: Latch,
    /// `None` if the database was opened for reading only.
    pub(crate) log: Option<Log>,
    pub(crate) work: Work,
    /// How writers are slowed by the log's length.
    pub(crate) log_pace: LogPace,
    /// Bytes of a tree that a merge may write for each byte merged.
    pub(crate) merge_cost: u32,
    /// By which entries expire.
    pub(crate) clock: WallClock,
    pub(crate) waited_for: WaitedFor,
    /// Large batches on their way.
    pub(crate) apart: Apart,
    pub(crate) prepared: Prepared,
    /// What is kept for open transactions.
    pub(crate) remembered: Arc<Remembered>,
    /// Bytes of what open transactions wrote and read.
    pub(crate) transactions: Tally,
    /// What transactions have locked.
    pub(crate) locks: Arc<LockTable>,
    /// How long a write outside of transactions waits for what they have locked.
    pub(crate) writes_wait: Duration,
    pub(crate) closed: AtomicBool,
    /// Whether the files belong to somebody else from now on: nothing may be written to them any more.
    pub(crate) ended: AtomicBool,
    /// Whether a commit was made that no log record holds.
    pub(crate) unlogged: AtomicBool,
    /// Whether the disk was met full since free space was last given back to it.
    pub(crate) short_of_space: AtomicBool,
    /// Whether what is kept for a full disk was used and is not whole again: then only what frees something
    /// is written.
    pub(crate) on_reserve: AtomicBool,
    /// Bytes of commits without a record since it was looked whether the disk is tight, and what was found
    /// then.
    pub(crate) unlogged_bytes: AtomicU64,
    pub(crate) is_tight: AtomicBool,
}

/// What commits waited for that nothing else counts.
#[derive(Default)]
pub(crate) struct WaitedFor {
    /// Commits with lower numbers, for [`LONG`] and longer.
    pub(crate) earlier: Waits,
    /// Log to be let go of on a full disk.
    pub(crate) space: Waits,
}

/// What a commit waits at most for those with lower numbers without its being counted.
const LONG: Duration = Duration::from_millis(1);

/// A commit as the pipeline takes it.
pub(crate) struct Write<'a> {
    pub(crate) families: &'a [Arc<Family>],
    pub(crate) payload: &'a [u8],
    pub(crate) operations: u64,
    pub(crate) has_range_deletions: bool,
}

/// Whether a commit has to look for locks of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It does.
    Plain,
    /// All that it writes is locked for it.
    Holder,
}

/// How a try to commit ended.
pub(super) enum Attempt {
    Made(SequenceNumber),
    /// The condition does not hold.
    Refused,
    /// Prepared transactions hold what was to be written.
    HeldBack(HeldBack),
    /// Something that it writes is locked.
    Locked,
}

/// A family's write lock, held.
pub(super) type Locked<'a> = MutexGuard<'a, WriteSide>;

/// What a commit is made on.
pub(crate) struct Condition<'a> {
    /// Families to which nobody may write between the question and the commit, ascending. Those that are
    /// written need not be listed.
    pub(crate) families: &'a [&'a Arc<Family>],
    pub(crate) holds: &'a dyn Fn() -> bool,
    /// Whether it waits for what prepared transactions hold, and others have locked.
    pub(crate) minds_held: bool,
    /// Who waits for what others have locked; `None`: a write outside of transactions.
    pub(crate) claimant: Option<Claimant>,
}

/// In whose name a commit waits for locks, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claimant {
    pub(crate) who: LockOwner,
    pub(crate) limit: Duration,
}

impl Condition<'static> {
    /// It always holds.
    pub(crate) const NONE: Self = Self { families: &[], holds: &|| true, minds_held: true, claimant: None };

    /// It always holds, and what is written may be held.
    pub(crate) const WHATEVER_IS_HELD: Self = Self { minds_held: false, ..Self::NONE };
}

/// Takes the write locks of `families` and of what else the condition lists, all in ascending number; gives
/// those of `families` apart.
pub(super) fn lock<'a>(
    families: &[&'a Arc<Family>],
    condition: &Condition<'a>,
) -> (Vec<Locked<'a>>, Vec<Locked<'a>>) {
    let (mut sides, mut others) = (Vec::with_capacity(families.len()), Vec::new());
    let mut also = condition.families.iter().peekable();
    for family in families {
        while let Some(other) = also.next_if(|other| other.id() <= family.id()) {
            if other.id() < family.id() {
                others.push(other.write.lock());
            }
        }
        sides.push(family.write.lock());
    }
    others.extend(also.map(|other| other.write.lock()));
    (sides, others)
}

impl Pipeline {
    /// The log, if the database takes writes.
    pub(crate) fn writable(&self) -> Result<&Log> {
        self.open()?;
        self.latch.check()?;
        self.log()
    }

    /// The log, if there is one.
    pub(crate) fn log(&self) -> Result<&Log> {
        self.log
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::ReadOnly, "the database was opened for reading only"))
    }

    /// Fails once the database is closed, and in a child that was forked.
    #[inline]
    pub(crate) fn open(&self) -> Result<()> {
        self.process.check()?;
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the database was closed"));
        }
        Ok(())
    }

    /// Fails once the files are let go of.
    pub(crate) fn owns_files(&self) -> Result<()> {
        if self.ended.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the database was closed"));
        }
        Ok(())
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Moment {
        Moment::now(&self.views, &self.visible)
    }

    /// The present moment, for who reads entries that may expire.
    pub(crate) fn moment(&self) -> Result<Moment> {
        let moment = self.now();
        // Afterwards: what the view does not hold any more since it has expired has by then.
        Ok(Moment { now: self.clock.now_if_used()?, ..moment })
    }

    pub(crate) fn merge_context<'a>(&'a self, should_stop: &'a dyn Fn() -> bool) -> MergeContext<'a> {
        MergeContext {
            views: &self.views,
            visible: &self.visible,
            should_stop,
            merge_cost: self.merge_cost,
            remembered: &self.remembered,
            now: self.clock.now_or_unasked(),
            most_bytes: MOST_BYTES,
            from_reserve: false,
            all_is_logged: !self.unlogged.load(Ordering::Acquire),
        }
    }

    /// All that belongs to a commit is inserted: it is visible as soon as all before it are.
    pub(super) fn complete(&self, sequence: SequenceNumber) -> Result<()> {
        let ended = |_| self.latch.check().err().unwrap_or_else(|| self.fail_without_cause());
        self.visible.admit(sequence.0).map_err(ended)?;
        self.visible.complete(sequence.0);
        Ok(())
    }

    /// Makes a commit visible, when all before it are.
    pub(super) fn publish(&self, sequence: SequenceNumber) -> Result<()> {
        self.complete(sequence)?;
        self.wait_until_visible(sequence)
    }

    /// Returns when the commit `sequence`, which has its number, is visible.
    pub(super) fn wait_until_visible(&self, sequence: SequenceNumber) -> Result<()> {
        if self.visible.watermark() >= sequence.0 {
            return Ok(());
        }
        let since = Instant::now();
        let ended = |_| self.latch.check().err().unwrap_or_else(|| self.fail_without_cause());
        self.visible.wait_for(sequence.0).map_err(ended)?;
        let took = since.elapsed();
        if took >= LONG {
            self.waited_for.earlier.note(took);
            tracing::debug!(?took, sequence = sequence.0, "a commit waited for earlier ones");
        }
        Ok(())
    }

    /// Whether the active memtable takes a write: it is not full, or a new one could be put in its place.
    #[inline]
    pub(super) fn has_room(&self, family: &Arc<Family>, side: &mut Locked<'_>) -> Result<bool> {
        family.check_takes_writes()?;
        self.work.touch(family);
        if side.writer.table().bytes() < family.memtable_bytes() {
            return Ok(true);
        }
        if family.stall.waiting() < MAX_FROZEN && family.freeze(side, &self.views)? {
            self.work.request_merge(family);
            return Ok(true);
        }
        Ok(side.writer.table().is_empty())
    }

    /// Waits until `places` more memtables of `family` can be frozen, or something else may have changed.
    pub(super) fn wait_for_merge(&self, family: &Arc<Family>, places: usize) -> Result<()> {
        self.work.request_merge(family);
        match family.stall.wait(places) {
            Woken::Obstacle(error) => Err(error),
            Woken::LookAgain => Ok(()),
        }
    }

    /// How a commit of which all locks are held ends, unless it may be made.
    #[inline]
    pub(super) fn ask(
        &self,
        write: &Write<'_>,
        families: &[&Arc<Family>],
        condition: &Condition<'_>,
        standing: Standing,
    ) -> Option<Attempt> {
        if standing == Standing::Plain && self.is_locked(write) {
            return Some(Attempt::Locked);
        }
        if !(condition.holds)() {
            return Some(Attempt::Refused);
        }
        let held = if condition.minds_held { self.held_back(write, families) } else { None };
        held.map(Attempt::HeldBack)
    }

    /// Gives a commit its number, and appends it to the log unless it is to have no record.
    pub(super) fn append(
        &self,
        log: &Log,
        write: &Write<'_>,
        durability: Durability,
        families: &[&Arc<Family>],
        sides: &[Locked<'_>],
    ) -> Result<SequenceNumber> {
        let sequence = if durability == Durability::None {
            if !self.unlogged.load(Ordering::Relaxed) {
                self.unlogged.store(true, Ordering::Release);
            }
            log.assign()
        } else {
            let segment = log.segment_of_next();
            for family in families {
                family.note_segment(segment);
            }
            let appended = log.append(write.payload, write.operations, durability == Durability::Sync);
            if log.wants_prepare() {
                self.work.clock.ring();
            }
            appended
        };
        sequence.map_err(|error| self.not_appended(error, families, sides))
    }

    /// What is said, and done, when the log took no record.
    #[cold]
    pub(super) fn not_appended(
        &self,
        error: Error,
        families: &[&Arc<Family>],
        sides: &[Locked<'_>],
    ) -> Error {
        if !error.is_refusal() {
            return self.fail(error);
        }
        // A memtable that is still empty needs none of the log.
        for (family, side) in families.iter().zip(sides) {
            if side.writer.table().is_empty() {
                family.forget_segment();
            }
        }
        // A checkpoint may free log, and free parts of the data file for it.
        if error.kind() == ErrorKind::OutOfSpace {
            self.short_of_space.store(true, Ordering::Relaxed);
        }
        self.work.request_checkpoint();
        error
    }

    /// The database is closed: nobody waits any more for locks, for decisions, or for a shorter log.
    pub(crate) fn end_waiting(&self) {
        self.locks.close();
        self.prepared.end(Error::new(ErrorKind::Closed, "the database was closed"));
        self.log_pace.wake();
    }

    /// Ends all writing because of `error`.
    pub(crate) fn fail(&self, error: Error) -> Error {
        let error = self.latch.close(error);
        self.prepared.end(self.latch.check().err().unwrap_or_else(|| error.clone()));
        self.visible.end();
        self.log_pace.wake();
        for family in self.views.load_full().families() {
            family.family.stall.wake();
        }
        error
    }

    fn fail_without_cause(&self) -> Error {
        Error::new(ErrorKind::WriteFailed, "an earlier commit was never completed")
    }
}

/// Held while a commit may have a number that is not completed. A panic meanwhile ends all writing, since
/// later commits would wait for that number for ever. What the thread does besides is not asked: a commit
/// that is made while it unwinds is one like any other.
pub(super) struct Interrupted<'a> {
    pipeline: &'a Pipeline,
    is_over: bool,
}

impl<'a> Interrupted<'a> {
    pub(super) fn watch(pipeline: &'a Pipeline) -> Self {
        Self { pipeline, is_over: false }
    }

    /// The commit came to an end: it is complete, or has no number, or whoever refused it has ended all
    /// writing.
    pub(super) fn over(mut self) {
        self.is_over = true;
    }

    /// What a step of the commit came to; if that is an error, the commit came to its end with it.
    pub(super) fn step<R>(&mut self, outcome: Result<R>) -> Result<R> {
        self.is_over = outcome.is_err();
        outcome
    }
}

impl Drop for Interrupted<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.pipeline.fail(Error::new(ErrorKind::WriteFailed, "a commit panicked halfway"));
        }
    }
}

/// Counts `bytes` that were inserted into a family's memtable. Says how full it is (0 to 1).
pub(super) fn account(family: &Family, side: &WriteSide, bytes: usize) -> f64 {
    Counters::add(&family.counters.bytes_inserted, bytes as u64);
    side.writer.table().bytes() as f64 / family.memtable_bytes().max(1) as f64
}
