//! Point reads and counts: what needs no cursor, as a rule.

use std::ops::{ControlFlow, Range};

use crate::btree::{FoundValue, Lookup, Place, Tree, TreeCursor, load_run};
use crate::codec::expiry::{self, Expiry, Now, STAMP_LEN};
use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::codec::key::ABOVE_EVERY_KEY;
use crate::codec::key_range::KeyRange;
use crate::codec::operands;
use crate::column_family::delta::Delta;
use crate::column_family::operands::{Gathered, Held};
use crate::column_family::reading::hidden::{Hidden, TREE};
use crate::column_family::reading::value::Value;
use crate::column_family::view::{FamilyView, OwnWrites};
use crate::error::Result;
use crate::memtable::Found;
use crate::page::{HEADER_LEN, PagePointer, PageRef};
use crate::sync::Arc;
use crate::sync::epoch::{self, Guard};

/// What a look-up has still to read from the file.
pub(crate) enum Rest {
    /// A node of one of the trees, by its index, and what follows it.
    Node(usize, Place),
    /// The run that holds the value, of this length.
    Run(PagePointer, u32),
    /// The value is what operands come to.
    Operands,
}

/// What a look-up came to, or what is left of it. Nothing is read from the file under a guard: what is left
/// is done without one.
pub(crate) type Looked<T> = ControlFlow<T, Rest>;

impl FamilyView {
    /// The value of `key` at `at`. Lock-free; a cached key costs one search per memtable that may hold it and
    /// one descent. The caller holds no guard.
    pub(crate) fn get(&self, key: &[u8], at: SequenceNumber, now: Now) -> Result<Option<Value>> {
        // Apart, so that the guard is gone before anything is read.
        let looked = self.find(key, at, now, &epoch::pin())?;
        self.finish_value(key, at, now, looked)
    }

    /// Whether `key` has a value at `at`. Reads no large value. The caller holds no guard.
    pub(crate) fn contains(&self, key: &[u8], at: SequenceNumber, now: Now) -> Result<bool> {
        let looked = self.find_presence(key, at, now, &epoch::pin())?;
        self.finish_presence(key, at, now, looked)
    }

    /// The value of `key` at `at`, as far as it is in memory.
    #[inline]
    pub(crate) fn find(
        &self,
        key: &[u8],
        at: SequenceNumber,
        now: Now,
        guard: &Guard,
    ) -> Result<Looked<Option<Value>>> {
        if let Some(found) = self.in_memtables(key, at) {
            return Ok(match found {
                Found::Put(bytes) => Looked::Break(Some(Value::copy(bytes))),
                Found::Expiring(stamped) => Looked::Break(unexpired(stamped, now).map(Value::copy)),
                Found::Deleted => Looked::Break(None),
                Found::Operands(_) => Looked::Continue(Rest::Operands),
            });
        }
        Ok(match self.in_trees(key, guard)? {
            Looked::Break(found) => value_of(found, now),
            Looked::Continue(rest) => Looked::Continue(rest),
        })
    }

    /// Reads what [`find`](Self::find) left. The caller holds this view, and no guard.
    #[inline]
    pub(crate) fn finish_value(
        &self,
        key: &[u8],
        at: SequenceNumber,
        now: Now,
        looked: Looked<Option<Value>>,
    ) -> Result<Option<Value>> {
        match looked {
            Looked::Break(value) => Ok(value),
            Looked::Continue(rest) => self.read_value(key, at, now, rest),
        }
    }

    #[cold]
    fn read_value(&self, key: &[u8], at: SequenceNumber, now: Now, mut rest: Rest) -> Result<Option<Value>> {
        loop {
            let found = match rest {
                Rest::Node(tree, place) => self.read_trees(key, tree, place)?,
                Rest::Operands => return self.read_behind(None, key, at, now),
                Rest::Run(pointer, len) => {
                    let page = load_run(self.family.store(), pointer, len)?;
                    return Ok(Some(Value::in_page(page, HEADER_LEN..HEADER_LEN + len as usize)));
                }
            };
            match value_of(found, now) {
                Looked::Break(value) => return Ok(value),
                Looked::Continue(run) => rest = run,
            }
        }
    }

