//! The transaction, as users hold it.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::codec::expiry::{Expiry, Now};
use crate::codec::ids::SequenceNumber;
use crate::codec::key_bounds::KeyBounds;
use crate::codec::key_range::KeyRange;
use crate::column_family::family::Family;
use crate::column_family::keys::StoredBounds;
use crate::column_family::options::Lifetime;
use crate::column_family::reading::value::Value;
use crate::column_family::remembered::Place;
use crate::column_family::view::{FamilyView, Moment, OwnWrites};
use crate::error::{Error, ErrorKind, LockOwner, Result};
use crate::sync::{Arc, Mutex};
use crate::system::Inherited;
use crate::txn::handle::ColumnFamily;
use crate::txn::iter::{Cursor, Iter};
use crate::txn::keys::Keys;
use crate::txn::locks::want::{Mode, Want};
use crate::txn::operation::{
    check_bounds, check_expiring_value, check_key_len, check_operand, check_value, is_empty_range,
};
use crate::txn::pipeline::{Claimant, Condition, Pipeline};
use crate::txn::prepared::stored::{EncodedReads, encode};
use crate::txn::prepared::table::Undecided;
use crate::txn::transactions::check::{Relied, check, look_ahead, written};
use crate::txn::transactions::level::{IsolationLevel, Settings};
use crate::txn::transactions::locking::Locking;
use crate::txn::transactions::own::{Own, OwnWrite};
use crate::txn::transactions::reads::{Reads, Walked};
use crate::txn::transactions::walk::{TransactionCursor, TransactionIter};

/// Reads of one moment and writes that are committed together, if nobody else has changed what they rely on.
///
/// Begun by [`begin`](crate::ColumnFamilyDatabase::begin), or by
/// [`transaction`](crate::ColumnFamilyDatabase::transaction) with settings; the [`IsolationLevel`] says what
/// its commit is checked for. It reads all families of the database, also those created after it began (which
/// were empty at its moment), and sees its own writes. Nobody else sees them before [`commit`](Self::commit);
/// dropping it gives them up.
///
/// It owns what it needs, may be sent to another thread, and keeps the database open. Like a snapshot it
/// keeps the memtables and pages of its moment. Beyond that, what is committed while it is open is kept in
/// memory until it ends, since a commit looks for changes there: up to
/// [`transaction_memory_bytes`](crate::DatabaseBuilder::transaction_memory_bytes) for all open transactions
/// together. Its own writes take about twice their bytes, and what it read takes the keys' bytes.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
/// use peristyle::ErrorKind;
///
/// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
/// # let seats = db.create_column_family("seats", FamilyOptions::default())?;
/// // Two customers want the last seat, and both find it free.
/// let (mut ann, mut bob) = (db.begin()?, db.begin()?);
/// assert!(ann.get(&seats, "14 C")?.is_none() && bob.get(&seats, "14 C")?.is_none());
/// ann.put(&seats, "14 C", "Ann")?;
/// bob.put(&seats, "14 C", "Bob")?;
///
/// ann.commit()?;
/// let refused = bob.commit().unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Conflict);
/// assert_eq!(refused.conflict().unwrap().start, b"14 C");
/// assert_eq!(seats.get("14 C")?.unwrap(), "Ann");
/// # Ok(()) }
/// ```
pub struct Transaction {
    pub(super) pipeline: Inherited<Arc<Pipeline>>,
    pub(super) settings: Settings,
    /// What is read; `None`: the present, each time.
    pub(super) moment: Option<Inherited<Moment>>,
    /// While it is there, what is committed since the beginning is kept, if the commit is checked.
    pub(super) place: Inherited<Place>,
    /// What was read, if the commit is checked for that.
    reads: Option<Mutex<Reads>>,
    pub(super) own: Own,
    savepoints: Vec<Point>,
    savepoints_made: u64,
    pub(super) locking: Locking,
    /// Keeps the database open.
    _keeper: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("id", &self.id())
            .field("level", &self.settings.level)
            .field("began_at", &self.moment.as_ref().map(|moment| moment.at))
            .field("writes", &self.own.batch().len())
            .finish_non_exhaustive()
    }
}

/// A point among the writes of a transaction, to roll back to. Made by [`Transaction::savepoint`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Savepoint {
    /// The database, and the transaction in it.
    of: (u64, u64),
    number: u64,
}

