//! The handle of a column family.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use crate::codec::expiry::{Expiry, Now};
use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::codec::key;
use crate::codec::key_bounds::KeyBounds;
use crate::codec::operands::Stamp;
use crate::column_family::family::Family;
use crate::column_family::keys::StoredBounds;
use crate::column_family::options::Lifetime;
use crate::column_family::reading::key::Key;
use crate::column_family::reading::read::Looked;
use crate::column_family::reading::value::Value;
use crate::column_family::view::FamilyView;
use crate::error::{Error, Result};
use crate::operator::named::NamedOperator;
use crate::options::Durability;
use crate::page::CacheStats;
use crate::sync::Arc;
use crate::sync::epoch::{self, Guard};
use crate::system::Inherited;
use crate::txn::family_snapshot::FamilySnapshot;
use crate::txn::iter::{Cursor, Iter};
use crate::txn::operation::{
    check_bounds, check_expiring_value, check_key_len, check_operand, check_value, encode_delete,
    encode_delete_range, encode_merge_at, encode_put_until, is_empty_range,
};
use crate::txn::pipeline::{Pipeline, Write};

thread_local! {
    /// Where single operations are encoded.
    static PAYLOAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A payload buffer that grew beyond this is not kept for the thread's next write.
const KEPT_PAYLOAD: usize = 64 << 10;

/// A column family of an open database: a named, ordered map of byte keys to byte values.
///
/// Cheap to clone, `Send + Sync + 'static`, and keeps the database open. Reads see every commit that was
/// acknowledged before they began; several reads of one moment are made through [`snapshot`](Self::snapshot).
#[derive(Clone)]
pub struct ColumnFamily {
    family: Inherited<Arc<Family>>,
    pub(super) pipeline: Inherited<Arc<Pipeline>>,
    pub(super) durability: Durability,
    /// Keeps the database open.
    keeper: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for ColumnFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColumnFamily").field("id", &self.family.id()).field("name", &self.name()).finish()
    }
}

impl ColumnFamily {
    pub(crate) fn new(
        family: Arc<Family>,
        pipeline: Arc<Pipeline>,
        durability: Durability,
        keeper: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self { family: Inherited::new(family), pipeline: Inherited::new(pipeline), durability, keeper }
    }

    /// What the database gave it to be kept open.
    pub(crate) fn keeper(&self) -> &Arc<dyn Any + Send + Sync> {
        &self.keeper
    }

    pub(crate) fn family(&self) -> &Arc<Family> {
        &self.family
    }

    /// Tells the handle's database from others.
    pub(crate) fn database_number(&self) -> u64 {
        self.pipeline.database
    }

    /// The family's present name.
    pub fn name(&self) -> String {
        // The name stands under a lock.
        if self.family.check().is_err() {
            return String::new();
        }
        self.family.name().to_string()
    }

    /// The family's number: never used for another family of this database.
    pub fn id(&self) -> FamilyId {
        self.family.id()
    }

    /// Sets `key` (at most 64 KiB) to `value` (at most 4 GiB - 1), with the database's default durability.
    /// Gives the number of the commit, as all that write do:
    /// [`on_synced`](crate::ColumnFamilyDatabase::on_synced) tells when it is durable.
    ///
    /// # Errors
    ///
    /// Besides those of I/O: [`KeyTooLarge`](crate::ErrorKind::KeyTooLarge),
    /// [`ValueTooLarge`](crate::ErrorKind::ValueTooLarge),
    /// [`KeyOrderFailed`](crate::ErrorKind::KeyOrderFailed) (the family keeps its keys in an
    /// [order](crate::KeyOrder) that has no place for this one),
    /// [`FamilyDropped`](crate::ErrorKind::FamilyDropped), [`ReadOnly`](crate::ErrorKind::ReadOnly),
    /// [`Closed`](crate::ErrorKind::Closed), [`FamilyDamaged`](crate::ErrorKind::FamilyDamaged) (nothing was
    /// written; other families take writes), [`OutOfSpace`](crate::ErrorKind::OutOfSpace) (nothing was
    /// written, and later writes may succeed) and [`WriteFailed`](crate::ErrorKind::WriteFailed) (nothing is
    /// written any more).
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<SequenceNumber> {
        self.put_with(key, value, self.durability)
    }

