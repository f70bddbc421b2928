//! The write batch: encoded once, in the form in which the log stores it.

use std::ops::RangeBounds;

use crate::column_family::family::Family;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;
use crate::txn::handle::ColumnFamily;
use crate::txn::operation::{
    check_key_len, check_value, encode_delete, encode_delete_range, encode_put, half_open, is_empty_range,
};

/// Writes to any number of column families that become visible, and survive a crash, together or not at all.
///
/// Later operations of a batch win over earlier ones on the same key. An operation that cannot be (a key or value that is too long, a
/// family of another database) is reported by [`ColumnFamilyDatabase::write`](crate::ColumnFamilyDatabase::write), and then nothing of the batch is written.
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
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    pub fn put(
        &mut self,
        family: &ColumnFamily,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> &mut Self {
        let (key, value) = (key.as_ref(), value.as_ref());
        if self.admit(family, key.len()) && self.admit_value(value) {
            encode_put(&mut self.payload, family.family().id(), key, value);
        }
        self
    }

    /// Removes `key`; nothing happens if it is not there.
    pub fn delete(&mut self, family: &ColumnFamily, key: impl AsRef<[u8]>) -> &mut Self {
        let key = key.as_ref();
        if self.admit(family, key.len()) {
            encode_delete(&mut self.payload, family.family().id(), key);
        }
        self
    }

    /// Removes every key in `range`, at a cost that does not depend on how many there are.
    pub fn delete_range<K: AsRef<[u8]>>(
        &mut self,
        family: &ColumnFamily,
        range: impl RangeBounds<K>,
    ) -> &mut Self {
        let (start, end) = half_open(&range);
        if is_empty_range(&start, end.as_deref()) {
            return self;
        }
        let longest = start.len().max(end.as_ref().map_or(0, Vec::len));
        // A bound made of the longest key and a zero byte is one longer than a key.
        if self.admit(family, longest.saturating_sub(1)) {
            encode_delete_range(&mut self.payload, family.family().id(), &start, end.as_deref());
            self.has_range_deletions = true;
        }
        self
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

    /// Removes all operations and keeps the memory.
    pub fn clear(&mut self) {
        self.payload.clear();
        self.families.clear();
        self.database = None;
        self.operations = 0;
        self.has_range_deletions = false;
        self.fault = None;
    }

    fn admit(&mut self, family: &ColumnFamily, key_len: usize) -> bool {
        if *self.database.get_or_insert(family.database()) != family.database() {
            let message = "a batch holds operations on column families of two databases";
            self.refuse(ErrorKind::InvalidArgument, message.into());
        }
        if let Err(error) = check_key_len(key_len) {
            self.fault.get_or_insert(error);
        }
        let known = |known: &Arc<Family>| Arc::ptr_eq(known, family.family());
        if !self.families.last().is_some_and(known) && !self.families.iter().any(known) {
            self.families.push(Arc::clone(family.family()));
        }
        self.operations += 1;
        self.fault.is_none()
    }

    fn admit_value(&mut self, value: &[u8]) -> bool {
        if let Err(error) = check_value(value) {
            self.fault.get_or_insert(error);
        }
        self.fault.is_none()
    }

    fn refuse(&mut self, kind: ErrorKind, message: String) {
        self.fault.get_or_insert_with(|| Error::new(kind, message));
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

    pub(crate) fn has_range_deletions(&self) -> bool {
        self.has_range_deletions
    }
}