/// A savepoint's number, and how much was locked then.
struct Point {
    number: u64,
    locked: usize,
}

impl Transaction {
    pub(crate) fn begin(
        pipeline: Arc<Pipeline>,
        settings: Settings,
        keeper: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self> {
        pipeline.open()?;
        let (place, moment) = match (settings.level, settings.read_only) {
            (IsolationLevel::ReadCommitted, _) => (pipeline.remembered.open_unchecked(), None),
            (_, true) => (pipeline.remembered.open_unchecked(), Some(pipeline.moment()?)),
            (_, false) => {
                let (place, moment) = pipeline.remembered.open(|| pipeline.now());
                // The clock is the program's: it is not asked where others wait.
                (place, Some(Moment { now: pipeline.clock.now_if_used()?, ..moment }))
            }
        };
        let (place, moment) = (Inherited::new(place), moment.map(Inherited::new));
        let is_noted = settings.level == IsolationLevel::Serializable && !settings.read_only;
        let share = pipeline.transactions.share();
        let reads = is_noted.then(|| Mutex::new(Reads::new(&share)));
        let own = Own::new(pipeline.database, &share);
        let locking = Locking::new(&pipeline);
        Ok(Self {
            pipeline: Inherited::new(pipeline),
            settings,
            moment,
            place,
            reads,
            own,
            savepoints: Vec::new(),
            savepoints_made: 0,
            locking,
            _keeper: keeper,
        })
    }

    /// What it is kept from.
    pub fn level(&self) -> IsolationLevel {
        self.settings.level
    }

    /// Position of the last commit that it sees; `None` if it reads the present, each time.
    pub fn began_at(&self) -> Option<SequenceNumber> {
        self.moment.as_ref().map(|moment| moment.at)
    }

    /// Number of its writes so far.
    pub fn len(&self) -> usize {
        self.own.batch().len()
    }

    /// Whether it has written nothing.
    pub fn is_empty(&self) -> bool {
        self.own.batch().is_empty()
    }

    /// Bytes that its writes will take in the log, without the record's header.
    pub fn size_in_bytes(&self) -> usize {
        self.own.batch().size_in_bytes()
    }

    /// Sets `key` to `value`. A [pessimistic](crate::TransactionBuilder::pessimistic) transaction locks the
    /// key first.
    ///
    /// # Errors
    ///
    /// [`KeyTooLarge`](ErrorKind::KeyTooLarge), [`ValueTooLarge`](ErrorKind::ValueTooLarge),
    /// [`ReadOnly`](ErrorKind::ReadOnly) if it was begun for reading only, and
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a family of another database; where it locks,
    /// those of [`get_for_update`](Self::get_for_update) as well, [`Conflict`](ErrorKind::Conflict) at
    /// [`Snapshot`](IsolationLevel::Snapshot) only. The transaction is as before then.
    pub fn put(
        &mut self,
        family: &ColumnFamily,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.pipeline.process.check()?;
        // What is the caller's may panic, and is asked before anything is written.
        let (key, value) = (&*family.family().stored_key(key.as_ref())?, value.as_ref());
        check_key_len(key.len())?;
        check_value(value)?;
        self.lock_written(family, Keys::One(key))?;
        self.own.write(|batch| {
            batch.put_stored(family, key, value);
        })
    }

    /// Sets `key` to `value` for `time`, see [`ColumnFamily::put_with_ttl`]: that begins now, not at the
    /// commit. What a transaction reads, of its own as well, it judges by the time of its beginning; at
    /// [`ReadCommitted`](crate::IsolationLevel::ReadCommitted) by that of the read.
    ///
    /// # Errors
    ///
    /// [`NeverExpires`](ErrorKind::NeverExpires), [`ClockFailed`](ErrorKind::ClockFailed), and those of
    /// [`put`](Self::put).
    pub fn put_with_ttl(
        &mut self,
        family: &ColumnFamily,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        time: Duration,
    ) -> Result<()> {
        self.pipeline.process.check()?;
        let (key, value) = (&*family.family().stored_key(key.as_ref())?, value.as_ref());
        check_key_len(key.len())?;
        check_expiring_value(value)?;
        self.lock_written(family, Keys::One(key))?;
        self.own.write(|batch| {
            batch.put_stored_with_ttl(family, key, value, time);
        })
    }

    /// Merges `operand` into `key`, see [`ColumnFamily::merge`]. That is a write, and reads nothing: whoever
    /// changed the key since the transaction began stands in its way only as he would if it put a value.
    ///
    /// # Errors
    ///
    /// [`MergeOperatorMissing`](ErrorKind::MergeOperatorMissing), and those of [`put`](Self::put).
    pub fn merge(
        &mut self,
        family: &ColumnFamily,
        key: impl AsRef<[u8]>,
        operand: impl AsRef<[u8]>,
    ) -> Result<()> {
        self.pipeline.process.check()?;
        let (key, operand) = (&*family.family().stored_key(key.as_ref())?, operand.as_ref());
        check_key_len(key.len())?;
        check_operand(operand)?;
        self.lock_written(family, Keys::One(key))?;
        self.own.write(|batch| {
            batch.merge_stored(family, key, operand);
        })
    }

    /// Removes `key`. Errors are those of [`put`](Self::put).
    pub fn delete(&mut self, family: &ColumnFamily, key: impl AsRef<[u8]>) -> Result<()> {
        self.pipeline.process.check()?;
        let key = &*family.family().stored_key(key.as_ref())?;
        check_key_len(key.len())?;
        self.lock_written(family, Keys::One(key))?;
        self.own.write(|batch| {
            batch.delete_stored(family, key);
        })
    }

    /// Removes every key in `range`, those that others have put there by the time of the commit included.
    /// Errors are those of [`put`](Self::put).
    pub fn delete_range(&mut self, family: &ColumnFamily, range: impl KeyBounds) -> Result<()> {
        self.pipeline.process.check()?;
        let bounds = range.bounds();
        let stored = family.family().stored_range(&bounds)?;
        let (start, end) = (&stored.0, stored.1.as_deref());
        if !is_empty_range(start, end) {
            check_bounds(&bounds)?;
            self.lock_written(family, Keys::Range(start, end))?;
        }
        self.own.write(|batch| {
            batch.delete_between(family, &stored, Ok(()));
        })
    }

    /// The value of `key`, or `None`.
    pub fn get(&self, family: &ColumnFamily, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = &*family.family().stored_key(key.as_ref())?;
        let own = self.own_write(family, key)?;
        if !own.is_final() {
            self.note(family, key);
        }
        self.read_behind(own, family, key)
    }

    /// The value of `key`, or `None`; if another commit changes it, this one is not refused for that.
    pub fn get_untracked(&self, family: &ColumnFamily, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = &*family.family().stored_key(key.as_ref())?;
        let own = self.own_write(family, key)?;
        self.read_behind(own, family, key)
    }

    /// The values of several keys, in the order of the keys.
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        family: &ColumnFamily,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>> {
        keys.into_iter().map(|key| self.get(family, key)).collect()
    }

    /// Whether `key` has a value. Does not read the value.
    pub fn contains_key(&self, family: &ColumnFamily, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = &*family.family().stored_key(key.as_ref())?;
        match self.own_write(family, key)? {
            OwnWrite::Nothing => {}
            OwnWrite::Value(own) => return Ok(self.judge(own)?.is_some()),
            // What they come to does not expire.
            OwnWrite::Operands { .. } if family.family().lifetime() == Lifetime::Endless => return Ok(true),
            OwnWrite::Operands { are_on_own } => {
                if !are_on_own {
                    self.note(family, key);
                }
                let own = self.own.source(family.family());
                let is_past =
                    |view: &Arc<FamilyView>, at, now| view.is_folded_past(own.as_ref(), key, at, now);
                return Ok(!self.read(family, is_past)?);
            }
        }
        self.note(family, key);
        self.read(family, |view, at, now| view.contains(key, at, now))
    }

    /// The entries whose keys are in `range`, ascending; from the other end with `rev()`.
    pub fn range(&self, family: &ColumnFamily, range: impl KeyBounds) -> Result<TransactionIter> {
        self.among(family, family.family().stored_range(&range)?)
    }

    fn among(&self, family: &ColumnFamily, (start, end): StoredBounds) -> Result<TransactionIter> {
        self.check_database(family)?;
        let (view, at, now) = self.view_of(family)?;
        let own = self.own.source(family.family());
        let walk = || self.walk(family, own.clone());
        let walked = walk().zip(walk()).map(|(front, back)| [front, back]);
        let iter = Iter::behind(own, &Inherited::new(view), at, now, start.clone(), end.clone());
        Ok(TransactionIter::new(iter, start, end, walked))
    }

    /// The entries whose keys start with `prefix`, ascending.
    pub fn prefix(&self, family: &ColumnFamily, prefix: impl AsRef<[u8]>) -> Result<TransactionIter> {
        self.among(family, family.family().stored_prefix(prefix.as_ref())?)
    }

    /// All entries, ascending.
    pub fn iter(&self, family: &ColumnFamily) -> Result<TransactionIter> {
        self.range(family, ..)
    }

    /// A cursor that stands nowhere yet.
    pub fn cursor(&self, family: &ColumnFamily) -> Result<TransactionCursor> {
        self.cursor_in(family, ..)
    }

    /// A cursor that moves among the keys in `range` alone, and stands nowhere yet.
    pub fn cursor_in(&self, family: &ColumnFamily, range: impl KeyBounds) -> Result<TransactionCursor> {
        let (start, end) = family.family().stored_range(&range)?;
        let own = self.own.source(family.family());
        let cursor = self.cursor_between(family, own.as_ref(), (start.clone(), end.clone()))?;
        Ok(TransactionCursor::new(cursor, start, end, self.walk(family, own)))
    }

    /// A cursor among the keys in `range`; if another commit changes what it passes, this one is not refused
    /// for that.
    pub fn cursor_untracked(&self, family: &ColumnFamily, range: impl KeyBounds) -> Result<Cursor> {
        let bounds = family.family().stored_range(&range)?;
        self.cursor_between(family, self.own.source(family.family()).as_ref(), bounds)
    }

    /// A point to [roll back to](Self::rollback_to), as often as there is need. Points nest: to roll back to
    /// one, or to release it, ends those that were made after it.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let cart = db.create_column_family("cart", FamilyOptions::default())?;
    /// let mut transaction = db.begin()?;
    /// transaction.put(&cart, "book", "1")?;
    /// let point = transaction.savepoint();
    /// transaction.put(&cart, "piano", "1")?;
    /// transaction.rollback_to(&point)?;
    /// transaction.commit()?;
    /// assert!(cart.contains_key("book")? && !cart.contains_key("piano")?);
    /// # Ok(()) }
    /// ```
    pub fn savepoint(&mut self) -> Savepoint {
        self.savepoints_made += 1;
        self.savepoints.push(Point { number: self.savepoints_made, locked: self.locking.mark() });
        self.own.set_savepoint();
        Savepoint { of: (self.pipeline.database, self.id()), number: self.savepoints_made }
    }

    /// Gives up what was written since `point`, and what was locked since. What was read since counts as read
    /// nevertheless.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if the point was released, or ended by rolling back to
    /// an earlier one, or is one of another transaction.
    pub fn rollback_to(&mut self, point: &Savepoint) -> Result<()> {
        let index = self.index_of(point)?;
        for _ in index..self.savepoints.len() {
            self.own.roll_back();
        }
        self.savepoints.truncate(index + 1);
        self.own.set_savepoint();
        self.locking.release(self.savepoints[index].locked);
        Ok(())
    }

    /// Forgets `point`, and those made after it; what was written since stays. Errors are those of
    /// [`rollback_to`](Self::rollback_to).
    pub fn release(&mut self, point: &Savepoint) -> Result<()> {
        let index = self.index_of(point)?;
        for _ in index..self.savepoints.len() {
            self.own.release();
        }
        self.savepoints.truncate(index);
        Ok(())
    }

    /// Gives up all that was written, as dropping the transaction does.
    pub fn rollback(self) {}

    /// Commits what was written: it becomes visible, and survives a crash, as a whole. Gives the number of
    /// the commit; for a transaction that wrote nothing, which is never refused, that of the last visible
    /// one.
    ///
    /// # Errors
    ///
    /// [`Conflict`](ErrorKind::Conflict) if another commit has changed what this one relies on: begin again.
    /// [`TransactionTooOld`](ErrorKind::TransactionTooOld) if that cannot be told any more.
    /// [`LockTimeout`](ErrorKind::LockTimeout) and [`Deadlock`](ErrorKind::Deadlock) if it writes what others
    /// have locked, and has not locked it itself.
    /// [`FamilyDropped`](ErrorKind::FamilyDropped) if a family that it wrote to, or that is checked, is gone.
    /// Otherwise those of [`write`](crate::ColumnFamilyDatabase::write). Unless that says otherwise, nothing
    /// was written.
    pub fn commit(self) -> Result<SequenceNumber> {
        self.pipeline.process.check()?;
        let Self { pipeline, settings, moment, place, reads, own, mut locking, _keeper, .. } = self;
        let Settings { level, durability, pessimistic, .. } = settings;
        let write = own.as_write();
        if own.batch().is_empty() {
            pipeline.open()?;
            return Ok(SequenceNumber(pipeline.visible.watermark()));
        }
        let mut reads = reads.map(Mutex::into_inner);
        let relied = match (level, &mut reads) {
            (IsolationLevel::Serializable, Some(reads)) => reads.relied(),
            // What a pessimistic one writes was checked when it was locked.
            (IsolationLevel::Snapshot, _) if !pessimistic => written(own.batch()),
            _ => Vec::new(),
        };
        let claimant =
            Claimant { who: LockOwner::Transaction(locking.number()), limit: settings.lock_timeout };
        let claimant = Some(claimant);
        // Held until the commit is visible: until this returns.
        let holds_all = locking.complete(&pipeline, &settings, &write)?;
        let commit = |condition: &Condition<'_>| match holds_all {
            true => pipeline.commit_holding(&write, durability, condition),
            false => pipeline.commit_if(&write, durability, condition),
        };
        let (Some(moment), false) = (moment, relied.is_empty()) else {
            return match holds_all {
                false => pipeline.commit_for(claimant, &write, durability),
                true => Ok(commit(&Condition::NONE)?.expect("a commit on no condition is made")),
            };
        };
        let families: Vec<_> = relied.iter().map(|Relied { family, .. }| *family).collect();
        let ahead = look_ahead(&pipeline, moment.at, &relied)?;
        let refused = RefCell::new(None);
        let holds = || {
            let checked = check(&pipeline, &place, moment.at, &relied, &ahead);
            checked.map_err(|error| refused.replace(Some(error))).is_ok()
        };
        let condition = Condition { families: &families, holds: &holds, minds_held: true, claimant };
        match commit(&condition)? {
            Some(sequence) => Ok(sequence),
            None => Err(refused.take().expect("a commit that is refused has a reason")),
        }
    }

