//! Point reads, counts: what needs no cursor.

use crate::btree::{FoundValue, TreeCursor, load_run};
use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::column_family::delta::Delta;
use crate::column_family::hidden::{Hidden, TREE};
use crate::column_family::merge::ABOVE_EVERY_KEY;
use crate::column_family::value::Value;
use crate::column_family::view::FamilyView;
use crate::error::Result;
use crate::memtable::Found;
use crate::page::PageRef;
use crate::sync::Arc;
use crate::sync::epoch::Guard;

impl FamilyView {
    /// The value of `key` at `at`. Lock-free; a cached key costs one search per memtable that may hold it and one descent.
    pub(crate) fn get(&self, key: &[u8], at: SequenceNumber, guard: &Guard) -> Result<Option<Value>> {
        if let Some(found) = self.in_memtables(key, at) {
            return Ok(match found {
                Found::Put(bytes) => Some(Value::copy(bytes)),
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
            Some(Found::Put(_)) => Ok(true),
            Some(Found::Deleted) => Ok(false),
            None => Ok(!matches!(self.in_trees(key, guard)?, None | Some(FoundValue::Deletion))),
        }
    }

    #[inline]
    fn in_memtables(&self, key: &[u8], at: SequenceNumber) -> Option<Found<'_>> {
        self.memtables().find_map(|table| table.get(key, at))
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
    /// memtables and deltas. Costs a look-up in the tree for each such key, and for each such range that holds any of the tree's keys.
    pub(crate) fn len(&self, at: SequenceNumber) -> Result<u64> {
        let (tree, store) = (&self.tree.tree, self.family.store());
        let tables: Vec<_> = self.memtables().collect();
        let mut hidden = Hidden::at(at);
        tables.iter().enumerate().for_each(|(age, table)| hidden.add(age, table));
        let mut count = tree.entries.saturating_sub(self.hidden_in_tree(&hidden)?);
        // What is newer speaks for a key if it says anything of it.
        let mut correct = |key: &[u8], has_value: bool| -> Result<()> {
            let guard = crate::sync::epoch::pin();
            let counted = !hidden.covers(key, TREE) && tree.contains(store, key, &guard)?;
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

    /// Entries of the tree that are hidden. Hidden ranges between two keys of the tree are sought over together.
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
        let guard = crate::sync::epoch::pin();
        for delta in deltas.iter().filter(|delta| delta.may_hold(key)) {
            if delta.tree.get(self.family.store(), key, &guard)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
