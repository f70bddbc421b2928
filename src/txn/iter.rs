//! What users walk a column family with.

use std::collections::VecDeque;
use std::fmt;
use std::ops::ControlFlow;

use crate::codec::expiry::Now;
use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::codec::key_bounds::{KeyBounds, half_open};
use crate::codec::key_range::KeyRange;
use crate::column_family::reading::cursor::FamilyCursor;
use crate::column_family::reading::key::Key;
use crate::column_family::reading::value::Value;
use crate::column_family::view::{FamilyView, OwnWrites};
use crate::error::Result;
use crate::sync::Arc;
use crate::system::Inherited;

/// A position in a column family, at one moment, that moves both ways and turns around anywhere.
///
/// A new cursor stands nowhere: `next` then goes to the first entry and `prev` to the last. Past the last
/// entry `prev` comes back to it, and `next` before the first. The cursor owns what it needs: it may be
/// stored and sent to another thread. While it lives it keeps the pages of its moment from being reused.
/// Stepping copies the key, but not the value.
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
    inner: Inherited<FamilyCursor>,
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.is_valid().then(|| self.key().escape_ascii().to_string());
        f.debug_struct("Cursor").field("key", &key).finish_non_exhaustive()
    }
}

impl Cursor {
    pub(crate) fn new(inner: Inherited<FamilyCursor>) -> Self {
        Self { inner }
    }

    /// To the first entry at or above `key`; `false` if there is none.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.inner.check()?;
        self.inner.seek(key.as_ref())
    }

    /// To the last entry at or below `key`; `false` if there is none.
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.inner.check()?;
        self.inner.seek_for_prev(key.as_ref())
    }

    /// To the first entry; `false` if there is none.
    pub fn first(&mut self) -> Result<bool> {
        self.inner.check()?;
        self.inner.first()
    }

    /// To the last entry; `false` if there is none.
    pub fn last(&mut self) -> Result<bool> {
        self.inner.check()?;
        self.inner.last()
    }

    /// To the next entry; `false` past the last one.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "a cursor lends what it stands on, an iterator cannot")]
    pub fn next(&mut self) -> Result<bool> {
        self.inner.check()?;
        self.inner.next()
    }

    /// To the entry before; `false` before the first one.
    #[inline]
    pub fn prev(&mut self) -> Result<bool> {
        self.inner.check()?;
        self.inner.prev()
    }

    /// Shows the entry that the cursor stands on and those after it to `visit`, in ascending order, until it
    /// breaks or there are no more. Where most is merged it takes about two thirds of the time of steps with
    /// [`next`](Self::next). Values are read, but not copied: who needs none of the large ones steps instead.
    ///
    /// Where `visit` breaks the cursor stands on the entry that it was shown, and what it broke with comes
    /// back: a result, or an error. If it breaks at none, the cursor is past the last. One that stands
    /// nowhere begins at the first entry, or goes on as `next` would. After a panic of `visit` it stands
    /// nowhere.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let cf = db.create_column_family("fruit", FamilyOptions::default())?;
    /// use std::ops::ControlFlow::{Break, Continue};
    ///
    /// for (fruit, weight) in [("apple", "150"), ("banana", "120"), ("cherry", "8 g"), ("date", "7")] {
    ///     cf.put(fruit, weight)?;
    /// }
    /// let mut cursor = cf.cursor()?;
    /// cursor.seek("b")?;
    /// let mut eaten = 0;
    /// let scanned = cursor.scan(|_, weight| match str::from_utf8(weight).unwrap().parse::<u32>() {
    ///     Ok(weight) => {
    ///         eaten += weight;
    ///         Continue(())
    ///     }
    ///     Err(error) => Break(error),
    /// })?;
    /// assert!(matches!(scanned, Break(error) if error.to_string().contains("invalid digit")));
    /// assert_eq!((cursor.key(), eaten), (&b"cherry"[..], 120));
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn scan<B>(
        &mut self,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        self.inner.check()?;
        self.inner.scan(&mut visit)
    }

    /// As [`scan`](Self::scan), with the entries before, in descending order. A cursor that stands nowhere
    /// begins at the last entry, or goes on as [`prev`](Self::prev) would.
    #[inline]
    pub fn scan_back<B>(
        &mut self,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        self.inner.check()?;
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

    /// The value of the entry, without a copy; empty if the cursor stands on none. A value that stands in
    /// pages of its own is read now: one of more than three quarters of a page may.
    #[inline]
    pub fn value(&self) -> Result<&[u8]> {
        self.inner.check()?;
        self.inner.value()
    }

    /// The value of the entry in a form that outlives the cursor's next step.
    pub fn owned_value(&self) -> Result<Value> {
        self.inner.check()?;
        self.inner.owned_value()
    }
}

/// The entries of a range of keys, at one moment, from both ends. Made by `range`, `prefix` and `iter`.
///
/// Owns what it needs, as a [`Cursor`] does. Every item is a copy of the key and a [`Value`], both without an
/// allocation if they are short; a [`Cursor`] copies less.
pub struct Iter {
    inner: Inherited<Entries>,
}

/// Entries that the front copies ahead of need at most: those of one leaf, one after the other, are cheaper
/// than each by itself.
const MOST_AHEAD: usize = 16;

/// An iterator in the process that made it.
///
/// The front stands on the last of the entries `ahead`, or, while there are none, on the one that was given
/// out last; if the next one `is_apart`, it stands on that. There are none ahead once there is a back.
struct Entries {
    source: Source,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    front: Option<FamilyCursor>,
    back: Option<FamilyCursor>,
    ahead: Ahead,
    /// How many entries are copied next.
    more: usize,
    is_apart: bool,
    done: bool,
}

