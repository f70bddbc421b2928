//! One moment of one family.

use std::fmt;

use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::codec::key_bounds::{KeyBounds, half_open};
use crate::codec::key_range::KeyRange;
use crate::column_family::reading::key::Key;
use crate::column_family::reading::value::Value;
use crate::column_family::view::FamilyView;
use crate::error::Result;
use crate::sync::Arc;
use crate::system::Inherited;
use crate::txn::iter::{Cursor, Iter};

/// One moment of one column family. Made by [`Snapshot::column_family`](crate::Snapshot::column_family) and
/// [`ColumnFamily::snapshot`](crate::ColumnFamily::snapshot).
#[derive(Clone)]
pub struct FamilySnapshot {
    pub(crate) view: Inherited<Arc<FamilyView>>,
    pub(crate) at: SequenceNumber,
}

impl fmt::Debug for FamilySnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FamilySnapshot")
            .field("family", &self.view.family.id())
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl FamilySnapshot {
    pub(super) fn new(view: Arc<FamilyView>, at: SequenceNumber) -> Self {
        Self { view: Inherited::new(view), at }
    }

    /// The value of `key`, or `None`. Waits for no lock.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.view.check()?;
        self.view.get(key.as_ref(), self.at)
    }

    /// The values of several keys, in the order of the keys.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Value>>> {
        keys.into_iter().map(|key| self.get(key)).collect()
    }

    /// Whether `key` has a value. Does not read the value.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.view.check()?;
        self.view.contains(key.as_ref(), self.at)
    }

    /// The entries whose keys are in `range`, ascending; from the other end with `rev()`.
    pub fn range(&self, range: impl KeyBounds) -> Iter {
        Iter::new(&self.view, self.at, &range)
    }

    /// The entries whose keys start with `prefix`, ascending.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        self.range(key::prefix_bounds(prefix.as_ref()))
    }

    /// All entries, ascending.
    pub fn iter(&self) -> Iter {
        self.range(..)
    }

    /// A cursor that stands nowhere yet.
    pub fn cursor(&self) -> Cursor {
        self.cursor_in(..)
    }

    /// A cursor that moves among the keys in `range` alone, and stands nowhere yet. Whatever lies beyond the
    /// range, deleted or not, costs it nothing.
    pub fn cursor_in(&self, range: impl KeyBounds) -> Cursor {
        let (start, end) = half_open(&range);
        Cursor::new(self.view.pass_on(self.view.cursor(self.at, KeyRange::new(start, end))))
    }

    /// Number of entries, exactly. Constant time when all is merged; otherwise a look-up for every key that
    /// waits in a memtable or a delta, and for every range deletion in a memtable that covers any of the
    /// tree's keys; nothing if it was counted before and the family was not written to since.
    pub fn len(&self) -> Result<u64> {
        self.view.check()?;
        self.view.len(self.at)
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> Result<bool> {
        self.view.check()?;
        Ok(!self.view.cursor(self.at, KeyRange::default()).first()?)
    }

    /// The entry with the lowest key.
    pub fn first(&self) -> Result<Option<(Key, Value)>> {
        self.iter().next().transpose()
    }

    /// The entry with the highest key.
    pub fn last(&self) -> Result<Option<(Key, Value)>> {
        self.iter().next_back().transpose()
    }
}
