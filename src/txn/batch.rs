//! The write batch: encoded once, in the form in which the log stores it.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use crate::codec::expiry::Expiry;
use crate::codec::ids::FamilyId;
use crate::codec::key;
use crate::codec::key_bounds::KeyBounds;
use crate::column_family::family::Family;
use crate::column_family::keys::StoredBounds;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;
use crate::txn::handle::ColumnFamily;
use crate::txn::operation::{
    Operation, Operations, check_bounds, check_expiring_value, check_key_len, check_operand, check_value,
    encode_delete, encode_delete_range, encode_merge_at, encode_put_until, is_empty_range,
};
use crate::txn::shown::{shown_keys, with_keys};

/// Writes to any number of column families that become visible, and survive a crash, together or not at all.
///
/// Later operations of a batch win over earlier ones on the same key, but that what is merged into a key adds
/// to what is there. An operation that cannot be (a key or
/// value that is too long, a family of another database) is reported by
/// [`ColumnFamilyDatabase::write`](crate::ColumnFamilyDatabase::write), and then nothing of the batch is
/// written.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
/// use peristyle::WriteBatch;
/// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
/// # let accounts = db.create_column_family("accounts", FamilyOptions::default())?;
/// # let journal = db.create_column_family("journal", FamilyOptions::default())?;
///
/// let mut batch = WriteBatch::new();
/// batch.put(&accounts, b"alice", b"90");
/// batch.put(&accounts, b"bob", b"110");
/// batch.put(&journal, b"0001", b"alice pays bob 10");
/// db.write(&batch)?;
/// # Ok(()) }
/// ```
#[derive(Default, Clone)]
pub struct WriteBatch {
    payload: Vec<u8>,
    families: Vec<Arc<Family>>,
    database: Option<u64>,
    operations: usize,
    has_range_deletions: bool,
    fault: Option<Error>,
    savepoints: Vec<Savepoint>,
    /// The keys of all operations as users see them, once somebody asked and they are stored otherwise.
    shown: OnceLock<Option<Vec<StoredBounds>>>,
}

/// What a batch was like.
#[derive(Clone)]
struct Savepoint {
    payload: usize,
    families: usize,
    database: Option<u64>,
    operations: usize,
    has_range_deletions: bool,
    fault: Option<Error>,
}

