//! One moment of one family.

use std::fmt;

use crate::codec::expiry::Now;
use crate::codec::ids::SequenceNumber;
use crate::codec::key_bounds::KeyBounds;
use crate::codec::key_range::KeyRange;
use crate::column_family::reading::approximate::Amount;
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
    pub(crate) now: Now,
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
    pub(super) fn new(view: Arc<FamilyView>, at: SequenceNumber, now: Now) -> Self {
        let now = view.family.judged(now);
        Self { view: Inherited::new(view), at, now }
    }

    /// The value of `key`, or `None`. Waits for no lock.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.view.check()?;
        self.view.get(&self.view.family.stored_key(key.as_ref())?, self.at, self.now)
    }

    /// The value of the key that is stored as `key`, or `None`.
    pub(super) fn get_stored(&self, key: &[u8]) -> Result<Option<Value>> {
        self.view.check()?;
        self.view.get(key, self.at, self.now)
    }

    /// The values of several keys, in the order of the keys.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Value>>> {
        keys.into_iter().map(|key| self.get(key)).collect()
    }

    /// Whether `key` has a value. Does not read the value.
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.view.check()?;
        self.view.contains(&self.view.family.stored_key(key.as_ref())?, self.at, self.now)
    }

    /// The entries whose keys are in `range`, ascending; from the other end with `rev()`. The first item is
    /// an error if a bound has no place in the family's [order](crate::KeyOrder).
    pub fn range(&self, range: impl KeyBounds) -> Iter {
        Iter::new(&self.view, self.at, self.now, self.view.family.stored_range(&range))
    }

    /// The entries whose keys start with `prefix`, ascending. The first item is an error if such keys do not
    /// stand together in the family's [order](crate::KeyOrder).
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        Iter::new(&self.view, self.at, self.now, self.view.family.stored_prefix(prefix.as_ref()))
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
    /// range, deleted or not, costs it nothing. If a bound has no place in the family's
    /// [order](crate::KeyOrder), each of its moves says so.
    pub fn cursor_in(&self, range: impl KeyBounds) -> Cursor {
        match self.view.family.stored_range(&range) {
            Ok((start, end)) => self.cursor_between(start, end),
            Err(fault) => self.cursor_between(Vec::new(), Some(Vec::new())).failing(fault),
        }
    }

    fn cursor_between(&self, start: Vec<u8>, end: Option<Vec<u8>>) -> Cursor {
        let cursor = self.view.cursor(self.at, self.now, KeyRange::new(start, end));
        Cursor::new(&self.view.family, self.view.pass_on(cursor))
    }

    /// Number of entries, exactly. In a family whose entries may expire it walks over all of them. Else it
    /// takes constant time when all is merged; otherwise a look-up for every key that waits in a memtable or
    /// a delta, and for every range deletion in a memtable that covers any of the tree's keys; nothing if it
    /// was counted before and the family was not written to since.
    pub fn len(&self) -> Result<u64> {
        self.view.check()?;
        self.view.len(self.at, self.now)
    }

    /// About how many entries there are in `range`, in the time of two descents in each of tree and deltas,
    /// four where the range is long, however large it is.
    ///
    /// What the tree holds is counted exactly. What is still in memtables and deltas counts as new where it
    /// is put, and as there before where it is deleted; of a memtable with many entries, how many lie in the
    /// range is estimated to a factor of two. So the answer is off by at most twice the number of entries in
    /// memtables and deltas ([`entries_in_memtables`](crate::FamilyProperties::entries_in_memtables),
    /// [`entries_in_deltas`](crate::FamilyProperties::entries_in_deltas)), and exact after a `compact`. Of
    /// ranges that memtables delete within the range the first seven are left out. Entries that have expired
    /// count until they are dropped from the tree.
    pub fn approximate_len(&self, range: impl KeyBounds) -> Result<u64> {
        Ok(self.amount(&range)?.entries.round() as u64)
    }

    /// About how many bytes of the disk the entries in `range` take, those in memtables what they take of
    /// memory. Costs what [`approximate_len`](Self::approximate_len) does.
    ///
    /// In a tree, what lies in the nodes beside the ends of the range, some MiB as a rule, is known to a part
    /// of a page, large values aside; what lies between is taken to be like two stretches of it, and large
    /// values like those of the leaves that were read. Where sizes of entries do not depend on their keys the
    /// answer is right to some percent.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let blocks = db.create_column_family("blocks", FamilyOptions::default())?;
    /// for height in 0..10_000u32 {
    ///     blocks.put(height.to_be_bytes(), [7; 100])?;
    /// }
    /// db.compact()?;
    /// let half = 2500u32.to_be_bytes()..7500u32.to_be_bytes();
    /// assert_eq!(blocks.approximate_len(half.clone())?, 5000);
    /// let bytes = blocks.approximate_size(half)?;
    /// assert!((500_000..600_000).contains(&bytes), "{bytes}");
    /// # Ok(()) }
    /// ```
    pub fn approximate_size(&self, range: impl KeyBounds) -> Result<u64> {
        Ok(self.amount(&range)?.bytes.round() as u64)
    }

    fn amount(&self, range: &impl KeyBounds) -> Result<Amount> {
        self.view.check()?;
        let (start, end) = self.view.family.stored_range(range)?;
        self.view.amount(KeyRange::new(start, end), self.at)
    }

    /// At most `parts - 1` keys, ascending and within `range`, which cut it into parts with about as many
    /// entries each, for callers that work in parallel: up to the first key, from each up to the next, and
    /// from the last on. The keys need not be there. More than 65,536 parts are taken for as many.
    ///
    /// Where all is in the tree the parts differ by an eighth of one at most; what deltas and memtables hold
    /// makes them differ by more. Fewer keys where there are not as many entries. Costs two descents in each
    /// of tree and deltas, and about four for each part, which end above the leaves where parts are large.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let blocks = db.create_column_family("blocks", FamilyOptions::default())?;
    /// use std::ops::Bound::{Excluded, Included, Unbounded};
    ///
    /// for height in 0..10_000u32 {
    ///     blocks.put(height.to_be_bytes(), [7; 100])?;
    /// }
    /// let moment = blocks.snapshot()?;
    /// let points = moment.split_points(.., 4)?;
    /// let starts = std::iter::once(Unbounded).chain(points.iter().map(Included));
    /// let ends = points.iter().map(Excluded).chain([Unbounded]);
    /// let counts = std::thread::scope(|scope| {
    ///     let parts = starts.zip(ends).map(|part| (part, moment.clone()));
    ///     let threads: Vec<_> =
    ///         parts.map(|(part, moment)| scope.spawn(move || moment.range(part).count())).collect();
    ///     threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    /// });
    /// assert_eq!(counts.iter().sum::<usize>(), 10_000);
    /// # Ok(()) }
    /// ```
    pub fn split_points(&self, range: impl KeyBounds, parts: usize) -> Result<Vec<Key>> {
        self.view.check()?;
        let (start, end) = self.view.family.stored_range(&range)?;
        let points = self.view.split(KeyRange::new(start.clone(), end.clone()), parts, self.at)?;
        if self.view.family.own_order().is_none() {
            return Ok(points.iter().map(|point| Key::copy(point)).collect());
        }
        // What divides leaves need not be a key as the order stores it: what stands behind it is.
        let mut cursor = self.cursor_between(start, end);
        let mut keys: Vec<Key> = Vec::with_capacity(points.len());
        for point in points {
            if cursor.seek_stored(&point)? && keys.last().is_none_or(|last| **last != *cursor.key()) {
                keys.push(Key::copy(cursor.key()));
            }
        }
        Ok(keys)
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> Result<bool> {
        self.view.check()?;
        Ok(!self.view.cursor(self.at, self.now, KeyRange::default()).first()?)
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
