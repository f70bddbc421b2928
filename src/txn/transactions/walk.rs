//! Cursors and iterators of transactions, which note how far they walk.

use std::fmt;
use std::ops::ControlFlow;

use crate::codec::key;
use crate::column_family::reading::key::Key;
use crate::column_family::reading::value::Value;
use crate::error::Result;
use crate::sync::Arc;
use crate::txn::iter::{Cursor, Iter};
use crate::txn::transactions::reads::Walked;

/// Where a cursor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Nowhere,
    BeforeFirst,
    On,
    BehindLast,
    /// Nowhere, since a move failed: the cursor says so again until it is placed anew.
    Failed,
}

/// A position in a column family as a transaction sees it: its own writes in front of the moment that it
/// reads. Moves both ways and turns around anywhere, as a [`Cursor`] does, and owns what it needs.
///
/// What the transaction writes after the cursor was made does not show in it. Where the commit is checked for
/// what was read, all keys that the cursor has passed, and the gaps between them, count as read; what it is
/// led to after the commit is not checked.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
/// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
/// # let jobs = db.create_column_family("jobs", FamilyOptions::default())?;
/// jobs.put("1", "mail")?;
/// let mut transaction = db.begin()?;
/// transaction.put(&jobs, "2", "print")?;
/// let mut cursor = transaction.cursor(&jobs)?;
/// assert!(cursor.last()?);
/// assert_eq!((cursor.key(), cursor.value()?), (&b"2"[..], &b"print"[..]));
/// assert!(cursor.prev()?);
/// assert_eq!(cursor.key(), b"1");
/// # Ok(()) }
/// ```
pub struct TransactionCursor {
    cursor: Cursor,
    /// Where it walks.
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    stand: Stand,
    walked: Option<Arc<Walked>>,
}

impl fmt::Debug for TransactionCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cursor.fmt(f)
    }
}

impl TransactionCursor {
    pub(super) fn new(
        cursor: Cursor,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
        walked: Option<Arc<Walked>>,
    ) -> Self {
        Self { cursor, start, end, stand: Stand::Nowhere, walked }
    }

    /// The cursor was placed upward from `low`, and now stands where `moved` says.
    fn placed_up(&mut self, low: &[u8], moved: Result<bool>) -> Result<bool> {
        let stands = self.moved(moved, Stand::BehindLast)?;
        if let Some(walked) = &self.walked {
            let end = if stands { Some(behind(self.cursor.stored_key())) } else { self.end.clone() };
            walked.place(low, end.as_deref());
        }
        Ok(stands)
    }

    /// The cursor was placed downward from what lies below `end`.
    fn placed_down(&mut self, end: Option<&[u8]>, moved: Result<bool>) -> Result<bool> {
        let stands = self.moved(moved, Stand::BeforeFirst)?;
        if let Some(walked) = &self.walked {
            walked.place(if stands { self.cursor.stored_key() } else { &self.start }, end);
        }
        Ok(stands)
    }

    fn moved(&mut self, moved: Result<bool>, otherwise: Stand) -> Result<bool> {
        self.stand = match &moved {
            Ok(true) => Stand::On,
            Ok(false) => otherwise,
            Err(_) => Stand::Failed,
        };
        moved
    }

