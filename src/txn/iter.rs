//! What users walk a column family with.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::ops::ControlFlow;

use crate::codec::expiry::Now;
use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::codec::key_range::KeyRange;
use crate::column_family::family::Family;
use crate::column_family::keys::StoredBounds;
use crate::column_family::reading::cursor::FamilyCursor;
use crate::column_family::reading::key::Key;
use crate::column_family::reading::value::Value;
use crate::column_family::view::{FamilyView, OwnWrites};
use crate::error::{Error, Result};
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
    /// Of a family with an order of keys of its own.
    own: Option<Box<OwnOrder>>,
}

/// What a cursor needs where stored keys are not what users see.
struct OwnOrder {
    family: Arc<Family>,
    /// The key that the cursor stands on.
    key: Vec<u8>,
    /// A bound of the cursor has no place in the order.
    fault: Option<Error>,
}

impl OwnOrder {
    fn check(&self) -> Result<()> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    /// The cursor stands on what is stored as `stored`.
    fn show(&mut self, stored: &[u8]) -> Result<()> {
        let Some(order) = self.family.own_order() else { return Ok(()) };
        order.restore(stored, &mut self.key).map_err(|error| error.of_family(self.family.id().0))
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.is_valid().then(|| self.key().escape_ascii().to_string());
        f.debug_struct("Cursor").field("key", &key).finish_non_exhaustive()
    }
}

/// Which way a cursor scans.
#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

impl Cursor {
    pub(crate) fn new(family: &Arc<Family>, inner: Inherited<FamilyCursor>) -> Self {
        let own = || Box::new(OwnOrder { family: Arc::clone(family), key: Vec::new(), fault: None });
        let own = family.own_order().map(|_| own());
        Self { inner, own }
    }

    /// This cursor, which goes nowhere because of a `fault` of its family's order.
    pub(super) fn failing(mut self, fault: Error) -> Self {
        if let Some(own) = &mut self.own {
            own.fault = Some(fault);
        }
        self
    }

    #[inline]
    fn check(&self) -> Result<()> {
        self.inner.check()?;
        self.own.as_ref().map_or(Ok(()), |own| own.check())
    }

    /// It `moved`; whether it stands on an entry, whose key can be shown.
    #[inline]
    fn moved(&mut self, moved: Result<bool>) -> Result<bool> {
        match &mut self.own {
            None => moved,
            Some(own) => {
                let stands = moved?;
                if stands {
                    let shown = own.show(self.inner.key());
                    self.inner.settled(shown)?;
                }
                Ok(stands)
            }
        }
    }

    /// The key that is stored for `key`.
    pub(super) fn stored<'k>(&self, key: &'k [u8]) -> Result<Cow<'k, [u8]>> {
        match &self.own {
            None => Ok(Cow::Borrowed(key)),
            Some(own) => own.family.stored_key(key),
        }
    }

    /// The stored key that it stands on.
    pub(super) fn stored_key(&self) -> &[u8] {
        self.inner.key()
    }

    /// To the first entry at or above the key that is stored as `key`.
    pub(super) fn seek_stored(&mut self, key: &[u8]) -> Result<bool> {
        self.check()?;
        let moved = self.inner.seek(key);
        self.moved(moved)
    }

    /// To the last entry at or below the key that is stored as `key`.
    pub(super) fn seek_stored_for_prev(&mut self, key: &[u8]) -> Result<bool> {
        self.check()?;
        let moved = self.inner.seek_for_prev(key);
        self.moved(moved)
    }

    /// To the first entry at or above `key`; `false` if there is none.
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = self.stored(key.as_ref())?;
        self.seek_stored(&key)
    }

    /// To the last entry at or below `key`; `false` if there is none.
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = self.stored(key.as_ref())?;
        self.seek_stored_for_prev(&key)
    }

    /// To the first entry; `false` if there is none.
    pub fn first(&mut self) -> Result<bool> {
        self.check()?;
        let moved = self.inner.first();
        self.moved(moved)
    }

    /// To the last entry; `false` if there is none.
    pub fn last(&mut self) -> Result<bool> {
        self.check()?;
        let moved = self.inner.last();
        self.moved(moved)
    }

    /// To the next entry; `false` past the last one.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "a cursor lends what it stands on, an iterator cannot")]
    pub fn next(&mut self) -> Result<bool> {
        self.check()?;
        let moved = self.inner.next();
        self.moved(moved)
    }

    /// To the entry before; `false` before the first one.
    #[inline]
    pub fn prev(&mut self) -> Result<bool> {
        self.check()?;
        let moved = self.inner.prev();
        self.moved(moved)
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
        self.check()?;
        match self.own.take() {
            None => self.inner.scan(&mut visit),
            Some(own) => self.scan_own(own, visit, Way::Up),
        }
    }

    /// As [`scan`](Self::scan), with the entries before, in descending order. A cursor that stands nowhere
    /// begins at the last entry, or goes on as [`prev`](Self::prev) would.
    #[inline]
    pub fn scan_back<B>(
        &mut self,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        self.check()?;
        match self.own.take() {
            None => self.inner.scan_back(&mut visit),
            Some(own) => self.scan_own(own, visit, Way::Down),
        }
    }

    /// Scans a family with an `own` order.
    fn scan_own<B>(
        &mut self,
        own: Box<OwnOrder>,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
        way: Way,
    ) -> Result<ControlFlow<B>> {
        let Self { inner, own: place } = self;
        let own = place.insert(own);
        let mut shown = |stored: &[u8], value: &[u8]| match own.show(stored) {
            Ok(()) => visit(&own.key, value).map_break(Ok),
            Err(error) => ControlFlow::Break(Err(error)),
        };
        let scanned = match way {
            Way::Up => inner.scan(&mut shown)?,
            Way::Down => inner.scan_back(&mut shown)?,
        };
        match scanned {
            ControlFlow::Continue(()) => Ok(ControlFlow::Continue(())),
            ControlFlow::Break(broken) => inner.settled(broken).map(ControlFlow::Break),
        }
    }

    /// Whether the cursor stands on an entry.
    #[inline]
    pub fn is_valid(&self) -> bool {
        self.inner.valid()
    }

    /// The key of the entry; empty if the cursor stands on none.
    #[inline]
    pub fn key(&self) -> &[u8] {
        match &self.own {
            Some(own) if self.inner.valid() => &own.key,
            _ => self.inner.key(),
        }
    }

    /// The value of the entry, without a copy; empty if the cursor stands on none. A value that stands in
    /// pages of its own is read now: one of more than three quarters of a page may.
    #[inline]
    pub fn value(&self) -> Result<&[u8]> {
        self.check()?;
        self.inner.value()
    }

    /// The value of the entry in a form that outlives the cursor's next step.
    pub fn owned_value(&self) -> Result<Value> {
        self.check()?;
        self.inner.owned_value()
    }
}