    /// Prepares it under `name`, in the family `kept_in`.
    pub(crate) fn prepare_in(self, kept_in: &Arc<Family>, name: &[u8]) -> Result<Arc<Undecided>> {
        let Self { pipeline, settings, moment, place, reads, own, mut locking, _keeper, .. } = self;
        // What it writes is locked until it is held, and what else it has locked is held as if it was read.
        let locked = locking.locked();
        let writes = own.as_write().wants(Mode::Exclusive);
        locking.acquire(&pipeline, writes.clone(), settings.lock_timeout)?;
        let mut reads = reads.map(Mutex::into_inner);
        let (read, written) = (reads.as_mut().map_or_else(Vec::new, Reads::relied), written(own.batch()));
        let used = read.iter().chain(&written).map(|relied| (relied.family.id(), relied.family));
        let mut used: BTreeMap<_, _> = used.map(|(id, family)| (id, Arc::clone(family))).collect();
        let is_written = |want: &&Want| writes.binary_search_by_key(&want.place(), Want::place).is_ok();
        let locked: Vec<_> = locked.iter().filter(|want| !is_written(want)).collect();
        used.extend(pipeline.families_of(locked.iter().map(|want| want.family)));
        let mut encoded = EncodedReads::default();
        let read_keys =
            read.iter().flat_map(|read| read.keys.iter().map(|reliance| (read.family.id(), reliance.keys)));
        for (family, keys) in read_keys.chain(locked.iter().map(|want| (want.family, want.span.keys()))) {
            match keys {
                Keys::One(key) => encoded.key(family, key),
                Keys::Range(start, end) => encoded.range(family, start, end),
            }
        }
        let relied = match settings.level {
            IsolationLevel::Serializable => read,
            // What a pessimistic one writes was checked when it was locked.
            IsolationLevel::Snapshot if !settings.pessimistic => written,
            _ => Vec::new(),
        };
        let value = encode(&encoded, own.batch().payload());
        let families = used.into_values().collect();
        let Some(moment) = moment else {
            return pipeline.prepare(kept_in, name, &value, families, &|| Ok(()));
        };
        let ahead = look_ahead(&pipeline, moment.at, &relied)?;
        let may_be_committed = || check(&pipeline, &place, moment.at, &relied, &ahead);
        pipeline.prepare(kept_in, name, &value, families, &may_be_committed)
    }

