//! The commit pipeline.
//!
//! ```text
//! commit(batch):
//!     lock the write locks of its families, in ascending number        (1)
//!     freeze memtables that are full
//!     sequence <- log.append(batch)    number and place under the log's own lock, the copy outside   (2)
//!     insert the entries into the active memtables
//!     unlock
//!     visible.complete(sequence)       visible when all before it are, too                          (3)
//!     wait until visible
//!     if Sync: log.sync_through(sequence)                                                           (4)
//! ```
//!
//! (1) comes before (2): a writer with a number whose memtable could be frozen and replaced before its insert would leave
//! entries that recovery takes for merged. (3) is what makes an acknowledged record readable by recovery: everything before it
//! in the log was written in full. (4) comes after (3): numbers become visible in order, so a commit that waited for its sync before it
//! is visible would hold up every later one, whatever family and durability that has. Readers may see a synced commit before it is
//! durable. What they write after they saw it is behind it in the log, so no crash keeps that and loses what they saw.
//!
//! A short commit of one operation does (2) and the insert, and (3) if its turn has come, under the log's lock, and before that
//! whatever needs no number: see [`Pipeline::commit_single`].
//!
//! The rejected alternative, one lock around (2) and the inserts as in a single-writer engine, serialises families on each other's
//! memory accesses.

use std::collections::BTreeMap;
use std::ops::DerefMut;

use crossbeam_utils::CachePadded;

use crate::codec::entry::EntryKind;
use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::codec::key;
use crate::column_family::family::{Counters, Family, MAX_FROZEN, WriteSide};
use crate::column_family::merge::{ABOVE_EVERY_KEY, MergeContext};
use crate::column_family::stall::Woken;
use crate::column_family::view::{Moment, View};
use crate::column_family::work::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::memtable::Prepared;
use crate::options::Durability;
use crate::sync::arc_cell::ArcCell;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::sequencer::Sequencer;
use crate::sync::{Arc, MutexGuard, thread};
use crate::txn::batch::{Operation, Operations};
use crate::txn::large::Parts;
use crate::txn::latch::Latch;
use crate::txn::log_pace::{Admitted, LogPace};
use crate::wal::{self, Log, Weight};

/// What commits and readers of one open database share.
pub(crate) struct Pipeline {
    /// Tells this open database from every other one in the process.
    pub(crate) database: u64,
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
    pub(crate) closed: AtomicBool,
    /// Whether the files belong to somebody else from now on: nothing may be written to them any more.
    pub(crate) ended: AtomicBool,
    /// Whether a commit was made that no log record holds.
    pub(crate) unlogged: AtomicBool,
    /// Whether the disk was met full since free space was last given back to it.
    pub(crate) short_of_space: AtomicBool,
}

/// A commit as the pipeline takes it.
pub(crate) struct Write<'a> {
    pub(crate) families: &'a [Arc<Family>],
    pub(crate) payload: &'a [u8],
    pub(crate) operations: u64,
    pub(crate) has_range_deletions: bool,
}

/// The longest payload that is written under the log's lock, in bytes.
const MOST_IN_TURN: usize = 400;

impl<'a> Write<'a> {
    /// The operation, if there is one only, on one key, and it is short.
    #[inline]
    fn single(&self) -> Option<(EntryKind, &'a [u8], &'a [u8])> {
        if self.payload.len() > MOST_IN_TURN {
            return None;
        }
        let mut operations = Operations::new(self.payload);
        match (operations.next()?.ok()?.1, operations.next()) {
            (Operation::Put { key, value }, None) => Some((EntryKind::Put, key, value)),
            (Operation::Delete { key }, None) => Some((EntryKind::Delete, key, &[])),
            _ => None,
        }
    }
}

/// A family's write lock, held.
pub(super) type Locked<'a> = MutexGuard<'a, WriteSide>;