    /// Whether `key` has a value at `at`, as far as that is in memory.
    pub(crate) fn find_presence(
        &self,
        key: &[u8],
        at: SequenceNumber,
        now: Now,
        guard: &Guard,
    ) -> Result<Looked<bool>> {
        Ok(match self.in_memtables(key, at) {
            Some(Found::Put(_)) => Looked::Break(true),
            Some(Found::Deleted) => Looked::Break(false),
            Some(Found::Expiring(stamped)) => Looked::Break(unexpired(stamped, now).is_some()),
            Some(Found::Operands(operands)) if now.judges() => match operands.expiry() {
                Some(expiry) => Looked::Break(!now.is_past(expiry)),
                None => Looked::Continue(Rest::Operands),
            },
            Some(Found::Operands(_)) => Looked::Break(true),
            None => match self.in_trees(key, guard)? {
                Looked::Break(found) => presence_of(found, now),
                Looked::Continue(rest) => Looked::Continue(rest),
            },
        })
    }

    /// Reads what [`find_presence`](Self::find_presence) left. The caller holds this view, and no guard.
    pub(crate) fn finish_presence(
        &self,
        key: &[u8],
        at: SequenceNumber,
        now: Now,
        mut looked: Looked<bool>,
    ) -> Result<bool> {
        loop {
            looked = match looked {
                Looked::Break(has_value) => return Ok(has_value),
                Looked::Continue(Rest::Node(tree, place)) => {
                    presence_of(self.read_trees(key, tree, place)?, now)
                }
                Looked::Continue(Rest::Run(..)) => return Ok(true),
                Looked::Continue(Rest::Operands) => return Ok(!self.is_folded_past(None, key, at, now)?),
            }
        }
    }

    /// Whether what the operands of `key` at `at`, behind `own` writes, come to has expired. Does not fold
    /// them. The caller holds this view, and no guard.
    pub(crate) fn is_folded_past(
        &self,
        own: Option<&OwnWrites>,
        key: &[u8],
        at: SequenceNumber,
        now: Now,
    ) -> Result<bool> {
        if !now.judges() {
            return Ok(false);
        }
        let expiry = self.gather(own, key, at)?.expiry().ok_or_else(|| self.family.nonsense())?;
        Ok(now.is_past(expiry))
    }

    /// The value of `key` at `at` behind `own` writes, from all sources that say anything of it, with its
    /// operands folded. The caller holds this view, and no guard.
    #[cold]
    pub(crate) fn read_behind(
        &self,
        own: Option<&OwnWrites>,
        key: &[u8],
        at: SequenceNumber,
        now: Now,
    ) -> Result<Option<Value>> {
        Ok(self.fold_behind(own, key, at, now)?.map(|(value, _)| Value::own(value)))
    }

    /// The same, with the expiry of the value.
    pub(crate) fn fold_behind(
        &self,
        own: Option<&OwnWrites>,
        key: &[u8],
        at: SequenceNumber,
        now: Now,
    ) -> Result<Option<(Vec<u8>, Expiry)>> {
        self.family.fold(key, &self.gather(own, key, at)?, now)
    }