impl fmt::Debug for WriteBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBatch")
            .field("operations", &self.operations)
            .field("bytes", &self.payload.len())
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch that takes `bytes` of operations before it asks for more memory. Each takes its key and
    /// value, and some bytes more.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut batch = Self::default();
        // Of more than there is it asks as it grows.
        let _ = batch.payload.try_reserve(bytes);
        batch
    }

    /// Sets `key` to `value`.
    pub fn put(
        &mut self,
        family: &ColumnFamily,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> &mut Self {
        match family.family().stored_key(key.as_ref()) {
            Ok(key) => self.put_stored(family, &key, value.as_ref()),
            Err(error) => self.refuse(family, error),
        }
    }

    /// Sets the key that is stored as `key` to `value`.
    pub(crate) fn put_stored(&mut self, family: &ColumnFamily, key: &[u8], value: &[u8]) -> &mut Self {
        let checked = check_key_len(key.len()).and_then(|()| check_value(value));
        let expiry = checked.and_then(|()| family.usual_expiry(value));
        self.admit_put(family, key, value, expiry)
    }

    /// Sets `key` to `value` for `time`, see [`ColumnFamily::put_with_ttl`]: that begins when it is added to
    /// the batch.
    pub fn put_with_ttl(
        &mut self,
        family: &ColumnFamily,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        time: Duration,
    ) -> &mut Self {
        match family.family().stored_key(key.as_ref()) {
            Ok(key) => self.put_stored_with_ttl(family, &key, value.as_ref(), time),
            Err(error) => self.refuse(family, error),
        }
    }

    /// Sets the key that is stored as `key` to `value` for `time`.
    pub(crate) fn put_stored_with_ttl(
        &mut self,
        family: &ColumnFamily,
        key: &[u8],
        value: &[u8],
        time: Duration,
    ) -> &mut Self {
        let checked = check_key_len(key.len()).and_then(|()| check_expiring_value(value));
        let expiry = checked.and_then(|()| family.expiry_after(time));
        self.admit_put(family, key, value, expiry)
    }

    fn admit_put(
        &mut self,
        family: &ColumnFamily,
        key: &[u8],
        value: &[u8],
        expiry: Result<Expiry>,
    ) -> &mut Self {
        let until = expiry.as_ref().map_or(0, |expiry| *expiry);
        if self.admit(family, expiry.map(drop)) {
            encode_put_until(&mut self.payload, family.family().id(), key, value, until);
        }
        self
    }

    /// Merges `operand` into `key`, see [`ColumnFamily::merge`]. Operations before it in the batch are older.
    pub fn merge(
        &mut self,
        family: &ColumnFamily,
        key: impl AsRef<[u8]>,
        operand: impl AsRef<[u8]>,
    ) -> &mut Self {
        match family.family().stored_key(key.as_ref()) {
            Ok(key) => self.merge_stored(family, &key, operand.as_ref()),
            Err(error) => self.refuse(family, error),
        }
    }

    /// Merges `operand` into the key that is stored as `key`.
    pub(crate) fn merge_stored(&mut self, family: &ColumnFamily, key: &[u8], operand: &[u8]) -> &mut Self {
        let checked = check_key_len(key.len()).and_then(|()| check_operand(operand));
        let stamp = checked.and_then(|()| family.check_takes_operands()).and_then(|()| family.stamp());
        let stamped = stamp.as_ref().map_or(None, |stamp| *stamp);
        if self.admit(family, stamp.map(drop)) {
            encode_merge_at(&mut self.payload, family.family().id(), key, operand, stamped);
        }
        self
    }

    /// Removes `key`; nothing happens if it is not there.
    pub fn delete(&mut self, family: &ColumnFamily, key: impl AsRef<[u8]>) -> &mut Self {
        match family.family().stored_key(key.as_ref()) {
            Ok(key) => self.delete_stored(family, &key),
            Err(error) => self.refuse(family, error),
        }
    }

    /// Removes the key that is stored as `key`.
    pub(crate) fn delete_stored(&mut self, family: &ColumnFamily, key: &[u8]) -> &mut Self {
        if self.admit(family, check_key_len(key.len())) {
            encode_delete(&mut self.payload, family.family().id(), key);
        }
        self
    }

    /// Removes every key in `range`, at a cost that does not depend on how many there are.
    pub fn delete_range(&mut self, family: &ColumnFamily, range: impl KeyBounds) -> &mut Self {
        match family.family().stored_range(&range) {
            Ok(bounds) => self.delete_between(family, &bounds, check_bounds(&range)),
            Err(error) => self.refuse(family, error),
        }
    }

    /// Removes every key between `bounds`, which were `checked`.
    pub(crate) fn delete_between(
        &mut self,
        family: &ColumnFamily,
        (start, end): &StoredBounds,
        checked: Result<()>,
    ) -> &mut Self {
        if is_empty_range(start, end.as_deref()) {
            return self;
        }
        if self.admit(family, checked) {
            encode_delete_range(&mut self.payload, family.family().id(), start, end.as_deref());
            self.has_range_deletions = true;
        }
        self
    }

    /// Removes every key that starts with `prefix`, at a cost that does not depend on how many there are.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage, WriteBatch};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let sessions = db.create_column_family("sessions", FamilyOptions::default())?;
    /// # for key in ["alice/1", "alice/2", "bob/1"] { sessions.put(key, "open")?; }
    /// let mut batch = WriteBatch::new();
    /// batch.delete_prefix(&sessions, "alice/").put(&sessions, "alice/3", "open");
    /// db.write(&batch)?;
    /// assert_eq!(sessions.get("alice/1")?, None);
    /// assert_eq!(sessions.len()?, 2);
    /// # Ok(()) }
    /// ```
    pub fn delete_prefix(&mut self, family: &ColumnFamily, prefix: impl AsRef<[u8]>) -> &mut Self {
        let prefix = prefix.as_ref();
        match family.family().stored_prefix(prefix) {
            Ok(bounds) => self.delete_between(family, &bounds, check_bounds(&key::prefix_bounds(prefix))),
            Err(error) => self.refuse(family, error),
        }
    }

    /// Adds all operations of `other` behind those that are here. Its savepoints stay behind.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage, WriteBatch};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let state = db.create_column_family("state", FamilyOptions::default())?;
    /// let mut block = WriteBatch::with_capacity(1 << 10);
    /// for payment in ["alice", "bob"] {
    ///     let mut changes = WriteBatch::new();
    ///     changes.put(&state, payment, "paid");
    ///     block.append(&changes);
    /// }
    /// assert_eq!(block.len(), 2);
    /// # Ok(()) }
    /// ```
    pub fn append(&mut self, other: &WriteBatch) -> &mut Self {
        self.forget_shown();
        if let Some(database) = other.database {
            self.check_database(database);
        }
        if let Some(fault) = &other.fault {
            self.fault.get_or_insert_with(|| fault.clone());
        }
        if self.fault.is_none() {
            self.payload.extend_from_slice(&other.payload);
        }
        other.families.iter().for_each(|family| self.list(family));
        self.operations += other.operations;
        self.has_range_deletions |= other.has_range_deletions;
        self
    }

    /// The operations, in order, each with the number of its family. Those from the first on that cannot be
    /// are left out. In a family with an [order](crate::KeyOrder) of its own bounds of ranges are there to be
    /// shown: written again they may mean other keys, since a start that was none is empty, and a prefix has
    /// no end that is a key. [`append`](Self::append) passes operations on.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage, WriteBatch};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let state = db.create_column_family("state", FamilyOptions::default())?;
    /// use peristyle::Operation;
    ///
    /// let mut batch = WriteBatch::new();
    /// batch.put(&state, "alice", "90").delete_prefix(&state, "tmp/");
    /// let operations: Vec<_> = batch.iter().collect();
    /// assert_eq!(operations[0], (state.id(), Operation::Put { key: b"alice", value: b"90" }));
    /// assert_eq!(operations[1].1, Operation::DeleteRange { start: b"tmp/", end: Some(b"tmp0") });
    /// # Ok(()) }
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (FamilyId, Operation<'_>)> + '_ {
        let shown = self.shown.get_or_init(|| shown_keys(&self.families, &self.payload)).as_deref();
        Operations::new(&self.payload).enumerate().map(move |(index, operation)| {
            let (family, operation) =
                operation.unwrap_or_else(|error| panic!("a batch does not decode: {error}"));
            (family, shown.map_or(operation, |shown| with_keys(operation, &shown[index])))
        })
    }

    /// Notes what the batch holds, to come back to with
    /// [`rollback_to_savepoint`](Self::rollback_to_savepoint). Savepoints are stacked.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage, WriteBatch};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let state = db.create_column_family("state", FamilyOptions::default())?;
    /// let mut block = WriteBatch::new();
    /// block.put(&state, "height", "7");
    /// block.set_savepoint();
    /// block.put(&state, "alice", "-10");
    /// // She has nothing left: the block goes on without her payment.
    /// assert!(block.rollback_to_savepoint());
    /// assert_eq!(block.len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn set_savepoint(&mut self) {
        self.savepoints.push(Savepoint {
            payload: self.payload.len(),
            families: self.families.len(),
            database: self.database,
            operations: self.operations,
            has_range_deletions: self.has_range_deletions,
            fault: self.fault.clone(),
        });
    }

    /// Takes back every operation since the last savepoint, one that cannot be included, and that savepoint.
    /// `false`, and nothing happens, if there is none.
    pub fn rollback_to_savepoint(&mut self) -> bool {
        let Some(savepoint) = self.savepoints.pop() else { return false };
        self.forget_shown();
        self.payload.truncate(savepoint.payload);
        self.families.truncate(savepoint.families);
        self.database = savepoint.database;
        self.operations = savepoint.operations;
        self.has_range_deletions = savepoint.has_range_deletions;
        self.fault = savepoint.fault;
        true
    }

    /// Forgets the last savepoint, and keeps what came since. `false` if there is none.
    ///
    /// ```
    /// # use peristyle::WriteBatch;
    /// let mut batch = WriteBatch::new();
    /// batch.set_savepoint();
    /// assert!(batch.release_savepoint());
    /// assert!(!batch.rollback_to_savepoint(), "there is none to go back to");
    /// ```
    pub fn release_savepoint(&mut self) -> bool {
        self.savepoints.pop().is_some()
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.operations
    }

    /// Whether the batch holds no operation.
    pub fn is_empty(&self) -> bool {
        self.operations == 0
    }

    /// Bytes that the batch takes in the log, without the record's header.
    pub fn size_in_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Removes all operations and savepoints, and keeps the memory.
    pub fn clear(&mut self) {
        self.forget_shown();
        self.payload.clear();
        self.families.clear();
        self.database = None;
        self.operations = 0;
        self.has_range_deletions = false;
        self.fault = None;
        self.savepoints.clear();
    }

    /// Counts an operation on `family` that cannot be.
    fn refuse(&mut self, family: &ColumnFamily, error: Error) -> &mut Self {
        self.admit(family, Err(error));
        self
    }

    /// Counts an operation on `family`. Whether it is to be encoded.
    fn admit(&mut self, family: &ColumnFamily, checked: Result<()>) -> bool {
        self.forget_shown();
        self.check_database(family.database_number());
        if let Err(error) = checked {
            self.fault.get_or_insert(error);
        }
        self.list(family.family());
        self.operations += 1;
        self.fault.is_none()
    }

    /// The operations are about to change.
    #[inline]
    fn forget_shown(&mut self) {
        if self.shown.get().is_some() {
            self.shown = OnceLock::new();
        }
    }

    fn check_database(&mut self, database: u64) {
        if *self.database.get_or_insert(database) != database {
            let message = "a batch holds operations on column families of two databases";
            self.fault.get_or_insert_with(|| Error::new(ErrorKind::InvalidArgument, message));
        }
    }

    fn list(&mut self, family: &Arc<Family>) {
        let known = |known: &Arc<Family>| Arc::ptr_eq(known, family);
        if !self.families.last().is_some_and(known) && !self.families.iter().any(known) {
            self.families.push(Arc::clone(family));
        }
    }

    /// The first operation that cannot be, if any.
    pub(crate) fn check(&self, database: u64) -> Result<()> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        if self.database.is_some_and(|mine| mine != database) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the batch holds operations on column families of another database",
            ));
        }
        Ok(())
    }

    pub(crate) fn families(&self) -> &[Arc<Family>] {
        &self.families
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        let lists = self.families.capacity() * size_of::<Arc<Family>>()
            + self.savepoints.capacity() * size_of::<Savepoint>();
        self.payload.capacity() + lists
    }

    pub(crate) fn has_range_deletions(&self) -> bool {
        self.has_range_deletions
    }
}
