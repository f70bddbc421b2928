//! What users walk a column family with.

use std::ops::{ControlFlow, RangeBounds};

use crate::codec::key;
use crate::column_family::cursor::FamilyCursor;
use crate::column_family::value::Value;
use crate::error::Result;
use crate::txn::batch::half_open;

/// A position in a column family, at one moment, that moves both ways and turns around anywhere.
///
/// A new cursor stands nowhere: `next` then goes to the first entry and `prev` to the last. Past the last entry `prev` comes back
/// to it, and `next` before the first. The cursor owns what it needs: it may be stored and sent to another thread. While it
/// lives it keeps the pages of its moment from being reused. Stepping copies the key, but not the value.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
/// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
/// # let cf = db.create_column_family("fruit", FamilyOptions::default())?;
/// cf.put("apple", "1")?;
/// cf.put("cherry", "2")?;
/// let mut cursor = cf.cursor()?;
/// assert!(cursor.seek("banana")?);
/// assert_eq!((cursor.key(), cursor.value()?), (&b"cherry"[..], &b"2"[..]));
/// assert!(cursor.prev()?);
/// assert_eq!(cursor.key(), b"apple");
/// # Ok(()) }
/// ```
pub struct Cursor {
    inner: FamilyCursor,
}

impl Cursor {
    pub(crate) fn new(inner: FamilyCursor) -> Self {
        Self { inner }
    }

    /// To the first entry at or above `key`; `false` if there is none.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.inner.seek(key.as_ref())
    }

    /// To the last entry at or below `key`; `false` if there is none.
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.inner.seek_for_prev(key.as_ref())
    }

    /// To the first entry; `false` if there is none.
    pub fn first(&mut self) -> Result<bool> {
        self.inner.first()
    }

    /// To the last entry; `false` if there is none.
    pub fn last(&mut self) -> Result<bool> {
        self.inner.last()
    }

    /// To the next entry; `false` past the last one.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "a cursor lends what it stands on, an iterator cannot")]
    pub fn next(&mut self) -> Result<bool> {
        self.inner.next()
    }

    /// To the entry before; `false` before the first one.
    #[inline]
    pub fn prev(&mut self) -> Result<bool> {
        self.inner.prev()
    }

    /// Shows the entry that the cursor stands on and those after it to `visit`, in ascending order, until it breaks or there are
    /// no more. Where most is merged it takes about two thirds of the time of steps with [`next`](Self::next). Values are read, but not
    /// copied: who needs none of those beyond a quarter page steps instead.
    ///
    /// The cursor then stands on the entry at which `visit` broke; `false` if it did at none, and the cursor is past the last. One
    /// that stands nowhere begins at the first entry, or goes on as `next` would. After a panic of `visit` it stands nowhere.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let cf = db.create_column_family("fruit", FamilyOptions::default())?;
    /// use std::ops::ControlFlow;
    ///
    /// for (fruit, weight) in [("apple", "150"), ("banana", "120"), ("cherry", "8"), ("date", "7")] {
    ///     cf.put(fruit, weight)?;
    /// }
    /// let mut cursor = cf.cursor()?;
    /// cursor.seek("b")?;
    /// let mut eaten = Vec::new();
    /// let stands = cursor.scan(|fruit, weight| {
    ///     eaten.push(fruit.to_vec());
    ///     if weight.len() < 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    /// })?;
    /// assert!(stands);
    /// assert_eq!(cursor.key(), b"cherry");
    /// assert_eq!(eaten, [b"banana", b"cherry"]);
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn scan(&mut self, mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<bool> {
        self.inner.scan(&mut visit)
    }

    /// As [`scan`](Self::scan), with the entries before, in descending order. A cursor that stands nowhere begins at the last entry, or goes
    /// on as [`prev`](Self::prev) would.
    #[inline]
    pub fn scan_back(&mut self, mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>) -> Result<bool> {
        self.inner.scan_back(&mut visit)
    }

    /// Whether the cursor stands on an entry.
    #[inline]
    pub fn is_valid(&self) -> bool {
        self.inner.valid()
    }

    /// The key of the entry; empty if the cursor stands on none.
    #[inline]
    pub fn key(&self) -> &[u8] {
        self.inner.key()
    }

    /// The value of the entry, without a copy; empty if the cursor stands on none. A value of more than a quarter page is read now.
    #[inline]
    pub fn value(&self) -> Result<&[u8]> {
        self.inner.value()
    }

    /// The value of the entry in a form that outlives the cursor's next step.
    pub fn owned_value(&self) -> Result<Value> {
        self.inner.owned_value()
    }
}

/// The entries of a range of keys, at one moment, from both ends. Made by `range`, `prefix` and `iter`.
///
/// Owns what it needs, as a [`Cursor`] does. Every item is a copy of the key and a [`Value`]; a [`Cursor`] copies less.
pub struct Iter {
    make: Box<dyn Fn() -> FamilyCursor + Send + Sync>,
    front: Option<FamilyCursor>,
    back: Option<FamilyCursor>,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    done: bool,
}

impl Iter {
    pub(crate) fn new<K: AsRef<[u8]>>(
        make: impl Fn() -> FamilyCursor + Send + Sync + 'static,
        range: &impl RangeBounds<K>,
    ) -> Self {
        let (start, end) = half_open(range);
        Self { make: Box::new(make), front: None, back: None, start, end, done: false }
    }

    fn step_forward(&mut self) -> Result<bool> {
        let front = match &mut self.front {
            Some(front) => {
                front.next()?;
                front
            }
            none => {
                let front = none.insert((self.make)());
                front.seek(&self.start)?;
                front
            }
        };
        let within = match (&self.back, &self.end) {
            (Some(back), _) => key::compare(front.key(), back.key()).is_lt(),
            (None, Some(end)) => key::compare(front.key(), end).is_lt(),
            (None, None) => true,
        };
        Ok(front.valid() && within)
    }

    fn step_backward(&mut self) -> Result<bool> {
        let back = match &mut self.back {
            Some(back) => {
                back.prev()?;
                back
            }
            none => {
                let back = none.insert((self.make)());
                match &self.end {
                    None => back.last()?,
                    Some(end) => back.seek_for_prev(end)? && (back.key() != &end[..] || back.prev()?),
                };
                back
            }
        };
        let within = match &self.front {
            Some(front) => key::compare(back.key(), front.key()).is_gt(),
            None => key::compare(back.key(), &self.start).is_ge(),
        };
        Ok(back.valid() && within)
    }

    fn item(&mut self, stepped: Result<bool>, forward: bool) -> Option<Result<(Vec<u8>, Value)>> {
        let cursor = if forward { &mut self.front } else { &mut self.back };
        let item = match (stepped, cursor) {
            (Ok(true), Some(cursor)) => {
                let key = cursor.key().to_vec();
                cursor.owned_value().map(|value| (key, value))
            }
            (Err(error), _) => Err(error),
            _ => {
                self.done = true;
                return None;
            }
        };
        // An iterator that failed ends: what comes after the gap is not the next entry.
        self.done = item.is_err();
        Some(item)
    }
}

impl Iterator for Iter {
    type Item = Result<(Vec<u8>, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let stepped = self.step_forward();
        self.item(stepped, true)
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let stepped = self.step_backward();
        self.item(stepped, false)
    }
}

impl std::iter::FusedIterator for Iter {}
