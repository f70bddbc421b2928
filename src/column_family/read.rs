//! Point reads, counts: what needs no cursor.

use crate::btree::{FoundValue, TreeCursor, load_run};
use crate::codec::ids::SequenceNumber;
use crate::column_family::delta::Delta;
use crate::column_family::hidden::hidden_ranges;
use crate::column_family::merge::ABOVE_EVERY_KEY;
use crate::column_family::value::Value;
use crate::column_family::view::FamilyView;
use crate::error::Result;
use crate::memtable::{Found, Memtable};
use crate::page::PageRef;
use crate::sync::Arc;
use crate::sync::epoch::Guard;

impl FamilyView {
    /// The value of `key` at `at`. Lock-free; a cached key costs one search per memtable that may hold it and one descent.
    pub(crate) fn get(&self, key: &[u8], at: SequenceNumber, guard: &Guard) -> Result<Option<Value>> {
        if let Some((table, found)) = self.in_memtables(key, at) {
            return Ok(match found {
                Found::Put(bytes) if Value::is_small(bytes.len()) => Some(Value::copy(bytes)),
                Found::Put(_) => held_value(table, key, at),
                Found::Deleted => None,
            });
        }
        let Some(found) = self.in_trees(key, guard)? else { return Ok(None) };
        let value = match found {
            FoundValue::Deletion => return Ok(None),
            FoundValue::Inline(PageRef::Run(run), range) if !Value::is_small(range.len()) => {
                Value::copy(&run[range])
            }
            FoundValue::Inline(page, range) => Value::copy(&page[range]),
            FoundValue::Run(pointer, len) => {
                let page = load_run(self.family.store(), pointer, len)?;
                Value::in_page(page, crate::page::HEADER_LEN..crate::page::HEADER_LEN + len as usize)
            }
        };
        Ok(Some(value))
    }

    /// Whether `key` has a value at `at`. Reads no large value.
    pub(crate) fn contains(&self, key: &[u8], at: SequenceNumber, guard: &Guard) -> Result<bool> {
        match self.in_memtables(key, at) {
            Some((_, Found::Put(_))) => Ok(true),
            Some((_, Found::Deleted)) => Ok(false),
            None => Ok(!matches!(self.in_trees(key, guard)?, None | Some(FoundValue::Deletion))),
        }
    }

    #[inline]
    fn in_memtables(&self, key: &[u8], at: SequenceNumber) -> Option<(&Arc<Memtable>, Found<'_>)> {
        self.memtables().find_map(|table| Some((table, table.get(key, at)?)))
    }

    /// What the newest of deltas and tree says of `key` that says anything.
    #[inline]
    fn in_trees<'g>(&self, key: &[u8], guard: &'g Guard) -> Result<Option<FoundValue<'g>>> {
        let store = self.family.store();
        for delta in self.tree.deltas.iter().filter(|delta| delta.may_hold(key)) {
            let found = delta.tree.get(store, key, guard)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        self.tree.tree.get(store, key, guard)
    }

    /// Entries at `at`, exactly: what the tree counts outside of the ranges that memtables delete, corrected by every key in
    /// memtables and deltas. Costs a look-up in the tree for each such key.
    pub(crate) fn len(&self, at: SequenceNumber) -> Result<u64> {
        let (tree, store) = (&self.tree.tree, self.family.store());
        let tables: Vec<_> = self.memtables().collect();
        let hidden = hidden_ranges(tables.iter().copied(), at);
        let mut count = tree.entries;
        for (start, end) in hidden.iter() {
            let end = (end != ABOVE_EVERY_KEY).then_some(end);
            count = count.saturating_sub(tree.count_range(store, Some(start), end)?);
        }
        // What is newer speaks for a key if it says anything of it.
        let mut correct = |key: &[u8], has_value: bool| -> Result<()> {
            let guard = crate::sync::epoch::pin();
            let counted = hidden.covering(key).is_none() && tree.contains(store, key, &guard)?;
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
                    correct(cursor.key(), matches!(cursor.found(), Found::Put(_)))?;
                }
                on = cursor.next();
            }
        }
        for (age, delta) in self.tree.deltas.iter().enumerate() {
            let mut cursor = TreeCursor::new(delta.tree, Arc::clone(store));
            let mut on = cursor.first()?;
            while on {
                let key = cursor.key();
                if hidden.covering(key).is_none()
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

    /// Whether one of `deltas` says anything of `key`.
    fn is_in_deltas(&self, deltas: &[Delta], key: &[u8]) -> Result<bool> {
        let guard = crate::sync::epoch::pin();
        for delta in deltas.iter().filter(|delta| delta.may_hold(key)) {
            if delta.tree.get(self.family.store(), key, &guard)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The value of `key` in `table`, held there without a copy.
pub(crate) fn held_value(table: &Arc<Memtable>, key: &[u8], at: SequenceNumber) -> Option<Value> {
    let held = table.hold(|table| match table.get(key, at) {
        Some(Found::Put(bytes)) => Some(bytes),
        _ => None,
    });
    held.map(Value::in_memtable)
}