impl Pipeline {
    /// The log, if the database takes writes.
    pub(crate) fn writable(&self) -> Result<&Log> {
        self.open()?;
        self.latch.check()?;
        self.log
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::ReadOnly, "the database was opened for reading only"))
    }

    /// Fails once the database is closed.
    #[inline]
    pub(crate) fn open(&self) -> Result<()> {
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

    pub(crate) fn merge_context<'a>(&'a self, should_stop: &'a dyn Fn() -> bool) -> MergeContext<'a> {
        MergeContext { views: &self.views, visible: &self.visible, should_stop, merge_cost: self.merge_cost }
    }

    /// Writes a commit; when this returns it is visible and as durable as was asked for. It becomes visible first.
    pub(crate) fn commit(&self, write: &Write<'_>, durability: Durability) -> Result<()> {
        let log = self.writable()?;
        if write.payload.is_empty() {
            return Ok(());
        }
        let admitted = self.admit_to_log(log, write, durability)?;
        if let ([family], Durability::Buffered) = (write.families, durability)
            && let Some((kind, key, value)) = write.single()
        {
            return self
                .commit_single(log, family, write.payload, |side| side.writer.prepare(kind, key, value));
        }
        // Without a record, one family's part could be checkpointed and another's lost: only the log keeps a batch whole.
        let durability = match durability {
            Durability::None if write.families.len() > 1 => Durability::Buffered,
            asked => asked,
        };
        let mut families: Vec<&Arc<Family>>;
        let families: &[&Arc<Family>] = match write.families {
            [one] => &[one],
            many => {
                families = many.iter().collect();
                families.sort_unstable_by_key(|family| family.id());
                &families
            }
        };
        if let Some(parts) = Parts::of(write, families) {
            return self.commit_large(log, write, durability, families, &parts);
        }
        let mut sides = self.lock_with_room(families)?;
        let interrupted = Interrupted(self);
        let (sequence, fill) = self.log_and_apply(log, write, durability, families, &mut sides)?;
        drop(sides);
        drop(admitted);
        self.publish(sequence)?;
        drop(interrupted);
        if durability == Durability::Sync {
            log.sync_through(sequence).map_err(|error| self.fail(error))?;
        }
        for family in families {
            family.stall.slow_down(write.payload.len() / families.len(), family.memtable_bytes(), fill);
        }
        Ok(())
    }

    /// Returns when the log takes the record of `write`, before any lock is taken.
    #[inline]
    fn admit_to_log(&self, log: &Log, write: &Write<'_>, durability: Durability) -> Result<Admitted<'_>> {
        if durability == Durability::None && write.families.len() == 1 {
            return Ok(self.log_pace.nothing());
        }
        let weight = wal::weight(write.payload.len() as u64, write.operations);
        match self.log_pace.admit_at_once(log, weight) {
            Some(admitted) => Ok(admitted),
            None => self.wait_for_log(log, weight),
        }
    }

    /// Slows a writer down as the log nears its limit, and stops him while it is there.
    #[cold]
    fn wait_for_log(&self, log: &Log, weight: Weight) -> Result<Admitted<'_>> {
        let pause = self.log_pace.pause(log, weight);
        if !pause.is_zero() {
            tracing::trace!(?pause, "a writer is slowed until the log is shorter");
            thread::sleep(pause);
        }
        if let Some(admitted) = self.log_pace.admit_in_turn(log, weight) {
            return Ok(admitted);
        }
        let _door = self.log_pace.at_door();
        loop {
            self.writable()?;
            if let Some(admitted) = self.log_pace.admit(log, weight) {
                return Ok(admitted);
            }
            self.log_pace.want(weight);
            self.work.request_shorter_log();
            self.log_pace.wait()?;
        }
    }

    /// Writes a commit of one short operation, unsynced. What needs no number is done before the log's lock is taken, the
    /// rest under it: then nobody is ever between the log and the memtable while others wait for him, unless he was kept
    /// from running in that short time.
    fn commit_single(
        &self,
        log: &Log,
        family: &Arc<Family>,
        payload: &[u8],
        prepare: impl for<'a> FnOnce(&'a mut WriteSide) -> Prepared<'a>,
    ) -> Result<()> {
        let mut side = loop {
            let mut side = family.write.lock();
            self.writable()?;
            if self.has_room(family, &mut side)? {
                break side;
            }
            drop(side);
            self.wait_for_merge(family, 1)?;
        };
        let interrupted = Interrupted(self);
        family.note_segment(log.segment_of_next());
        let prepared = prepare(&mut side);
        let appended = log.append_in_turn(payload, |sequence| {
            prepared.insert(sequence);
            (sequence, self.visible.complete_in_turn(sequence.0))
        });
        let (sequence, in_turn) = match appended {
            Ok(appended) => appended,
            Err(error) => return Err(self.not_appended(error, &[family], &[side])),
        };
        let fill = account(family, &side, payload.len());
        drop(side);
        if log.wants_prepare() {
            self.work.clock.ring();
        }
        if !in_turn {
            self.publish(sequence)?;
        }
        drop(interrupted);
        family.stall.slow_down(payload.len(), family.memtable_bytes(), fill);
        Ok(())
    }

    /// Makes a commit visible, when all before it are.
    pub(super) fn publish(&self, sequence: SequenceNumber) -> Result<()> {
        let ended = |_| self.latch.check().err().unwrap_or_else(|| self.fail_without_cause());
        self.visible.admit(sequence.0).map_err(ended)?;
        self.visible.complete(sequence.0);
        self.visible.wait_for(sequence.0).map_err(ended)
    }

    /// Takes the write locks, ascending, once no active memtable among them is full.
    fn lock_with_room<'a>(&self, families: &[&'a Arc<Family>]) -> Result<Vec<Locked<'a>>> {
        'again: loop {
            let mut sides: Vec<Locked<'a>> = families.iter().map(|family| family.write.lock()).collect();
            self.writable()?;
            for (family, side) in families.iter().zip(&mut sides) {
                if !self.has_room(family, side)? {
                    drop(sides);
                    self.wait_for_merge(family, 1)?;
                    continue 'again;
                }
            }
            return Ok(sides);
        }
    }

    /// Whether the active memtable takes a write: it is not full, or a new one could be put in its place.
    #[inline]
    pub(super) fn has_room(&self, family: &Arc<Family>, side: &mut Locked<'_>) -> Result<bool> {
        family.check_not_dropped()?;
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

    /// Appends to the log and inserts into the memtables. Gives the number and how full the fullest memtable is (0 to 1).
    fn log_and_apply(
        &self,
        log: &Log,
        write: &Write<'_>,
        durability: Durability,
        families: &[&Arc<Family>],
        sides: &mut [Locked<'_>],
    ) -> Result<(SequenceNumber, f64)> {
        let sequence = self.append(log, write, durability, families, sides)?;
        apply(write, families, sides, sequence);
        let bytes = write.payload.len() / families.len();
        let fills = families.iter().zip(sides.iter()).map(|(family, side)| account(family, side, bytes));
        Ok((sequence, fills.fold(0.0, f64::max)))
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
    fn not_appended(&self, error: Error, families: &[&Arc<Family>], sides: &[Locked<'_>]) -> Error {
        if error.kind() != ErrorKind::OutOfSpace {
            return self.fail(error);
        }
        // A memtable that is still empty needs none of the log.
        for (family, side) in families.iter().zip(sides) {
            if side.writer.table().is_empty() {
                family.forget_segment();
            }
        }
        // A checkpoint may free log, and free parts of the data file for it.
        self.short_of_space.store(true, Ordering::Relaxed);
        self.work.request_checkpoint();
        error
    }

    /// Ends all writing because of `error`.
    pub(crate) fn fail(&self, error: Error) -> Error {
        let error = self.latch.close(error);
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

/// Held while a commit has a number that is not completed. A panic meanwhile ends all writing, since later commits would wait
/// for that number for ever.
pub(super) struct Interrupted<'a>(pub(super) &'a Pipeline);

impl Drop for Interrupted<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::new(ErrorKind::WriteFailed, "a commit panicked halfway"));
        }
    }
}

