//! Point reads, counts: what needs no cursor.

use crate::btree::{FoundValue, load_run};
use crate::codec::ids::SequenceNumber;
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
        let store = self.family.store();
        let Some(found) = self.tree.tree.get(store, key, guard)? else { return Ok(None) };
        let value = match found {
            FoundValue::Inline(PageRef::Run(run), range) if !Value::is_small(range.len()) => {
                Value::copy(&run[range])
            }
            FoundValue::Inline(page, range) => Value::copy(&page[range]),
            FoundValue::Run(pointer, len) => {
                let page = load_run(store, pointer, len)?;
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
            None => self.tree.tree.contains(self.family.store(), key, guard),
        }
    }

    #[inline]
    fn in_memtables(&self, key: &[u8], at: SequenceNumber) -> Option<(&Arc<Memtable>, Found<'_>)> {
        self.memtables().find_map(|table| Some((table, table.get(key, at)?)))
    }

    /// Entries at `at`, exactly: what the tree counts outside of the ranges that memtables delete, corrected by every key in the
    /// memtables. Costs a look-up in the tree for each such key.
    pub(crate) fn len(&self, at: SequenceNumber) -> Result<u64> {
        let (tree, store) = (&self.tree.tree, self.family.store());
        let tables: Vec<_> = self.memtables().collect();
        let hidden = hidden_ranges(tables.iter().copied(), at);
        let mut count = tree.entries;
        for (start, end) in hidden.iter() {
            let end = (end != ABOVE_EVERY_KEY).then_some(end);
            count = count.saturating_sub(tree.count_range(store, Some(start), end)?);
        }
        for (age, table) in tables.iter().enumerate() {
            let mut cursor = table.cursor(at);
            let mut on = cursor.first();
            while on {
                let key = cursor.key();
                // A newer memtable speaks for the key if it says anything of it.
                if !tables[..age].iter().any(|newer| newer.get(key, at).is_some()) {
                    let guard = crate::sync::epoch::pin();
                    let counted = hidden.covering(key).is_none() && tree.contains(store, key, &guard)?;
                    match cursor.found() {
                        Found::Put(_) if !counted => count += 1,
                        Found::Deleted if counted => count = count.saturating_sub(1),
                        _ => {}
                    }
                }
                on = cursor.next();
            }
        }
        Ok(count)
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