    /// Sets `key` to `value` with a durability of its own.
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        durability: Durability,
    ) -> Result<SequenceNumber> {
        let (key, value) = (&*self.family.stored_key(key.as_ref())?, value.as_ref());
        check_key_len(key.len())?;
        check_value(value)?;
        let expiry = self.usual_expiry(value)?;
        self.write(durability, false, |payload| {
            encode_put_until(payload, self.family.id(), key, value, expiry);
        })
    }

    /// Sets `key` to `value`, for `time`: from the first second on at which it has passed the entry is gone.
    /// It is never gone early; a time that is too long to be counted is for ever. Overwriting the key, in
    /// whichever way, gives it the lifetime of what is written then. With the database's default durability.
    ///
    /// # Errors
    ///
    /// [`NeverExpires`](crate::ErrorKind::NeverExpires) if the family's options say neither
    /// [`expire_each`](crate::FamilyOptions::expire_each) nor
    /// [`expire_after`](crate::FamilyOptions::expire_after); [`ClockFailed`](crate::ErrorKind::ClockFailed);
    /// besides those of [`put`](Self::put).
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// use std::time::Duration;
    ///
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// let codes = db.create_column_family("codes", FamilyOptions::default().expire_each())?;
    /// codes.put_with_ttl("ann", "123456", Duration::from_secs(300))?;
    /// codes.put("ben", "for ever")?;
    /// assert_eq!(codes.get("ann")?.unwrap(), "123456");
    /// # Ok(()) }
    /// ```
    pub fn put_with_ttl(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        time: Duration,
    ) -> Result<SequenceNumber> {
        let (key, value) = (&*self.family.stored_key(key.as_ref())?, value.as_ref());
        check_key_len(key.len())?;
        check_expiring_value(value)?;
        let expiry = self.expiry_after(time)?;
        self.write(self.durability, false, |payload| {
            encode_put_until(payload, self.family.id(), key, value, expiry);
        })
    }

    /// When `value`, written now, expires if nothing is said of that; 0 if it does not.
    #[inline]
    pub(super) fn usual_expiry(&self, value: &[u8]) -> Result<Expiry> {
        match self.family.lifetime() {
            Lifetime::Endless | Lifetime::OfEach => Ok(0),
            Lifetime::Seconds(seconds) => {
                check_expiring_value(value)?;
                self.pipeline.clock.expiry_after(Duration::from_secs(seconds))
            }
        }
    }

    /// When what is written now expires if it lives for `time`.
    pub(super) fn expiry_after(&self, time: Duration) -> Result<Expiry> {
        self.family.check()?;
        if self.family.lifetime() == Lifetime::Endless {
            return Err(Error::never_expires().of_family(self.id().0));
        }
        self.pipeline.clock.expiry_after(time)
    }

    /// The stamp of an operand that is written now, in a family whose entries may expire.
    #[inline]
    pub(super) fn stamp(&self) -> Result<Option<Stamp>> {
        let time = match self.family.lifetime() {
            Lifetime::Endless => return Ok(None),
            Lifetime::OfEach => None,
            Lifetime::Seconds(seconds) => Some(Duration::from_secs(seconds)),
        };
        self.pipeline.clock.stamp(time).map(Some)
    }

    /// When entries are judged that are read now, for a caller that holds neither guard nor lock.
    #[inline]
    fn judged_at(&self) -> Result<Now> {
        match self.family.lifetime() {
            Lifetime::Endless => Ok(Now::UNASKED),
            Lifetime::OfEach | Lifetime::Seconds(_) => self.pipeline.clock.now(),
        }
    }

    /// Merges `operand` (at most 64 MiB) into `key`: from then on the key has the value that the family's
    /// [merge operator](crate::FamilyOptions::merge_operator) makes of the one before, if it had one, and of
    /// all operands since, in the order in which they were merged. Reads nothing, and costs what a put costs.
    /// With the database's default durability.
    ///
    /// In a family with a [lifetime](crate::FamilyOptions::expire_after) the value lives for that time from
    /// the newest operand on; where each entry has [its own](crate::FamilyOptions::expire_each), as long as
    /// the value that operands are merged into. What had expired when an operand was written counts as
    /// absent.
    ///
    /// # Errors
    ///
    /// [`MergeOperatorMissing`](crate::ErrorKind::MergeOperatorMissing) if the family has no merge operator,
    /// or was opened without it; besides those of [`put`](Self::put). What the operator says of the operand
    /// is known when the key is read.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage, merge_operators};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// let options = FamilyOptions::default().merge_operator(merge_operators::add_i64());
    /// let accounts = db.create_column_family("accounts", options)?;
    /// accounts.put("ann", 100i64.to_le_bytes())?;
    /// accounts.merge("ann", (-30i64).to_le_bytes())?;
    /// assert_eq!(accounts.get("ann")?.unwrap(), 70i64.to_le_bytes());
    /// # Ok(()) }
    /// ```
    pub fn merge(&self, key: impl AsRef<[u8]>, operand: impl AsRef<[u8]>) -> Result<SequenceNumber> {
        self.merge_with(key, operand, self.durability)
    }

    /// Merges `operand` into `key` with a durability of its own.
    pub fn merge_with(
        &self,
        key: impl AsRef<[u8]>,
        operand: impl AsRef<[u8]>,
        durability: Durability,
    ) -> Result<SequenceNumber> {
        let (key, operand) = (&*self.family.stored_key(key.as_ref())?, operand.as_ref());
        check_key_len(key.len())?;
        check_operand(operand)?;
        self.check_takes_operands()?;
        let stamp = self.stamp()?;
        self.write(durability, false, |payload| {
            encode_merge_at(payload, self.family.id(), key, operand, stamp);
        })
    }

    /// Refuses operands for a family whose merge operator is not there.
    pub(super) fn check_takes_operands(&self) -> Result<()> {
        if self.family.operator().is_some() {
            return Ok(());
        }
        self.family.check()?;
        let options = self.family.options();
        let named = options.merge_operator.as_ref().map(NamedOperator::name);
        Err(Error::no_merge_operator(named).of_family(self.id().0))
    }

    /// Removes `key`; nothing happens if it is not there.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<SequenceNumber> {
        self.delete_with(key, self.durability)
    }

    /// Removes `key` with a durability of its own.
    pub fn delete_with(&self, key: impl AsRef<[u8]>, durability: Durability) -> Result<SequenceNumber> {
        let key = &*self.family.stored_key(key.as_ref())?;
        check_key_len(key.len())?;
        self.write(durability, false, |payload| encode_delete(payload, self.family.id(), key))
    }

    /// Removes every key in `range`, at a cost that does not depend on how many there are. A range in which
    /// no key can lie is no commit: then the number is that of the last visible one.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let cf = db.create_column_family("blocks", FamilyOptions::default())?;
    /// for height in 0..100u32 {
    ///     cf.put(height.to_be_bytes(), "block")?;
    /// }
    /// cf.delete_range(..50u32.to_be_bytes())?;
    /// assert_eq!(cf.len()?, 50);
    /// # Ok(()) }
    /// ```
    pub fn delete_range(&self, range: impl KeyBounds) -> Result<SequenceNumber> {
        self.delete_range_with(range, self.durability)
    }

    /// Removes every key in `range` with a durability of its own.
    pub fn delete_range_with(&self, range: impl KeyBounds, durability: Durability) -> Result<SequenceNumber> {
        self.delete_between(self.family.stored_range(&range)?, check_bounds(&range), durability)
    }

    fn delete_between(
        &self,
        (start, end): StoredBounds,
        checked: Result<()>,
        durability: Durability,
    ) -> Result<SequenceNumber> {
        if is_empty_range(&start, end.as_deref()) {
            return self.pipeline.nothing_to_write();
        }
        checked?;
        self.write(durability, true, |payload| {
            encode_delete_range(payload, self.family.id(), &start, end.as_deref());
        })
    }

    /// Removes every key that starts with `prefix`, at a cost that does not depend on how many there are.
    ///
    /// # Errors
    ///
    /// [`NoPrefixes`](crate::ErrorKind::NoPrefixes) if such keys do not stand together in the family's
    /// [order](crate::KeyOrder), besides those of [`put`](Self::put).
    pub fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<SequenceNumber> {
        self.delete_prefix_with(prefix, self.durability)
    }

    /// Removes every key that starts with `prefix` with a durability of its own.
    pub fn delete_prefix_with(
        &self,
        prefix: impl AsRef<[u8]>,
        durability: Durability,
    ) -> Result<SequenceNumber> {
        let prefix = prefix.as_ref();
        let checked = check_bounds(&key::prefix_bounds(prefix));
        self.delete_between(self.family.stored_prefix(prefix)?, checked, durability)
    }

    fn write(
        &self,
        durability: Durability,
        has_range_deletions: bool,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<SequenceNumber> {
        // Taken out while in use, so that nothing that happens below can meet it borrowed. A thread that ends
        // has none.
        let mut payload = PAYLOAD.try_with(RefCell::take).unwrap_or_default();
        payload.clear();
        encode(&mut payload);
        let families = std::slice::from_ref::<Arc<Family>>(&self.family);
        let write = Write { families, payload: &payload, operations: 1, has_range_deletions };
        let outcome = self.pipeline.commit(&write, durability);
        if payload.capacity() <= KEPT_PAYLOAD {
            let _ = PAYLOAD.try_with(|kept| kept.replace(payload));
        }
        outcome
    }

    /// The present moment of this family.
    pub fn snapshot(&self) -> Result<FamilySnapshot> {
        self.pipeline.open()?;
        let moment = self.pipeline.now();
        let view = moment.view.family(self.family.slot(), self.family.id())?;
        // Afterwards: what the view does not hold any more since it has expired has by then.
        Ok(FamilySnapshot::new(Arc::clone(view), moment.at, self.judged_at()?))
    }

    /// The value of `key`, or `None`. Waits for no lock, and writes to no memory that threads share.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        let key = &*self.family.stored_key(key.as_ref())?;
        self.pipeline.open()?;
        let judged_at = self.judged_at()?;
        let (view, at, looked) = {
            let guard = epoch::pin();
            let (view, at) = self.now(&guard)?;
            match view.find(key, at, judged_at, &guard)? {
                Looked::Break(value) => return Ok(value),
                looked => (Arc::clone(view), at, looked),
            }
        };
        view.finish_value(key, at, judged_at, looked)
    }

    /// This family's part of the present view, and the number up to which it is read.
    #[inline]
    fn now<'g>(&'g self, guard: &'g Guard) -> Result<(&'g Arc<FamilyView>, SequenceNumber)> {
        // The number first: a view loaded later holds everything up to it.
        let at = SequenceNumber(self.pipeline.visible.watermark());
        let view = self.pipeline.views.load(guard);
        Ok((view.family(self.family.slot(), self.family.id())?, at))
    }

    /// The values of several keys at one moment, in the order of the keys.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Value>>> {
        self.snapshot()?.multi_get(keys)
    }

    /// Whether `key` has a value. Does not read the value.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = &*self.family.stored_key(key.as_ref())?;
        self.pipeline.open()?;
        let judged_at = self.judged_at()?;
        let (view, at, looked) = {
            let guard = epoch::pin();
            let (view, at) = self.now(&guard)?;
            match view.find_presence(key, at, judged_at, &guard)? {
                Looked::Break(has_value) => return Ok(has_value),
                looked => (Arc::clone(view), at, looked),
            }
        };
        view.finish_presence(key, at, judged_at, looked)
    }

    /// The entries whose keys are in `range`, ascending; from the other end with `rev()`.
    pub fn range(&self, range: impl KeyBounds) -> Result<Iter> {
        Ok(self.snapshot()?.range(range))
    }

    /// The entries whose keys start with `prefix`, ascending. The first item is an error,
    /// [`NoPrefixes`](crate::ErrorKind::NoPrefixes), if such keys do not stand together in the family's
    /// [order](crate::KeyOrder).
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Iter> {
        Ok(self.snapshot()?.prefix(prefix))
    }

    /// All entries, ascending.
    pub fn iter(&self) -> Result<Iter> {
        Ok(self.snapshot()?.iter())
    }

    /// A cursor over the present moment, that stands nowhere yet.
    pub fn cursor(&self) -> Result<Cursor> {
        Ok(self.snapshot()?.cursor())
    }

    /// A cursor over the keys in `range` at the present moment, that stands nowhere yet; see
    /// [`FamilySnapshot::cursor_in`].
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let jobs = db.create_column_family("jobs", FamilyOptions::default())?;
    /// for job in ["mail/1", "mail/2", "print/1"] {
    ///     jobs.put(job, "")?;
    /// }
    /// let mut cursor = jobs.cursor_in("mail/".."mail0")?;
    /// assert!(cursor.last()?);
    /// assert_eq!(cursor.key(), b"mail/2");
    /// assert!(!cursor.next()?);
    /// # Ok(()) }
    /// ```
    pub fn cursor_in(&self, range: impl KeyBounds) -> Result<Cursor> {
        Ok(self.snapshot()?.cursor_in(range))
    }

    /// Number of entries, exactly; see [`FamilySnapshot::len`] for the cost.
    pub fn len(&self) -> Result<u64> {
        self.snapshot()?.len()
    }

    /// About how many entries there are in `range`; see [`FamilySnapshot::approximate_len`].
    pub fn approximate_len(&self, range: impl KeyBounds) -> Result<u64> {
        self.snapshot()?.approximate_len(range)
    }

    /// About how many bytes the entries in `range` take; see [`FamilySnapshot::approximate_size`].
    pub fn approximate_size(&self, range: impl KeyBounds) -> Result<u64> {
        self.snapshot()?.approximate_size(range)
    }

    /// Keys that cut `range` into parts with about as many entries each; see
    /// [`FamilySnapshot::split_points`].
    pub fn split_points(&self, range: impl KeyBounds, parts: usize) -> Result<Vec<Key>> {
        self.snapshot()?.split_points(range, parts)
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> Result<bool> {
        self.snapshot()?.is_empty()
    }

    /// The entry with the lowest key.
    pub fn first(&self) -> Result<Option<(Key, Value)>> {
        self.snapshot()?.first()
    }

    /// The entry with the highest key.
    pub fn last(&self) -> Result<Option<(Key, Value)>> {
        self.snapshot()?.last()
    }

    /// What the family's page cache holds and has done.
    pub fn cache_stats(&self) -> CacheStats {
        if self.family.check().is_err() {
            return CacheStats::default();
        }
        self.family.store().cache_stats()
    }
}
