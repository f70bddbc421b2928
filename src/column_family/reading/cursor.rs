//! The cursor over a whole family: memtables, deltas and tree as one sorted map.
//!
//! Invariants, while the cursor stands on an entry with key *k* and goes forward (backward is the mirror
//! image):
//! 1. Every source stands on its first key at or above *k*, or is at its end.
//! 2. The entry is that of the newest source whose key equals *k*.
//! 3. It is neither a deletion nor covered by a range deletion of a newer source, nor has it expired.
//! 4. If it is the tree's, every other source stands on a key above *k*, or is at its end; `nearest` is the
//!    one with the lowest.
//! 5. *k* lies in the range of the cursor. `fence` is the head of the end of the range, or that of the key of
//!    `nearest`, or of the next key that is hidden from the tree (`clear`), whichever comes first.
//!
//! So while the tree's next keys stay below `fence`, which they do for long where little was written lately,
//! only the tree's cursor moves. What is deleted is stepped over within the range alone.

use std::cell::OnceCell;
use std::cmp::Ordering;

use crate::btree::TreeCursor;
use crate::codec::expiry::Now;
use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::codec::key_range::KeyRange;
use crate::column_family::delta::Delta;
use crate::column_family::family::Counters;
use crate::column_family::reading::hidden::{Hidden, Skipped};
use crate::column_family::reading::recent::{Recent, Source};
use crate::column_family::reading::value::Value;
use crate::column_family::view::{FamilyView, OwnWrites};
use crate::error::{Error, Result};
use crate::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Not positioned: before the first entry when going forward, after the last when going backward.
    Nowhere,
    /// Nowhere, since a move failed: an entry that was passed over must not look like none.
    Failed,
    /// Before the first entry.
    Start,
    /// After the last entry.
    End,
    Recent(usize),
    Tree,
}

/// Walks a range of a family's keys at one moment, both ways; turns around anywhere. Owns what it needs.
pub(crate) struct FamilyCursor {
    pub(super) range: Arc<KeyRange>,
    /// Newest first; memtables that hold anything, then deltas.
    pub(super) recent: Vec<Source>,
    pub(super) tree: TreeCursor,
    /// What the memtables delete by range.
    pub(super) hidden: Hidden,
    pub(super) skipped: Skipped<Place>,
    pub(super) at: SequenceNumber,
    /// When entries are judged: what has expired by then is as good as deleted, or in the tree not there.
    pub(super) now: Now,
    /// Head of the next key on the way that is hidden from the tree, or the last head there is. `None` where
    /// it was not looked for.
    pub(super) clear: Option<u64>,
    pub(super) forward: bool,
    pub(super) place: Place,
    /// Of the recent sources, the one that comes next on the way; `None` if all are at their end.
    pub(super) nearest: Option<usize>,
    /// Where the tree's cursor alone moves until it comes to a key with this head.
    pub(super) fence: u64,
    /// Why the last move failed.
    failure: Option<Box<Error>>,
    /// Entries that were stepped over since the family was told: deletions, and what is deleted.
    pub(super) passed: u64,
    /// The newest source, if that is what somebody wrote for himself.
    pub(super) own: Option<OwnWrites>,
    /// What the operands come to of the entry that the cursor stands on, once that was asked for: of one of
    /// a recent source. That of the tree's entry stands with the tree's cursor.
    pub(super) folded: OnceCell<Box<[u8]>>,
    /// Keeps the tree's pages.
    pub(super) view: Arc<FamilyView>,
}

impl FamilyView {
    /// A cursor over the keys in `range`.
    pub(crate) fn cursor(self: &Arc<Self>, at: SequenceNumber, now: Now, range: KeyRange) -> FamilyCursor {
        self.cursor_behind(None, at, now, range)
    }