/// Copies of entries that come next.
#[derive(Default)]
struct Ahead(VecDeque<(Key, Value)>);

impl Ahead {
    /// Adds an entry behind the others, written where it stands.
    #[inline]
    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.0.push_back((Key::EMPTY, Value::EMPTY));
        if let Some(place) = self.0.back_mut() {
            place.0.fill(key);
            place.1.fill(value);
        }
    }
}

impl fmt::Debug for Iter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter")
            .field("family", &self.inner.source.view.family.id())
            .field("at", &self.inner.source.at)
            .finish_non_exhaustive()
    }
}

/// What an iterator walks: one moment of a family, and what somebody wrote to it for himself.
struct Source {
    view: Arc<FamilyView>,
    at: SequenceNumber,
    now: Now,
    own: Option<OwnWrites>,
}

impl Source {
    fn cursor(&self, start: &[u8], end: Option<&[u8]>) -> FamilyCursor {
        let range = KeyRange::new(start.to_vec(), end.map(<[u8]>::to_vec));
        self.view.cursor_behind(self.own.as_ref(), self.at, self.now, range)
    }
}

impl Iter {
    pub(crate) fn new(
        view: &Inherited<Arc<FamilyView>>,
        at: SequenceNumber,
        now: Now,
        range: &impl KeyBounds,
    ) -> Self {
        let (start, end) = half_open(range);
        Self::behind(None, view, at, now, start, end)
    }

    /// Those from `start` up to and without `end`, with `own` writes in front of the family's.
    pub(crate) fn behind(
        own: Option<OwnWrites>,
        view: &Inherited<Arc<FamilyView>>,
        at: SequenceNumber,
        now: Now,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
    ) -> Self {
        let source = Source { view: Arc::clone(view), at, now, own };
        let entries = Entries {
            source,
            start,
            end,
            front: None,
            back: None,
            ahead: Ahead::default(),
            more: 0,
            is_apart: false,
            done: false,
        };
        Self { inner: view.pass_on(entries) }
    }
}

impl Entries {
    /// Whether the front stands on an entry that the back has not come to.
    #[inline]
    fn step_forward(&mut self) -> Result<bool> {
        if std::mem::take(&mut self.is_apart) {
            return Ok(true);
        }
        let Self { source, start, end, front, back, .. } = self;
        // Where the back stands the front ends, wherever the range does.
        let end = back.as_ref().map(FamilyCursor::key).or(end.as_deref());
        let front = front.get_or_insert_with(|| source.cursor(start, end));
        let stands = front.next()?;
        Ok(stands && back.as_ref().is_none_or(|back| key::compare(front.key(), back.key()).is_lt()))
    }

    /// Copies what comes after the entry that the front stands on and is at hand.
    #[inline]
    fn look_ahead(&mut self) {
        let Self { front: Some(front), back: None, ahead, more, is_apart, .. } = self else { return };
        // Who takes few entries pays for few.
        let most = std::mem::replace(more, (2 * *more).clamp(1, MOST_AHEAD));
        if most == 0 {
            return;
        }
        let looked = front.visit_at_hand(&mut |key, value| {
            if !Value::is_small(value.len(), 0) {
                // It is to be held where it stands.
                *is_apart = true;
                return ControlFlow::Break(());
            }
            ahead.push(key, value);
            if ahead.0.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        // The next step says so again.
        drop(looked);
    }

    /// The front stands on the entry that was given out last.
    fn forget_ahead(&mut self) -> Result<()> {
        let Some(front) = &mut self.front else { return Ok(()) };
        if let Some((key, _)) = self.ahead.0.front() {
            front.seek(key)?;
            front.prev()?;
        } else if self.is_apart {
            front.prev()?;
        }
        self.ahead.0.clear();
        self.is_apart = false;
        Ok(())
    }

    #[inline]
    fn step_backward(&mut self) -> Result<bool> {
        self.forget_ahead()?;
        let Self { source, start, end, front, back, .. } = self;
        let start = front.as_ref().map_or(&start[..], FamilyCursor::key);
        let back = back.get_or_insert_with(|| source.cursor(start, end.as_deref()));
        let stands = back.prev()?;
        Ok(stands && front.as_ref().is_none_or(|front| key::compare(back.key(), front.key()).is_gt()))
    }

    #[inline]
    fn item(&mut self, stepped: Result<bool>, forward: bool) -> Option<Result<(Key, Value)>> {
        let cursor = if forward { &mut self.front } else { &mut self.back };
        // An iterator that failed ends, too: what comes after the gap is not the next entry.
        let error = match (stepped, cursor) {
            (Ok(true), Some(cursor)) => match cursor.owned_value() {
                Ok(value) => return Some(Ok((Key::copy(cursor.key()), value))),
                Err(error) => Some(Err(error)),
            },
            (Err(error), _) => Some(Err(error)),
            _ => None,
        };
        self.done = true;
        error
    }
}

impl Iterator for Iter {
    type Item = Result<(Key, Value)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.inner.done {
            return None;
        }
        let checked = self.inner.check();
        if checked.is_ok()
            && let Some(entry) = self.inner.ahead.0.pop_front()
        {
            return Some(Ok(entry));
        }
        let stepped = checked.and_then(|()| self.inner.step_forward());
        let item = self.inner.item(stepped, true);
        if matches!(item, Some(Ok(_))) {
            self.inner.look_ahead();
        }
        item
    }
}

impl DoubleEndedIterator for Iter {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.inner.done {
            return None;
        }
        let stepped = self.inner.check().and_then(|()| self.inner.step_backward());
        self.inner.item(stepped, false)
    }
}

impl std::iter::FusedIterator for Iter {}
