//! The write batch: encoded once, in the form in which the log stores it.
//!
//! ```text
//! u8      kind of the operation, see `codec/entry.rs`
//! varint  family
//! varint  length of the key, then the key
//! put:          varint length of the value, then the value
//! range delete: varint length of the end, then the end; an empty end means that there is none
//! ```

use std::ops::RangeBounds;

use crate::codec::entry::EntryKind;
use crate::codec::ids::FamilyId;
use crate::codec::{key, varint};
use crate::column_family::family::Family;
use crate::column_family::merge::ABOVE_EVERY_KEY;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;
use crate::txn::handle::ColumnFamily;

/// The longest value, in bytes.
pub(crate) const MAX_VALUE_LEN: u64 = u32::MAX as u64;

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

pub(crate) fn check_key_len(len: usize) -> Result<()> {
    if len > key::MAX_KEY_LEN {
        return Err(Error::new(
            ErrorKind::KeyTooLarge,
            format!("a key of {len} bytes is too long; {} is the most", key::MAX_KEY_LEN),
        ));
    }
    Ok(())
}

pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    if value.len() as u64 > MAX_VALUE_LEN {
        return Err(Error::new(
            ErrorKind::ValueTooLarge,
            format!("a value of {} bytes is too long; {MAX_VALUE_LEN} is the most", value.len()),
        ));
    }
    Ok(())
}

/// `range` as a start that belongs to it and an end that does not; `None` for no end.
pub(crate) fn half_open<K: AsRef<[u8]>>(range: &impl RangeBounds<K>) -> (Vec<u8>, Option<Vec<u8>>) {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let after = |key: &K| [key.as_ref(), &[0]].concat();
    let start = match range.start_bound() {
        Included(key) => key.as_ref().to_vec(),
        Excluded(key) => after(key),
        Unbounded => Vec::new(),
    };
    let end = match range.end_bound() {
        Included(key) => Some(after(key)),
        Excluded(key) => Some(key.as_ref().to_vec()),
        Unbounded => None,
    };
    (start, end)
}

/// Whether no key can lie from `start` to `end`.
pub(crate) fn is_empty_range(start: &[u8], end: Option<&[u8]>) -> bool {
    key::compare(start, end.unwrap_or(&ABOVE_EVERY_KEY)).is_ge()
}

fn encode_key(out: &mut Vec<u8>, kind: EntryKind, family: FamilyId, key: &[u8]) {
    out.push(kind as u8);
    varint::put(out, u64::from(family.0));
    varint::put(out, key.len() as u64);
    out.extend_from_slice(key);
}

pub(crate) fn encode_put(out: &mut Vec<u8>, family: FamilyId, key: &[u8], value: &[u8]) {
    out.reserve(key.len() + value.len() + 16);
    encode_key(out, EntryKind::Put, family, key);
    varint::put(out, value.len() as u64);
    out.extend_from_slice(value);
}

pub(crate) fn encode_delete(out: &mut Vec<u8>, family: FamilyId, key: &[u8]) {
    encode_key(out, EntryKind::Delete, family, key);
}

pub(crate) fn encode_delete_range(out: &mut Vec<u8>, family: FamilyId, start: &[u8], end: Option<&[u8]>) {
    encode_key(out, EntryKind::RangeDelete, family, start);
    let end = end.unwrap_or(&[]);
    varint::put(out, end.len() as u64);
    out.extend_from_slice(end);
}

/// One operation of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation<'a> {
    Put {
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        key: &'a [u8],
    },
    /// `end` is `None` if the range has no end.
    DeleteRange {
        start: &'a [u8],
        end: Option<&'a [u8]>,
    },
}

impl Operation<'_> {
    /// Bytes of keys and value.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put { key, value } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
            Self::DeleteRange { start, end } => start.len() + end.map_or(0, <[u8]>::len),
        }
    }
}

/// The operations of a payload, in order. Ends with an error where the payload makes no sense.
pub(crate) struct Operations<'a> {
    rest: &'a [u8],
}

impl<'a> Operations<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    #[inline]
    fn bytes(&mut self, limit: u64) -> Option<&'a [u8]> {
        let len = varint::take(&mut self.rest)?;
        if len > limit {
            return None;
        }
        let (bytes, rest) = self.rest.split_at_checked(usize::try_from(len).ok()?)?;
        self.rest = rest;
        Some(bytes)
    }

    #[inline]
    fn take(&mut self) -> Option<(FamilyId, Operation<'a>)> {
        const BOUND: u64 = key::MAX_KEY_LEN as u64 + 1;
        let (&kind, rest) = self.rest.split_first()?;
        self.rest = rest;
        let family = FamilyId(varint::take(&mut self.rest)?.try_into().ok()?);
        let kind = EntryKind::from_u8(kind)?;
        let key_limit = if kind == EntryKind::RangeDelete { BOUND } else { BOUND - 1 };
        let key = self.bytes(key_limit)?;
        let operation = match kind {
            EntryKind::Put => Operation::Put { key, value: self.bytes(MAX_VALUE_LEN)? },
            EntryKind::Delete => Operation::Delete { key },
            EntryKind::RangeDelete => {
                let end = self.bytes(BOUND)?;
                let end = (!end.is_empty()).then_some(end);
                if is_empty_range(key, end) {
                    return None;
                }
                Operation::DeleteRange { start: key, end }
            }
        };
        Some((family, operation))
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Result<(FamilyId, Operation<'a>)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let operation = self.take();
        if operation.is_none() {
            self.rest = &[];
        }
        Some(operation.ok_or_else(|| Error::corruption("a commit in the log makes no sense")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn operations_come_back_as_they_were_encoded() {
        let mut payload = Vec::new();
        encode_put(&mut payload, FamilyId(1), b"k", b"v");
        encode_delete(&mut payload, FamilyId(300), b"");
        encode_delete_range(&mut payload, FamilyId(2), b"a", Some(b"b"));
        encode_delete_range(&mut payload, FamilyId(2), b"", None);
        let operations: Result<Vec<_>> = Operations::new(&payload).collect();
        assert_eq!(
            operations.unwrap(),
            [
                (FamilyId(1), Operation::Put { key: b"k", value: b"v" }),
                (FamilyId(300), Operation::Delete { key: b"" }),
                (FamilyId(2), Operation::DeleteRange { start: b"a", end: Some(b"b") }),
                (FamilyId(2), Operation::DeleteRange { start: b"", end: None }),
            ]
        );
    }

    #[test]
    fn a_cut_payload_ends_with_an_error() {
        let mut payload = Vec::new();
        encode_put(&mut payload, FamilyId(1), b"key", b"value");
        for len in 1..payload.len() {
            assert!(Operations::new(&payload[..len]).any(|operation| operation.is_err()), "cut at {len}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_ends(bytes: Vec<u8>) {
            prop_assert!(Operations::new(&bytes).count() <= bytes.len());
        }
    }
}