    /// To the first entry at or above `key`; `false` if there is none.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = &*self.cursor.stored(key.as_ref())?;
        let moved = self.cursor.seek_stored(key);
        let low = if key::compare(key, &self.start).is_ge() { key.to_vec() } else { self.start.clone() };
        self.placed_up(&low, moved)
    }

    /// To the last entry at or below `key`; `false` if there is none.
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = self.cursor.stored(key.as_ref())?;
        let end = behind(&key);
        let moved = self.cursor.seek_stored_for_prev(&key);
        let is_within = self.end.as_deref().is_none_or(|own| key::compare(&end, own).is_le());
        let end = if is_within { Some(end) } else { self.end.clone() };
        self.placed_down(end.as_deref(), moved)
    }

    /// To the first entry; `false` if there is none.
    pub fn first(&mut self) -> Result<bool> {
        let moved = self.cursor.first();
        let start = self.start.clone();
        self.placed_up(&start, moved)
    }

    /// To the last entry; `false` if there is none.
    pub fn last(&mut self) -> Result<bool> {
        let moved = self.cursor.last();
        let end = self.end.clone();
        self.placed_down(end.as_deref(), moved)
    }

    /// To the next entry; `false` past the last one.
    #[expect(clippy::should_implement_trait, reason = "a cursor lends what it stands on, an iterator cannot")]
    pub fn next(&mut self) -> Result<bool> {
        match self.stand {
            Stand::Nowhere | Stand::BeforeFirst => self.first(),
            Stand::BehindLast | Stand::Failed => self.cursor.next(),
            Stand::On => {
                let moved = self.cursor.next();
                let stands = self.moved(moved, Stand::BehindLast)?;
                match &self.walked {
                    Some(walked) if stands => walked.up_to(self.cursor.stored_key()),
                    Some(walked) => walked.up_to_end(self.end.as_deref()),
                    None => {}
                }
                Ok(stands)
            }
        }
    }

    /// To the entry before; `false` before the first one.
    pub fn prev(&mut self) -> Result<bool> {
        match self.stand {
            Stand::Nowhere | Stand::BehindLast => self.last(),
            Stand::BeforeFirst | Stand::Failed => self.cursor.prev(),
            Stand::On => {
                let moved = self.cursor.prev();
                let stands = self.moved(moved, Stand::BeforeFirst)?;
                if let Some(walked) = &self.walked {
                    walked.down_to(if stands { self.cursor.stored_key() } else { &self.start });
                }
                Ok(stands)
            }
        }
    }

    /// Shows the entry that the cursor stands on, or from nowhere the first, and those after it to `visit`,
    /// in ascending order, until it breaks or there are no more; see [`Cursor::scan`].
    pub fn scan<B>(
        &mut self,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        let mut stands = self.is_valid() || self.next()?;
        while stands {
            if let ControlFlow::Break(value) = visit(self.key(), self.value()?) {
                return Ok(ControlFlow::Break(value));
            }
            stands = self.next()?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// As [`scan`](Self::scan), with the last entry and those before, in descending order.
    pub fn scan_back<B>(
        &mut self,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        let mut stands = self.is_valid() || self.prev()?;
        while stands {
            if let ControlFlow::Break(value) = visit(self.key(), self.value()?) {
                return Ok(ControlFlow::Break(value));
            }
            stands = self.prev()?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether the cursor stands on an entry.
    pub fn is_valid(&self) -> bool {
        self.cursor.is_valid()
    }

    /// The key of the entry; empty if the cursor stands on none.
    pub fn key(&self) -> &[u8] {
        self.cursor.key()
    }

    /// The value of the entry, without a copy; empty if the cursor stands on none. A value of more than a
    /// quarter page is read now.
    pub fn value(&self) -> Result<&[u8]> {
        self.cursor.value()
    }

    /// The value of the entry in a form that outlives the cursor's next step.
    pub fn owned_value(&self) -> Result<Value> {
        self.cursor.owned_value()
    }
}

/// The first key behind `key`.
fn behind(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The entries of a range of keys as a transaction sees them, from both ends. Made by
/// [`Transaction::range`](crate::Transaction::range) and its like.
///
/// Owns what it needs. What the transaction writes after it was made does not show in it. Where the commit is
/// checked for what was read, what it has given, and the gaps between, count as read.
pub struct TransactionIter {
    iter: Iter,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    /// What was walked from the front and from the back.
    walked: Option<[Side; 2]>,
    failed: bool,
}

impl fmt::Debug for TransactionIter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter.fmt(f)
    }
}

/// One end of an iterator.
struct Side {
    walked: Arc<Walked>,
    began: bool,
}

const FRONT: usize = 0;
const BACK: usize = 1;

impl TransactionIter {
    pub(super) fn new(
        iter: Iter,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
        walked: Option<[Arc<Walked>; 2]>,
    ) -> Self {
        let walked = walked.map(|sides| sides.map(|walked| Side { walked, began: false }));
        Self { iter, start, end, walked, failed: false }
    }

    fn note(&mut self, side: usize, item: Option<&Result<(Key, Value)>>) {
        let Some(sides) = &mut self.walked else { return };
        let Side { walked, began } = &mut sides[side];
        match item {
            // The two ends have met, or it failed before.
            None => {
                if !self.failed {
                    walked.place(&self.start, self.end.as_deref());
                }
                self.walked = None;
            }
            Some(Err(_)) => self.failed = true,
            Some(Ok((key, _))) if std::mem::replace(began, true) => {
                if side == FRONT {
                    walked.up_to(key)
                } else {
                    walked.down_to(key)
                }
            }
            Some(Ok((key, _))) if side == FRONT => walked.place(&self.start, Some(&behind(key))),
            Some(Ok((key, _))) => walked.place(key, self.end.as_deref()),
        }
    }
}

impl Iterator for TransactionIter {
    type Item = Result<(Key, Value)>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.iter.next_stored();
        self.note(FRONT, item.as_ref());
        self.iter.show(item)
    }
}

impl DoubleEndedIterator for TransactionIter {
    fn next_back(&mut self) -> Option<Self::Item> {
        let item = self.iter.next_stored_back();
        self.note(BACK, item.as_ref());
        self.iter.show(item)
    }
}

impl std::iter::FusedIterator for TransactionIter {}
