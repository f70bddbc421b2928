//! The commit pipeline.
//!
//! ```text
//! commit(batch):
//!     lock the write locks of its families, in ascending number        (1)
//!     freeze memtables that are full
//!     if a transaction has locked any of it:  unlock, wait for that, and again (see `locks`)
//!     sequence <- log.append(batch)    number and place under the log's own lock, the copy outside   (2)
//!     insert the entries into the active memtables
//!     visible.complete(sequence)       visible when all before it are, too                          (3)
//!     unlock
//!     wait until visible
//!     if Sync: log.sync_through(sequence)                                                           (4)
//! ```
//!
//! (1) comes before (2): a writer with a number whose memtable could be frozen and replaced before its insert
//! would leave entries that recovery takes for merged. (3) is what makes an acknowledged record readable by
//! recovery: everything before it in the log was written in full. It comes before unlocking, since whoever
//! gives a lock to somebody who waits may be kept from running there, and with it everybody who has a later
//! number; what it waits for there is done by who has numbers already, and has all of his locks. (4) comes
//! after (3): numbers become visible
//! in order, so a commit that waited for its sync before it is visible would hold up every later one,
//! whatever family and durability that has. Readers may see a synced commit before it is durable. What they
//! write after they saw it is behind it in the log, so no crash keeps that and loses what they saw.
//!
//! A short commit of one operation does (2) and the insert, and (3) if its turn has come, under the log's
//! lock, and before that whatever needs no number: see [`Pipeline::commit_single`].
//!
//! The rejected alternative, one lock around (2) and the inserts as in a single-writer engine, serialises
//! families on each other's memory accesses.

use crate::codec::entry::EntryKind;
use crate::codec::ids::SequenceNumber;
use crate::column_family::family::{Family, WriteSide};
use crate::error::Result;
use crate::memtable::Prepared;
use crate::options::Durability;
use crate::sync::{Arc, thread};
use crate::txn::apply::{Replaced, insert_all, placed};
use crate::txn::large::Parts;
use crate::txn::log_pace::Admitted;
use crate::txn::operation::{Operation, Operations};
use crate::txn::pipeline::{
    Attempt, Claimant, Condition, Interrupted, Locked, Pipeline, Standing, Write, account, lock,
};
use crate::wal::{self, Log, Weight};

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
            (Operation::PutExpiring { key, value }, None) => {
                Some((EntryKind::PutExpiring, key, value.stamped))
            }
            (Operation::Merge { key, operand }, None) => Some((EntryKind::Merge, key, operand)),
            (Operation::MergeExpiring { key, operand }, None) => {
                Some((EntryKind::MergeStamped, key, operand.stamped))
            }
            (Operation::Delete { key }, None) => Some((EntryKind::Delete, key, &[])),
            _ => None,
        }
    }
}

impl Pipeline {
    /// The number of a write that has nothing to do: that of the last visible commit.
    pub(crate) fn nothing_to_write(&self) -> Result<SequenceNumber> {
        self.writable()?;
        Ok(SequenceNumber(self.visible.watermark()))
    }

    /// Writes a commit, and gives its number; when this returns it is visible and as durable as was asked
    /// for. It becomes visible first.
    pub(crate) fn commit(&self, write: &Write<'_>, durability: Durability) -> Result<SequenceNumber> {
        self.commit_for(None, write, durability)
    }

    /// As [`commit`](Self::commit), where what others have locked is waited for in the name of `claimant`.
    pub(crate) fn commit_for(
        &self,
        claimant: Option<Claimant>,
        write: &Write<'_>,
        durability: Durability,
    ) -> Result<SequenceNumber> {
        let log = self.writable()?;
        if write.payload.is_empty() {
            return self.nothing_to_write();
        }
        if let ([family], Durability::Buffered) = (write.families, durability)
            && let Some((kind, key, value)) = write.single()
        {
            let made = self.even_on_full_disk(log, write, durability, |durability| {
                let _admitted = self.admit_to_log(log, write, durability)?;
                self.commit_single(log, family, write, |side| side.writer.prepare(kind, key, value))
            })?;
            if let Some(sequence) = made {
                return Ok(sequence);
            }
        }
        match self.commit_if(write, durability, &Condition { claimant, ..Condition::NONE })? {
            Some(sequence) => Ok(sequence),
            None => unreachable!("a commit on no condition was not made"),
        }
    }

    /// Writes a commit that holds anything, if the condition holds while the write locks of its families, and
    /// of those of the condition, are held: from then on nothing else is written to them before the commit
    /// is. `None`, and nothing was written, if not.
    pub(crate) fn commit_if(
        &self,
        write: &Write<'_>,
        durability: Durability,
        condition: &Condition<'_>,
    ) -> Result<Option<SequenceNumber>> {
        let standing = if condition.minds_held { Standing::Plain } else { Standing::Holder };
        self.commit_standing(write, durability, condition, standing)
    }

    /// As [`commit_if`](Self::commit_if), by who has locked all that it writes, and holds that until it is
    /// visible.
    pub(crate) fn commit_holding(
        &self,
        write: &Write<'_>,
        durability: Durability,
        condition: &Condition<'_>,
    ) -> Result<Option<SequenceNumber>> {
        self.commit_standing(write, durability, condition, Standing::Holder)
    }