/// Counts `bytes` that were inserted into a family's memtable. Says how full it is (0 to 1).
pub(super) fn account(family: &Family, side: &WriteSide, bytes: usize) -> f64 {
    Counters::add(&family.counters.bytes_inserted, bytes as u64);
    side.writer.table().bytes() as f64 / family.memtable_bytes().max(1) as f64
}

/// Inserts the entries of a commit into the memtables of its families.
fn apply(write: &Write<'_>, families: &[&Arc<Family>], sides: &mut [Locked<'_>], sequence: SequenceNumber) {
    insert_all(placed(write.payload, families, &Replaced::of_write(write)), sides, sequence);
}

/// The operations of a commit that count, each with the index of its family among `families`, which are all that it touches, ascending.
pub(super) fn placed<'a>(
    payload: &'a [u8],
    families: &[&Arc<Family>],
    replaced: &Replaced,
) -> impl Iterator<Item = (usize, Operation<'a>)> {
    let place = |id: FamilyId| {
        families
            .binary_search_by_key(&id, |family| family.id())
            .unwrap_or_else(|_| panic!("a batch touches family {id}, which it does not list"))
    };
    let decoded = Operations::new(payload)
        .map(|operation| operation.unwrap_or_else(|error| panic!("a batch does not decode: {error}")));
    let mut last = 0;
    decoded.enumerate().filter(|(index, _)| !replaced.contains(*index)).map(move |(_, (id, operation))| {
        if families[last].id() != id {
            last = place(id);
        }
        (last, operation)
    })
}