    /// What all sources say of `key`, down to what ends it.
    fn gather<'v>(
        &'v self,
        own: Option<&'v OwnWrites>,
        key: &[u8],
        at: SequenceNumber,
    ) -> Result<Gathered<'v>> {
        let mut gathered = Gathered::new();
        let own = own.map(|own| (&own.table, own.at));
        for (table, at) in own.into_iter().chain(self.memtables().map(|table| (table, at))) {
            gathered.add_found(table.get(key, at));
            if gathered.is_closed() {
                break;
            }
        }
        if !gathered.is_closed() {
            self.gather_from_trees(key, &mut gathered)?;
        }
        Ok(gathered)
    }

    fn gather_from_trees(&self, key: &[u8], gathered: &mut Gathered<'_>) -> Result<()> {
        let store = self.family.store();
        let held = |page: PageRef<'static>, range| match page.into_pinned() {
            Ok(page) => Held::Page(page, range),
            Err(_) => unreachable!("what was read is held by a count"),
        };
        for (_, tree) in self.trees(key) {
            match tree.read(store, key)? {
                None => {}
                Some(FoundValue::Deletion) => gathered.end(None),
                Some(FoundValue::Inline(page, range)) => gathered.end(Some(held(page, range))),
                Some(FoundValue::Operands(page, range)) => gathered.add_list(held(page, range)),
                Some(FoundValue::Expiring(page, range)) => gathered.end_expiring(held(page, range)),
                Some(FoundValue::Run(pointer, len, expiry)) => {
                    let page = load_run(store, pointer, len)?;
                    let range = HEADER_LEN..HEADER_LEN + len as usize;
                    match expiry {
                        0 => gathered.end(Some(Held::Page(page, range))),
                        expiry => gathered.end_expiring(Held::Own(expiry::stamped(expiry, &page[range]))),
                    }
                }
            }
            if gathered.is_closed() {
                break;
            }
        }
        Ok(())
    }

    #[inline]
    fn in_memtables(&self, key: &[u8], at: SequenceNumber) -> Option<Found<'_>> {
        self.memtables().find_map(|table| table.get(key, at))
    }

    /// The trees that may say anything of `key`, the newest first, with the index of each: deltas, then the
    /// one behind them.
    #[inline]
    fn trees(&self, key: &[u8]) -> impl Iterator<Item = (usize, &Tree)> {
        let deltas = self.tree.deltas.iter().enumerate();
        let deltas = deltas.filter(|(_, delta)| delta.may_hold(key)).map(|(i, delta)| (i, &delta.tree));
        deltas.chain(std::iter::once((self.tree.deltas.len(), &self.tree.tree)))
    }

    /// What the newest of deltas and tree says of `key` that says anything, as far as it is in memory.
    #[inline]
    fn in_trees<'g>(&'g self, key: &[u8], guard: &'g Guard) -> Result<Looked<Option<FoundValue<'g>>>> {
        for (index, tree) in self.trees(key) {
            match tree.find(self.family.store(), key, guard)? {
                Lookup::Found(None) => {}
                Lookup::Found(found) => return Ok(Looked::Break(found)),
                Lookup::Absent(place) => return Ok(Looked::Continue(Rest::Node(index, place))),
            }
        }
        Ok(Looked::Break(None))
    }

    /// The same from `place` of the tree with this index on, with all that has to be read.
    fn read_trees(&self, key: &[u8], index: usize, place: Place) -> Result<Option<FoundValue<'static>>> {
        let store = self.family.store();
        let mut found = place.read(store, key)?;
        for (_, tree) in self.trees(key).filter(|&(later, _)| later > index) {
            if found.is_some() {
                break;
            }
            found = tree.read(store, key)?;
        }
        Ok(found)
    }

    /// Entries at `at`, exactly: what the tree counts outside of the ranges that memtables delete, corrected
    /// by every key in memtables and deltas. Costs a look-up in the tree for each such key, and for each such
    /// range that holds any of the tree's keys; nothing where it was asked before and the family was not
    /// written to since.
    ///
    /// Of a family whose entries may expire nobody knows the number beforehand: they are walked, each time.
    pub(crate) fn len(self: &Arc<Self>, at: SequenceNumber, now: Now) -> Result<u64> {
        if now.judges() {
            return self.count_unexpired(at, now);
        }
        if let Some((then, entries)) = self.measured.last()
            && (then == at || self.is_all_seen_at(then.min(at)))
        {
            return Ok(entries);
        }
        let entries = self.count(at)?;
        self.measured.set(at, entries);
        Ok(entries)
    }

    fn count_unexpired(self: &Arc<Self>, at: SequenceNumber, now: Now) -> Result<u64> {
        let mut cursor = self.cursor(at, now, KeyRange::default());
        let mut count = 0;
        while cursor.next()? {
            count += 1;
        }
        Ok(count)
    }

    fn count(&self, at: SequenceNumber) -> Result<u64> {
        let (tree, store) = (&self.tree.tree, self.family.store());
        let tables: Vec<_> = self.memtables().collect();
        let mut hidden = Hidden::at(at);
        tables.iter().enumerate().for_each(|(age, table)| hidden.add(age, table));
        let mut count = tree.entries.saturating_sub(self.hidden_in_tree(&hidden)?);
        // What is newer speaks for a key if it says anything of it.
        let mut correct = |key: &[u8], has_value: bool| -> Result<()> {
            let counted = !hidden.covers(key, TREE) && tree.contains(store, key)?;
            match has_value {
                true if !counted => count = count.saturating_add(1),
                false if counted => count = count.saturating_sub(1),
                _ => {}
            }
            Ok(())
        };
        for (age, table) in tables.iter().enumerate() {
            let mut cursor = table.cursor(at);
            let mut on = cursor.first();
            while on {
                if !tables[..age].iter().any(|newer| newer.get(cursor.key(), at).is_some()) {
                    correct(cursor.key(), !matches!(cursor.found(), Found::Deleted))?;
                }
                on = cursor.next();
            }
        }
        for (age, delta) in self.tree.deltas.iter().enumerate() {
            let mut cursor = TreeCursor::new(delta.tree, Arc::clone(store));
            let mut on = cursor.first()?;
            while on {
                let key = cursor.key();
                if !hidden.covers(key, TREE)
                    && self.in_memtables(key, at).is_none()
                    && !self.is_in_deltas(&self.tree.deltas[..age], key)?
                {
                    correct(key, !cursor.is_deletion())?;
                }
                on = cursor.next()?;
            }
        }
        Ok(count)
    }

    /// Entries of the tree that are hidden. Hidden ranges between two keys of the tree are sought over
    /// together.
    fn hidden_in_tree(&self, hidden: &Hidden) -> Result<u64> {
        let (tree, store) = (&self.tree.tree, self.family.store());
        let mut cursor = TreeCursor::new(*tree, Arc::clone(store));
        let (mut count, mut from) = (0u64, Vec::new());
        while !hidden.is_empty() {
            let Some(end) = hidden.end(&from, TREE) else {
                let Some(start) = hidden.next(&from) else { break };
                from = start.to_vec();
                continue;
            };
            let bound = (end != ABOVE_EVERY_KEY).then_some(end);
            let within = tree.count_range(store, Some(&from), bound)?;
            count = count.saturating_add(within);
            if within == 0 && !cursor.seek(end)? {
                break;
            }
            let is_beyond = within == 0 && key::compare(cursor.key(), end).is_gt();
            from = if is_beyond { cursor.key() } else { end }.to_vec();
        }
        Ok(count)
    }

    /// Whether one of `deltas` says anything of `key`.
    fn is_in_deltas(&self, deltas: &[Delta], key: &[u8]) -> Result<bool> {
        for delta in deltas.iter().filter(|delta| delta.may_hold(key)) {
            if delta.tree.says(self.family.store(), key)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The value that was found, or the run that holds it.
#[inline]
fn value_of(found: Option<FoundValue<'_>>, now: Now) -> Looked<Option<Value>> {
    match found {
        Some(FoundValue::Run(_, _, expiry)) if now.is_past(expiry) => Looked::Break(None),
        Some(FoundValue::Expiring(page, range)) => match unexpired(&page[range.clone()], now) {
            Some(_) => Looked::Break(Some(in_leaf(page, range.start + STAMP_LEN..range.end))),
            None => Looked::Break(None),
        },
        None | Some(FoundValue::Deletion) => Looked::Break(None),
        Some(FoundValue::Inline(page, range)) => Looked::Break(Some(in_leaf(page, range))),
        Some(FoundValue::Run(pointer, len, _)) => Looked::Continue(Rest::Run(pointer, len)),
        Some(FoundValue::Operands(..)) => Looked::Continue(Rest::Operands),
    }
}

#[inline]
fn in_leaf(page: PageRef<'_>, range: Range<usize>) -> Value {
    if Value::is_small(range.len(), page.len()) {
        return Value::copy(&page[range]);
    }
    match page.into_pinned() {
        Ok(page) => Value::in_page(page, range),
        Err(page) => Value::copy(&page[range]),
    }
}

/// Whether that is a value.
fn presence_of(found: Option<FoundValue<'_>>, now: Now) -> Looked<bool> {
    Looked::Break(match found {
        None | Some(FoundValue::Deletion) => false,
        Some(FoundValue::Inline(..)) => true,
        Some(FoundValue::Run(_, _, expiry)) => !now.is_past(expiry),
        Some(FoundValue::Expiring(page, range)) => unexpired(&page[range], now).is_some(),
        Some(FoundValue::Operands(page, range)) if now.judges() => match operands::expiry(&page[range]) {
            Some(expiry) => !now.is_past(expiry),
            None => return Looked::Continue(Rest::Operands),
        },
        Some(FoundValue::Operands(..)) => true,
    })
}

/// A stamped value, without its stamp, if it has not expired.
#[inline]
fn unexpired(stamped: &[u8], now: Now) -> Option<&[u8]> {
    expiry::split(stamped).filter(|&(expiry, _)| !now.is_past(expiry)).map(|(_, value)| value)
}