/// The entries of a range of keys, at one moment, from both ends. Made by `range`, `prefix` and `iter`.
///
/// Owns what it needs, as a [`Cursor`] does. Every item is a copy of the key and a [`Value`], both without an
/// allocation if they are short; a [`Cursor`] copies less.
pub struct Iter {
    inner: Inherited<Entries>,
    /// Whether keys are stored otherwise than users see them.
    is_own: bool,
    /// What the next item says, if there is no entry to walk over.
    fault: Option<Error>,
}

/// Entries that are copied ahead of need at most: those of one leaf, one after the other, are cheaper than
/// each by itself.
const MOST_AHEAD: usize = 16;

/// An iterator in the process that made it.
struct Entries {
    source: Source,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    front: Side,
    back: Side,
    done: bool,
}

/// One side of what is still to be given out. As long as the other side has no cursor, this one copies
/// entries ahead.
///
/// The cursor stands on the last of the entries `ahead`, or, while there are none, on the one that was given
/// out last; if the next one `is_apart`, it stands on that.
#[derive(Default)]
struct Side {
    cursor: Option<FamilyCursor>,
    ahead: Ahead,
    /// How many entries are copied next.
    more: usize,
    is_apart: bool,
}

/// Copies of entries that come next.
#[derive(Default)]
struct Ahead(VecDeque<(Key, Value)>);

impl Ahead {
    /// Adds an entry behind the others, written where it stands: what is moved right after it was put
    /// together waits until its parts have come to the cache.
    #[inline]
    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.0.push_back((Key::EMPTY, Value::EMPTY));
        if let Some(place) = self.0.back_mut() {
            place.0.fill(key);
            place.1.fill(value);
        }
    }
}

impl Side {
    /// The key of the entry that was given out last. Nothing may be ahead.
    #[inline]
    fn key(&self) -> Option<&[u8]> {
        self.cursor.as_ref().map(FamilyCursor::key)
    }

