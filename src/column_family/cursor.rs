//! The cursor over a whole family: memtables and tree as one sorted map.
//!
//! Invariants, while the cursor stands on an entry with key *k* and goes forward (backward is the mirror image):
//! 1. Every source stands on its first key at or above *k*, or is at its end.
//! 2. The entry is that of the newest source whose key equals *k*.
//! 3. It is neither a deletion nor covered by a range deletion of a newer source.

use std::cmp::Ordering;

use crate::btree::TreeCursor;
use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::column_family::hidden::{Ranges, hidden_ranges};
use crate::column_family::read::held_value;
use crate::column_family::value::Value;
use crate::column_family::view::FamilyView;
use crate::error::{Error, Result};
use crate::memtable::{Found, Memtable, MemtableCursor};
use crate::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not positioned: before the first entry when going forward, after the last when going backward.
    Nowhere,
    /// Before the first entry.
    Start,
    /// After the last entry.
    End,
    Table(usize),
    Tree,
}

struct TableSource {
    table: Arc<Memtable>,
    cursor: MemtableCursor,
}

/// Walks a family at one moment, both ways; turns around anywhere. Owns what it needs.
pub(crate) struct FamilyCursor {
    /// Newest first; those that hold anything.
    tables: Vec<TableSource>,
    tree: TreeCursor,
    /// Where the memtables delete everything that the tree holds.
    hidden: Ranges,
    /// The hidden range that was sought over last on the way since the cursor was placed or turned.
    skipped: Option<usize>,
    at: SequenceNumber,
    forward: bool,
    place: Place,
    /// Keeps the tree's pages.
    view: Arc<FamilyView>,
}

impl FamilyView {
    pub(crate) fn cursor(self: &Arc<Self>, at: SequenceNumber) -> FamilyCursor {
        let tables: Vec<_> = self
            .memtables()
            .map(|table| TableSource { table: Arc::clone(table), cursor: table.cursor(at) })
            .collect();
        let hidden = hidden_ranges(self.memtables(), at);
        FamilyCursor {
            tables,
            tree: TreeCursor::new(self.tree.tree, Arc::clone(self.family.store())),
            hidden,
            skipped: None,
            at,
            forward: true,
            place: Place::Nowhere,
            view: Arc::clone(self),
        }
    }
}

impl FamilyCursor {
    /// Whether the cursor stands on an entry.
    #[inline]
    pub(crate) fn valid(&self) -> bool {
        matches!(self.place, Place::Table(_) | Place::Tree)
    }