    pub(crate) fn keeper(&self) -> &Arc<dyn Any + Send + Sync> {
        &self._keeper
    }

    pub(crate) fn check_process(&self) -> Result<()> {
        self.pipeline.process.check()
    }

    fn index_of(&self, point: &Savepoint) -> Result<usize> {
        if point.of != (self.pipeline.database, self.id()) {
            let message = "the savepoint is one of another transaction";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        self.savepoints.iter().position(|known| known.number == point.number).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidArgument,
                "the savepoint was released, or ended by rolling back to an earlier one",
            )
        })
    }

    pub(super) fn check_database(&self, family: &ColumnFamily) -> Result<()> {
        self.pipeline.process.check()?;
        if family.database_number() != self.pipeline.database {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the transaction and the column family belong to different databases",
            ));
        }
        Ok(())
    }

    fn own_write(&self, family: &ColumnFamily, key: &[u8]) -> Result<OwnWrite> {
        self.check_database(family)?;
        Ok(self.own.find(family.id(), key))
    }

    /// The value of `key` behind what was written to it here.
    pub(super) fn read_behind(
        &self,
        own: OwnWrite,
        family: &ColumnFamily,
        key: &[u8],
    ) -> Result<Option<Value>> {
        match own {
            OwnWrite::Nothing => self.read(family, |view, at, now| view.get(key, at, now)),
            OwnWrite::Value(own) => self.judge(own),
            OwnWrite::Operands { .. } => {
                let own = self.own.source(family.family());
                self.read(family, |view, at, now| view.read_behind(own.as_ref(), key, at, now))
            }
        }
    }

    /// An own value, unless it has expired at the transaction's moment.
    fn judge(&self, own: Option<(Value, Expiry)>) -> Result<Option<Value>> {
        let Some((value, expiry)) = own else { return Ok(None) };
        let now = match (expiry, &self.moment) {
            (0, _) => Now::UNASKED,
            (_, Some(moment)) => moment.now,
            (_, None) => self.pipeline.clock.now()?,
        };
        Ok((!now.is_past(expiry)).then_some(value))
    }

    pub(super) fn note(&self, family: &ColumnFamily, key: &[u8]) {
        if let Some(reads) = &self.reads {
            reads.lock().note(family.family(), key);
        }
    }

    fn walk(&self, family: &ColumnFamily, own: Option<OwnWrites>) -> Option<Arc<Walked>> {
        self.reads.as_ref().map(|reads| reads.lock().walk(family.family(), own))
    }

    /// The family as the transaction reads it, own writes aside.
    fn view_of(&self, family: &ColumnFamily) -> Result<(Arc<FamilyView>, SequenceNumber, Now)> {
        self.read(family, |view, at, now| Ok((Arc::clone(view), at, now)))
    }

    pub(super) fn read<R>(
        &self,
        family: &ColumnFamily,
        read: impl FnOnce(&Arc<FamilyView>, SequenceNumber, Now) -> Result<R>,
    ) -> Result<R> {
        let family = family.family();
        let Some(moment) = &self.moment else {
            self.pipeline.open()?;
            let moment = self.pipeline.moment()?;
            let view = moment.view.family(family.slot(), family.id())?;
            return read(view, moment.at, family.judged(moment.now));
        };
        match moment.view.family(family.slot(), family.id()) {
            Ok(view) => read(view, moment.at, family.judged(moment.now)),
            Err(_) => {
                // It was created since, or dropped before.
                family.check_not_dropped()?;
                read(&FamilyView::empty(family), moment.at, family.judged(moment.now))
            }
        }
    }

    fn cursor_between(
        &self,
        family: &ColumnFamily,
        own: Option<&OwnWrites>,
        (start, end): StoredBounds,
    ) -> Result<Cursor> {
        self.check_database(family)?;
        let (view, at, now) = self.view_of(family)?;
        let cursor = view.cursor_behind(own, at, now, KeyRange::new(start, end));
        Ok(Cursor::new(family.family(), Inherited::new(cursor)))
    }
}