    fn commit_standing(
        &self,
        write: &Write<'_>,
        durability: Durability,
        condition: &Condition<'_>,
        standing: Standing,
    ) -> Result<Option<SequenceNumber>> {
        let mut patience = self.prepared.patience();
        let mut claimed = None;
        loop {
            let standing = if claimed.is_some() { Standing::Holder } else { standing };
            match self.try_commit(write, durability, condition, standing)? {
                Attempt::Made(sequence) => return Ok(Some(sequence)),
                Attempt::Refused => return Ok(None),
                Attempt::HeldBack(held) => {
                    // Whoever decides may want to lock it.
                    claimed = None;
                    patience.wait(held)?;
                }
                Attempt::Locked => claimed = Some(self.claim(write, condition.claimant)?),
            }
        }
    }

    fn try_commit(
        &self,
        write: &Write<'_>,
        durability: Durability,
        condition: &Condition<'_>,
        standing: Standing,
    ) -> Result<Attempt> {
        let log = self.writable()?;
        if standing == Standing::Plain && self.is_to_claim(write) {
            return Ok(Attempt::Locked);
        }
        self.even_on_full_disk(log, write, durability, |durability| {
            self.commit_if_room(log, write, durability, condition, standing)
        })
    }

    /// The same, if there is room. A refusal has changed nothing.
    fn commit_if_room(
        &self,
        log: &Log,
        write: &Write<'_>,
        durability: Durability,
        condition: &Condition<'_>,
        standing: Standing,
    ) -> Result<Attempt> {
        let admitted = self.admit_to_log(log, write, durability)?;
        // Without a record, one family's part could be checkpointed and another's lost: only the log keeps a
        // batch whole.
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
            return self.commit_large(write, durability, families, &parts, condition, standing, admitted);
        }
        let (mut sides, others) = self.lock_with_room(families, condition)?;
        if let Some(other_end) = self.ask(write, families, condition, standing) {
            return Ok(other_end);
        }
        let mut interrupted = Interrupted::watch(self);
        let applied = self.log_and_apply(log, write, durability, families, &mut sides);
        let (sequence, fill) = interrupted.step(applied)?;
        interrupted.step(self.complete(sequence))?;
        drop((sides, others));
        drop(admitted);
        interrupted.over();
        self.wait_until_visible(sequence)?;
        if durability == Durability::Sync {
            log.sync_through(sequence).map_err(|error| self.fail(error))?;
        }
        for family in families {
            family.stall.slow_down(write.payload.len() / families.len(), family.memtable_bytes(), fill);
        }
        Ok(Attempt::Made(sequence))
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

    /// Writes a commit of one short operation, unsynced. What needs no number is done before the log's lock
    /// is taken, the rest under it: then nobody is ever between the log and the memtable while others wait
    /// for him, unless he was kept from running in that short time. `None`, and nothing was written, if
    /// prepared transactions hold anything of the family, or the key is locked.
    fn commit_single(
        &self,
        log: &Log,
        family: &Arc<Family>,
        write: &Write<'_>,
        prepare: impl for<'a> FnOnce(&'a mut WriteSide) -> Prepared<'a>,
    ) -> Result<Option<SequenceNumber>> {
        let payload = write.payload;
        let mut side = loop {
            let mut side = family.write.lock();
            self.writable()?;
            if !family.held.is_free() {
                return Ok(None);
            }
            if self.has_room(family, &mut side)? {
                break side;
            }
            drop(side);
            self.wait_for_merge(family, 1)?;
        };
        if self.is_locked(write) {
            return Ok(None);
        }
        let mut interrupted = Interrupted::watch(self);
        family.note_segment(log.segment_of_next());
        let prepared = prepare(&mut side);
        let appended = log.append_in_turn(payload, |sequence| {
            prepared.insert(sequence);
            (sequence, self.visible.complete_in_turn(sequence.0))
        });
        let (sequence, in_turn) = match appended {
            Ok(appended) => appended,
            Err(error) => {
                interrupted.over();
                return Err(self.not_appended(error, &[family], &[side]));
            }
        };
        let fill = account(family, &side, payload.len());
        if !in_turn {
            interrupted.step(self.complete(sequence))?;
        }
        drop(side);
        if log.wants_prepare() {
            self.work.clock.ring();
        }
        interrupted.over();
        if !in_turn {
            self.wait_until_visible(sequence)?;
        }
        family.stall.slow_down(payload.len(), family.memtable_bytes(), fill);
        Ok(Some(sequence))
    }

    /// Takes the write locks, ascending, once no active memtable of `families` is full: theirs, and those of
    /// the other families of the condition.
    fn lock_with_room<'a>(
        &self,
        families: &[&'a Arc<Family>],
        condition: &Condition<'a>,
    ) -> Result<(Vec<Locked<'a>>, Vec<Locked<'a>>)> {
        'again: loop {
            let (mut sides, others) = lock(families, condition);
            self.writable()?;
            for (family, side) in families.iter().zip(&mut sides) {
                if !self.has_room(family, side)? {
                    drop((sides, others));
                    self.wait_for_merge(family, 1)?;
                    continue 'again;
                }
            }
            return Ok((sides, others));
        }
    }

    /// Appends to the log and inserts into the memtables. Gives the number and how full the fullest memtable
    /// is (0 to 1).
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
}

/// Inserts the entries of a commit into the memtables of its families.
fn apply(write: &Write<'_>, families: &[&Arc<Family>], sides: &mut [Locked<'_>], sequence: SequenceNumber) {
    insert_all(placed(write.payload, families, &Replaced::of_write(write)), sides, sequence);
}