    /// The key that the cursor stands on; empty if it stands on none.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        match self.place {
            Place::Table(i) => self.tables[i].cursor.key(),
            Place::Tree => self.tree.key(),
            _ => &[],
        }
    }

    /// The value of the entry; empty if the cursor stands on none. A large value is read now.
    #[inline]
    pub(crate) fn value(&self) -> Result<&[u8]> {
        match self.place {
            Place::Table(i) => match self.tables[i].cursor.found() {
                Found::Put(bytes) => Ok(bytes),
                Found::Deleted => unreachable!("the cursor stands on a deletion"),
            },
            Place::Tree => self.tree.value(),
            _ => Ok(&[]),
        }
    }

    /// The value in a form that outlives the cursor's next step.
    pub(crate) fn owned_value(&self) -> Result<Value> {
        if self.place == Place::Tree {
            let value = self.tree.value()?;
            if Value::is_small(value.len()) {
                return Ok(Value::copy(value));
            }
            let (page, range) = self.tree.pinned_value()?;
            return Ok(Value::in_page(page, range));
        }
        let Place::Table(i) = self.place else { return Ok(Value::copy(&[])) };
        let source = &self.tables[i];
        match source.cursor.found() {
            Found::Put(bytes) if !Value::is_small(bytes.len()) => {
                Ok(held_value(&source.table, source.cursor.key(), self.at)
                    .unwrap_or_else(|| Value::copy(bytes)))
            }
            Found::Put(bytes) => Ok(Value::copy(bytes)),
            Found::Deleted => unreachable!("the cursor stands on a deletion"),
        }
    }

    /// To the first entry at or above `key`.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<bool> {
        self.start(true, |cursor| cursor.seek(key));
        let moved = self.tree.seek(key).and_then(|_| self.settle_forward());
        self.settled(moved)
    }

    /// To the last entry at or below `key`.
    pub(crate) fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool> {
        self.start(false, |cursor| cursor.seek_for_prev(key));
        let moved = self.tree.seek_for_prev(key).and_then(|_| self.settle_backward());
        self.settled(moved)
    }

    /// To the first entry.
    pub(crate) fn first(&mut self) -> Result<bool> {
        self.start(true, MemtableCursor::first);
        let moved = self.tree.first().and_then(|_| self.settle_forward());
        self.settled(moved)
    }

    /// To the last entry.
    pub(crate) fn last(&mut self) -> Result<bool> {
        self.start(false, MemtableCursor::last);
        let moved = self.tree.last().and_then(|_| self.settle_backward());
        self.settled(moved)
    }

    /// Leaves the cursor nowhere if the move failed: an entry that was skipped must not look like none.
    #[inline]
    fn settled(&mut self, moved: Result<bool>) -> Result<bool> {
        if moved.is_err() {
            self.place = Place::Nowhere;
        }
        moved
    }

    fn start(&mut self, forward: bool, position: impl Fn(&mut MemtableCursor) -> bool) {
        // An error on the way leaves the cursor nowhere, not on a stale entry.
        self.place = Place::Nowhere;
        self.forward = forward;
        self.skipped = None;
        for source in &mut self.tables {
            position(&mut source.cursor);
        }
    }

    /// To the next entry; from nowhere, to the first.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<bool> {
        if self.place == Place::Tree && self.tables.is_empty() {
            self.forward = true;
            let moved = self.tree.next();
            if let Ok(false) = moved {
                self.place = Place::End;
            }
            return self.settled(moved);
        }
        self.next_of_all()
    }

    #[inline(never)]
    fn next_of_all(&mut self) -> Result<bool> {
        match self.place {
            Place::Nowhere | Place::Start => self.first(),
            Place::End => Ok(false),
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
        if self.place == Place::Tree && self.tables.is_empty() {
            self.forward = false;
            let moved = self.tree.prev();
            if let Ok(false) = moved {
                self.place = Place::Start;
            }
            return self.settled(moved);
        }
        self.prev_of_all()
    }

    #[inline(never)]
    fn prev_of_all(&mut self) -> Result<bool> {
        match self.place {
            Place::Nowhere | Place::End => self.last(),
            Place::Start => Ok(false),
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
        for (i, source) in self.tables.iter_mut().enumerate() {
            if place != Place::Table(i) {
                source.cursor.seek(&key);
            }
        }
        if place != Place::Tree {
            self.tree.seek(&key)?;
        }
        self.forward = true;
        self.skipped = None;
        Ok(())
    }

    fn turn_backward(&mut self) -> Result<()> {
        let key = self.key().to_vec();
        let place = self.place;
        for (i, source) in self.tables.iter_mut().enumerate() {
            if place != Place::Table(i) {
                source.cursor.seek_for_prev(&key);
            }
        }
        if place != Place::Tree {
            self.tree.seek_for_prev(&key)?;
        }
        self.forward = false;
        self.skipped = None;
        Ok(())
    }

    /// Moves every source that stands on the present key to its next one, the present source last.
    fn step_over_forward(&mut self) -> Result<()> {
        for i in 0..self.tables.len() {
            if self.place != Place::Table(i) && self.table_stands_on_key(i) {
                self.tables[i].cursor.next();
            }
        }
        match self.place {
            Place::Table(i) => {
                if self.tree.valid() && self.tree.key() == self.tables[i].cursor.key() {
                    self.tree.next()?;
                }
                self.tables[i].cursor.next();
            }
            _ => {
                self.tree.next()?;
            }
        }
        Ok(())
    }

    fn step_over_backward(&mut self) -> Result<()> {
        for i in 0..self.tables.len() {
            if self.place != Place::Table(i) && self.table_stands_on_key(i) {
                self.tables[i].cursor.prev();
            }
        }
        match self.place {
            Place::Table(i) => {
                if self.tree.valid() && self.tree.key() == self.tables[i].cursor.key() {
                    self.tree.prev()?;
                }
                self.tables[i].cursor.prev();
            }
            _ => {
                self.tree.prev()?;
            }
        }
        Ok(())
    }

    fn table_stands_on_key(&self, i: usize) -> bool {
        let cursor = &self.tables[i].cursor;
        cursor.valid() && cursor.key() == self.key()
    }

    /// Finds the entry to stand on: the lowest key of all sources, of the newest source that has it.
    fn settle_forward(&mut self) -> Result<bool> {
        loop {
            let Some(place) = self.choose(Ordering::Less) else {
                self.place = Place::End;
                return Ok(false);
            };
            self.place = place;
            match place {
                Place::Tree => match self.hidden.covering(self.tree.key()) {
                    None => return Ok(true),
                    Some(range) => {
                        self.skip(range)?;
                        self.tree.seek(self.hidden.range(range).1)?;
                    }
                },
                Place::Table(i) if self.shows(i) => return Ok(true),
                _ => self.step_over_forward()?,
            }
        }
    }

    fn settle_backward(&mut self) -> Result<bool> {
        loop {
            let Some(place) = self.choose(Ordering::Greater) else {
                self.place = Place::Start;
                return Ok(false);
            };
            self.place = place;
            match place {
                Place::Tree => match self.hidden.covering(self.tree.key()) {
                    None => return Ok(true),
                    // To the last key below the range.
                    Some(range) => {
                        self.skip(range)?;
                        let (start, _) = self.hidden.range(range);
                        if self.tree.seek_for_prev(start)? && self.tree.key() == start {
                            self.tree.prev()?;
                        }
                    }
                },
                Place::Table(i) if self.shows(i) => return Ok(true),
                _ => self.step_over_backward()?,
            }
        }
    }

    /// A hidden range is about to be sought over. In a tree whose keys are out of order, as only a crafted file has them, a search may end before the
    /// place where it began, and the cursor would go round for ever: so it meets every range once.
    fn skip(&mut self, range: usize) -> Result<()> {
        let goes_on = self.skipped.is_none_or(|last| if self.forward { range > last } else { range < last });
        if !goes_on {
            let error = Error::corruption("the keys of a tree are out of order");
            return Err(error.of_family(self.view.family.id().0));
        }
        self.skipped = Some(range);
        Ok(())
    }

    /// The source whose key is the most `wanted` of all; the newest of several with the same key.
    fn choose(&self, wanted: Ordering) -> Option<Place> {
        let mut best: Option<(Place, &[u8])> = None;
        for (i, source) in self.tables.iter().enumerate() {
            if source.cursor.valid() {
                let candidate = source.cursor.key();
                if best.is_none_or(|(_, key)| key::compare(candidate, key) == wanted) {
                    best = Some((Place::Table(i), candidate));
                }
            }
        }
        if self.tree.valid() && best.is_none_or(|(_, key)| key::compare(self.tree.key(), key) == wanted) {
            return Some(Place::Tree);
        }
        best.map(|(place, _)| place)
    }

    /// Whether the entry of memtable `i` is a value that no newer memtable's range deletion covers.
    fn shows(&self, i: usize) -> bool {
        let cursor = &self.tables[i].cursor;
        matches!(cursor.found(), Found::Put(_))
            && !self.tables[..i].iter().any(|newer| {
                newer.table.has_range_deletions() && newer.table.covering(cursor.key(), self.at).is_some()
            })
    }
}