    /// A cursor over the keys in `range`, with `own` writes in front of the family's.
    pub(crate) fn cursor_behind(
        self: &Arc<Self>,
        own: Option<&OwnWrites>,
        at: SequenceNumber,
        now: Now,
        range: KeyRange,
    ) -> FamilyCursor {
        let store = self.family.store();
        let range = Arc::new(range);
        let mut hidden = Hidden::at(at);
        let own_table = own.map(|own| (&own.table, own.at));
        let tables = own_table.into_iter().chain(self.memtables().map(|table| (table, at)));
        let memtables = tables.enumerate().map(|(age, (table, at))| {
            hidden.add_at(age, table, at);
            Recent::Memtable(table.cursor_in(at, Arc::clone(&range)), now)
        });
        let delta = |delta: &Delta| {
            Recent::Delta(Box::new(TreeCursor::new(delta.tree, Arc::clone(store)).judging(now, false)))
        };
        let recent = memtables.chain(self.tree.deltas.iter().map(delta)).map(Source::new).collect();
        FamilyCursor {
            range,
            recent,
            tree: TreeCursor::new(self.tree.tree, Arc::clone(store)).judging(now, true),
            hidden,
            skipped: Skipped::nothing(),
            at,
            now,
            clear: None,
            forward: true,
            place: Place::Nowhere,
            nearest: None,
            fence: u64::MAX,
            failure: None,
            passed: 0,
            own: own.cloned(),
            folded: OnceCell::new(),
            view: Arc::clone(self),
        }
    }
}

impl FamilyCursor {
    /// Whether the cursor stands on an entry.
    #[inline]
    pub(crate) fn valid(&self) -> bool {
        matches!(self.place, Place::Recent(_) | Place::Tree)
    }