    /// Copies what comes after the entry that the cursor stands on, on the way, and is at hand.
    #[inline]
    fn look_ahead(&mut self, forward: bool) {
        let Self { cursor: Some(cursor), ahead, more, is_apart } = self else { return };
        // Who takes few entries pays for few.
        let most = std::mem::replace(more, (2 * *more).clamp(1, MOST_AHEAD));
        if most == 0 {
            return;
        }
        let looked = cursor.visit_at_hand(forward, &mut |key, value| {
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

    /// The cursor stands on the entry that was given out last.
    fn forget_ahead(&mut self, forward: bool) -> Result<()> {
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        match self.ahead.0.front() {
            Some((key, _)) if forward => cursor.seek(key).and_then(|_| cursor.prev())?,
            Some((key, _)) => cursor.seek_for_prev(key).and_then(|_| cursor.next())?,
            None if !self.is_apart => return Ok(()),
            None if forward => cursor.prev()?,
            None => cursor.next()?,
        };
        self.ahead.0.clear();
        self.is_apart = false;
        Ok(())
    }

    /// What the cursor stands on, if the step to it found one.
    #[inline]
    fn item(&self, stepped: Result<bool>) -> Option<Result<(Key, Value)>> {
        match (stepped, &self.cursor) {
            (Ok(true), Some(cursor)) => {
                Some(cursor.owned_value().map(|value| (Key::copy(cursor.key()), value)))
            }
            (Err(error), _) => Some(Err(error)),
            _ => None,
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
    /// Those in `range`; or an error, if that is none.
    pub(crate) fn new(
        view: &Inherited<Arc<FamilyView>>,
        at: SequenceNumber,
        now: Now,
        range: Result<StoredBounds>,
    ) -> Self {
        match range {
            Ok((start, end)) => Self::behind(None, view, at, now, start, end),
            Err(fault) => {
                let mut iter = Self::behind(None, view, at, now, Vec::new(), None);
                iter.inner.done = true;
                iter.fault = Some(fault);
                iter
            }
        }
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
        let (front, back) = (Side::default(), Side::default());
        let entries = Entries { source, start, end, front, back, done: false };
        Self { inner: view.pass_on(entries), is_own: view.family.own_order().is_some(), fault: None }
    }

    /// The next entry, with the key as it is stored.
    #[inline]
    pub(super) fn next_stored(&mut self) -> Option<Result<(Key, Value)>> {
        if self.inner.done {
            return self.fault.take().map(Err);
        }
        if let Err(error) = self.inner.check() {
            return self.inner.refuse(error);
        }
        match self.inner.front.ahead.0.pop_front() {
            Some(entry) => Some(Ok(entry)),
            None => self.inner.next_by_step(),
        }
    }

    /// The next entry from the other end, with the key as it is stored.
    #[inline]
    pub(super) fn next_stored_back(&mut self) -> Option<Result<(Key, Value)>> {
        if self.inner.done {
            return self.fault.take().map(Err);
        }
        if let Err(error) = self.inner.check() {
            return self.inner.refuse(error);
        }
        match self.inner.back.ahead.0.pop_front() {
            Some(entry) => Some(Ok(entry)),
            None => self.inner.back_by_step(),
        }
    }

    /// `item` as users see it.
    #[inline]
    pub(super) fn show(&mut self, item: Option<Result<(Key, Value)>>) -> Option<Result<(Key, Value)>> {
        if self.is_own { item.map(|item| item.and_then(|entry| self.show_own(entry))) } else { item }
    }

    fn show_own(&mut self, (stored, value): (Key, Value)) -> Result<(Key, Value)> {
        let family = &self.inner.source.view.family;
        let mut key = Vec::new();
        if let Some(order) = family.own_order()
            && let Err(error) = order.restore(&stored, &mut key)
        {
            let error = error.of_family(family.id().0);
            self.inner.done = true;
            return Err(error);
        }
        Ok((Key::copy(&key), value))
    }
}

impl Entries {
    /// Whether the front stands on an entry that the back has not come to.
    #[inline]
    fn step_forward(&mut self) -> Result<bool> {
        if std::mem::take(&mut self.front.is_apart) {
            return Ok(true);
        }
        self.back.forget_ahead(false)?;
        let Self { source, start, end, front, back, .. } = self;
        // Where the back stands the front ends, wherever the range does.
        let end = back.key().or(end.as_deref());
        let cursor = front.cursor.get_or_insert_with(|| source.cursor(start, end));
        let stands = cursor.next()?;
        Ok(stands && back.key().is_none_or(|back| key::compare(cursor.key(), back).is_lt()))
    }

    #[inline]
    fn step_backward(&mut self) -> Result<bool> {
        if std::mem::take(&mut self.back.is_apart) {
            return Ok(true);
        }
        self.front.forget_ahead(true)?;
        let Self { source, start, end, front, back, .. } = self;
        let start = front.key().unwrap_or(start);
        let cursor = back.cursor.get_or_insert_with(|| source.cursor(start, end.as_deref()));
        let stands = cursor.prev()?;
        Ok(stands && front.key().is_none_or(|front| key::compare(cursor.key(), front).is_gt()))
    }

    /// The next entry of the front that is not ahead.
    fn next_by_step(&mut self) -> Option<Result<(Key, Value)>> {
        let stepped = self.step_forward();
        let item = self.front.item(stepped);
        // An iterator that failed ends, too: what comes after the gap is not the next entry.
        self.done = !matches!(item, Some(Ok(_)));
        if !self.done && self.back.cursor.is_none() {
            self.front.look_ahead(true);
        }
        item
    }

    /// The same of the back.
    fn back_by_step(&mut self) -> Option<Result<(Key, Value)>> {
        let stepped = self.step_backward();
        let item = self.back.item(stepped);
        self.done = !matches!(item, Some(Ok(_)));
        if !self.done && self.front.cursor.is_none() {
            self.back.look_ahead(false);
        }
        item
    }

    /// A child that was forked walks no further.
    #[cold]
    fn refuse(&mut self, error: Error) -> Option<Result<(Key, Value)>> {
        self.done = true;
        Some(Err(error))
    }
}

impl Iterator for Iter {
    type Item = Result<(Key, Value)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let item = self.next_stored();
        self.show(item)
    }
}

impl DoubleEndedIterator for Iter {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let item = self.next_stored_back();
        self.show(item)
    }
}

impl std::iter::FusedIterator for Iter {}