/// Inserts the operations of one commit, each with the index of its family's memtable among `sides`.
pub(crate) fn insert_all<'o>(
    operations: impl Iterator<Item = (usize, Operation<'o>)>,
    sides: &mut [impl DerefMut<Target = WriteSide>],
    sequence: SequenceNumber,
) {
    let mut operations = operations.fuse();
    let tables: Vec<_> = sides.iter().map(|side| Arc::clone(side.writer.table())).collect();
    loop {
        // The places of several keys are looked for at once, so that waiting for their memory is, too.
        let group: [_; GROUP] = std::array::from_fn(|_| {
            let (place, operation) = operations.next()?;
            let expected = match operation {
                Operation::Put { key, .. } | Operation::Delete { key } => {
                    Some(sides[place].writer.expect(&tables[place], key))
                }
                Operation::DeleteRange { .. } => None,
            };
            Some((place, operation, expected))
        });
        for member in group {
            let Some((place, operation, expected)) = member else { return };
            let writer = &mut sides[place].writer;
            match (operation, expected) {
                (Operation::Put { value, .. }, Some(expected)) => {
                    writer.prepare_expected(EntryKind::Put, expected, value).insert(sequence);
                }
                (Operation::Delete { .. }, Some(expected)) => {
                    writer.prepare_expected(EntryKind::Delete, expected, &[]).insert(sequence);
                }
                (Operation::Put { key, value }, None) => writer.put(key, value, sequence),
                (Operation::Delete { key }, None) => writer.delete(key, sequence),
                (Operation::DeleteRange { start, end }, _) => {
                    writer.delete_range(start, end.unwrap_or(&ABOVE_EVERY_KEY), sequence);
                }
            }
        }
    }
}

/// Operations of a commit whose places in memtables are looked for at once.
const GROUP: usize = 8;

/// Operations of one payload that a later range deletion of the same payload undoes.
///
/// All entries of a commit have one number, and a range deletion covers what is older than itself; order within the commit
/// is settled here, before the entries reach the memtable.
#[derive(Default)]
pub(crate) struct Replaced {
    operations: Vec<bool>,
}

impl Replaced {
    pub(super) fn of_write(write: &Write<'_>) -> Self {
        if write.has_range_deletions { Self::of(write.payload) } else { Self::default() }
    }

    pub(crate) fn of(payload: &[u8]) -> Self {
        let operations: Vec<_> = Operations::new(payload).map_while(Result::ok).collect();
        let mut replaced = vec![false; operations.len()];
        let mut later: BTreeMap<FamilyId, Ranges<'_>> = BTreeMap::new();
        for (index, (family, operation)) in operations.iter().enumerate().rev() {
            match operation {
                Operation::Put { key, .. } | Operation::Delete { key } => {
                    replaced[index] = later.get(family).is_some_and(|ranges| ranges.cover(key));
                }
                Operation::DeleteRange { start, end } => {
                    later.entry(*family).or_default().insert(start, end.unwrap_or(&ABOVE_EVERY_KEY));
                }
            }
        }
        Self { operations: replaced }
    }

    pub(crate) fn contains(&self, index: usize) -> bool {
        self.operations.get(index).copied().unwrap_or(false)
    }
}

/// Disjoint ranges, start to end.
#[derive(Default)]
struct Ranges<'a>(BTreeMap<&'a [u8], &'a [u8]>);

impl<'a> Ranges<'a> {
    fn cover(&self, key: &[u8]) -> bool {
        self.0.range(..=key).next_back().is_some_and(|(_, end)| key::compare(key, end).is_lt())
    }

    fn insert(&mut self, mut start: &'a [u8], mut end: &'a [u8]) {
        while let Some((&old_start, &old_end)) = self.0.range(..=end).next_back() {
            if key::compare(old_end, start).is_lt() {
                break;
            }
            self.0.remove(old_start);
            start = start.min(old_start);
            end = end.max(old_end);
        }
        self.0.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::batch::{encode_delete_range, encode_put};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_a_later_range_deletion_covers_is_replaced(
            operations in prop::collection::vec((0u8..2, 0u8..20, 0u8..20), 0..40)
        ) {
            let mut payload = Vec::new();
            let mut listed = Vec::new();
            for (kind, a, b) in operations {
                if kind == 0 {
                    encode_put(&mut payload, FamilyId(1), &[a], &[b]);
                    listed.push((a, None));
                } else if a < b {
                    encode_delete_range(&mut payload, FamilyId(1), &[a], Some(&[b]));
                    listed.push((a, Some(b)));
                }
            }
            let replaced = Replaced::of(&payload);
            for (i, (key, end)) in listed.iter().enumerate() {
                let covered = end.is_none()
                    && listed[i..].iter().any(|(start, end)| end.is_some_and(|end| (*start..end).contains(key)));
                prop_assert_eq!(replaced.contains(i), covered, "operation {}", i);
            }
        }
    }
}