    /// The key that the cursor stands on; empty if it stands on none.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        match self.place {
            Place::Recent(i) => self.recent[i].recent.key(),
            Place::Tree => self.tree.key(),
            _ => &[],
        }
    }

    /// The value of the entry; empty if the cursor stands on none. A large value is read now.
    #[inline]
    pub(crate) fn value(&self) -> Result<&[u8]> {
        match self.place {
            Place::Recent(i) => match self.recent[i].recent.value()? {
                Some(value) => Ok(value),
                None => self.fold(self.recent[i].recent.key(), &self.folded),
            },
            Place::Tree => self.tree_value(),
            _ => Ok(&[]),
        }
    }

    /// The value of the entry that the tree's cursor stands on.
    #[inline]
    pub(super) fn tree_value(&self) -> Result<&[u8]> {
        match self.tree.usual_value() {
            Some(value) => Ok(value),
            None => self.unusual_value(),
        }
    }

    #[inline(never)]
    fn unusual_value(&self) -> Result<&[u8]> {
        match self.tree.folded() {
            Some(folded) => self.fold(self.tree.key(), folded),
            None => self.tree.value(),
        }
    }

    /// What the operands of `key` come to, which is kept in `folded`.
    #[inline(never)]
    pub(super) fn fold<'c>(&self, key: &[u8], folded: &'c OnceCell<Box<[u8]>>) -> Result<&'c [u8]> {
        if let Some(value) = folded.get() {
            return Ok(value);
        }
        let value = self.view.read_behind(self.own.as_ref(), key, self.at, self.now)?;
        // There is one, since there are operands.
        let value: Vec<u8> = value.map(Vec::from).unwrap_or_default();
        Ok(folded.get_or_init(|| value.into_boxed_slice()))
    }

    /// The value in a form that outlives the cursor's next step.
    #[inline]
    pub(crate) fn owned_value(&self) -> Result<Value> {
        let value = self.value()?;
        if Value::is_small(value.len(), 0) {
            return Ok(Value::copy(value));
        }
        let tree = match self.place {
            Place::Recent(i) => match &self.recent[i].recent {
                // Held where it stands it would keep all of the memtable.
                Recent::Memtable(..) => return Ok(Value::copy(value)),
                Recent::Delta(cursor) => cursor,
            },
            _ => &self.tree,
        };
        if tree.is_operands() {
            return Ok(Value::copy(value));
        }
        let (page, range) = tree.pinned_value()?;
        Ok(if Value::is_small(range.len(), page.len()) {
            Value::copy(value)
        } else {
            Value::in_page(page, range)
        })
    }

    /// To the first entry at or above `key`.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<bool> {
        if !self.range.is_before_end(key) {
            self.stand_beyond(true);
            return Ok(false);
        }
        let range = Arc::clone(&self.range);
        let key = if range.is_behind_start(key) { key } else { range.start() };
        let started = self.start(true, |source| source.seek(key));
        let moved = started.and_then(|()| self.tree.seek(key)).and_then(|_| self.settle_forward());
        self.settled(moved)
    }

    /// To the last entry at or below `key`.
    pub(crate) fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool> {
        if !self.range.is_behind_start(key) {
            self.stand_beyond(false);
            return Ok(false);
        }
        if !self.range.is_before_end(key) {
            return self.last();
        }
        let started = self.start(false, |source| source.seek_for_prev(key));
        let moved = started.and_then(|()| self.tree.seek_for_prev(key)).and_then(|_| self.settle_backward());
        self.settled(moved)
    }

    /// To the first entry.
    pub(crate) fn first(&mut self) -> Result<bool> {
        let range = Arc::clone(&self.range);
        if !range.start().is_empty() {
            return self.seek(range.start());
        }
        let started = self.start(true, Source::first);
        let moved = started.and_then(|()| self.tree.first()).and_then(|_| self.settle_forward());
        self.settled(moved)
    }

    /// To the last entry.
    pub(crate) fn last(&mut self) -> Result<bool> {
        let range = Arc::clone(&self.range);
        let moved = match range.end() {
            None => self.start(false, Source::last).and_then(|()| self.tree.last()),
            Some(end) => {
                self.start(false, |source| source.seek_below(end)).and_then(|()| self.tree.seek_below(end))
            }
        };
        let moved = moved.and_then(|_| self.settle_backward());
        self.settled(moved)
    }

    /// Past the last entry, or before the first.
    fn stand_beyond(&mut self, forward: bool) {
        self.forward = forward;
        self.place = if forward { Place::End } else { Place::Start };
    }

    /// Leaves the cursor nowhere if the move failed: an entry that was passed over must not look like none.
    #[inline]
    pub(crate) fn settled<T>(&mut self, moved: Result<T>) -> Result<T> {
        if let Err(error) = &moved {
            self.place = Place::Failed;
            self.failure = Some(Box::new(error.clone()));
        }
        moved
    }

    /// Why the cursor stands nowhere, once more.
    #[cold]
    fn fail_again(&self) -> Result<bool> {
        match &self.failure {
            Some(error) => Err(Error::clone(error)),
            None => unreachable!("a cursor that failed knows why"),
        }
    }

    fn start(&mut self, forward: bool, position: impl Fn(&mut Source) -> Result<()>) -> Result<()> {
        // An error on the way leaves the cursor nowhere, not on a stale entry.
        self.place = Place::Nowhere;
        self.forward = forward;
        self.folded = OnceCell::new();
        self.forget_hidden();
        for source in &mut self.recent {
            position(source)?;
        }
        Ok(())
    }

    /// To the next entry; from nowhere, to the first.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<bool> {
        if self.place == Place::Tree && (self.forward || self.recent.is_empty()) {
            self.turn_alone(true);
            let moved = self.tree.next();
            return self.after_tree(moved, Ordering::Less);
        }
        self.next_of_all()
    }

    /// Goes on this way, where there is no source but the tree.
    #[inline]
    fn turn_alone(&mut self, forward: bool) {
        if self.forward != forward {
            self.forward = forward;
            self.fence = self.range.last_head(way(forward));
        }
    }

    /// The tree's cursor moved on from the entry that this one stood on: to the next entry, if its key is the
    /// most `wanted`.
    #[inline]
    fn after_tree(&mut self, moved: Result<bool>, wanted: Ordering) -> Result<bool> {
        if matches!(moved, Ok(true)) && self.leads(wanted) {
            return Ok(true);
        }
        self.settle_after(moved)
    }

    /// Whether the key of the tree's cursor is in the range and comes before that of any other source and
    /// before what is hidden.
    #[inline]
    fn leads(&self, wanted: Ordering) -> bool {
        let nearest = self.nearest.map(|nearest| &self.recent[nearest]);
        comes_first(self.tree.key(), wanted, self.fence, self.clear, nearest, &self.range)
    }

    #[inline(never)]
    fn settle_after(&mut self, moved: Result<bool>) -> Result<bool> {
        let moved =
            moved.and_then(|_| if self.forward { self.settle_forward() } else { self.settle_backward() });
        self.settled(moved)
    }

    #[inline(never)]
    fn next_of_all(&mut self) -> Result<bool> {
        self.folded = OnceCell::new();
        match self.place {
            Place::Nowhere | Place::Start => self.first(),
            Place::End => Ok(false),
            Place::Failed => self.fail_again(),
            _ => {
                let turned = if self.forward { Ok(()) } else { self.turn_forward() };
                let moved =
                    turned.and_then(|()| self.step_over_forward()).and_then(|()| self.settle_forward());
                self.settled(moved)
            }
        }
    }

    /// To the entry before; from nowhere, to the last.
    #[inline]
    pub(crate) fn prev(&mut self) -> Result<bool> {
        if self.place == Place::Tree && (!self.forward || self.recent.is_empty()) {
            self.turn_alone(false);
            let moved = self.tree.prev();
            return self.after_tree(moved, Ordering::Greater);
        }
        self.prev_of_all()
    }

    #[inline(never)]
    fn prev_of_all(&mut self) -> Result<bool> {
        self.folded = OnceCell::new();
        match self.place {
            Place::Nowhere | Place::End => self.last(),
            Place::Start => Ok(false),
            Place::Failed => self.fail_again(),
            _ => {
                let turned = if self.forward { self.turn_backward() } else { Ok(()) };
                let moved =
                    turned.and_then(|()| self.step_over_backward()).and_then(|()| self.settle_backward());
                self.settled(moved)
            }
        }
    }

    fn turn_forward(&mut self) -> Result<()> {
        let key = self.key().to_vec();
        let place = self.place;
        for (i, source) in self.recent.iter_mut().enumerate() {
            if place != Place::Recent(i) {
                source.seek(&key)?;
            }
        }
        if place != Place::Tree {
            self.tree.seek(&key)?;
        }
        self.forward = true;
        self.forget_hidden();
        Ok(())
    }

    fn turn_backward(&mut self) -> Result<()> {
        let key = self.key().to_vec();
        let place = self.place;
        for (i, source) in self.recent.iter_mut().enumerate() {
            if place != Place::Recent(i) {
                source.seek_for_prev(&key)?;
            }
        }
        if place != Place::Tree {
            self.tree.seek_for_prev(&key)?;
        }
        self.forward = false;
        self.forget_hidden();
        Ok(())
    }
}

/// How keys compare with those that are met later.
pub(super) fn way(forward: bool) -> Ordering {
    if forward { Ordering::Less } else { Ordering::Greater }
}

/// Whether `key` lies in `range` and comes, on the `way`, before that of `nearest` and before what is hidden;
/// `fence` is the head of whichever ends it. Where that has the same head as the next hidden key (`clear`) it
/// is not known.
#[inline(always)]
pub(super) fn comes_first(
    key: &[u8],
    way: Ordering,
    fence: u64,
    clear: Option<u64>,
    nearest: Option<&Source>,
    range: &KeyRange,
) -> bool {
    let order = key::head8(key).cmp(&fence);
    order == way
        || order.is_eq()
            && clear != Some(fence)
            && range.goes_on_at(key, way)
            && nearest.is_none_or(|nearest| key::compare(key, nearest.recent.key()) == way)
}

impl Drop for FamilyCursor {
    fn drop(&mut self) {
        let passed = self.passed + self.recent.iter().map(Source::passed).sum::<u64>();
        if passed > 0 {
            Counters::add(&self.view.family.counters.entries_passed, passed);
        }
    }
}
